"""Detectors by name, the choice among faces, following one through a clip."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from mixtura.errors import DataError, MixturaError
from mixtura_live_portrait.faces.crop import Frame
from mixtura_live_portrait.faces.detector import Face, NoFace, make, ordered
from mixtura_live_portrait.faces.tracking import Tracker, Tracking, track

BLANK = np.zeros((100, 100, 3), np.uint8)


def face(x: float, y: float = 50.0, size: float = 10.0) -> Face:
    return Face.of(np.array([[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]], np.float32) * size / 2 + [x, y])


class Scripted:
    """Gives a list of faces for each frame: the number in the frame's first pixel tells which."""

    def __init__(self, *answers: list[Face]) -> None:
        self.answers = answers

    def find(self, frame: Frame) -> list[Face]:
        return self.answers[int(frame[0, 0, 0])]

    @property
    def frames(self) -> Iterator[Frame]:
        for number in range(len(self.answers)):
            frame = BLANK.copy()
            frame[0, 0, 0] = number
            yield frame


def scripted(threshold: float = 0.5) -> Scripted:
    return Scripted([face(10)]) if threshold else Scripted()


def nothing() -> int:
    return 3


def test_faces_are_ordered_as_asked() -> None:
    left, middle, right = face(10, 30, 5), face(50, 20, 20), face(90, 10, 10)
    assert ordered([left, right, middle]) == [middle, right, left]
    assert ordered([right, left, middle], "left-right") == [left, middle, right]
    assert ordered([left, middle, right], "top-bottom") == [right, middle, left]
    with pytest.raises(DataError, match="'sideways'"):
        ordered([left], "sideways")


def test_a_face_knows_its_box_and_layout() -> None:
    found = face(20, 40, 10)
    np.testing.assert_allclose(found.box, [15, 35, 25, 45])
    assert (found.area, found.centre, found.layout) == (100, (20, 40), "5")
    shifted = found.through(np.array([[1, 0, 3], [0, 1, 0], [0, 0, 1]], float))
    assert shifted.centre == (23, 40)


def test_plugins_are_detectors_too() -> None:
    detector = make(f"{__name__}:scripted", threshold=0.4)
    assert len(detector.find(BLANK)) == 1


def test_names_and_settings_that_dont_exist_are_named() -> None:
    with pytest.raises(DataError, match=r"no detector is called 'dlib'.*mesh, onnx"):
        make("dlib")
    with pytest.raises(DataError, match="can't be loaded"):
        make("nowhere.at.all:make")
    with pytest.raises(DataError, match="colour"):
        make("mesh", colour="red")
    with pytest.raises(MixturaError, match=r"int, which has no find"):
        make(f"{__name__}:nothing")


def test_a_folder_means_the_official_models() -> None:
    with pytest.raises(DataError, match=r"landmark\.onnx"):
        make(folder="/nonexistent")


def test_a_missing_face_is_named_by_frame_and_file() -> None:
    script = Scripted([face(50)], [face(50)], [])
    with pytest.raises(NoFace, match=r"^no face found in frame 2 of talk\.mp4; pass landmarks or a crop$"):
        list(track(script.frames, script, file="talk.mp4"))
    assert str(NoFace(None)) == "no face found; pass landmarks or a crop"


def test_short_gaps_are_bridged_on_request() -> None:
    script = Scripted([face(50)], [], [face(52)], [], [])
    tracker = Tracker(script, Tracking(gaps=1))
    frames = list(script.frames)
    assert [tracker.step(frame).centre[0] for frame in frames[:4]] == [50, 50, 52, 52]
    with pytest.raises(NoFace, match="frame 4"):
        tracker.step(frames[4])


def test_the_first_frame_must_have_a_face_whatever_the_gaps() -> None:
    script = Scripted([], [face(50)])
    with pytest.raises(NoFace, match="frame 0"):
        list(track(script.frames, script, Tracking(gaps=5)))


def test_the_same_person_is_followed_when_another_becomes_larger() -> None:
    script = Scripted([face(20, size=20), face(70, size=10)], [face(22, size=12), face(70, size=30)], [face(24, size=12)])
    assert [found.centre[0] for _, found in track(script.frames, script)] == [20, 22, 24]
    second = Tracking(order="left-right", index=1)
    with pytest.raises(NoFace, match="frame 2"):
        list(track(script.frames, script, second))


def test_smoothing_lets_large_movements_through() -> None:
    near, far = Scripted([face(50, size=40)], [face(50.2, size=40)]), Scripted([face(50, size=40)], [face(60, size=40)])
    shift = [list(track(script.frames, script, Tracking(smooth=0.8)))[-1][1].centre[0] - 50 for script in (near, far)]
    assert shift[0] < 0.1
    assert shift[1] > 9


def test_an_empty_clip_and_senseless_settings_are_refused() -> None:
    with pytest.raises(DataError, match=r"empty\.mp4: no frame at all"):
        list(track([], Scripted(), file="empty.mp4"))
    with pytest.raises(DataError, match="smooth 1"):
        Tracker(Scripted(), Tracking(smooth=1.0))
