"""Posed pictures to a folder that the source `views` reads: transforms.json, images, depths."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixtura_diffusion_gs.furniture.export import camera_to_world, over_nothing, pixels
from mixtura_diffusion_gs.furniture.mesh import Array

DEPTH_STEPS = 65535


def write_views(folder: Path, drawn: dict[str, Array], unit: float, is_transparent: bool, credits: Sequence[str] = ()) -> None:
    """Write what `posed_views` drew into `folder`, which must be there.

    `unit` is what one step of a depth picture means; what is farther than 65535 steps counts as unknown. `is_transparent` keeps
    the alpha of the pictures. transforms.json comes last, so that a folder which has one is whole.
    """
    for kind in ("images", "depths"):
        (folder / kind).mkdir(exist_ok=True)
    frames = []
    for number, view in enumerate(drawn["viewmats"]):
        rgb, alpha, depth = (drawn[name][number] for name in ("images", "alphas", "depths"))
        name = f"{number:03d}.png"
        Image.fromarray(pixels(over_nothing(rgb, alpha) if is_transparent else rgb)).save(folder / "images" / name)
        Image.fromarray(steps(depth, unit)).save(folder / "depths" / name)
        frames.append(
            {
                "file_path": f"images/{name}",
                "depth_file_path": f"depths/{name}",
                "transform_matrix": camera_to_world(view).tolist(),
            }
        )
    shared = {**intrinsics(drawn), "depth_unit_scale_factor": unit, "credits": list(credits)}
    (folder / "transforms.json").write_text(json.dumps({**shared, "frames": frames}) + "\n")


def steps(depth: Array, unit: float) -> NDArray[np.uint16]:
    """Depths [H, W] as 16-bit steps of `unit`; 0 for none, and for what is too far to be written."""
    counted = np.rint(depth / unit)
    return np.where(counted <= DEPTH_STEPS, counted, 0).astype(np.uint16)


def intrinsics(drawn: dict[str, Array]) -> dict[str, Any]:
    """The entries of transforms.json that all frames share."""
    height, width = drawn["images"].shape[1:3]
    (focal_x, _, centre_x), (_, focal_y, centre_y), _ = drawn["Ks"][0].astype(float).tolist()
    angle = 2 * math.atan(width / 2 / focal_x)
    return {
        "camera_model": "OPENCV", "camera_angle_x": angle,
        "fl_x": focal_x, "fl_y": focal_y, "cx": centre_x, "cy": centre_y, "w": width, "h": height,
    }  # fmt: skip
