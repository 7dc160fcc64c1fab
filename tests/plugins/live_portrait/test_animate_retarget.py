"""Stitching, lip normalisation, retargeting, in the published order; editing by sliders."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixtura.errors import ConfigError
from mixtura_live_portrait.animate.editing import Edit, edited, moved
from mixtura_live_portrait.animate.regions import EYES, LIP
from mixtura_live_portrait.animate.retarget import (
    Openings,
    Retargeted,
    Small,
    adjusted,
    closed_lips,
    corrected,
    eye_opening,
    retargeted,
    steady_eyes,
    stitched,
)
from tests.plugins.live_portrait.animate_tools import movement

K = 4
X_S, X_D = (movement(n, K, seed).keypoints() for n, seed in ((1, 1), (3, 2)))
NAN = float("nan")


def last_input(width: int) -> object:
    """A network whose offsets are its last input: the ratio that is wanted."""
    return lambda x: x[:, -1:].expand(-1, width)


SMALL = Small(
    stitching=lambda pairs: torch.full((len(pairs), 3 * K + 2), 0.5),
    eyes=last_input(3 * K),  # type: ignore[arg-type]
    lips=last_input(3 * K),  # type: ignore[arg-type]
)
STITCH = torch.tensor([1.0, 1.0, 0.5])
"""What that stitching adds: 0.5 to every offset and as much to x and y."""


def test_stitching_sees_both_and_adds_offsets_and_a_shift() -> None:
    seen: list[Tensor] = []

    def network(pairs: Tensor) -> Tensor:
        seen.append(pairs)
        return torch.arange(3 * K + 2).float().expand(len(pairs), -1)

    x = stitched(network, X_S, X_D)
    torch.testing.assert_close(seen[0], torch.cat([X_S.expand(3, -1, -1).flatten(1), X_D.flatten(1)], -1))
    torch.testing.assert_close(x - X_D, (torch.arange(3 * K).view(K, 3) + torch.tensor([12.0, 13, 0])).expand(3, -1, -1))


def test_corrections_tell_half_of_what_was_found_too_little_on_top() -> None:
    def halved(told: Openings) -> Tensor:
        assert told.lips is not None
        return torch.cat([torch.full((2, 2), NAN), told.lips / 2], 1)

    wanted = Openings(lips=torch.tensor([[0.2], [0.4]]))
    assert corrected(wanted, halved, 0) is wanted
    for times, told in ((1, [[0.25], [0.5]]), (60, [[0.4], [0.8]])):
        found = corrected(wanted, halved, times)
        assert found.eyes is None
        torch.testing.assert_close(found.lips, torch.tensor(told))


def test_corrections_leave_what_cannot_be_read_and_stay_askable() -> None:
    wanted = Openings(eyes=torch.tensor([[0.1]]))
    found = torch.tensor([[NAN, NAN, 0.0], [0.9, 0.9, 0.0], [-3.0, -3.0, 0.0]])
    eyes = corrected(wanted, lambda told: found, 4).eyes
    torch.testing.assert_close(eyes, torch.tensor([[0.1], [-0.2], [1.0]]))


def test_retargeting_sees_keypoints_own_and_wanted_ratios() -> None:
    seen: list[Tensor] = []
    own, wanted = torch.tensor([[0.1, 0.2]]), torch.tensor([[0.5], [0.6], [0.7]])

    def network(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.ones(3, 3 * K)

    assert retargeted(network, X_S, own, wanted).shape == (3, K, 3)
    torch.testing.assert_close(seen[0], torch.cat([X_S.flatten(1).expand(3, -1), own.expand(3, -1), wanted], -1))


def test_unknown_ratios_leave_their_frames_alone() -> None:
    offsets = retargeted(lambda x: torch.ones(2, 3 * K), X_S, torch.tensor([[0.1]]), torch.tensor([[NAN], [0.5]]))
    assert offsets.flatten(1).tolist() == [[0.0] * 3 * K, [1.0] * 3 * K]


def test_open_lips_are_closed_and_closed_ones_left() -> None:
    seen: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        seen.append(x[:, -2:])
        return torch.ones(len(x), 3 * K)

    x = X_S.expand(4, -1, -1)
    ratios = torch.tensor([[0.3, 0.3, lip] for lip in (0.029, 0.03, 0.5, NAN)])
    assert closed_lips(network, x, ratios)[:, 0, 0].tolist() == [0, 1, 1, 0]
    torch.testing.assert_close(seen[0][:3], torch.tensor([[0.029, 0], [0.03, 0], [0.5, 0]]))


@pytest.mark.parametrize(("first", "wanted"), [((0.2, 0.3), 0.25), ((0.1, 0.2), 0.39), ((0.17, 0.19), 0.18)])
def test_a_clip_keeps_its_eyes_as_in_its_first_frame(first: tuple[float, float], wanted: float) -> None:
    ratios = torch.tensor([[*first, 0.0], [0.05, 0.05, 0.0]])
    offsets = steady_eyes(SMALL.eyes, X_S.expand(2, -1, -1), ratios)
    torch.testing.assert_close(offsets, torch.full((2, K, 3), wanted))


def test_without_retargeting_stitching_comes_before_closed_lips() -> None:
    before = torch.full((1, K, 3), 0.25)
    torch.testing.assert_close(adjusted(SMALL, X_S, X_D, before=before), X_D + STITCH + 0.25)
    torch.testing.assert_close(adjusted(SMALL, X_S, X_D, stitching=False, before=before), X_D + 0.25)
    torch.testing.assert_close(adjusted(SMALL, X_S, X_D, stitching=False), X_D)


@pytest.mark.parametrize("is_relative", [True, False])
def test_retargeting_starts_from_the_source_for_relative_motion(is_relative: bool) -> None:
    eyes, lips = torch.full((3, K, 3), 0.1), torch.full((3, K, 3), 0.2)
    x = adjusted(SMALL, X_S, X_D, is_relative=is_relative, before=eyes, retargeting=Retargeted(eyes, lips))
    torch.testing.assert_close(x, (X_S if is_relative else X_D) + 0.3 + STITCH.expand(3, K, 3))
    one = adjusted(SMALL, X_S, X_D, stitching=False, is_relative=is_relative, retargeting=Retargeted(lips=lips))
    torch.testing.assert_close(one, (X_S if is_relative else X_D) + 0.2 + torch.zeros(3, K, 3))


def test_eyes_open_as_far_as_both_do_in_the_mean() -> None:
    torch.testing.assert_close(eye_opening(torch.tensor([[0.1, 0.3, 0.9]])), torch.tensor([[0.2]]))


SOURCE, RATIOS = movement(1, 21, seed=4), torch.tensor([[0.3, 0.3, 0.1]])
WIDE = Small(lambda pairs: torch.zeros(len(pairs), 65), last_input(63), last_input(63))  # type: ignore[arg-type]


def test_sliders_at_rest_change_nothing() -> None:
    torch.testing.assert_close(edited(SOURCE, RATIOS, Edit(), WIDE), SOURCE.keypoints())
    assert Edit().is_at_rest
    assert not Edit(yaw=1).is_at_rest


def test_pose_sliders_turn_and_move_the_head() -> None:
    straight = SOURCE._replace(rotation=torch.eye(3)[None])
    turned = moved(straight, Edit(yaw=90)).rotation[0]
    torch.testing.assert_close(torch.tensor([0.0, 0, 1]) @ turned, torch.tensor([1.0, 0, 0]), atol=1e-6, rtol=0)
    shifted = edited(SOURCE, RATIOS, Edit(x=0.1, y=-0.2), WIDE) - SOURCE.keypoints()
    torch.testing.assert_close(shifted, torch.tensor([0.1, -0.2, 0]).expand(1, 21, 3))
    assert moved(SOURCE, Edit(scale=1.5)).scale.item() == pytest.approx(1.5 * SOURCE.scale.item())


def test_eyes_and_lips_open_by_their_networks() -> None:
    opened = edited(SOURCE, RATIOS, Edit(eye_ratio=0.5, lip_ratio=0.25), WIDE) - SOURCE.keypoints()
    torch.testing.assert_close(opened, torch.full((1, 21, 3), 0.75))


def test_expression_is_scaled_as_a_whole_and_by_parts() -> None:
    exp = moved(SOURCE, Edit(expression=2, lip_expression=0, eye_expression=-1)).exp / SOURCE.exp
    factors = exp[0, :, 0].round().int().tolist()
    assert factors == [0 if index in LIP else -2 if index in EYES else 2 for index in range(21)]


def test_single_offsets_can_be_given() -> None:
    change = moved(SOURCE, Edit(offsets=((20, "y", -0.1), (20, "y", -0.1)))).exp - SOURCE.exp
    assert change[0, 20].tolist() == pytest.approx([0, -0.2, 0], abs=1e-6)
    assert change.abs().sum().item() == pytest.approx(0.2, abs=1e-5)


def test_sliders_that_cant_be_followed_are_told() -> None:
    small = movement(1, 10)
    with pytest.raises(ConfigError, match=r"keypoints \[10\]; expected 0 to 9"):
        moved(small, Edit(offsets=((10, "x", 1.0),)))
    with pytest.raises(ConfigError, match="region 'lip'"):
        moved(small, Edit(lip_expression=0.5))
    with pytest.raises(ConfigError, match="edit.lip_ratio"):
        edited(SOURCE, torch.tensor([[0.3, 0.3, NAN]]), Edit(lip_ratio=0.2), WIDE)
