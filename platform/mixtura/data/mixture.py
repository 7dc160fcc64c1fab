"""From proportions to whole samples: checked weights, systematic sampling, water-filling under caps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mixtura.errors import MixturaError
from mixtura.rng import KeyedRng

UNLIMITED = np.iinfo(np.int64).max


def normalised(mixture: Mapping[str, float], names: Sequence[str], where: str) -> np.ndarray:
    """Weights (K,) float64 in the order of `names`, summing to 1; never repaired: bad weights are errors."""
    weights = np.array([float(mixture.get(name, 0.0)) for name in names])
    bad = [f"{name}: {value}" for name, value in zip(names, weights, strict=True) if not np.isfinite(value) or value < 0]
    if bad:
        raise MixturaError(f"{where}: weights must be finite and not negative, but {', '.join(bad)}")
    if not weights.sum() > 0:
        raise MixturaError(f"{where}: all weights are zero; give at least one source a weight above 0")
    shares: np.ndarray = weights / weights.sum()
    return shares


def systematic(weights: np.ndarray, slots: int, uniform: float) -> np.ndarray:
    """How many of `slots` go to each source (K,): unbiased, and never a whole item away from its quota.

    One uniform number in [0, 1) places evenly spaced points on the cumulative weights.
    """
    edges = np.cumsum(weights) / weights.sum() * slots
    edges[-1] = slots
    edges[weights.nonzero()[0][-1] :] = slots
    reached = np.ceil(edges - uniform).clip(0, slots).astype(np.int64)
    return np.diff(reached, prepend=0)


def independent(weights: np.ndarray, slots: int, rng: KeyedRng) -> np.ndarray:
    """Counts (K,) of independent draws; what bandit estimates in textbooks assume."""
    return rng.numpy().multinomial(slots, weights / weights.sum()).astype(np.int64)


def allocate(weights: np.ndarray, slots: int, remaining: np.ndarray, rng: KeyedRng, draw: str = "systematic") -> np.ndarray:
    """Counts (K,) with `counts <= remaining`: what a used-up source can't give goes to the others, in proportion.

    Returns fewer than `slots` in all when nothing is left.
    """
    counts = np.zeros(len(weights), np.int64)
    open_weights = np.where(remaining > 0, weights, 0.0)
    left, turn = slots, 0
    while left > 0 and open_weights.sum() > 0:
        node = rng.at(turn)
        more = (
            systematic(open_weights, left, node.numpy().random())
            if draw == "systematic"
            else independent(open_weights, left, node)
        )
        counts = np.minimum(counts + more, remaining)
        left, turn = slots - int(counts.sum()), turn + 1
        open_weights = np.where(remaining - counts > 0, weights, 0.0)
    return counts
