"""Exponential moving average of a system's weights, in float32, with an exact state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from mixtura.system import System


def averaged(system: System) -> dict[str, Tensor]:
    """Tensors that are averaged: floating parameters outside of frozen parts (and the buffers beside them, copied)."""
    frozen = {id(p) for part in system.frozen().values() for p in part.parameters()}
    return {name: p for name, p in system.named_parameters() if p.is_floating_point() and id(p) not in frozen}


class Ema:
    """shadow <- shadow + (1 - d) (weight - shadow) with d = min(decay, (1 + n) / (10 + n)) after n updates of the stage."""

    def __init__(self, system: System, decay: float, every: int = 1) -> None:
        self.decay, self.every = decay, every
        self.updates = 0
        self.shadow = {name: p.detach().float().clone() for name, p in averaged(system).items()}

    def restart(self, system: System) -> None:
        """Begin a stage: the average starts from the weights of now."""
        self.updates = 0
        with torch.no_grad():
            for name, p in averaged(system).items():
                self.shadow[name].copy_(p)

    @torch.no_grad()
    def update(self, system: System, step: int) -> None:
        """After the optimizer's step number `step`."""
        if (step + 1) % self.every:
            return
        self.updates += 1
        weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        live = averaged(system)
        moving = [name for name, p in live.items() if p.requires_grad]
        if moving:
            torch._foreach_lerp_([self.shadow[n] for n in moving], [live[n].detach().float() for n in moving], weight)

    @contextmanager
    def applied(self, system: System) -> Iterator[None]:
        """The system with averaged weights; the trained ones come back even when an error is raised."""
        live = averaged(system)
        kept = {name: p.detach().clone() for name, p in live.items()}
        try:
            with torch.no_grad():
                for name, p in live.items():
                    p.copy_(self.shadow[name])
            yield
        finally:
            with torch.no_grad():
                for name, p in live.items():
                    p.copy_(kept[name])

    def load(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Take back a saved state."""
        self.updates = updates
        for name, tensor in tensors.items():
            self.shadow[name].copy_(tensor)
