"""Scenes on disk: PNG pictures, `transforms.json` as NeRF programs read it, a contact sheet, and credits.

`transform_matrix` is camera-to-world in OpenGL axes (x right, y up, z backward), as is customary there; `train_filenames` and
`test_filenames` name the splits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .cameras import SPLITS
from .mesh import Array
from .scenes import Scene, posed_views

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def write_scene(scene: Scene, folder: Path, size: int, views: int, held_out: int) -> None:
    """Draw a scene and write its pictures, `transforms.json`, `contact.png` and `CREDITS.txt` into `folder`.

    Objects are written as RGBA with a transparent background, rooms as RGB; `size` in pixels, `views` and `held_out` count the
    pictures of each split.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    counts = zip(SPLITS, (views, held_out), strict=True)
    drawn = {split: posed_views(scene, count, size, split) for split, count in counts if count}
    names = {split: [f"images/{split}_{i:03d}.png" for i in range(len(arrays["images"]))] for split, arrays in drawn.items()}
    for split, arrays in drawn.items():
        for name, rgb, alpha in zip(names[split], arrays["images"], arrays["alphas"], strict=True):
            Image.fromarray(pixels(rgb if scene.is_room else over_nothing(rgb, alpha))).save(folder / name)
    (folder / "transforms.json").write_text(json.dumps(transforms(scene, drawn, names), indent=1) + "\n")
    write_credits(folder / "CREDITS.txt", scene.credits)
    contact_sheet([picture for arrays in drawn.values() for picture in arrays["images"]]).save(folder / "contact.png")


def transforms(scene: Scene, drawn: dict[str, dict[str, Array]], names: dict[str, list[str]]) -> dict[str, Any]:
    """The content of `transforms.json` for pictures by split."""
    first = next(iter(drawn.values()))
    height, width = first["images"].shape[1:3]
    (focal_x, _, centre_x), (_, focal_y, centre_y), _ = first["Ks"][0].astype(float).tolist()
    frames = [
        {"file_path": name, "transform_matrix": camera_to_world(view).tolist()}
        for split, arrays in drawn.items()
        for name, view in zip(names[split], arrays["viewmats"], strict=True)
    ]
    return {
        "camera_model": "OPENCV",
        "camera_angle_x": math.radians(scene.field_of_view),
        "fl_x": focal_x, "fl_y": focal_y, "cx": centre_x, "cy": centre_y, "w": width, "h": height,
        "train_filenames": names.get("train", []),
        "test_filenames": names.get("held_out", []),
        "frames": frames,
    }  # fmt: skip


def camera_to_world(viewmat: Array) -> Array:
    """An OpenCV viewmat [4, 4] (world to camera) as OpenGL camera to world."""
    return np.linalg.inv(viewmat.astype(np.float64)) @ OPENGL


def over_nothing(rgb: Array, alpha: Array) -> Array:
    """Colours [H, W, 3] that were blended over white, as RGBA [H, W, 4] with straight alpha."""
    solid = np.maximum(alpha, 1e-6)[..., None]
    colour = np.clip((rgb - (1 - alpha[..., None])) / solid, 0, 1)
    return np.concatenate([np.where(alpha[..., None] > 0, colour, 0), alpha[..., None]], 2)


def pixels(image: Array) -> NDArray[np.uint8]:
    """0..1 as 0..255."""
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def contact_sheet(pictures: Sequence[Array], columns: int = 8) -> Image.Image:
    """Pictures [H, W, 3] of one size in rows."""
    rows = -(-len(pictures) // columns)
    height, width = pictures[0].shape[:2]
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(pixels(picture)), (number % columns * width, number // columns * height))
    return sheet


def write_credits(path: Path, lines: Iterable[str]) -> None:
    """Who made the models and under which licence."""
    text = "\n".join(dict.fromkeys(lines))
    path.write_text(f"These pictures show 3D models, scaled and drawn anew, of\n\n{text}\n", encoding="utf-8")
