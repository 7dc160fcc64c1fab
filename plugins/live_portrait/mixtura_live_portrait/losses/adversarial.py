"""Terms of the two players: hinge loss for critics (Lim & Ye 2017), and what a painter gains (pix2pixHD, section 3.2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mixtura_live_portrait.nets.discriminator import Judgement


def fooling(painted: Judgement) -> Tensor:
    """Minus the mean score of painted pictures (b,)."""
    return -painted.scores.mean(1)


def telling(real: Judgement, painted: Judgement) -> Tensor:
    """Hinge loss (b,): real patches shall score above 1, painted ones below -1."""
    return F.relu(1 - real.scores).mean(1) + F.relu(1 + painted.scores).mean(1)


def matching(real: Judgement, painted: Judgement) -> Tensor:
    """Mean absolute difference of the critic's features (b,), averaged over layers."""
    off = [(a.detach() - b).abs().flatten(1).mean(1) for a, b in zip(real.features, painted.features, strict=True)]
    return sum(off[1:], off[0]) / len(off)
