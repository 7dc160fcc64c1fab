"""The reader: how far eyes and lips are open in a picture. Training learns from it; inference needs it for `corrections` alone.

The official code measures openings on landmarks of a detector, through which no gradient flows back to the picture. This network
learns the same measure on frames whose landmarks are known, in the stages whose `train:` names it. It sees patches around the
corners of an eye or of the lips, so that all that is left to see is how far they are open.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SOFT = 5
"""Pixels along a side that the softest frames average."""


def softest(pictures: Tensor) -> Tensor:
    """Means over SOFT x SOFT pixels (b, c, h, w) -> same; beyond the border pixels repeat. Sums of slices: pooling is slower."""
    wide = F.pad(pictures, (SOFT // 2,) * 4, mode="replicate")
    height, width = pictures.shape[-2:]
    rows = sum((wide[..., i : i + height, :] for i in range(1, SOFT)), wide[..., :height, :])
    return sum((rows[..., i : i + width] for i in range(1, SOFT)), rows[..., :width]) / SOFT**2


class Opening(nn.Module):
    """Patches (b, 3, side, side) in 0..1 -> numbers (b, outputs), the opening first. Halved after each convolution."""

    def __init__(self, side: int, widths: Sequence[int], outputs: int = 1) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise((3, *widths))])
        self.hidden = nn.Linear(widths[-1] * (side >> len(widths)) ** 2, widths[-1])
        self.out = nn.Linear(widths[-1], outputs)

    def forward(self, patches: Tensor) -> Tensor:
        x = 2 * patches - 1
        for conv in self.convs:
            x = F.max_pool2d(F.relu(conv(x)), 2)
        return self.out(F.relu(self.hidden(x.flatten(1))))


class Reader(nn.Module):
    """Patches of left eye, right eye, lips (b, 3, 3, side, side) -> their opening ratios (b, 3); eyes share their weights."""

    def __init__(self, side: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.side = side
        self.eye = Opening(side, widths)
        self.mouth = Opening(side, widths)

    def forward(self, patches: Tensor) -> Tensor:
        eyes = self.eye(patches[:, :2].flatten(0, 1)).view(-1, 2)
        return torch.cat([eyes, self.mouth(patches[:, 2])], 1)
