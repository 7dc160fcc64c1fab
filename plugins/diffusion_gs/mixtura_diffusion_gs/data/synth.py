"""The generator `furniture_views`: posed pictures of furniture and of furnished rooms, with depths, as folders for `views`.

Models that rooms use never count as held out, nor does a model of the held-out collection ever train. What is held out is a tenth
of the other models, by a hash of their keys: it doesn't change with the number of objects. Every scene is written beside its
place and moved there when it is whole, so a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from mixtura.data.generator import GeneratorConfig
from mixtura.errors import DataError
from mixtura.rng import key64
from mixtura_diffusion_gs.data.write import write_views
from mixtura_diffusion_gs.furniture.cameras import on_rings
from mixtura_diffusion_gs.furniture.export import contact_sheet, write_credits
from mixtura_diffusion_gs.furniture.models import catalogue, find, load
from mixtura_diffusion_gs.furniture.roles import ROLES, SMALL
from mixtura_diffusion_gs.furniture.scenes import OBJECT_DISTANCE, Scene, object_scene, posed_views, room_scene

MARKER, RECIPE = "generated.json", "recipe.json"
"""Written last, and first: what the data were made from."""
HELD_OUT_ROOMS = 1_000_000
"""Seed of the first room that is held out."""
LEAST_COVERAGE = 0.01
"""A model that covers less of its pictures is left out."""
OBJECT_UNIT, ROOM_UNIT = 1e-4, 5e-4
"""What a step of a depth picture means: an object's unit is the radius of its ball, a room's the metre."""
KEPT_MESHES = 200
"""Meshes of models that a process keeps for the next rooms; rooms use 145."""
TOLD = 50
"""Scenes from one word of progress to the next."""


class FurnitureViewsConfig(GeneratorConfig):
    """An entry of `synth:` that writes `path`/objects, rooms, held-out-objects, held-out-collection and held-out-rooms."""

    type: Literal["furniture_views"] = "furniture_views"
    path: str = Field(description="folder of the data, made by this generator")
    objects: int = Field(500, ge=0, description="models to train on")
    held_out_objects: int = Field(40, ge=0)
    held_out_collection: str | None = Field("Reallusion", description="a collection of the catalogue that never trains")
    rooms: int = Field(150, ge=0, description="furnished rooms to train on")
    held_out_rooms: int = Field(20, ge=0)
    size: int = Field(64, ge=8, description="pixels; pictures are square")
    views: int = Field(40, ge=2, description="pictures of a scene")
    rig: Literal["sphere", "rings"] = Field(
        "sphere", description="cameras of objects: all around from -10 to 70 degrees, or two rings as in G-Objaverse"
    )
    samples: int = Field(2, ge=1, le=8, description="rays of a pixel along each axis")
    processes: int | None = Field(None, ge=0, description="worker processes; the number of cores by default, 0 for none")

    @model_validator(mode="after")
    def _drawable(self) -> FurnitureViewsConfig:
        if self.rig == "rings" and self.views % 3:
            raise ValueError(f"rig rings puts two thirds of the views on one ring: views {self.views} must be a multiple of 3")
        if not self.objects + self.rooms:
            raise ValueError("objects and rooms are both 0: at least one scene is needed to train on")
        return self


@dataclass(frozen=True)
class Part:
    """A sub-folder: how many scenes it shall hold, and the candidates in the order in which they are tried."""

    folder: str
    wanted: int
    candidates: tuple[str | int, ...]


@dataclass(frozen=True)
class Job:
    """One scene, a model's key or a room's seed, and the folder to write it to."""

    config: FurnitureViewsConfig
    what: str | int
    target: Path


@dataclass(frozen=True)
class Done:
    """What became of a job: the credits of the scene, or none where there was nothing to see."""

    what: str | int
    credits: tuple[str, ...]
    is_kept: bool


# -- one scene ----------------------------------------------------------------------------------------------------


@functools.cache
def _loader() -> Callable[..., Any]:
    """`load` that keeps meshes, one for each process."""
    return functools.lru_cache(KEPT_MESHES)(load)


def make(job: Job) -> Done:
    """Draw a scene and write it, unless it is there. Runs in a worker process."""
    done = job.target / "transforms.json"
    if done.is_file():
        return Done(job.what, tuple(json.loads(done.read_text())["credits"]), True)
    scene = scene_of(job)
    drawn = posed_views(scene, job.config.views, job.config.size, samples=job.config.samples)
    if drawn["alphas"].mean() < LEAST_COVERAGE:
        return Done(job.what, (), False)
    partial_folder = job.target.with_name(job.target.name + ".part")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir(parents=True)
    write_views(partial_folder, drawn, ROOM_UNIT if scene.is_room else OBJECT_UNIT, not scene.is_room, scene.credits)
    partial_folder.rename(job.target)
    return Done(job.what, tuple(scene.credits), True)


def scene_of(job: Job) -> Scene:
    """The scene of a job with the cameras that its configuration asks for."""
    if isinstance(job.what, int):
        return room_scene(job.what, _loader())
    scene = object_scene(job.what)
    if job.config.rig == "rings":
        scene = replace(scene, rig=partial(on_rings, distance=OBJECT_DISTANCE, seed=key64(job.what) % 2**31))
    return scene


# -- the split ----------------------------------------------------------------------------------------------------


def split(config: FurnitureViewsConfig, seed: int) -> list[Part]:
    """The parts of the data with their candidates. DataError when the catalogue has too few models or no such collection."""
    models = catalogue()
    collection = [model.key for model in models if model.key.partition("#")[0] == config.held_out_collection]
    if config.held_out_collection is not None and not collection:
        names = sorted({model.key.partition("#")[0] for model in models})
        raise DataError(f"held_out_collection: none is called '{config.held_out_collection}'; take one of {', '.join(names)}")
    used = room_models()
    others = [model.key for model in models if model.key not in set(collection)]
    if in_rooms := sorted(used & set(collection)):
        raise DataError(
            f"held_out_collection: rooms use {len(in_rooms)} models of {config.held_out_collection}, {in_rooms[0]} for one; "
            "take a collection that they don't use"
        )
    others.sort(key=lambda key: key64(seed, key))
    held_out = [key for key in others if is_held_out(key)]
    training = [key for key in others if not is_held_out(key)]
    parts = [
        Part("objects", config.objects, tuple(training)),
        Part("held-out-objects", config.held_out_objects, tuple(held_out)),
        Part("held-out-collection", len(collection), tuple(collection)),
        Part("rooms", config.rooms, tuple(_rooms(seed, 0, config.rooms))),
        Part("held-out-rooms", config.held_out_rooms, tuple(_rooms(seed, HELD_OUT_ROOMS, config.held_out_rooms))),
    ]
    for part in parts:
        if part.wanted > len(part.candidates):
            raise DataError(
                f"{part.folder.replace('-', '_')}: {part.wanted} are asked for, the catalogue has {len(part.candidates)}"
            )
    return parts


@functools.cache
def room_models() -> frozenset[str]:
    """Keys of the models that rooms are furnished with."""
    return frozenset(find(name).key for names in (*ROLES.values(), SMALL) for name in names)


def is_held_out(key: str) -> bool:
    """Whether a model is of the tenth that never trains: by a hash of its key, never one that rooms use."""
    return key not in room_models() and key64("held out", key) % 10 == 0


def _rooms(seed: int, first: int, count: int) -> range:
    """Seeds of rooms: every seed of the data set has its own, and what is held out lies far from the rest."""
    start = 2 * HELD_OUT_ROOMS * seed + first
    return range(start, start + count)


# -- the data set -------------------------------------------------------------------------------------------------


class FurnitureViews:
    """Writes the data set once. It is built next to `path` and moved there when it is complete."""

    Config: ClassVar[type[FurnitureViewsConfig]] = FurnitureViewsConfig

    def __init__(self, config: FurnitureViewsConfig, *, root: Path, seed: int) -> None:
        self.config, self.seed = config, seed
        self.path = Path(root) / config.path

    def recipe(self) -> dict[str, Any]:
        """What the data depend on, as JSON values."""
        return {"seed": self.seed, **json.loads(self.config.model_dump_json(exclude={"path", "processes"}))}

    def done(self) -> bool:
        """Whether the finished data of this configuration and seed are there."""
        return _content(self.path / MARKER).get("recipe") == self.recipe()

    def run(self, say: Callable[[str], None]) -> list[Path]:
        """Make the data; raises DataError when other files are in their place. Returns the folders of the parts."""
        parts = split(self.config, self.seed)
        folders = [self.path / part.folder for part in parts if part.wanted]
        if self.done():
            return folders
        if self.path.exists() and any(self.path.iterdir()):
            raise DataError(f"{self.path} holds other data than this configuration makes; delete it or choose another `path`")
        partial_folder = self._begun()
        made = self._made(partial_folder, parts, say)
        write_credits(
            partial_folder / "CREDITS.txt", [line for dones in made.values() for done in dones for line in done.credits]
        )
        _sheet(partial_folder)
        counts = {name: len(dones) for name, dones in made.items()}
        (partial_folder / MARKER).write_text(json.dumps({"recipe": self.recipe(), "scenes": counts}, indent=1))
        (partial_folder / RECIPE).unlink()
        if self.path.exists():
            self.path.rmdir()
        partial_folder.rename(self.path)
        return folders

    def _begun(self) -> Path:
        """The folder next to `path` where the data are built; what another configuration left there is thrown away."""
        folder = self.path.with_name(self.path.name + ".part")
        if _content(folder / RECIPE) != self.recipe():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / RECIPE).write_text(json.dumps(self.recipe()))
        return folder

    def _made(self, folder: Path, parts: list[Part], say: Callable[[str], None]) -> dict[str, list[Done]]:
        """The scenes that were kept, by part."""
        processes = os.cpu_count() or 1 if self.config.processes is None else self.config.processes
        if not processes:
            return {part.folder: self._part(folder, part, say, map) for part in parts if part.wanted}
        context = multiprocessing.get_context("spawn")  # threads of the caller don't survive a fork
        try:
            with ProcessPoolExecutor(processes, mp_context=context) as pool:
                return {part.folder: self._part(folder, part, say, pool.map) for part in parts if part.wanted}
        except BrokenProcessPool as error:
            raise DataError(
                f"{folder}: a worker process died, perhaps for want of memory; run again (it goes on where it stopped), "
                "with fewer `processes` if that was it"
            ) from error

    def _part(self, folder: Path, part: Part, say: Callable[[str], None], mapped: Callable[..., Iterator[Done]]) -> list[Done]:
        """Scenes of one part; the next candidates take the place of those that show nothing."""
        kept: list[Done] = []
        tried = 0
        while len(kept) < part.wanted and tried < len(part.candidates):
            chosen = part.candidates[tried : tried + part.wanted - len(kept)]
            tried += len(chosen)
            for done in mapped(make, [Job(self.config, what, folder / part.folder / named(what)) for what in chosen]):
                if not done.is_kept:
                    say(f"{part.folder}: {done.what} is left out, it covers less than {LEAST_COVERAGE:.0%} of its pictures")
                    continue
                kept.append(done)
                if len(kept) % TOLD == 0 or len(kept) == part.wanted:
                    say(f"{part.folder}: {len(kept)} of {part.wanted}")
        return kept


def named(what: str | int) -> str:
    """The folder's name of a scene."""
    return f"room-{what:08d}" if isinstance(what, int) else what.replace("#", "-")


def _content(path: Path) -> dict[str, Any]:
    """A JSON file, empty when there is none or it is broken."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _sheet(folder: Path) -> None:
    """The first pictures of some scenes of each part, as `contact.png`."""
    pictures = []
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        for scene in sorted(part.iterdir())[:16]:
            with Image.open(scene / "images" / "000.png") as image:
                white = Image.new("RGBA", image.size, "white")
                pictures.append(np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")) / np.float32(255))
    contact_sheet(pictures, 16).save(folder / "contact.png")
