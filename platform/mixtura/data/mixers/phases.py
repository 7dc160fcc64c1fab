"""Proportions that change along a stage: piecewise, in jumps or ramps (data-mixing sheet, section 11)."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixtura.data.mixers.base import Mixer, MixerConfig, MixPlan
from mixtura.data.mixture import normalised


class Phase(BaseModel):
    """From share `start` of the stage on, these weights hold (or are reached, with `blend: linear`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    start: float = Field(ge=0, lt=1, description="share of the stage at which this phase begins")
    mixture: dict[str, float]


class PhasesConfig(MixerConfig):
    """The stage's own `mixture` holds before the first phase."""

    phases: tuple[Phase, ...] = Field(min_length=1)
    blend: Literal["jump", "linear"] = "jump"

    @model_validator(mode="after")
    def _ordered(self) -> PhasesConfig:
        starts = [phase.start for phase in self.phases]
        if any(a >= b for a, b in pairwise(starts)):
            raise ValueError(f"phases must start one after the other, not at {starts}")
        return self


class Phases(Mixer):
    """Static proportions per phase; `linear` moves from one to the next instead of jumping."""

    Config = PhasesConfig

    def plan(self, step: int) -> MixPlan:
        config = self.config
        assert isinstance(config, PhasesConfig)
        names = [source.name for source in self.sources]
        points = [normalised(p.mixture, names, f"mixer.phases (start {p.start})") for p in config.phases]
        starts = [phase.start for phase in config.phases]
        if starts[0] > 0:
            points, starts = [self.prior, *points], [0.0, *starts]
        now = step / max(self.total_steps, 1)
        if config.blend == "jump":
            return MixPlan(points[int(np.searchsorted(starts, now, side="right")) - 1])
        table = np.array(points)
        weights = np.array([np.interp(now, starts, table[:, k]) for k in range(len(names))])
        return MixPlan(weights / weights.sum())
