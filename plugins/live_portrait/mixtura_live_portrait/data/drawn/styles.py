"""Styles that drawn clips don't have: the same heads inked, hatched, printed in few colours, or drawn in pencil.

`painted(who, rng)` gives a person colours that no skin has and larger eyes; `finish` works on the drawn picture. Neither moves a
landmark: points of a painted person are as exact as others.
"""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np

from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.drawn.identity import Colour, Identity
from mixtura_live_portrait.data.drawn.rays import Canvas, unit
from mixtura_live_portrait.data.drawn.state import Array

HANDS = ("ink", "hatch", "poster", "pencil")
TONES = 3
"""Flat tones of light in painted pictures."""
GREY = np.array((0.30, 0.59, 0.11), np.float32)


def painted(who: Identity, rng: KeyedRng) -> Identity:
    """The same person with large eyes and colours of a comic."""
    draw = rng.at("painted").numpy()
    hue = float(draw.random())
    skin = _of(hue, draw.uniform(0.15, 0.6), draw.uniform(0.65, 1.0)) if draw.random() < 0.6 else who.skin
    eyes = who.eyes._replace(width=min(who.eyes.width * draw.uniform(1.05, 1.25), who.eyes.distance - 0.03))
    return replace(
        who,
        eyes=eyes,
        skin=skin,
        lip=_of(hue + draw.uniform(-0.1, 0.1), 0.8, 0.6 * max(skin)),
        hair=_of(float(draw.random()), draw.uniform(0.3, 0.9), draw.uniform(0.2, 0.95)),
        iris=_of(float(draw.random()), 0.8, 0.8),
        cloth=_of(float(draw.random()), 0.8, 0.8),
        freckles=0.0,
    )


def _of(hue: float, saturation: float, value: float) -> Colour:
    return colorsys.hsv_to_rgb(hue % 1, float(saturation), float(value))


def finish(canvas: Canvas, rng: KeyedRng) -> None:
    """Go over a drawn picture by hand; all frames of a clip by the same one."""
    draw = rng.at("hand").numpy()
    hand, image = HANDS[draw.integers(len(HANDS))], canvas.image
    np.minimum(image, 1, out=image)
    grey = np.tensordot(GREY, image, 1)
    lines = _outlines(grey, 1.0 if hand == "ink" else 0.7)
    ink = np.array(_of(float(draw.random()), 0.6, 0.22), np.float32)[:, None, None]
    paper = np.array(_of(0.08 + 0.1 * float(draw.random()), draw.uniform(0.02, 0.2), 0.97), np.float32)[:, None, None]
    grain = draw.standard_normal((canvas.size, canvas.size), np.float32)
    if hand == "ink":
        image[:] = _steps(image, 5)
    elif hand == "hatch":
        angle = draw.uniform(0, np.pi)
        fine = min(75.0, 1.2 / canvas.pixel)  # at least five pixels from line to line
        wave = np.sin(canvas.x * np.float32(fine * np.cos(angle)) + canvas.y * np.float32(fine * np.sin(angle)))
        image *= 1 - np.float32(0.4) * unit((wave + 1 - 2 * grey) * 2)
    elif hand == "poster":
        tones = _steps(grey, 4)
        image[:] = 0.45 * image + 0.55 * (ink + tones * (paper - ink))
    else:
        tones = unit(grey * 1.25 + 0.02 * grain)
        image[:] = ink + tones * (paper - ink)
    image += lines * (ink - image)
    image += np.float32(0.006) * grain


def _outlines(grey: Array, strength: float) -> Array:
    """0 to 1 where brightness changes at once."""
    slope = np.zeros_like(grey)
    slope[:, 1:] = np.abs(grey[:, 1:] - grey[:, :-1])
    slope[1:] += np.abs(grey[1:] - grey[:-1])
    return unit(slope * np.float32(3 * strength) - np.float32(0.25 * strength))


def _steps(values: Array, count: int) -> Array:
    return np.asarray(np.round(values * count) / np.float32(count), np.float32)
