"""Landmark layouts: indices, axis, ratios, guidance points, boxes."""

from __future__ import annotations

import numpy as np
import pytest

from mixtura.errors import DataError
from mixtura_live_portrait.faces import layouts
from mixtura_live_portrait.faces.layouts import LAYOUTS, Points, axis, boxes, guide, outline, ratios

WITH_LIDS = [203, 106, 68, 468, 478]


def drawn(points: int, eye: float = 0.4, lip: float = 0.2) -> Points:
    """An upright face in a layout, 200 wide: eyes 40 wide at y 100, lips 60 wide at y 200, opened by `eye` and `lip`."""
    layout = LAYOUTS[points]
    landmarks = np.tile(np.array([150.0, 150.0], np.float32), (points, 1))
    used = {index for eye in layout.eyes for group in (eye.centre, eye.upper, eye.lower) for index in group} | {
        *layout.lips,
        *layout.lip,
    }
    free = [index for index in layout.outline or range(points) if index not in used]
    landmarks[free[:2]] = [[50, 90], [250, 250]][: len(free)]
    for which, x in zip(layout.eyes, (100.0, 200.0), strict=True):
        landmarks[list(which.centre)] = [x, 100]
        for group, place in (
            (which.left, (-20, 0)),
            (which.right, (20, 0)),
            (which.upper, (0, -20 * eye)),
            (which.lower, (0, 20 * eye)),
        ):
            landmarks[list(group)] = [x + place[0], 100 + place[1]]
    landmarks[list(layout.lip)] = [[120, 200], [180, 200]]
    landmarks[list(layout.upper_lip)] = [150, 200 - 30 * lip]
    landmarks[list(layout.lower_lip)] = [150, 200 + 30 * lip]
    return landmarks


@pytest.mark.parametrize("points", LAYOUTS)
def test_every_layout_has_indices_below_its_number_of_points(points: int) -> None:
    layout = LAYOUTS[points]
    groups = [layout.lip, layout.upper_lip, layout.lower_lip, layout.lips, layout.outline]
    groups += [group for eye in layout.eyes for group in (eye.centre, eye.left, eye.right, eye.upper, eye.lower)]
    assert all(0 <= index < points for group in groups for index in group)
    assert layout.points == points


@pytest.mark.parametrize("points", [number for number in LAYOUTS if number != 9])
def test_the_axis_goes_from_the_middle_of_the_eyes_to_that_of_the_lips(points: int) -> None:
    np.testing.assert_allclose(axis(drawn(points)), [[150, 100], [150, 200]], atol=1e-4)


@pytest.mark.parametrize("points", WITH_LIDS)
def test_ratios_are_lid_and_lip_distances_over_corner_distances(points: int) -> None:
    np.testing.assert_allclose(ratios(drawn(points, eye=0.3, lip=0.15)), [0.3, 0.3, 0.15], rtol=1e-4)


def test_ratios_on_203_points_are_those_of_the_published_indices() -> None:
    landmarks = np.random.default_rng(0).uniform(0, 100, (203, 2)).astype(np.float32)

    def distance(first: int, second: int) -> float:
        return float(np.linalg.norm(landmarks[first] - landmarks[second]))

    expected = [distance(6, 18) / distance(0, 12), distance(30, 42) / distance(24, 36), distance(90, 102) / distance(48, 66)]
    np.testing.assert_allclose(ratios(landmarks), expected, rtol=1e-5)


def test_ratios_are_unknown_where_a_layout_has_no_lids() -> None:
    assert np.isnan(ratios(drawn(5))).all()
    assert np.isnan(ratios(drawn(9))).all()
    eyes_only = ratios(drawn(101))
    assert np.isfinite(eyes_only[:2]).all()
    assert np.isnan(eyes_only[2])


def test_closed_eyes_that_coincide_give_no_infinity() -> None:
    assert np.isfinite(ratios(np.zeros((203, 2), np.float32))).all()


def test_ratios_of_a_clip_are_those_of_its_frames() -> None:
    clip = np.stack([drawn(68, eye=0.1), drawn(68, eye=0.5)])
    assert ratios(clip).shape == (2, 3)
    np.testing.assert_allclose(ratios(clip)[1], ratios(clip[1]))


@pytest.mark.parametrize("points", WITH_LIDS)
def test_the_guide_lists_corners_and_lids_of_both_eyes_and_the_lips(points: int) -> None:
    expected = [
        [80, 100],
        [120, 100],
        [100, 92],
        [100, 108],
        [180, 100],
        [220, 100],
        [200, 92],
        [200, 108],
        [150, 194],
        [150, 206],
        [120, 200],
        [180, 200],
    ]
    np.testing.assert_allclose(guide(drawn(points)), expected, atol=1e-4)


def test_the_guide_is_unknown_where_a_layout_has_no_points() -> None:
    assert guide(drawn(5)).shape == (layouts.GUIDES, 2)
    assert np.isnan(guide(drawn(9))[:10]).all()
    five = guide(drawn(5))
    assert np.isnan(five[:10]).all()
    np.testing.assert_allclose(five[10:], drawn(5)[3:])


@pytest.mark.parametrize("points", WITH_LIDS)
def test_boxes_enclose_face_eyes_and_lips(points: int) -> None:
    face, eyes, lips = boxes(drawn(points))
    assert (face[:2] <= [50, 90]).all()
    assert (face[2:] >= [250, 250]).all()
    assert eyes[0] < 80 < 220 < eyes[2]
    assert eyes[1] < 92 < 108 < eyes[3]
    assert lips[1] < 194 < 206 < lips[3] or points == 68  # drawn with all of 68's lip points in the middle
    assert boxes(np.stack([drawn(points)] * 3)).shape == (3, 3, 4)


def test_boxes_of_five_points_know_the_face_alone() -> None:
    face, eyes, lips = boxes(drawn(5))
    assert np.isfinite(face).all()
    assert np.isnan([eyes, lips]).all()


def test_the_mesh_leaves_its_forehead_out_of_the_outline() -> None:
    landmarks = drawn(478)
    landmarks[10] = [150, -500]  # top of the forehead
    assert outline(landmarks)[:, 1].min() > 0


def test_normalising_puts_the_edges_at_one_and_can_be_undone() -> None:
    landmarks = np.array([[0, 0], [640, 480], [320, 240]], np.float32)
    normal = layouts.normalised(landmarks, 640, 480)
    np.testing.assert_allclose(normal, [[-1, -1], [1, 1], [0, 0]])
    np.testing.assert_allclose(layouts.in_pixels(normal, 640, 480), landmarks)


@pytest.mark.parametrize("shape", [(7, 2), (68, 3), (68,)])
def test_unknown_layouts_are_named_with_the_known_ones(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expected \(\.\.\., L, 2\) with L one of 5, 9, 68, 101, 106, 203, 468, 478"):
        axis(np.zeros(shape, np.float32))
