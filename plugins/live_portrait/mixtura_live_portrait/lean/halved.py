"""Descending steps: a convolution by tiles, ReLU, averages of 2 x 2: `Halved`. Shapes as in `lean.tiled`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mixtura_live_portrait.lean.tiled import Tiled, as_tiles, tile_side
from mixtura_live_portrait.lean.workspace import Workspace


class Halved(nn.Module):
    """`padded` (b, d, h + 2, w + 2, c) with a border of zeros -> `target` (b, d, h/2, w/2, k)."""

    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, side: int, half: bool) -> None:
        super().__init__()
        self.filters = Tiled(weight, tile_side(side), half)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, space: Workspace, padded: Tensor, target: Tensor) -> None:
        m = self.filters.m
        for rows, values in self.filters.tiles(space, padded):
            values.add_(self.bias).clamp_(min=0)
            pooled = values[::2].add_(values[1::2])
            pooled = pooled[:, ::2].add_(pooled[:, 1::2])
            torch.mul(pooled, 0.25, out=as_tiles(target, m // 2, rows))
