"""Official templates: read only when told so, without running what is in them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixtura.errors import DataError
from mixtura_live_portrait.animate.inert import numbers, read_pickle
from mixtura_live_portrait.animate.official import convert, main, read
from mixtura_live_portrait.animate.templates import load
from tests.plugins.live_portrait.animate_tools import movement

MOVED = movement(3)


def content(older: bool = False, **changes: Any) -> dict[str, Any]:
    """An official template's layout."""
    names = {"kp": "kp", "R": "R_d" if older else "R", "exp": "exp", "t": "t", "scale": "scale"}
    frames = [
        {theirs: tensor[i : i + 1].numpy() for theirs, tensor in zip(names.values(), MOVED, strict=True)}
        | {"x_s": MOVED.keypoints()[i : i + 1].numpy()}
        for i in range(3)
    ]
    d = "d_" if older else ""
    eyes, lips = [np.full((1, 2), 0.3, np.float32)] * 3, [np.full((1, 1), 0.1, np.float32)] * 3
    whole = {"n_frames": 3, "output_fps": 25, "motion": frames, f"c_{d}eyes_lst": eyes, f"c_{d}lip_lst": lips}
    return {name: value for name, value in (whole | changes).items() if value is not None}


def written(path: Path, value: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "wave.pkl"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("older", [True, False])
def test_an_official_template_becomes_ours(file: Path, protocol: int, older: bool) -> None:
    out = file.with_suffix(".safetensors")
    convert(written(file, content(older), protocol), out, unsafe=True)
    template = load(out, 21)
    torch.testing.assert_close(template.movement.keypoints(), MOVED.keypoints())
    torch.testing.assert_close(template.ratios, torch.tensor([[0.3, 0.3, 0.1]]).expand(3, 3))
    assert template.fps == 25


def test_names_of_older_numpy_are_known(file: Path) -> None:
    old = pickle.dumps(content(), 4).replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    assert b"numpy.core" in old
    file.write_bytes(b"\x80\x03" + old[11:])  # without the frame, whose length is no longer right
    assert len(read(file, unsafe=True)) == 3


def test_nothing_is_read_unless_told(file: Path) -> None:
    with pytest.raises(DataError, match="pickles, files that can run programs.*--unsafe"):
        read(written(file, content()))
    with pytest.raises(SystemExit, match="--unsafe"):
        main([str(file), str(file.with_suffix(".safetensors"))])
    assert not file.with_suffix(".safetensors").exists()


def test_the_command_converts(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--unsafe", str(written(file, content())), str(file.with_suffix(".safetensors"))])
    assert "3 frames at 25 a second" in capsys.readouterr().out


class Runs:
    """Pickled, it wants a function to be called."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.call = (function, given)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_hostile_pickle_runs_nothing(file: Path, protocol: int) -> None:
    trace = file.parent / "ran"
    for hostile in (
        Runs(os.system, f"touch {trace}"),
        Runs(eval, f"open({str(trace)!r}, 'w')"),
        Runs(open, str(trace), "w"),
        Runs(np.load, str(trace)),
        Runs(getattr, "text", "upper"),
    ):
        for value in (hostile, content(c_lip_lst=[hostile]), {"motion": [{"kp": hostile}]}):
            with pytest.raises(DataError, match="Nothing of it was run"):
                read(written(file, value, protocol), unsafe=True)
    assert not trace.exists()


def test_raw_programs_run_nothing(file: Path) -> None:
    trace = file.parent / "ran"
    touch = f"touch {trace}".encode()
    for program in (
        b"cos\nsystem\n(S'" + touch + b"'\ntR.",
        b"(S'" + touch + b"'\nios\nsystem\n.",
        b"cnumpy\ndtype\n(dS'__setstate__'\ncos\nsystem\nsb.",  # a change of what the name stands for
        b"cnumpy\ndtype\n}(S'__call__'\nS'x'\nub.",
        b"Psome-id\n.",
        b"\x82\x01.",
    ):
        file.write_bytes(program)
        with pytest.raises(DataError, match="Nothing of it was run"):
            read_pickle(file)
    assert not trace.exists()


def test_what_a_pickle_changes_in_one_reading_is_gone_in_the_next(file: Path) -> None:
    file.write_bytes(b"cnumpy\ndtype\n(dS'name'\nS'empty'\nsb.")
    with pytest.raises(DataError, match="a change of NumPy itself"):
        read_pickle(file)
    assert len(read(written(file, content()), unsafe=True)) == 3


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([None, "x"], object), "something else than plain numbers"),
        (np.array(["text"]), "something else than plain numbers"),
        (np.zeros(2, ">f4"), "another byte order"),
        (np.zeros(2, [("a", "f4")]), "something else than plain numbers"),
        (np.zeros(2, "M8[s]"), "something else than plain numbers"),
        (np.zeros(2, complex), "something else than plain numbers"),
    ],
)
def test_arrays_of_other_things_are_refused(file: Path, array: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(written(file, content(n_frames=array)), unsafe=True)


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.float16(3), 7, 2.5]
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_plain_numbers_of_every_kind_are_read(file: Path, array: Any, protocol: int) -> None:
    np.testing.assert_array_equal(numbers(read_pickle(written(file, array, protocol))), array)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"motion": None}, "no 'motion'"),
        ({"motion": []}, "list of frames"),
        ({"motion": [3] * 3}, "int where names are expected"),
        ({"n_frames": 7}, "there are 3; the file is cut off"),
        ({"output_fps": 0}, "0.0 frames a second"),
        ({"output_fps": "25"}, "str where an array or a number"),
        ({"c_eyes_lst": [np.zeros((1, 2))]}, "one entry for each frame"),
        ({"c_lip_lst": [np.zeros((1, 2))] * 3}, "not an official motion template"),
    ],
)
def test_other_layouts_are_told(file: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(written(file, content(**changes)), unsafe=True)


def test_other_shapes_and_values_are_told(file: Path) -> None:
    for name, value, said in (("R", np.eye(4), "reshape"), ("exp", np.full((1, 21, 3), np.nan), "NaN"), ("t", "x", "str where")):
        broken = content()
        broken["motion"][1][name] = value
        with pytest.raises(DataError, match=rf"wave.pkl.*{said}"):
            read(written(file, broken), unsafe=True)


def test_cut_off_and_missing_files_are_told(file: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(file, unsafe=True)
    whole = pickle.dumps(content())
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a pickle that can be read"):
        read(file, unsafe=True)
