"""What judges pictures besides their pixels: image gradients (needs nothing), or features of VGG whose weights are given.

`build_perceptual(config)` gives a frozen module: pictures (N, 3, H, W) in [0, 1], predicted and target -> (N,), 0 for equal ones.
LPIPS: Zhang et al. 2018, section 3, trunk VGG-16, version 0.1 of its linear layers. The pyramid: plain differences of VGG-19's
features at several sizes of the pictures (Johnson et al. 2016; sizes and layers as in Siarohin et al. 2019, section 3.3).
Gradients are our stand-in where weights can't be had: no published number was made with it.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura.errors import CheckpointError

SCALES = 4
"""Sizes of a picture that are compared, each half of the one before: by `Gradients` and `VggPyramid`."""
SHIFT, SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""What LPIPS takes from pictures in [-1, 1] and divides them by."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What VGG takes from pictures in [0, 1] and divides them by."""
CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Convolutions of VGG-16 by their published number, grouped by resolution; each group's end is a feature of LPIPS."""
CONVOLUTIONS_19 = ((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28, 30, 32, 34))
"""Those of VGG-19; each group's first is a feature of the pyramid."""
WIDTHS = (64, 128, 256, 512, 512)
SMALLEST = 16
"""Side of a picture whose last features are one cell."""

Groups = tuple[tuple[int, ...], ...]


