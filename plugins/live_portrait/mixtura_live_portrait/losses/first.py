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
from mixtura_live_portrait.losses.regions import FACE, corners, cut, difference, lengths, patches
from mixtura_live_portrait.losses.terms import KEYPOINTS, PARTS, name_in, pixels, readable
from mixtura_live_portrait.nets.reader import softest

if TYPE_CHECKING:
    from mixtura_live_portrait.system import LivePortrait

Totals = dict[str, Tensor]
"""Term -> sum of each sample (b,)."""
WEARS = 3
"""How often the reader sees an eye or lips in a step, worn differently: frames are dear, patches of them aren't."""
SLIP = 0.1
"""How far out of place, in lengths of an eye or of the lips, its patches are at most."""
GRAIN = 0.02
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
        read = self.system.read(picture, corners(self.batch["guide"][:, 1]))
        return self._misread(read[:, None], 1).sum((1, 2))

    def reading(self) -> Tensor:
        """The reader's absolute error of known ratios on source and driving frame, summed over them (b,)."""
        off = []
        for frame, (name, pictures) in enumerate((("source", self.source), ("driving", self.seen))):
            seen = self.worn(name, pictures, corners(self.batch["guide"][:, frame]))
            read = self.system.reader(seen.flatten(0, 1)).float().unflatten(0, seen.shape[:2])
            off.append(self._misread(read, frame).mean(1))
        return torch.stack(off, 1).sum((1, 2))

    def worn(self, name: str, pictures: Tensor, ends: Tensor) -> Tensor:
        """What the reader sees around corners (b, 3, 2, 2) of eyes and lips in pictures: (b, WEARS, 3, 3, side, side).

        Softer and grainier by chance, most of it a little, and somewhat out of place, as it will be in painted frames. A reader
        that only saw sharp ones has no use for what is half painted, and its gradients none for the painter.
        """
        noise, side = self.ctx.noise, self.system.reader.side
        slip = SLIP * lengths(ends)[:, None, :, None, None] * (2 * noise.uniform(f"slip {name}", WEARS, 3, 1, 2) - 1)
        places = (ends[:, None] + slip).flatten(1, 2)
        seen = patches(torch.cat([pictures, softest(pictures)], 1), places, side).unflatten(1, (WEARS, 3))
        sharp, soft = seen.chunk(2, 3)
        softness, grain = (noise.uniform(f"{what} {name}", WEARS, 1, 1, 1, 1) for what in ("softness", "grain"))
        return torch.lerp(sharp, soft, softness**2) + GRAIN * grain * noise.normal(f"noise {name}", *sharp.shape[1:])

    def _misread(self, read: Tensor, frame: int) -> Tensor:
        """How far off a frame's ratios is what the reader made of it (b, n, 3), 0 where they are unknown."""
        off = (read - self.batch["ratios"][:, frame, None]).abs()
        return torch.where(readable(self.batch)[:, frame, None], off, 0.0)
