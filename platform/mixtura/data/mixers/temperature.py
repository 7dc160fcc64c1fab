"""Size-proportional sampling with a temperature: p_k proportional to w_k n_k^alpha (data-mixing sheet, section 1)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from mixtura.data.mixers.base import Mixer, MixerConfig, MixPlan


class TemperatureConfig(MixerConfig):
    """alpha 1 is proportional to size, 0 uniform. `size_in` says what size counts."""

    alpha: float = Field(0.5, ge=0, le=1, description="exponent on the size of a source; 1 proportional, 0 uniform")
    size_in: Literal["samples", "units"] = Field("samples", description="units: samples times the mean units of a sample")
    max_size: float | None = Field(None, gt=0, description="larger sources count as this size")


class Temperature(Mixer):
    """The stage's `mixture` weights multiply the tempered sizes; a weight of 0 leaves a source out."""

    Config = TemperatureConfig

    def plan(self, step: int) -> MixPlan:
        config = self.config
        assert isinstance(config, TemperatureConfig)
        units = [s.unit_size if config.size_in == "units" else 1.0 for s in self.sources]
        sizes = np.array([s.size * unit for s, unit in zip(self.sources, units, strict=True)], np.float64)
        if config.max_size is not None:
            sizes = np.minimum(sizes, config.max_size)
        weights = self.prior * sizes**config.alpha
        return MixPlan(weights / weights.sum())
