"""What a source of data is: something that reads samples by index, purely.

`Sample` is one training example, `SourceInfo` what the plan and the mixers need to know of a source,
`Source` the contract that formats and plugins fulfil, `SourceConfig` the base of its section in the YAML file,
`part_of` finds an item in a source of several files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from mixtura.rng import KeyedRng


class SourceConfig(BaseModel):
    """Base of a source's section: `sources: {NAME: {type: ..., ...}}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str
    max_epochs: float | None = Field(None, gt=0, description="use every item at most this often in a stage")


@dataclass
class Sample:
    """One training example: named fields plus where it came from.

    `key` names the item for people (file and member, episode and frame); `source` is the name that the
    configuration gives the source; `index` the item's number in it; `epoch` how often it was used before.
    """

    fields: dict[str, Any]
    key: str = ""
    source: str = ""
    index: int = -1
    epoch: int = 0


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source before anything is read.

    `size` counts samples. `unit` names what `unit_size`, the mean number of units in a sample, counts
    (samples, tokens, frames, seconds). `fingerprint` changes when the content changes. `max_epochs` caps
    how often the source may be used; None is without a cap.
    """

    name: str
    size: int
    fingerprint: str
    unit: str = "samples"
    unit_size: float = 1.0
    loss_unit: str = "item"
    tags: tuple[str, ...] = ()
    max_epochs: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def part_of(starts: np.ndarray, index: int, name: str) -> tuple[int, int]:
    """Which part of a source holds item `index`, and its place in that part.

    Part p (a shard, a video) holds the items from starts[p] up to starts[p + 1], the last number is the source's size.
    IndexError when there is no such item.
    """
    size = int(starts[-1])
    if not 0 <= index < size:
        raise IndexError(f"{name}: no sample {index}, it has {size}")
    part = int(starts.searchsorted(index, side="right")) - 1
    return part, index - int(starts[part])


@runtime_checkable
class Source(Protocol):
    """Random access to samples. Reading is pure: the same index and rng give the same sample.

    Built as `SourceClass(config, name=..., root=...)`; `SourceClass.Config` is the pydantic model of its section
    in the configuration file (a sub-class of `SourceConfig`), `root` the folder that relative paths start from.
    Must survive a fork and be picklable (open files lazily, per process). The sample's `source`, `index` and
    `epoch` are filled in by the loader.
    """

    info: SourceInfo

    def __len__(self) -> int: ...

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """The sample at `index` (0 <= index < len). Raises `BadSample` when it can't be decoded."""
        ...
