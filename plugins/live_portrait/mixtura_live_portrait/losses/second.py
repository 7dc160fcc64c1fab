"""Stage two: stitching, eyes and lips learn to adjust keypoints while everything else rests (paper, section 3.3).

Compared is always with the source painted from itself, I_r = G(W(f_s, x_s, x_s)):

- stitching, driven by somebody else's frame: the shoulders stay as in I_r.
- eyes and lips, told a random opening: the result's opening, as the reader measures it, is the one told, and around eyes or lips
  all stays as in I_r.
- eyes and lips, told the driving frame's opening, where nothing else differs from the source: guided keypoints go where the
  landmarks of the part go, and no other. Nothing is painted for that, so networks can learn most of it in quick steps.

Each also pays for the size of its offsets. How the published networks were trained isn't public; that a small network, learnt on
frames with known landmarks, measures the opening is our choice, for the measure must let gradients through.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mixtura.system import Batch, StepContext
from mixtura_live_portrait.animate.retarget import retargeted, stitched
from mixtura_live_portrait.faces.layouts import GUIDING, OPENINGS
from mixtura_live_portrait.keypoints import Motion, placed
from mixtura_live_portrait.losses.regions import EYES, FACE, LIPS, below, corners, difference, grown, inside
from mixtura_live_portrait.losses.terms import SMALL

if TYPE_CHECKING:
    from mixtura_live_portrait.system import LivePortrait

Totals = dict[str, Tensor]
MOUTH_ROOM = 0.5
"""By how much of its width the mouth's box grows: lips that open take chin and cheeks along."""


class SecondStage:
    """Terms of one micro-batch. Nothing is painted before a term asks for it."""

    def __init__(self, system: LivePortrait, batch: Batch, ctx: StepContext, terms: frozenset[str]) -> None:
        self.system, self.batch, self.ctx, self.terms = system, batch, ctx, terms
        self.source, self.boxes = system.pictures(batch["source"]), batch["boxes"][:, 0]
        with torch.no_grad():
            self.motion = Motion.of(system.motion(system.shrunk(self.source)))
            self.x = self.motion.keypoints()
            self.told = placed(self.x, batch["guide"][:, 0]) if system.sizes.told_landmarks else self.x

    def totals(self) -> Totals:
        """Sums of all terms that are asked for."""
        found: Totals = {}
        if self.terms.intersection(SMALL["stitching"]):
            found |= self.stitching()
        for part in OPENINGS:
            if self.terms.intersection(SMALL[part]):
                found |= self.opening(part)
            if f"{part}_guide" in self.terms:
                found[f"{part}_guide"] = self.astray(part)
        return found

    @cached_property
    def volume(self) -> Tensor:
        """Appearance of the source."""
        with torch.no_grad():
            return self.system.volume(self.source)

    @cached_property
    def itself(self) -> Tensor:
        """I_r, the source painted from itself."""
        with torch.no_grad():
            return self.system.paint(self.volume, self.x, self.x)

    def stitching(self) -> Totals:
        """The source in somebody else's motion, stitched."""
        system, own = self.system, self.motion
        with torch.no_grad():
            other = Motion.of(system.motion(system.shrunk(system.pictures(self.batch["other"]))))
            x_d = other._replace(kp=own.kp).keypoints()
        x = stitched(system.stitching, self.x, x_d)
        found = {"stitching_size": _size(x - x_d)}
        if "stitching" in self.terms:
            shoulders = below(self.boxes[:, FACE], self.itself.shape[-1])
            found["stitching"] = difference(system.paint(self.volume, self.x, x), self.itself, shoulders)
        return found

    def opening(self, part: str) -> Totals:
        """The source with eyes or lips as far open as the noise says."""
        wanted = self.ctx.noise.uniform(part, 1) * self.system.config.widest_ratio
        offsets = self.offsets(part, wanted)
        found = {f"{part}_size": _size(offsets)}
        if self.terms.intersection((part, f"{part}_ratio")):
            picture = self.system.paint(self.volume, self.x, self.x + offsets)
            read = self.system.read(picture, corners(self.batch["guide"][:, 0]))[:, OPENINGS[part]]
            free = self.boxes[:, EYES] if part == "eyes" else grown(self.boxes[:, LIPS], MOUTH_ROOM)
            found[part] = difference(picture, self.itself, 1 - inside(free, picture.shape[-1]))
            found[f"{part}_ratio"] = (read - wanted).abs().mean(1)
        return found

    def astray(self, part: str) -> Tensor:
        """How far guided keypoints, told the driving frame's opening, go beside the landmarks of the part, summed (b,).

        Those of other parts shall stay.
        """
        guide, count = self.batch["guide"], self.system.config.guided_keypoints()
        way = torch.zeros_like(guide[:, 0])
        way[:, GUIDING[part]] = (guide[:, 1] - guide[:, 0])[:, GUIDING[part]].nan_to_num()
        wanted = self.batch["ratios"][:, 1, OPENINGS[part]].mean(1, keepdim=True)
        return (self.offsets(part, wanted)[:, :count, :2] - way[:, :count]).abs().flatten(1).sum(1)

    def offsets(self, part: str, wanted: Tensor) -> Tensor:
        """What eyes or lips add to the source's keypoints (b, k, 3) for the openings wanted (b, 1)."""
        own = self.batch["ratios"][:, 0, OPENINGS[part]]
        return retargeted(self.system.get_submodule(part), self.told, own, wanted)


def _size(offsets: Tensor) -> Tensor:
    """Sum of absolute offsets (b,)."""
    return offsets.abs().flatten(1).sum(1)
