"""Norms of networks in use folded into convolutions: batch norms into the one before them, spectral norms into their own."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from mixtura_live_portrait.nets.blocks import Block3d, Decoder, DownBlock2d, ResBlock3d, SameBlock2d, SpectralConv2d
from mixtura_live_portrait.nets.warping import DenseMotionNetwork


class Normed(Protocol):
    """A block whose `norm` follows its `conv`."""

    conv: nn.Module
    norm: nn.Module


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a batch norm multiplies each channel with and adds to it, float32 from float64."""
    norm = cast(nn.BatchNorm2d, norm)
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = norm.weight.double() / torch.sqrt(variance + norm.eps)
    return scale.float(), (norm.bias.double() - mean * scale).float()


def folded(conv: nn.Module | Normed, norm: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution, or of a block's `conv`, with the batch norm after it."""
    if norm is None:
        block = cast(Normed, conv)
        conv, norm = block.conv, block.norm
    conv = cast(nn.Conv2d, conv)
    scale, shift = scale_and_shift(norm)
    weight = conv.weight * scale.view(-1, *[1] * (conv.weight.ndim - 1))
    return weight, cast(Tensor, conv.bias) * scale + shift


def fold_(network: nn.Module) -> nn.Module:
    """Fold every norm of F, W or G in place: batch norms that follow a convolution, and spectral norms."""
    for name, child in list(network.named_children()):
        if isinstance(child, SpectralConv2d):
            setattr(network, name, child.plain())
        else:
            fold_(child)
    for conv, norm in PAIRS.get(type(network), ()):
        _fold_pair(network, conv, norm)
    return network


PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    SameBlock2d: (("conv", "norm"),),
    DownBlock2d: (("conv", "norm"),),
    Block3d: (("conv", "norm"),),
    Decoder: (("conv", "norm"),),
    ResBlock3d: (("conv1", "norm2"),),  # norm1 comes before its convolution and after a sum
    DenseMotionNetwork: (("compress", "norm"),),
}
"""Block -> the convolutions in it with the norm that follows each."""


def _fold_pair(block: nn.Module, conv: str, norm: str) -> None:
    convolution = cast(nn.Conv2d, block.get_submodule(conv))
    weight, bias = folded(convolution, block.get_submodule(norm))
    with torch.no_grad():
        convolution.weight.copy_(weight)
        cast(Tensor, convolution.bias).copy_(bias)
    setattr(block, norm, nn.Identity())
