"""The trainer's time per step over that of a bare PyTorch loop, same network, same samples, same way of loading.

    python benchmarks/loop.py [--steps 60] [--rounds 4]

The bare loop reads with a plain DataLoader, computes the same losses, clips, steps the same fused AdamW, and nothing else.
Both take turns, a step is the time from one optimizer step to the next, summaries are means of the middle half.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from common import keep, middle, say
from torch.utils.data import DataLoader, Dataset

from mixtura.config import RunConfig, loads
from mixtura.data.sources import open_sources
from mixtura.rng import KeyedRng, SampleNoise
from mixtura.system import StepContext
from mixtura.testing import ToySystem
from mixtura.trainer import Trainer, train

CONFIG = """
system: {{type: toy, hidden: {hidden}, layers: {layers}}}
run: {{name: loop, seed: 1}}
sources:
  a: {{type: toy, size: 20000, points: 9}}
  b: {{type: toy, size: 20000, points: 9, frequency: 2.0}}
  c: {{type: toy, size: 20000, points: 9, frequency: 3.0}}
data: {{global_batch: 64, workers: {workers}}}
log: {{every: 10, to: [jsonl]}}
stages: [{{name: only, steps: {steps}, mixture: {{a: 3, b: 2, c: 1}}}}]
"""
SIZES = {"large": (1152, 8), "small": (128, 3)}
WARM = 5


def trainer_steps(config: RunConfig) -> list[float]:
    """Seconds from step to step of a run of ours."""
    ends: list[float] = []
    real = Trainer.step

    def timed(self: Trainer, data: Any) -> None:
        real(self, data)
        ends.append(time.perf_counter())

    Trainer.step = timed  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(config, root=Path(folder))
    finally:
        Trainer.step = real  # type: ignore[method-assign]
    return [b - a for a, b in zip(ends[WARM:], ends[WARM + 1 :], strict=False)]


class Plain(Dataset[Any]):
    """The three toy sources one after the other, batches of 64 by index."""

    def __init__(self, config: RunConfig, system: ToySystem) -> None:
        self.sources = list(open_sources(config.sources, Path()).values())
        self.system = system

    def __getitem__(self, items: list[tuple[int, int]]) -> Any:
        return self.system.collate([self.sources[k].read(i, KeyedRng(k, i)) for k, i in items])


def batches(steps: int) -> Iterator[list[tuple[int, int]]]:
    """Items of every step: shares 3, 2, 1 of the sources."""
    numbers = torch.Generator().manual_seed(0)
    for _ in range(steps):
        source = torch.multinomial(torch.tensor([3.0, 2.0, 1.0]), 64, True, generator=numbers)
        item = torch.randint(20000, (64,), generator=numbers)
        yield list(zip(source.tolist(), item.tolist(), strict=True))


def bare_steps(config: RunConfig) -> list[float]:
    """Seconds from step to step of a loop that only trains."""
    workers = config.data.workers
    torch.manual_seed(0)
    system = ToySystem(config.system)
    optimizer = torch.optim.AdamW(system.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    options: dict[str, Any] = {"prefetch_factor": 2} if workers else {}
    data = DataLoader(Plain(config, system), batch_size=None, sampler=batches(config.steps), num_workers=workers, **options)  # type: ignore[arg-type]
    noise, zeros = SampleNoise(KeyedRng(0), list(range(64))), torch.zeros(64, dtype=torch.long)
    ends = []
    for step, batch in enumerate(data):
        context = StepContext(step, "only", step, config.steps, KeyedRng(0), noise, zeros, ("a",))
        loss = sum(term.total / term.count for term in system.losses(batch, context).values())
        loss.backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(system.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ends.append(time.perf_counter())
    return [b - a for a, b in zip(ends[WARM:], ends[WARM + 1 :], strict=False)]


def main() -> None:
    """Measure both sizes, both ways of loading."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    figures = {}
    for size, (hidden, layers) in SIZES.items():
        for workers in (0, 1):
            text = CONFIG.format(hidden=hidden, layers=layers, workers=workers, steps=given.steps)
            config = loads(text, name="loop").config
            bare: list[float] = []
            ours: list[float] = []
            ratios = []
            for _ in range(given.rounds):
                a, b = bare_steps(config), trainer_steps(config)
                bare += a
                ours += b
                ratios.append(middle(b) / middle(a))
            one, two = middle(bare), middle(ours)
            name = f"{size}, {workers} workers"
            figures[name] = {
                "bare_ms": 1e3 * one,
                "trainer_ms": 1e3 * two,
                "ratio": two / one,
                "overhead_ms": 1e3 * (two - one),
                "ratios": ratios,
            }
            rounds = ", ".join(f"{r:.3f}" for r in ratios)
            say(
                f"{name:<18} bare {1e3 * one:7.2f} ms  trainer {1e3 * two:7.2f} ms  ratio {two / one:.3f}  overhead "
                f"{1e3 * (two - one):.2f} ms/step  (rounds {rounds})"
            )
    keep("loop", figures)


if __name__ == "__main__":
    main()
