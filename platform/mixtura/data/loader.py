"""Carrying out the plan: worker processes read, group and collate whole steps, in plan order.

One index of the PyTorch DataLoader is one step of one rank, so the number of workers changes nothing but speed.
A sample that can't be decoded is counted, named and replaced by the next item of its source.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mixtura.data import parcel
from mixtura.data.packing import bins
from mixtura.data.plan import Planner, Slot, StepPlan, checked_lookahead
from mixtura.data.source import Sample, Source
from mixtura.errors import BadSample, DataError, MixturaError
from mixtura.rng import KeyedRng
from mixtura.system import Batch, System

TRIES = 64
"""Items that may be bad in a row before the source counts as unreadable."""


@dataclass
class Micro:
    """One micro-batch: the collated batch, places of its samples in the step, their sources' numbers and keys."""

    batch: Batch
    places: list[int]
    source_ids: torch.Tensor
    keys: list[str]
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Work:
    """What a worker gets: the slots of this rank in one step."""

    step: int
    slots: tuple[Slot, ...]


@dataclass
class StepData:
    """What a step trains on. `bad` tells (source, item, reason) of samples that were replaced; `wait_s` the time lost waiting."""

    step: int
    plan: StepPlan
    micros: list[Micro]
    bad: list[tuple[str, int, str]]
    wait_s: float = 0.0


@dataclass
class Failure:
    """An error of a worker, carried to the main process whole."""

    error: MixturaError


class Reader(Dataset[Any]):
    """Reads the slots of a step and collates them into micro-batches."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        system: System,
        seed: int,
        stage: str,
        batching: str,
        micro_batch: int | None,
        pack: int | None,
    ) -> None:
        self.names = sorted(sources)
        self.sources = [sources[name] for name in self.names]
        self.system, self.batching, self.micro_batch, self.pack = system, batching, micro_batch, pack
        self.nodes = [KeyedRng(seed, "sample", stage, name) for name in self.names]

    def read(self, slot: Slot, bad: list[tuple[str, int, str]]) -> Sample:
        """The sample of a slot, or of the next item that can be read."""
        source, name, node, item = self.sources[slot.source], self.names[slot.source], self.nodes[slot.source], slot.item
        for _ in range(min(TRIES, len(source))):
            try:
                sample = source.read(item, node.at(item, slot.epoch))
                sample.source, sample.index, sample.epoch = name, item, slot.epoch
                self.system.check(sample)
                return sample
            except BadSample as error:
                bad.append((name, item, str(error)))
                item = (item + 1) % len(source)
        raise DataError(
            f"source '{name}': {TRIES} samples in a row can't be read, from item {slot.item} on; the last: {bad[-1][2]}"
        )

    def group(self, slots: Sequence[Slot], samples: Sequence[Sample]) -> list[list[int]]:
        """Positions in `samples` of each micro-batch."""
        groups: dict[Any, list[int]] = {}
        for i, (slot, sample) in enumerate(zip(slots, samples, strict=True)):
            bucket = "" if self.batching == "mixed" else self.system.bucket(sample)
            groups.setdefault((slot.source if self.batching == "by_source" else 0, bucket), []).append(i)
        size = self.micro_batch or max(1, len(samples))
        return [members[k : k + size] for members in groups.values() for k in range(0, len(members), size)]

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """A batch of the samples; with packing, short ones share rows of `pack` tokens."""
        if self.pack is None:
            return self.system.collate(samples)
        rows = bins([self.system.length(sample) for sample in samples], self.pack)
        return self.system.collate_packed(samples, rows, self.pack)

    def __getitem__(self, work: Work) -> StepData | Failure:
        try:
            bad: list[tuple[str, int, str]] = []
            samples = [self.read(slot, bad) for slot in work.slots]
            micros = []
            for members in self.group(work.slots, samples):
                chosen = [samples[i] for i in members]
                batch = self.collate(chosen)
                ids = torch.tensor([work.slots[i].source for i in members])
                places = [work.slots[i].position for i in members]
                micros.append(Micro(batch, places, ids, [s.key for s in chosen], self.system.counts(batch)))
            return StepData(work.step, None, micros, bad)  # type: ignore[arg-type]
        except MixturaError as error:
            return Failure(error)


class _Ahead(Sampler[Work]):
    """Asks the planner whenever the DataLoader wants more work; remembers the plans until they are used."""

    def __init__(self, planner: Planner, steps: range, rank: int, world: int, overfit: int) -> None:
        self.planner, self.steps, self.rank, self.world, self.overfit = planner, steps, rank, world, overfit
        self.plans: dict[int, StepPlan] = {}
        self.repeated: list[StepPlan] = []

    def __iter__(self) -> Iterator[Work]:
        for step in self.steps:
            plan = self._plan(step)
            if plan is None:
                return
            self.plans[step] = plan
            yield Work(step, plan.slots[self.rank :: self.world])

    def _plan(self, step: int) -> StepPlan | None:
        plan = self.planner.step(step)
        if not self.overfit or plan is None:
            return plan
        if len(self.repeated) < self.overfit:
            self.repeated.append(plan)
        again = self.repeated[step % len(self.repeated)]
        return StepPlan(step, again.slots, again.weights, again.loss_weights, None)


def _start_worker(_: int) -> None:
    """Workers leave Ctrl-C and the first SIGTERM to the main process, which finishes the step and saves.

    Schedulers send SIGTERM to all processes of a job; a second one, as a loader sends to workers that don't end, does end them.
    """

    def first(signum: int, frame: Any) -> None:
        signal.signal(signum, signal.SIG_DFL)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, first)
    torch.set_num_threads(1)


class StageLoader:
    """Iterates over the steps of a stage from `start` on; each item is the `StepData` of this rank."""

    def __init__(
        self,
        planner: Planner,
        sources: Mapping[str, Source],
        system: System,
        *,
        seed: int,
        stage: str,
        start: int,
        workers: int,
        prefetch: int,
        batching: str = "bucket",
        micro_batch: int | None = None,
        pack: int | None = None,
        rank: int = 0,
        world: int = 1,
        overfit: int = 0,
    ) -> None:
        planned = {name: sources[name] for name in planner.names}
        reader = Reader(planned, system, seed, stage, batching, micro_batch, pack)
        self.ahead = _Ahead(planner, range(start, planner.stage_steps), rank, world, overfit)
        factor = checked_lookahead(planner, workers, prefetch)
        options: dict[str, Any] = {"collate_fn": _same}
        if workers:
            options = {"prefetch_factor": factor, "multiprocessing_context": "fork", "collate_fn": parcel.pack}
        self.loader = DataLoader(
            reader,
            batch_size=None,
            sampler=self.ahead,
            num_workers=workers,
            worker_init_fn=_start_worker,
            **options,
        )

    def __iter__(self) -> Iterator[StepData]:
        steps = iter(self.loader)
        while True:
            began = time.perf_counter()
            data = next(steps, None)
            if data is None:
                return
            if isinstance(data, parcel.Parcel):
                data = parcel.unpack(data)
            if isinstance(data, Failure):
                raise data.error
            data.wait_s = time.perf_counter() - began
            data.plan = self.ahead.plans.pop(data.step)
            yield data


def _same(value: Any) -> Any:
    return value
