"""Stage two: stitching, eyes and lips learn to adjust keypoints while everything else rests (paper, section 3.3).

Compared is always with the source painted from itself, I_r = G(W(f_s, x_s, x_s)):

- stitching, driven by somebody else's frame: the shoulders stay as in I_r.
- eyes and lips, told a random opening: the result's opening, as the reader measures it, is the one told, and around eyes or lips
  all stays as in I_r.

Each also pays for the size of its offsets. How the published networks were trained isn't public; that a small network, learnt on
frames with known landmarks, measures the opening is our choice, for the measure must let gradients through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mixtura.system import Batch, StepContext
from mixtura_live_portrait.animate.retarget import retargeted, stitched
from mixtura_live_portrait.keypoints import Motion
from mixtura_live_portrait.losses.regions import EYES, FACE, LIPS, below, corners, difference, grown, inside

if TYPE_CHECKING:
    from mixtura_live_portrait.system import LivePortrait

Totals = dict[str, Tensor]
MOUTH_ROOM = 0.5
"""By how much of its width the mouth's box grows: lips that open take chin and cheeks along."""


class SecondStage:
    """Terms of one micro-batch."""

    def __init__(self, system: LivePortrait, batch: Batch, ctx: StepContext, terms: frozenset[str]) -> None:
        self.system, self.batch, self.ctx, self.terms = system, batch, ctx, terms
        source = system.pictures(batch["source"])
        with torch.no_grad():
            self.volume = system.volume(source)
            self.motion = Motion.of(system.motion(system.shrunk(source)))
            self.x = self.motion.keypoints()
            self.itself = system.paint(self.volume, self.x, self.x)
        self.side = self.itself.shape[-1]
        self.boxes = batch["boxes"][:, 0]

    def totals(self) -> Totals:
        """Sums of all terms that the stage has."""
        found: Totals = {}
        if "stitching" in self.terms:
            found |= self.stitching()
        eyes, mouth = self.boxes[:, EYES], grown(self.boxes[:, LIPS], MOUTH_ROOM)
        for part, places, free in (("eyes", [0, 1], eyes), ("lips", [2], mouth)):
            if part in self.terms:
                found |= self.opening(part, places, free)
        return found

    def stitching(self) -> Totals:
        """The source in somebody else's motion, stitched."""
        system, own = self.system, self.motion
        with torch.no_grad():
            other = Motion.of(system.motion(system.shrunk(system.pictures(self.batch["other"]))))
            x_d = other._replace(kp=own.kp).keypoints()
        x = stitched(system.stitching, self.x, x_d)
        off = difference(system.paint(self.volume, self.x, x), self.itself, below(self.boxes[:, FACE], self.side))
        return {"stitching": off, "stitching_size": _size(x - x_d)}

    def opening(self, part: str, places: list[int], free: Tensor) -> Totals:
        """The source with eyes or lips as far open as the noise says."""
        system = self.system
        own = self.batch["ratios"][:, 0, places]
        wanted = self.ctx.noise.uniform(part, 1) * system.config.widest_ratio
        offsets = retargeted(system.get_submodule(part), self.x, own, wanted)
        picture = system.paint(self.volume, self.x, self.x + offsets)
        read = system.read(picture, corners(self.batch["guide"][:, 0], self.boxes))[:, places]
        return {
            part: difference(picture, self.itself, 1 - inside(free, self.side)),
            f"{part}_ratio": (read - wanted).abs().mean(1),
            f"{part}_size": _size(offsets),
        }


def _size(offsets: Tensor) -> Tensor:
    """Sum of absolute offsets (b,)."""
    return offsets.abs().flatten(1).sum(1)
