"""The plan: which sample goes where in every step, a pure function of (seed, mixture history, step).

`Planner` is asked for the steps of one stage in order, possibly some steps ahead of training. Workers and ranks
only carry out what it says. Its state is tiny (a cursor per source, the mixer's state, the observations on
their way), and `state_at(step)` gives it as it was before that step was planned, however far ahead it is now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from mixtura.data.mixers.base import Mixer, MixPlan, Needs, Observation, ProbeRequest
from mixtura.data.mixture import UNLIMITED, allocate
from mixtura.data.permutation import Permutation
from mixtura.data.source import SourceInfo
from mixtura.errors import CheckpointError, RunError
from mixtura.rng import KeyedRng

P_MIN = 0.01
"""An adaptive mixer's answer is floored at this share over the number of sources (sheet section 22, rule 7)."""
BLOCK = 1024
"""Positions of an order that are computed together."""
DEFAULT_LAG = 8


class Slot(NamedTuple):
    """One sample of a step: its place in the global batch, the source's number, the item in it, how often it was used."""

    position: int
    source: int
    item: int
    epoch: int


@dataclass(frozen=True)
class StepPlan:
    """All slots of a step in order of position, and the proportions behind them."""

    step: int
    slots: tuple[Slot, ...]
    weights: np.ndarray
    loss_weights: np.ndarray | None
    probe: ProbeRequest | None

    def counts(self, sources: int) -> np.ndarray:
        """Samples of each source (K,)."""
        return np.bincount([slot.source for slot in self.slots], minlength=sources)


