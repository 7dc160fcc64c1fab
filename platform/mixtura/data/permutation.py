"""Keyed permutations: a new order of any number of items for every key, without a table.

A balanced Feistel network over the next power of four, with cycle walking, so that the position of an
item is computed, not looked up: a source of a billion items costs no memory and no start-up time.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 6


def _mix(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    mixed = values + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class Permutation:
    """A bijection of range(size) chosen by `key`; `order(positions)` maps int64 positions to items."""

    def __init__(self, size: int, key: int) -> None:
        if size < 1:
            raise ValueError(f"a permutation needs at least one item, not {size}")
        self.size = size
        self.half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
        self.mask = np.uint64((1 << int(self.half)) - 1)
        keys = np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        self.keys = _mix(keys, np.uint64(key))

    def _walk(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self.half, values & self.mask
        for key in self.keys:
            left, right = right, left ^ (_mix(right, key) & self.mask)
        return (left << self.half) | right

    def order(self, positions: np.ndarray) -> np.ndarray:
        """Items at `positions` (each in [0, size))."""
        with np.errstate(over="ignore"):
            values = self._walk(np.asarray(positions, np.uint64))
            outside = values >= self.size
            while outside.any():
                values[outside] = self._walk(values[outside])
                outside = values >= self.size
        return values.astype(np.int64)
