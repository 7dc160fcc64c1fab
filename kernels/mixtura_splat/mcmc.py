"""Densification as sampling: 3D Gaussian Splatting as Markov Chain Monte Carlo (Kheradmand et al. 2024).

Gaussians that have faded are moved onto ones that are opaque, the set grows the same way up to a bound, and the means get
noise along their own covariance, so that Gaussians that explain nothing wander. Nothing is cloned by gradient thresholds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixtura_splat.reference import rotations

DEAD = 0.005
"""Opacity below which a Gaussian is moved elsewhere (section 4.3)."""
MOST_COPIES = 51


def split_opacity_scale(opacities: Tensor, scales: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """What each of `copies` [N] Gaussians at one place must be so that together they render like the one that was there.

    opacities [N], scales [N,3] -> the same for one copy (equation 9: matched opacity and matched integral of the alpha).
    """
    copies = copies.clamp(1, MOST_COPIES)
    opacity = 1 - (1 - opacities).clamp(min=1e-12) ** (1.0 / copies)
    most = int(copies.max())
    # sum over i of sum over k of C(i-1, k) (-1)^k o^(k+1) / sqrt(k+1); the inner sum over i in closed form: C(n, k+1)
    total = torch.zeros_like(opacity, dtype=torch.float64)
    n, o = copies.double(), opacity.double()
    for k in range(most):
        term = torch.lgamma(n + 1) - math.lgamma(k + 2) - torch.lgamma((n - k).clamp(min=1e-9))
        total += torch.where(n > k, term.exp() * (-1.0) ** k * o ** (k + 1) / math.sqrt(k + 1), 0.0)
    factor = (opacities.double() / total.clamp(min=1e-12)).to(scales.dtype)
    return opacity, scales * factor[:, None]


def draw_onto(opacities: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` indices [count] of Gaussians, drawn in proportion to opacity (those below DEAD never)."""
    weights = torch.where(opacities >= DEAD, opacities, 0.0)
    if not weights.any():
        weights = torch.ones_like(opacities)
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def noise(quats: Tensor, scales: Tensor, opacities: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Steps [N,3] for the means: normal, shaped by the covariance, and nearly none for opaque Gaussians (equation 8)."""
    root = rotations(quats) * scales[:, None]
    gate = torch.sigmoid(100 * ((1 - opacities) - 0.995))
    draw = torch.randn(scales.shape, generator=generator, device=scales.device) * (gate * strength)[:, None]
    return (root @ (root.mT @ draw[..., None]))[..., 0]
