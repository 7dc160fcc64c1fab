"""Example pictures that need no package: a table cut out, and a room, ray by ray from a few boxes.

Both are seen as the training data is: objects from 20 degrees above on nothing, rooms from inside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating[Any]]

SIZE = 256
"""Pixels of a picture."""
SAMPLES = 2
"""Rays along each side of a pixel."""
SUN = np.array([-0.45, -0.6, 0.65])
WOOD, DARK, WALL, FLOOR, RED, WHITE = (
    np.array(rgb) / 255
    for rgb in ((176, 122, 72), (120, 78, 44), (222, 214, 196), (150, 112, 80), (168, 58, 52), (240, 238, 232))
)


class Box(NamedTuple):
    """A box between two corners, z up, of one colour; seen from outside, a room also from inside."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    colour: Floats


TABLE = (
    Box((-0.75, -0.5, 0.3), (0.75, 0.5, 0.42), WOOD),
    *(Box((x - 0.07, y - 0.07, -0.45), (x + 0.07, y + 0.07, 0.3), DARK) for x in (-0.62, 0.62) for y in (-0.38, 0.38)),
)
ROOM = (
    Box((-2.0, -1.0, 0.0), (2.0, 3.0, 2.5), WALL),
    Box((-2.0, -1.0, -0.1), (2.0, 3.0, 0.005), FLOOR),
    Box((-1.9, 1.2, 0.0), (-0.3, 2.9, 0.45), WHITE),
    Box((-1.9, 1.2, 0.45), (-0.3, 2.2, 0.52), RED),
    Box((0.9, 2.3, 0.0), (1.8, 2.95, 1.7), DARK),
    Box((0.5, 0.9, 0.0), (1.2, 1.5, 0.5), WOOD),
)


def table(path: Path) -> None:
    """A table on transparency, RGBA, as a PNG file."""
    eye = 3.0 * np.array([np.sin(0.6) * 0.94, -np.cos(0.6) * 0.94, 0.34])
    _save(path, *_traced(TABLE, eye, np.zeros(3), 39.6))


def room(path: Path) -> None:
    """A furnished room from inside, as a PNG file."""
    _save(path, *_traced(ROOM, np.array([0.15, -0.9, 1.45]), np.array([0.0, 2.0, 0.75]), 75.0))


def _traced(boxes: tuple[Box, ...], eye: Floats, target: Floats, fov: float) -> tuple[Floats, Floats]:
    """Colours (N, N, 3) and hits (N, N) in 0..1, a ray for every sample."""
    number = SIZE * SAMPLES
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right)
    slopes = (np.arange(number) + 0.5 - number / 2) / (number / 2) * np.tan(np.deg2rad(fov) / 2)
    x, y = np.meshgrid(slopes, slopes)
    rays = forward + x[..., None] * right + y[..., None] * np.cross(forward, right)
    nearest, colours = np.full(x.shape, np.inf), np.ones((*x.shape, 3))
    for box in boxes:
        distance, normal = _hit(box, eye, rays)
        is_nearer = distance < nearest
        light = 0.55 + 0.45 * np.clip(normal @ (SUN / np.linalg.norm(SUN)), 0, 1)
        nearest = np.where(is_nearer, distance, nearest)
        colours = np.where(is_nearer[..., None], light[..., None] * box.colour, colours)
    return colours, np.isfinite(nearest).astype(float)


def _hit(box: Box, eye: Floats, rays: Floats) -> tuple[Floats, Floats]:
    """Distance along each ray (N, N), infinite without a hit, and the normal there, towards the eye (N, N, 3)."""
    safe = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
    ends = np.stack([(np.array(corner) - eye) / safe for corner in (box.low, box.high)])
    first, last = ends.min(0), ends.max(0)
    enter, leave = first.max(-1), last.min(-1)
    is_inside = enter <= 0
    distance = np.where((leave >= enter) & (leave > 0), np.where(is_inside, leave, enter), np.inf)
    axis = np.where(is_inside, last.argmin(-1), first.argmax(-1))
    return distance, np.eye(3)[axis] * -np.sign(np.take_along_axis(rays, axis[..., None], -1))


def _save(path: Path, colours: Floats, hits: Floats) -> None:
    """Samples averaged to pixels; where rays miss, the picture is transparent."""

    def pixels(values: Floats) -> Floats:
        averaged: Floats = values.reshape(SIZE, SAMPLES, SIZE, SAMPLES, -1).mean((1, 3))
        return averaged

    alpha = pixels(hits)
    rgb = pixels(colours * hits[..., None]) / np.maximum(alpha, 1e-6)
    Image.fromarray((np.concatenate([rgb, alpha], -1) * 255).round().astype(np.uint8)).save(path)
