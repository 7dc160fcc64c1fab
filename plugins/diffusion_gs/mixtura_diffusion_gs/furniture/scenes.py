"""Scenes to reconstruct: one object in front of white, or a furnished room, with cameras and pictures.

    views = posed_views(object_scene("teddyBear"), count=48, size=128)
    views["images"], views["viewmats"], views["Ks"]

`object_scene` and `room_scene` are pure functions of a model and of a seed; `posed_views` of the scene, the number of views, the
size and the split. The same arguments give the same arrays, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from . import cameras
from .mesh import Array, Mesh, merged
from .models import Model, credit, find, load
from .render import Lights, Renderer
from .rooms import plan_room
from .shell import shell_of

OBJECTS, ROOMS = ("plaidChair", "shopping-basket", "flipper"), (6, 12, 16)  # the ones that benchmarks use
OBJECT_VIEW, ROOM_VIEW = 40.0, 75.0  # fields of view, degrees
OBJECT_DISTANCE = 3.0  # radii; the unit ball just fits into the picture
ROOM_LIGHTS = Lights(0.55, (((0.45, -0.5, 0.7), 0.28), ((-0.6, 0.45, 0.3), 0.16), ((0.1, 0.2, -1.0), 0.2)))

Rig = Callable[[Renderer, int, str], Array]


@dataclass(frozen=True, eq=False)
class Scene:
    """A mesh with light and cameras: `field_of_view` in degrees, `models` are those whose makers want credit.

    Objects fill the unit ball around the origin; rooms are in metres, the floor at z = 0, the middle at x = y = 0. World z is up.
    """

    name: str
    mesh: Mesh
    models: tuple[Model, ...]
    lights: Lights
    field_of_view: float
    rig: Rig
    is_room: bool

    @cached_property
    def renderer(self) -> Renderer:
        """What draws the scene, made once. Raises MixturaError when the ray tracer is not installed."""
        return Renderer(self.mesh, self.lights)

    @property
    def credits(self) -> list[str]:
        """One line for each model, without repeats."""
        return list(dict.fromkeys(credit(model) for model in self.models))


def object_scene(which: str | int) -> Scene:
    """One model, by name, key or number, centred and scaled into the unit ball. Raises FurnitureError when there is none such."""
    model = find(which)
    rig = partial(cameras.on_sphere, distance=OBJECT_DISTANCE)
    return Scene(model.key, fitted(load(model)), (model,), Lights(), OBJECT_VIEW, rig, False)


def fitted(mesh: Mesh) -> Mesh:
    """A mesh with the middle of its bounds at the origin, scaled into the unit ball."""
    low, high = mesh.bounds
    centre = (low + high).astype(np.float64) / 2
    used = mesh.vertices[mesh.triangles.reshape(-1)]
    radius = float(np.linalg.norm(used - centre, axis=1).max(initial=1e-6))
    return mesh.transformed(np.c_[np.eye(3) / radius, -centre / radius])


def room_scene(seed: int, loader: Callable[[Model], Mesh] = load) -> Scene:
    """A furnished room; the seed says everything about it. `loader` may keep the meshes of models that come again.

    Raises FurnitureError when the catalogue is missing.
    """
    room = plan_room(seed)
    pieces = room.pieces + room.ornaments
    loaded = {piece.model: loader(piece.model) for piece in pieces}
    furniture = merged([loaded[piece.model].transformed(piece.matrix) for piece in pieces])
    rig = partial(cameras.in_room, size=room.size, seed=seed, field_of_view=ROOM_VIEW)
    name = f"{room.kind.replace(' ', '-')}-{seed}"
    return Scene(name, merged([furniture, shell_of(room, furniture)]), tuple(loaded), ROOM_LIGHTS, ROOM_VIEW, rig, True)


def posed_views(scene: Scene, count: int, size: int, split: str = "train", samples: int = 2) -> dict[str, Array]:
    """Pictures of a scene from `count` places, each `size` x `size` pixels of `samples` x `samples` rays.

    Gives float32 arrays `images` [V, H, W, 3] in 0..1 over white, `alphas` [V, H, W] in 0..1, `depths` [V, H, W] along z (0 where
    nothing is), `viewmats` [V, 4, 4] (world to camera, OpenCV) and `Ks` [V, 3, 3] in pixels. `split` is "train" or "held_out":
    the places of one lie between those of the other. Raises ValueError for another split, or a count or size below 1.
    """
    if count < 1 or size < 1:
        raise ValueError(f"{count} views of {size} pixels: both must be at least 1")
    views = scene.rig(scene.renderer, count, split).astype(np.float32)
    matrix = cameras.intrinsics(scene.field_of_view, size)
    pictures = [scene.renderer.render(view, matrix, size, size, samples) for view in views]
    return {
        "images": np.stack([picture.rgb for picture in pictures]),
        "alphas": np.stack([picture.alpha for picture in pictures]),
        "depths": np.stack([picture.depth for picture in pictures]),
        "viewmats": views,
        "Ks": np.tile(matrix.astype(np.float32), (count, 1, 1)),
    }
