"""Pictures of sources: blending, squares, sizes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixtura_diffusion_gs.data.pictures import Picture, over_white, resized, squared

sides = st.integers(4, 40)


def picture(width: int, height: int) -> Picture:
    """Columns told by red, rows by green; depth and mask tell the column and the row."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([columns, rows, 0 * rows], -1).astype(np.uint8)
    return Picture(image, np.array([30.0, 40, width / 2, height / 2]), rows % 2 == 0, (columns + 1).astype(np.float32))


def test_colours_are_blended_over_white():
    rgba = np.array([[[100, 0, 0, 255], [100, 0, 0, 0], [100, 0, 0, 51]]], np.uint8)
    assert over_white(rgba).tolist() == [[[100, 0, 0], [255] * 3, [224, 204, 204]]]


@given(sides, sides)
def test_a_crop_keeps_rays_of_its_pixels(width, height):
    old, new = picture(width, height), squared(picture(width, height), "crop")
    assert new.size == (min(width, height),) * 2
    column, row = (int(value) for value in new.image[0, 0, :2])
    assert np.allclose(new.intrinsics[2:], old.intrinsics[2:] - [column, row])
    assert new.depth is not None
    assert new.depth[0, 0] == column + 1


@given(sides, sides)
def test_padding_adds_white_and_nothing(width, height):
    old, new = picture(width, height), squared(picture(width, height), "pad")
    side = max(width, height)
    assert new.size == (side, side)
    left, top = (side - width + 1) // 2, (side - height + 1) // 2
    assert np.allclose(new.intrinsics - old.intrinsics, [0, 0, left, top])
    assert (new.image[top : top + height, left : left + width] == old.image).all()
    assert new.mask is not None
    assert old.mask is not None
    assert new.mask.sum() == old.mask.sum()
    assert (new.image == 255).all(-1).sum() == side * side - width * height


def test_an_area_filter_takes_means_and_depths_are_picked():
    small = resized(picture(8, 8), 4, 4, "area")
    assert small.image[0, :, 0].tolist() == [1, 3, 5, 7]  # 0.5 and so on, rounded
    assert small.depth is not None
    assert small.depth[0].tolist() == [2, 4, 6, 8]
    assert small.intrinsics.tolist() == [15, 20, 2, 2]


def test_nearest_pixels_may_be_counted_from_the_corner_as_torch_does():
    import torch

    expected = torch.nn.functional.interpolate(torch.arange(10.0)[None, None], 4)[0, 0]
    columns = resized(picture(10, 10), 4, 4, "nearest", from_corner=True).image[0, :, 0]
    assert columns.tolist() == expected.tolist()
    assert resized(picture(10, 10), 4, 4, "nearest").image[0, :, 0].tolist() == [1, 3, 6, 8]


def test_enlarging_does_not_repeat_pixels():
    large = resized(picture(4, 4), 16, 16, "area").image[8, :, 0]
    assert (np.diff(large.astype(int)) >= 0).all()
    assert len(set(large.tolist())) >= 3
    assert resized(picture(4, 4), 4, 4, "area").image is not None
