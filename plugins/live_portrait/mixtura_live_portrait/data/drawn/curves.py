"""Eyes, brows and mouth as curves in the frontal plane of the head: what the painter fills and the landmarks lie on."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtura_live_portrait.data.drawn.identity import HeadShape, Identity
from mixtura_live_portrait.data.drawn.state import Expression

INNER = 0.92
"""Where the inner lips meet, over the mouth's half width."""
LIDS = (0.70, 0.30)
"""Shares of the upper and of the lower lid in an eye's opening."""
LIPS = (0.28, 0.72)


class EyeNow(NamedTuple):
    """An eye: centre, half width, angle (cosine, sine), opening ratio, centre of the iris in the eye's own (u, v)."""

    x: float
    y: float
    half: float
    cosine: float
    sine: float
    opening: float
    iris: tuple[float, float]

    def rest(self) -> float:
        """How far below the corners the lids meet, in half widths; wide eyes meet there, too."""
        return 0.10

    def lid(self, u: NDArray[np.floating], is_upper: bool) -> NDArray[np.floating]:
        """Height v of a lid at u, both in half widths; 0 at the corners u = ±1."""
        share = -2 * LIDS[0] if is_upper else 2 * LIDS[1]
        return bulge(u) * (self.rest() + share * self.opening)

    def flat(self, u: NDArray[np.floating], v: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points of the eye's plane as (N, 2) of the head's frontal plane."""
        x = self.x + self.half * (u * self.cosine - v * self.sine)
        return np.stack([x, self.y + self.half * (u * self.sine + v * self.cosine)], -1)

    def local(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """The inverse of `flat`."""
        right, down = (x - self.x) / self.half, (y - self.y) / self.half
        return right * self.cosine + down * self.sine, down * self.cosine - right * self.sine


class MouthNow(NamedTuple):
    """A mouth: height of its middle line, half width, lift of the corners, opening, thickness of the lips, Cupid's bow."""

    y: float
    half: float
    lift: float
    opening: float
    upper: float
    lower: float
    bow: float

    def line(self, u: NDArray[np.floating]) -> NDArray[np.floating]:
        """Where the lips touch when they are closed. `u` is over the half width, results are head units."""
        return self.y + self.lift * u * u

    def inner(self, u: NDArray[np.floating], is_upper: bool) -> NDArray[np.floating]:
        """The edge of a lip towards the opening."""
        share = -LIPS[0] if is_upper else LIPS[1]
        return self.line(u) + share * self.opening * bulge(u / INNER)

    def outer(self, u: NDArray[np.floating], is_upper: bool) -> NDArray[np.floating]:
        """The edge of a lip towards the skin."""
        if is_upper:
            thick = self.upper * bulge(u) * (1 - self.bow * np.exp(-((u / 0.2) ** 2)))
            return self.line(u) - LIPS[0] * self.opening * bulge(u) - thick
        return self.line(u) + (LIPS[1] * self.opening + self.lower) * bulge(u)


class BrowNow(NamedTuple):
    """A brow: centre, half length, arch, rise towards the outside, half thickness; `side` is -1 left, 1 right."""

    x: float
    y: float
    half: float
    arch: float
    tilt: float
    thickness: float
    side: int

    def edges(self, u: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Upper and lower edge at u, -1 to 1 from left to right."""
        out = self.side * u
        middle = self.y - self.arch * (1 - (out - 0.2) ** 2) - self.tilt * self.half * out
        thick = self.thickness * (1 - 0.45 * np.maximum(out, 0)) * np.sqrt(np.maximum(1 - (u * u) ** 2, 0))
        return middle - thick, middle + thick


def bulge(u: NDArray[np.floating]) -> NDArray[np.floating]:
    """1 in the middle, 0 at ±1 and beyond: between a parabola and a half ellipse."""
    rest = np.maximum(1 - u * u, 0)
    return 0.5 * (rest + np.sqrt(rest))


def eye_now(who: Identity, doing: Expression, side: int) -> EyeNow:
    """The left (-1) or right (1) eye."""
    eyes = who.eyes
    angle = -side * eyes.tilt
    opening = doing.eye_left if side < 0 else doing.eye_right
    iris = (0.42 * doing.gaze_x, -0.10 + 0.26 * doing.gaze_y)
    return EyeNow(side * eyes.distance, 0.0, eyes.width, math.cos(angle), math.sin(angle), opening, iris)


def brow_now(who: Identity, doing: Expression, side: int) -> BrowNow:
    """The left (-1) or right (1) brow; raising it lifts its inner end most."""
    brows, raised = who.brows, doing.brow
    return BrowNow(
        x=side * (who.eyes.distance + 0.02),
        y=-brows.height - 0.085 * raised,
        half=brows.length * who.eyes.width,
        arch=brows.arch + 0.02 * raised,
        tilt=brows.tilt - 0.16 * raised,
        thickness=brows.thickness,
        side=side,
    )


def mouth_now(who: Identity, doing: Expression) -> MouthNow:
    """The mouth."""
    mouth = who.mouth
    half = mouth.width * (1 + 0.18 * doing.width + 0.16 * doing.smile - 0.38 * doing.pucker)
    full = mouth.width * (1 - 0.18 * doing.smile + 0.25 * doing.pucker - 0.12 * doing.width)
    return MouthNow(
        y=mouth.height + 0.02 * doing.smile + 0.03 * doing.jaw,
        half=half,
        lift=-0.02 - 0.13 * doing.smile,
        opening=doing.lips * 2 * half,
        upper=mouth.upper * full,
        lower=mouth.lower * full,
        bow=mouth.bow,
    )


def head_now(who: Identity, doing: Expression) -> HeadShape:
    """The head with its chin lowered by the jaw and by what open lips need."""
    dropped = 0.14 * doing.jaw + 0.8 * LIPS[1] * mouth_now(who, doing).opening
    return who.head._replace(chin=who.head.chin + dropped)
