"""Stage one: appearance, motion, warping and generator learn to paint the driving frame from the source (paper, section 3.2).

M sees the driving frame in other colours; its canonical keypoints are the source's, for both are the same person. The painter's
turn leaves its pictures for the critics' turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mixtura.system import Batch, StepContext
from mixtura_live_portrait.config import Region
from mixtura_live_portrait.keypoints import Motion, placed
from mixtura_live_portrait.losses import adversarial, geometry
from mixtura_live_portrait.losses.geometry import Warp
from mixtura_live_portrait.losses.regions import FACE, corners, cut, difference
from mixtura_live_portrait.losses.terms import KEYPOINTS, PARTS, name_in, pixels, readable
from mixtura_live_portrait.nets.reader import softest

if TYPE_CHECKING:
    from mixtura_live_portrait.system import LivePortrait

Totals = dict[str, Tensor]
"""Term -> sum of each sample (b,)."""
SLIP = 0.1
"""How far out of place, in lengths of an eye or of the lips, the reader's patches are at most."""
GRAIN = 0.03
"""Standard deviation of the noise in the grainiest ones."""


class Looked(NamedTuple):
    """Motions of source, driving and, where M learns, warped driving, the canonical keypoints of all being the source's."""

    source: Motion
    driving: Motion
    warped: Motion | None = None
    warp: Warp | None = None


