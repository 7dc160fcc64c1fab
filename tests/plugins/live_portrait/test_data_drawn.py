"""Drawn faces: what is seen lies where the landmarks say, and does what pose and expression say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mixtura.rng import KeyedRng
from mixtura_live_portrait import keypoints
from mixtura_live_portrait.data.drawn.backdrop import Scene, draw_scene
from mixtura_live_portrait.data.drawn.clip import DrawnClip
from mixtura_live_portrait.data.drawn.curves import head_now
from mixtura_live_portrait.data.drawn.geometry import View, rotation
from mixtura_live_portrait.data.drawn.identity import Identity, draw_identity
from mixtura_live_portrait.data.drawn.points import COUNT, IRISES, OUTLINE, TIP, head_points, landmarks
from mixtura_live_portrait.data.drawn.rays import Canvas
from mixtura_live_portrait.data.drawn.render import render
from mixtura_live_portrait.data.drawn.state import Expression, Pose, State
from mixtura_live_portrait.data.drawn.surface import head_sheet
from mixtura_live_portrait.data.preview import sheet
from mixtura_live_portrait.faces import layouts

SIZE = 256
NEAR = 1.5
"""Pixels."""
Mask = NDArray[np.bool_]


def somebody(number: int = 0, **changes: object) -> Identity:
    """A grey person without hair, in grey, so that what is coloured can be found."""
    grey = (0.7, 0.7, 0.7)
    plain = {"skin": grey, "hair": grey, "lip": grey, "cloth": grey, "trim": grey, "cut": "bald", "glasses": "none"}
    bare = {"beard": 0.0, "moustache": 0.0, "blush": 0.0, "freckles": 0.0, "iris": grey}
    return replace(draw_identity(0, number), **{**plain, **bare, **changes})


def grey_scene() -> Scene:
    return draw_scene(KeyedRng(0))._replace(wall="gradient", first=(0.5, 0.5, 0.5), second=(0.5, 0.5, 0.5), ambient=0.8)


def seen(who: Identity, pose: Pose, doing: Expression, channel: int) -> tuple[Mask, NDArray[np.float32]]:
    """Where one colour (0 red, 1 green) stands out in a drawing (H, W), and its landmarks."""
    drawn = render(who, State(pose, doing), grey_scene(), SIZE)
    colours = drawn.image.astype(int)
    others = np.delete(colours, channel, -1).max(-1)
    return colours[..., channel] - others > 60, drawn.landmarks


def box(mask: Mask) -> NDArray[np.float64]:
    """x0, y0, x1, y1 of what a mask holds, edges of pixels."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)


def halves(mask: Mask, marks: NDArray[np.float32]) -> tuple[Mask, Mask]:
    """A mask left and right of the nose's root."""
    is_left = np.arange(SIZE)[None, :] < marks[TIP - 6, 0]
    return mask & is_left, mask & ~is_left


POSES = [Pose(), Pose(yaw=20, roll=12, x=0.05), Pose(pitch=-15, yaw=-18, y=-0.1, scale=0.75)]


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("gaze", [-0.6, 0.6])
def test_the_irises_are_seen_where_their_landmarks_are(pose: Pose, gaze: float):
    doing = Expression(eye_left=0.8, eye_right=0.8, gaze_x=gaze)
    mask, marks = seen(somebody(iris=(0.0, 1.0, 0.0)), pose, doing, 1)
    for half, iris in zip(halves(mask, marks), IRISES, strict=True):
        left, top, right, bottom = box(half)
        np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], marks[iris], atol=NEAR)


@pytest.mark.parametrize("doing", [Expression(lips=0.4), Expression(lips=0.0, smile=0.8), Expression(lips=0.2, pucker=1.0)])
def test_the_lips_reach_from_landmark_to_landmark(doing: Expression):
    mask, marks = seen(somebody(lip=(1.0, 0.0, 0.0)), Pose(), doing, 0)
    outer = marks[48:84]
    np.testing.assert_allclose(box(mask), [*outer.min(0), *outer.max(0)], atol=NEAR)


