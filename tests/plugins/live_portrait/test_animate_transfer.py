"""Motion transfer: rules, regions, driving pictures, the expression-friendly mode."""

from __future__ import annotations

import pytest
import torch

from mixtura.errors import ConfigError, DataError
from mixtura_live_portrait.animate.regions import EYES, LIP, REGIONS, Lists, Region, taken
from mixtura_live_portrait.animate.transfer import (
    Rules,
    Smoothing,
    friendlier,
    hull_area,
    neutral,
    size_ratio,
    stretched,
    transfer,
)
from tests.plugins.live_portrait.animate_tools import movement

SOURCE, DRIVING = movement(1, seed=1), movement(5, seed=2)
FIRST = DRIVING.first()


def test_relative_motion_adds_what_changed_since_the_first_frame() -> None:
    moved = transfer(SOURCE, DRIVING, FIRST, Rules())
    last = DRIVING.at(slice(4, 5))
    torch.testing.assert_close(moved.rotation[4], last.rotation[0] @ FIRST.rotation[0].T @ SOURCE.rotation[0])
    torch.testing.assert_close(moved.exp[4], (SOURCE.exp + last.exp - FIRST.exp)[0])
    torch.testing.assert_close(moved.scale[4], (SOURCE.scale * last.scale / FIRST.scale)[0])
    torch.testing.assert_close(moved.t[4], (SOURCE.t + last.t - FIRST.t)[0])


@pytest.mark.parametrize("region", REGIONS)
def test_relative_motion_starts_at_the_source_in_every_region(region: Region) -> None:
    x = transfer(SOURCE, DRIVING, FIRST, Rules(region=region)).keypoints()
    torch.testing.assert_close(x[:1], SOURCE.keypoints())
    assert not torch.allclose(x[1:2], x[:1])


def test_absolute_motion_takes_pose_and_keeps_the_size() -> None:
    moved = transfer(SOURCE, DRIVING, FIRST, Rules(relative=False))
    torch.testing.assert_close(moved.rotation, DRIVING.rotation)
    torch.testing.assert_close(moved.t, DRIVING.t)
    torch.testing.assert_close(moved.scale, SOURCE.scale.expand(5, 1))


def test_absolute_motion_leaves_what_belongs_to_the_person() -> None:
    moved = transfer(SOURCE, DRIVING, FIRST, Rules(relative=False))
    is_taken = (moved.exp == DRIVING.exp).all(0)
    assert is_taken.sum() == 3 * 13 + 6
    assert is_taken[[1, 2, 6, *range(11, 21)]].all()
    assert is_taken[[3, 4, 5, 8, 9]].tolist() == [
        [False, True, False], [False, True, False], [False, False, True], [False, False, True], [False, True, True],
    ]  # fmt: skip
    torch.testing.assert_close(moved.exp[:, ~is_taken], SOURCE.exp[:, ~is_taken].expand(5, -1))


@pytest.mark.parametrize(("region", "turns", "resizes", "keypoints"), [
    ("all", True, True, range(21)), ("pose", True, False, ()), ("exp", False, False, range(21)),
    ("lip", False, False, LIP), ("eyes", False, False, EYES),
])  # fmt: skip
def test_a_region_moves_nothing_else(region: Region, turns: bool, resizes: bool, keypoints: tuple[int, ...]) -> None:
    moved = transfer(SOURCE, DRIVING, FIRST, Rules(region=region))
    changed = [not torch.allclose(moved[part][1:], SOURCE[part].expand_as(moved[part])[1:]) for part in (1, 3, 4)]
    assert changed == [turns, turns, resizes]
    assert set(torch.nonzero((moved.exp != SOURCE.exp).all(-1)[1:].all(0)).flatten().tolist()) == set(keypoints)


def test_a_clip_keeps_its_own_place_and_size() -> None:
    clip = movement(5, seed=3)
    moved = transfer(clip, DRIVING, FIRST, Rules(), is_clip=True)
    torch.testing.assert_close(moved.t, clip.t)
    torch.testing.assert_close(moved.scale, clip.scale)
    torch.testing.assert_close(moved.exp[:, 0], clip.exp[:, 0])
    torch.testing.assert_close(moved.exp[:, 1], clip.exp[:, 1] + DRIVING.exp[:, 1] - FIRST.exp[:, 1])
    torch.testing.assert_close(moved.rotation, DRIVING.rotation @ FIRST.rotation.mT @ clip.rotation)


