"""What weights can do, read from their configuration without importing the system."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOV = {"object": 39.6, "scene": 60.0}


@dataclass(frozen=True)
class About:
    """Kinds of pictures and defaults of inference; those of the published system where nothing else is written."""

    kinds: tuple[str, ...] = ("object", "scene")
    is_one_step: bool = False
    has_guidance: bool = False
    steps: int = 30
    sampler: str = "ancestral"
    guidance: float = 1.0
    fov: dict[str, float] = field(default_factory=lambda: dict(FOV))

    @property
    def words(self) -> str:
        """One line for the page."""
        how = "in one step, as a regressor" if self.is_one_step else f"by diffusion, usually in {self.steps} steps"
        known = " and ".join(f"{kind}s" for kind in self.kinds)
        return f"These weights know {known} and make Gaussians {how}."


def about(folder: Path) -> About:
    """What the weights in a run, an export or a folder of published files can do."""
    try:
        system: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())["system"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return About()
    usual = About()
    is_one_step = system.get("objective") == "regression"
    return About(
        kinds=tuple(system.get("kinds", usual.kinds)),
        is_one_step=is_one_step,
        has_guidance=bool(system.get("condition_dropout")),
        steps=1 if is_one_step else system.get("steps", usual.steps),
        sampler=system.get("sampler", usual.sampler),
        guidance=system.get("guidance", usual.guidance),
        fov={**usual.fov, **system.get("fov", {})},
    )
