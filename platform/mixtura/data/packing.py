"""Packing: several short documents share one row, kept apart by document numbers.

`bins` chooses the rows (best fit, longest first, among the samples of one micro-batch), `packed` lays documents
out with the numbers that attention needs: position inside the document, document of each token, `cu_seqlens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixtura.errors import DataError


def bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of at most `capacity` units: indices of `lengths`, each row in order. Deterministic.

    Raises DataError for a document that is longer than a row: it is never cut.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda k: (-lengths[k], k)):
        if lengths[i] > capacity:
            raise DataError(f"a document of {lengths[i]} units doesn't fit into a packed row of {capacity}; raise data.pack")
        fitting = [r for r in range(len(rows)) if room[r] >= lengths[i]]
        if fitting:
            best = min(fitting, key=lambda r: (room[r], r))
            rows[best].append(i)
            room[best] -= lengths[i]
        else:
            rows.append([i])
            room.append(capacity - lengths[i])
    return sorted(sorted(row) for row in rows)


@dataclass(frozen=True)
class Packed:
    """Packed rows: `tokens` (R, S), `positions` (R, S) inside the document, `documents` (R, S) index or -1 for padding.

    `cu_seqlens` (N+1,) int32 cumulates document lengths in the order of `order`, row by row (padding left out).
    """

    tokens: Tensor
    positions: Tensor
    documents: Tensor
    cu_seqlens: Tensor
    order: tuple[int, ...]

    def mask(self) -> Tensor:
        """Attention mask (R, 1, S, S) bool: causal, inside a document only; padding sees itself (rows stay finite)."""
        same = self.documents[:, :, None] == self.documents[:, None, :]
        length = self.tokens.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=self.tokens.device).tril()
        return (same & causal)[:, None]


def packed(documents: Sequence[Tensor], rows: Sequence[Sequence[int]], capacity: int, fill: int = 0) -> Packed:
    """Lay out 1-D integer `documents` in the `rows` that `bins` chose."""
    tokens = torch.full((len(rows), capacity), fill, dtype=torch.long)
    positions = torch.zeros(len(rows), capacity, dtype=torch.long)
    owner = torch.full((len(rows), capacity), -1, dtype=torch.long)
    ends, order = [0], []
    for r, row in enumerate(rows):
        at = 0
        for i in row:
            n = len(documents[i])
            tokens[r, at : at + n], positions[r, at : at + n], owner[r, at : at + n] = documents[i], torch.arange(n), i
            ends.append(ends[-1] + n)
            order.append(i)
            at += n
    return Packed(tokens, positions, owner, torch.tensor(ends, dtype=torch.int32), tuple(order))