class Planner:
    """Plans the steps of one stage.

    `infos` are sorted by name; `heldout` (K,) items of each source are never planned. `share` carries an object from
    rank 0 to all ranks (identity for one process): only rank 0 asks the mixer.
    """

    def __init__(
        self,
        infos: Sequence[SourceInfo],
        mixer: Mixer,
        prior: np.ndarray,
        *,
        seed: int,
        stage: str,
        stage_steps: int,
        global_batch: int,
        when_exhausted: str = "redistribute",
        draw: str = "systematic",
        heldout: Sequence[int] | None = None,
        share: Callable[[Any], Any] = lambda value: value,
        rank: int = 0,
    ) -> None:
        self.infos, self.mixer, self.prior = tuple(infos), mixer, prior
        self.names = tuple(info.name for info in infos)
        self.rng = KeyedRng(seed, "plan", stage)
        self.seed, self.stage_steps, self.global_batch = seed, stage_steps, global_batch
        self.when_exhausted, self.draw, self.share, self.rank = when_exhausted, draw, share, rank
        self.heldout = list(heldout or [0] * len(infos))
        self.sizes = [info.size - held for info, held in zip(infos, self.heldout, strict=True)]
        self.lag = (DEFAULT_LAG if mixer.config.lag is None else mixer.config.lag) if mixer.needs else 0
        self.cursors = np.zeros(len(infos), np.int64)
        self.next_step = 0
        self.skipped_observations = 0
        self._pending: list[Observation] = []
        self._snapshots: dict[int, dict[str, Any]] = {}
        self._blocks: dict[tuple[int, int, int], list[int]] = {}
        mixer.setup(infos, stage_steps, prior)

    # -- planning --------------------------------------------------------------------------------------------
    def step(self, step: int) -> StepPlan | None:
        """The plan of the next step; None when `when_exhausted: stop` ends the stage."""
        if step != self.next_step:
            raise ValueError(f"steps are planned in order: {self.next_step} comes next, not {step}")
        self._snapshots[step] = self._snapshot()
        for old in [s for s in self._snapshots if s < step - 256]:
            del self._snapshots[old]
        answer: MixPlan = self.share(self._ask(step) if self.rank == 0 else None)
        counts = self._counts(step, answer.weights)
        self.next_step += 1
        if counts is None:
            return None
        return StepPlan(step, self._slots(step, counts), answer.weights, answer.loss_weights, answer.probe)

    def _ask(self, step: int) -> MixPlan:
        for observation in self._pending:
            if observation.step == step - 1 - self.lag:
                self.mixer.observe(observation)
        answer = self.mixer.plan(step)
        weights = np.asarray(answer.weights, np.float64)
        if weights.shape != (len(self.infos),) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            raise RunError(
                f"mixer '{self.mixer.config.type}' answered {weights.tolist()} for step {step}; it must give finite weights >= 0"
            )
        weights = weights / weights.sum()
        if self.mixer.needs:
            weights = np.where(self.prior > 0, np.maximum(weights, P_MIN / len(weights)), 0.0)
            weights = weights / weights.sum()
        return MixPlan(weights, answer.loss_weights, answer.probe)

    def _remaining(self) -> np.ndarray:
        if self.when_exhausted == "repeat":
            return np.full(len(self.infos), UNLIMITED)
        caps = [UNLIMITED if i.max_epochs is None else int(i.max_epochs * n) for i, n in zip(self.infos, self.sizes, strict=True)]
        remaining: np.ndarray = np.maximum(np.array(caps, np.int64) - self.cursors, 0)
        return remaining

    def _counts(self, step: int, weights: np.ndarray) -> np.ndarray | None:
        remaining, node = self._remaining(), self.rng.at("mix", step)
        stops = self.when_exhausted == "stop"
        counts = allocate(weights, self.global_batch, np.full_like(remaining, UNLIMITED) if stops else remaining, node, self.draw)
        if stops:
            return counts if (counts <= remaining).all() else None
        if counts.sum() < self.global_batch:
            raise RunError(
                f"step {step} of the stage needs {self.global_batch} samples, but every source has reached its max_epochs; "
                "raise max_epochs, lower the stage's steps, or set data.when_exhausted to repeat or stop"
            )
        return counts

    def _slots(self, step: int, counts: np.ndarray) -> tuple[Slot, ...]:
        sources = np.repeat(np.arange(len(counts)), counts)
        places = self.rng.at("place", step).numpy().permutation(len(sources))
        slots: list[Slot | None] = [None] * len(sources)
        for source in counts.nonzero()[0].tolist():
            cursor, count = int(self.cursors[source]), int(counts[source])
            drawn = self._items(source, range(cursor, cursor + count))
            for place, (item, epoch) in zip(places[sources == source].tolist(), drawn, strict=True):
                slots[place] = Slot(place, source, item, epoch)
            self.cursors[source] += count
        return tuple(slot for slot in slots if slot is not None)

    def _items(self, source: int, draws: range) -> list[tuple[int, int]]:
        """(item, epoch) of the draws: a new keyed order in every epoch, over the items that are not held out."""
        size, found = self.sizes[source], []
        for draw in draws:
            epoch, position = divmod(draw, size)
            block, within = divmod(position, BLOCK)
            found.append((self._block(source, epoch, block)[within], epoch))
        return found

    def _block(self, source: int, epoch: int, block: int) -> list[int]:
        """Items at BLOCK positions of an epoch's order, computed together; the last two blocks of a source are kept."""
        key = (source, epoch, block)
        if key not in self._blocks:
            old = [other for other in self._blocks if other[0] == source]
            for other in old[:-1]:
                del self._blocks[other]
            size = self.sizes[source]
            order = Permutation(size, self.rng.at("order", self.names[source], epoch).key)
            items = order.order(np.arange(block * BLOCK, min(size, (block + 1) * BLOCK)))
            self._blocks[key] = (self._split(source).order(items) if self.heldout[source] else items).tolist()
        return self._blocks[key]

    def _split(self, source: int) -> Permutation:
        """The fixed order whose last items are held out; the same in every stage of a run."""
        return split_order(self.seed, self.infos[source])

    # -- learning --------------------------------------------------------------------------------------------
    def observe(self, observation: Observation) -> None:
        """Hand in what a finished step showed; it reaches the mixer `lag` steps later. NaN sketches are dropped and counted."""
        signals = (observation.sketch, observation.target_sketch)
        if (
            any(signal is not None and not np.isfinite(signal).all() for signal in signals)
            or np.isinf(observation.train_loss).any()
        ):
            self.skipped_observations += 1
            return
        self._pending = [o for o in self._pending if o.step >= observation.step - self.lag - 256]
        self._pending.append(observation)

    # -- state -----------------------------------------------------------------------------------------------
    def _snapshot(self) -> dict[str, Any]:
        return {"cursors": self.cursors.tolist(), "mixer": self.mixer.state_dict(), "skipped": self.skipped_observations}

    def state_at(self, step: int) -> dict[str, Any]:
        """JSON-serialisable state as it was before `step` was planned."""
        base = self._snapshot() if step == self.next_step else self._snapshots[step]
        waiting = [o for o in self._pending if o.step >= step - 1 - self.lag]
        return {
            "step": step,
            "names": list(self.names),
            "fingerprints": [info.fingerprint for info in self.infos],
            **base,
            "pending": [_pack(o) for o in waiting] if self.mixer.needs else [],
        }

    def load_state_dict(self, state: Mapping[str, Any], on_change: str = "error") -> None:
        """Go on from `state_at`. Other sources, or other content, are an error unless `on_change` is map_by_name."""
        names, prints = list(state["names"]), list(state["fingerprints"])
        here = {info.name: info.fingerprint for info in self.infos}
        there = dict(zip(names, prints, strict=True))
        changed = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
        if changed and on_change != "map_by_name":
            lines = [
                f"  {n}: " + ("new" if n not in there else "gone" if n not in here else "its content changed") for n in changed
            ]
            raise CheckpointError(
                "the sources differ from those of the checkpoint:\n" + "\n".join(lines) + "\n"
                "Restore them, or set data.on_change=map_by_name to go on with what is there (the sample order is then a new one)"
            )
        cursors = dict(zip(names, state["cursors"], strict=True))
        self.cursors = np.array([cursors.get(name, 0) for name in self.names], np.int64)
        if names == list(self.names):
            self.mixer.load_state_dict(state["mixer"])
            self._pending = [_unpack(o) for o in state["pending"]]
        self.skipped_observations = int(state["skipped"])
        self.next_step = int(state["step"])

    def epochs_at(self, step: int) -> np.ndarray:
        """Epochs of each source used in the stage before `step` (K,)."""
        cursors = self.cursors if step == self.next_step else np.array(self._snapshots[step]["cursors"])
        return cursors / np.maximum(self.sizes, 1)


def split_order(seed: int, info: SourceInfo) -> Permutation:
    """The order of a source's items in which the last ones are held out."""
    return Permutation(info.size, KeyedRng(seed, "heldout", info.name).key)


def _pack(observation: Observation) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(observation).items()}


def _unpack(state: Mapping[str, Any]) -> Observation:
    kinds = {"count": np.int64, "sketch": np.float32, "target_sketch": np.float32}
    lists = {k: np.array(v, kinds.get(k, np.float64)) for k, v in state.items() if isinstance(v, list) and k != "abs_adv"}
    return Observation(**{**state, **lists})


def checked_lookahead(planner: Planner, workers: int, prefetch: int) -> int:
    """Steps that each worker may fetch ahead, so that no plan is needed before its observations are in."""
    if not workers:
        return 0
    ahead = max(1, prefetch // workers)
    if planner.mixer.needs is not Needs.NONE and planner.mixer.needs:
        ahead = min(ahead, planner.lag // workers)
        if ahead < 1:
            raise RunError(
                f"data.workers is {workers}, but the mixer's lag is {planner.lag} steps; set mixer.lag to at least {workers}"
            )
    return ahead
