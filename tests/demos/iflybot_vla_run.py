"""Runs of iFlyBot-VLA small enough to be trained in seconds: one with all heads, one without latent and discrete actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mixtura.config import loads
from mixtura.trainer import train
from mixtura_iflybot_vla.sim.demos import MetaworldDemos, MetaworldDemosConfig

SIDE = 32
SYSTEM: dict[str, Any] = {
    "type": "iflybot_vla", "cameras": ["observation.images.table", "observation.images.side"], "image_size": SIDE, "chunk": 4,
    "latent_span": 4, "noise_samples": 1, "flow_steps": 2, "temperature": 0.5,
    "vlm": {"hidden": 32, "mlp": 48, "vision_hidden": 16, "vision_mlp": 24, "layers": 2},
    "expert": {"hidden": 32},
    "lam": {"dim": 32, "image": 32, "patch": 8, "spatial_layers": 1, "heads": 2, "dim_head": 8, "codes": 4},
}  # fmt: skip
SYNTH: dict[str, Any] = {
    "type": "metaworld_demos", "path": "data/tiny-metaworld", "tasks": ["reach"], "episodes": 2, "image_size": SIDE,
    "storage": "image", "questions_per_episode": 1, "processes": 0,
}  # fmt: skip
WINDOWS = {"action": [0, 1, 2, 3], "observation.images.table": [0, 4]}
POLICY = {"name": "policy", "steps": 60, "train": ["vlm", "expert"], "mixture": {"robot": 1}}
CONFIG: dict[str, Any] = {
    "system": SYSTEM,
    "run": {"name": "iflybot-tiny", "seed": 3},
    "sources": {"robot": {"type": "lerobot", "path": "data/tiny-metaworld/robot", "windows": WINDOWS}},
    "data": {"global_batch": 8, "workers": 0},
    "optim": {"lr": 1e-2},
    "checkpoint": {"every": 100, "keep": 1},
    "log": {"every": 10, "to": ["jsonl"]},
    "stages": [{"name": "codes", "steps": 150, "train": ["lam"], "mixture": {"robot": 1}}, POLICY],
    "evaluate": [{"type": "closed_loop", "tasks": ["reach"], "episodes": 1, "rows": 12, "image_size": SIDE, "at_end": False}],
}
PLAIN = CONFIG | {
    "system": SYSTEM | {"latent": False, "fast": False},
    "run": {"name": "iflybot-plain", "seed": 4},
    "stages": [POLICY | {"steps": 2}],
}


def make(folder: Path) -> Path:
    """Make the data and train both below `folder`; returns the run with all heads, which is the newer one."""
    MetaworldDemos(MetaworldDemosConfig(**SYNTH), root=folder, seed=3).run(lambda text: None)
    for config in (PLAIN, CONFIG):
        train(loads(yaml.safe_dump(config)).config, root=folder)
    return folder / "runs" / CONFIG["run"]["name"]
