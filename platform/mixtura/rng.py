"""Keyed randomness: every random number is a function of (seed, names and numbers), never of history.

`key64` hashes a path of names and numbers. `KeyedRng` is a node of a tree of generators.
`SampleNoise` draws one tensor per sample of a batch, keyed by the sample's place in the step, so that
noise does not change when a step is split into other micro-batches or ranks.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def key64(*parts: object) -> int:
    """A stable 63-bit key of the parts (compared by their `repr`), equal in every process."""
    text = "\x1f".join(repr(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class KeyedRng:
    """A generator tree: `KeyedRng(17).at("mix", step).numpy()` gives the same numbers everywhere."""

    def __init__(self, *path: object) -> None:
        self.path = path

    def at(self, *path: object) -> KeyedRng:
        """The node below this one that is called `path`."""
        return KeyedRng(*self.path, *path)

    @property
    def key(self) -> int:
        """The 63-bit seed of this node."""
        return key64(*self.path)

    def numpy(self) -> np.random.Generator:
        """A fresh NumPy generator (Philox, counter-based) for this node."""
        return np.random.Generator(np.random.Philox(key=self.key))

    def torch(self) -> torch.Generator:
        """A fresh CPU torch generator for this node."""
        import torch

        return torch.Generator().manual_seed(self.key)


class SampleNoise:
    """Random tensors for a batch, one row per sample, keyed by (seed, step, place of the sample).

    `places` are positions in the global batch of the step. The numbers are drawn on the CPU and then
    moved to `device`, so CPU and GPU runs see the same noise.
    """

    def __init__(self, rng: KeyedRng, places: list[int], device: torch.device | str = "cpu") -> None:
        self.rng, self.places, self.device = rng, places, device

    def _rows(self, kind: str, name: str, shape: tuple[int, ...], dtype: torch.dtype | None) -> torch.Tensor:
        import torch

        rows = torch.empty((len(self.places), *shape), dtype=torch.float32)
        generator = torch.Generator()
        for row, place in zip(rows, self.places, strict=True):
            generator.manual_seed(self.rng.at(name, place).key)
            row.normal_(generator=generator) if kind == "normal" else row.uniform_(generator=generator)
        return rows.to(device=self.device, dtype=dtype or torch.float32)

    def normal(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Standard normal (B, *shape)."""
        return self._rows("normal", name, shape, dtype)

    def uniform(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Uniform in [0, 1), (B, *shape)."""
        return self._rows("uniform", name, shape, dtype)
