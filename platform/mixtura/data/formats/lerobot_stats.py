"""Statistics that a LeRobot v3 dataset stores per episode and for the whole: min, max, mean, std, count, quantiles.

Numbers: per channel over rows. Images: per colour channel over sampled frames, scaled to [0, 1], shape (3, 1, 1).
`aggregate` joins episodes: exact for min, max, mean, std and count; quantiles are weighted means (an approximation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
SAMPLED_FRAMES = 100
"""At least so many frames of an episode (all, when it has fewer) make the image statistics."""

Stats = dict[str, np.ndarray]


def column_stats(rows: np.ndarray) -> Stats:
    """Statistics over the rows of (N, *shape), each of `shape`; exact quantiles. NaN in a channel makes its figures NaN."""
    values = rows.astype(np.float64)
    result = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        "count": np.array([len(rows)]),
    }
    return result | dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0), strict=True))


def image_stats(frames: Sequence[np.ndarray]) -> Stats:
    """Statistics of uint8 frames (H, W, 3) in [0, 1], each (3, 1, 1); `count` is the number of frames looked at."""
    chosen = np.unique(np.round(np.linspace(0, len(frames) - 1, max(SAMPLED_FRAMES, int(len(frames) ** 0.75)))).astype(int))
    step = max(1, max(frames[0].shape[:2]) // 150)
    pixels = np.stack([frames[k][::step, ::step] for k in chosen]).reshape(-1, 3)
    histogram = np.stack([np.bincount(pixels[:, c], minlength=256) for c in range(3)])
    share = histogram / len(pixels)
    levels = np.arange(256)
    mean = share @ levels
    std = np.sqrt(np.maximum(share @ levels**2 - mean**2, 0))
    found = {"min": pixels.min(0), "max": pixels.max(0), "mean": mean, "std": std}
    below = np.cumsum(share, axis=1)
    found |= {name: np.array([np.searchsorted(below[c], q) for c in range(3)]) for name, q in QUANTILES.items()}
    scaled = {name: (np.asarray(value, np.float64) / 255).reshape(3, 1, 1) for name, value in found.items()}
    return {**scaled, "count": np.array([len(chosen)])}


def aggregate(parts: Sequence[Mapping[str, np.ndarray]]) -> Stats:
    """Statistics of the union from those of the parts."""
    weight = np.array([float(part["count"][0]) for part in parts])
    total = weight.sum()

    def mean_of(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(np.tensordot(weight, np.stack(values), axes=1) / total)

    mean = mean_of([part["mean"] for part in parts])
    variance = mean_of([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    result = {
        "min": np.min([part["min"] for part in parts], axis=0), "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean, "std": np.sqrt(variance), "count": np.array([int(total)]),
    }  # fmt: skip
    return result | {name: mean_of([part[name] for part in parts]) for name in QUANTILES}


def as_lists(stats: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    """For JSON: feature -> statistic -> nested lists."""
    return {feature: {name: value.tolist() for name, value in parts.items()} for feature, parts in stats.items()}
