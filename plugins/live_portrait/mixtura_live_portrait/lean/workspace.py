"""Memory that is taken once and used again: fresh large arrays cost a processor more than filling them does."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

GAP = 16
"""Values between lines that are read side by side: powers of two apart, they would drive each other out of the cache."""


class Workspace(threading.local):
    """Arrays by name, one set for each thread. What is taken under a name is overwritten when that name is taken again."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, torch.dtype], Tensor] = {}

    def __deepcopy__(self, memo: object) -> Workspace:
        return Workspace()

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return Workspace, ()

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """An array with arbitrary content, contiguous."""
        count = 1
        for side in shape:
            count *= side
        held = self.held.get((name, dtype))
        if held is None or held.numel() < count:
            self.held.pop((name, dtype), None)
            held = self.held[name, dtype] = torch.empty(count, dtype=dtype)
        return held[:count].view(*shape)

    def lines(self, name: str, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """An array whose last axis is longer by `GAP` than asked for."""
        return self.take(name, (*shape[:-1], shape[-1] + GAP), dtype)

    def bordered(self, name: str, shape: Sequence[int], border: int = 1) -> Tensor:
        """An array (…, h + 2 border, w + 2 border, c), given (…, h, w, c), whose border is 0."""
        *outer, h, w, c = shape
        whole = self.take(name, (*outer, h + 2 * border, w + 2 * border, c))
        for edge in (slice(border), slice(-border, None)):
            whole[..., edge, :, :] = 0
            whole[..., edge, :] = 0
        return whole


def inside(whole: Tensor, border: int = 1) -> Tensor:
    """The view (…, h, w, c) of what `bordered` gave that leaves out the border."""
    return whole[..., border:-border, border:-border, :]
