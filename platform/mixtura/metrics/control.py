"""Figures of closed-loop control: success rates and means with intervals, errors of predicted actions. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

EXACT_DF = 200
"""Up to here Student's quantile is computed from the finite sum; beyond, from its expansion at the normal (error < 1e-9)."""


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a success rate; z = 1.96 gives 95 % (Wilson 1927).

    Stays within [0, 1] and has a width also at 0 and at all successes. Without trials nothing is known: (0, 1).
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must lie between 0 and trials, not {successes} of {trials}")
    if trials == 0:
        return 0.0, 1.0
    rate, square = successes / trials, z * z / trials
    center = (rate + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials))
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == trials else min(1.0, center + half)
    return low, high


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of independent values (seeds, say) and its t-interval: (mean, low, high).

    One value says nothing about the spread: its interval is (-inf, inf). Raises ValueError without values, or when
    one isn't finite.
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"an interval needs a list of one or more finite numbers, not {list(values)}")
    mean = float(array.mean())
    if array.size == 1:
        return mean, -math.inf, math.inf
    half = student_quantile(0.5 + level / 2, array.size - 1) * float(array.std(ddof=1)) / math.sqrt(array.size)
    return mean, mean - half, mean + half


def student_quantile(p: float, df: int) -> float:
    """The value that Student's t with `df` degrees of freedom stays below with probability `p` (0 < p < 1)."""
    if not 0 < p < 1 or df < 1:
        raise ValueError(f"a quantile needs 0 < p < 1 and df >= 1, not p={p}, df={df}")
    if p < 0.5:
        return -student_quantile(1 - p, df)
    if df > EXACT_DF:
        return _expanded_quantile(p, df)
    low, high = 0.0, math.pi / 2
    for _ in range(80):  # halving an angle 80 times goes below float64's resolution
        middle = (low + high) / 2
        low, high = (middle, high) if _two_sided(middle, df) < 2 * p - 1 else (low, middle)
    return math.sqrt(df) * math.tan(low)


def _two_sided(angle: float, df: int) -> float:
    """P(|t| < sqrt(df) tan(angle)), the finite sums for odd and even df (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    cosine, odd = math.cos(angle), df % 2
    term = cosine if odd else 1.0
    total = term if df > 1 else 0.0
    for k in range(2 + odd, df - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def _expanded_quantile(p: float, df: int) -> float:
    """Student's quantile from the normal one, in powers of 1/df (Abramowitz & Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(p)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + first / df + second / df**2 + third / df**3 + fourth / df**4


@dataclass(frozen=True)
class ActionErrors:
    """Errors of predicted action chunks over valid steps, in the actions' units (`mse` in their square).

    `per_dim` (A,) and `per_step` (T,) are mean absolute errors; a step that is never valid is nan. `count` is the
    number of valid (chunk, step) pairs.
    """

    mse: float
    l1: float
    per_dim: np.ndarray
    per_step: np.ndarray
    count: int


def action_errors(predicted: np.ndarray, target: np.ndarray, valid: np.ndarray | None = None) -> ActionErrors:
    """Compare chunks (..., T, A) where `valid` (..., T) is True; all steps count when it is None.

    Raises ValueError on shapes that don't match and when nothing is valid.
    """
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if predicted.shape != target.shape or predicted.ndim < 2:
        raise ValueError(f"predicted and target actions must both be (..., T, A), not {predicted.shape} and {target.shape}")
    mask = np.ones(target.shape[:-1], bool) if valid is None else np.asarray(valid, bool)
    if mask.shape != target.shape[:-1]:
        raise ValueError(f"valid must be {target.shape[:-1]} for actions {target.shape}, not {mask.shape}")
    if not mask.any():
        raise ValueError("no valid action to compare; valid is False everywhere")
    steps, dims = target.shape[-2:]
    # Invalid places may hold anything, nan too: they are replaced, not multiplied by 0.
    error = np.where(mask[..., None], predicted - target, 0.0).reshape(-1, steps, dims)
    counts = mask.reshape(-1, steps).sum(0)
    absolute, total = np.abs(error), int(mask.sum())
    with np.errstate(invalid="ignore"):
        per_step = absolute.mean(2).sum(0) / np.where(counts > 0, counts, np.nan)
    return ActionErrors(
        mse=float((error**2).sum() / (total * dims)),
        l1=float(absolute.sum() / (total * dims)),
        per_dim=absolute.sum((0, 1)) / total,
        per_step=per_step,
        count=total,
    )
