"""The schedule and the samplers: properties of the tables, and walks whose end is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixtura_diffusion_gs import diffusion
from mixtura_diffusion_gs.diffusion import Moment, Sampler

SHAPE = (2, 3, 3, 4, 4)
START = 10**6
"""Seed of the noise that walks start from."""


def fresh(number: int) -> Tensor:
    """Unit normal noise of a call."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(number))


def no_noise(number: int) -> Tensor:
    """For walks that must not ask for any."""
    raise AssertionError(f"call {number} asked for noise")


def walk(clean: Callable[[Tensor, int], Tensor], steps: int, sampler: Sampler, noise: Any = fresh) -> list[Moment]:
    """All moments of a walk whose network answers `clean`."""

    def predict(x: Tensor, t: int) -> tuple[Tensor, Any]:
        return clean(x, t), t

    return list(diffusion.sample(predict, fresh(START), diffusion.spaced(steps), sampler, noise))


def test_the_schedule_goes_from_picture_to_noise() -> None:
    whole = diffusion.whole()
    assert whole.times.tolist() == list(range(1000))
    assert ((whole.betas > 0) & (whole.betas <= 0.999)).all()
    assert (whole.kept.diff() < 0).all()
    assert whole.kept[0] > 0.9999
    assert whole.kept[-1] < 1e-8
    assert whole.kept[499].item() == pytest.approx(math.cos(0.508 / 1.008 * math.pi / 2) ** 2, rel=1e-3)


@pytest.mark.parametrize("steps", [2, 7, 30, 999, 1000])
def test_spaced_steps_keep_both_ends_and_the_noise_levels(steps: int) -> None:
    spaced, whole = diffusion.spaced(steps), diffusion.whole()
    assert len(spaced.times) == steps
    assert (spaced.times[0], spaced.times[-1]) == (0, 999)
    assert (spaced.times.diff() > 0).all()
    torch.testing.assert_close(spaced.kept, whole.kept[spaced.times])
    gaps = spaced.times.diff()
    assert gaps.max() - gaps.min() <= 1


def test_thirty_steps_are_the_published_ones() -> None:
    times = diffusion.spaced(30).times.tolist()
    assert times[:5] == [0, 34, 69, 103, 138]
    assert times[-2:] == [965, 999]


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 1000"):
        diffusion.spaced(steps)


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_coefficients_keep_a_clean_picture_where_it_is(steps: int) -> None:
    """On x_t = sqrt(abar_t) x0 the posterior mean is sqrt(abar of the step before) x0."""
    spaced = diffusion.spaced(steps)
    mean = spaced.mean_of_clean + spaced.mean_of_noisy * spaced.kept.sqrt()
    torch.testing.assert_close(mean, spaced.kept_before.sqrt())
    assert (spaced.variance >= 0).all()


def test_noised_pictures_have_the_share_of_noise_of_their_time() -> None:
    whole, t = diffusion.whole(), torch.tensor([0, 500, 999])
    clean, noise = torch.ones(3, 2, 3, 4, 4), torch.zeros(3, 2, 3, 4, 4)
    assert torch.allclose(whole.noised(clean, noise, t)[:, 0, 0, 0, 0].double(), whole.kept[t].sqrt())
    assert torch.allclose(whole.noised(noise, clean, t)[:, 0, 0, 0, 0].double(), (1 - whole.kept[t]).sqrt())


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_a_network_that_knows_the_picture_ends_with_it(sampler: Sampler, steps: int) -> None:
    picture = torch.rand(SHAPE)
    moments = walk(lambda x, t: picture, steps, sampler)
    assert torch.equal(moments[-1].clean, picture)
    assert [moment.t for moment in moments] == diffusion.spaced(steps).times.flip(0).tolist()
    assert [moment.number for moment in moments] == list(range(steps))


def test_ddim_keeps_to_the_line_between_picture_and_noise() -> None:
    picture, start = torch.rand(SHAPE), fresh(START)
    moments, spaced = walk(lambda x, t: picture, 30, "ddim", no_noise), diffusion.spaced(30)
    # the start is all noise; what it holds of the picture by the schedule is next to nothing
    eps = (start - spaced.kept[-1].sqrt().float() * picture) / (1 - spaced.kept[-1]).sqrt().float()
    for moment, kept in zip(moments, spaced.kept.flip(0), strict=True):
        expected = kept.sqrt().float() * picture + (1 - kept).sqrt().float() * eps
        torch.testing.assert_close(moment.noisy, expected, rtol=1e-4, atol=1e-4)


def test_ddim_undoes_noise_when_the_network_tells_it_exactly() -> None:
    """From x_t = sqrt(abar) x0 + sqrt(1 - abar) eps with a network that answers x0 from x_t and the true eps."""
    picture, eps, whole = torch.rand(SHAPE), fresh(3), diffusion.whole()
    spaced = diffusion.spaced(30)
    start = whole.noised(picture, eps, torch.tensor([999, 999]))

    def predict(x: Tensor, t: int) -> tuple[Tensor, Any]:
        kept = whole.kept[t]
        return ((x.double() - (1 - kept).sqrt() * eps) / kept.sqrt()).clamp(-1, 2).float(), None

    last = list(diffusion.sample(predict, start, spaced, "ddim", no_noise))[-1]
    torch.testing.assert_close(last.clean, picture, atol=2e-2, rtol=0)


def test_the_last_ancestral_step_asks_for_no_noise() -> None:
    asked: list[int] = []

    def noise(number: int) -> Tensor:
        asked.append(number)
        return fresh(number)

    walk(lambda x, t: x, 5, "ancestral", noise)
    assert asked == [0, 1, 2, 3]


def test_ancestral_walks_spread_and_ddim_walks_do_not() -> None:
    ends = {sampler: [walk(lambda x, t: 0.5 * x, 10, sampler, lambda k, s=s: fresh(100 * s + k))[-1].clean for s in (1, 2)]
            for sampler in ("ancestral", "ddim")}  # fmt: skip
    assert not torch.allclose(*ends["ancestral"])
    assert torch.equal(*ends["ddim"])
