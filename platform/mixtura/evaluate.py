"""What an evaluator is: it measures a system on held-out data or in closed loop and returns figures, tables, media."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from mixtura.data.source import Source
from mixtura.rng import KeyedRng

if TYPE_CHECKING:
    from mixtura.system import System


class EvaluatorConfig(BaseModel):
    """Base of an entry of `evaluate:`. `every` counts steps of the run; None measures only where asked below."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str
    name: str | None = Field(None, description="how results are called; the type by default")
    every: int | None = Field(None, ge=1, description="measure after every so many steps of the run")
    at_start: bool = Field(False, description="measure the untrained system as well")
    at_end: bool = Field(True, description="measure after the last step")


@dataclass(frozen=True)
class EvalContext:
    """Where a measurement happens. `out` is an empty folder for media; `rng` is keyed by seed, evaluator and step.

    `cache` is the run's folder for files that can be made again, as what an evaluator learnt for its own use; None: keep nothing.
    `heldout` gives the items of each source that training never sees (`data.heldout`); empty when nothing is held out.
    """

    step: int
    sources: Mapping[str, Source]
    out: Path
    rng: KeyedRng
    device: Any = "cpu"
    heldout: Mapping[str, Sequence[int]] = field(default_factory=dict)
    seed: int = 0
    cache: Path | None = None


@dataclass
class EvalResult:
    """`scalars` go to the log; `tables` (title -> list of rows as dicts) and `media` (caption -> file) to the report.

    A row that holds `successes` and `trials` is shown with its rate and 95 % Wilson interval.
    """

    scalars: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    media: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class Evaluator(Protocol):
    """Built as `EvaluatorClass(config, root=...)`, with the pydantic model `EvaluatorClass.Config`."""

    def run(self, system: System, context: EvalContext) -> EvalResult: ...
