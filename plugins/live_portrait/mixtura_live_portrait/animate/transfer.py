"""Motion transfer: the movement of a source face that a driving face asks for. Pure functions of tensors.

    rules = Rules(relative=True, region="all")
    moved = transfer(source, driving, driving.first(), rules)        # Movement with the driving's frames
    x = moved.keypoints()

Written s, R, δ, t for scale, rotation, offsets of expression, translation; s of the source, d, i of frame i of the driving, d, 0
of its first frame:

| | relative | absolute |
| --- | --- | --- |
| R | (R_d,i R_d,0ᵀ) R_s | R_d,i |
| δ | δ_s + δ_d,i − δ_d,0 | δ_d,i, where it is expression and not the person (`regions`) |
| s | s_s s_d,i / s_d,0 | s_s |
| t | t_s + t_d,i − t_d,0 | t_d,i |

A region takes over only its part; scale comes with `all` alone. A source that is a clip keeps its own scale, with relative motion
also its own t, and takes only those offsets that are expression. A driving that is one picture has no first frame to differ
from: see `neutral`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

from mixtura.errors import DataError
from mixtura_live_portrait.animate.movement import Movement
from mixtura_live_portrait.animate.regions import Lists, Region, taken

FLATTEST = 1e-9
"""Area of a hull below which keypoints span nothing."""


@dataclass(frozen=True)
class Rules:
    """What is taken over, and how.

    `friendly` is the official expression-friendly mode (`friendlier`); it matters for absolute motion alone, for relative
    motion begins at the source anyway. `multiplier` stretches the result away from the source's keypoints.
    """

    relative: bool = True
    region: Region = "all"
    friendly: bool = False
    multiplier: float = 1.0
    lists: Lists = field(default_factory=Lists)

    def takes(self, *regions: Region) -> bool:
        """Whether the region is one of these."""
        return self.region in regions


@dataclass(frozen=True)
class Smoothing:
    """What smooths offsets (n, k, 3) and rotations (n, 3, 3) over frames, before parts of them are taken over."""

    offsets: Callable[[Tensor], Tensor]
    rotations: Callable[[Tensor], Tensor]


def transfer(
    source: Movement,
    driving: Movement,
    first: Movement,
    rules: Rules,
    rest: Tensor | None = None,
    is_clip: bool = False,
    smoothing: Smoothing | None = None,
) -> Movement:
    """The source as the driving moves it, for as many frames as the longer of both has; the other one has as many, or one.

    `first` is the driving's first frame (n = 1). `rest` (1 or n, k, 3) takes the place of its offsets, for a driving picture.
    `is_clip`: the source is a clip. Raises ConfigError for regions that these keypoints don't know, DataError for other counts.
    """
    count, keypoints = _count(source, driving), source.kp.shape[1]
    exp, rotation = driving.exp, driving.rotation
    if rules.relative:
        exp = source.exp + exp - (first.exp if rest is None else rest)
        rotation = rotation @ first.rotation.mT @ source.rotation
    exp, rotation = exp.expand(count, -1, -1), rotation.expand(count, -1, -1)
    if smoothing is not None:
        exp, rotation = smoothing.offsets(exp), smoothing.rotations(rotation)
    mask = taken(rules.region, keypoints, is_clip or not rules.relative, rules.lists).to(exp.device)
    turns = rules.takes("all", "pose")
    return Movement(
        kp=source.kp.expand(count, -1, -1),
        rotation=rotation if turns else source.rotation.expand(count, -1, -1),
        exp=torch.where(mask, exp, source.exp),
        t=(_shift(source, driving, first, rules, is_clip) if turns else source.t).expand(count, -1),
        scale=_scale(source, driving, first, rules, is_clip).expand(count, -1),
    )


def _count(source: Movement, driving: Movement) -> int:
    counts = {source.frames, driving.frames} - {1}
    if len(counts) > 1 or 0 in counts or source.kp.shape[1] != driving.kp.shape[1]:
        raise DataError(
            f"source of {source.frames} frames and {source.kp.shape[1]} keypoints, driving of {driving.frames} and "
            f"{driving.kp.shape[1]}; expected as many keypoints, and as many frames, or one"
        )
    return counts.pop() if counts else 1


def _shift(source: Movement, driving: Movement, first: Movement, rules: Rules, is_clip: bool) -> Tensor:
    if not rules.relative:
        return driving.t
    return source.t if is_clip else source.t + driving.t - first.t


def _scale(source: Movement, driving: Movement, first: Movement, rules: Rules, is_clip: bool) -> Tensor:
    if is_clip or not rules.relative or not rules.takes("all"):
        return source.scale
    return source.scale * driving.scale / first.scale


def neutral(source: Movement, lips: Tensor | None = None) -> Tensor:
    """What a driving picture's offsets are taken relative to: the source's own, with its lips closed (1 or n, k, 3).

    `lips` are the offsets of keypoints (n, k, 3) that close the source's lips, from lip retargeting to a ratio of 0; they are
    in units of the picture, and so divided by the scale. With lip normalisation, which adds them again, the source takes over
    the picture's expression as it is; without, its lips stay as far open as they were, and the picture's opening is added.

    The official code has a stored array here, offsets of a face at rest, that belongs to its authors and isn't ours to give:
    with the published weights its results for driving pictures are alike, not equal.
    """
    return source.exp if lips is None else source.exp + lips / source.scale[..., None]


def friendlier(x_source: Tensor, x_driving: Tensor, x_first: Tensor) -> Tensor:
    """Expression-friendly mode: x_s + m (x_d,i − x_d,0), keypoints (n, k, 3); m is `size_ratio` of the two."""
    return x_source + size_ratio(x_source, x_first) * (x_driving - x_first)


def size_ratio(x_source: Tensor, x_first: Tensor) -> float:
    """How much larger the source is than the first result: root of the ratio of the areas that keypoints span in x and y."""
    source, first = hull_area(x_source[0]), hull_area(x_first[0])
    return float(np.sqrt(source / first)) if source > FLATTEST and first > FLATTEST else 1.0


def hull_area(x: Tensor) -> float:
    """Area of the convex hull of keypoints (k, 2 or 3) in x and y; 0 when they lie on a line."""
    try:
        return float(ConvexHull(x[:, :2].detach().cpu().double().numpy()).volume)
    except (QhullError, ValueError):
        return 0.0


def stretched(x_source: Tensor, x_driving: Tensor, multiplier: float) -> Tensor:
    """x_s + multiplier (x_d − x_s)."""
    return x_driving if multiplier == 1 else x_source + multiplier * (x_driving - x_source)
