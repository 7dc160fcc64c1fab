"""`mixtura infer` for LivePortrait with an ear for whoever waits: every frame is told, and asks whether to go on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixtura_demos.live_portrait.engines import Loaded

if TYPE_CHECKING:
    from mixtura_live_portrait.animate.inputs import Input, Plan
    from mixtura_live_portrait.faces.crop import Frame

Tell = Callable[[str, int, int], None]
"""What is done, frames that are done, frames in all (0: not known). May raise, which ends the work."""


@dataclass(frozen=True)
class Made:
    """Files by name, what the plugin said, and its figures."""

    files: Mapping[str, Path]
    said: Sequence[str]
    info: Mapping[str, Any]

    def of(self, name: str) -> str | None:
        """A file, as the page takes it, if it was made."""
        path = self.files.get(name)
        return None if path is None else str(path)


class Watch:
    """Tells about frames: those that are read while faces are looked for, then those that are painted."""

    def __init__(self, tell: Tell) -> None:
        self.tell, self.is_painting = tell, False

    def read(self, what: str, done: int, count: int) -> None:
        """A frame was read. While painting, that only asks whether to go on."""
        self.tell("" if self.is_painting else f"looking at {what}", done, count)

    def painted(self, done: int, count: int) -> None:
        """A frame was painted."""
        self.is_painting = True
        self.tell("painting", done, count)


@dataclass(frozen=True, eq=False)
class Told:
    """Frames that are told as they are read."""

    of: Any
    what: str
    count: int
    watch: Watch

    def __iter__(self) -> Iterator[Frame]:
        for number, frame in enumerate(self.of):
            self.watch.read(self.what, number, self.count)
            yield frame


def animate(inputs: Sequence[Path], settings: Mapping[str, Any], networks: Loaded, out: Path, tell: Tell) -> Made:
    """Animate the first input as the second does, into the folder `out`. Raises MixturaError, and what `tell` raises."""
    from mixtura.inference import settings_of
    from mixtura_live_portrait.animate.files import Result
    from mixtura_live_portrait.animate.inputs import plan
    from mixtura_live_portrait.animate.settings import Settings

    chosen = settings_of(Settings, {"batch": 1, **settings})
    watch, said, engine = Watch(tell), list[str](), networks.engine
    planned = _told(plan(inputs, chosen, engine.sizes.keypoints, networks.networks), watch)
    result = Result(planned, engine, networks.networks, out, said.append)
    result.animator = _animator(result.animator, watch)
    began = time.perf_counter()
    files = {path.name: path for path in result.make()}
    info = json.loads(files["info.json"].read_text())
    return Made(files, said, info | {"total": time.perf_counter() - began})


def _told(planned: Plan, watch: Watch) -> Plan:
    """The plan with clips whose frames are told."""
    drivings = tuple(_told_input(entry, "the driving", watch) for entry in planned.drivings)
    return replace(planned, source=_told_input(planned.source, "the portrait", watch), drivings=drivings)


def _told_input(entry: Input, what: str, watch: Watch) -> Input:
    from mixtura_live_portrait.animate.inputs import Frames

    if not isinstance(entry.frames, Frames):
        return entry
    clip, limit = entry.frames.of, entry.frames.limit
    expected = getattr(clip, "frames", 0)
    count = min(expected, limit) if limit else expected
    return replace(entry, frames=Frames(Told(clip, what, count, watch), limit))


def _animator(animator: Any, watch: Watch) -> Any:
    """The animator, telling of every frame that it paints."""
    from mixtura_live_portrait.animate.animator import Animator

    class Watched(Animator):
        def paint(self, frames: Any, portraits: Any, places: Any) -> Iterator[Any]:
            count = len(places[0])
            watch.painted(0, count)
            for shot in super().paint(frames, portraits, places):
                yield shot
                watch.painted(shot.number + 1, count)

    return Watched(animator.engine, animator.rules, animator.adjust, animator.batch)
