"""What the page must know of a checkpoint before it is loaded, read from its config.yaml alone (torch is not imported)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mixtura_demos.iflybot_vla.simulators import ROWS
from mixtura_demos.shared.checkpoints import Choice
from mixtura_demos.shared.errors import Refused
from mixtura_iflybot_vla.sim.closed_loop import ClosedLoopConfig
from mixtura_iflybot_vla.sim.world import TASKS

PREFIX = "observation.images."
PICTURES = ("image_size", "cameras", "quality", "frame_skip")
"""Settings of pictures and time, called alike by the evaluator and by the generator of the data."""
CODES = 8
"""Latent codes at most."""


@dataclass(frozen=True)
class Facts:
    """Tasks (trained ones first), how pictures are drawn, sizes of plans and codes (0 codes: no latent actions)."""

    tasks: tuple[str, ...]
    trained: tuple[str, ...]
    cameras: tuple[str, ...]
    image_size: int
    quality: str
    frame_skip: int
    execute: int
    rows: int
    chunk: int
    span: int
    codes: int
    codebook: int
    has_fast: bool

    @property
    def titles(self) -> list[tuple[str, str]]:
        """Tasks for a field: what is shown, what is sent."""
        return [(task if task in self.trained or not self.trained else f"{task} (not trained)", task) for task in self.tasks]

    @property
    def stage(self) -> ClosedLoopConfig:
        """Settings of the simulator: the same for all tasks and plans, so that its process needs no new start."""
        return self.loop(UNKNOWN.tasks[0], ROWS)

    def loop(self, task: str, execute: int) -> ClosedLoopConfig:
        """Settings of the evaluator's loop for one watched episode. Raises Refused for what the simulator can't show."""
        try:
            return ClosedLoopConfig(
                tasks=(task,), episodes=1, rows=ROWS, execute=execute, image_size=self.image_size, cameras=self.cameras,
                frame_skip=self.frame_skip, quality=self.quality, videos=0,
            )  # fmt: skip
        except ValidationError as error:
            reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            raise Refused(f"the simulator can't show what these weights look at: {reason}") from error


UNKNOWN = Facts(tuple(TASKS), (), ("table", "side"), 80, "fast", 4, 2, 60, 8, 8, CODES, 32, True)
"""What the page shows while there are no weights."""


def facts_of(choice: Choice) -> Facts:
    """The facts of a checkpoint. Raises Refused when it has no readable configuration, or one for another robot."""
    config = _read(choice.path / "config.yaml", choice.label)
    system = _section(config, "system")
    pictures: dict[str, Any] = {}
    loops = [part for part in _list(config, "evaluate") if part.get("type") == "closed_loop"]
    makers = [part for part in _list(config, "synth") if part.get("type") == "metaworld_demos"]
    for part in (*makers, *loops):
        pictures |= {key: part[key] for key in PICTURES if key in part}
    views = tuple(str(name).removeprefix(PREFIX) for name in system.get("cameras") or ())
    loop: dict[str, Any] = loops[0] if loops else {}
    named = [task for part in (*loops, *makers) for task in part.get("tasks") or ()]
    trained = tuple(dict.fromkeys(task for task in named if task in TASKS))
    latent, chunk = _section(system, "lam"), int(system.get("chunk", 8))
    return Facts(
        tasks=(*trained, *(task for task in TASKS if task not in trained)),
        trained=trained,
        cameras=views or tuple(pictures.get("cameras", UNKNOWN.cameras)),
        image_size=int(pictures.get("image_size", system.get("image_size", 80))),
        quality=str(pictures.get("quality", "fast")),
        frame_skip=int(pictures.get("frame_skip", 4)),
        execute=min(int(loop.get("execute", 2)), chunk),
        rows=min(int(loop.get("rows", 60)), ROWS),
        chunk=chunk,
        span=int(system.get("latent_span", 8)),
        codes=int(latent.get("codes", CODES)) if system.get("latent", True) else 0,
        codebook=int(latent.get("codebook", 32)),
        has_fast=bool(system.get("fast", True)),
    )


def _read(path: Path, label: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Refused(
            f"{label} has no readable config.yaml, which tells what its cameras and actions are; "
            "`mixtura export` writes one beside the weights"
        ) from error
    return content if isinstance(content, dict) else {}


def _section(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _list(values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = values.get(name)
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []
