"""Terms of the objective as per-item values, and the ramps of their weights (published code's losses; paper, section 3.3).

Pictures (B, V, 3, H, W) in [0, 1]. Each function gives one value for an item, or a sum with its count; which term counts how much
is said by the stage's `loss:` and the system's `ramps`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mixtura_splat.ssim import ssim_map

SPREAD = 0.5
"""Standard deviation that the distances of a view are drawn towards (paper: sigma_0)."""


def image_error(rendered: Tensor, target: Tensor) -> Tensor:
    """Mean squared error (B,) over views, channels and pixels."""
    return (rendered - target).square().flatten(1).mean(1)


def dissimilarity(rendered: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM (B,), window 11, sigma 1.5, mean over views, channels and the pixels whose window lies in the picture."""
    return 1 - ssim_map(rendered, target, padding="valid", layout="channels_first").flatten(1).mean(1)


def point_error(points: Tensor, true: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance to known points, summed over masked pixels (B,), and how many pixels those are (B,).

    `points` and `true` (B, V, 3, H, W), `mask` (B, V, 1, H, W) bool.
    """
    squared = (points - true).square() * mask
    return squared.flatten(1).sum(1), mask.flatten(1).sum(1).to(points.dtype)


def point_spread(points: Tensor, origins: Tensor) -> Tensor:
    """How far (B,) the distances of pixels' Gaussians are from a spread of 0.5 around the camera's own distance.

    Distances of a view are standardised, scaled to `SPREAD` and moved to |o|, without gradient; the mean square of what is
    missing counts. Keeps the first steps from pulling all Gaussians of a view into one shell.
    """
    distance = (points - origins).square().sum(2).clamp(min=1e-12).sqrt()
    flat = distance.detach().flatten(2)
    mean, std = flat.mean(2)[..., None, None], flat.std(2)[..., None, None]
    target = (distance.detach() - mean) / (std + 1e-8) * SPREAD + origins.square().sum(2).sqrt()
    return (distance - target).square().flatten(1).mean(1)


def ramp(rule: Sequence[float], step: int, epoch: int = 0) -> float:
    """A weight that moves from one value to another: [start, first, last, end], linear between and constant outside.

    Three numbers mean [0, first, last, end]. Start and end count optimizer steps; an end that is a float (5.0) counts epochs.
    """
    start, first, last, end = rule if len(rule) == 4 else (0, *rule)
    now = epoch if isinstance(end, float) else step
    if now <= start:
        return float(first)
    return float(last) if now >= end else first + (last - first) * (now - start) / (end - start)


def psnr(predicted: Tensor, target: Tensor) -> Tensor:
    """dB (N,) of pictures (N, ...) clamped to [0, 1]."""
    error = (predicted.clamp(0, 1) - target.clamp(0, 1)).square().flatten(1).mean(1)
    return -10 * torch.log10(error)
