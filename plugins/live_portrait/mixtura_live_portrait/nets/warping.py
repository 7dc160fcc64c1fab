"""W, the warping network: a volume is bent from the source's keypoints to the driving ones and flattened to a map.

Shapes: b batch, k keypoints, n = k + 1 flows (the first is the unmoved background), c channels, d h w depth, height, width.
Coordinates are (x, y, z), each -1 to 1 over the volume from edge to edge, as sampling has it (`align_corners=False`). The
published networks put the centres of the outermost cells at -1 and 1 and were trained so: unmoved keypoints shrink the volume by
one cell. At 64 cells that is little, at 16 it is a sixteenth of the picture.

`Sizes.coarse` makes W for few cells: coordinates are those of their centres; a keypoint's heat reaches half a cell at least, or
the few depths would miss it; and W is told the heat of the driving keypoints, not by how much it differs from the source's: of
what moves less than a cell, as lids do, hardly anything is left of that difference.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura_live_portrait.nets.blocks import Hourglass, SameBlock2d, ShallowConv3d, SteadyNorm3d, full_precision
from mixtura_live_portrait.nets.sizes import Sizes

VARIANCE = 0.01
"""Of the heat that a keypoint gives off; see `variance`."""
TOLD, UNTOLD, STILL = 10.0, 0.1, 5.0
"""In an untrained mask: what a flow's own heat weighs, by how much less than usual all else does, and what the background has."""
VISIBLE = 3.0
"""What an untrained occlusion says of every place, before its sigmoid: 0.95."""


class DenseMotion(NamedTuple):
    """Where to sample the source's volume (b, d, h, w, 3) and how visible the result is (b, 1, h, w) in 0..1."""

    deformation: Tensor
    occlusion: Tensor


class Warped(NamedTuple):
    """`out` (b, c, h, w) is what G paints from; `deformation` and `occlusion` are those of `DenseMotion`."""

    out: Tensor
    deformation: Tensor
    occlusion: Tensor


def axis(length: int, like: Tensor, is_coarse: bool = False) -> Tensor:
    """Coordinates of a volume's cells along one side: their centres, or as the published networks count."""
    end = 1 - 1 / length if is_coarse else 1.0
    return torch.linspace(-end, end, length, device=like.device, dtype=like.dtype)


def sparse_flows(kp_driving: Tensor, kp_source: Tensor, sides: tuple[int, int, int], is_coarse: bool = False) -> Tensor:
    """Sampling positions if everything moved as one keypoint does: (b, n, d, h, w, 3) from two (b, k, 3)."""
    z, y, x = torch.meshgrid(*(axis(length, kp_source, is_coarse) for length in sides), indexing="ij")
    identity = torch.stack([x, y, z], -1)
    return identity + shifts(kp_driving, kp_source)[:, :, None, None, None]


def shifts(kp_driving: Tensor, kp_source: Tensor) -> Tensor:
    """By how much each flow differs from the identity: (b, n, 3)."""
    return F.pad(kp_source - kp_driving, (0, 0, 1, 0))


def variance(length: int, is_coarse: bool) -> float:
    """Of a keypoint's heat along a side of so many cells."""
    return max(VARIANCE, length**-2.0) if is_coarse else VARIANCE


def heat(keypoints: Tensor, sides: tuple[int, int, int], is_coarse: bool = False) -> Tensor:
    """Heat of each keypoint, exp(-distance^2 / (2 variance)): (b, k, d, h, w). A product of one factor for each axis."""
    d, h, w = sides
    x, y, z = (
        torch.exp((axis(length, keypoints, is_coarse) - keypoints[..., i, None]).square() * (-0.5 / variance(length, is_coarse)))
        for i, length in ((0, w), (1, h), (2, d))
    )
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]


def interpolation(shift: Tensor, length: int, is_coarse: bool = False) -> Tensor:
    """Matrices (..., length, length) that interpolate along one side of a volume moved by `shift` (...); 0 beyond its ends."""
    position = ((axis(length, shift, is_coarse) + shift[..., None] + 1) * length - 1) / 2
    cells = torch.arange(length, device=shift.device, dtype=shift.dtype)
    return (1 - (position[..., :, None] - cells).abs()).clamp(min=0)


def moved(volume: Tensor, shift: Tensor, is_coarse: bool = False) -> Tensor:
    """The volume (b, c, d, h, w) as each of the shifts (b, n, 3) shows it: (b, n, c, d, h, w).

    What trilinear sampling at `sparse_flows` gives. As all positions of a flow differ from the grid by one vector, it is three
    small matrix products instead of a look-up for every cell.
    """
    (b, c, d, h, w), n = volume.shape, shift.shape[1]
    x, y, z = (interpolation(shift[..., i], length, is_coarse) for i, length in ((0, w), (1, h), (2, d)))
    along_y = y.flatten(1, 2) @ volume.permute(0, 3, 2, 1, 4).flatten(2)  # (n h', h) @ (h, d c w)
    along_x = along_y.view(b, n, h * d * c, w) @ x.mT
    along_z = z[:, :, None] @ along_x.view(b, n, h, d, c * w)
    return along_z.view(b, n, h, d, c, w).permute(0, 1, 4, 3, 2, 5)


