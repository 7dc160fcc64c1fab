"""The source `views`: folders with a transforms.json, as NeRF and its heirs write them.

`frames` name pictures (`file_path`) and cameras (`transform_matrix`, camera to world, OpenGL axes); intrinsics are `fl_x`,
`fl_y`, `cx`, `cy` in pixels for all or for each frame, or `camera_angle_x` in radians; `depth_file_path` names 16-bit depths in
steps of `depth_unit_scale_factor`. Only the pictures of chosen views are opened.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from mixtura.data.source import SourceInfo
from mixtura.errors import DataError
from mixtura_diffusion_gs.data.pictures import Picture, read_depth, read_image
from mixtura_diffusion_gs.data.posed import PosedConfig, PosedScene, PosedSource
from mixtura_diffusion_gs.frames import Array, check_pose, check_size, from_opengl

CAMERAS = "transforms.json"
MILLIMETRES = 0.001
LENS = ("k1", "k2", "k3", "k4", "p1", "p2")
LEAST_DISTORTION = 1e-6


class ViewFoldersConfig(PosedConfig):
    """`sources: {NAME: {type: views, path: data/chairs, kind: object}}`."""

    path: str = Field(description="a folder with a transforms.json, or one with such folders in it, at any depth")
    split: Literal["train", "test"] | None = Field(None, description="only frames that train_filenames or test_filenames name")
    distortion: Literal["refuse", "ignore"] = Field("refuse", description="what to do with lenses that bend (k1, k2, p1, p2)")


class ViewFolders(PosedSource):
    """One item for each folder that has a transforms.json, sorted by path."""

    Config = ViewFoldersConfig

    def __init__(self, config: ViewFoldersConfig, name: str, root: Path) -> None:
        super().__init__(config, name, root)
        self.folder = Path(root) / config.path
        self.folders = camera_folders(self.folder)
        digest = hashlib.blake2b(repr((config.split,)).encode(), digest_size=16)
        for folder in self.folders:
            digest.update(f"{folder.as_posix()}:{(self.folder / folder / CAMERAS).stat().st_size}\n".encode())
        self.info = SourceInfo(
            name, len(self.folders), digest.hexdigest(), loss_unit="item", tags=(config.kind,), max_epochs=config.max_epochs
        )
        self.scene(0)  # a broken layout is said at once

    def scene(self, index: int) -> PosedScene:
        """The scene of a folder; raises DataError naming the file and the frame that is broken."""
        folder = self.folder / self.folders[index]
        data = read_transforms(folder / CAMERAS)
        frames = _chosen(data, self.config.split, folder / CAMERAS)
        names = [f"{folder / CAMERAS}: frame {number}" for number, _ in frames]
        poses = np.stack([_pose(frame, name) for (_, frame), name in zip(frames, names, strict=True)])
        shared = {key: value for key, value in data.items() if key != "frames"}
        settings = [{**shared, **frame} for _, frame in frames]
        if self.config.distortion == "refuse":
            for values, name in zip(settings, names, strict=True):
                _check_lens(values, name)
        name = self.folders[index].as_posix() if self.folders[index].parts else self.folder.name
        return PosedScene(name, poses, partial(_picture, folder, settings, names))


def camera_folders(folder: Path) -> list[Path]:
    """Folders with a transforms.json below `folder`, or itself, relative to it and sorted. DataError when there is none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; `path:` must name a folder with {CAMERAS}, or with folders that have one")
    found = []
    for place, folders, names in os.walk(folder):
        if CAMERAS in names:
            found.append(Path(place).relative_to(folder))
            folders.clear()
        else:
            folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".part"))
    if not found:
        raise DataError(f"{folder}: neither it nor a folder below it has a {CAMERAS}")
    return sorted(found)


def read_transforms(file: Path) -> dict[str, Any]:
    """A transforms.json with a list of frames. Raises DataError when it is something else."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file}: can't be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error})") from error
    frames = data.get("frames") if isinstance(data, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f'{file}: "frames" must be a list of frames, and have at least one')
    return dict(data)


def _chosen(data: dict[str, Any], split: str | None, file: Path) -> list[tuple[int, dict[str, Any]]]:
    """Frames of a split with their numbers in the file."""
    frames = list(enumerate(data["frames"]))
    if split is None:
        return frames
    names = data.get(f"{split}_filenames")
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: `split: {split}` is asked for, it has no {split}_filenames")
    chosen = [pair for pair in frames if pair[1].get("file_path") in set(names)]
    if not chosen:
        raise DataError(f"{file}: {split}_filenames names no picture of a frame")
    return chosen


def _pose(frame: dict[str, Any], name: str) -> Array:
    try:
        pose = np.array(frame["transform_matrix"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name}: a 4 x 4 transform_matrix is needed ({type(error).__name__}: {error})") from error
    check_pose(pose, name)
    return from_opengl(pose)


def _check_lens(values: dict[str, Any], name: str) -> None:
    bent = {key: values[key] for key in LENS if abs(float(values.get(key) or 0)) > LEAST_DISTORTION}
    if bent:
        told = ", ".join(f"{key} = {value:g}" for key, value in bent.items())
        raise DataError(
            f"{name}: the lens bends ({told}); undistort the pictures, or take them as they are with `distortion: ignore`"
        )


def _picture(folder: Path, settings: list[dict[str, Any]], names: list[str], view: int, with_depth: bool) -> Picture:
    values, name = settings[view], names[view]
    path = _inside(folder, values.get("file_path"), name, "file_path")
    image, mask = read_image(path, name)
    intrinsics = read_intrinsics(values, image.shape[1], image.shape[0], name)
    depth = None
    if with_depth and values.get("depth_file_path"):
        unit = float(values.get("depth_unit_scale_factor", MILLIMETRES))
        depth = read_depth(_inside(folder, values["depth_file_path"], name, "depth_file_path"), unit, name)
    return Picture(image, intrinsics, mask, depth)


def _inside(folder: Path, given: Any, name: str, key: str) -> Path:
    """A file that a frame names, which must lie below the folder."""
    if not isinstance(given, str) or not given:
        raise DataError(f"{name}: {key} must name a file, not {given!r}")
    path = folder / given
    if not path.suffix:
        path = path.with_name(path.name + ".png")
    if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)):
        raise DataError(f"{name}: {key} '{given}' leaves the folder of {CAMERAS}")
    return path


def read_intrinsics(values: dict[str, Any], width: int, height: int, name: str) -> Array:
    """fx, fy, cx, cy (4,) of a frame whose picture has this size. Raises DataError when they are missing or of another size."""
    try:
        told = (int(values.get("w", width)), int(values.get("h", height)))
        if "fl_x" in values:
            fx = float(values["fl_x"])
        elif "camera_angle_x" in values:
            fx = 0.5 * told[0] / math.tan(0.5 * float(values["camera_angle_x"]))
        else:
            raise DataError(f"{name}: no intrinsics: fl_x (pixels) or camera_angle_x (radians) is needed")
        fy, cx, cy = (
            float(values.get(key, default)) for key, default in (("fl_y", fx), ("cx", told[0] / 2), ("cy", told[1] / 2))
        )
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{name}: intrinsics must be numbers ({error})") from error
    check_size(told, (width, height), name)
    return np.array([fx, fy, cx, cy])
