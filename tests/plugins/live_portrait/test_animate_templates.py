"""Motion templates as files: what was saved comes back, and nothing else is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mixtura.errors import DataError
from mixtura_live_portrait.animate.templates import FORMAT, Template, fingerprint, load, save
from mixtura_live_portrait.nets.motion import MotionExtractor
from mixtura_live_portrait.nets.sizes import TINY
from tests.plugins.live_portrait.animate_tools import movement

RATIOS = torch.tensor([[0.1, 0.2, 0.3]]).repeat(5, 1)


def template(frames: int = 5, keypoints: int = 21, **changes: Any) -> Template:
    return Template(
        **{"movement": movement(frames, keypoints), "ratios": RATIOS[:frames], "fps": 29.97, "networks": "ab"} | changes
    )


def rewritten(path: Path, header: dict[str, Any] | None = None, **tensors: Any) -> Path:
    """The file with parts of its header and some tensors changed (None: left out)."""
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()[FORMAT])
    values = {name: value for name, value in (load_file(path) | tensors).items() if value is not None}
    save_file(values, path, {FORMAT: json.dumps(about | (header or {}))})
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "wave.safetensors"
    save(template(), path)
    return path


def test_a_template_comes_back_as_it_was(saved: Path) -> None:
    back, kept = load(saved, 21, "ab"), template()
    for name, value in kept.movement._asdict().items():
        torch.testing.assert_close(getattr(back.movement, name), value)
    torch.testing.assert_close(back.ratios, kept.ratios)
    assert (len(back), back.fps, back.networks, back.is_picture) == (5, 29.97, "ab", False)
    assert [path.name for path in saved.parent.iterdir()] == ["wave.safetensors"]


def test_the_file_holds_what_others_need(saved: Path) -> None:
    tensors = load_file(saved)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "scale": (5, 1), "R": (5, 3, 3), "exp": (5, 21, 3), "t": (5, 3), "kp": (5, 21, 3), "x_s": (5, 21, 3),
        "eyes": (5, 2), "lips": (5, 1),
    }  # fmt: skip
    torch.testing.assert_close(tensors["x_s"], template().movement.keypoints())


def test_unknown_ratios_are_kept_as_unknown(tmp_path: Path) -> None:
    save(template(ratios=torch.full((5, 3), float("nan"))), tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").ratios.isnan().all()


def test_another_number_of_keypoints_is_refused(saved: Path) -> None:
    with pytest.raises(DataError, match="of 21 keypoints, but these networks have 10"):
        load(saved, 10)


def test_another_motion_network_is_refused_where_both_are_known(saved: Path) -> None:
    with pytest.raises(DataError, match=r"another motion network \(ab, here cd\)"):
        load(saved, 21, "cd")
    rewritten(saved, {"networks": ""})
    assert load(saved, 21, "cd").networks == ""


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_another_version_is_refused(saved: Path, version: Any) -> None:
    with pytest.raises(DataError, match="of version .*, expected 1; make it again"):
        load(rewritten(saved, {"version": version}))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"frames": 0}, "no right frames"),
        ({"keypoints": "21"}, "no right keypoints"),
        ({"frames": True}, "no right frames"),
        ({"fps": 0}, "no right fps"),
        ({"fps": None, "networks": 3}, "no right fps, networks"),
        ({"frames": 6}, "`scale` is F32"),
        ({"keypoints": 20}, "`exp` is F32"),
    ],
)
def test_a_header_that_doesnt_fit_is_told(saved: Path, header: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load(rewritten(saved, header))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"exp": None}, r"without \['exp'\]"),
        ({"more": torch.zeros(1)}, r"\['more'\] unknown"),
        ({"t": torch.zeros(5, 3, dtype=torch.float64)}, "`t` is F64"),
        ({"t": torch.full((5, 3), float("nan"))}, "NaN or infinity in the template's t"),
        ({"scale": torch.zeros(5, 1)}, "scale of 0"),
        ({"R": torch.zeros(5, 3, 3)}, "no rotations"),
        ({"x_s": torch.zeros(5, 21, 3)}, "`x_s`"),
    ],
)
def test_damaged_tensors_are_told(saved: Path, tensors: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load(rewritten(saved, **tensors))


def test_a_truncated_file_is_told(saved: Path) -> None:
    content = saved.read_bytes()
    for length in (0, 5, 100, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(DataError, match="not a whole safetensors file"):
            load(saved)


def test_other_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "none.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "net.safetensors")
    with pytest.raises(DataError, match="no motion template"):
        load(tmp_path / "net.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "bad.safetensors", {FORMAT: "{"})
    with pytest.raises(DataError, match="isn't JSON"):
        load(tmp_path / "bad.safetensors")


def test_a_template_can_be_shortened_and_resampled() -> None:
    kept = template(fps=10.0)
    assert len(kept.first(2)) == 2
    assert kept.at_rate(10.0) is kept
    twice = kept.at_rate(20.0)
    assert (len(twice), twice.fps) == (10, 20.0)
    torch.testing.assert_close(twice.movement.t[::2], kept.movement.t)
    torch.testing.assert_close(kept.at_rate(5.0).movement.t, kept.movement.t[[0, 2]])
    assert len(template(1).at_rate(25.0)) == 1


def test_fingerprints_tell_motion_networks_apart() -> None:
    torch.manual_seed(0)
    first, second = MotionExtractor(TINY), MotionExtractor(TINY)
    assert fingerprint(first) == fingerprint(first) != fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second)
