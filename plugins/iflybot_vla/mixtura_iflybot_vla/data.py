"""From samples of any source to what iFlyBot-VLA reads: images, padded states, normalised chunks, statistics.

A robot sample has the action field of the configuration; everything else is a question-answer sample with
`conversations`. Statistics are taken over all steps of a source (the published code looks at the first step of
each chunk only), stored with the run and checked against the data whenever a stage starts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from mixtura.data.source import Sample, Source
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng
from mixtura_iflybot_vla.config import IFlyBotConfig

CLIP = 1.5
"""Normalised values are clipped to +-1.5 (sheet section 9)."""
TOLERANCE = 1e-3
"""Statistics may differ by this share of a channel's range before a data set counts as another one."""

Statistics = dict[str, dict[str, list[float]]]
"""field (action | state) -> {q01, q99, min, max, mean, std} per channel."""


@dataclass
class RobotSample:
    """One robot sample: images (V, H, W, 3) uint8, present (V,), state (D,), actions (T, A), valid (T,), instruction."""

    images: np.ndarray
    present: list[bool]
    state: np.ndarray
    actions: np.ndarray
    valid: np.ndarray
    instruction: str


def is_robot(fields: Mapping[str, Any], config: IFlyBotConfig) -> bool:
    """Whether a sample carries actions (else it must be a question with an answer)."""
    return config.action in fields


def robot_sample(sample: Sample, config: IFlyBotConfig) -> RobotSample:
    """Read the fields that the configuration names; raises BadSample for wrong shapes and values that are not finite."""
    fields = sample.fields
    actions = np.atleast_2d(np.asarray(fields[config.action], np.float32))
    if actions.shape[0] != config.chunk:
        raise DataError(
            f"{sample.source}: field '{config.action}' has {actions.shape[0]} steps, system.chunk is {config.chunk}; "
            f"set `windows: {{{config.action}: [0..{config.chunk - 1}]}}` in the source"
        )
    if config.state not in fields:
        raise DataError(f"{sample.source}: no field '{config.state}'; system.state names the robot state")
    state = np.asarray(fields[config.state], np.float32).reshape(-1, np.shape(fields[config.state])[-1])[0]
    if not (np.isfinite(actions).all() and np.isfinite(state).all()):
        raise BadSample(f"{sample.key}: actions or state hold NaN or infinity")
    valid = np.asarray(fields.get(f"{config.action}_valid", np.ones(config.chunk, bool)), bool)
    views = [view(fields[name])[0] if name in fields else None for name in config.cameras]
    if views[0] is None:
        raise DataError(f"{sample.source}: no field '{config.cameras[0]}'; system.cameras names the images, head camera first")
    shown = [resize(v, config.image_size) if v is not None else None for v in views]
    blank = np.zeros((config.image_size, config.image_size, 3), np.uint8)
    images = np.stack([blank if v is None else v for v in shown])
    return RobotSample(images, [v is not None for v in views], state, actions, valid, str(fields.get("task", "")))


