"""What is behind and under the head: walls, and shoulders in clothes. All of it stays put while the head turns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.drawn.geometry import WORLD
from mixtura_live_portrait.data.drawn.identity import Colour, Identity
from mixtura_live_portrait.data.drawn.rays import Canvas, Hit, Light, as_planes, meet, rgb, shade, unit
from mixtura_live_portrait.data.drawn.state import Array, Pose

WALLS = ("gradient", "corner", "stripes", "circles", "boards")
FOLLOW = 0.3
"""How much of the head's shift the shoulders follow."""


class Scene(NamedTuple):
    """What stays the same in a clip: the wall, the light, and where the shoulders are (`x`, `y`, `scale` of a resting head)."""

    wall: str
    first: Colour
    second: Colour
    numbers: tuple[float, float, float, float]
    light: tuple[float, float, float]
    strength: float
    ambient: float
    x: float
    y: float
    scale: float

    def lit(self, steps: int) -> Light:
        """The light, in flat tones where `steps` is not 0."""
        direction = np.array(self.light)
        return Light(direction / np.linalg.norm(direction), self.strength, self.ambient, steps)


def draw_scene(rng: KeyedRng) -> Scene:
    """A scene for one clip."""
    draw = rng.at("scene").numpy()
    grey = draw.uniform(0.15, 0.9)
    first, second = np.clip(grey + draw.uniform(-0.28, 0.28, (2, 3)), 0.02, 0.98).tolist()
    return Scene(
        wall=str(draw.choice(WALLS)),
        first=(first[0], first[1], first[2]),
        second=(second[0], second[1], second[2]),
        numbers=tuple(draw.uniform(0, 1, 4).tolist()),
        light=(draw.uniform(-1.0, 1.0), draw.uniform(-1.0, 0.1), -draw.uniform(0.5, 1.2)),
        strength=draw.uniform(0.40, 0.70),
        ambient=draw.uniform(0.42, 0.62),
        x=draw.uniform(-0.06, 0.06),
        y=draw.uniform(-0.14, -0.02),
        scale=draw.uniform(0.60, 0.74),
    )


def paint_wall(canvas: Canvas, scene: Scene) -> None:
    """Fill the picture."""
    p, q, r, _ = scene.numbers
    x, y = canvas.x, canvas.y
    part: NDArray[np.floating]
    if scene.wall == "gradient":
        part = 0.5 + 0.5 * (x * np.float32(2 * p - 1) + y * np.float32(2 * q - 1))
    elif scene.wall == "corner":
        part = unit((x + np.float32(0.3 * (2 * r - 1)) * y - np.float32(1.2 * p - 0.6)) / np.float32(2 * canvas.pixel))
    elif scene.wall == "stripes":
        part = unit(0.5 + 2 * np.sin(x * np.float32(5 + 14 * p) + y * np.float32(8 * q - 4) + np.float32(6 * r)))
    elif scene.wall == "boards":
        part = unit(0.5 + 3 * np.sin(y * np.float32(6 + 9 * p)) * np.sin(x * np.float32(3 + 5 * q) + np.float32(6 * r)))
    else:
        part = _circles(canvas, scene)
    first, second = (as_planes(rgb(colour)) for colour in (scene.first, scene.second))
    canvas.image[:] = first + part * (second - first)


def _circles(canvas: Canvas, scene: Scene) -> Array:
    """Soft discs, as lights that are out of focus make."""
    part = np.zeros((canvas.size, canvas.size), np.float32)
    draw = np.random.default_rng(int(1e6 * scene.numbers[0]))
    for x, y, radius, strength in draw.uniform((-1, -1, 0.15, 0.2), (1, 0.6, 0.4, 0.8), (7, 4)).astype(np.float32):
        squared = (canvas.x - x) ** 2 + (canvas.y - y) ** 2
        part += strength * unit((radius * radius - squared) * np.float32(4 / radius))
    return np.minimum(part, 1)


def paint_shoulders(canvas: Canvas, who: Identity, scene: Scene, pose: Pose, light: Light) -> None:
    """Shoulders in clothes."""
    x, y, scale = body(scene, pose)
    axes = np.diag([who.shoulders, 0.75, 0.62]) * scale
    hit = meet(canvas, WORLD.within((x, y + 1.95 * scale, 0.25 * scale), axes))
    if hit is not None:
        colour = _cloth(hit, who) * shade(hit.point, WORLD.within((0, 0, 0), axes), light)
        canvas.blend(hit.window, hit.cover, colour)


def body(scene: Scene, pose: Pose) -> tuple[float, float, float]:
    """Place and scale of the body: it follows the head a little."""
    scale = scene.scale + FOLLOW * (pose.scale - scene.scale)
    return scene.x + FOLLOW * (pose.x - scene.x), scene.y + FOLLOW * (pose.y - scene.y), scale


def _cloth(hit: Hit, who: Identity) -> Array:
    u, v, _ = hit.point
    cloth, trim = (as_planes(rgb(colour)) for colour in (who.cloth, who.trim))
    if who.pattern == "stripes":
        part = unit(0.5 + 3 * np.sin(u * 16))
    elif who.pattern == "bands":
        part = unit(0.5 + 3 * np.sin(v * 13))
    elif who.pattern == "collar":
        part = unit((np.float32(0.1) - np.abs(np.abs(u) - (v + np.float32(1.02)) * np.float32(0.8))) * 12)
    else:
        return cloth + np.zeros_like(u)
    return np.asarray(cloth + part * (trim - cloth))


def paint_neck(canvas: Canvas, who: Identity, scene: Scene, pose: Pose, base: Array, light: Light) -> None:
    """The neck, from the base of the skull (`base`, in the world) down into the clothes."""
    x, y, scale = body(scene, pose)
    low = np.array([x, y + 1.36 * scale, 0.22 * scale])
    along = (low - base) / 2
    out = np.array([0, 0, -1.0])
    axes = np.stack([np.array([who.neck * scale, 0, 0]), along * 1.15, out * who.neck * scale])
    middle = (low + base) / 2
    frame = WORLD.within((middle[0], middle[1], middle[2]), axes)
    hit = meet(canvas, frame)
    if hit is not None:
        tone = shade(hit.point, frame, light) * (1 - np.float32(0.38) * unit(-hit.point[1] * 1.4 + 0.5))
        canvas.blend(hit.window, hit.cover, rgb(who.skin)[:, None, None] * tone)
