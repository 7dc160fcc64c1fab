"""The contract between the trainer and a plugin: `System`, `LossTerm`, `StepContext`.

A system is the networks, the losses and the inference of one published method. The trainer owns devices,
order, splitting, optimizers, checkpoints; a system never sees them. Loss rule: over all micro-batches and
ranks, L = sum_k w_k * (sum total_k) / (sum count_k), so a run does not change with how a batch is split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from mixtura.data.source import Sample, Source
from mixtura.errors import MixturaError
from mixtura.rng import KeyedRng, SampleNoise

Batch = dict[str, Any]
"""Named tensors (moved to the device by the trainer) and plain values (left alone)."""


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss over one micro-batch: a sum and what it is a sum over.

    `total` is the sum (scalar, with gradient), `count` the number of valid items in it (must equal
    `System.counts`), `weight` a factor of the system's own on top of the stage's `loss:` weight, `player` whose
    optimizer it feeds. `per_sample` is a detached pair (totals (B,), counts (B,)), from which the trainer
    logs the loss of every source; None when the term can't be split by sample.
    """

    total: Tensor
    count: Tensor | float
    weight: float = 1.0
    player: str = "main"
    per_sample: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def of(totals: Tensor, counts: Tensor, weight: float = 1.0, player: str = "main") -> LossTerm:
        """A term from per-sample sums: `totals` (B,) with gradient and `counts` (B,)."""
        pair = (totals.detach(), counts.detach().to(totals.dtype))
        return LossTerm(totals.sum(), counts.sum(), weight, player, pair)


