"""Painting a face on the sheet of the head: skin, brows, eyes, mouth, beard. Every edge is a distance to a curve of `curves`."""

from __future__ import annotations

import numpy as np

from mixtura_live_portrait.data.drawn.curves import INNER, BrowNow, EyeNow, MouthNow, bulge
from mixtura_live_portrait.data.drawn.identity import Identity
from mixtura_live_portrait.data.drawn.rays import rgb, unit
from mixtura_live_portrait.data.drawn.state import Array, Expression
from mixtura_live_portrait.data.drawn.surface import Patch, Sheet, edge

WHITE = np.array((0.96, 0.95, 0.93), np.float32)
PUPIL = np.array((0.03, 0.03, 0.04), np.float32)
DARK = np.array((0.10, 0.06, 0.06), np.float32)
THROAT = np.array((0.30, 0.06, 0.08), np.float32)
TONGUE = np.array((0.78, 0.36, 0.38), np.float32)
TEETH = np.array((0.95, 0.94, 0.90), np.float32)


def spot(x: Array, y: Array, at: tuple[float, float], radius: tuple[float, float]) -> Array:
    """1 at a point, falling smoothly to 0 at a distance of `radius`."""
    across, down = (x - np.float32(at[0])) * np.float32(1 / radius[0]), (y - np.float32(at[1])) * np.float32(1 / radius[1])
    rest = np.maximum(1 - across * across - down * down, 0)
    return rest * rest


def paint_skin(sheet: Sheet, who: Identity, doing: Expression, mouth: MouthNow) -> None:
    """Sockets of the eyes, cheeks, freckles and the folds beside a smile."""
    skin = rgb(who.skin)
    shadow, rose = skin * (0.72, 0.62, 0.60), skin * 0.9 + np.array((0.12, 0.0, 0.01))
    reach = who.eyes.distance + who.eyes.width
    top = sheet.patch((-reach - 0.15, -0.35), (reach + 0.15, 0.62))
    if top is not None:
        for side in (-1, 1):
            at = side * (who.eyes.distance - 0.3 * who.eyes.width)
            top.paint(spot(top.x, top.y, (at, -0.10), (0.30, 0.24)) * np.float32(0.42), shadow)
            cheek = side * (who.eyes.distance + 0.06), 0.36 - 0.06 * max(doing.smile, 0)
            top.paint(spot(top.x, top.y, cheek, (0.28, 0.22)) * np.float32(0.55 * who.blush + 0.2 * max(doing.smile, 0)), rose)
        if who.freckles:
            _freckles(top, who.freckles, shadow)
    low = sheet.patch((-mouth.half - 0.2, 0.25), (mouth.half + 0.2, mouth.y + 0.2))
    if low is not None and doing.smile > 0:
        for side in (-1, 1):
            down = unit((low.y - np.float32(0.34)) / np.float32(mouth.y - 0.30))
            line = side * (who.nose.ball + 0.02 + down * np.float32(mouth.half + 0.03 - who.nose.ball))
            alpha = np.maximum(1 - np.abs(low.x - line) / np.float32(0.035), 0) * (
                down * (1 - down) * np.float32(2.4 * doing.smile)
            )
            low.paint(unit(alpha), shadow)


def _freckles(sheet: Patch, strength: float, colour: Array) -> None:
    grid = np.sin(sheet.x * 71 + sheet.y * 23) * np.sin(sheet.y * 83 - sheet.x * 31)
    alpha = np.minimum(np.maximum(grid - np.float32(0.6), 0), np.float32(0.3)) * spot(sheet.x, sheet.y, (0, 0.28), (0.55, 0.28))
    sheet.paint(alpha * np.float32(2.4 * strength * max(0.0, 1 - sheet.pixel / 0.06)), colour)


