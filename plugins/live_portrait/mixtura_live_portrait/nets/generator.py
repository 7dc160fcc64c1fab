"""G, the generator: paints an image from a warped map, which also guides every norm in it (SPADE)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mixtura_live_portrait.nets.blocks import SLOPE, SpadeBlock
from mixtura_live_portrait.nets.sizes import Sizes


class Generator(nn.Module):
    """Map (b, c, h, w) from W -> image (b, 3, S', S') in 0..1, where S' = h * 2^downs * shuffle."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        guide, hidden = sizes.generator, sizes.shared
        self.fc = nn.Conv2d(guide, 2 * guide, 3, padding=1)
        self.middle = [f"G_middle_{i}" for i in range(sizes.middle)]
        for name in self.middle:
            self.add_module(name, SpadeBlock(2 * guide, 2 * guide, guide, hidden))
        widths = [(2 * guide) >> i for i in range(sizes.downs)] + [sizes.painted]
        self.ups = [f"up_{i}" for i in range(sizes.downs)]
        for name, inputs, outputs in zip(self.ups, widths, widths[1:], strict=False):
            self.add_module(name, SpadeBlock(inputs, outputs, guide, hidden))
        last = nn.Conv2d(sizes.painted, 3 * sizes.shuffle**2, 3, padding=1)
        self.conv_img = nn.Sequential(last, nn.PixelShuffle(sizes.shuffle)) if sizes.shuffle > 1 else last

    def forward(self, warped: Tensor) -> Tensor:
        x = self.fc(warped)
        for name in self.middle:
            x = self.get_submodule(name)(x, warped)
        for name in self.ups:
            x = self.get_submodule(name)(F.interpolate(x, scale_factor=2, mode="nearest"), warped)
        return self.conv_img(F.leaky_relu(x, SLOPE)).sigmoid()
