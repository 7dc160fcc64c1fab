"""The shell of a room as a mesh: floor, walls, ceiling, skirting, rug, door, windows and pictures.

Floor, walls, ceiling and rug are darker where furniture is near: soft shadows, measured once and painted into the textures.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from PIL import Image

from . import patterns
from .mesh import Array, Material, Mesh, box, merged, placed, quad
from .render import Renderer
from .rooms import DOOR, HEIGHT, WALLS, Room, along, wall_length

SHADOW_GRID = 0.07  # metres between the points where shadows are measured
SHADOW_REACH = 0.7  # metres; what is farther away casts no soft shadow
SHADOW_RAYS = 32


def shell_of(room: Room, furniture: Mesh) -> Mesh:
    """Everything of a room that is not furniture, in metres, the floor at z = 0."""
    rng = np.random.default_rng([room.seed, 1])
    tracer = Renderer(furniture)
    width, depth = room.size
    floor = patterns.FLOORS[rng.integers(len(patterns.FLOORS))](rng, width, depth)
    corner, (x, y, z) = np.array([-width / 2, -depth / 2, 0]), np.diag([width, depth, HEIGHT])
    parts = [
        _shaded(tracer, corner, x, y, floor),
        _shaded(tracer, corner + z + y, x, -y, patterns.ceiling(rng, width, depth)),
        _rug(room, rng, tracer),
    ]
    plain, accent = (patterns.WALLS[rng.integers(len(patterns.WALLS))] for _ in range(2))
    for wall in range(4):
        # The same generator for each wall gives all the same colours; one wall stands out.
        paint = np.random.default_rng([room.seed, 3 if wall else 4])
        length = wall_length(room.size, wall)
        across = _across(wall)
        left = np.array([*along(room.size, wall, -length / 2, 0), 0.0])
        parts.append(_shaded(tracer, left, across * length, z, (plain if wall else accent)(paint, length, HEIGHT)))
        parts += _hung(room, wall, rng)
    return merged(parts)


def _across(wall: int) -> Array:
    """The direction to the right along a wall, seen from inside."""
    x, y = WALLS[wall][1]
    return np.array([y, -x, 0.0])


def _shaded(tracer: Renderer, corner: Array, right: Array, up: Array, texture: patterns.Picture) -> Mesh:
    """A quad with its texture darkened where furniture is near."""
    light = Image.fromarray(_openness(tracer, corner, right, up)).resize(texture.shape[1::-1], Image.Resampling.BICUBIC)
    shaded = texture.astype(np.float32)
    shaded[..., :3] *= np.clip(np.asarray(light)[..., None], 0, 1)
    return quad(corner, right, up, Material("shell", texture=(shaded + 0.5).astype(np.uint8)))


def _openness(tracer: Renderer, corner: Array, right: Array, up: Array) -> Array:
    """How open [H, W] to the room points of a quad are, 0.4 to 1, row 0 on top."""
    columns, rows = (max(round(float(np.linalg.norm(edge)) / SHADOW_GRID), 2) for edge in (right, up))
    normal = np.cross(right, up) / np.linalg.norm(np.cross(right, up))
    s, t = (np.arange(columns) + 0.5) / columns, 1 - (np.arange(rows) + 0.5) / rows
    points = corner + s[None, :, None] * right + t[:, None, None] * up + 0.01 * normal
    directions = _dome(normal)
    origins = np.repeat(points.reshape(-1, 3), len(directions), 0)
    far = tracer.distances(origins, np.tile(directions, (rows * columns, 1))).reshape(rows, columns, -1)
    shade: Array = np.clip(1 - far / SHADOW_REACH, 0, 1).mean(-1).astype(np.float32)
    return 1 - np.float32(0.6) * shade


def _dome(normal: Array) -> Array:
    """Directions [N, 3] around a normal, the denser the nearer to it (cosine-weighted), the same each time."""
    index = np.arange(SHADOW_RAYS) + 0.5
    radius, angle = np.sqrt(index / SHADOW_RAYS), index * np.pi * (3 - np.sqrt(5))
    side = np.cross(normal, [1.0, 0, 0] if abs(normal[0]) < 0.9 else [0, 1.0, 0])
    side /= np.linalg.norm(side)
    other = np.cross(normal, side)
    across, along_other = radius * np.cos(angle), radius * np.sin(angle)
    return np.outer(across, side) + np.outer(along_other, other) + np.outer(np.sqrt(1 - radius**2), normal)


def _rug(room: Room, rng: Generator, tracer: Renderer) -> Mesh:
    width, depth = rng.uniform(0.4, 0.6, 2) * np.array(room.size)
    corner = np.array([-width / 2, -depth / 2, 0.008])
    return _shaded(tracer, corner, np.array([width, 0, 0]), np.array([0, depth, 0]), patterns.rug(rng, width, depth))


def _hung(room: Room, wall: int, rng: Generator) -> list[Mesh]:
    """Skirting, the door, and a window or pictures where no tall furniture stands before them."""
    length = wall_length(room.size, wall)
    parts, used = [], _covered(room, wall)
    if room.door[0] == wall:
        parts.append(_panel(room, wall, room.door[1], DOOR[1] / 2, 0.04, patterns.door(rng, *DOOR)))
        used.append((room.door[1], DOOR[0] / 2 + 0.08))
    wood = Material("skirting", diffuse=(0.9, 0.89, 0.86))
    parts.append(_slab(room, wall, 0.0, length, (0.0, 0.07), 0.015, [wood]))
    for pattern, low, high in ((patterns.window, 1.0, 1.7), (patterns.painting, 0.45, 0.9), (patterns.painting, 0.35, 0.7)):
        width, height = rng.uniform(low, high), rng.uniform(0.5, 1.15 if pattern is patterns.window else 0.8)
        centre = float(rng.uniform(-1, 1) * (length / 2 - width / 2 - 0.1))
        image = pattern(rng, width, height)
        if all(abs(centre - at) > width / 2 + reach for at, reach in used):
            parts.append(_panel(room, wall, centre, 1.55, 0.03, image))
            used.append((centre, width / 2 + 0.1))
    return parts


def _covered(room: Room, wall: int) -> list[tuple[float, float]]:
    """Where along a wall something higher than 0.9 m stands: middle and half width, metres."""
    normal, right = np.array(WALLS[wall][1]), _across(wall)[:2]
    reach = np.abs(normal) @ room.size / 2
    found = []
    for piece in room.pieces:
        at, half = np.array(piece.position[:2]), piece.footprint
        if piece.height > 0.9 and reach - normal @ at - np.abs(normal) @ half < 0.4:
            found.append((float(right @ at), float(np.abs(right) @ half) + 0.05))
    return found


def _panel(room: Room, wall: int, centre: float, level: float, thick: float, image: patterns.Picture) -> Mesh:
    """A picture of `image`'s size on a board that is `thick` metres, its middle at `level` above the floor."""
    width, height = image.shape[1] / patterns.PIXELS, image.shape[0] / patterns.PIXELS
    red, green, blue = (float(channel) / 255 for channel in image[0, 0, :3])
    rim, front = Material("rim", diffuse=(red, green, blue)), Material("front", texture=image)
    # A slab's second side is -y when it leans on wall 0: the one that faces the room.
    return _slab(room, wall, centre, width, (level - height / 2, level + height / 2), thick, [rim, rim, front, rim, rim, rim])


def _slab(
    room: Room, wall: int, centre: float, width: float, levels: tuple[float, float], thick: float, materials: list[Material]
) -> Mesh:
    """A box that leans on a wall."""
    board = box([-width / 2, -thick / 2, levels[0]], [width / 2, thick / 2, levels[1]], materials)
    return board.transformed(placed(WALLS[wall][0], [*along(room.size, wall, centre, thick / 2), 0.0]))
