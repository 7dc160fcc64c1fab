"""What adjusts driving keypoints before a picture is made: stitching, lip normalisation, retargeting of eyes and lips.

`adjusted` does it in the order of the published method:

- without retargeting: x_d, stitched when asked, then plus the offsets of `before` (closed lips, eyes of a clip);
- with retargeting of eyes or lips: x_s + Δ_eyes + Δ_lips where motion is relative, so that eyes and lips alone move; x_d + Δ_eyes
  + Δ_lips where it is absolute; then stitched.

Shapes: n frames, k keypoints; x_s (n or 1, k, 3), x_d (n, k, 3), ratios of openings as `faces.layouts.ratios` has them. A ratio
that is NaN, because the landmarks don't tell, leaves its frame as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

OPEN_LIPS = 0.03
"""Ratio from which a source's lips count as open and are closed by normalisation."""
OPEN_EYES, SHUT = 0.39, 0.18
"""Eyes of a clip are kept as open as in its first frame; if that was below SHUT, then OPEN_EYES."""

SHARE = 0.5
"""Of what is found too little, the part that is told on top: what is found is itself somewhat off."""
ASKABLE = (-0.2, 1.0)
"""What corrections may come to: below 0 a little, for eyes that told 0 stay open."""


class Small(NamedTuple):
    """The three small networks: flattened keypoints (and ratios) -> offsets."""

    stitching: Callable[[Tensor], Tensor]
    eyes: Callable[[Tensor], Tensor]
    lips: Callable[[Tensor], Tensor]


class Retargeted(NamedTuple):
    """Offsets (n, k, 3) of eyes and lips; None where they aren't retargeted."""

    eyes: Tensor | None = None
    lips: Tensor | None = None


class Openings(NamedTuple):
    """Ratios (n or 1, 1) that eyes and lips are told to open to; None where they aren't retargeted."""

    eyes: Tensor | None = None
    lips: Tensor | None = None


def stitched(network: Callable[[Tensor], Tensor], x_source: Tensor, x_driving: Tensor) -> Tensor:
    """x_d with the offsets of each keypoint and the shift of all in x and y by which shoulders stay where they are."""
    pairs = torch.cat([x_source.expand_as(x_driving).flatten(1), x_driving.flatten(1)], -1)
    offsets = network(pairs)
    count = x_driving[0].numel()
    shift = torch.cat([offsets[:, count:], torch.zeros_like(offsets[:, :1])], -1)
    return x_driving + offsets[:, :count].unflatten(-1, (-1, 3)) + shift[:, None]


def retargeted(network: Callable[[Tensor], Tensor], x_source: Tensor, own: Tensor, wanted: Tensor) -> Tensor:
    """Offsets (n, k, 3) of x_s that open eyes or lips from `own` ratios (n or 1, 2 or 1) to the `wanted` one (n or 1, 1)."""
    n = max(len(x_source), len(own), len(wanted))
    parts = [x_source.flatten(1).expand(n, -1), own.expand(n, -1), wanted.expand(n, -1)]
    known = parts[1].isfinite().all(-1) & parts[2].isfinite().all(-1)
    offsets = network(torch.cat([part.nan_to_num() for part in parts], -1)).unflatten(-1, (-1, 3))
    return torch.where(known[:, None, None], offsets, 0.0)


def eye_opening(ratios: Tensor) -> Tensor:
    """One wanted ratio (n, 1) from ratios (n, 3): the mean of both eyes. (The official code takes the left one.)"""
    return ratios[:, :2].mean(-1, keepdim=True)


def lip_opening(ratios: Tensor) -> Tensor:
    """(n, 3) -> (n, 1)."""
    return ratios[:, 2:3]


def corrected(wanted: Openings, found: Callable[[Openings], Tensor], times: int) -> Openings:
    """What to tell so that what is found is what is wanted: each time, SHARE of what was found too little is told on top.

    `found` takes what is told and returns the ratios (n, 3) of the pictures that come of it. Where these are NaN, nothing is
    added.
    """
    told = wanted
    for _ in range(times):
        ratios = found(told)
        told = Openings(
            *(
                None if goal is None or before is None else (before + SHARE * (goal - seen).nan_to_num()).clamp(*ASKABLE)
                for goal, before, seen in zip(wanted, told, (eye_opening(ratios), lip_opening(ratios)), strict=True)
            )
        )
    return told


def closed_lips(network: Callable[[Tensor], Tensor], x_source: Tensor, ratios: Tensor) -> Tensor:
    """Offsets (n, k, 3) that close the source's lips; 0 for frames where they are closed already (ratio below OPEN_LIPS)."""
    own = lip_opening(ratios)
    offsets = retargeted(network, x_source, own, torch.zeros_like(own[:1]))
    return torch.where((own >= OPEN_LIPS)[..., None], offsets, 0.0)


def steady_eyes(network: Callable[[Tensor], Tensor], x_source: Tensor, ratios: Tensor) -> Tensor:
    """Offsets (n, k, 3) that keep a clip's eyes as open as in its first frame, or OPEN_EYES if that was nearly shut."""
    first = eye_opening(ratios[:1])
    wanted = torch.where(first < SHUT, torch.full_like(first, OPEN_EYES), first)
    return retargeted(network, x_source, ratios[:, :2], wanted)


def adjusted(
    small: Small,
    x_source: Tensor,
    x_driving: Tensor,
    *,
    stitching: bool = True,
    is_relative: bool = True,
    before: Tensor | None = None,
    retargeting: Retargeted | None = None,
) -> Tensor:
    """The keypoints (n, k, 3) to paint, in the order that the module tells."""
    offsets = [part for part in retargeting or () if part is not None]
    if not offsets:
        x = stitched(small.stitching, x_source, x_driving) if stitching else x_driving
        return x if before is None else x + before
    base = x_source.expand_as(x_driving) if is_relative else x_driving
    x = base + sum(offsets)
    return stitched(small.stitching, x_source, x) if stitching else x
