"""Painted surfaces for rooms: floors, walls, rugs, pictures, windows and doors, drawn from a random generator.

Every function takes a generator and a size in metres and gives uint8 [H, W, 4] (opaque) at `PIXELS` per metre; colours are drawn
before anything that depends on the size. They are rich in detail on purpose: a plain wall has nothing that a reconstruction could
hold on to.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .mesh import Array

PIXELS = 128
Picture = NDArray[np.uint8]
Pattern = Callable[[Generator, float, float], Picture]
WOODS = ((0.08, 0.50, 0.62), (0.07, 0.62, 0.45), (0.09, 0.35, 0.75), (0.06, 0.70, 0.33))


def _grid(width: float, height: float) -> tuple[Array, Array]:
    """Centres of pixels in metres, x [1, W] and y [H, 1] (y downwards)."""
    columns, rows = max(round(width * PIXELS), 2), max(round(height * PIXELS), 2)
    return (np.arange(columns)[None] + 0.5) / PIXELS, (np.arange(rows)[:, None] + 0.5) / PIXELS


def _colour(hue: float, saturation: float, value: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0), 1), min(max(value, 0), 1)))


def _noise(rng: Generator, shape: tuple[int, int], cell: tuple[float, float]) -> Array:
    """Smooth noise [H, W] in 0..1 whose grains are `cell` pixels high and wide."""
    rows, columns = (max(int(np.ceil(size / grain)) + 2, 3) for size, grain in zip(shape, cell, strict=True))
    image = Image.fromarray(rng.random((rows, columns), np.float32))
    return np.clip(np.asarray(image.resize(shape[::-1], Image.Resampling.BICUBIC), np.float64), 0, 1)


def _rough(rng: Generator, shape: tuple[int, int]) -> Array:
    """Noise [H, W] in about -1..1 with grains from 3 to 48 pixels."""
    layers = [weight * (_noise(rng, shape, (cell, cell)) - 0.5) for cell, weight in ((48, 0.9), (14, 0.7), (3, 0.4))]
    rough: Array = np.sum(layers, 0)
    return rough


def _finished(rgb: Array) -> Picture:
    opaque = np.ones((*rgb.shape[:2], 1))
    picture: Picture = (np.clip(np.concatenate([rgb, opaque], 2), 0, 1) * 255 + 0.5).astype(np.uint8)
    return picture


def planks(rng: Generator, width: float, height: float) -> Picture:
    """Boards of wood along x, each with its own shade and grain, joints staggered."""
    x, y = _grid(width, height)
    board, length = rng.uniform(0.1, 0.19), rng.uniform(0.7, 1.5)
    row = np.floor(y / board).astype(int)
    shift = rng.random(row.max() + 1)[row] * length
    column = np.floor((x + shift) / length).astype(int)
    shade = rng.random((row.max() + 1, column.max() + 1))[row, column]
    shape = shade.shape
    grain = _noise(rng, shape, (2.5, 70)) + 0.5 * _noise(rng, shape, (6, 160))
    hue, saturation, value = WOODS[rng.integers(len(WOODS))]
    rgb = _colour(hue, saturation, value) * (0.62 + 0.38 * shade + 0.3 * (grain - 0.75))[..., None]
    joint = (np.mod(y, board) < 0.006) | (np.mod(x + shift, length) < 0.006)
    return _finished(np.where(joint[..., None], 0.35 * rgb, rgb))


def tiles(rng: Generator, width: float, height: float) -> Picture:
    """Square tiles with veins, in two colours as a chequerboard."""
    x, y = _grid(width, height)
    side = rng.uniform(0.2, 0.45)
    row, column = np.floor(y / side).astype(int), np.floor(x / side).astype(int)
    hue, value = rng.random(), rng.uniform(0.7, 0.9)
    other = _colour(hue + 0.05, rng.uniform(0.1, 0.5), value * rng.uniform(0.5, 0.9))
    colours = np.stack([_colour(hue, rng.uniform(0.05, 0.3), value), other])
    shade = rng.uniform(0.88, 1.05, (row.max() + 1, column.max() + 1))[row, column]
    rgb = colours[(row + column) % 2] * (shade * (1 + 0.25 * _rough(rng, shade.shape)))[..., None]
    grout = (np.mod(y, side) < 0.01) | (np.mod(x, side) < 0.01)
    return _finished(np.where(grout[..., None], 0.45, rgb))


def carpet(rng: Generator, width: float, height: float) -> Picture:
    """Woven floor with a small repeating motif."""
    x, y = _grid(width, height)
    step, hue = rng.uniform(0.18, 0.35), rng.random()
    motif = np.cos(2 * np.pi * x / step) * np.cos(2 * np.pi * y / step)
    mixing = np.clip(0.5 + 2.5 * (motif - 0.2), 0, 1)[..., None]
    rgb = (1 - mixing) * _colour(hue, 0.3, 0.55) + mixing * _colour(hue + 0.08, 0.22, 0.75)
    return _finished(rgb * (1 + 0.35 * _rough(rng, mixing.shape[:2]))[..., None])


def stripes(rng: Generator, width: float, height: float) -> Picture:
    """Wallpaper with upright stripes and thin lines between them."""
    x, y = _grid(width, height)
    step, hue = rng.uniform(0.12, 0.3), rng.random()
    phase = np.mod(x / step, 1) + 0 * y
    rgb = np.where((phase < 0.5)[..., None], _colour(hue, 0.12, 0.88), _colour(hue, 0.28, 0.78))
    rgb = np.where((np.abs(phase - 0.25) < 0.03)[..., None], _colour(hue + 0.5, 0.35, 0.6), rgb)
    return _finished(rgb * (1 + 0.12 * _rough(rng, phase.shape))[..., None])


def diamonds(rng: Generator, width: float, height: float) -> Picture:
    """Wallpaper with a lattice of diamonds and dots."""
    x, y = _grid(width, height)
    step, hue = rng.uniform(0.18, 0.32), rng.random()
    a, b = np.mod((x + y) / step, 1) - 0.5, np.mod((x - y) / step, 1) - 0.5
    line, dot = np.minimum(np.abs(a), np.abs(b)) < 0.06, a * a + b * b > 0.36
    rgb = np.where(line[..., None], _colour(hue + 0.1, 0.4, 0.62), _colour(hue, 0.15, 0.87))
    rgb = np.where(dot[..., None], _colour(hue + 0.45, 0.45, 0.65), rgb)
    return _finished(rgb * (1 + 0.12 * _rough(rng, line.shape))[..., None])


def plaster(rng: Generator, width: float, height: float) -> Picture:
    """Rough paint with patches and specks."""
    x, y = _grid(width, height)
    paint = _colour(rng.random(), rng.uniform(0.08, 0.3), 0.84)
    rough = _rough(rng, (y.size, x.size))
    specks = _noise(rng, rough.shape, (2, 2)) > 0.93
    rgb = paint * (1 + 0.28 * rough)[..., None]
    return _finished(np.where(specks[..., None], 0.75 * rgb, rgb))


def bricks(rng: Generator, width: float, height: float) -> Picture:
    """A wall of bricks, each with its own shade."""
    x, y = _grid(width, height)
    base = _colour(rng.uniform(0.0, 0.08), rng.uniform(0.25, 0.55), rng.uniform(0.6, 0.85))
    row = np.floor(y / 0.085).astype(int)
    shifted = x + 0.13 * (row % 2)
    column = np.floor(shifted / 0.26).astype(int)
    shade = rng.uniform(0.7, 1.1, (row.max() + 1, column.max() + 1))[row, column]
    rgb = base * (shade * (1 + 0.3 * _rough(rng, shade.shape)))[..., None]
    mortar = (np.mod(y, 0.085) < 0.012) | (np.mod(shifted, 0.26) < 0.012)
    return _finished(np.where(mortar[..., None], 0.72, rgb))


def ceiling(rng: Generator, width: float, height: float) -> Picture:
    """White panels with thin joints and a faint stain here and there."""
    x, y = _grid(width, height)
    side = rng.uniform(0.5, 0.7)
    joint = (np.mod(x, side) < 0.018) | (np.mod(y, side) < 0.018)
    rgb = np.array([0.93, 0.92, 0.9]) * (1 + 0.07 * _rough(rng, joint.shape))[..., None]
    return _finished(np.where(joint[..., None], 0.7 * rgb, rgb))


def rug(rng: Generator, width: float, height: float) -> Picture:
    """A woven rug: borders around a field of diamonds."""
    x, y = _grid(width, height)
    edge = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y))
    hue, step = rng.random(), rng.uniform(0.15, 0.25)
    palette = np.stack([_colour(hue + rng.uniform(-0.06, 0.12), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.85)) for _ in range(6)])
    rings = np.floor((np.abs(np.mod(x / step, 1) - 0.5) + np.abs(np.mod(y / step, 1) - 0.5)) * 4).astype(int) % 4
    border = np.floor(edge / 0.05).astype(int)
    zigzag = (np.mod((x + y) / 0.06, 1) < 0.5).astype(int)
    rgb = palette[np.where(border < 5, (border + zigzag * (border == 2)) % 6, rings)]
    return _finished(rgb * (1 + 0.3 * _rough(rng, edge.shape))[..., None])


def _canvas(rng: Generator, width: float, height: float) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A smooth gradient between two colours to draw on."""
    x, y = _grid(width, height)
    first, last = _colour(rng.random(), 0.35, 0.85), _colour(rng.random(), 0.5, 0.6)
    slope = (np.broadcast_to(y / height, (y.size, x.size)))[..., None]
    image = Image.fromarray(_finished((1 - slope) * first + slope * last)).convert("RGB")
    return image, ImageDraw.Draw(image)


