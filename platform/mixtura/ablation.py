"""`mixtura ablate`: train the variants of a configuration over several seeds and put them into one table.

Every run is an ordinary run in a process of its own, `NAME-VARIANT-SEED`: it can be looked at, stopped and resumed like
any other, and what is finished is never trained again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mixtura.config import RunConfig, load
from mixtura.errors import ConfigError, RunError
from mixtura.metrics.control import mean_interval
from mixtura.run import processor

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One run of the comparison."""

    variant: str
    seed: int
    folder: Path
    command: list[str]

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        log = self.folder / "log.jsonl"
        return log.exists() and '"kind": "done"' in log.read_text()[-4096:]


def jobs_of(file: Path, settings: Sequence[str], root: Path) -> tuple[RunConfig, list[Job]]:
    """All runs of a configuration's `ablation:`, variants in its order; every variant's settings are checked first."""
    config = load(file, settings).config
    if config.ablation is None:
        raise ConfigError(
            f"{file}: has no `ablation:` section; it names variants, as `variants: {{full: {{}}, small: {{system.size: tiny}}}}`"
        )
    jobs = []
    for variant, changes in config.ablation.variants.items():
        for seed in config.ablation.seeds:
            words = [
                f"{path}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}"
                for path, value in changes.items()
            ]
            words = [*settings, *words, f"run.name={config.run.name}-{variant}-{seed}", f"run.seed={seed}"]
            one = load(file, words).config
            command = [sys.executable, "-m", "mixtura", "train", str(file), "--root", str(root), *words]
            jobs.append(Job(variant, seed, root / one.run.dir, command))
    return config, jobs


def ablate(file: Path, settings: Sequence[str], root: Path, at_once: int, out: Path | None, say: Say) -> Path:
    """Train what isn't trained yet, `at_once` runs at a time, and write the table. Raises RunError when a run fails."""
    config, jobs = jobs_of(file, settings, root)
    waiting = [job for job in jobs if not job.finished]
    say(f"{len(jobs)} runs, {len(jobs) - len(waiting)} of them finished")
    active: list[tuple[Job, subprocess.Popen[bytes], float]] = []
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // max(at_once, 1)))
    try:
        while waiting or active:
            while waiting and len(active) < at_once:
                job = waiting.pop(0)
                job.folder.mkdir(parents=True, exist_ok=True)
                words = [*job.command, "--resume"] if (job.folder / "config.yaml").exists() else job.command
                with (job.folder / "output.txt").open("ab") as output:
                    child = subprocess.Popen(words, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": threads})
                active.append((job, child, time.monotonic()))
            time.sleep(0.2)
            for entry in [e for e in active if e[1].poll() is not None]:
                job, child, began = entry
                active.remove(entry)
                if child.returncode:
                    raise RunError(
                        f"variant '{job.variant}', seed {job.seed} ended with code {child.returncode}; see "
                        f"{job.folder / 'output.txt'}"
                    )
                say(f"{job.variant}, seed {job.seed}: {time.monotonic() - began:.0f} s, {len(waiting) + len(active)} left")
    finally:
        for _, child, _ in active:
            child.terminate()
    page = out or root / "runs" / f"{config.run.name}-ablation.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    text, records = table(config, jobs)
    page.write_text(text)
    page.with_suffix(".json").write_text(json.dumps(records, indent=1))
    say(text)
    say(f"written: {page}")
    return page


def last_scalars(folder: Path) -> dict[str, float]:
    """Scalars of the last evaluations of a run (by name of the scalar)."""
    found: dict[str, float] = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "eval":
            found.update(record["scalars"])
    return found


def table(config: RunConfig, jobs: Sequence[Job]) -> tuple[str, list[dict[str, Any]]]:
    """Markdown with mean and 95 % t-interval over seeds, single values in brackets; and the values as records."""
    assert config.ablation is not None
    names = config.ablation.measure
    lines = ["| variant | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    records = []
    for variant in config.ablation.variants:
        cells = []
        mine = [job for job in jobs if job.variant == variant]
        values = {job.seed: last_scalars(job.folder) for job in mine}
        records.append({"variant": variant, "seeds": {str(seed): found for seed, found in values.items()}})
        for name in names:
            missing = [seed for seed, found in values.items() if name not in found]
            if missing:
                raise ConfigError(
                    f"ablation.measure: no evaluation gives '{name}'; there are {', '.join(sorted(values[missing[0]]))}"
                )
            given = [found[name] for found in values.values()]
            mean, low, high = mean_interval(given)
            cells.append(f"{mean:.3f} [{low:.3f}, {high:.3f}] ({', '.join(f'{value:.3g}' for value in given)})")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    seeds = ", ".join(map(str, config.ablation.seeds))
    lines += [
        "",
        f"Mean, 95 % t-interval and single values over seeds {seeds}; {config.steps} steps in all stages; "
        f"{os.cpu_count()} cores of {processor()}.",
    ]
    return "\n".join(lines) + "\n", records
