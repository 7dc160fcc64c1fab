"""Where rays meet the head, and a sheet of colour on its surface that features are painted on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtura_live_portrait.data.drawn.geometry import Frame, View, front_at
from mixtura_live_portrait.data.drawn.identity import HeadShape
from mixtura_live_portrait.data.drawn.rays import Canvas, Window, as_planes, rays, unit
from mixtura_live_portrait.data.drawn.state import Array

ROUNDS = 3
"""Solutions for a head whose width at a ray's height is known from the round before; a fourth moves no point by 0.01 units."""


class Patch(NamedTuple):
    """A part of the head's surface to paint on: `x`, `y` head coordinates (h, w), `colour` (3, h, w), `pixel` in head units."""

    x: Array
    y: Array
    colour: Array
    pixel: float

    def paint(self, alpha: Array, colour: Array) -> None:
        """Lay a colour, (3,) or (3, h, w), over it; `alpha` (h, w) is 0 to 1."""
        sheet = self.colour
        sheet += alpha * (as_planes(colour) - sheet)


class Sheet(NamedTuple):
    """The visible surface of the head in a window: all of it as a patch, `t` of the rays, `cover` 0 to 1, `slopes` outwards."""

    canvas: Canvas
    view: View
    frame: Frame
    shape: HeadShape
    window: Window
    whole: Patch
    t: Array
    cover: Array
    slopes: tuple[Array, Array, Array]

    def patch(self, low: tuple[float, float], high: tuple[float, float]) -> Patch | None:
        """The part of the sheet that shows the box `low` to `high` of the frontal plane; None when nothing does."""
        across = (low[0], 0.5 * (low[0] + high[0]), high[0])
        corners = np.array([(x, y, front_at(self.shape, x, y)) for x in across for y in (low[1], high[1])])
        seen = self.view.project(corners)
        rows, columns = self.canvas.window(seen.min(0).tolist(), seen.max(0).tolist())
        top, left = self.window[0].start, self.window[1].start
        part = slice(max(rows.start - top, 0), max(rows.stop - top, 0)), slice(max(columns.start - left, 0), columns.stop - left)
        x, y, colour, pixel = self.whole
        x = x[part]
        return Patch(x, y[part], colour[:, part[0], part[1]], pixel) if x.size else None


def edge(distance: NDArray[np.floating], pixel: float) -> Array:
    """0 to 1 across one pixel around the zero of a distance."""
    return unit(distance * np.float32(1 / pixel) + np.float32(0.5))


def head_sheet(canvas: Canvas, view: View, shape: HeadShape, skin: Array) -> Sheet | None:
    """The head's surface in the colour of its skin; None when it lies beside the picture."""
    frame, window = view.frame(), _window(canvas, view, shape)
    if any(part.stop - part.start < 2 for part in window):
        return None
    start, (dx, dy, dz) = rays(canvas, frame, window)
    ox, oy, oz = (np.float32(value) for value in start)
    y = oy + dy * (-(ox * dx + oy * dy + oz * dz) / (dx * dx + dy * dy + dz * dz))
    for _ in range(ROUNDS):
        wide, tall, bend = _local(shape, y)
        x_part, y_part, deep = dx * wide, dy * tall, np.float32(shape.depth**-2)
        a = dx * x_part + dy * y_part + (deep * dz) * dz
        b = ox * x_part + oy * y_part + (deep * oz) * dz
        c = ox * ox * wide + oy * oy * tall + np.float32(deep * oz * oz - 1)
        inside = b * b - a * c
        t = -(b + np.sqrt(np.maximum(inside, 0))) / a
        y = oy + t * dy
    x, z = ox + t * dx, oz + t * dz
    slopes = x * wide, y * tall - x * x * wide * bend, z * deep
    colour = np.empty((3, *x.shape), np.float32)
    colour[:] = as_planes(skin)
    whole = Patch(x, y, colour, canvas.pixel / view.scale)
    return Sheet(canvas, view, frame, shape, window, whole, t, _cover(inside), slopes)


def _window(canvas: Canvas, view: View, shape: HeadShape) -> Window:
    """The box of the ellipsoid around the head, with room for what perspective adds."""
    wide, half = shape.width * max(1.0, 1 + shape.jaw), 0.5 * (shape.crown + shape.chin)
    axes = np.diag([wide, half, shape.depth]) @ view.rotation * view.scale
    middle = view.project(np.array([[0, shape.chin - half, 0]]))[0]
    reach = 1.12 * np.sqrt((axes[:, :2] ** 2).sum(0))
    return canvas.window(middle - reach, middle + reach)


def _local(shape: HeadShape, y: Array) -> tuple[Array, Array, Array]:
    """At heights y: 1 / half width², 1 / height², and the relative change of the half width with y."""
    below = y > 0
    height = unit(y * np.float32(1 / shape.chin))
    squared = height * height
    factor = 1 + squared * (np.float32(shape.jaw) - np.float32(shape.point) * squared)
    bend = height * (np.float32(2 * shape.jaw) - np.float32(4 * shape.point) * squared) / (factor * np.float32(shape.chin))
    tall = np.where(below, np.float32(shape.chin**-2), np.float32(shape.crown**-2)).astype(np.float32, copy=False)
    return np.float32(shape.width**-2) / (factor * factor), tall, np.asarray(bend, np.float32)


def _cover(inside: Array) -> Array:
    """The share of each pixel inside the zero line of a function, by its value over its slope from pixel to pixel."""
    across, down = np.empty_like(inside), np.empty_like(inside)
    across[:, 1:-1] = (inside[:, 2:] - inside[:, :-2]) * np.float32(0.5)
    across[:, 0], across[:, -1] = inside[:, 1] - inside[:, 0], inside[:, -1] - inside[:, -2]
    down[1:-1] = (inside[2:] - inside[:-2]) * np.float32(0.5)
    down[0], down[-1] = inside[1] - inside[0], inside[-1] - inside[-2]
    slope = np.sqrt(across * across + down * down) + np.float32(1e-12)
    return unit(inside / slope + np.float32(0.5))
