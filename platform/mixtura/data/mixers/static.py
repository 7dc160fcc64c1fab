"""The stage's `mixture` weights, in every step."""

from __future__ import annotations

from mixtura.data.mixers.base import Mixer, MixerConfig, MixPlan


class Static(Mixer):
    """Proportions as the configuration gives them."""

    Config = MixerConfig

    def plan(self, step: int) -> MixPlan:
        return MixPlan(self.prior)
