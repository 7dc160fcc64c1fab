"""Batch norms of a new run, measured once before it starts (docs/adr/011).

Pictures of the run's sources go through the untrained F and W, W's keypoints scattered at random, and every norm takes mean and
variance of what reaches it. The result, name -> tensor, is kept as an asset of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from mixtura.data.source import Sample, Source
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng

SCATTER, STIR = 0.4, 0.1
"""Standard deviations of the keypoints that W is measured with, and of how far they move."""
TRIES = 20
"""Samples of a source that may be bad."""


def norms(networks: nn.Module) -> dict[str, nn.BatchNorm2d | nn.BatchNorm3d]:
    """The batch norms of the networks by name."""
    return {name: m for name, m in networks.named_modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)}


@contextmanager
def measuring(networks: nn.Module) -> Iterator[None]:
    """Batch norms normalise by the batch and keep its statistics; one forward, then they keep still again."""
    mine = norms(networks).values()
    momenta = [norm.momentum for norm in mine]
    for norm in mine:
        norm.reset_running_stats()
        norm.training, norm.momentum = True, 1.0  # a norm's own train() refuses
    try:
        yield
    finally:
        for norm, momentum in zip(mine, momenta, strict=True):
            norm.training, norm.momentum = False, momentum


@torch.no_grad()
def calibrate(networks: nn.Module, pictures: Tensor, keypoints: int) -> dict[str, Tensor]:
    """Measure the norms of F and W on pictures (n, 3, S, S); returns their statistics by name."""
    noise = torch.Generator().manual_seed(KeyedRng("calibration").key)
    x_s = SCATTER * torch.randn(len(pictures), keypoints, 3, generator=noise)
    x_d = x_s + STIR * torch.randn(len(pictures), keypoints, 3, generator=noise)
    with measuring(networks):
        networks.get_submodule("warping")(networks.get_submodule("appearance")(pictures), x_d, x_s)
    return statistics(networks)


def statistics(networks: nn.Module) -> dict[str, Tensor]:
    """Mean, variance and number of batches of every norm."""
    return {
        f"{name}.{kind}": value.detach().clone().contiguous()
        for name, norm in norms(networks).items()
        for kind, value in norm.named_buffers()
    }


def take(networks: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Give norms the statistics that `calibrate` returned."""
    own = dict(networks.named_buffers())
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)


def some_samples(sources: Mapping[str, Source], count: int, seed: KeyedRng) -> list[Sample]:
    """About `count` samples, as many of each source, unreadable ones left out. Raises DataError when a source gives none."""
    samples = []
    each = max(1, -(-count // max(len(sources), 1)))
    for name, source in sorted(sources.items()):
        found: list[Sample] = []
        order = seed.at(name).numpy().permutation(len(source)) if len(source) < 1 << 20 else np.arange(each + TRIES)
        for index in order[: each + TRIES].tolist():
            if len(found) < each:
                found += _read(source, index, seed.at(name, index))
        if not found:
            raise DataError(f"source '{name}': none of {min(len(source), each + TRIES)} samples can be read")
        samples += found
    return samples


def _read(source: Source, index: int, rng: KeyedRng) -> Sequence[Sample]:
    try:
        return [source.read(index, rng)]
    except BadSample:
        return []
