"""Blocks of F, W and G: convolutions with batch norm, the hourglass over volumes, SPADE with spectral norm.

Shapes: b batch, c channels, d h w depth, height, width. Attributes are called as in the published checkpoints. Nothing here is
folded or fused; `mixtura_live_portrait.fast` makes such networks ready for inference.

No forward depends on the rest of its batch, nor does it change anything, in training as in use (docs/adr/011): batch norms keep
to the statistics that they have, and spectral norms to their estimates, which `SpectralConv2d.refresh` betters.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
"""Of the leaky ReLUs in G."""


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """Within it autocast is off on the device of a tensor."""
    kind = like.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class SteadyNorm2d(nn.BatchNorm2d):
    """Batch norm of (b, c, h, w) by its kept statistics, in training, too; `calibration` measures them once."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.train()

    def train(self, mode: bool = True) -> SteadyNorm2d:
        return super().train(False)


class SteadyNorm3d(nn.BatchNorm3d):
    """The same for volumes (b, c, d, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.train()

    def train(self, mode: bool = True) -> SteadyNorm3d:
        return super().train(False)


class ShallowConv3d(nn.Conv3d):
    """A convolution of volumes (b, c, d, h, w) with an odd kernel and as much padding as keeps their size.

    Where a volume is no deeper than the kernel it is computed as one of maps with c·d channels, each pair of depths having its
    slice of the weight: fewer products, and about six times quicker on a processor for the mask of a small W, forth and back.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)

    def forward(self, input: Tensor) -> Tensor:
        depth, kernel = input.shape[2], self.kernel_size[0]
        if depth > kernel or self.bias is None:
            return super().forward(input)
        levels = torch.arange(depth, device=input.device)
        slices = levels - levels[:, None] + kernel // 2  # of the weight, by depth of output and input
        is_within = ((slices >= 0) & (slices < kernel)).to(self.weight.dtype)
        weight = self.weight[:, :, slices.clamp(0, kernel - 1)] * is_within[..., None, None]
        weight = weight.permute(0, 2, 1, 3, 4, 5).flatten(2, 3).flatten(0, 1)
        maps = F.conv2d(input.flatten(1, 2), weight, self.bias.repeat_interleave(depth), padding=kernel // 2)
        return maps.unflatten(1, (-1, depth))


class SameBlock2d(nn.Module):
    """3 x 3 convolution, batch norm, ReLU (leaky with PyTorch's default slope where asked): (b, c, h, w) -> (b, c', h, w)."""

    def __init__(self, inputs: int, outputs: int, is_leaky: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = SteadyNorm2d(outputs)
        self.slope = 0.01 if is_leaky else 0.0

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.norm(self.conv(x)), self.slope)


class DownBlock2d(nn.Module):
    """3 x 3 convolution, batch norm, ReLU, halving by averages: (b, c, h, w) -> (b, c', h/2, w/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = SteadyNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.relu(self.norm(self.conv(x))), 2)


class ResBlock3d(nn.Module):
    """x plus twice (batch norm, ReLU, convolution) of it, over volumes (b, c, d, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm1 = SteadyNorm3d(channels)
        self.norm2 = SteadyNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(inner)))


class Block3d(nn.Module):
    """One step of the hourglass: 3 x 3 x 3 convolution, batch norm, ReLU, height and width halved after or doubled before."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.norm = SteadyNorm3d(outputs)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        if self.scale > 1:
            x = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        x = F.relu(self.norm(self.conv(x)))
        return F.avg_pool3d(x, (1, 2, 2)) if self.scale < 1 else x


class Encoder(nn.Module):
    """The descending half: a volume -> it and every coarser one, finest first."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList([Block3d(a, b, 0.5) for a, b in pairwise(widths)])

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels


