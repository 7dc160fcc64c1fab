"""Which terms a stage has, and how many valid items each has in a batch: from the configuration and the data alone.

A stage's `train:` decides. Where motion trains there are the terms of keypoints, which paint nothing and so are quick; where
appearance, warping or generator train, those of painted pictures. Terms of the two players need the critics, too; `ratios`
needs the reader. Stitching, eyes and lips each have their terms of stage two.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from mixtura.errors import ConfigError
from mixtura_live_portrait.config import LivePortraitConfig, Region
from mixtura_live_portrait.losses.geometry import ways
from mixtura_live_portrait.losses.regions import EYES, FACE, LIPS, corners, known

BASE = ("appearance", "motion", "warping", "generator")
SMALL = {
    "stitching": ("stitching", "stitching_size"),
    "eyes": ("eyes", "eyes_ratio", "eyes_guide", "eyes_size"),
    "lips": ("lips", "lips_ratio", "lips_guide", "lips_size"),
}
"""Terms of each of the small networks."""
SECOND = tuple(term for terms in SMALL.values() for term in terms)
KEYPOINTS = ("equivariance", "prior", "pose", "deformation", "guide", "gaps")
PAINTER, CRITIC = "generator", "discriminator"
"""The two players."""
STILL = 1e-4
"""How far corners of eyes may move, in half sides of the picture, while a head keeps still."""
PARTS = {"face": FACE, "lips": LIPS, "eyes": EYES}
"""Box of each region but the whole."""


def name_in(term: str, region: Region) -> str:
    """A term as it is called for a region: `gan`, `gan_face`, `gan_lips`."""
    return term if region == "whole" else f"{term}_{region}"


def terms_of(config: LivePortraitConfig, trained: Collection[str]) -> dict[str, str]:
    """Term -> player of a stage that trains these parts. Raises ConfigError for parts that can't train together."""
    base, small = [p for p in BASE if p in trained], [p for p in SMALL if p in trained]
    if base and small:
        raise ConfigError(
            f"a stage trains {', '.join((*base, *small))} together; stitching, eyes and lips learn while the others rest: name "
            f"the parts with `train:`, as [{', '.join(BASE)}, critics, reader], and [{', '.join(SMALL)}] in a stage of their own"
        )
    paints = set(base) - {"motion"}
    terms = dict.fromkeys(KEYPOINTS, PAINTER) if "motion" in base else {}
    if paints:
        terms |= dict.fromkeys(_painting(config), PAINTER)
    if paints and "critics" in trained:
        for region in config.critics.regions:
            terms |= {name_in("gan", region): PAINTER, name_in("features", region): PAINTER, name_in("critic", region): CRITIC}
    if "reader" in trained:
        terms["ratios"] = PAINTER
    for part in small:
        terms |= dict.fromkeys(SMALL[part], PAINTER)
    if "critics" in trained and not paints:
        raise ConfigError(f"a stage trains critics, but nothing that paints; they judge what {', '.join(BASE)} learn: train both")
    return terms


def _painting(config: LivePortraitConfig) -> list[str]:
    """Terms of painted pictures without the players' own."""
    names = [name_in("image", region) for region in pixels(config)]
    names += [name_in("perceptual", region) for region in config.regions]
    names += ["openings"] if config.openings else []
    return names + (["identity"] if config.identity.type != "none" else [])


def pixels(config: LivePortraitConfig) -> tuple[Region, ...]:
    """Regions whose pixels are compared: the whole and the face (paper, section 3.2), and what else `regions` names."""
    return tuple(dict.fromkeys(("whole", "face", *config.regions)))


def readable(batch: dict[str, Any]) -> Tensor:
    """Which openings are known, with the places that the reader looks at: (b, 2, 3) bool."""
    return batch["ratios"].isfinite() & corners(batch["guide"]).isfinite().flatten(-2).all(-1)


def keeps_still(batch: dict[str, Any]) -> Tensor:
    """Whether a head keeps still between source and driving frame, by the corners of its eyes; unknown ones don't: (b,) bool."""
    source, driving = corners(batch["guide"])[:, :, :2].unbind(1)
    return ((source - driving).abs() < STILL).flatten(1).all(1)


def valid(config: LivePortraitConfig, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Items (b,) float that each term, of whatever stage, finds in each sample of a batch."""
    boxes = known(batch["boxes"])
    ones = torch.ones(len(batch["source"]), device=batch["boxes"].device)
    found: dict[str, Tensor] = dict.fromkeys(("equivariance", "prior", "deformation"), ones)
    found["pose"] = batch["pose"].isfinite().all(-1).sum(1)
    guided = batch["guide"][:, :, : config.guided_keypoints()]
    found["guide"] = guided.isfinite().all(-1).sum((1, 2))
    found["gaps"] = ways(guided).isfinite().all(-1).sum((1, 2))
    found["identity"] = boxes[:, 1, FACE]
    for term in ("image", "perceptual", "gan", "features", "critic"):
        found[term] = ones
        found |= {f"{term}_{region}": boxes[:, 1, place] for region, place in PARTS.items()}
    seen, painted = readable(batch).unbind(1)
    found["ratios"], found["openings"] = seen.sum(1) + painted.sum(1), painted.sum(1)
    found["stitching"] = found["stitching_size"] = batch["has_other"] & boxes[:, 0, FACE]
    eyes, lips = seen[:, :2].all(-1) & boxes[:, 0, EYES], seen[:, 2]
    still = keeps_still(batch)
    for part, is_known, is_painted in (("eyes", eyes, painted[:, :2].all(-1)), ("lips", lips, painted[:, 2])):
        found |= dict.fromkeys(SMALL[part], is_known)
        found[f"{part}_guide"] = is_known & is_painted & still
    return {name: counts.float() for name, counts in found.items()}