class FirstStage:
    """Terms of one micro-batch. `views` holds what regions of pictures show, cut out once."""

    def __init__(self, system: LivePortrait, batch: Batch, ctx: StepContext, terms: frozenset[str]) -> None:
        self.system, self.batch, self.ctx, self.terms = system, batch, ctx, terms
        self.config = system.config
        self.source, self.target, self.seen = (system.pictures(batch[n]) for n in ("source", "driving", "driving_seen"))
        self.boxes = batch["boxes"][:, 1]
        self.views: dict[tuple[str, Region], Tensor] = {}

    def totals(self) -> Totals:
        """Sums of all terms that the player at work has."""
        found: Totals = {}
        if "ratios" in self.terms:
            found["ratios"] = self.reading()
        painted = {term for term in self.terms.difference(KEYPOINTS, ("ratios",)) if not term.startswith("critic")}
        learns = not self.terms.isdisjoint(KEYPOINTS)
        if painted or learns:
            looked = self.looked()
            found |= self.keypoints(looked) if learns else {}
            if painted:
                picture = self.painted(looked)
                self.ctx.kept["painted"] = picture.detach()
                found |= self.painting(picture)
        if any(term.startswith("critic") for term in self.terms):
            found |= self.judging()
        return found

    def looked(self) -> Looked:
        """What M reads off source and driving frame, and off the warped one if it is asked to be equivariant."""
        system, views, warp = self.system, [self.source, self.seen], None
        if "equivariance" in self.terms:
            warp = Warp.drawn(self.ctx.noise, self.config.equivariance)
            views.append(warp.picture(self.seen))
        motions = Motion.of(system.motion(system.shrunk(torch.cat(views))))
        source, *others = (Motion(*parts) for parts in zip(*(part.chunk(len(views)) for part in motions), strict=True))
        driving, *warped = (other._replace(kp=source.kp) for other in others)
        return Looked(source, driving, warped[0] if warped else None, warp)

    def painted(self, looked: Looked) -> Tensor:
        """The driving frame, painted from the source."""
        x_s, x_d = looked.source.keypoints(), looked.driving.keypoints()
        if self.config.teacher_forcing:
            guide = self.batch["guide"][:, :, : self.config.guided_keypoints()]
            chosen = self.ctx.noise.uniform("teacher forcing") < self.config.teacher_forcing
            x_s, x_d = (placed(x, guide[:, frame], chosen) for frame, x in enumerate((x_s, x_d)))
        return self.system.paint(self.system.volume(self.source), x_s, x_d)

    def keypoints(self, made: Looked) -> Totals:
        """Terms that look at keypoints and poses."""
        config, batch = self.config, self.batch
        x_s, x_d = made.source.keypoints(), made.driving.keypoints()
        both = torch.stack([x_s, x_d], 1)[:, :, : config.guided_keypoints()]
        angles = torch.stack([torch.stack([m.pitch, m.yaw, m.roll], -1) for m in (made.source, made.driving)], 1)
        found = {
            "prior": geometry.prior(x_d, config.prior, config.guided_keypoints()),
            "pose": geometry.pose(angles, batch["pose"])[0],
            "deformation": (geometry.deformation(made.source.exp) + geometry.deformation(made.driving.exp)) / 2,
            "guide": geometry.guide(both, batch["guide"], config.wing)[0],
            "gaps": geometry.gaps(both, batch["guide"])[0],
        }
        if made.warped is not None and made.warp is not None:
            found["equivariance"] = geometry.equivariance(x_d, made.warped.keypoints(), made.warp)
        return found

    def painting(self, picture: Tensor) -> Totals:
        """Terms that look at the picture."""
        self.views["painted", "whole"], self.views["real", "whole"] = picture, self.target
        found = {
            name_in("image", region): difference(self.view("painted", region), self.view("real", region))
            for region in pixels(self.config)
        }
        for region in self.config.regions:
            found[name_in("perceptual", region)] = self.system.judge()(self.view("painted", region), self.view("real", region))
        if "openings" in self.terms:
            found["openings"] = self.opened(picture)
        if self.config.identity.type != "none":
            found["identity"] = self.estranged(picture)
        if any(term.startswith("gan") for term in self.terms):
            for region in self.config.critics.regions:
                critic = self.system.critics.get_submodule(region)
                with torch.no_grad():
                    real = critic(self.view("real", region))
                painted = critic(self.view("painted", region))
                found[name_in("gan", region)] = adversarial.fooling(painted)
                found[name_in("features", region)] = adversarial.matching(real, painted)
        return found

    def judging(self) -> Totals:
        """Terms of the critics, on the pictures that the painter made in this step."""
        painted = self.ctx.kept.get("painted")
        if painted is None:
            with torch.no_grad():
                painted = self.painted(self.looked())
        self.views = {("painted", "whole"): painted, ("real", "whole"): self.target}
        found: Totals = {}
        for region in self.config.critics.regions:
            critic = self.system.critics.get_submodule(region)
            views = torch.cat([self.view("real", region), self.view("painted", region)])
            found[name_in("critic", region)] = adversarial.telling(*critic(views).halves())
        return found

    def view(self, which: str, region: Region) -> Tensor:
        """What a region of the painted or the real picture shows."""
        if (which, region) not in self.views:
            boxes = self.boxes[:, PARTS[region]]
            self.views[which, region] = cut(self.views[which, "whole"], boxes, int(self.config.crop or 0))
        return self.views[which, region]

    def estranged(self, picture: Tensor) -> Tensor:
        """One minus the cosine between the faces of the painted and the real frame, as the identity network sees them (b,)."""
        network = self.system.identifier()
        boxes = self.boxes[:, FACE]
        painted, real = (network(cut(one, boxes, network.side)) for one in (picture, self.target))
        return 1 - F.cosine_similarity(painted, real)

    def opened(self, picture: Tensor) -> Tensor:
        """By how much the openings of the painted frame, as the reader reads them, are off the driving frame's, summed (b,)."""
        return self._misread(picture, 1).sum(1)

    def reading(self) -> Tensor:
        """The reader's absolute error of known ratios on source and driving frame, summed over them (b,).

        Frames are softened and grainy by chance, and patches a little out of place, as those of painted frames will be. A reader
        that only saw sharp ones has no use for what is half painted, and its gradients none for the painter.
        """
        named = (("source", self.source), ("driving", self.seen))
        off = [
            self._misread(self.worn(name, pictures), frame, SLIP * (2 * self.ctx.noise.uniform(f"slip {name}", 3, 1, 2) - 1))
            for frame, (name, pictures) in enumerate(named)
        ]
        return torch.stack(off, 1).sum((1, 2))

    def worn(self, name: str, pictures: Tensor) -> Tensor:
        """Pictures softer and grainier by chance, most of them a little."""
        soft, grain = (self.ctx.noise.uniform(f"{what} {name}", 1, 1, 1) for what in ("softness", "grain"))
        noise = self.ctx.noise.normal(f"noise {name}", *pictures.shape[1:])
        return torch.lerp(pictures, softest(pictures), soft**2) + GRAIN * grain * noise

    def _misread(self, pictures: Tensor, frame: int, slip: Tensor | float = 0.0) -> Tensor:
        """How far off a frame's ratios what the reader reads in pictures of it is, 0 where they are unknown (b, 3).

        `slip` moves the patches, in lengths of what they show.
        """
        ends = corners(self.batch["guide"][:, frame])
        length = (ends[:, :, 1] - ends[:, :, 0]).norm(dim=-1)[..., None, None]
        off = (self.system.read(pictures, ends + slip * length) - self.batch["ratios"][:, frame]).abs()
        return torch.where(readable(self.batch)[:, frame], off, 0.0)
