"""Signals for mixers beyond the training loss: held-out losses, gradient sketches; and the `heldout_loss` evaluator.

A probe never touches the state of training: gradients are taken aside, random numbers are keyed by the probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from mixtura.data.mixers.base import Needs, ProbeRequest
from mixtura.data.plan import split_order
from mixtura.data.source import Sample, Source
from mixtura.errors import BadSample, ConfigError
from mixtura.evaluate import EvalContext, EvalResult, EvaluatorConfig
from mixtura.rng import KeyedRng, SampleNoise, key64
from mixtura.sharding import to_device
from mixtura.system import StepContext, System

SKETCH = 4096
DELIVERED = Needs.TRAIN_LOSS | Needs.HELDOUT_LOSS | Needs.GRAD_SKETCH | Needs.TARGET_GRAD | Needs.PROBE_BURST
"""What this trainer measures; a mixer that needs more is refused when its stage starts."""


def check_needs(needs: Needs, mixer: str, heldout: bool) -> None:
    """Refuse a mixer whose signals can't be given."""
    wanted = needs & ~DELIVERED
    if wanted:
        raise ConfigError(f"mixer '{mixer}' needs {wanted}; the trainer delivers {DELIVERED}")
    if needs & (Needs.HELDOUT_LOSS | Needs.TARGET_GRAD) and not heldout:
        raise ConfigError(f"mixer '{mixer}' measures held-out samples; set data.heldout (0.05, say) to keep some from training")


def heldout_items(seed: int, source: Source, share: float) -> list[int]:
    """Items of a source that are never trained on: the last ones of its fixed keyed order."""
    held = heldout_count(len(source), share)
    size = len(source)
    return split_order(seed, source.info).order(np.arange(size - held, size)).tolist() if held else []


def heldout_count(size: int, share: float) -> int:
    """How many of `size` items are held out; at least one when anything is, never all."""
    return min(size - 1, max(1, round(size * share))) if share > 0 else 0


def sketch(named: Sequence[tuple[str, Tensor | None]], width: int = SKETCH) -> Tensor:
    """Count-sketch (width,) float32 of named gradients: every entry goes to a hashed cell with a hashed sign.

    Inner products of sketches estimate inner products of gradients without bias (Charikar et al. 2002).
    """
    cells = torch.zeros(width)
    for name, gradient in named:
        if gradient is None:
            continue
        generator = torch.Generator().manual_seed(key64("sketch", name))
        place = torch.randint(width, (gradient.numel(),), generator=generator)
        sign = torch.randint(2, (gradient.numel(),), generator=generator).float() * 2 - 1
        cells.index_add_(0, place, gradient.detach().float().cpu().flatten() * sign)
    return cells


@dataclass
class Readings:
    """What a probe measured: (K,), (K, d), (K, d) or None each, and how many samples it cost."""

    heldout: np.ndarray | None = None
    sketch: np.ndarray | None = None
    target: np.ndarray | None = None
    samples: int = 0


class Probe:
    """Takes the measurements that a mixer asks for, on `names` in order."""

    def __init__(
        self,
        system: System,
        sources: Mapping[str, Source],
        names: Sequence[str],
        seed: int,
        stage: str,
        share: float,
        weights: Mapping[str, float],
        device: torch.device,
    ) -> None:
        self.system, self.names, self.device = system, tuple(names), device
        self.sources = [sources[name] for name in names]
        self.rng, self.weights = KeyedRng(seed, "probe", stage), weights
        self.held = [heldout_items(seed, source, share) for source in self.sources]
        self.kept = [
            sorted(set(range(len(s))) - set(held)) if len(s) < 1 << 20 else None
            for s, held in zip(self.sources, self.held, strict=True)
        ]
        self.stage = stage

    def measure(self, request: ProbeRequest, step: int) -> Readings:
        """Everything of one request; sources that weren't asked for give nan."""
        wanted = set(request.sources or self.names)
        readings = Readings()
        was_training = {module: module.training for module in self.system.modules()}
        self.system.eval()
        try:
            if request.kinds & (Needs.HELDOUT_LOSS | Needs.PROBE_BURST):
                readings.heldout = np.array(
                    [self._loss(k, request, step, readings) if n in wanted else np.nan for k, n in enumerate(self.names)]
                )
            if request.kinds & Needs.GRAD_SKETCH:
                readings.sketch = np.stack(
                    [self._sketch(k, request, step, readings, n in wanted, held=False) for k, n in enumerate(self.names)]
                )
            if request.kinds & Needs.TARGET_GRAD:
                readings.target = np.stack(
                    [self._sketch(k, request, step, readings, n in wanted, held=True) for k, n in enumerate(self.names)]
                )
        finally:
            for module, mode in was_training.items():
                module.training = mode
        return readings

    def _batches(self, k: int, request: ProbeRequest, held: bool, readings: Readings) -> list[list[Sample]]:
        items = self.held[k] if held else self.kept[k]
        source, node = self.sources[k], self.rng.at(self.names[k], request.stream, held)
        size = request.n_batches * request.batch_size
        pool = np.asarray(items) if items is not None else node.numpy().integers(len(source), size=4 * size)
        chosen = node.numpy().permutation(pool)[:size].tolist()
        readings.samples += len(chosen)
        return [
            read_all(source, self.names[k], chosen[i : i + request.batch_size], node)
            for i in range(0, len(chosen), request.batch_size)
        ]

    def _total(self, k: int, samples: list[Sample], step: int) -> dict[str, tuple[Tensor, float]]:
        return batch_losses(
            self.system, samples, k, self.names, self.rng.at("noise", self.names[k]), self.stage, step, self.device
        )

    def _loss(self, k: int, request: ProbeRequest, step: int, readings: Readings) -> float:
        sums: dict[str, list[float]] = {}
        with torch.no_grad():
            for samples in self._batches(k, request, True, readings):
                for name, (value, count) in self._total(k, samples, step).items():
                    pair = sums.setdefault(name, [0.0, 0.0])
                    pair[0] += float(value)
                    pair[1] += count
        return sum(self.weights.get(name, 1.0) * a / b for name, (a, b) in sums.items() if b > 0) if sums else float("nan")

    def _sketch(self, k: int, request: ProbeRequest, step: int, readings: Readings, wanted: bool, held: bool) -> np.ndarray:
        cells = torch.full((SKETCH,), float("nan")) if not wanted else torch.zeros(SKETCH)
        if not wanted:
            return cells.numpy()
        named = [(n, p) for n, p in self.system.named_parameters() if p.requires_grad]
        for samples in self._batches(k, request, held, readings):
            terms = self._total(k, samples, step).items()
            parts = [
                self.weights.get(name, 1.0) * value / count for name, (value, count) in terms if count > 0 and value.requires_grad
            ]
            if parts:
                gradients = torch.autograd.grad(torch.stack(parts).sum(), [p for _, p in named], allow_unused=True)
                cells += sketch([(n, g) for (n, _), g in zip(named, gradients, strict=True)]) / request.n_batches
        return cells.numpy()


def read_all(source: Source, name: str, items: Sequence[int], rng: KeyedRng) -> list[Sample]:
    """Samples at `items`; unreadable ones are left out."""
    samples = []
    for item in items:
        try:
            sample = source.read(item, rng.at(item))
        except BadSample:
            continue
        sample.source, sample.index = name, item
        samples.append(sample)
    return samples


def batch_losses(
    system: System, samples: Sequence[Sample], k: int, names: Sequence[str], rng: KeyedRng, stage: str, step: int, device: Any
) -> dict[str, tuple[Tensor, float]]:
    """(total, count) per term over samples of one source, buckets apart; noise depends on `rng` alone."""
    groups: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        groups.setdefault(system.bucket(sample), []).append(i)
    sums: dict[str, tuple[Tensor, float]] = {}
    for places in groups.values():
        batch = to_device(system.collate([samples[i] for i in places]), device)
        ids = torch.full((len(places),), k, device=device)
        context = StepContext(step, stage, 0, 1, rng, SampleNoise(rng, places, device), ids, tuple(names), None, "", False)
        for name, term in system.losses(batch, context).items():
            before = sums.get(name, (torch.zeros((), device=device), 0.0))
            sums[name] = (before[0] + term.total * term.weight, before[1] + float(term.count))
    return sums


class HeldoutLossConfig(EvaluatorConfig):
    """Losses on samples that training doesn't see."""

    sources: tuple[str, ...] | None = Field(None, description="names of sources; all by default")
    samples: int = Field(64, ge=1, description="samples of each source")
    batch: int = Field(16, ge=1)


class HeldoutLoss:
    """Mean of every loss term per source, over held-out items (`data.heldout`) or whole sources kept out of the mixtures."""

    Config = HeldoutLossConfig

    def __init__(self, config: HeldoutLossConfig, root: Path | None = None) -> None:
        self.config = config

    def run(self, system: System, context: EvalContext) -> EvalResult:
        names = sorted(context.sources)
        unknown = set(self.config.sources or ()) - set(names)
        if unknown:
            raise ConfigError(f"evaluate heldout_loss: no source '{sorted(unknown)[0]}'; sources are {', '.join(names)}")
        result = EvalResult()
        rng = KeyedRng(context.seed, "heldout-loss")
        for k, name in enumerate(names):
            if self.config.sources and name not in self.config.sources:
                continue
            source = context.sources[name]
            pool = np.asarray(context.heldout.get(name) or range(len(source)))
            items = rng.at(name).numpy().permutation(pool)[: self.config.samples].tolist()
            sums: dict[str, list[float]] = {}
            for i in range(0, len(items), self.config.batch):
                samples = read_all(source, name, items[i : i + self.config.batch], rng.at(name))
                losses = batch_losses(
                    system, samples, k, names, rng.at("noise", name, i), "evaluate", context.step, context.device
                )
                for term, (value, count) in losses.items():
                    pair = sums.setdefault(term, [0.0, 0.0])
                    pair[0] += float(value)
                    pair[1] += count
            result.scalars.update({f"{term}/{name}": a / b for term, (a, b) in sums.items() if b > 0})
        return result
