"""The source `mesh_views`: meshes that are drawn when they are read, so nothing has to be written first.

Objects of the furniture catalogue, furnished rooms by their seeds, or mesh files of the user. Drawing takes a few milliseconds a
picture; `mixtura data synth` with `furniture_views` writes the same pictures once, which is better for long trainings.
"""

from __future__ import annotations

import glob
import hashlib
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mixtura.data.source import SourceInfo
from mixtura.errors import DataError
from mixtura_diffusion_gs.data.mesh_files import Up, read_mesh
from mixtura_diffusion_gs.data.pictures import Picture
from mixtura_diffusion_gs.data.posed import PosedConfig, PosedScene, PosedSource
from mixtura_diffusion_gs.data.synth import is_held_out
from mixtura_diffusion_gs.frames import Array, inverse
from mixtura_diffusion_gs.furniture.cameras import intrinsics, on_rings, on_sphere
from mixtura_diffusion_gs.furniture.models import catalogue, find
from mixtura_diffusion_gs.furniture.render import Lights, Renderer
from mixtura_diffusion_gs.furniture.scenes import OBJECT_DISTANCE, OBJECT_VIEW, Scene, fitted, object_scene, room_scene


class MeshViewsConfig(PosedConfig):
    """`sources: {NAME: {type: mesh_views, what: files, files: "meshes/*.glb"}}`."""

    what: Literal["objects", "rooms", "files"] = "objects"
    files: str | None = Field(None, description="pattern of mesh files (OBJ, and what trimesh reads), for what: files")
    up: Up = Field("y", description="which axis of the files is up")
    models: tuple[str, ...] = Field((), description="names of models, for what: objects; all when left out")
    collections: tuple[str, ...] = Field((), description="only models of these collections, for what: objects")
    part: Literal["all", "training", "held-out"] = Field(
        "all", description="held-out: the tenth of all models that furniture_views never trains on, for what: objects"
    )
    first_room: int = Field(0, ge=0, description="seed of the first room, for what: rooms")
    rooms: int = Field(100, ge=1, description="how many rooms, for what: rooms")
    cameras: int = Field(40, ge=2, description="views of a scene")
    rig: Literal["sphere", "rings"] = Field("sphere", description="cameras of objects: all around, or two rings")
    samples: int = Field(2, ge=1, le=8, description="rays of a pixel along each axis")
    keep: int = Field(4, ge=1, description="scenes that each process keeps ready to draw")

    @model_validator(mode="before")
    @classmethod
    def _kind_of_rooms(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("what") == "rooms":
            return {"kind": "scene", **values}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> MeshViewsConfig:
        if (self.what == "files") != (self.files is not None):
            raise ValueError("`files` names mesh files for what: files; give both or neither")
        if (self.what == "rooms") != (self.kind == "scene"):
            raise ValueError(f"what: {self.what} can't be of kind {self.kind}; rooms are scenes, the rest objects")
        if self.rig == "rings" and self.cameras % 3:
            raise ValueError(f"rig rings puts two thirds of the cameras on one ring: {self.cameras} must be a multiple of 3")
        return self


class MeshViews(PosedSource):
    """One item for each mesh or room. Needs `embreex`."""

    Config = MeshViewsConfig

    def __init__(self, config: MeshViewsConfig, name: str, root: Path) -> None:
        super().__init__(config, name, root)
        self.root = Path(root)
        self.items = _items(config, self.root)
        facts = [config.cameras, config.rig, config.samples, config.size, config.up]
        digest = hashlib.blake2b(repr((facts, [_fact(item) for item in self.items])).encode(), digest_size=16).hexdigest()
        self.info = SourceInfo(name, len(self.items), digest, tags=(config.kind,), max_epochs=config.max_epochs)
        self._kept: OrderedDict[int, tuple[Scene, Array]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Without the scenes that are ready: ray tracers don't travel between processes."""
        return {**self.__dict__, "_kept": OrderedDict()}

    def scene(self, index: int) -> PosedScene:
        """The scene of an item. Raises DataError for mesh files that are missing, broken or empty."""
        if index not in self._kept:
            scene = self._made(index)
            self._kept[index] = (scene, scene.rig(scene.renderer, self.config.cameras, "train"))
            while len(self._kept) > self.config.keep:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        scene, viewmats = self._kept[index]
        return PosedScene(scene.name.replace("#", "-"), inverse(viewmats), partial(self._drawn, scene, viewmats))

    def _made(self, index: int) -> Scene:
        item = self.items[index]
        if isinstance(item, int):
            return room_scene(item)
        if isinstance(item, str):
            scene = object_scene(item)
        else:
            mesh = fitted(read_mesh(item, self.config.up))
            rig = partial(on_sphere, distance=OBJECT_DISTANCE)
            scene = Scene(item.stem, mesh, (), Lights(), OBJECT_VIEW, rig, False)
        return (
            replace(scene, rig=partial(on_rings, distance=OBJECT_DISTANCE, seed=index)) if self.config.rig == "rings" else scene
        )

    def _drawn(self, scene: Scene, viewmats: Array, view: int, with_depth: bool) -> Picture:
        size = self.config.size
        matrix = intrinsics(scene.field_of_view, size)
        renderer: Renderer = scene.renderer
        drawn = renderer.render(viewmats[view], matrix, size, size, self.config.samples)
        image = (drawn.rgb * 255 + 0.5).astype(np.uint8)
        mask = None if scene.is_room else drawn.alpha > 0.5
        values = np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
        return Picture(image, values, mask, drawn.depth.astype(np.float32) if with_depth else None)


def _items(config: MeshViewsConfig, root: Path) -> list[str | int | Path]:
    """Keys of models, seeds of rooms, or files."""
    if config.what == "rooms":
        return list(range(config.first_room, config.first_room + config.rooms))
    if config.what == "files":
        pattern = str(root / str(config.files))  # an absolute one stays as it is
        files = sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())
        if not files:
            raise DataError(f"{pattern}: no file has this name; `files` must be a pattern of mesh files")
        return list(files)
    keys = [find(name).key for name in config.models] or [model.key for model in catalogue()]
    known = {key.partition("#")[0] for key in keys}
    if unknown := sorted(set(config.collections) - known):
        raise DataError(f"collections: none is called '{unknown[0]}'; take some of {', '.join(sorted(known))}")
    keys = [key for key in keys if not config.collections or key.partition("#")[0] in config.collections]
    if config.part != "all":
        keys = [key for key in keys if is_held_out(key) == (config.part == "held-out")]
    if not keys:
        raise DataError(f"part: {config.part}: none of the models that are asked for belongs to it")
    return list(keys)


def _fact(item: str | int | Path) -> str:
    """What tells an item from another, for the fingerprint."""
    return f"{item.name}:{item.stat().st_size}" if isinstance(item, Path) else str(item)
