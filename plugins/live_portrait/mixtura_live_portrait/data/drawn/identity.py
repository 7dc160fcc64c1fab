"""Who somebody is: shapes, colours and belongings of a head, drawn from a seed. Lengths are in head units.

`draw_identity(seed, number)` gives the same person everywhere; other numbers of one seed are other people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mixtura.rng import KeyedRng

Colour = tuple[float, float, float]
"""Red, green, blue, 0 to 1."""

SKINS: tuple[Colour, ...] = (
    (0.97, 0.85, 0.77), (0.94, 0.78, 0.67), (0.89, 0.71, 0.57), (0.82, 0.61, 0.45),
    (0.70, 0.49, 0.34), (0.56, 0.38, 0.26), (0.43, 0.29, 0.20), (0.32, 0.21, 0.16),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (0.08, 0.07, 0.07), (0.16, 0.11, 0.08), (0.28, 0.18, 0.11), (0.42, 0.26, 0.14), (0.50, 0.22, 0.10),
    (0.72, 0.54, 0.28), (0.85, 0.72, 0.45), (0.55, 0.54, 0.53), (0.86, 0.85, 0.83),
)  # fmt: skip
IRISES: tuple[Colour, ...] = (
    (0.20, 0.11, 0.06), (0.36, 0.22, 0.11), (0.30, 0.45, 0.65), (0.32, 0.48, 0.32), (0.45, 0.50, 0.54), (0.50, 0.38, 0.18),
)  # fmt: skip
CUTS = ("bald", "cropped", "fringe", "parted", "bob", "long", "round", "receding")


class HeadShape(NamedTuple):
    """The head without hair: an ellipsoid whose lower half is widened or narrowed towards the chin.

    Half width at the eyes, height of the crown over the eyes, depth of the chin below them, half depth; at the height y = h*chin
    the half width is that of the ellipsoid times 1 + h²(jaw - point h²).
    """

    width: float
    crown: float
    chin: float
    depth: float
    jaw: float
    point: float


class EyeShape(NamedTuple):
    """Distance of an eye's centre from the middle, half width, tilt of the outer corner up (radians), usual opening ratio."""

    distance: float
    width: float
    tilt: float
    opening: float
    iris: float
    """Radius of the iris over the eye's half width."""
    lashes: float
    """Thickness of the lash line over the eye's half width."""
    shadow: float
    """How dark the lid is, 0 to 1."""


class BrowShape(NamedTuple):
    """Height over the eyes, half thickness, arch, tilt, half length over the eye's half width."""

    height: float
    thickness: float
    arch: float
    tilt: float
    length: float


class NoseShape(NamedTuple):
    """Half width of the ridge, of the ball at the tip, height of the tip below the eyes, how far it stands out."""

    ridge: float
    ball: float
    length: float
    height: float


class MouthShape(NamedTuple):
    """Height below the eyes, half width, thickness of upper and lower lip over the half width, depth of Cupid's bow."""

    height: float
    width: float
    upper: float
    lower: float
    bow: float


@dataclass(frozen=True)
class Identity:
    """One person.

    `cut` is one of CUTS, `line` the height of the hairline over the eyes, `volume` how thick hair is, `side` (±1) where it is
    parted. `blush`, `beard`, `moustache`, `freckles` are 0 to 1; `glasses` are none, round or square. `neck` and `shoulders` are
    half widths.
    """

    number: int
    head: HeadShape
    eyes: EyeShape
    brows: BrowShape
    nose: NoseShape
    mouth: MouthShape
    skin: Colour
    blush: float
    lip: Colour
    iris: Colour
    hair: Colour
    cut: str
    line: float
    volume: float
    side: float
    beard: float
    moustache: float
    glasses: str
    frames: Colour
    freckles: float
    cloth: Colour
    trim: Colour
    pattern: str
    neck: float
    shoulders: float


