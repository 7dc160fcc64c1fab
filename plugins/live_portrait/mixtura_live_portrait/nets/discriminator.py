"""The critics: they tell painted pictures from real ones, patch by patch, at several sizes, whole and in parts.

Patches and feature matching as in pix2pixHD (Wang et al. 2018, section 3.2), spectral norms instead of norms over the batch.
Training only; nothing of them is in published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura_live_portrait.nets.blocks import SLOPE, SpectralConv2d


class Judgement(NamedTuple):
    """`scores` (b, patches) of all scales, above 0 where a patch looks real; `features` of every layer, finest first."""

    scores: Tensor
    features: list[Tensor]

    def halves(self) -> tuple[Judgement, Judgement]:
        """Those of the first and of the second half of the batch."""
        features = [feature.chunk(2) for feature in self.features]
        first, second = self.scores.chunk(2)
        return Judgement(first, [a for a, _ in features]), Judgement(second, [b for _, b in features])


class PatchCritic(nn.Module):
    """Convolutions, each followed by a halving, then a score for each place: (b, 3, h, w) -> scores (b, 1, h', w'), features."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([SpectralConv2d(a, b, 3) for a, b in pairwise((3, *widths))])
        self.score = SpectralConv2d(widths[-1], 1, 3)

    def forward(self, picture: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = 2 * picture - 1, []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), SLOPE)
            features.append(x)
            x = F.avg_pool2d(x, 2)
        return self.score(x), features


class Critic(nn.Module):
    """The same critic's build at several sizes of a picture: (b, 3, h, w) in 0..1 -> `Judgement`."""

    def __init__(self, width: int, widest: int, blocks: int, scales: int) -> None:
        super().__init__()
        widths = [min(widest, width << i) for i in range(blocks)]
        self.scales = nn.ModuleList([PatchCritic(widths) for _ in range(scales)])

    def forward(self, picture: Tensor) -> Judgement:
        scores, features = [], []
        for scale in self.scales:
            score, found = scale(picture)
            scores.append(score.flatten(1))
            features += found
            picture = F.avg_pool2d(picture, 2)
        return Judgement(torch.cat(scores, 1), features)
