"""M, the motion extractor: a ConvNeXt V2 (Woo et al. 2023) with a head for each part of a motion.

Shapes: b batch, c channels, h w space. The heads' raw outputs become a `Motion` in `mixtura_live_portrait.keypoints`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura_live_portrait.nets.blocks import full_precision
from mixtura_live_portrait.nets.sizes import STEM, Sizes

EPSILON = 1e-6
TINY = 1e-24
"""What keeps the gradient of a root finite where a channel is 0 everywhere."""


class Heads(NamedTuple):
    """Raw outputs of M: `kp` and `exp` (b, 3 K), `pitch`, `yaw`, `roll` logits of bins (b, bins), `t` (b, 3), `scale` (b, 1)."""

    kp: Tensor
    pitch: Tensor
    yaw: Tensor
    roll: Tensor
    t: Tensor
    exp: Tensor
    scale: Tensor


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of (b, c, h, w)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Global response normalisation of (b, h, w, c): channels compete by their L2 norm over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        squares = x.float().square().sum((1, 2), keepdim=True)  # linalg.vector_norm takes ten times as long on a processor
        strength = (squares + TINY).sqrt().to(x.dtype)
        relative = strength / (strength.mean(-1, keepdim=True) + EPSILON)
        return x + self.gamma * (x * relative) + self.beta


class Block(nn.Module):
    """x plus depth-wise 7 x 7, layer norm, four times wider, GELU, response norm, and back: (b, c, h, w) -> same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.grn = ResponseNorm(4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        inner = self.pwconv2(self.grn(F.gelu(self.pwconv1(inner))))
        return x + inner.permute(0, 3, 1, 2)


class Detector(nn.Module):
    """The backbone and its seven heads."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dims = sizes.motion_dims
        stem = nn.Sequential(nn.Conv2d(3, dims[0], STEM, stride=STEM), LayerNorm2d(dims[0], eps=EPSILON))
        steps = [nn.Sequential(LayerNorm2d(a, eps=EPSILON), nn.Conv2d(a, b, 2, stride=2)) for a, b in pairwise(dims)]
        self.downsample_layers = nn.ModuleList([stem, *steps])
        self.stages = nn.ModuleList(
            [nn.Sequential(*(Block(width) for _ in range(depth))) for depth, width in zip(sizes.motion_depths, dims, strict=True)]
        )
        self.norm = nn.LayerNorm(dims[-1], eps=EPSILON)
        self.fc_kp = nn.Linear(dims[-1], 3 * sizes.keypoints)
        self.fc_scale = nn.Linear(dims[-1], 1)
        self.fc_pitch = nn.Linear(dims[-1], sizes.bins)
        self.fc_yaw = nn.Linear(dims[-1], sizes.bins)
        self.fc_roll = nn.Linear(dims[-1], sizes.bins)
        self.fc_t = nn.Linear(dims[-1], 3)
        self.fc_exp = nn.Linear(dims[-1], 3 * sizes.keypoints)
        self.apply(_begin)
        for name in Heads._fields:
            nn.init.trunc_normal_(getattr(self, f"fc_{name}").weight, std=0.02)
        nn.init.ones_(self.fc_scale.bias)  # an untrained face is as large as its canonical one, not a point

    def forward(self, image: Tensor) -> Heads:
        x = image
        for step, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(step(x))
        features = self.norm(x.mean((-2, -1)))
        with full_precision(features):  # half precision has 0.004 of a picture's half side, and places count
            return Heads(*(getattr(self, f"fc_{name}")(features.to(self.fc_kp.weight.dtype)) for name in Heads._fields))


def _begin(module: nn.Module) -> None:
    """Normal weights that keep the size of what passes, no biases.

    ConvNeXt's own start, 0.02 for all, is ten times too small for the narrow layers of a small M: it takes twice the steps until
    anything but the mean face is seen.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class MotionExtractor(nn.Module):
    """Image (b, 3, S, S) in 0..1 -> `Heads`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.detector = Detector(sizes)

    def forward(self, image: Tensor) -> Heads:
        return self.detector(image)