def test_one_driving_frame_goes_with_every_frame_of_a_clip() -> None:
    clip = movement(4, seed=3)
    assert transfer(clip, FIRST, FIRST, Rules(), is_clip=True).keypoints().shape == (4, 21, 3)


def test_a_driving_picture_gives_its_expression_and_no_pose() -> None:
    lips = 0.01 * movement(1, seed=7).exp
    rest = neutral(SOURCE, lips)
    moved = transfer(SOURCE, FIRST, FIRST, Rules(), rest=rest)
    torch.testing.assert_close(moved.rotation, SOURCE.rotation)
    torch.testing.assert_close(moved.t, SOURCE.t)
    torch.testing.assert_close(moved.scale, SOURCE.scale)
    plain = SOURCE._replace(exp=FIRST.exp).keypoints()
    torch.testing.assert_close(moved.keypoints() + lips, plain, msg="normalised lips give the picture's expression as it is")


def test_smoothing_comes_before_parts_are_taken() -> None:
    gone = Smoothing(torch.zeros_like, lambda turns: torch.eye(3).expand_as(turns))
    moved = transfer(SOURCE, DRIVING, FIRST, Rules(region="lip"), smoothing=gone)
    assert (moved.exp[:, list(LIP)] == 0).all()
    torch.testing.assert_close(moved.exp[:, list(EYES)], SOURCE.exp[:, list(EYES)].expand(5, -1, -1))
    torch.testing.assert_close(moved.rotation, SOURCE.rotation.expand(5, -1, -1))


def test_other_keypoints_take_everything_or_a_list() -> None:
    assert taken("all", 10, is_partial=True).all()
    mask = taken("eyes", 10, True, Lists(eyes=(0, 7)))
    assert mask.all(-1).nonzero().flatten().tolist() == [0, 7]
    with pytest.raises(ConfigError, match="these 10 keypoints.*`lip_keypoints`"):
        taken("lip", 10, True)
    with pytest.raises(ConfigError, match="0 to 9"):
        taken("eyes", 10, True, Lists(eyes=(10,)))
    with pytest.raises(ConfigError, match="'nose'"):
        taken("nose", 21, True)  # type: ignore[arg-type]


def test_frames_or_keypoints_that_dont_fit_are_told() -> None:
    with pytest.raises(DataError, match="3 frames and 21 keypoints, driving of 5"):
        transfer(movement(3), DRIVING, FIRST, Rules())
    with pytest.raises(DataError, match="driving of 5 and 10"):
        transfer(SOURCE, movement(5, 10), movement(1, 10), Rules())


def test_the_friendly_mode_starts_at_the_source_and_fits_the_size() -> None:
    x_source, x = SOURCE.keypoints(), DRIVING.keypoints()
    friendly = friendlier(x_source, x, x[:1])
    torch.testing.assert_close(friendly[:1], x_source)
    assert size_ratio(3 * x_source, x_source) == pytest.approx(3, rel=1e-5)
    torch.testing.assert_close(friendly[4] - x_source[0], size_ratio(x_source, x[:1]) * (x[4] - x[0]))


def test_a_hull_is_measured_in_the_picture_alone() -> None:
    square = torch.tensor([[0.0, 0, 5], [2, 0, -1], [2, 2, 0], [0, 2, 9], [1, 1, 3]])
    assert hull_area(square) == pytest.approx(4)
    assert hull_area(square * torch.tensor([1.0, 0, 1])) == 0
    assert size_ratio(square[None], square[None] * 0) == 1


def test_the_multiplier_stretches_away_from_the_source() -> None:
    x_source, x = SOURCE.keypoints(), DRIVING.keypoints()
    torch.testing.assert_close(stretched(x_source, x, 0.0), x_source.expand_as(x))
    torch.testing.assert_close(stretched(x_source, x, 2.0) - x, x - x_source)
    assert stretched(x_source, x, 1.0) is x
