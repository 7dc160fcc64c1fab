"""From head coordinates to the picture and back, and the surface of the head.

A point X of the head (row vector) is seen at P = scale·X R + (x, y, 0), the published keypoint equation, through a pinhole camera
`CAMERA` half-widths in front of the picture's plane. R = (Rz Ry Rx)ᵀ.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtura_live_portrait.data.drawn.identity import HeadShape, NoseShape
from mixtura_live_portrait.data.drawn.state import Pose

Doubles = NDArray[np.float64]

CAMERA = 6.0
"""Distance of the camera from the picture's plane, in half-widths of the picture."""


def rotation(pitch: float, yaw: float, roll: float) -> Doubles:
    """Rotation (3, 3) for row vectors from degrees."""
    (cp, sp), (cy, sy), (cr, sr) = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (pitch, yaw, roll)]
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1.0]])
    return np.asarray((about_z @ about_y @ about_x).T)


def inverse(matrix: Doubles) -> Doubles:
    """The inverse of a (3, 3) matrix; several times quicker than the general routine, which drawing calls 20 times a frame."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    p, q, r = e * i - f * h, f * g - d * i, d * h - e * g
    adjugate = np.array(((p, c * h - b * i, b * f - c * e), (q, a * i - c * g, c * d - a * f), (r, b * g - a * h, a * e - b * d)))
    return np.asarray(adjugate / (a * p + b * q + c * r))


class Frame(NamedTuple):
    """An affine map from the world of the camera to coordinates of a thing: X = P @ linear + offset."""

    linear: Doubles
    offset: Doubles

    def within(self, centre: tuple[float, float, float], axes: Doubles) -> Frame:
        """Coordinates in which the ellipsoid at `centre`, with half axes as rows of `axes` (3, 3), is the unit ball."""
        inverted = inverse(axes)
        return Frame(self.linear @ inverted, (self.offset - np.array(centre)) @ inverted)


WORLD = Frame(np.eye(3), np.zeros(3))


class View(NamedTuple):
    """How a head stands before the camera: rotation (3, 3) for row vectors, shift (3,), scale."""

    rotation: Doubles
    shift: Doubles
    scale: float

    @staticmethod
    def of(pose: Pose) -> View:
        """The view of a pose."""
        return View(rotation(pose.pitch, pose.yaw, pose.roll), np.array([pose.x, pose.y, 0.0]), pose.scale)

    def place(self, points: Doubles) -> Doubles:
        """Head points (N, 3) in the world of the camera."""
        return self.scale * points @ self.rotation + self.shift

    def project(self, points: Doubles) -> Doubles:
        """Head points (N, 3) in the picture (N, 2), -1 to 1 from edge to edge."""
        return seen(self.place(points))

    def frame(self) -> Frame:
        """Head coordinates of the world."""
        linear = self.rotation.T / self.scale
        return Frame(linear, -self.shift @ linear)


def seen(points: Doubles) -> Doubles:
    """World points (N, 3) in the picture (N, 2)."""
    return points[:, :2] * (CAMERA / (CAMERA + points[:, 2:]))


def taper(shape: HeadShape, height: Doubles) -> Doubles:
    """Factor on the half width at a height over the chin's depth (0 at the eyes and above, 1 at the chin)."""
    squared = np.minimum(np.maximum(height, 0), 1) ** 2
    return 1 + squared * (shape.jaw - shape.point * squared)


def front(shape: HeadShape, x: Doubles, y: Doubles) -> Doubles:
    """Depth z of the head's front surface; 0 beyond its outline."""
    below = y / shape.chin
    across = x / (shape.width * taper(shape, below))
    height = np.where(y < 0, y / shape.crown, below)
    return -shape.depth * np.sqrt(np.maximum(1 - across * across - height * height, 0))


def front_at(shape: HeadShape, x: float, y: float) -> float:
    """`front` of one point."""
    height = max(y, 0.0) / shape.chin
    squared = min(height, 1.0) ** 2
    across = x / (shape.width * (1 + squared * (shape.jaw - shape.point * squared)))
    return -shape.depth * math.sqrt(max(0.0, 1 - across**2 - (height if y > 0 else y / shape.crown) ** 2))


def on_front(shape: HeadShape, flat: Doubles) -> Doubles:
    """Points (N, 2) of the frontal plane on the head (N, 3)."""
    return np.concatenate([flat, front(shape, flat[:, 0], flat[:, 1])[:, None]], 1)


class Ellipsoid(NamedTuple):
    """Centre, and half axes as rows (3, 3), in head coordinates."""

    centre: tuple[float, float, float]
    axes: Doubles

    def front(self, x: Doubles, y: Doubles) -> Doubles:
        """Depth z of the surface that faces the camera of an unturned head; +inf beside the ellipsoid."""
        right, down, along = inverse(self.axes)
        start = x[:, None] * right + (y[:, None] * down - np.array(self.centre) @ (right, down, along))
        a, b, c = along @ along, start @ along, (start * start).sum(1) - 1
        inside = b * b - a * c
        return np.where(inside >= 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)


def nose(shape: HeadShape, nose: NoseShape) -> tuple[Ellipsoid, Ellipsoid]:
    """Ridge and ball of the nose. The ridge leans forward towards its tip."""
    tip_z, root_z = front_at(shape, 0, nose.length) - nose.height, front_at(shape, 0, -0.03) + 0.02
    half = (nose.length + 0.03) / 2, (tip_z + 0.5 * nose.ball - root_z) / 2
    thick = 1.3 * nose.ridge / math.hypot(*half)
    axes = np.array(((nose.ridge, 0, 0), (0, 1.12 * half[0], 1.12 * half[1]), (0, -thick * half[1], thick * half[0])))
    ridge = Ellipsoid((0.0, half[0] - 0.03, root_z + half[1]), axes)
    ball = Ellipsoid((0.0, nose.length, tip_z + 0.55 * nose.ball), np.diag([nose.ball, 0.72 * nose.ball, 0.8 * nose.ball]))
    return ridge, ball
