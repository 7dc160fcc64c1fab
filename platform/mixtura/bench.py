"""`mixtura bench`: a toy run that tells within seconds what the training loop and the loader manage on this machine.

The toy network is so small that the figures are those of the machinery, an upper bound for real systems. Side-by-side
measurements with a bare PyTorch loop are in `benchmarks/`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mixtura.config import RunConfig, loads

Say = Callable[[str], None]

STEPS, WARM_STEPS = 200, 20
CONFIG = """
system: {type: toy, hidden: 64}
run: {name: bench, seed: 1}
sources:
  slow: {type: toy, frequency: 1.0, size: 2000}
  fast: {type: toy, frequency: 3.0, size: 2000}
data: {global_batch: 32, workers: 1}
log: {every: 20, to: [jsonl]}
stages:
  - {name: toy, steps: 200, mixture: {slow: 2, fast: 1}}
"""


def run(say: Say) -> dict[str, float]:
    """Measure, tell, and return figures: steps/s of training, samples/s of the loader."""
    figures: dict[str, float] = {}
    for workers in (0, 1):
        config = loads(CONFIG, [f"data.workers={workers}", f"stages.0.steps={STEPS}"], name="bench").config
        figures[f"loader samples/s, {workers} workers"] = _loader(config)
        figures[f"training steps/s, {workers} workers"] = _training(config)
    for name, value in figures.items():
        say(f"{name:<32} {value:>10,.0f}")
    return figures


def _training(config: RunConfig) -> float:
    """Steps per second once the run is warm, from the run's own log."""
    from mixtura.trainer import train

    with tempfile.TemporaryDirectory() as folder:
        train(config, root=Path(folder))
        lines = map(json.loads, (Path(folder) / config.run.dir / "log.jsonl").read_text().splitlines())
        seconds: list[float] = [line["step_s"] for line in lines if line["kind"] == "train" and line["step"] > WARM_STEPS]
    return len(seconds) / sum(seconds)


def _loader(config: RunConfig) -> float:
    """Samples per second when nothing is trained."""
    from mixtura.data.loader import StageLoader
    from mixtura.data.mixture import normalised
    from mixtura.data.plan import Planner
    from mixtura.data.sources import open_sources
    from mixtura.plugins import registry

    stage, data = config.stages[0], config.data
    sources = open_sources(config.sources, Path.cwd())
    system = registry().get("system", config.system.type)(config.system)
    mixer = registry().get("mixer", stage.mixer.type)(stage.mixer)
    infos = [source.info for source in sources.values()]
    planner = Planner(
        infos,
        mixer,
        normalised(stage.mixture, list(sources), stage.name),
        seed=0,
        stage=stage.name,
        stage_steps=stage.steps,
        global_batch=data.global_batch,
    )
    loader = StageLoader(
        planner, sources, system, seed=0, stage=stage.name, start=0, workers=data.workers, prefetch=data.prefetch
    )
    began, steps = 0.0, 0
    for number, _ in enumerate(loader):
        if number == WARM_STEPS:
            began = time.perf_counter()
        steps = number - WARM_STEPS
    return steps * data.global_batch / (time.perf_counter() - began)
