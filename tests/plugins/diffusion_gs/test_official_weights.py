"""Published files go in and out by command: `mixtura export`, `init_from`, `--dry-run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mixtura.checkpoint import load_system
from mixtura.cli import main
from mixtura.errors import CheckpointError
from mixtura_diffusion_gs.system import DiffusionGS

CONFIG = """
system: {type: diffusion_gs, kinds: [object], width: 32, layers: 2, head_dim: 16, patch: 4, image_size: 16, steps: 3}
run: {name: official}
stages: [{name: all, steps: 1, mixture: {objects: 1}}]
sources: {objects: {type: views, path: data, kind: object, size: 16}}
"""


@pytest.fixture
def official(build: Callable[..., DiffusionGS], tmp_path: Path) -> DiffusionGS:
    """A system whose weights lie in tmp_path/official.ckpt, and a configuration that fits."""
    system = build(kinds=["object"])
    system.save_published(tmp_path / "official.ckpt")
    (tmp_path / "c.yaml").write_text(CONFIG)
    return system


def test_export_fills_a_configuration_from_a_published_file_without_its_data(
    official: DiffusionGS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "c.yaml", "out", "--weights", "official.ckpt"]) == 0
    loaded, _ = load_system(tmp_path / "out")
    own = official.state_dict()
    assert all(torch.equal(own[name], value) for name, value in loaded.state_dict().items())


def test_inference_needs_no_weights_of_the_perceptual_loss(
    official: DiffusionGS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lpips = "system.perceptual={type: lpips, trunk: none.pth, heads: none.pth}"
    assert main(["export", "c.yaml", "out", "--weights", "official.ckpt", lpips]) == 0
    loaded, _ = load_system(tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"perceptual: no file .*none.pth"):
        loaded.start_stage("all", {}, tmp_path)


def test_a_run_starts_from_a_published_file(official: DiffusionGS, tmp_path: Path) -> None:
    from mixtura.checkpoint import init_from

    other = DiffusionGS(official.config)
    assert "published weights taken" in init_from(other, tmp_path / "official.ckpt")
    assert torch.equal(other.denoiser.gaussians_pos_embedding, official.denoiser.gaussians_pos_embedding)


def test_a_dry_run_tells_what_fits(official: DiffusionGS, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(tmp_path / "c.yaml")
    assert main(["train", config, "--root", str(tmp_path), "--dry-run", "init_from=official.ckpt"]) == 0
    assert "every tensor fits" in capsys.readouterr().out
    assert main(["train", config, "--root", str(tmp_path), "--dry-run", "init_from=official.ckpt", "system.width=64"]) == 0
    assert "mismatched" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["export", "c.yaml", "out"], "--weights FILE"),
        (["export", "c.yaml", "out", "--weights", "none.ckpt"], "none.ckpt"),
        (["export", "c.yaml", "out", "--weights", "official.ckpt", "--published"], "without --published"),
    ],
)
def test_wrong_exports_say_what_is_missing(
    official: DiffusionGS,
    words: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) != 0
    assert text in capsys.readouterr().err