class Decoder(nn.Module):
    """The ascending half: each level is doubled and joined by the encoder's of the same size."""

    def __init__(self, widths: Sequence[int], first: int) -> None:
        super().__init__()
        inputs = [widths[-1], *(2 * width for width in widths[-2:0:-1])]
        outputs = [*widths[-2:0:-1], first]
        self.up_blocks = nn.ModuleList([Block3d(a, b, 2) for a, b in zip(inputs, outputs, strict=True)])
        self.out_filters = first + widths[0]
        self.conv = nn.Conv3d(self.out_filters, self.out_filters, 3, padding=1)
        self.norm = SteadyNorm3d(self.out_filters)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        x = levels[-1]
        for block, skip in zip(self.up_blocks, levels[-2::-1], strict=True):
            x = torch.cat([block(x), skip], 1)
        return F.relu(self.norm(self.conv(x)))


class Hourglass(nn.Module):
    """Encoder and decoder over volumes: (b, inputs, d, h, w) -> (b, first + inputs, d, h, w); depth stays whole."""

    def __init__(self, inputs: int, first: int, blocks: int, widest: int) -> None:
        super().__init__()
        widths = [inputs, *(min(widest, first << (i + 1)) for i in range(blocks))]
        self.encoder = Encoder(widths)
        self.decoder = Decoder(widths, first)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class SpectralConv2d(nn.Module):
    """A convolution divided by its largest singular value (Miyato et al. 2018), kept as `weight_orig`, `weight_u`, `weight_v`.

    `refresh` refines u and v by a power iteration, once before each step of training.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, has_bias: bool = True) -> None:
        super().__init__()
        plain = nn.Conv2d(inputs, outputs, kernel, bias=has_bias)
        self.padding = kernel // 2
        self.bias = plain.bias
        self.weight_orig = plain.weight
        self.register_buffer("weight_u", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(inputs * kernel * kernel), dim=0))
        self.refresh(15)

    @torch.no_grad()
    def refresh(self, times: int = 1) -> None:
        """Power iterations, after the weight has changed."""
        matrix = self.weight_orig.flatten(1)
        for _ in range(times):
            self.weight_v.copy_(F.normalize(matrix.T @ self.weight_u, dim=0))
            self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0))

    def weight(self) -> Tensor:
        """The weight over sigma = u W v, with gradients through both; float32 under autocast too."""
        with full_precision(self.weight_orig):
            return self.weight_orig / torch.dot(self.weight_u, self.weight_orig.flatten(1) @ self.weight_v)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight(), self.bias, padding=self.padding)

    @torch.no_grad()
    def plain(self) -> nn.Conv2d:
        """The same convolution with sigma divided out, for use alone."""
        outputs, inputs, kernel, _ = self.weight_orig.shape
        conv = nn.Conv2d(inputs, outputs, kernel, padding=self.padding, bias=self.bias is not None)
        conv.to(self.weight_orig.device).weight.copy_(self.weight())
        if conv.bias is not None and self.bias is not None:
            conv.bias.copy_(self.bias)
        return conv


class Spade(nn.Module):
    """Instance norm whose scale and shift are painted by a map of the same place (Park et al. 2019): (b, c, h, w) -> same."""

    def __init__(self, channels: int, map_channels: int, hidden: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(map_channels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        shared = self.mlp_shared(F.interpolate(guide, x.shape[-2:], mode="nearest"))
        return F.instance_norm(x) * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class SpadeBlock(nn.Module):
    """Residual block of G: twice (SPADE, leaky ReLU, convolution); the shortcut is a 1 x 1 convolution where widths differ."""

    def __init__(self, inputs: int, outputs: int, map_channels: int, hidden: int) -> None:
        super().__init__()
        inner = min(inputs, outputs)
        self.conv_0 = SpectralConv2d(inputs, inner, 3)
        self.conv_1 = SpectralConv2d(inner, outputs, 3)
        self.norm_0 = Spade(inputs, map_channels, hidden)
        self.norm_1 = Spade(inner, map_channels, hidden)
        self.has_shortcut = inputs != outputs
        if self.has_shortcut:
            self.conv_s = SpectralConv2d(inputs, outputs, 1, has_bias=False)
            self.norm_s = Spade(inputs, map_channels, hidden)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        short = self.conv_s(self.norm_s(x, guide)) if self.has_shortcut else x
        inner = self.conv_0(F.leaky_relu(self.norm_0(x, guide), SLOPE))
        return short + self.conv_1(F.leaky_relu(self.norm_1(inner, guide), SLOPE))