def test_between_the_lips_is_an_opening_from_landmark_to_landmark():
    mask, marks = seen(somebody(lip=(0.0, 1.0, 0.0)), Pose(), Expression(lips=0.6), 1)
    column = np.nonzero(mask[:, round(marks[90, 0])])[0]
    gap = int(np.diff(column).argmax())
    np.testing.assert_allclose([column[gap] + 1, column[gap + 1]], marks[[90, 102], 1], atol=NEAR)


@pytest.mark.parametrize("opening", [0.2, 0.5, 0.8])
def test_the_lids_are_seen_where_their_landmarks_are(opening: float):
    who = somebody()
    who = replace(who, eyes=who.eyes._replace(iris=3.0, lashes=0.0))  # a pupil as large as the eye
    drawn = render(who, State(Pose(), Expression(eye_left=opening, eye_right=opening)), grey_scene(), SIZE)
    for upper, lower in ((6, 18), (30, 42)):
        column = np.nonzero(drawn.image[:, round(drawn.landmarks[upper, 0])].max(-1) < 50)[0]
        found = column[(column > drawn.landmarks[upper, 1] - 10) & (column < drawn.landmarks[lower, 1] + 10)]
        np.testing.assert_allclose([found.min(), found.max() + 1], drawn.landmarks[[upper, lower], 1], atol=NEAR)


def test_the_outline_lies_on_the_edge_of_the_head():
    who, doing = somebody(), Expression(lips=0.3)
    who = replace(who, head=who.head._replace(crown=0.85, chin=1.15, jaw=0.3, point=0.3))
    canvas = Canvas(SIZE)
    head = head_sheet(canvas, View.of(Pose()), head_now(who, doing), np.zeros(3, np.float32))
    assert head is not None
    marks = landmarks(who, State(Pose(), doing), SIZE)[OUTLINE]
    rows, columns = np.nonzero(head.cover > 0.5)
    top, left = head.window[0].start, head.window[1].start
    assert rows.max() + 1 + top == pytest.approx(marks[:, 1].max(), abs=2)
    assert columns.min() + left == pytest.approx(marks[:, 0].min(), abs=2)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.37, 0.8])
def test_opening_ratios_of_landmarks_are_those_asked_for(ratio: float):
    doing = Expression(eye_left=ratio, eye_right=0.5 * ratio, lips=ratio, smile=0.4, pucker=0.3, jaw=0.6)
    for number in range(5):
        flat = head_points(draw_identity(3, number), doing)[:, :2]
        lengths = [np.linalg.norm(flat[a] - flat[b]) for a, b in ((6, 18), (0, 12), (30, 42), (24, 36), (90, 102), (48, 66))]
        np.testing.assert_allclose(np.divide(lengths[::2], lengths[1::2]), [ratio, 0.5 * ratio, ratio], atol=1e-6)
        np.testing.assert_allclose(layouts.ratios(flat * 100), [ratio, 0.5 * ratio, ratio], atol=1e-5)


def test_landmarks_are_of_the_published_layout():
    marks = landmarks(draw_identity(0, 0), State(), 64)
    assert marks.shape == (COUNT, 2)
    assert layouts.layout_of(marks).name == "liveportrait-203"
    left, right = layouts.eye_centres(marks)
    assert left[0] < right[0]


