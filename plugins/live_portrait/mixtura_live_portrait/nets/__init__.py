"""The seven networks of LivePortrait, with the published checkpoints' names for their tensors."""

from __future__ import annotations

from torch import nn

from mixtura_live_portrait.nets.appearance import Appearance
from mixtura_live_portrait.nets.generator import Generator
from mixtura_live_portrait.nets.motion import MotionExtractor
from mixtura_live_portrait.nets.retargeting import eyes, lips, stitching
from mixtura_live_portrait.nets.sizes import Sizes
from mixtura_live_portrait.nets.warping import Warping

NETWORKS = ("appearance", "motion", "warping", "generator", "stitching", "eyes", "lips")
"""What they are called everywhere."""


def build(sizes: Sizes) -> dict[str, nn.Module]:
    """All seven by name; on the meta device under `with torch.device("meta")`."""
    return {
        "appearance": Appearance(sizes),
        "motion": MotionExtractor(sizes),
        "warping": Warping(sizes),
        "generator": Generator(sizes),
        "stitching": stitching(sizes),
        "eyes": eyes(sizes),
        "lips": lips(sizes),
    }


class Networks(nn.Module):
    """The seven as children of one module."""

    appearance: Appearance
    motion: MotionExtractor
    warping: Warping
    generator: Generator

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        for name, network in build(sizes).items():
            self.add_module(name, network)
