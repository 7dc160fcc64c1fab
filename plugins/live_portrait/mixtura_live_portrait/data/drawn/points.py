"""Exact landmarks: 203 points whose eyes and lips stand where the published 203 points have them.

| points | what |
| --- | --- |
| 0–23, 24–47 | left and right eye: left corner, over the upper lid to the right corner (12, 36), back along the lower lid |
| 48–83, 84–107 | outer and inner lips, in the same way: corners 48, 66 and 84, 96, middles 57, 75 and 90, 102 |
| 108–144 | outline from the left ear over the chin (126) to the right ear |
| 145–164, 165–184 | left and right brow: upper edge from left to right, lower edge back |
| 185–200 | nose: ridge from the root to the tip (191), then its base from left to right |
| 201, 202 | irises |

The published order of the points behind 107 differs; nothing here or in the published rules uses it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixtura_live_portrait.data.drawn.curves import INNER, BrowNow, EyeNow, MouthNow, brow_now, eye_now, head_now, mouth_now
from mixtura_live_portrait.data.drawn.geometry import Doubles, View, nose, on_front, taper
from mixtura_live_portrait.data.drawn.identity import HeadShape, Identity
from mixtura_live_portrait.data.drawn.state import Expression, State

COUNT = 203
TIP = 191
IRISES = (201, 202)
OUTLINE = slice(108, 145)


THIRTEEN, ACROSS, INSIDE = np.linspace(-1, 1, 13), np.linspace(-1, 1, 19), np.linspace(-INNER, INNER, 13)
TURN = np.linspace(np.pi, 0, 37)
SINE, COSINE = np.sin(TURN), np.cos(TURN)
TEN = np.linspace(-1, 1, 10)
RIDGE, BASE = np.linspace(0, 1, 7), np.linspace(-0.95, 0.95, 9)


def head_points(who: Identity, doing: Expression) -> Doubles:
    """The landmarks (203, 3) in head coordinates."""
    shape = head_now(who, doing)
    eyes = [eye_now(who, doing, side) for side in (-1, 1)]
    brows = [_brow(brow_now(who, doing, side)) for side in (-1, 1)]
    irises = np.concatenate([eye.flat(*np.array(eye.iris)[:, None]) for eye in eyes])
    flat = np.concatenate([*map(_eye, eyes), *_lips(mouth_now(who, doing)), *brows, _nose(who), irises])
    points = on_front(shape, flat)
    base = points[148:164]
    for part in nose(shape, who.nose):
        base[:, 2] = np.minimum(base[:, 2], part.front(base[:, 0], base[:, 1]))
    return np.concatenate([points[:108], _outline(shape), points[108:]])


def landmarks(who: Identity, state: State, size: int) -> NDArray[np.float32]:
    """The landmarks (203, 2) in pixels of a picture of `size` pixels, pixel centres at +0.5."""
    seen = View.of(state.pose).project(head_points(who, state.expression))
    return ((seen + 1) * (size / 2)).astype(np.float32)


def _loop(upper: Doubles, lower: Doubles) -> Doubles:
    """An outline from two edges (N, 2) from left to right: over the upper one and back, without the second corners."""
    return np.concatenate([upper, lower[-2:0:-1]])


def _eye(eye: EyeNow) -> Doubles:
    return _loop(*(eye.flat(THIRTEEN, eye.lid(THIRTEEN, is_upper)) for is_upper in (True, False)))


def _lips(mouth: MouthNow) -> list[Doubles]:
    edges = ((ACROSS, mouth.outer), (INSIDE, mouth.inner))
    return [_loop(*(np.stack([u * mouth.half, edge(u, is_upper)], 1) for is_upper in (True, False))) for u, edge in edges]


def _outline(shape: HeadShape) -> Doubles:
    """The widest section of the lower half of the head."""
    return np.stack([shape.width * COSINE * taper(shape, SINE), shape.chin * SINE, 0 * SINE], 1)


def _brow(brow: BrowNow) -> Doubles:
    x = brow.x + brow.half * TEN
    upper, lower = brow.edges(TEN)
    return np.concatenate([np.stack([x, upper], 1), np.stack([x, lower], 1)[::-1]])


def _nose(who: Identity) -> Doubles:
    """Seven points down the ridge, nine along the base."""
    below = who.nose.length + 0.6 * who.nose.ball * np.sqrt(1 - BASE**2)
    return np.concatenate([np.stack([0 * RIDGE, who.nose.length * RIDGE], 1), np.stack([who.nose.ball * BASE, below], 1)])
