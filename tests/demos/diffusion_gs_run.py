"""Runs of DiffusionGS small enough to be trained in seconds: balls, red on one side and blue on the other."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from mixtura.config import loads
from mixtura.trainer import train
from mixtura_diffusion_gs.frames import from_opengl

SIZE, VIEWS, DISTANCE, FOCAL = 16, 12, 3.0, 22.0
RED, BLUE = np.array([200, 40, 40]), np.array([40, 60, 200])
CONFIG: dict[str, Any] = {
    "system": {
        "type": "diffusion_gs", "width": 32, "layers": 2, "head_dim": 16, "patch": 4, "image_size": SIZE, "steps": 6,
        "fov": {"object": 40, "scene": 40}, "depth": {"scene": {"rule": "range", "far": 4}},
    },
    "run": {"name": "diffusion-gs-quickstart", "seed": 5},
    "sources": {
        "balls": {
            "type": "views", "path": "balls", "kind": "object", "size": SIZE, "views": {"rule": "around", "novel": 2},
        },
        "rooms": {
            "type": "views", "path": "rooms", "kind": "scene", "size": SIZE, "views": {"rule": "random", "novel": 2},
            "frame": {"type": "scene", "scale": 0.5},
        },
    },
    "data": {"global_batch": 4, "workers": 0},
    "optim": {"lr": 3e-3},
    "checkpoint": {"every": 1000, "keep": 1},
    "log": {"every": 100, "to": ["jsonl"]},
    "stages": [{"name": "mixed", "steps": 40, "mixture": {"balls": 0.75, "rooms": 0.25}, "loss": {"points": 0.025}}],
}  # fmt: skip


def make(folder: Path) -> Path:
    """Train a regressor for a step and a diffusion model below `folder`; returns the run of the latter."""
    for number in range(2):
        write_views(folder / "balls" / str(number), 10.0 + 10 * number, 30.0 * number, 360.0)
        write_views(folder / "rooms" / str(number), 20.0, 30.0 * number, 60.0)
    regressor = copy.deepcopy(CONFIG)
    regressor["system"]["objective"] = "regression"
    regressor["run"]["name"] = "diffusion-gs-regressor"
    regressor["stages"][0]["steps"] = 1
    for config in (regressor, CONFIG):
        train(loads(yaml.safe_dump(config)).config, root=folder)
    return folder / "runs" / CONFIG["run"]["name"]


def write_views(folder: Path, elevation: float, start: float, span: float) -> None:
    """A ball of radius 0.7 around the origin, seen by cameras on an arc of `span` degrees."""
    folder.mkdir(parents=True)
    frames = []
    for view in range(VIEWS):
        turn, rise = np.radians(start + span * view / VIEWS), np.radians(elevation)
        right = np.array([np.cos(turn), np.sin(turn), 0])
        forward = np.array([-np.sin(turn) * np.cos(rise), np.cos(turn) * np.cos(rise), -np.sin(rise)])
        pose = np.eye(4)
        pose[:3] = np.stack([right, np.cross(forward, right), forward, -DISTANCE * forward], 1)
        Image.fromarray(ball(pose[:3, :3])).save(folder / f"{view}.png")
        frames.append({"file_path": f"{view}.png", "transform_matrix": from_opengl(pose).tolist()})
    data = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": SIZE / 2, "cy": SIZE / 2, "w": SIZE, "h": SIZE, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(data))


def ball(axes: np.ndarray) -> np.ndarray:
    """The ball's picture (S, S, 4) uint8 from a camera with these axes (3, 3), seen as from far away."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2) / (0.7 * FOCAL / DISTANCE)
    depth = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    normal = np.stack([x, y, -depth], -1) @ axes.T
    light = 0.6 + 0.4 * np.clip(normal[..., 2], 0, 1)
    colour = np.where(normal[..., :1] > 0, RED, BLUE) * light[..., None]
    return np.dstack([colour, 255 * (x**2 + y**2 < 1)]).astype(np.uint8)
