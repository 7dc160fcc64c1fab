"""What keeps F and W in scale without statistics of a batch (docs/adr/011): norms that follow, filters of fixed length.

Pictures of the run's sources go through the untrained F and W, W's keypoints scattered at random, and every norm takes mean and
variance of what reaches it. The result, name -> tensor, is kept as an asset of the run. From then on norms follow what they see
step by step (`follow`), and the filters before them only turn: `Lengths` brings them back to the length they began with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from mixtura.data.source import Sample, Source
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng
from mixtura_live_portrait.nets.blocks import SteadyNorm

SCATTER, STIR = 0.4, 0.1
"""Standard deviations of the keypoints that W is measured with, and of how far they move."""
TRIES = 20
"""Samples of a source that may be bad."""


def norms(networks: nn.Module) -> dict[str, SteadyNorm]:
    """The batch norms of the networks by name."""
    return {name: m for name, m in networks.named_modules() if isinstance(m, SteadyNorm)}


def filters(networks: nn.Module) -> dict[str, Tensor]:
    """Weights of the convolutions that batch norms follow or precede, by name."""
    return {
        f"{name}.{child}.weight": conv.weight
        for name, module in networks.named_modules()
        if any(isinstance(norm, SteadyNorm) for norm in module.children())
        for child, conv in module.named_children()
        if isinstance(conv, nn.Conv2d | nn.Conv3d) and child.startswith(("conv", "compress"))
    }


class Lengths(nn.Module):
    """The length of every filter (one for each output channel) at the start of a run; part of its checkpoints."""

    def __init__(self, networks: nn.Module) -> None:
        super().__init__()
        self.names = list(filters(networks))
        for name, weight in filters(networks).items():
            self.register_buffer(self._own(name), lengths_of(weight))

    def _own(self, name: str) -> str:
        return name.replace(".", "-")

    @torch.no_grad()
    def keep(self, networks: nn.Module) -> None:
        """Take the lengths of now."""
        for name, weight in filters(networks).items():
            self.get_buffer(self._own(name)).copy_(lengths_of(weight))

    @torch.no_grad()
    def restore(self, networks: nn.Module) -> None:
        """Bring filters that train back to their lengths; a filter of length 0 stays."""
        for name, weight in filters(networks).items():
            if weight.requires_grad:
                kept, now = self.get_buffer(self._own(name)), lengths_of(weight)
                weight.mul_(torch.where(now > 0, kept / now, 1.0).view(-1, *[1] * (weight.ndim - 1)))


def lengths_of(weight: Tensor) -> Tensor:
    """Length of each filter of a convolution's weight (c, ...): (c,)."""
    return weight.detach().flatten(1).norm(dim=1)


@contextmanager
def measuring(networks: nn.Module) -> Iterator[None]:
    """Batch norms normalise by the batch and keep its statistics; one forward, then they keep still again."""
    mine = norms(networks).values()
    for norm in mine:
        norm.reset_running_stats()
        norm.is_measuring = True
    try:
        yield
    finally:
        for norm in mine:
            norm.is_measuring = False


def follow(networks: nn.Module, share: float, total: Callable[[Tensor], Tensor]) -> None:
    """Norms that saw something move their statistics towards it; `total` adds up what all processes saw."""
    seen = [norm for norm in norms(networks).values() if norm.noted is not None]
    if not seen:
        return
    sizes = [2 * norm.num_features + 1 for norm in seen]
    sums = torch.cat([norm.noted for norm in seen if norm.noted is not None]).double()
    for norm, noted in zip(seen, total(sums).split(sizes), strict=True):
        norm.noted = noted.float()
        norm.follow(share)


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