@dataclass(frozen=True)
class StepContext:
    """What a system may know about the step while it computes losses.

    `step` counts from 0 over the whole run, `stage_step` within the stage. `noise` draws per-sample random
    tensors; `rng` is for anything else. `source_ids` (B,) int64 indexes `sources` (names, sorted).
    `sample_weight` (B,) holds the mixer's loss weights, or None when all are 1: multiply per-sample totals by it,
    never the counts. `player` is the player whose terms are wanted; "" asks for all (evaluation). `weights` are the stage's
    `loss:`; see `wants`. `kept` belongs to one micro-batch and one step: what a player leaves in it the next one finds, as the
    images that a generator painted.
    """

    step: int
    stage: str
    stage_step: int
    stage_steps: int
    rng: KeyedRng
    noise: SampleNoise
    source_ids: Tensor
    sources: tuple[str, ...]
    sample_weight: Tensor | None = None
    player: str = "main"
    training: bool = True
    kept: dict[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def wants(self, term: str, player: str = "main") -> bool:
        """Whether a player's term is asked for: it is the player's turn, and the stage gives the term a weight above 0.

        A system may leave terms that aren't wanted out of `losses`, and what only they need uncomputed.
        """
        return self.player in ("", player) and self.weights.get(term, 1.0) > 0


class SystemConfig(BaseModel):
    """Base of every system's section; a plugin adds its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str


class System(nn.Module):
    """What a plugin trains. Sub-classes register their networks as ordinary children.

    Life: `__init__(config)` builds networks from the config alone (so it works on the meta device), then
    `prepare(sources, assets)` once per run before anything else, then `load_assets(assets)`, then for every
    stage `start_stage`, and for every micro-batch `collate` (in a worker), `counts`, `losses`.
    """

    Config: ClassVar[type[SystemConfig]] = SystemConfig
    players: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Player -> names of its parts, in the order they step. Empty: one player `main` that has all parts."""

    def __init__(self, config: SystemConfig) -> None:
        super().__init__()
        self.config = config

    # -- before training ---------------------------------------------------------------------------------
    def prepare(self, sources: Mapping[str, Source], assets: Path) -> None:
        """Derive what training needs from the data (statistics, tokenizers) and write it below `assets`.

        Runs once, on one process, in a new run; the folder becomes part of every checkpoint.
        """

    def load_assets(self, assets: Path) -> None:
        """Read back what `prepare` wrote. Called in every process, also for evaluation and inference."""

    def start_stage(self, stage: str, sources: Mapping[str, Source], cache: Path) -> None:
        """Get ready for a stage (after the weights of the previous one are final, before workers start).

        Must be deterministic, for a resumed run calls it again. `cache` may hold derived files.
        """

    # -- data ----------------------------------------------------------------------------------------------
    def bucket(self, sample: Sample) -> str:
        """Samples with equal buckets may share a micro-batch (same shapes, same modality)."""
        return ""

    def check(self, sample: Sample) -> None:
        """Raise BadSample for a sample that can't be trained on (NaN actions, say): the loader then replaces it."""

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Turn samples of one bucket into a batch. Pure; runs in worker processes."""
        raise TypeError(f"{type(self).__name__} must define collate(samples)")

    def length(self, sample: Sample) -> int:
        """Units (tokens, say) that a sample takes in a packed row; needed only where `data.pack` is set."""
        raise TypeError(f"{type(self).__name__} can't pack samples; leave data.pack out")

    def collate_packed(self, samples: Sequence[Sample], rows: Sequence[Sequence[int]], capacity: int) -> Batch:
        """A batch whose row r holds the samples `rows[r]`, `capacity` units long (see `mixtura.data.packing`)."""
        raise TypeError(f"{type(self).__name__} can't pack samples; leave data.pack out")

    def counts(self, batch: Batch) -> dict[str, Tensor | float]:
        """Valid items per loss term, from the data alone, before any forward. All terms of the stage, 0 included."""
        raise TypeError(f"{type(self).__name__} must define counts(batch)")

    # -- training -------------------------------------------------------------------------------------------
    def start_step(self, step: int) -> None:
        """Refresh what follows the weights without being learnt (the power iterations of a spectral norm, say).

        Called in every process before the first micro-batch of a step, so that a run doesn't change with how a batch is split.
        It must do the same everywhere, from weights and buffers alone.
        """

    def losses(self, batch: Batch, ctx: StepContext) -> dict[str, LossTerm]:
        """The terms of this micro-batch. A term without items may be left out."""
        raise TypeError(f"{type(self).__name__} must define losses(batch, ctx)")

    def parts(self) -> dict[str, nn.Module]:
        """Named trainable parts (what `train:` of a stage lists): by default the direct children."""
        frozen = set(map(id, self.frozen().values()))
        return {name: child for name, child in self.named_children() if id(child) not in frozen}

    def frozen(self) -> Mapping[str, nn.Module]:
        """Children that never train: kept out of optimizers and averaging."""
        return {}

    def wrap_blocks(self) -> list[type[nn.Module]]:
        """Block classes that are units for gradient checkpointing (and sharding)."""
        return []

    # -- use -----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def infer(self, **inputs: Any) -> Mapping[str, Any]:
        """One path for demos, evaluators and exports."""
        raise TypeError(f"{type(self).__name__} has no inference")

    def infer_files(
        self, inputs: Sequence[Path], out: Path, settings: Mapping[str, Any], say: Callable[[str], None]
    ) -> list[Path]:
        """What `mixtura infer` does with files that aren't .json or .npz, as pictures, clips or prompts.

        `out` is a folder, to be made where it isn't there; `settings` are the words `a.b=v` of the command line as nested
        plain values, which `mixtura.inference.settings_of` checks against a pydantic model. Returns the files written. Raises
        MixturaError.
        """
        raise MixturaError(
            f"{', '.join(map(str, inputs))}: {self.config.type} takes no such files; give one .json or .npz file with the "
            f"inputs by name, as its `infer` says: {self.infer.__doc__}"
        )

    def load_published(self, path: Path) -> Mapping[str, list[str]]:
        """Load an official checkpoint; returns {missing, unexpected, mismatched} names."""
        raise TypeError(f"{type(self).__name__} knows no published checkpoint layout")

    def check_published(self, path: Path) -> str:
        """What `load_published` would find, in words; fills nothing and works on the meta device. Raises CheckpointError."""
        raise TypeError(f"{type(self).__name__} knows no published checkpoint layout")

    def save_published(self, path: Path) -> None:
        """Write the official checkpoint layout."""
        raise TypeError(f"{type(self).__name__} knows no published checkpoint layout")
