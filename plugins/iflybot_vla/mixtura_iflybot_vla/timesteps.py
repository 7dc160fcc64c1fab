"""Times of the flow: how noisy the chunks are that the action expert learns from (sheet section 7).

`flow_times(kind, uniforms)` maps explicit uniforms (..., 2) to times (...,): 1 is noise, 0 is data. Kinds:
`beta` Beta(1.5, 1) as intended; `iflybot` what the published sampler draws (Johnk's method without its rejection step);
`uniform`; `skewed` a logistic of a normal, early times more often.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mixtura.errors import MixturaError

Kind = Literal["beta", "iflybot", "uniform", "skewed"]
ALPHA, SCALE, SHIFT = 1.5, 0.999, 0.001
"""Times are Beta(ALPHA, 1) * SCALE + SHIFT."""
LOWEST = 1e-4


def beta_times(u: Tensor) -> Tensor:
    """Beta(1.5, 1) by its inverse distribution function, u^(1/1.5), scaled to (0.001, 1)."""
    return u.pow(1 / ALPHA) * SCALE + SHIFT


def iflybot_times(u1: Tensor, u2: Tensor) -> Tensor:
    """a / (a + b) with a = u1^(1/1.5), b = u2: the published sampler; mean 0.559 instead of 0.600."""
    a = u1.pow(1 / ALPHA)
    return a / (a + u2) * SCALE + SHIFT


def skewed_times(normal: Tensor) -> Tensor:
    """clip(1 / (1 + exp(1.2 n - 1.2)), 1e-4, 1) of standard normal n."""
    return torch.sigmoid(1.2 - 1.2 * normal).clamp(LOWEST, 1.0)


def flow_times(kind: Kind, uniforms: Tensor) -> Tensor:
    """Times (...,) from uniforms (..., 2) in [0, 1)."""
    u1, u2 = uniforms[..., 0], uniforms[..., 1]
    if kind == "beta":
        return beta_times(u1)
    if kind == "iflybot":
        return iflybot_times(u1, u2.clamp_min(torch.finfo(u2.dtype).tiny))
    if kind == "skewed":
        edge = torch.finfo(u1.dtype).eps
        return skewed_times(torch.special.ndtri(u1.clamp(edge, 1 - edge)))
    if kind == "uniform":
        return u1 * SCALE + SHIFT
    raise MixturaError(f"flow_time '{kind}' given; expected beta, iflybot, uniform or skewed")