def _ink(rng: Generator) -> tuple[int, int, int]:
    red, green, blue = (_colour(rng.random(), rng.uniform(0.4, 0.9), rng.uniform(0.25, 0.95)) * 255).astype(int)
    return int(red), int(green), int(blue)


def painting(rng: Generator, width: float, height: float) -> Picture:
    """An abstract picture in a dark frame: discs, bars and triangles."""
    image, draw = _canvas(rng, width, height)
    for kind in rng.integers(3, size=14):
        x, y = rng.uniform(0, image.width), rng.uniform(0, image.height)
        reach = rng.uniform(0.06, 0.22) * max(image.size)
        if kind == 0:
            draw.ellipse([x - reach, y - reach, x + reach, y + reach], fill=_ink(rng))
        elif kind == 1:
            draw.rectangle([x - reach, y - reach / 4, x + reach, y + reach / 4], fill=_ink(rng))
        else:
            draw.polygon([tuple(np.array([x, y]) + rng.uniform(-reach, reach, 2)) for _ in range(3)], fill=_ink(rng))
    return _framed(image, rng, 0.035)


def window(rng: Generator, width: float, height: float) -> Picture:
    """A window with a cross, and a painted view of sky, hills and trees."""
    x, y = _grid(width, height)
    sky = np.array([0.62, 0.8, 0.97]) + 0.3 * (y / height)[..., None] * np.array([1, 0.6, 0.1])
    rgb = sky + 0.25 * np.clip(_rough(rng, (y.size, x.size)), 0, 1)[..., None]
    hills = height * (0.62 + 0.1 * np.sin(x / width * rng.uniform(4, 8) + rng.random() * 6))
    land = np.array([0.3, 0.52, 0.24]) * (1 + 0.6 * _rough(rng, (y.size, x.size)))[..., None]
    image = Image.fromarray(_finished(np.where((y > hills)[..., None], land, rgb))).convert("RGB")
    draw, bar = ImageDraw.Draw(image), max(round(0.02 * PIXELS), 1)
    middle, level = image.width // 2, image.height // 3
    draw.rectangle([middle - bar, 0, middle + bar, image.height], fill=(240, 238, 232))
    draw.rectangle([0, level - bar, image.width, level + bar], fill=(240, 238, 232))
    return _framed(image, None, 0.06)


