"""Where faces are in pictures and clips, for sources and drivings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixtura.errors import DataError
from mixtura_live_portrait.animate.looking import DRIVINGS, How, look, look_for_several, whole
from mixtura_live_portrait.faces.crop import DRIVING, SOURCE, Frame, Square, square
from mixtura_live_portrait.faces.detector import Face, NoFace
from mixtura_live_portrait.faces.given import Given
from mixtura_live_portrait.faces.tracking import Tracking
from tests.plugins.live_portrait.animate_tools import Fixed, face, face_68, picture

FRAMES = [picture(seed) for seed in range(3)]


def test_each_frame_gets_the_square_of_its_face() -> None:
    found = look(FRAMES, Fixed(face_68()))
    assert found.squares == (square(face_68().landmarks, SOURCE),) * 3
    torch.testing.assert_close(found.ratios, torch.tensor([[0.2, 0.2, 0.2]]).expand(3, 3), atol=0.11, rtol=0)
    assert found.landmarks is not None


def test_drivings_are_framed_in_their_own_way_and_stand_still() -> None:
    given = Given([face(60), face(100)], [])
    found = look(FRAMES[:2], None, How(DRIVING, given=given)).still()
    left, right = (square(entry.landmarks, DRIVING) for entry in given.faces)
    assert found.squares == (Square((left.x + right.x) / 2, left.y, left.side),) * 2


def test_a_driving_picture_stays_turned() -> None:
    turned = Face.of(face().landmarks[:, ::-1].copy())
    assert look(FRAMES[:1], Fixed(turned), DRIVINGS).still().squares[0].angle != 0


def test_landmarks_without_lids_leave_the_ratios_unknown() -> None:
    assert look(FRAMES, Fixed(face())).ratios.isnan().all()


def test_squares_by_hand_need_no_detector() -> None:
    given = Given([], [Square(50, 60, 70, 5)], "crops.json")
    found = look(FRAMES, None, How(given=given))
    assert found.squares == tuple(given.squares) * 3
    assert found.ratios.isnan().all()


def test_landmarks_by_hand_take_the_detectors_place() -> None:
    given = Given([face_68(100)], [])
    assert look(FRAMES, Fixed(face_68(50)), How(given=given)).squares[0] == square(face_68(100).landmarks)


def test_files_for_another_number_of_frames_are_told() -> None:
    for count in (2, 5):
        with pytest.raises(DataError, match=r"marks.json.*frames"):
            look(FRAMES, None, How(given=Given([face()] * count, [], "marks.json")))


def test_a_whole_frame_needs_no_face() -> None:
    found = look(FRAMES, Fixed(), How(crop="whole"))
    assert found.squares[0] == whole(FRAMES[0]) == Square(100, 80, 160)
    assert found.ratios.isnan().all()
    assert look(FRAMES, Fixed(face_68()), How(crop="whole")).ratios.isfinite().all()
    assert len(look(FRAMES, None, How(crop="whole"))) == 3


def test_one_of_several_faces_is_followed() -> None:
    faces = Fixed(face(50, size=20), face(120, size=50), face(160, size=30))
    right = How(tracking=Tracking(order="left-right", index=2))
    assert look(FRAMES, faces, right).squares[0] == square(face(160, size=30).landmarks)


@pytest.mark.parametrize("frames", [FRAMES, FRAMES[:1]])
def test_several_faces_are_counted_in_their_order(frames: list[Frame]) -> None:
    faces = Fixed(face(120, size=50), face(50, size=20), face(160, size=30))

    def found(index: int, count: int | None) -> list[float]:
        how = How(tracking=Tracking(order="left-right", index=index), file="us.png")
        return [round(looked.squares[-1].x) for looked in look_for_several(frames, faces, how, count)]

    assert found(0, None) == [50, 120, 160]
    assert found(1, None) == [120, 160]
    assert found(0, 2) == [50, 120]
    assert found(2, 1) == [160]
    for index, count in ((2, 2), (3, None)):
        with pytest.raises(DataError, match=f"us.png: .* from number {index} on were asked for, but there are 3 faces"):
            found(index, count)


def test_landmarks_by_hand_are_those_of_one_face() -> None:
    how = How(given=Given([face()], []))
    assert len(look_for_several(FRAMES[:1], None, how)) == 1
    with pytest.raises(DataError, match="2 faces, but landmarks"):
        look_for_several(FRAMES[:1], None, how, 2)


def test_no_face_no_frame_and_no_means_are_told() -> None:
    with pytest.raises(NoFace, match="no face found in frame 0 of me.png; pass landmarks or a crop"):
        look(FRAMES, Fixed(), How(file="me.png"))
    with pytest.raises(NoFace, match="of me.png"):
        look_for_several(FRAMES, Fixed(), How(file="me.png"))
    with pytest.raises(DataError, match="no frame at all"):
        look([], Fixed(face()))
    with pytest.raises(DataError, match="no detector"):
        look(FRAMES, None)


def test_a_frame_that_lost_the_face_is_bridged_when_asked() -> None:
    class Blinks:
        def find(self, frame: np.ndarray) -> list[Face]:
            return [] if frame is FRAMES[1] else [face()]

    with pytest.raises(NoFace, match="frame 1"):
        look(FRAMES, Blinks())
    assert len(look(FRAMES, Blinks(), How(tracking=Tracking(gaps=1)))) == 3
