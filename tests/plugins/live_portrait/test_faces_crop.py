"""The upright square of a face: where it lies, sampling, pasting back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mixtura.errors import DataError
from mixtura_live_portrait.faces import crop as crops
from mixtura_live_portrait.faces.crop import Framing, Square, as_frames, as_tensor, crop, moved, paste, soft_mask, square
from mixtura_live_portrait.faces.layouts import Points, axis


def face(turn: float = 0.0, at: tuple[float, float] = (200.0, 150.0), size: float = 100.0) -> Points:
    """68 landmarks: a box from -1 to 1, eyes at y -0.2, lips at y 0.5; turned by degrees clockwise, scaled, moved."""
    points = np.random.default_rng(3).uniform(-0.9, 0.9, (68, 2))
    points[:2] = [[-1, -1], [1, 1]]
    points[[36, 39, 42, 45]] = [[-0.5, -0.2], [-0.3, -0.2], [0.3, -0.2], [0.5, -0.2]]
    points[[48, 54]] = [[-0.3, 0.5], [0.3, 0.5]]
    angle = math.radians(turn)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (points * size / 2 @ rotation + at).astype(np.float32)


def smooth_frame(height: int = 300, width: int = 400) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x / width * 255, y / height * 255, 127 + 60 * np.sin(x / 40) * np.cos(y / 50)], -1).astype(np.uint8)


@pytest.mark.parametrize("turn", [0.0, 30.0, -75.0, 180.0])
def test_the_square_encloses_all_landmarks_and_turns_with_the_face(turn: float) -> None:
    found = square(face(turn), Framing(1.0))
    assert found.side == pytest.approx(100, rel=1e-4)
    assert (found.x, found.y) == (pytest.approx(200, abs=1e-3), pytest.approx(150, abs=1e-3))
    assert (found.angle - turn) % 360 == pytest.approx(0, abs=1e-3) or (found.angle - turn) % 360 == pytest.approx(360, abs=1e-3)


def test_scale_and_shift_go_along_the_face() -> None:
    found = square(face(90.0), Framing(2.0, 0.1, -0.25))
    # turned clockwise by 90 degrees, the face's right is the frame's down and its down the frame's left
    assert (found.side, found.x, found.y) == (
        pytest.approx(200, rel=1e-4),
        pytest.approx(250, abs=1e-2),
        pytest.approx(170, abs=1e-2),
    )


def test_without_upright_the_square_stays_parallel_to_the_frame() -> None:
    assert square(face(30.0), Framing(2.2, upright=False)).angle == 0


def test_in_the_crop_eyes_are_above_lips() -> None:
    landmarks = face(50.0)
    inside = moved(landmarks, square(landmarks).to_crop(256))
    eyes, lip = axis(inside)
    assert lip[0] == pytest.approx(eyes[0], abs=1e-2)
    assert lip[1] > eyes[1]
    assert (inside >= 0).all()
    assert (inside <= 256).all()


@given(st.floats(-1000, 1000), st.floats(-1000, 1000), st.floats(1, 2000), st.floats(-360, 360), st.integers(1, 1024))
def test_the_way_back_undoes_the_way_there(x: float, y: float, side: float, angle: float, pixels: int) -> None:
    found = Square(x, y, side, angle)
    np.testing.assert_allclose(found.to_crop(pixels) @ found.to_frame(pixels), np.eye(3), atol=1e-6)


def test_corners_go_round_from_the_upper_left() -> None:
    np.testing.assert_allclose(Square(10, 20, 4).corners(), [[8, 18], [12, 18], [12, 22], [8, 22]], atol=1e-5)
    np.testing.assert_allclose(Square(10, 20, 4, 90).corners()[0], [12, 18], atol=1e-5)


def test_the_mean_square_stands_still() -> None:
    assert crops.mean_square([Square(0, 0, 10, 20), Square(10, 20, 30, -40)]) == Square(5, 10, 20, 0)
    with pytest.raises(DataError, match="at least one frame"):
        crops.mean_square([])


def test_landmarks_without_extent_or_with_nan_are_refused() -> None:
    with pytest.raises(DataError, match="all lie at"):
        square(np.ones((68, 2), np.float32))
    broken = face()
    broken[3] = np.nan
    with pytest.raises(DataError, match="NaN"):
        square(broken)


def test_a_crop_of_the_whole_frame_is_the_frame() -> None:
    frame = smooth_frame(64, 64)
    np.testing.assert_array_equal(as_frames(crop(frame, Square(32, 32, 64).to_frame(64), 64))[0], frame)


def test_a_quarter_turn_is_exact() -> None:
    frame = smooth_frame(64, 64)
    turned = as_frames(crop(frame, Square(32, 32, 64, 90).to_frame(64), 64))[0]
    np.testing.assert_allclose(turned.astype(int), np.rot90(frame).astype(int), atol=1)


def test_outside_the_frame_is_black() -> None:
    white = np.full((40, 40, 3), 255, np.uint8)
    picture = as_frames(crop(white, Square(0, 0, 40).to_frame(40), 40))[0]
    assert picture[:19].max() == picture[:, :19].max() == 0
    assert picture[21:, 21:].min() == 255
    assert crop(white, Square(500, 500, 40).to_frame(40), 40).abs().max() == 0


def test_shrinking_turns_fine_stripes_grey() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    small = crop(stripes, Square(128, 128, 256).to_frame(64), 64)
    assert small.sub(0.5).abs().max() < 0.01
    assert crop(stripes, Square(128, 128, 256).to_frame(64), 64, finest=1).sub(0.5).abs().max() < 0.01  # falls between two
    assert crop(stripes, Square(127.5, 128, 256).to_frame(64), 64, finest=1).sub(0.5).abs().max() > 0.4


def test_the_part_of_a_frame_that_is_converted_is_enough() -> None:
    frame = smooth_frame()
    there = Square(210, 140, 90, 33).to_frame(48)
    whole = crops.warp(as_tensor(frame), there, (48, 48))
    torch.testing.assert_close(crop(frame, there, 48)[0], whole, atol=1e-5, rtol=0)


def test_frames_and_matrices_go_together_one_by_one() -> None:
    frames = np.stack([smooth_frame(), smooth_frame()[::-1]])
    matrices = np.stack([Square(100, 100, 80).to_frame(16), Square(200, 150, 60, 20).to_frame(16)])
    both = crop(frames, matrices, 16)
    assert both.shape == (2, 3, 16, 16)
    torch.testing.assert_close(both[1], crop(frames[1], matrices[1], 16)[0])
    torch.testing.assert_close(crop(frames[0], matrices, 16)[1], crop(frames[0], matrices[1], 16)[0])


def test_frames_that_are_no_rgb_are_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        as_tensor(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]


def test_the_mask_is_whole_inside_and_nothing_at_the_rim() -> None:
    mask = soft_mask(128)
    assert mask[64, 64] == 1
    assert mask[64, 20] == 1
    assert mask[0].max() < 0.01
    assert mask[0, 0] == mask[6, 6] == 0
    torch.testing.assert_close(mask, mask.T)
    assert soft_mask(128, power=2)[20, 20] < soft_mask(128, power=8)[20, 20]
    with pytest.raises(DataError, match="soft 0"):
        soft_mask(8, soft=0)


def test_pasting_an_unchanged_crop_gives_the_frame_back() -> None:
    frame, there = smooth_frame(), Square(210, 140, 120, 25).to_frame(256)
    back = paste(crop(frame, there, 256)[0], frame, there, soft_mask(256))
    assert np.abs(back.astype(int) - frame).max() <= 3
    assert np.abs(back.astype(int) - frame).mean() < 0.05


def test_pasting_changes_nothing_outside_the_square_and_not_its_input() -> None:
    frame, found = smooth_frame(), Square(210, 140, 120, 25)
    before = frame.copy()
    pasted = paste(torch.ones(3, 64, 64), frame, found.to_frame(64), soft_mask(64))
    np.testing.assert_array_equal(frame, before)
    y, x = np.mgrid[:300, :400] + 0.5
    inside = moved(np.stack([x, y], -1).astype(np.float32), found.to_crop(64))
    is_outside = ((inside < -1) | (inside > 65)).any(-1)
    np.testing.assert_array_equal(pasted[is_outside], frame[is_outside])
    assert (pasted[140, 210] == 255).all()


def test_pasting_clips_what_the_network_overshoots() -> None:
    frame = smooth_frame()
    there, half = Square(210, 140, 120).to_frame(64), torch.full((64, 64), 0.5)
    pasted = paste(torch.full((3, 64, 64), 7.0), frame, there, half)
    np.testing.assert_allclose(pasted[140, 210], 127.5 + frame[140, 210] / 2, atol=1)


def test_a_square_beside_the_frame_pastes_nothing() -> None:
    frame = smooth_frame()
    np.testing.assert_array_equal(paste(torch.ones(3, 8, 8), frame, Square(900, 900, 50).to_frame(8), soft_mask(8)), frame)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="mask"):
        paste(torch.ones(3, 8, 8), smooth_frame(), Square(50, 50, 20).to_frame(8), soft_mask(16))
