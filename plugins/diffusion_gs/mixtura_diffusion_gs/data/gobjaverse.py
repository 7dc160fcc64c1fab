"""The source `gobjaverse`: objects as G-Objaverse stores them, 40 views in the folders 00000 to 00039.

`GROUP/ITEM/campos_512_v4/00000/` holds 00000.png (RGBA), 00000.json (`x`, `y`, `z`: axes of the camera in OpenCV's order,
`origin`, `x_fov` in radians; z is up) and 00000_nd.exr (normal, and depth along z as its fourth channel). Views 0 to 23 are a
ring at 5 to 30 degrees, 27 to 38 one at -5 to 5 degrees, 25 and 26 look from above and below.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from mixtura.data.source import SourceInfo
from mixtura.errors import DataError
from mixtura_diffusion_gs.data.pictures import Picture, read_image
from mixtura_diffusion_gs.data.posed import PosedConfig, PosedScene, PosedSource
from mixtura_diffusion_gs.frames import Array, check_pose
from mixtura_diffusion_gs.views import AroundRule, Rules

VIEWS = "campos_512_v4"
FOCAL = 1422.222 / 1024
"""Focal length over the picture's width; the published loader takes it for every view."""
HALF_DIAGONAL = 0.867
"""Of the unit cube that objects fill: what is nearer to the camera than the cube is no surface."""
PUBLISHED = AroundRule(rings=((0, 24), (27, 12)), exclude=(25, 26), novel=6)


class GObjaverseConfig(PosedConfig):
    """`sources: {NAME: {type: gobjaverse, path: data/gobjaverse, items: data/train.json}}`."""

    path: str = Field(description="folder of the data set, GROUP/ITEM/campos_512_v4 below it")
    items: str | None = Field(None, description="JSON list of the items to take, as GROUP/ITEM; all when left out")
    size: int = Field(256, ge=8)
    views: Rules = PUBLISHED

    @model_validator(mode="after")
    def _of_objects(self) -> GObjaverseConfig:
        if self.kind != "object":
            raise ValueError(f"G-Objaverse holds objects; kind can't be {self.kind}")
        return self


class GObjaverse(PosedSource):
    """One item for each object."""

    Config = GObjaverseConfig

    def __init__(self, config: GObjaverseConfig, name: str, root: Path) -> None:
        super().__init__(config, name, root)
        self.folder = Path(root) / config.path
        self.items = _listed(Path(root) / config.items) if config.items else _found(self.folder)
        digest = hashlib.blake2b("\n".join(self.items).encode(), digest_size=16).hexdigest()
        if config.depth == "require":
            exr_reader()
        self.info = SourceInfo(name, len(self.items), digest, tags=("object",), max_epochs=config.max_epochs)
        self.scene(0)

    def scene(self, index: int) -> PosedScene:
        """The cameras of an object; raises DataError naming the file that is missing or broken."""
        item = self.items[index]
        folder = self.folder / item
        if (folder / VIEWS).is_dir():
            folder = folder / VIEWS
        cameras: list[tuple[Array, float | None]] = []
        while (file := view_file(folder, len(cameras), ".json")).is_file():
            cameras.append(read_camera(file))
        if not cameras:
            raise DataError(f"{folder}: no cameras; {file} is missing")
        c2w = np.stack([pose for pose, _ in cameras])
        is_official = self.config.compat == "official"
        focals = [FOCAL if is_official or focal is None else focal for _, focal in cameras]
        return PosedScene(item, c2w, partial(_picture, folder, c2w, focals, self.config.depth == "require"))


def _listed(file: Path) -> list[str]:
    try:
        items = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: `items` must name a JSON list of GROUP/ITEM ({error})") from error
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        raise DataError(f"{file}: `items` must name a JSON list of GROUP/ITEM with at least one entry")
    return items


def _found(folder: Path) -> list[str]:
    """Items below a folder, sorted. DataError when there is none."""
    found = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(f"*/*/{VIEWS}"))
    if not found:
        raise DataError(f"{folder}: no objects in it; they are expected as GROUP/ITEM/{VIEWS}, or named by `items`")
    return found


def view_file(folder: Path, view: int, ending: str) -> Path:
    """A file of a view."""
    return folder / f"{view:05d}" / f"{view:05d}{ending}"


def read_camera(file: Path) -> tuple[Array, float | None]:
    """Camera to world (4, 4) with OpenCV axes, and the focal length over the width, None where the file has none."""
    try:
        data: dict[str, Any] = json.loads(file.read_text())
        pose = np.eye(4)
        pose[:3] = np.stack([np.array(data[key], np.float64) for key in ("x", "y", "z", "origin")], 1)
        focal = 0.5 / np.tan(float(data["x_fov"]) / 2) if "x_fov" in data else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: x, y, z and origin of a camera are needed ({type(error).__name__}: {error})") from error
    check_pose(pose, str(file))
    return pose, focal


def _picture(folder: Path, c2w: Array, focals: list[float], needs_depth: bool, view: int, with_depth: bool) -> Picture:
    name = str(view_file(folder, view, ".png"))
    image, mask = read_image(view_file(folder, view, ".png"), name)
    height, width = image.shape[:2]
    intrinsics = np.array([focals[view] * width, focals[view] * width, width / 2, height / 2])
    depth = _depth(folder, view, float(np.linalg.norm(c2w[view, :3, 3])), needs_depth) if with_depth else None
    return Picture(image, intrinsics, mask, depth)


def _depth(folder: Path, view: int, distance: float, is_needed: bool) -> Array | None:
    """Depths (H, W), None when there is no file or nothing to read it with and neither is needed."""
    file = view_file(folder, view, "_nd.exr")
    if not file.is_file():
        if is_needed:
            raise DataError(f"{file} is missing; download it, or set `depth: use`")
        return None
    try:
        reader = exr_reader()
    except DataError:
        if is_needed:
            raise
        return None
    try:
        depth = np.array(reader.File(str(file), separate_channels=True).channels()["A"].pixels, np.float32)
    except (KeyError, RuntimeError, OSError, ValueError) as error:
        raise DataError(f"{file}: no depth can be read from its channel A ({error})") from error
    depth[~np.isfinite(depth) | (depth < distance - HALF_DIAGONAL)] = 0
    return depth


def exr_reader() -> Any:
    """The package that reads EXR. DataError when it is not installed."""
    try:
        import OpenEXR
    except ImportError:
        raise DataError("depths of G-Objaverse are EXR files: pip install OpenEXR, or set `depth: ignore`") from None
    return OpenEXR
