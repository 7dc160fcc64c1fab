"""What `mixtura data` does: check sources against a configuration, and index tar shards.

`check` tells sizes, planned shares, epochs and speed. See `preview.py` for pages of samples and `convert.py` for other formats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixtura.config.schema import RunConfig, Stage
from mixtura.data.convert import convert
from mixtura.data.formats.webdataset import expand
from mixtura.data.mixture import normalised
from mixtura.data.preview import preview
from mixtura.data.source import Sample, Source
from mixtura.data.sources import open_sources
from mixtura.data.tar_index import open_index
from mixtura.errors import BadSample
from mixtura.plugins import registry
from mixtura.rng import KeyedRng

__all__ = ["check", "convert", "index", "preview"]
Say = Callable[[str], None]
SHOWN, TIMED, SECONDS = 3, 200, 2.0
"""Samples of each source that are described; samples and seconds that the speed is measured over, at most."""


def check(config: RunConfig, root: Path, say: Say) -> None:
    """Tell of every source: size, mean unit, some decoded samples, speed; of every stage: share and epochs of its sources."""
    sources = open_sources(config.sources, root)
    if not sources:
        say("nothing to check: the configuration has no `sources:` section")
    for name, source in sources.items():
        _check_source(name, source, say)
    for stage in config.stages:
        say(f"\nstage {stage.name}: {stage.steps} steps of {config.data.global_batch} samples")
        for line in stage_lines(config, stage, sources):
            say(line)


def _check_source(name: str, source: Source, say: Say) -> None:
    info = source.info
    cap = "" if info.max_epochs is None else f", at most {info.max_epochs:g} epochs"
    say(f"\nsource {name}: {info.size} samples of {info.unit_size:.4g} {info.unit}{cap}, fingerprint {info.fingerprint[:16]}")
    for place in np.unique(np.linspace(0, info.size - 1, SHOWN).astype(int)).tolist():
        try:
            sample = source.read(place, KeyedRng("check", name, place))
            say(f"  [{place}] {sample.key}: {described(sample)}")
        except BadSample as error:
            say(f"  [{place}] can't be read: {error}")
    read, bad, speed = measured(source)
    say(f"  {speed:.0f} samples/s in one process, random order, over {read} samples; {bad} of them can't be read")


def measured(source: Source) -> tuple[int, int, float]:
    """(samples tried, unreadable ones, samples per second) for reading in random order."""
    order = KeyedRng("speed", source.info.name).numpy().permutation(source.info.size)[:TIMED].tolist()
    bad = done = 0
    began = time.perf_counter()
    for place in order:
        try:
            source.read(place, KeyedRng("speed", place))
        except BadSample:
            bad += 1
        done += 1
        if time.perf_counter() - began > SECONDS:
            break
    return done, bad, done / max(time.perf_counter() - began, 1e-9)


def stage_lines(config: RunConfig, stage: Stage, sources: Mapping[str, Source]) -> list[str]:
    """A line for each source of a stage: planned share, and epochs of it used at the stage's end."""
    names = sorted(stage.mixture)
    infos = [sources[name].info for name in names]
    mixer = registry().get("mixer", stage.mixer.type)(stage.mixer)
    mixer.setup(infos, stage.steps, normalised(stage.mixture, names, f"stage '{stage.name}'"))
    steps = np.unique(np.linspace(0, stage.steps - 1, TIMED).astype(int))
    weights = np.mean([np.asarray(mixer.plan(int(step)).weights, np.float64) for step in steps], axis=0)
    lines = []
    for info, weight in zip(infos, weights / weights.sum(), strict=True):
        samples = stage.steps * config.data.global_batch * weight
        epochs = samples / max(info.size - int(config.data.heldout * info.size), 1)
        note = " (off)" if weight == 0 else ""
        if info.max_epochs is not None and epochs > info.max_epochs and config.data.when_exhausted != "repeat":
            note = f" (reaches max_epochs {info.max_epochs:g} first; when_exhausted: {config.data.when_exhausted})"
        lines.append(f"  {info.name}: share {weight:.2%}, {samples:.0f} samples, {epochs:.3g} epochs at the end{note}")
    if mixer.needs:
        lines.append(f"  mixer {stage.mixer.type} learns its shares; these are the ones it starts from")
    return lines


def described(sample: Sample) -> str:
    """Fields of a sample in a line: types and shapes of arrays, the start of texts."""
    return ", ".join(f"{name} {short(value)}" for name, value in sample.fields.items())


def short(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float)):
        return f"[{len(value)} x {short(value[0])}]"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]


def index(paths: Sequence[Path], say: Say) -> None:
    """Index tar shards (braces and wildcards are expanded) and tell how many samples each holds."""
    total = 0
    for path in expand([str(path) for path in paths], Path()):
        began = time.perf_counter()
        shard = open_index(path)
        total += len(shard)
        say(f"{path}: {len(shard)} samples ({', '.join(shard.extensions)}) in {time.perf_counter() - began:.2f} s")
    say(f"{total} samples")
