"""The source `re10k`: clips of RealEstate10K as PNG frames and one JSON file for each scene.

A scene's file holds `scene_name` and `frames` with `image_path`, `fxfycxcy` (pixels of that picture) and `w2c` (world to camera,
OpenCV axes). Pictures are brought to the height of the samples and cropped to their middle; intrinsics follow.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mixtura.data.source import SourceInfo
from mixtura.errors import DataError
from mixtura_diffusion_gs.data.pictures import Picture, read_image, resized, squared
from mixtura_diffusion_gs.data.posed import PosedConfig, PosedScene, PosedSource
from mixtura_diffusion_gs.frames import check_pose, inverse
from mixtura_diffusion_gs.views import RandomRule, Rules

MULTIPLE = 8
"""The published loader rounds the width to it before it crops."""
PUBLISHED = RandomRule(novel=3)


class RealEstateConfig(PosedConfig):
    """`sources: {NAME: {type: re10k, path: data/re10k/train}}`."""

    path: str = Field(description="folder with a JSON file for each scene")
    images: str | None = Field(None, description="folder that image_path starts from; the one of the JSON file when left out")
    index: str | None = Field(
        None,
        description="evaluation index, scene -> {context, target}: its first context view is the condition, targets are noisy",
    )
    kind: Literal["object", "scene"] = "scene"
    size: int = Field(256, ge=8)
    views: Rules = PUBLISHED

    @model_validator(mode="after")
    def _of_scenes(self) -> RealEstateConfig:
        if self.kind != "scene":
            raise ValueError(f"RealEstate10K holds scenes; kind can't be {self.kind}")
        return self


class RealEstate(PosedSource):
    """One item for each scene, sorted by file name; with `index` only those that it has views for."""

    Config = RealEstateConfig

    def __init__(self, config: RealEstateConfig, name: str, root: Path) -> None:
        super().__init__(config, name, root)
        self.folder = Path(root) / config.path
        self.images = Path(root) / config.images if config.images else None
        self.orders = read_index(Path(root) / config.index) if config.index else None
        self.files = sorted(self.folder.glob("*.json"))
        if self.orders is not None:
            self.files = [file for file in self.files if file.stem in self.orders]
        if not self.files:
            raise DataError(f"{self.folder}: no scene's JSON file in it{' that `index` has views for' if config.index else ''}")
        digest = hashlib.blake2b(digest_size=16)
        for file in self.files:
            digest.update(f"{file.name}:{file.stat().st_size}\n".encode())
        self.info = SourceInfo(name, len(self.files), digest.hexdigest(), tags=("scene",), max_epochs=config.max_epochs)
        self.scene(0)

    def scene(self, index: int) -> PosedScene:
        """The cameras of a clip; raises DataError naming the file and the frame that is broken."""
        file = self.files[index]
        frames = _frames(file)
        names = [f"{file}: frame {number}" for number in range(len(frames))]
        poses = inverse(np.stack([_pose(frame, name) for frame, name in zip(frames, names, strict=True)]))
        order = None if self.orders is None else self.orders[file.stem]
        if order is not None and max(order) >= len(frames):
            raise DataError(f"{file}: the evaluation index names frame {max(order)}, it has {len(frames)}")
        return PosedScene(file.stem, poses, partial(_picture, self.images or file.parent, frames, names), order)

    def _sized(self, picture: Picture) -> Picture:
        """As published under `compat: official`: first to the height, then the crop."""
        if self.config.compat != "official":
            return super()._sized(picture)
        size = self.config.size
        width, height = picture.size
        new_width = round(int(size / height * width) / MULTIPLE) * MULTIPLE
        if new_width < size:
            raise DataError(
                f"a picture of {width} x {height} pixels is higher than wide, which `compat: official` can't crop to a square"
            )
        return squared(resized(picture, new_width, size, self.config.resize or "lanczos"), "crop")


def read_index(file: Path) -> dict[str, tuple[int, ...]]:
    """Views by scene, the condition first; scenes without views are left out. DataError for another layout."""
    try:
        data = json.loads(file.read_text())
        return {name: (views["context"][0], *views["target"]) for name, views in data.items() if views is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{file}: an evaluation index holds scene -> context, target ({type(error).__name__}: {error})"
        ) from error


def _frames(file: Path) -> list[dict[str, Any]]:
    try:
        frames = json.loads(file.read_text())["frames"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: a scene with a list of frames is needed ({type(error).__name__}: {error})") from error
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f'{file}: "frames" must be a list of frames, and have at least one')
    return frames


def _pose(frame: dict[str, Any], name: str) -> np.ndarray:
    try:
        pose = np.array(frame["w2c"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name}: a 4 x 4 w2c is needed ({type(error).__name__}: {error})") from error
    check_pose(pose, name)
    return pose


def _picture(folder: Path, frames: list[dict[str, Any]], names: list[str], view: int, with_depth: bool) -> Picture:
    frame, name = frames[view], names[view]
    try:
        path, intrinsics = folder / frame["image_path"], np.array(frame["fxfycxcy"], np.float64).reshape(4)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name}: image_path and four numbers fxfycxcy are needed ({type(error).__name__}: {error})") from error
    image, _ = read_image(path, name)
    return Picture(image, intrinsics)
