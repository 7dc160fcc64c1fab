"""`mixtura train --dry-run`: build everything, train nothing, tell sizes, memory, the mixture and the first batch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixtura.config import RunConfig
from mixtura.data.loader import Reader
from mixtura.data.mixture import normalised
from mixtura.data.plan import Planner
from mixtura.data.sources import open_sources
from mixtura.plugins import registry
from mixtura.probes import heldout_count
from mixtura.stage import check_parts, choose_trained

Say = Callable[[str], None]
BYTES_TRAINED = 16
"""Per trained weight in float32: the weight, its gradient and AdamW's two averages."""


def dry_run(config: RunConfig, root: Path, say: Say) -> None:
    """Check a configuration as far as that goes without training. Sources that aren't there yet are told, not read."""
    with torch.device("meta"):
        meta = registry().get("system", config.system.type)(config.system)
    parts = meta.parts()
    check_parts(config, parts)
    for name, part in parts.items():
        say(f"part {name:<20} {sum(p.numel() for p in part.parameters()):>16,} weights")
    if config.init_from and (root / config.init_from).is_file():
        say(f"init_from {config.init_from}: {meta.check_published(root / config.init_from)}")
    for stage in config.stages:
        choose_trained(meta, parts, stage)
        trained = sum(p.numel() for p in meta.parameters() if p.requires_grad)
        whole = sum(p.numel() for p in meta.parameters())
        ema = 4 * whole if config.train.ema else 0
        memory = (BYTES_TRAINED * trained + 4 * (whole - trained) + ema) / 2**30
        total = sum(stage.mixture.values()) or 1
        shares = ", ".join(f"{name} {weight / total:.1%}" for name, weight in sorted(stage.mixture.items()))
        say(
            f"stage {stage.name}: {stage.steps:,} steps, {trained:,} weights train, {memory:.2f} GiB without "
            f"activations; mixture {shares}"
        )
    if any(getattr(section, "path", None) and not _there(section.path, root) for section in config.sources.values()):
        say("the data of a source is not there yet (mixtura data synth makes what `synth:` describes); batches were not tried")
        return
    _first_batches(config, root, say)


def _there(path: Any, root: Path) -> bool:
    first = path if isinstance(path, str) else path[0]
    return "{" in first or "*" in first or (root / first).exists()


def _first_batches(config: RunConfig, root: Path, say: Say) -> None:
    """Plan and collate the first step of every stage with a freshly built system."""
    sources = open_sources(config.sources, root)
    system = registry().get("system", config.system.type)(config.system)
    with tempfile.TemporaryDirectory() as scratch:
        assets = Path(scratch) / "assets"
        assets.mkdir()
        system.prepare(sources, assets)
        system.load_assets(assets)
        for stage in config.stages:
            choose_trained(system, system.parts(), stage)
            system.start_stage(stage.name, sources, Path(scratch))
            names = sorted(stage.mixture)
            infos = [sources[name].info for name in names]
            held = [heldout_count(info.size, config.data.heldout) for info in infos]
            mixer = registry().get("mixer", stage.mixer.type)(stage.mixer)
            prior = normalised(stage.mixture, names, f"stage '{stage.name}'")
            planner = Planner(
                infos,
                mixer,
                prior,
                seed=config.run.seed,
                stage=stage.name,
                stage_steps=stage.steps,
                global_batch=config.data.global_batch,
                heldout=held,
            )
            plan = planner.step(0)
            assert plan is not None
            reader = Reader(
                {n: sources[n] for n in names},
                system,
                config.run.seed,
                stage.name,
                config.data.batching,
                config.data.micro_batch,
                config.data.pack,
            )
            samples = [reader.read(slot, []) for slot in plan.slots]
            for members in reader.group(plan.slots, samples):
                batch = reader.collate([samples[i] for i in members])
                shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in batch.items() if isinstance(value, Tensor))
                counts = ", ".join(f"{key} {float(value):g}" for key, value in system.counts(batch).items())
                say(f"stage {stage.name}: a micro-batch of {len(members)} samples: {shapes}; valid items: {counts}")
