"""A motion as animation works with it: the head's turn as a matrix, any number of frames at once.

Shapes: n frames, k keypoints; one frame is n = 1 and goes with any other n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mixtura_live_portrait.keypoints import Motion, transform


class Movement(NamedTuple):
    """Canonical `kp` (n, k, 3), `rotation` (n, 3, 3) to multiply from the right, `exp` (n, k, 3), `t` (n, 3), `scale` (n, 1)."""

    kp: Tensor
    rotation: Tensor
    exp: Tensor
    t: Tensor
    scale: Tensor

    @staticmethod
    def of(motion: Motion) -> Movement:
        """From what M reads off pictures."""
        return Movement(motion.kp, motion.rotation(), motion.exp, motion.t, motion.scale)

    @staticmethod
    def joined(parts: Sequence[Movement]) -> Movement:
        """All frames of all parts, one after the other."""
        return Movement(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    @property
    def frames(self) -> int:
        """n."""
        return len(self.kp)

    def at(self, frames: slice | Tensor) -> Movement:
        """Some of the frames."""
        return Movement(*(tensor[frames] for tensor in self))

    def first(self) -> Movement:
        """The first frame alone (n = 1)."""
        return self.at(slice(0, 1))

    def to(self, device: torch.device | str) -> Movement:
        """On another device."""
        return Movement(*(tensor.to(device) for tensor in self))

    def keypoints(self) -> Tensor:
        """Where the keypoints are (n, k, 3): scale (kp rotation + exp) + t, without t's depth."""
        return transform(self.kp, self.rotation, self.exp, self.t, self.scale)
