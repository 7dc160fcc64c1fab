"""Which offsets of which keypoints belong to which part of a face: what a transfer takes over.

The lists are those of the published networks with 21 keypoints. Other networks learn other keypoints: for them the parts `lip`
and `eyes` must be told, the others need no list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mixtura.errors import ConfigError

Region = Literal["all", "exp", "pose", "lip", "eyes"]
REGIONS: tuple[Region, ...] = get_args(Region)

PUBLISHED = 21
"""Keypoints of the published networks."""
LIP = (6, 12, 14, 17, 19, 20)
EYES = (11, 13, 15, 16, 18)
WHOLE = (1, 2, 6, *range(11, 21))
"""Keypoints whose offsets are expression in x, y and z."""
AXES = {3: (1,), 4: (1,), 5: (2,), 8: (2,), 9: (1, 2)}
"""Keypoints of which some axes are expression; what is left belongs to the person, and so do all of 0, 7, 10."""


@dataclass(frozen=True)
class Lists:
    """Keypoints of `lip` and `eyes` for networks that aren't the published ones; None where they aren't known."""

    lip: tuple[int, ...] | None = None
    eyes: tuple[int, ...] | None = None


def check_region(region: Region, keypoints: int, lists: Lists | None = None) -> None:
    """Raises ConfigError for a region that can't be told, and for lists that name keypoints which aren't there."""
    if region not in REGIONS:
        raise ConfigError(f"region {region!r}: take one of {', '.join(REGIONS)}")
    for name, chosen in (("lip", (lists or Lists()).lip), ("eyes", (lists or Lists()).eyes)):
        if chosen is not None and (not chosen or not all(0 <= index < keypoints for index in chosen)):
            raise ConfigError(f"keypoints of {name}: {list(chosen)}; expected some of 0 to {keypoints - 1}")
        if region == name and chosen is None and keypoints != PUBLISHED:
            setting = {"lip": "lip_keypoints", "eyes": "eye_keypoints"}[name]
            raise ConfigError(
                f"region {region!r}: which of these {keypoints} keypoints belong to it isn't known, only of the {PUBLISHED} of "
                f"the published networks; give their list (`{setting}`), or take all, exp or pose"
            )


def taken(region: Region, keypoints: int, is_partial: bool, lists: Lists | None = None) -> Tensor:
    """Which offsets come from the driving: bool (keypoints, 3). Raises ConfigError as `check_region` does.

    `is_partial` leaves out, in `all` and `exp`, what belongs to the person rather than to an expression: for absolute motion and
    for clips. Of other networks than the published ones that isn't known; there all is taken.
    """
    check_region(region, keypoints, lists)
    mask = torch.zeros(keypoints, 3, dtype=torch.bool)
    if region in ("lip", "eyes"):
        own = getattr(lists or Lists(), region)
        mask[list(own if own is not None else (LIP if region == "lip" else EYES))] = True
    elif region != "pose":
        if not is_partial or keypoints != PUBLISHED:
            return ~mask
        mask[list(WHOLE)] = True
        for index, axes in AXES.items():
            mask[index, list(axes)] = True
    return mask