def paint_beard(sheet: Sheet, who: Identity, mouth: MouthNow) -> None:
    """Hair on chin and jaw, and over the lip."""
    colour = rgb(who.hair) * 0.9
    part = sheet.patch((-1, -0.05), (1, 1.4)) if who.beard or who.moustache else None
    if part is None:
        return
    x, y = part.x, part.y
    grain = np.float32(0.9) + np.float32(0.1 * max(0.0, 1 - part.pixel / 0.04)) * np.sin(x * 90 + 9 * y) * np.sin(y * 70)
    if who.beard:
        out = unit((np.abs(x) - np.float32(0.7 * mouth.half)) * np.float32(1 / (who.head.width - 0.7 * mouth.half)))
        line = np.float32(mouth.y + 0.03) - np.float32(mouth.y) * out * out * (3 - 2 * out)
        part.paint(unit((y - line) * np.float32(7)) * grain * np.float32(0.9 * who.beard), colour)
    if who.moustache:
        u = x / np.float32(1.2 * mouth.half)
        upper = mouth.outer(u, True)
        alpha = edge(y - upper + 0.13 * bulge(u), 2 * part.pixel) * edge(upper + 0.03 - y, part.pixel)
        part.paint(alpha * (np.abs(u) < 1) * grain * np.float32(0.9 * who.moustache), colour)


def paint_brow(sheet: Sheet, brow: BrowNow, who: Identity) -> None:
    """One brow."""
    reach = brow.thickness + brow.arch + abs(brow.tilt) * brow.half + 0.03
    part = sheet.patch((brow.x - brow.half, brow.y - reach), (brow.x + brow.half, brow.y + reach))
    if part is None:
        return
    u = (part.x - np.float32(brow.x)) * np.float32(1 / brow.half)
    upper, lower = brow.edges(np.clip(u, -1, 1))
    alpha = _between(part.y, upper, lower, part.pixel) * edge((1 - np.abs(u)) * brow.half, part.pixel)
    part.paint(alpha * np.float32(0.92), rgb(who.hair) * 0.8 + rgb(who.skin) * 0.08)


def _between(at: Array, upper: Array, lower: Array, pixel: float) -> Array:
    """The share of a pixel that lies between two heights, also where they are less than a pixel apart."""
    half, per = np.float32(0.5 * pixel), np.float32(1 / pixel)
    return unit((np.minimum(lower, at + half) - np.maximum(upper, at - half)) * per)


def paint_eye(sheet: Sheet, eye: EyeNow, who: Identity) -> None:
    """One eye: lid, crease, white, iris, pupil, lashes; lines are at least half a pixel wide, so that a blink shows."""
    reach = eye.half * (1.25 + abs(eye.sine))
    rise = eye.half * (1.2 * eye.opening + 0.62 + abs(eye.sine))
    part = sheet.patch((eye.x - reach, eye.y - rise), (eye.x + reach, eye.y + rise))
    if part is None:
        return
    u, v = eye.local(part.x, part.y)
    pixel = part.pixel / eye.half
    width = edge(1 - np.abs(u), pixel)
    upper, lower = eye.lid(u, True), eye.lid(u, False)
    crease = upper - np.float32(0.10 + 0.26 * max(0.0, 1 - eye.opening)) * bulge(u)
    skin = rgb(who.skin)
    part.paint(_between(v, crease, upper, pixel) * width * np.float32(0.35 + 0.6 * who.eyes.shadow), skin * (0.72, 0.60, 0.60))
    part.paint(_stroke(v, crease, 0.05, pixel) * width * np.float32(0.45), skin * 0.5)
    part.paint(_between(v, upper, lower, pixel) * width, _eyeball(u, v, upper, eye, who, pixel))
    thick = who.eyes.lashes * (0.6 + 0.4 * (1 - np.abs(u)))
    lashes = edge(np.float32(1.08) - np.abs(u), pixel)
    part.paint(_stroke(v, upper - 0.4 * thick, np.maximum(thick, 0.55 * pixel), pixel) * lashes * np.float32(0.95), DARK)
    part.paint(_stroke(v, lower, 0.05, pixel) * width * np.float32(0.5), skin * 0.42)


def _stroke(at: Array, line: Array, thickness: float | Array, pixel: float) -> Array:
    """A line of a thickness along a curve."""
    half = 0.5 * thickness
    return _between(at, line - half, line + half, pixel)


