"""Where cameras stand: on a sphere around an object, on a ring inside a room.

All give OpenCV `viewmat`s float64 [V, 4, 4] (world to camera). The split `held_out` lies between the places of `train`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .mesh import Array
from .render import Renderer

SPLITS = ("train", "held_out")
ELEVATIONS = (-10.0, 70.0)
CLEARANCE = 0.35  # metres around a camera that stay empty
OUTLOOK = 1.1  # metres; half of what a camera sees is farther away
PROBES = 512
TRIES = 60
GOLDEN = np.pi * (3 - np.sqrt(5))


def looking_at(eye: ArrayLike, target: ArrayLike) -> Array:
    """The viewmat [4, 4] of a camera at `eye` [3] that looks at `target` [3], z of the world up in the picture.

    Raises ValueError when both coincide or the camera would look straight up or down.
    """
    position = np.asarray(eye, np.float64)
    forward = np.asarray(target, np.float64) - position
    right = np.cross(forward, [0.0, 0, 1])
    if np.linalg.norm(right) < 1e-9:
        raise ValueError(f"a camera at {position} cannot look at {np.asarray(target)}: straight up, straight down or nowhere")
    forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
    viewmat = np.eye(4)
    viewmat[:3, :3] = [right, np.cross(forward, right), forward]
    viewmat[:3, 3] = -viewmat[:3, :3] @ position
    return viewmat


def intrinsics(field_of_view: float, size: int) -> Array:
    """K [3, 3] in pixels of a square picture, `field_of_view` in degrees."""
    focal = size / 2 / np.tan(np.radians(field_of_view) / 2)
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def phase(split: str) -> float:
    """How far a split's places are shifted, in steps from one place to the next."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: take one of {', '.join(SPLITS)}")
    return SPLITS.index(split) / 2


def on_sphere(renderer: Renderer, count: int, split: str, distance: float) -> Array:
    """Cameras on a Fibonacci spiral around the origin, elevation -10 to 70 degrees, all looking at the origin."""
    index = np.arange(count) + 0.5
    low, high = np.sin(np.radians(ELEVATIONS))
    z = high + (low - high) * index / max(count, 1)
    azimuth = GOLDEN * (index + phase(split)) + np.pi * phase(split)
    level = np.sqrt(1 - z * z)
    eyes = distance * np.stack([level * np.cos(azimuth), level * np.sin(azimuth), z], 1)
    return np.stack([looking_at(eye, np.zeros(3)) for eye in eyes]) if count else np.zeros((0, 4, 4))


def on_rings(renderer: Renderer, count: int, split: str, distance: float, seed: int = 0) -> Array:
    """Cameras on two level rings around the origin: two thirds at an elevation of 5 to 30 degrees, a third at -5 to 5.

    The pattern of G-Objaverse, 24 and 12 views there; `count` must be a multiple of 3, `seed` picks elevations and the start.
    """
    if count % 3:
        raise ValueError(f"{count} views on two rings: the number must be a multiple of 3")
    rng = np.random.default_rng([seed, 5])
    start, upper, lower = rng.uniform(0, 2 * np.pi), rng.uniform(5, 30), rng.uniform(-5, 5)
    eyes = []
    for number, elevation in ((count // 3 * 2, upper), (count // 3, lower)):
        azimuth = start + 2 * np.pi * (np.arange(number) + phase(split)) / max(number, 1)
        level, z = np.cos(np.radians(elevation)), np.sin(np.radians(elevation))
        eyes.append(distance * np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.full(number, z)], 1))
    views = [looking_at(eye, np.zeros(3)) for eye in np.concatenate(eyes)]
    return np.stack(views) if views else np.zeros((0, 4, 4))


def in_room(renderer: Renderer, count: int, split: str, size: tuple[float, float], seed: int, field_of_view: float) -> Array:
    """Cameras at eye height on a ring in a room of `size` [2] metres around the origin, looking across it.

    A place is only taken when nothing is within 35 cm and half of the view is farther away than 1.1 m; if none such is found near
    a place on the ring, the one with the best outlook is taken.
    """
    views = []
    for number in range(count):
        turn = 2 * np.pi * (number + phase(split)) / count
        tried: list[tuple[float, Array]] = []
        for attempt in range(TRIES):
            rng = np.random.default_rng([seed, 2, SPLITS.index(split), number, attempt])
            view = _in_room(rng, turn, np.array(size))
            clear, outlook = _clearance(renderer, view), _outlook(renderer, view, field_of_view)
            tried.append((min(clear / CLEARANCE, 1) + min(outlook / OUTLOOK, 1), view))
            if tried[-1][0] >= 2:
                break
        views.append(max(tried, key=lambda pair: pair[0])[1])
    return np.stack(views) if views else np.zeros((0, 4, 4))


def _in_room(rng: np.random.Generator, turn: float, size: Array) -> Array:
    reach = rng.uniform(0.3, 0.8)
    angle = turn + rng.uniform(-0.25, 0.25)
    x, y = reach * size / 2 * [np.cos(angle), np.sin(angle)]
    ahead = angle + np.pi + rng.uniform(-0.6, 0.6)
    pitch = np.radians(rng.uniform(-30, -8))
    eye = np.array([x, y, rng.uniform(1.25, 1.75)])
    forward = np.array([np.cos(ahead) * np.cos(pitch), np.sin(ahead) * np.cos(pitch), np.sin(pitch)])
    return looking_at(eye, eye + forward)


def _clearance(renderer: Renderer, view: Array) -> float:
    """Distance to the nearest surface around a camera."""
    index = np.arange(PROBES) + 0.5
    z = 1 - 2 * index / PROBES
    around = np.stack([np.sqrt(1 - z * z) * np.cos(GOLDEN * index), np.sqrt(1 - z * z) * np.sin(GOLDEN * index), z], 1)
    eye = -view[:3, :3].T @ view[:3, 3]
    return float(renderer.distances(np.tile(eye, (len(around), 1)), around).min())


def _outlook(renderer: Renderer, view: Array, field_of_view: float) -> float:
    """Median distance of what a camera sees."""
    side = np.linspace(-1, 1, 9) * np.tan(np.radians(field_of_view) / 2)
    x, y = (axis.reshape(-1) for axis in np.meshgrid(side, side))
    rays = np.stack([x, y, np.ones_like(x)], 1) @ view[:3, :3]
    eye = -view[:3, :3].T @ view[:3, 3]
    return float(np.median(renderer.distances(np.tile(eye, (len(rays), 1)), rays)))
