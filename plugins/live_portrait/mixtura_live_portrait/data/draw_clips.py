"""The generator `procedural_faces`: drawn clips as mp4 with landmarks beside them, in the form that `portrait_clips` reads.

The source `faces` draws the same clips without files. These show the form, and try the path that real clips take.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from mixtura.data.formats.video import VideoWriter
from mixtura.data.generator import GeneratorConfig
from mixtura_live_portrait.data.building import Build
from mixtura_live_portrait.data.drawn.clip import FPS, VERSION, DrawnClip, Style
from mixtura_live_portrait.data.marks import Marks, write_marks


class ProceduralFacesConfig(GeneratorConfig):
    """An entry of `synth:` that writes `path`/person-0000/clip-00.mp4 and clip-00.json."""

    type: Literal["procedural_faces"] = "procedural_faces"
    path: str = Field(description="folder of the clips, made by this generator")
    identities: int = Field(8, ge=1, description="people")
    clips: int = Field(2, ge=1, description="clips of each")
    frames: int = Field(75, ge=1, description="frames of a clip, 25 a second")
    size: int = Field(128, ge=16, description="pixels; frames are square")
    first_identity: int = Field(0, ge=0, description="number of the first person; ranges that don't overlap share nobody")
    style: Style = "plain"

    @field_validator("size")
    @classmethod
    def _even(cls, size: int) -> int:
        if size % 2:
            raise ValueError(f"{size} pixels can't be stored as video; take an even size")
        return size


class ProceduralFaces:
    """Writes the clips once. People are those of the source `faces` with the run's seed as its `seed`."""

    Config: ClassVar[type[ProceduralFacesConfig]] = ProceduralFacesConfig

    def __init__(self, config: ProceduralFacesConfig, *, root: Path, seed: int) -> None:
        self.config, self.seed = config, seed
        facts: dict[str, Any] = json.loads(config.model_dump_json(exclude={"path"}))
        self.build = Build(Path(root) / config.path, {"seed": seed, "version": VERSION, **facts})

    def done(self) -> bool:
        """Whether the finished clips of this configuration and seed are there."""
        return self.build.is_done()

    def run(self, say: Callable[[str], None]) -> list[Path]:
        """Draw the clips; raises DataError when other files are in their place."""
        self.build.run(lambda folder: self._fill(folder, say))
        return [self.build.path]

    def _fill(self, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
        config = self.config
        for person in range(config.first_identity, config.first_identity + config.identities):
            for number in range(config.clips):
                video = folder / f"person-{person:04d}" / f"clip-{number:02d}.mp4"
                if not video.with_suffix(".json").is_file():  # it is written last
                    clip = DrawnClip(self.seed, person, number, config.frames, config.style)
                    write_clip(clip, video, config.frames, config.size, person)
            say(f"person {person}: {config.clips} clips")
        return {"clips": config.identities * config.clips}


def write_clip(clip: DrawnClip, video: Path, frames: int, size: int, identity: int) -> None:
    """One clip as mp4, and its landmarks and labels beside it."""
    states = [clip.state(frame) for frame in range(frames)]
    points = []
    with VideoWriter(video, FPS, (size, size)) as writer:
        for state in states:
            drawn = clip.doing(state, size)
            writer.append(drawn.image)
            points.append(drawn.landmarks)
    pose = np.array([state.pose[:3] for state in states], np.float32)
    expression = np.stack([state.expression.vector() for state in states])
    part = video.with_suffix(".part.json")
    write_marks(part, Marks(np.stack(points), pose, expression, identity, is_cropped=True))
    part.replace(video.with_suffix(".json"))
