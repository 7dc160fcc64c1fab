"""Small folders of posed pictures for the tests of sources: every picture tells its view by its colour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixtura.data.source import Sample
from mixtura_diffusion_gs.frames import from_opengl, inverse


def upright(azimuth: float, elevation: float, distance: float = 2.0) -> np.ndarray:
    """An OpenCV camera (4, 4) on a sphere that looks at the origin; degrees, azimuth 0 on the -y side."""
    a, e = np.radians([azimuth, elevation])
    right, forward = np.array([np.cos(a), np.sin(a), 0]), np.array([-np.sin(a) * np.cos(e), np.cos(a) * np.cos(e), -np.sin(e)])
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, -distance * forward], 1)
    return pose


def ring(count: int, elevation: float = 10.0, start: float = 0.0) -> np.ndarray:
    """Cameras (count, 4, 4) evenly around."""
    return np.stack([upright(start + 360 * number / count, elevation) for number in range(count)])


def colour(view: int) -> tuple[int, int, int]:
    """The colour of a view's picture."""
    return (view, 255 - view, 10)


def views_of(sample: Sample) -> list[int]:
    """The views that a sample shows, told by the colours of the middles of its pictures."""
    size = sample.fields["images"].shape[1]
    return [int(image[size // 2, size // 2, 0]) for image in sample.fields["images"]]


def write_folder(
    folder: Path, c2w: np.ndarray, width: int = 16, height: int = 16, depth: float | None = 2.0, **shared: Any
) -> Path:
    """A folder with transforms.json; depths are the same everywhere. `shared` replaces entries, None takes one away."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for view, pose in enumerate(c2w):
        Image.new("RGBA", (width, height), (*colour(view), 255)).save(folder / f"{view}.png")
        frame: dict[str, Any] = {"file_path": f"{view}.png", "transform_matrix": from_opengl(pose).tolist()}
        if depth is not None:
            Image.fromarray(np.full((height, width), round(depth * 1000), np.uint16)).save(folder / f"{view}_depth.png")
            frame["depth_file_path"] = f"{view}_depth.png"
        frames.append(frame)
    data = {"fl_x": 20.0, "fl_y": 20.0, "cx": width / 2, "cy": height / 2, "w": width, "h": height, "frames": frames, **shared}
    (folder / "transforms.json").write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return folder


def write_clip(folder: Path, name: str, c2w: np.ndarray, width: int = 32, height: int = 18, **frame: Any) -> Path:
    """A scene of RealEstate10K: `NAME.json` and its frames below images/NAME; `frame` replaces entries of every frame."""
    (folder / "images" / name).mkdir(parents=True, exist_ok=True)
    frames = []
    for view, pose in enumerate(c2w):
        path = f"images/{name}/{view:05d}.png"
        Image.new("RGB", (width, height), colour(view)).save(folder / path)
        intrinsics = [20.0, 21.0, width / 2, height / 2]
        frames.append({"image_path": path, "fxfycxcy": intrinsics, "w2c": inverse(pose).tolist(), **frame})
    (folder / f"{name}.json").write_text(json.dumps({"scene_name": name, "frames": frames}))
    return folder


def write_object(folder: Path, item: str, c2w: np.ndarray, size: int = 16) -> Path:
    """An object of G-Objaverse without depths."""
    for view, pose in enumerate(c2w):
        place = folder / item / "campos_512_v4" / f"{view:05d}"
        place.mkdir(parents=True)
        Image.new("RGBA", (size, size), (*colour(view), 255)).save(place / f"{view:05d}.png")
        axes = {key: pose[:3, column].tolist() for column, key in enumerate(("x", "y", "z", "origin"))}
        (place / f"{view:05d}.json").write_text(json.dumps({**axes, "x_fov": 0.6911, "y_fov": 0.6911}))
    return folder
