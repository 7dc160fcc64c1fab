"""The contract of mixers: proportions of every step, learnt or fixed, from what training observes.

Every vector is ordered by source name. A mixer runs on rank 0 only; `plan` is pure given the state,
`observe` is the only thing that changes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mixtura.data.source import SourceInfo


class Needs(Flag):
    """Signals that a mixer may ask of the trainer."""

    NONE = 0
    TRAIN_LOSS = auto()
    HELDOUT_LOSS = auto()
    GRAD_SKETCH = auto()
    TARGET_GRAD = auto()
    REF_LOSS = auto()
    ADVANTAGE = auto()
    PROBE_BURST = auto()
    ITEM_SCORE = auto()


@dataclass(frozen=True)
class ProbeRequest:
    """Measurements to take after a step: of which kinds, on which sources (None: all), how much.

    `stream` names the keyed stream of the probe's samples: the same stream gives the same samples each time.
    """

    kinds: Needs
    sources: tuple[str, ...] | None = None
    n_batches: int = 1
    batch_size: int = 8
    stream: int = 0


@dataclass(frozen=True)
class MixPlan:
    """The answer for one step: `weights` (K,) float64, `loss_weights` (K,) or None (all 1), `probe` or None."""

    weights: np.ndarray
    loss_weights: np.ndarray | None = None
    probe: ProbeRequest | None = None


@dataclass(frozen=True)
class Observation:
    """What a step showed, reduced over ranks. (K,) float64 with nan for absent sources.

    `count` (K,) int64 samples of each source, `train_loss` (K,) mean weighted loss per source, `heldout` (K,),
    `sketch` (K, d) and `target_sketch` (M, d) float32, `ref_excess` (K,), `abs_adv` per-source list, `lr`.
    """

    step: int
    count: np.ndarray
    train_loss: np.ndarray
    heldout: np.ndarray | None = None
    sketch: np.ndarray | None = None
    target_sketch: np.ndarray | None = None
    ref_excess: np.ndarray | None = None
    abs_adv: list[float] | None = None
    lr: float = 0.0


class MixerConfig(BaseModel):
    """Base of a `mixer:` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str
    lag: int | None = Field(None, ge=0, description="observations reach the plan this many steps later; at least data.prefetch")


class Mixer(ABC):
    """Built as `MixerClass(config)`, then `setup` once. `step` counts from 0 within the stage."""

    Config: ClassVar[type[MixerConfig]] = MixerConfig
    needs: Needs = Needs.NONE

    def __init__(self, config: MixerConfig) -> None:
        self.config = config

    def setup(self, sources: Sequence[SourceInfo], total_steps: int, prior: np.ndarray) -> None:
        """`sources` sorted by name; `prior` (K,) are the stage's `mixture` weights, normalised."""
        self.sources, self.total_steps, self.prior = tuple(sources), total_steps, prior

    @abstractmethod
    def plan(self, step: int) -> MixPlan:
        """Proportions of this step."""

    def observe(self, observation: Observation) -> None:  # noqa: B027 - fixed mixers learn nothing
        """Learn from a finished step."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state (float64 survive as repr)."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - fixed mixers have no state
        """Take back what `state_dict` gave."""

    def log(self) -> dict[str, float]:
        """Figures for the log."""
        return {}
