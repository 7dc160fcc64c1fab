"""Hair as a thicker skull with a hairline, long hair behind it, and glasses on a plane before the eyes."""

from __future__ import annotations

import numpy as np

from mixtura_live_portrait.data.drawn.curves import EyeNow
from mixtura_live_portrait.data.drawn.geometry import Frame, View, front_at
from mixtura_live_portrait.data.drawn.identity import HeadShape, Identity
from mixtura_live_portrait.data.drawn.rays import Canvas, Hit, Light, meet, rays, rgb, shade, unit
from mixtura_live_portrait.data.drawn.state import Array
from mixtura_live_portrait.data.drawn.surface import edge

OVER_EARS = ("bob", "long", "round")
"""Cuts under which no ears are drawn."""
SIDES = {"cropped": -0.12, "fringe": 0.22, "parted": 0.08, "bob": 0.75, "long": 0.8, "round": 0.28, "receding": -0.05}
"""How far below the eyes hair reaches at the sides of the head."""


def paint_back_hair(canvas: Canvas, who: Identity, view: View, light: Light) -> None:
    """Hair behind the head: what hangs or stands around it, and the inside of the hair on the skull."""
    sizes = {"long": (1.16, 1.20, 0.42), "bob": (1.15, 0.86, 0.18), "round": (1.34, 1.0, -0.1)}
    if who.cut in sizes:
        wide, tall, low = sizes[who.cut]
        axes = np.diag([wide * who.head.width + 0.03, tall, 0.8 * who.head.depth])
        frame = view.frame().within((0.0, low, 0.28), axes)
        hit = meet(canvas, frame)
        if hit is not None:
            canvas.blend(hit.window, hit.cover, _strands(canvas, view, hit, who) * (0.78 * shade(hit.point, frame, light)))
    if who.cut != "bald" and (hit := meet(canvas, _skull(who, view), is_far=True)) is not None:
        canvas.blend(hit.window, _grown(canvas, who, view, hit), rgb(who.hair) * np.float32(0.62))


def paint_hair(canvas: Canvas, who: Identity, view: View, light: Light) -> None:
    """Hair on the skull, down to the hairline."""
    if who.cut == "bald":
        return
    frame = _skull(who, view)
    hit = meet(canvas, frame)
    if hit is not None:
        canvas.blend(
            hit.window, _grown(canvas, who, view, hit), _strands(canvas, view, hit, who) * shade(hit.point, frame, light)
        )


def _skull(who: Identity, view: View) -> Frame:
    """The skull thickened by its hair."""
    grown = who.volume * (1.9 if who.cut == "round" else 1.0)
    axes = np.diag([who.head.width + 0.8 * grown, who.head.crown + grown, who.head.depth + 0.6 * grown])
    return view.frame().within((0.0, 0.0, 0.03), axes)


def _grown(canvas: Canvas, who: Identity, view: View, hit: Hit) -> Array:
    """Where the thickened skull is hair."""
    x, y, z = hit.point
    pixel = canvas.pixel / (view.scale * who.head.crown)
    return edge(_hairline(who, x, z) - y, 1.5 * pixel) * hit.cover


def _hairline(who: Identity, x: Array, z: Array) -> Array:
    """Height of the hairline on the thicker skull, whose half axes are 1."""
    side = np.float32(who.side) * x
    line = np.float32(-who.line)
    if who.cut == "fringe":
        face = np.float32(-0.36) + np.float32(0.03) * np.sin(x * 34) - np.float32(0.1) * x * x
    elif who.cut in ("parted", "long"):
        face = line - np.float32(0.22) + np.abs(side + np.float32(0.35)) * np.float32(0.5)
    elif who.cut == "receding":
        face = np.float32(-0.86) - np.float32(0.1) * np.cos(x * 6)
    else:
        face = line + np.float32(0.28) * x * x
    back = unit((z + np.float32(0.62)) * np.float32(2.4))
    back = back * back * (3 - 2 * back)
    down = np.float32(SIDES[who.cut]) + np.float32(0.5) * np.maximum(z, 0)
    return face + back * (down - face)


def _strands(canvas: Canvas, view: View, hit: Hit, who: Identity) -> Array:
    """Colour (3, h, w) with strands that fall from the crown, and a band of gloss; strands too fine for the pixels fade."""
    x, y, z = hit.point
    turn = x / (np.abs(z) + np.float32(0.35))
    pixel = canvas.pixel / view.scale
    wave = np.float32(0.09 * max(0.0, 1 - pixel / 0.1)) * np.sin(turn * 21 + y * 3)
    if pixel < 0.04:
        wave += np.float32(0.07 * (1 - pixel / 0.04)) * np.sin(turn * 47 - y * 5)
    gloss = np.maximum(1 - np.abs(y + np.float32(0.62)) * 5, 0) * np.float32(0.16)
    return np.asarray(np.minimum(rgb(who.hair)[:, None, None] * (1 + wave) + gloss * np.float32(0.8), 1))


def paint_glasses(canvas: Canvas, who: Identity, view: View, eyes: tuple[EyeNow, EyeNow]) -> None:
    """Two rims and a bridge on a plane that touches the nose, and a faint tint of the glass."""
    if who.glasses == "none":
        return
    plane = _plane(who.head, eyes[1])
    half = (eyes[1].half * 1.28, eyes[1].half * (1.05 if who.glasses == "round" else 0.9))
    reach = eyes[1].x + half[0] + 0.06
    seen = view.project(np.array([(x, y, plane) for x in (-reach, reach) for y in (-0.4, 0.4)]))
    window = canvas.window(seen.min(0).tolist(), seen.max(0).tolist())
    if any(part.stop <= part.start for part in window):
        return
    start, (dx, dy, dz) = rays(canvas, view.frame(), window)
    t = (np.float32(plane) - np.float32(start[2])) / dz
    x, y = np.float32(start[0]) + t * dx, np.float32(start[1]) + t * dy
    pixel = canvas.pixel / view.scale
    away = _rim(np.abs(x) - np.float32(eyes[1].x), y - np.float32(0.02), half, who.glasses)
    thick = max(0.026, 0.5 * pixel)
    bridge = (np.abs(x) < eyes[1].x - half[0]) * edge(thick - np.abs(y + 0.05), pixel)
    hidden = t < canvas.near[window] + np.float32(0.02)
    canvas.blend(window, edge(-away, pixel) * np.float32(0.10) * hidden, np.array((0.75, 0.85, 0.9), np.float32))
    canvas.blend(window, np.maximum(edge(thick - np.abs(away), pixel), bridge) * hidden, rgb(who.frames))


def _plane(shape: HeadShape, eye: EyeNow) -> float:
    """Depth of the glasses: a little before the inner corners of the eyes."""
    return front_at(shape, eye.x - eye.half, 0.0) - 0.1


def _rim(x: Array, y: Array, half: tuple[float, float], kind: str) -> Array:
    """Signed distance (roughly) from the rim of a lens around the origin, negative inside."""
    wide, tall = np.float32(half[0]), np.float32(half[1])
    if kind == "round":
        return (np.sqrt((x / wide) ** 2 + (y / tall) ** 2) - 1) * tall
    corner = np.float32(0.08)
    right, down = np.maximum(np.abs(x) - wide + corner, 0), np.maximum(np.abs(y) - tall + corner, 0)
    inner = np.minimum(np.maximum(np.abs(x) - wide, np.abs(y) - tall) + corner, 0)
    return np.sqrt(right * right + down * down) + inner - corner