class DenseMotionNetwork(nn.Module):
    """Mixes the flows of all keypoints into one deformation, and says what it hides."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        flows = sizes.keypoints + 1
        self.hourglass = Hourglass(flows * (sizes.compress + 1), sizes.dense_base, sizes.dense_blocks, sizes.dense_max)
        filters = self.hourglass.decoder.out_filters
        self.mask = ShallowConv3d(filters, flows, 7)
        self.compress = nn.Conv3d(sizes.channels, sizes.compress, 1)
        self.norm = SteadyNorm3d(sizes.compress)
        self.occlusion = nn.Conv2d(filters * sizes.depth, 1, 7, padding=3)
        self.is_coarse = sizes.coarse
        self.begin(flows)

    @torch.no_grad()
    def begin(self, flows: int) -> None:
        """Each flow is chosen first where its keypoint's heat is: a random mask bends nothing sensibly, and then none learns to.

        The hourglass hands the heat through, the mask takes its blurred height, and everything else counts little at first.
        All is visible, by a bias alone: random filters of so many inputs soon reach the flat end of the sigmoid, and stay there.
        """
        self.occlusion.weight.zero_()
        assert self.occlusion.bias is not None
        self.occlusion.bias.fill_(VISIBLE)
        end = self.hourglass.decoder
        heats = range(end.out_filters - flows * (self.compress.out_channels + 1), end.out_filters, self.compress.out_channels + 1)
        blur = [torch.exp(-0.5 * (torch.arange(7) - 3.0).square() / spread**2) for spread in (2.0, 0.7, 0.7)]
        kernel = blur[0][:, None, None] * blur[1][:, None] * blur[2]
        self.mask.weight.mul_(UNTOLD)
        assert self.mask.bias is not None
        assert end.conv.bias is not None
        self.mask.bias.zero_()
        self.mask.bias[0] = STILL
        for flow, channel in list(enumerate(heats))[1:]:  # the background has no heat
            end.conv.weight[channel] = 0
            end.conv.weight[channel, channel, 1, 1, 1] = 1
            end.conv.bias[channel] = 0
            self.mask.weight[flow, channel] += TOLD * kernel / kernel.sum()

    def forward(self, volume: Tensor, kp_driving: Tensor, kp_source: Tensor) -> DenseMotion:
        sides = (volume.shape[2], volume.shape[3], volume.shape[4])
        compressed = F.relu(self.norm(self.compress(volume)))
        features = moved(compressed, shifts(kp_driving, kp_source).to(compressed.dtype), self.is_coarse)
        warmth = heat(kp_driving, sides, self.is_coarse)
        if not self.is_coarse:
            warmth = warmth - heat(kp_source, sides)
        warmth = F.pad(warmth, (0, 0, 0, 0, 0, 0, 1, 0))
        found = self.hourglass(torch.cat([warmth[:, :, None], features], 2).flatten(1, 2))
        weights = self.mask(found).softmax(1)
        # Σ weight · (identity + shift) = identity + Σ weight · shift, for the weights add up to 1.
        with full_precision(weights):  # half precision would round positions to a tenth of a cell
            flow = torch.einsum("bndhw,bnx->bdhwx", weights.to(kp_source.dtype), shifts(kp_driving, kp_source))
        nowhere = torch.zeros_like(kp_source[:, :0])
        deformation = flow + sparse_flows(nowhere, nowhere, sides, self.is_coarse)[:, 0]
        return DenseMotion(deformation, self.occlusion(found.flatten(1, 2)).sigmoid())


class Warping(nn.Module):
    """A volume (b, c, d, h, w) and keypoints (b, k, 3), driving first, -> `Warped`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.dense_motion_network = DenseMotionNetwork(sizes)
        self.third = SameBlock2d(sizes.channels * sizes.depth, sizes.generator, is_leaky=True)
        self.fourth = nn.Conv2d(sizes.generator, sizes.generator, 1)

    def forward(self, volume: Tensor, kp_driving: Tensor, kp_source: Tensor) -> Warped:
        motion = self.dense_motion_network(volume, kp_driving, kp_source)
        bent = F.grid_sample(volume.to(motion.deformation.dtype), motion.deformation, align_corners=False)
        out = self.fourth(self.third(bent.flatten(1, 2))) * motion.occlusion
        return Warped(out, *motion)