def view(frames: np.ndarray) -> np.ndarray:
    """Frames with a time axis: (H, W, 3) becomes (1, H, W, 3)."""
    array = np.asarray(frames)
    return array[None] if array.ndim == 3 else array


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3) uint8, bilinear with antialiasing; unchanged when it fits already."""
    if image.shape[:2] == (size, size):
        return image
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    small = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def frame_pair(sample: Sample, config: IFlyBotConfig, size: int) -> np.ndarray:
    """The head camera now and `latent_span` frames later: (2, size, size, 3) uint8."""
    frames = view(sample.fields[config.cameras[0]])
    if len(frames) < 2:
        raise DataError(
            f"{sample.source}: the latent action model needs two frames of '{config.cameras[0]}'; "
            f"set `windows: {{{config.cameras[0]}: [0, {config.latent_span}]}}` in the source"
        )
    return np.stack([resize(frames[0], size), resize(frames[-1], size)])


# -- statistics -----------------------------------------------------------------------------------------------


def evenly(source: Source, most: int) -> Sequence[int]:
    """At most `most` indices, evenly spread over a source."""
    return range(len(source)) if len(source) <= most else np.linspace(0, len(source) - 1, most).astype(int).tolist()


def read_evenly(source: Source, most: int) -> list[Sample]:
    """At most `most` samples, evenly spread; unreadable ones are left out."""
    samples = []
    for index in evenly(source, most):
        try:
            samples.append(source.read(index, KeyedRng("statistics", index)))
        except BadSample:
            continue
    if not samples:
        raise DataError(f"source '{source.info.name}': none of its samples can be read")
    return samples


def _column(source: Source, field: str, samples: Sequence[Sample]) -> np.ndarray:
    """All rows of a low-dimensional field, from the table when the source has one, else from samples."""
    table = getattr(source, "column", None)
    if table is not None:
        rows = np.asarray(table(field), np.float64)
    else:
        rows = np.concatenate([np.atleast_2d(np.asarray(s.fields[field], np.float64)) for s in samples])
    rows = rows.reshape(len(rows), -1)
    return rows[np.isfinite(rows).all(1)]


def statistics(source: Source, config: IFlyBotConfig, samples: Sequence[Sample]) -> Statistics:
    """Per-channel statistics of the actions and states of a robot source."""
    result: Statistics = {}
    for name, field in (("action", config.action), ("state", config.state)):
        rows = _column(source, field, samples)
        if not len(rows):
            raise DataError(f"source '{source.info.name}': field '{field}' has no finite row")
        low, high = np.quantile(rows, [0.01, 0.99], axis=0)
        parts = {"q01": low, "q99": high, "min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
        result[name] = {key: [float(v) for v in value] for key, value in parts.items()}
    return result


def check_statistics(source: str, here: Statistics, stored: Statistics) -> None:
    """Refuse data whose statistics differ from those that the weights were trained with."""
    for field, parts in stored.items():
        for key in ("q01", "q99"):
            old, new = np.array(parts[key]), np.array(here[field][key])
            if old.shape != new.shape:
                raise DataError(f"source '{source}': {field} has {len(new)} channels, the checkpoint was trained with {len(old)}")
            span = np.maximum(np.array(parts["q99"]) - np.array(parts["q01"]), 1e-6)
            far = np.abs(old - new) / span
            if far.max() > TOLERANCE:
                worst = int(far.argmax())
                raise DataError(
                    f"source '{source}': {key} of {field} channel {worst} is {new[worst]:.5g} in the data and "
                    f"{old[worst]:.5g} in "
                    "the checkpoint; this is another data set. Start a new run (init_from takes the weights), or give "
                    "the right path"
                )


class Normaliser:
    """Maps states and actions of one source to the padded, normalised 20 channels and back."""

    def __init__(self, stats: Statistics, config: IFlyBotConfig) -> None:
        self.width = config.width
        ends = {"quantile": ("q01", "q99"), "bounds": ("min", "max")}.get(config.normalise)
        self.centre, self.half = {}, {}
        for field, parts in stats.items():
            if ends:
                low, high = np.array(parts[ends[0]]), np.array(parts[ends[1]])
                centre, half = (low + high) / 2, (high - low) / 2
            else:
                centre, half = np.array(parts["mean"]), np.array(parts["std"])
            if len(centre) > self.width:
                raise DataError(f"{field} has {len(centre)} channels, system.width is {self.width}")
            constant = np.array(parts["max"]) <= np.array(parts["min"])
            self.centre[field] = centre
            self.half[field] = np.where(constant | (half <= 0), np.inf, half)

    def channels(self, field: str) -> int:
        """Channels of the data, before padding."""
        return len(self.centre[field])

    def encode(self, field: str, values: np.ndarray) -> np.ndarray:
        """(..., D) raw to (..., width) float32 in [-1.5, 1.5], zeros behind D; constant channels give 0."""
        scaled = np.clip((values - self.centre[field]) / self.half[field], -CLIP, CLIP)
        padded = np.zeros((*values.shape[:-1], self.width), np.float32)
        padded[..., : scaled.shape[-1]] = scaled
        return padded

    def decode(self, field: str, values: np.ndarray) -> np.ndarray:
        """(..., width) normalised to (..., D) raw float32."""
        half = np.where(np.isfinite(self.half[field]), self.half[field], 0.0)
        return (values[..., : len(half)] * half + self.centre[field]).astype(np.float32)


def save_statistics(path: Path, stats: Mapping[str, Statistics]) -> None:
    """Write the statistics of all robot sources."""
    path.write_text(json.dumps(stats, indent=1, sort_keys=True))


def load_statistics(path: Path) -> dict[str, Statistics]:
    """Read what `save_statistics` wrote."""
    return dict(json.loads(path.read_text()))
