"""F, the appearance extractor: an image becomes a volume of features."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mixtura_live_portrait.nets.blocks import DownBlock2d, ResBlock3d, SameBlock2d
from mixtura_live_portrait.nets.sizes import Sizes


class Appearance(nn.Module):
    """Image (b, 3, S, S) in 0..1 -> volume (b, c, d, h, w), where h = w = S / 2^downs."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        widths = [sizes.base << i for i in range(sizes.downs + 1)]
        self.first = SameBlock2d(3, widths[0])
        self.down_blocks = nn.ModuleList([DownBlock2d(a, b) for a, b in pairwise(widths)])
        self.second = nn.Conv2d(widths[-1], sizes.channels * sizes.depth, 1)
        self.resblocks_3d = nn.Sequential()
        for i in range(sizes.resblocks):
            self.resblocks_3d.add_module(f"3dr{i}", ResBlock3d(sizes.channels))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        for block in self.down_blocks:
            x = block(x)
        volume = self.second(x).unflatten(1, (self.sizes.channels, self.sizes.depth))
        return self.resblocks_3d(volume)
