"""F with less arithmetic: convolutions by tiles, batch norms folded, channels last. Shapes as in `lean.tiled`."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura_live_portrait.lean.folding import folded, scale_and_shift
from mixtura_live_portrait.lean.halved import Halved
from mixtura_live_portrait.lean.workspace import Workspace, inside
from mixtura_live_portrait.nets.appearance import Appearance
from mixtura_live_portrait.nets.blocks import DownBlock2d, ResBlock3d


class LeanResidual(nn.Module):
    """Adds to a volume (b, d, h, w, c), in place, twice (batch norm, ReLU, convolution) of it.

    Its channels are too few for tiles to pay; with channels last the plain convolution is as quick.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, block: ResBlock3d, half: bool) -> None:
        super().__init__()
        scale, shift = scale_and_shift(block.norm1)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        weight, bias = folded(block.conv1, block.norm2)
        self.first, self.second = (nn.Conv3d(len(weight), len(weight), 3, padding=1) for _ in range(2))
        self.first.load_state_dict({"weight": weight, "bias": bias})
        self.second.load_state_dict(block.conv2.state_dict())
        self.dtype = torch.bfloat16 if half else torch.float32
        for conv in (self.first, self.second):
            conv.to(self.dtype)
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last_3d)

    def forward(self, volume: Tensor) -> None:
        seen = torch.addcmul(self.shift, volume, self.scale).clamp_(min=0).to(self.dtype)
        inner = self.first(seen.permute(0, 4, 1, 2, 3)).clamp_(min=0)
        volume.add_(self.second(inner).permute(0, 2, 3, 4, 1))


class LeanAppearance(nn.Module):
    """Image (b, 3, S, S) in 0..1 -> volume (b, c, d, h, w)."""

    second: Tensor
    second_bias: Tensor

    def __init__(self, appearance: Appearance, half: bool = False, space: Workspace | None = None) -> None:
        super().__init__()
        sizes = self.sizes = appearance.sizes
        weight, bias = folded(appearance.first)
        self.first = nn.Conv2d(3, weight.shape[0], 3, padding=1)
        self.first.load_state_dict({"weight": weight, "bias": bias})
        downs = [folded(cast(DownBlock2d, block)) for block in appearance.down_blocks]
        self.downs = nn.ModuleList(Halved(*down, sizes.image >> i, half) for i, down in enumerate(downs))
        weight = appearance.second.weight[:, :, 0, 0].unflatten(0, (sizes.channels, sizes.depth)).transpose(0, 1)
        bias = cast(Tensor, appearance.second.bias).view(sizes.channels, sizes.depth).T
        self.register_buffer("second", weight.flatten(0, 1).T.contiguous(), persistent=False)
        self.register_buffer("second_bias", bias.flatten(), persistent=False)
        residuals = [cast(ResBlock3d, block) for block in appearance.resblocks_3d]
        self.residuals = nn.ModuleList(LeanResidual(block, half) for block in residuals)
        self.space = space or Workspace()

    def forward(self, image: Tensor) -> Tensor:
        space, b, side = self.space, len(image), self.sizes.image
        first = F.relu_(self.first(image.contiguous(memory_format=torch.channels_last))).permute(0, 2, 3, 1)[:, None]
        padded = space.bordered("level 0", first.shape)
        inside(padded).copy_(first)
        for i, down in enumerate(cast(list[Halved], self.downs)):
            side //= 2
            target = space.bordered(f"level {i + 1}", (b, 1, side, side, down.filters.k))
            down(space, padded, inside(target))
            padded = target
        maps = torch.addmm(self.second_bias, inside(padded).reshape(-1, padded.shape[-1]), self.second)
        volume = space.take("volume", (b, self.sizes.depth, side, side, self.sizes.channels))
        volume.copy_(maps.view(b, side, side, self.sizes.depth, -1).permute(0, 3, 1, 2, 4))
        for residual in self.residuals:
            residual(volume)
        return volume.permute(0, 4, 1, 2, 3).contiguous()
