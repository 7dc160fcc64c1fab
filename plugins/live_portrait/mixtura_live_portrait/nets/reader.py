"""The reader: how far eyes and lips are open in a cut-out face. Stage two learns from it; inference never needs it.

The official code measures openings on landmarks of a detector, through which no gradient flows back to the picture. This network
learns the same measure in stage one, on frames whose landmarks are known, and stays as it is in stage two.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Reader(nn.Module):
    """Faces (b, 3, side, side) in 0..1 -> opening ratios of left eye, right eye, lips (b, 3).

    Convolutions of 3 x 3 with GELU, halving between; then one linear layer over all places, for eyes and lips have theirs.
    """

    def __init__(self, side: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise((3, *widths))])
        places = (side >> len(widths)) ** 2
        self.hidden = nn.Linear(widths[-1] * places, widths[-1])
        self.out = nn.Linear(widths[-1], 3)
        nn.init.constant_(self.out.bias, 0.3)  # an eye that is open, lips ajar

    def forward(self, face: Tensor) -> Tensor:
        x = 2 * face - 1
        for conv in self.convs:
            x = F.avg_pool2d(F.gelu(conv(x)), 2)
        return self.out(F.gelu(self.hidden(torch.flatten(x, 1))))