class PerceptualConfig(BaseModel):
    """What judges pictures besides their pixels.

    gradients: differences of image gradients at several scales, needs nothing; lpips: VGG-16 features, needs `trunk` (weights of
    VGG-16, names `features.N.weight`) and `heads` (LPIPS's linear layers, names `linN...`), both given as files; vgg19: features
    of VGG-19 at several scales, needs `trunk`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["gradients", "lpips", "vgg19"] = "gradients"
    trunk: str | None = Field(None, description="file with the weights of VGG-16 (lpips) or VGG-19 (vgg19)")
    heads: str | None = Field(None, description="file with the linear layers of LPIPS (lpips)")
    size: int = Field(256, ge=16, description="pixels that pictures are resized to before VGG-16 sees them (lpips)")

    @model_validator(mode="after")
    def _has_files(self) -> PerceptualConfig:
        if self.type == "lpips" and not (self.trunk and self.heads):
            raise ValueError("type lpips needs `trunk` and `heads`, files with the weights; without them use `type: gradients`")
        if self.type == "vgg19" and not self.trunk:
            raise ValueError("type vgg19 needs `trunk`, a file with the weights; without it use `type: gradients`")
        if self.type == "gradients" and (self.trunk or self.heads):
            raise ValueError("`trunk` and `heads` belong to `type: lpips`")
        if self.type == "vgg19" and self.heads:
            raise ValueError("`heads` belongs to `type: lpips`")
        return self


class Gradients(nn.Module):
    """Mean absolute difference of horizontal and vertical gradients, over 4 scales."""

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """(N, 3, H, W) twice -> (N,)."""
        difference, total, scales = predicted - target, predicted.new_zeros(len(predicted)), 0
        while scales < SCALES and min(difference.shape[-2:]) > 1:
            across = (difference[..., 1:] - difference[..., :-1]).abs().flatten(1).mean(1)
            down = (difference[..., 1:, :] - difference[..., :-1, :]).abs().flatten(1).mean(1)
            total, scales = total + across + down, scales + 1
            difference = F.avg_pool2d(difference, 2, ceil_mode=True)
        return total / max(scales, 1)


class Vgg(nn.Module):
    """The convolutions that a judge needs of VGG, by their published numbers, below `trunk`."""

    def __init__(self, groups: Groups, shift: tuple[float, ...], spread: tuple[float, ...]) -> None:
        super().__init__()
        self.groups = groups
        self.trunk = nn.ModuleDict()
        before = 3
        for numbers, width in zip(groups, WIDTHS, strict=True):
            for number in numbers:
                self.trunk[str(number)] = nn.Conv2d(before, width, 3, padding=1)
                before = width
        self.shift: Tensor
        self.spread: Tensor
        self.register_buffer("shift", torch.tensor(shift).view(3, 1, 1), persistent=False)
        self.register_buffer("spread", torch.tensor(spread).view(3, 1, 1), persistent=False)

    def stages(self, pictures: Tensor) -> list[list[Tensor]]:
        """What each convolution finds, by groups, in pictures (N, 3, H, W) in the range that `shift` and `spread` are for."""
        x, found = (pictures - self.shift) / self.spread, []
        for group, numbers in enumerate(self.groups):
            x, stage = F.max_pool2d(x, 2) if group else x, []
            for number in numbers:
                x = self.trunk[str(number)](x).relu()
                stage.append(x)
            found.append(stage)
        return found


class Lpips(Vgg):
    """Weighted distances between the unit-length features of VGG-16 after each group of convolutions."""

    def __init__(self, size: int = 256) -> None:
        super().__init__(CONVOLUTIONS, SHIFT, SPREAD)
        self.size = size
        self.heads = nn.ParameterList(torch.zeros(width) for width in WIDTHS)

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] twice -> (N,)."""
        total = predicted.new_zeros(len(predicted))
        for head, a, b in zip(self.heads, self.features(predicted), self.features(target), strict=True):
            squared = (_unit(a) - _unit(b)).square()
            total = total + (squared * head.view(-1, 1, 1)).sum(1).flatten(1).mean(1)
        return total

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Five feature maps of pictures (N, 3, H, W)."""
        if pictures.shape[-1] != self.size or pictures.shape[-2] != self.size:
            pictures = F.interpolate(pictures, (self.size, self.size), mode="bilinear", align_corners=False)
        return [stage[-1] for stage in self.stages(2 * pictures - 1)]


class VggPyramid(Vgg):
    """Mean absolute difference of the first features of each group of VGG-19, summed over groups and sizes of the pictures."""

    def __init__(self) -> None:
        super().__init__((*CONVOLUTIONS_19[:-1], CONVOLUTIONS_19[-1][:1]), MEAN, DEVIATION)  # the last one's others aren't needed

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] twice -> (N,)."""
        total, scale = predicted.new_zeros(len(predicted)), 0
        while scale < SCALES and (scale == 0 or min(predicted.shape[-2:]) >= SMALLEST):
            for a, b in zip(self.features(predicted), self.features(target), strict=True):
                total = total + (a - b).abs().flatten(1).mean(1)
            predicted, target = (F.avg_pool2d(pictures, 2, ceil_mode=True) for pictures in (predicted, target))
            scale += 1
        return total

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Five feature maps of pictures (N, 3, H, W), whose sides have 16 pixels at least."""
        return [stage[0] for stage in self.stages(pictures)]


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def build_perceptual(config: PerceptualConfig, root: Path | None = None) -> nn.Module:
    """The judge that a configuration asks for, frozen. Relative paths start at `root`. Raises CheckpointError."""
    if config.type == "gradients":
        return Gradients()
    base = root or Path.cwd()
    judge: Vgg = VggPyramid() if config.type == "vgg19" else Lpips(config.size)
    _load_trunk(judge, base / str(config.trunk))
    if isinstance(judge, Lpips):
        _load_heads(judge, base / str(config.heads))
    return judge.requires_grad_(False).eval()


def _load_trunk(judge: Vgg, path: Path) -> None:
    """`features.N.weight` and `.bias` of VGG, whatever stands before; `net.sliceK.N.` as the LPIPS package has them."""
    state = _read(path)
    for number, layer in judge.trunk.items():
        for leaf, parameter in layer.named_parameters():
            _fill(parameter, _only(state, rf"(?:.*\.)?(?:features|net\.slice\d)\.{number}\.{leaf}", path), path)


def _load_heads(judge: Lpips, path: Path) -> None:
    """`lin0.model.1.weight` (1, C, 1, 1) and so on, whatever stands before `lin`."""
    state = _read(path)
    for number, parameter in enumerate(judge.heads):
        _fill(parameter, _only(state, rf"(?:.*\.)?lin{number}\.(?:model\.1\.)?weight", path).flatten(), path)


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"perceptual: no file {path}; give VGG's (and LPIPS's) weights, or use `type: gradients`")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"perceptual: {path} can't be read as plain tensors ({str(error).splitlines()[0]})") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"perceptual: {path} holds a {type(content).__name__}, expected tensors by name")
    inner = content.get("state_dict")  # published DiffusionGS checkpoints carry both networks
    return inner if isinstance(inner, Mapping) else content


def _only(state: Mapping[str, Tensor], pattern: str, path: Path) -> Tensor:
    found = [name for name in state if re.fullmatch(pattern, name)]
    if len(found) != 1:
        raise CheckpointError(f"perceptual: {path} has {len(found)} tensors named like {pattern}, expected one")
    return state[found[0]]


def _fill(parameter: Tensor, value: Tensor, path: Path) -> None:
    if parameter.shape != value.shape:
        raise CheckpointError(f"perceptual: {path} holds {tuple(value.shape)} where {tuple(parameter.shape)} is expected")
    with torch.no_grad():
        parameter.copy_(value)
