"""What `mixtura data synth` runs: a generator writes a dataset below a folder, once, from a seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict


class GeneratorConfig(BaseModel):
    """Base of an entry of `synth:`; a generator adds its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str


@runtime_checkable
class Generator(Protocol):
    """Built as `GeneratorClass(config, root=..., seed=...)`, with the pydantic model `GeneratorClass.Config`.

    `done()` tells whether the finished dataset of exactly this configuration and seed is there already;
    `run(say)` makes it (a killed run leaves no dataset that looks finished), telling progress through `say(text)`.
    """

    def done(self) -> bool: ...

    def run(self, say: Callable[[str], None]) -> list[Path]: ...
