"""Landmarks and crops by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixtura.errors import DataError
from mixtura_live_portrait.faces.crop import Square
from mixtura_live_portrait.faces.detector import Face
from mixtura_live_portrait.faces.given import read_given, write_landmarks

POINTS = np.random.default_rng(0).uniform(0, 100, (3, 68, 2)).astype(np.float32)


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["talk.json", "talk.npz"])
def test_what_was_written_is_read_again(tmp_path: Path, name: str) -> None:
    write_landmarks(tmp_path / name, [Face.of(points) for points in POINTS])
    given = read_given(tmp_path / name)
    assert len(given) == 3
    found = given.face(2)
    assert found is not None
    np.testing.assert_allclose(found.landmarks, POINTS[2], atol=1e-3)
    assert given.square(0) is None
    given.check(3)


def test_landmarks_of_one_picture_serve_every_frame(tmp_path: Path) -> None:
    given = read_given(written(tmp_path / "one.json", {"landmarks": POINTS[0].tolist()}))
    given.check(500)
    assert given.face(0) is given.face(499)


def test_crops_are_squares_with_or_without_an_angle(tmp_path: Path) -> None:
    given = read_given(written(tmp_path / "crops.json", {"crops": [[10, 20, 30], [11, 21, 31]]}))
    assert given.square(1) == Square(11, 21, 31)
    assert given.face(1) is None
    assert read_given(written(tmp_path / "turned.json", {"crops": [1, 2, 3, 45]})).square(7) == Square(1, 2, 3, 45)


def test_a_number_of_frames_that_doesnt_fit_is_refused(tmp_path: Path) -> None:
    given = read_given(written(tmp_path / "three.json", {"landmarks": POINTS.tolist()}))
    with pytest.raises(DataError, match=r"landmarks of 3 frames for a clip of 5"):
        given.check(5)
    with pytest.raises(DataError, match="frame 3 was asked for"):
        given.face(3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"points": []}, "neither landmarks nor crops"),
        ([1, 2], "neither landmarks nor crops"),
        ({"landmarks": POINTS.tolist(), "crops": [1, 2, 3]}, "landmarks and crops"),
        ({"landmarks": [[[1, 2]], [[1, 2], [3, 4]]]}, "regular list"),
        ({"landmarks": [[1, 2], [3, "x"]]}, "regular list"),
        ({"landmarks": POINTS[:, :7].tolist()}, "with L one of"),
        ({"landmarks": [float("nan")] * 2}, "NaN"),
        ({"landmarks": [1, 2, 3]}, "expected \\(frames"),
        ({"crops": [[1, 2]]}, "x, y, side"),
        ({"crops": [[1, 2, 0]]}, "side > 0"),
    ],
)
def test_other_content_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_given(written(tmp_path / "bad.json", content))


def test_files_that_are_neither_are_named(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{")
    (tmp_path / "no.npz").write_text("{")
    np.savez(tmp_path / "objects.npz", landmarks=np.array([{}], object), allow_pickle=True)
    for name, message in (
        ("no.json", "not JSON"),
        ("no.npz", "not an npz"),
        ("objects.npz", "not an npz"),
        ("gone.json", "no such file"),
    ):
        with pytest.raises(DataError, match=message):
            read_given(tmp_path / name)
