"""Rays through the pixels of a picture, and where they meet ellipsoids: window, surface point, depth and coverage of pixels.

Everything is in closed form. A ray is O + t·d with d = (x, y, CAMERA), so t is 1 in the picture's plane. The edge of an ellipsoid
is the zero of a quadratic form of (x, y, 1), whose value over its slope is the distance in pixels: that is the antialiasing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtura_live_portrait.data.drawn.geometry import CAMERA, Doubles, Frame
from mixtura_live_portrait.data.drawn.identity import Colour
from mixtura_live_portrait.data.drawn.state import Array

Window = tuple[slice, slice]
TINY = 1e-12


class Canvas:
    """A picture in the making: `image` (3, S, S) 0 to 1, and `near` (S, S), the t of the nearest solid thing of the head."""

    def __init__(self, size: int) -> None:
        self.size, self.pixel = size, 2 / size
        centres = ((np.arange(size) + 0.5) * self.pixel - 1).astype(np.float32)
        self.x, self.y = centres[None, :], centres[:, None]
        self.image: Array = np.zeros((3, size, size), np.float32)
        self.near: Array = np.full((size, size), np.inf, np.float32)

    def window(self, low: Sequence[float], high: Sequence[float]) -> Window:
        """The pixels of a box (x, y) from `low` to `high` and one more around it, cut to the picture."""
        (left, top), (right, bottom) = (
            [min(max(int((v + 1) / self.pixel + more), 0), self.size) for v in at] for at, more in ((low, -1), (high, 2))
        )
        return slice(top, bottom), slice(left, right)

    def blend(self, window: Window, cover: Array, colour: Array) -> None:
        """Lay a colour, (3,) or (3, h, w), over a window; `cover` (h, w) is 0 to 1."""
        part = self.image[(slice(None), *window)]
        part += cover * (as_planes(colour) - part)


def as_planes(colour: Array) -> Array:
    """A colour (3,) as (3, 1, 1); planes (3, h, w) as they are. Always float32, so that no picture becomes double."""
    return (colour[:, None, None] if colour.ndim == 1 else colour).astype(np.float32, copy=False)


def rgb(colour: Colour) -> Array:
    """A colour as an array (3,)."""
    return np.array(colour, np.float32)


class Rays(NamedTuple):
    """Rays of a window in the coordinates of a frame: `start` (3,), and directions, one plane (h, w) an axis."""

    start: Doubles
    along: tuple[Array, Array, Array]


def rays(canvas: Canvas, frame: Frame, window: Window) -> Rays:
    """The rays of a window in a frame's coordinates."""
    x, y = canvas.x[:, window[1]], canvas.y[window[0]]
    right, down, ahead = frame.linear.astype(np.float32)
    along = [right[j] * x + (down[j] * y + np.float32(CAMERA) * ahead[j]) for j in range(3)]
    return Rays(frame.offset - CAMERA * frame.linear[2], (along[0], along[1], along[2]))


class Hit(NamedTuple):
    """Where rays of a window meet a ball: the ball's own coordinates, t, and the share of each pixel that it covers."""

    window: Window
    point: tuple[Array, Array, Array]
    t: Array
    cover: Array


def meet(canvas: Canvas, frame: Frame, is_far: bool = False) -> Hit | None:
    """Where rays meet the unit ball of a frame, or with `is_far` leave it; None when it lies beside the picture.

    Pixels that are covered in part and whose centre misses the ball get the point where their ray is nearest to it.
    """
    start = frame.offset - CAMERA * frame.linear[2]
    rows = np.stack([frame.linear[0], frame.linear[1], CAMERA * frame.linear[2]])
    along, far = rows @ start, start @ start - 1
    form = np.outer(along, along) - far * (rows @ rows.T)
    window = _bounds(canvas, form)
    if window is None:
        return None
    x, y = canvas.x[:, window[1]], canvas.y[window[0]]
    start, (d0, d1, d2) = rays(canvas, frame, window)
    q, b = form.astype(np.float32), along.astype(np.float32)
    behind = b[0] * x + (b[1] * y + b[2])
    length = d0 * d0 + d1 * d1 + d2 * d2
    inside = behind * behind - np.float32(far) * length
    across, down = q[0, 0] * x + (q[0, 1] * y + q[0, 2]), q[0, 1] * x + (q[1, 1] * y + q[1, 2])
    slope = np.sqrt(across * across + down * down) + np.float32(TINY)
    cover = unit(inside / (slope * np.float32(2 * canvas.pixel)) + np.float32(0.5))
    root = np.sqrt(np.maximum(inside, 0))
    t = ((root if is_far else -root) - behind) / length
    s0, s1, s2 = start.astype(np.float32)
    return Hit(window, (s0 + t * d0, s1 + t * d1, s2 + t * d2), t, cover)


def _bounds(canvas: Canvas, form: Doubles) -> Window | None:
    """The window of the ellipse where a quadratic form of (x, y, 1) is positive."""
    (a, d, f), (_, b, e), (_, _, c) = form.tolist()  # the adjugate of the form is that of its tangents
    whole = a * b - d * d
    middle = ((d * e - b * f) / whole, (d * f - a * e) / whole)
    spread = (middle[0] ** 2 - (b * c - e * e) / whole, middle[1] ** 2 - (a * c - f * f) / whole)
    reach = [math.sqrt(max(value, 0)) for value in spread]
    window = canvas.window(
        [m - r for m, r in zip(middle, reach, strict=True)], [m + r for m, r in zip(middle, reach, strict=True)]
    )
    return window if all(part.stop > part.start for part in window) else None


def unit(values: NDArray[np.floating]) -> Array:
    """Values cut to 0 to 1."""
    return np.asarray(np.minimum(np.maximum(values, np.float32(0)), np.float32(1)), np.float32)


def shade(slopes: tuple[Array, Array, Array], frame: Frame, light: Light) -> Array:
    """Brightness (h, w) of a surface with outward slopes in a frame's coordinates."""
    to_light = (frame.linear.T @ light.direction).astype(np.float32)  # (linear @ slope) · direction
    metric = (frame.linear.T @ frame.linear).astype(np.float32)
    s0, s1, s2 = slopes
    facing = to_light[0] * s0 + to_light[1] * s1 + to_light[2] * s2
    m = metric
    squared = s0 * (m[0, 0] * s0 + 2 * (m[0, 1] * s1 + m[0, 2] * s2))
    squared += s1 * (m[1, 1] * s1 + 2 * m[1, 2] * s2) + m[2, 2] * s2 * s2
    return light.of(facing / np.sqrt(np.maximum(squared, TINY)))


class Light(NamedTuple):
    """Light from far away: unit vector towards it (3,), strength, light from everywhere; steps > 0 makes flat tones."""

    direction: Doubles
    strength: float = 0.55
    ambient: float = 0.6
    steps: int = 0

    def of(self, cosine: Array) -> Array:
        """Brightness for the cosine between normal and light; the light reaches a little behind the edge."""
        lit = np.maximum(cosine * np.float32(0.75) + np.float32(0.25), 0)
        if self.steps:
            lit *= np.float32(self.steps)
            whole = np.floor(lit)
            lit = (whole + unit((lit - whole - np.float32(0.5)) * 6 + np.float32(0.5))) / np.float32(self.steps)
        return np.float32(self.ambient) + np.float32(self.strength) * lit
