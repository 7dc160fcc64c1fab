"""Compositing in float64 without tiles: every pixel meets every splat. Differentiable by autograd; for small scenes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

STOP = 1e-4 * (1 + 1e-6)  # two hits at alpha 0.99 end a pixel, however they round


def composite(
    splats: Tensor,
    features: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
    alpha_limit: float = 0.99,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One view: splats [N,8], features [N,C], background [C] -> image [H,W,C], depth [H,W], transmittance [H,W].

    `allowed` [H,W,N] takes splats away from pixels.
    """
    order = torch.from_numpy(np.argsort(splats[:, 7].detach().numpy(), kind="stable"))
    x, y, u11, u12, u22, opacity, tau, depth = splats[order].unbind(1)
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    dx, dy = columns[..., None] - x, rows[..., None] - y
    sigma = ((u11 * dx + u12 * dy) ** 2 + (u22 * dy) ** 2) / 2
    kept = sigma <= tau
    if allowed is not None:
        kept = kept & allowed[..., order]
    alpha = torch.where(kept, (opacity * torch.exp(-sigma)).clamp(max=alpha_limit), torch.zeros_like(sigma))
    after = torch.cumprod(1 - alpha, -1)
    alpha = torch.where(after > STOP, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, -1)
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], -1)
    weight = alpha * before
    end = after[..., -1] if after.shape[-1] else torch.ones(height, width, dtype=splats.dtype)
    image = weight @ features[order]
    if background is not None:
        image = image + end[..., None] * background
    return image, weight @ depth, end


def least_sigma(splat: np.ndarray, left: float, right: float, top: float, bottom: float) -> float:
    """Smallest sigma of a splat over a rectangle of points, in float64."""
    x, y, u11, u12, u22 = (float(value) for value in splat[:5])
    if left <= x <= right and top <= y <= bottom:
        return 0.0

    def sigma(dx: float, dy: float) -> float:
        return ((u11 * dx + u12 * dy) ** 2 + (u22 * dy) ** 2) / 2

    best = []
    for edge in (left, right):
        dx = edge - x
        dy = -u11 * u12 * dx / (u12**2 + u22**2)
        best.append(sigma(dx, min(max(dy, top - y), bottom - y)))
    for edge in (top, bottom):
        dy = edge - y
        dx = -u12 * dy / u11
        best.append(sigma(min(max(dx, left - x), right - x), dy))
    return min(best)
