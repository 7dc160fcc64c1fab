"""W with less arithmetic: the hourglass by tiles and on small volumes, the mask's large filters by Fourier transforms.

Shapes as in `lean.tiled`, volumes (b, d, h, w, c) with channels last. What is computed is exactly `nets.warping.Warping` in eval
mode. Batch norms are folded into the convolutions before them; the background's heat, which is 0, is no channel here.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura_live_portrait.lean.enlarged import Enlarged
from mixtura_live_portrait.lean.folding import folded
from mixtura_live_portrait.lean.fourier import Fourier
from mixtura_live_portrait.lean.halved import Halved
from mixtura_live_portrait.lean.tiled import Tiled, as_tiles, tile_side
from mixtura_live_portrait.lean.workspace import Workspace, inside
from mixtura_live_portrait.nets.blocks import Block3d, Hourglass
from mixtura_live_portrait.nets.warping import DenseMotion, DenseMotionNetwork, Warped, Warping, axis, moved, shifts, variance


def whole(channels: int) -> int:
    """The next multiple of 16."""
    return -(-channels // 16) * 16


def filled(weight: Tensor, axis: int = 0) -> Tensor:
    """Zeros appended along an axis until its length is such a multiple."""
    shape = list(weight.shape)
    shape[axis] = whole(shape[axis]) - shape[axis]
    return torch.cat([weight, weight.new_zeros(shape)], axis)


class LeanHourglass(nn.Module):
    """Flows' heat and features -> what mask and occlusion are read from, bordered for the mask's filters.

    `order` says for each channel of the input which published one it is; those left out are 0. Numbers of channels are filled
    up to multiples of 16 with zeros, because products of odd lengths are slow.
    """

    end_bias: Tensor

    def __init__(self, hourglass: Hourglass, order: Tensor, side: int, border: int, half: bool) -> None:
        super().__init__()
        downs = [folded(cast(Block3d, block)) for block in hourglass.encoder.down_blocks]
        ups = [folded(cast(Block3d, block)) for block in hourglass.decoder.up_blocks]
        self.border = border
        self.downs = nn.ModuleList(
            Halved(filled(weight[:, order], 1) if i == 0 else weight, bias, side >> i, half)
            for i, (weight, bias) in enumerate(downs)
        )
        self.ups = nn.ModuleList(Enlarged(weight, 2, half) for weight, _ in ups)
        for i, (_, bias) in enumerate(ups):
            self.register_buffer(f"up_bias_{i}", bias, persistent=False)
        weight, bias = folded(hourglass.decoder)
        self.first = ups[-1][0].shape[0]  # channels that come from below at the finest level
        weight = torch.cat([weight[:, : self.first], filled(weight[:, self.first + order], 1)], 1)
        self.end = Tiled(filled(weight), tile_side(side), half)
        self.register_buffer("end_bias", filled(bias), persistent=False)
        # Channels of each level, finest first: from below, then the encoder's own.
        self.given = len(order)
        own = [whole(self.given), *(weight.shape[0] for weight, _ in downs)]
        below = [*(weight.shape[0] for weight, _ in reversed(ups)), 0]
        self.widths = list(zip(below, own, strict=True))

    def levels(self, space: Workspace, b: int, d: int, side: int) -> list[Tensor]:
        """One bordered volume for each level, finest first."""
        return [
            space.bordered(f"level {i}", (b, d, side >> i, side >> i, below + own)) for i, (below, own) in enumerate(self.widths)
        ]

    def entrance(self, levels: list[Tensor]) -> Tensor:
        """Where the input belongs."""
        channels = inside(levels[0])[..., self.first :]
        channels[..., self.given :] = 0
        return channels[..., : self.given]

    def forward(self, space: Workspace, levels: list[Tensor]) -> Tensor:
        for i, down in enumerate(self.downs):
            down(space, levels[i][..., self.widths[i][0] :], inside(levels[i + 1])[..., self.widths[i + 1][0] :])
        for i, up in enumerate(cast(list[Enlarged], self.ups)):
            fine = len(self.ups) - 1 - i
            target = inside(levels[fine])[..., : self.widths[fine][0]]
            up.into(space, levels[fine + 1], self.get_buffer(f"up_bias_{i}"), target)
        b, d, h, w, _ = levels[0].shape
        found = space.bordered("found", (b, d, h - 2, w - 2, self.end.k), self.border)
        for rows, values in self.end.tiles(space, levels[0]):
            torch.clamp(values.add_(self.end_bias), min=0, out=as_tiles(inside(found, self.border), self.end.m, rows))
        return found


class Occlusion(nn.Module):
    """One large filter over all depths and channels, as 49 sums a place that are then shifted together; sigmoid: (b, 1, h, w)."""

    filters: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, depth: int) -> None:
        super().__init__()
        self.taps = conv.kernel_size[0]
        filters = filled(conv.weight[0].flip(1, 2).unflatten(0, (-1, depth)).flatten(2)).permute(1, 0, 2)  # d, c, taps
        self.register_buffer("filters", filters.contiguous(), persistent=False)
        self.register_buffer("bias", cast(Tensor, conv.bias), persistent=False)

    def forward(self, space: Workspace, found: Tensor) -> Tensor:
        b, d, h, w, c = found.shape
        sums = space.take("sums", (b, h * w, self.taps**2)).zero_()
        for z in range(d):
            sums.baddbmm_(found[:, z].reshape(b, h * w, c), self.filters[z].expand(b, -1, -1))
        border = self.taps // 2
        middle = sums.view(b, h, w, -1)[:, border:-border, border:-border].flatten(1, 2).transpose(1, 2)
        size = (h - 2 * border, w - 2 * border)
        return F.fold(middle, size, self.taps, padding=border).add_(self.bias).sigmoid_()


class LeanDenseMotion(nn.Module):
    """Compressed volume (b, c, d, h, w) and keypoints -> `DenseMotion`."""

    mask_bias: Tensor

    def __init__(self, network: DenseMotionNetwork, side: int, half: bool) -> None:
        super().__init__()
        flows, compress = network.mask.out_channels, network.compress.out_channels
        places = torch.arange(flows * (compress + 1)).view(flows, compress + 1)
        order = torch.cat([places[1:, 0], places[:, 1:].flatten()])
        depth = network.occlusion.in_channels // network.mask.in_channels
        self.border, self.is_coarse = network.mask.kernel_size[0] // 2, network.is_coarse
        self.hourglass = LeanHourglass(network.hourglass, order, side, self.border, half)
        self.mask = Fourier(filled(network.mask.weight, 1), side, half)
        self.register_buffer("mask_bias", cast(Tensor, network.mask.bias), persistent=False)
        self.occlusion = Occlusion(network.occlusion, depth)

    def forward(self, space: Workspace, compressed: Tensor, kp_driving: Tensor, kp_source: Tensor) -> DenseMotion:
        b, (d, side) = len(kp_driving), compressed.shape[2:4]
        levels = self.hourglass.levels(space, b, d, side)
        entrance, k = self.hourglass.entrance(levels), kp_driving.shape[1]
        heat_into(entrance[..., :k], kp_driving, kp_source, self.is_coarse)
        shift = shifts(kp_driving, kp_source)
        features = moved(compressed.expand(b, -1, -1, -1, -1), shift, self.is_coarse)
        entrance[..., k:].unflatten(-1, features.shape[1:3]).copy_(features.permute(0, 3, 4, 5, 1, 2))
        found = self.hourglass(space, levels)
        logits = space.take("logits", (b, d, side, side, k + 1))
        for rows, values in self.mask.tiles(space, found):
            torch.add(values, self.mask_bias, out=as_tiles(logits, self.mask.m, rows))
        flow = logits.softmax(-1).flatten(1, 3) @ shift
        z, y, x = (axis(length, flow, self.is_coarse) for length in (d, side, side))
        deformation = flow.view(b, d, side, side, 3)
        deformation[..., 0] += x
        deformation[..., 1] += y[:, None]
        deformation[..., 2] += z[:, None, None]
        return DenseMotion(deformation, self.occlusion(space, found))


def heat_into(target: Tensor, kp_driving: Tensor, kp_source: Tensor, is_coarse: bool) -> None:
    """The heat of the driving keypoints into `target` (b, d, h, w, k), less that of the source's where cells are many."""
    _, d, h, w, _ = target.shape
    for i, keypoints in enumerate((kp_driving,) if is_coarse else (kp_driving, kp_source)):
        x, y, z = (
            (axis(length, keypoints, is_coarse)[:, None] - keypoints[:, None, :, j])
            .square_()
            .mul_(-0.5 / variance(length, is_coarse))
            .exp_()
            for j, length in enumerate((w, h, d))
        )
        plane = (z[:, :, None] * y[:, None])[:, :, :, None]
        if i == 0:
            torch.mul(plane, x[:, None, None], out=target)
        else:
            target.addcmul_(plane, x[:, None, None], value=-1)