def draw_identity(seed: int, number: int) -> Identity:
    """Person `number` of the crowd `seed`."""
    rng = KeyedRng("mixtura drawn face", seed, number).numpy()
    hair = _varied(rng, HAIRS[rng.integers(len(HAIRS))], 0.03)
    skin = _mixed(rng, SKINS)
    width = rng.uniform(0.66, 0.80)
    brows, bearded = rng.uniform(0.024, 0.052), rng.random() < 0.28
    return Identity(
        number=number,
        head=HeadShape(width, rng.uniform(0.92, 1.06), rng.uniform(0.92, 1.08), rng.uniform(0.74, 0.88), *_jaw(rng)),
        eyes=_eyes(rng, width),
        brows=BrowShape(rng.uniform(0.21, 0.29), brows, rng.uniform(0.0, 0.09), rng.uniform(-0.22, 0.22), rng.uniform(0.95, 1.3)),
        nose=NoseShape(rng.uniform(0.06, 0.10), rng.uniform(0.09, 0.15), rng.uniform(0.30, 0.40), rng.uniform(0.09, 0.19)),
        mouth=MouthShape(
            rng.uniform(0.56, 0.64),
            rng.uniform(0.22, 0.33),
            rng.uniform(0.16, 0.34),
            rng.uniform(0.22, 0.42),
            rng.uniform(0, 0.3),
        ),
        skin=skin,
        blush=rng.uniform(0.0, 0.5),
        lip=_lip(rng, skin),
        iris=_varied(rng, IRISES[rng.integers(len(IRISES))], 0.04),
        hair=hair if rng.random() > 0.06 else (rng.uniform(), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.9)),
        cut=CUTS[rng.choice(len(CUTS), p=(0.07, 0.16, 0.16, 0.17, 0.13, 0.15, 0.09, 0.07))],
        line=rng.uniform(0.50, 0.66),
        volume=rng.uniform(0.05, 0.14),
        side=rng.choice((-1.0, 1.0)),
        beard=rng.uniform(0.35, 1.0) if bearded else 0.0,
        moustache=rng.uniform(0.4, 1.0) if bearded or rng.random() < 0.06 else 0.0,
        glasses=str(rng.choice(("none", "round", "square"), p=(0.74, 0.13, 0.13))),
        frames=_varied(
            rng, ((0.08, 0.08, 0.09), (0.45, 0.25, 0.12), (0.65, 0.12, 0.15), (0.75, 0.68, 0.5))[rng.integers(4)], 0.03
        ),
        freckles=rng.uniform(0.3, 0.8) if rng.random() < 0.15 else 0.0,
        cloth=_vivid(rng),
        trim=_vivid(rng),
        pattern=str(rng.choice(("plain", "stripes", "bands", "collar"), p=(0.4, 0.2, 0.2, 0.2))),
        neck=rng.uniform(0.34, 0.46),
        shoulders=rng.uniform(1.15, 1.55),
    )


def _jaw(rng: np.random.Generator) -> tuple[float, float]:
    """Round, square, pointed or heavy jaws, and what is between them."""
    jaw, point = ((0.0, 0.05), (0.32, 0.36), (-0.12, 0.16), (0.12, 0.08))[rng.integers(4)]
    return jaw + rng.uniform(-0.06, 0.06), point + rng.uniform(-0.05, 0.05)


def _eyes(rng: np.random.Generator, width: float) -> EyeShape:
    half = rng.uniform(0.165, 0.215)
    distance = width * rng.uniform(0.42, 0.5)
    return EyeShape(
        distance=max(distance, half + 0.06),
        width=half,
        tilt=rng.uniform(-0.10, 0.16),
        opening=rng.uniform(0.32, 0.52),
        iris=rng.uniform(0.40, 0.52),
        lashes=rng.uniform(0.08, 0.2),
        shadow=rng.uniform(0.05, 0.4),
    )


def _mixed(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Colour:
    """A colour between two neighbours of a palette."""
    at = rng.uniform(0, len(palette) - 1.001)
    low, part = int(at), at - int(at)
    mixed = (1 - part) * np.array(palette[low]) + part * np.array(palette[low + 1])
    return _varied(rng, (float(mixed[0]), float(mixed[1]), float(mixed[2])), 0.02)


def _varied(rng: np.random.Generator, colour: Colour, by: float) -> Colour:
    red, green, blue = np.clip(np.array(colour) + rng.uniform(-by, by, 3), 0, 1).tolist()
    return red, green, blue


def _lip(rng: np.random.Generator, skin: Colour) -> Colour:
    """The skin, redder and darker; sometimes painted."""
    base, red = np.array(skin), np.array((0.72, 0.22, 0.25))
    share = rng.uniform(0.75, 1.0) if rng.random() < 0.25 else rng.uniform(0.35, 0.6)
    mixed = ((1 - share) * base * (0.88, 0.7, 0.7) + share * red * (0.55 + 0.5 * base.mean())).tolist()
    return mixed[0], mixed[1], mixed[2]


def _vivid(rng: np.random.Generator) -> Colour:
    """Any colour, muted or strong."""
    grey, strength = rng.uniform(0.12, 0.85), rng.uniform(0.05, 0.45)
    red, green, blue = np.clip(grey + strength * rng.uniform(-1, 1, 3), 0.03, 0.97).tolist()
    return red, green, blue
