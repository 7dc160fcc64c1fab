"""A run of LivePortrait small enough to be trained in seconds: it has every part, and paints mud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mixtura import checkpoint
from mixtura.config import loads
from mixtura.trainer import train

FACES = {"type": "faces", "identities": 4, "clips": 1, "frames": 20, "size": 32, "cross": True}
PAINTING = ("appearance", "motion", "warping", "generator", "reader")
CONFIG: dict[str, Any] = {
    "system": {
        "type": "live_portrait", "image": 32, "keypoints": 21, "base": 4, "downs": 1, "channels": 4, "depth": 2, "resblocks": 1,
        "motion_depths": [1, 1], "motion_dims": [8, 16], "bins": 16, "compress": 2, "dense_base": 4, "dense_max": 8,
        "dense_blocks": 2, "generator": 8, "middle": 1, "painted": 4, "shared": 4, "shuffle": 1, "stitching": [8], "eyes": [8],
        "lips": [8], "crop": 16, "patch": 8, "reader": [4, 8], "critics": {"width": 4, "widest": 8, "blocks": 2},
        "calibration": 4,
    },
    "run": {"name": "live-portrait-quickstart", "seed": 5},
    "sources": {"clips": FACES},
    "data": {"global_batch": 4, "workers": 0},
    "optim": {"lr": 1e-3},
    "checkpoint": {"every": 2, "keep": 1},
    "log": {"every": 1, "to": ["jsonl"]},
    "stages": [
        {"name": "paint", "steps": 2, "train": list(PAINTING), "mixture": {"clips": 1}},
        {"name": "adjust", "steps": 2, "train": ["stitching", "eyes", "lips"], "mixture": {"clips": 1}},
    ],
}  # fmt: skip
"""21 keypoints, so that lips and eyes are known to be where the published networks have them."""


HEADS = {"exp": 20, "t": 20, "scale": 10, "pitch": 100, "yaw": 100, "roll": 100}
FACTORS = {
    **{f"motion.detector.fc_{name}.weight": factor for name, factor in HEADS.items()},
    **{f"warping.dense_motion_network.occlusion.{name}": 0.0 for name in ("weight", "bias")},
    "generator.conv_img.weight": 5,
}
"""Makes of networks that have learnt nothing yet, and paint the same grey always, some whose mud moves with the face."""


def make(folder: Path) -> Path:
    """Train below `folder`; returns the run."""
    train(loads(yaml.safe_dump(CONFIG)).config, root=folder)
    run = folder / "runs" / CONFIG["run"]["name"]
    weights = checkpoint.locate(run)
    system, _ = checkpoint.load_system(weights)
    state = system.state_dict()
    for name, factor in FACTORS.items():
        state[name] *= factor
    (weights / "DONE").unlink()
    checkpoint.write_weights(weights, state)
    checkpoint.write_done(weights)
    return run
