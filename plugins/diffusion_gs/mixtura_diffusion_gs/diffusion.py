"""Diffusion of images with x0-prediction: schedule, noising, spaced steps, the ancestral and the DDIM sampler.

Times are integers 0..999, 999 the noisiest. Images are in the [0, 1] scale and never clipped. Tables are float64. Schedule:
cosine (Nichol and Dhariwal 2021, equation 17); steps as in the published code, DDIM as in Song et al. 2021, equation 12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

STEPS = 1000
"""Steps of the whole schedule."""
Sampler = Literal["ancestral", "ddim"]


def cosine_betas(steps: int = STEPS) -> Tensor:
    """Share of noise that each step adds, float64 (steps,), at most 0.999."""
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    kept = torch.cos((u + 0.008) / 1.008 * torch.pi / 2) ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(max=0.999)


@dataclass(frozen=True, eq=False)
class Schedule:
    """A chain of noise levels: `times` (S,) int64 as the network knows them, `betas` (S,) float64."""

    times: Tensor
    betas: Tensor

    @cached_property
    def kept(self) -> Tensor:
        """abar (S,): share of the image's variance that is left."""
        return (1 - self.betas).cumprod(0)

    @cached_property
    def kept_before(self) -> Tensor:
        """abar of the step before, 1 for the first."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.kept[:-1]])

    @cached_property
    def mean_of_clean(self) -> Tensor:
        """Coefficient of x0 in the posterior mean."""
        return self.betas * self.kept_before.sqrt() / (1 - self.kept)

    @cached_property
    def mean_of_noisy(self) -> Tensor:
        """Coefficient of x_t in the posterior mean."""
        return (1 - self.kept_before) * (1 - self.betas).sqrt() / (1 - self.kept)

    @cached_property
    def variance(self) -> Tensor:
        """Variance of an ancestral step: beta. The first entry, which no step uses, is the second's posterior variance."""
        if len(self.betas) == 1:
            return self.betas.clone()
        posterior = self.betas[1] * (1 - self.kept_before[1]) / (1 - self.kept[1])
        return torch.cat([posterior[None], self.betas[1:]])

    def noised(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of images (B, ...) at times `t` (B,): sqrt(abar) x0 + sqrt(1 - abar) noise."""
        kept = self.kept.to(t.device)[t].view(-1, *[1] * (clean.ndim - 1))
        return kept.sqrt().to(clean.dtype) * clean + (1 - kept).sqrt().to(clean.dtype) * noise


def whole() -> Schedule:
    """All 1000 steps."""
    return Schedule(torch.arange(STEPS), cosine_betas())


def spaced(steps: int) -> Schedule:
    """`steps` of the 1000, evenly spaced with both ends: t_j = round(j 999 / (steps - 1)). One step is the noisiest alone."""
    if not 1 <= steps <= STEPS:
        raise ValueError(f"{steps} sampling steps: expected 1 to {STEPS}")
    if steps == 1:
        times = torch.tensor([STEPS - 1])
    else:
        times = torch.tensor([round(j * (STEPS - 1) / (steps - 1)) for j in range(steps)])
    kept = whole().kept[times]
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    return Schedule(times, 1 - kept / before)


class Moment(NamedTuple):
    """One step of a sampler: `number` of the call (from 0), `t`, the noisy images it saw, what the network made of them."""

    number: int
    t: int
    noisy: Tensor
    clean: Tensor
    result: Any


Predict = Callable[[Tensor, int], tuple[Tensor, Any]]
"""Noisy images (B, V, 3, H, W) and a time -> predicted clean images, and whatever else the caller wants back."""


def sample(
    predict: Predict, start: Tensor, schedule: Schedule, sampler: Sampler, noise: Callable[[int], Tensor]
) -> Iterator[Moment]:
    """Walk from `start`, unit normal noise (B, V, 3, H, W), to clean images; yields every step, the last one is the result.

    `noise(k)` gives fresh unit normal noise for the k-th call (`ancestral` only). The last step adds none.
    """
    x = start
    for number, j in enumerate(reversed(range(len(schedule.times)))):
        t = int(schedule.times[j])
        clean, result = predict(x, t)
        yield Moment(number, t, x, clean, result)
        if j == 0:
            return
        if sampler == "ancestral":
            x = float(schedule.mean_of_clean[j]) * clean + float(schedule.mean_of_noisy[j]) * x
            x = x + float(schedule.variance[j].sqrt()) * noise(number)
        else:
            kept, before = float(schedule.kept[j]), float(schedule.kept_before[j])
            direction = (x - kept**0.5 * clean) / (1 - kept) ** 0.5
            x = before**0.5 * clean + (1 - before) ** 0.5 * direction