@pytest.mark.parametrize(("yaw", "sign"), [(35.0, -1), (-35.0, 1)])
def test_a_turned_head_moves_its_nose_and_shows_less_of_the_far_eye(yaw: float, sign: int):
    who = somebody(iris=(0.0, 1.0, 0.0))
    mask, marks = seen(who, Pose(yaw=yaw), Expression(eye_left=0.6, eye_right=0.6), 1)
    middle = (marks[0, 0] + marks[36, 0]) / 2
    assert sign * (marks[TIP, 0] - middle) > 5
    areas = [half.sum() for half in halves(mask, marks)]
    assert areas[(1 + sign) // 2] < 0.9 * areas[(1 - sign) // 2]


def test_the_far_eye_is_hidden_in_profile():
    who = somebody(iris=(0.0, 1.0, 0.0))
    mask, _ = seen(who, Pose(yaw=75), Expression(eye_left=0.6, eye_right=0.6), 1)
    both, _ = seen(who, Pose(), Expression(eye_left=0.6, eye_right=0.6), 1)
    assert mask.any()
    assert mask.sum() < 0.4 * both.sum()


def test_pitch_roll_shift_and_scale_are_seen():
    plain, down, rolled, moved, grown = (
        landmarks(somebody(), State(pose), SIZE)
        for pose in (Pose(), Pose(pitch=20), Pose(roll=20), Pose(x=0.1, y=-0.2), Pose(scale=0.72))
    )
    assert down[TIP, 1] > plain[TIP, 1] + 5  # looks down
    assert rolled[36, 1] > plain[36, 1] + 10  # clockwise: the right eye sinks
    np.testing.assert_allclose(moved - plain, np.tile([12.8, -25.6], (COUNT, 1)), atol=3.5)
    assert np.ptp(grown[OUTLINE, 0]) / np.ptp(plain[OUTLINE, 0]) == pytest.approx(1.2, abs=0.01)


def test_rotations_are_those_of_the_networks():
    angles = (17.0, -31.0, 8.0)
    ours = torch.from_numpy(rotation(*angles)).float()
    torch.testing.assert_close(ours, keypoints.rotation(*(torch.tensor([angle]) for angle in angles))[0])


@pytest.mark.parametrize("doing", [Expression(eye_left=0.0, eye_right=0.0), Expression(lips=0.6), Expression(smile=1.0)])
def test_what_a_face_does_is_seen_at_64_pixels(doing: Expression):
    who = draw_identity(0, 3)
    rest, changed = (render(who, State(Pose(), one), grey_scene(), 64).image.astype(int) for one in (Expression(), doing))
    assert (np.abs(rest - changed).max(-1) > 40).sum() >= 20


def test_a_drawing_is_a_function_of_its_arguments():
    one, again = (render(draw_identity(5, 2), State(), draw_scene(KeyedRng(1)), 64) for _ in range(2))
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.landmarks, again.landmarks)


def test_people_differ():
    images = [render(draw_identity(0, number), State(), grey_scene(), 64).image.astype(int) for number in range(6)]
    assert min(np.abs(a - b).mean() for k, a in enumerate(images) for b in images[:k]) > 5


@pytest.mark.parametrize("pose", [Pose(x=9.0), Pose(y=-5.0), Pose(x=0.9, scale=1.5), Pose(scale=0.05), Pose(yaw=180)])
def test_heads_beside_the_picture_or_turned_away_can_be_drawn(pose: Pose):
    for number in range(12):
        assert render(draw_identity(0, number), State(pose), grey_scene(), 32).image.shape == (32, 32, 3)


def test_a_painted_clip_is_a_style_of_its_own_with_landmarks_of_the_same_kind():
    drawn = [DrawnClip(0, number, 0, 50, "painted").frame(10, 64) for number in range(4)]
    assert all(one.landmarks.shape == (COUNT, 2) for one in drawn)
    again = DrawnClip(0, 0, 0, 50, "painted").frame(10, 64)
    np.testing.assert_array_equal(drawn[0].image, again.image)


# Motion


def test_a_clip_moves_smoothly_within_bounds_and_blinks_and_talks():
    clips = [DrawnClip(0, number, 0, 250) for number in range(6)]
    poses = np.array([[clip.state(frame).pose for frame in range(250)] for clip in clips])
    faces = np.array([[clip.state(frame).expression for frame in range(250)] for clip in clips])
    assert np.abs(poses[..., :3]).max() < 50
    assert np.abs(np.diff(poses[..., 1], axis=1)).max() < 8
    assert np.ptp(poses[..., 1]) > 30
    eyes, lips = faces[..., :2], faces[..., 5]
    assert 0 <= lips.min() < 0.02 < 0.3 < lips.max() <= 0.8
    assert eyes.min() >= 0
    assert eyes.max(-1).min() < 0.1 < 0.3 < eyes.max() <= 0.8  # both at once


def test_the_sheet_of_the_preview_has_a_row_a_person():
    assert sheet(rows=2, columns=3, size=32, marks=True).size == (96, 64)
