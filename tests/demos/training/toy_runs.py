"""Runs of the toy system that have what the training page shows: two stages and sources, an evaluator, bad samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from mixtura.config import loads
from mixtura.config.show import annotated
from mixtura.trainer import train

CONFIG: dict[str, Any] = {
    "system": {"type": "toy", "hidden": 8},
    "run": {"name": "slow-and-fast", "seed": 3},
    "sources": {"slow": {"type": "toy", "size": 60, "bad": [3, 5]}, "fast": {"type": "toy", "size": 60, "frequency": 3.0}},
    "data": {"global_batch": 8, "workers": 0, "heldout": 0.2, "max_bad": 0.5},
    "log": {"every": 1, "to": ["jsonl"]},
    "train": {"threads": 1},
    "stages": [
        {"name": "begin", "steps": 12, "mixture": {"slow": 1}},
        {"name": "both", "steps": 16, "mixture": {"slow": 1, "fast": 3}},
    ],
    "evaluate": [{"type": "heldout_loss", "every": 14, "at_start": True}],
}


SEEN = {
    "kind": "eval",
    "step": 28,
    "name": "drawing",
    "scalars": {"error": 0.25},
    "tables": {"By shape": [{"shape": "circle", "successes": 3, "trials": 4}, {"shape": "square", "successes": 1, "trials": 4}]},
    "media": {"What it draws": "eval/drawing.png"},
}
"""What an evaluator with tables and pictures leaves in the log; the toy system's has neither."""


def make(folder: Path, name: str = "slow-and-fast", seed: int = 3) -> Path:
    """Train below `folder` as the command does; returns the run."""
    loaded = loads(yaml.safe_dump(CONFIG, sort_keys=False), [f"run.name={name}", f"run.seed={seed}"], name="toy.yaml")
    train(loaded.config, root=folder, text=annotated(loaded))
    run = folder / "runs" / name
    (run / "eval").mkdir(exist_ok=True)
    Image.new("RGB", (64, 48), (30 + seed, 120, 160)).save(run / "eval" / "drawing.png")
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(SEEN) + "\n")
    return run