def door(rng: Generator, width: float, height: float) -> Picture:
    """A wooden door with four panels and a knob."""
    image = Image.fromarray(np.rot90(planks(rng, height, width)).copy()).convert("RGB")
    draw, dark = ImageDraw.Draw(image), tuple(int(value) // 2 for value in np.asarray(image).reshape(-1, 3).mean(0))
    for left, top in ((0.14, 0.07), (0.55, 0.07), (0.14, 0.55), (0.55, 0.55)):
        corners = [left * image.width, top * image.height, (left + 0.31) * image.width, (top + 0.38) * image.height]
        draw.rectangle(corners, outline=dark, width=max(image.width // 30, 1))
    x, y, knob = image.width * 0.92, image.height * 0.5, image.width // 24
    draw.ellipse([x - knob, y - knob, x + knob, y + knob], fill=(200, 180, 90))
    return _framed(image, None, 0.05)


def _framed(image: Image.Image, rng: Generator | None, edge: float) -> Picture:
    """The picture with a frame of `edge` metres drawn over its rim: white, or of a random dark colour."""
    colour = (242, 240, 234) if rng is None else tuple(channel // 3 for channel in _ink(rng))
    ImageDraw.Draw(image).rectangle([0, 0, image.width - 1, image.height - 1], outline=colour, width=max(round(edge * PIXELS), 1))
    return np.asarray(image.convert("RGBA"))


FLOORS: tuple[Pattern, ...] = (planks, planks, tiles, carpet)
WALLS: tuple[Pattern, ...] = (stripes, diamonds, plaster, bricks, stripes, diamonds)