def _eyeball(u: Array, v: Array, upper: Array, eye: EyeNow, who: Identity, pixel: float) -> Array:
    """Colours (3, h, w) of what is between the lids."""
    right, down = u - np.float32(eye.iris[0]), v - np.float32(eye.iris[1])
    distance = np.sqrt(right * right + down * down)
    colour = np.empty((3, *u.shape), np.float32)
    colour[:] = (WHITE * 0.97)[:, None, None] * (1 - np.float32(0.12) * u * u)
    radius = who.eyes.iris
    iris = rgb(who.iris)[:, None, None] * (np.float32(0.6) + np.float32(0.75 / radius) * np.maximum(distance - 0.3 * radius, 0))
    for cover, paint in (
        (edge(radius - distance, pixel), np.minimum(iris, 1)),
        (edge(0.09 - np.abs(distance - np.float32(radius)), pixel) * np.float32(0.5), DARK[:, None, None]),
        (edge(0.48 * radius - distance, pixel), PUPIL[:, None, None]),
    ):
        colour += cover * (paint - colour)
    glint = spot(u, v, (eye.iris[0] - 0.35 * radius, eye.iris[1] - 0.4 * radius), (0.42 * radius, 0.42 * radius))
    colour += np.minimum(1.6 * glint, 1) * (1 - colour)
    colour *= 1 - np.float32(0.35) * unit(1 - (v - upper) * 3)  # the lid's shadow
    return colour


def paint_mouth(sheet: Sheet, mouth: MouthNow, who: Identity, doing: Expression) -> None:
    """Lips, and between them teeth, tongue and darkness."""
    rise = max(0.04, abs(mouth.lift)) + mouth.upper + 0.3 * mouth.opening + 0.03
    fall = abs(mouth.lift) + mouth.lower + 0.75 * mouth.opening + 0.06
    part = sheet.patch((-1.1 * mouth.half, mouth.y - rise), (1.1 * mouth.half, mouth.y + fall))
    if part is None:
        return
    u, y, pixel = part.x * np.float32(1 / mouth.half), part.y, part.pixel
    inside = edge((1 - np.abs(u)) * mouth.half, pixel)
    upper, lower = mouth.inner(u, True), mouth.inner(u, False)
    top, bottom = mouth.outer(u, True), mouth.outer(u, False)
    lip, skin = rgb(who.lip), rgb(who.skin)
    part.paint(_stroke(y, bottom + 0.035, 0.06, pixel) * bulge(0.9 * u) * inside * np.float32(0.35), skin * 0.62)
    part.paint(_between(y, top, upper, pixel) * inside, lip * 0.86)
    shine = unit(1 - np.abs(y - (lower + bottom) * 0.5) / np.float32(mouth.lower))
    part.paint(_between(y, lower, bottom, pixel) * inside, np.minimum(lip[:, None, None] * (0.92 + 0.22 * shine), 1))
    gap = np.maximum(0.035 * (1 - np.abs(u) * 0.5), 0.5 * pixel)
    part.paint(_stroke(y, mouth.line(u), gap, pixel) * inside * np.float32(0.85), DARK)
    part.paint(
        _between(y, upper, lower, pixel) * edge((INNER - np.abs(u)) * mouth.half, pixel), _within(u, y, upper, lower, mouth)
    )


def _within(u: Array, y: Array, upper: Array, lower: Array, mouth: MouthNow) -> Array:
    """Colours (3, h, w) of the open mouth."""
    colour = np.empty((3, *u.shape), np.float32)
    colour[:] = THROAT[:, None, None]
    tongue = spot(u, y, (0, float(mouth.y + 0.72 * mouth.opening)), (0.75, 0.45 * mouth.opening + 0.02))
    colour += tongue * (TONGUE[:, None, None] - colour)
    teeth = unit((upper + 0.085 - y) / np.float32(0.02)) * unit((np.float32(0.8) - np.abs(u)) * 6)
    colour += teeth * (TEETH[:, None, None] - colour)
    return colour