class LeanWarping(nn.Module):
    """A volume (1 or b, c, d, h, w) and keypoints (b, k, 3) -> `Warped`, whose `out` is (b, h, w, c), channels last."""

    third_bias: Tensor
    last: Tensor
    last_bias: Tensor

    def __init__(self, warping: Warping, side: int, half: bool = False, space: Workspace | None = None) -> None:
        super().__init__()
        network = warping.dense_motion_network
        weight, bias = folded(network.compress, network.norm)
        self.compress = nn.Conv3d(weight.shape[1], weight.shape[0], 1)
        self.compress.load_state_dict({"weight": weight, "bias": bias})
        self.dense = LeanDenseMotion(network, side, half)
        weight, bias = folded(warping.third)
        self.third, self.slope = Tiled(weight, tile_side(side), half), warping.third.slope
        self.register_buffer("third_bias", bias, persistent=False)
        self.register_buffer("last", warping.fourth.weight[:, :, 0, 0].T.contiguous(), persistent=False)
        self.register_buffer("last_bias", cast(Tensor, warping.fourth.bias), persistent=False)
        self.space = space or Workspace()

    def forward(self, volume: Tensor, kp_driving: Tensor, kp_source: Tensor) -> Warped:
        space, b = self.space, len(kp_driving)
        kp_source = kp_source.expand(b, -1, -1)
        motion = self.dense(space, F.relu(self.compress(volume)), kp_driving, kp_source)
        bent = F.grid_sample(volume.expand(b, -1, -1, -1, -1), motion.deformation, align_corners=False).flatten(1, 2)
        side = bent.shape[-1]
        padded = space.bordered("bent", (b, 1, side, side, bent.shape[1]))
        inside(padded)[:, 0].copy_(bent.permute(0, 2, 3, 1))
        flat = space.take("flat", (b, 1, side, side, self.third.k))
        for rows, values in self.third.tiles(space, padded):
            as_tiles(flat, self.third.m, rows).copy_(F.leaky_relu_(values.add_(self.third_bias), self.slope))
        out = torch.addmm(self.last_bias, flat.view(-1, self.third.k), self.last).view(b, side, side, -1)
        return Warped(out.mul_(motion.occlusion.permute(0, 2, 3, 1)), *motion)
