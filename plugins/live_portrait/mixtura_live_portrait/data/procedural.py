"""The source `faces`: drawn clips and pictures with exact pose, expression, landmarks and identity. It needs no files.

An item is a clip of a person; reading it draws two of its frames, chosen by the rng. With `still: true` an item is one picture,
source and driving are the same frame, and only `driving_seen` differs: a clip of one frame (§6). Held-out people have other
numbers: `first_identity`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mixtura.data.source import Sample, SourceConfig, SourceInfo
from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.augment import jittered
from mixtura_live_portrait.data.drawn.clip import VERSION, DrawnClip, Style
from mixtura_live_portrait.data.drawn.state import State
from mixtura_live_portrait.data.sample import Array, Frame, Picture, fields_of


class FacesConfig(SourceConfig):
    """`sources: {NAME: {type: faces, identities: 200, clips: 4, size: 64}}`."""

    identities: int = Field(200, ge=1, description="people")
    clips: int = Field(4, ge=1, description="clips (or stills) of each")
    frames: int = Field(75, ge=2, description="frames of a clip, 25 a second")
    spacing: int = Field(1, ge=1, description="of a clip samples take one frame of so many; evaluation may take any")
    size: int = Field(64, ge=16, description="pixels of the samples; the system's image size must agree")
    seed: int = Field(0, description="another seed is another crowd")
    first_identity: int = Field(0, ge=0, description="number of the first person; ranges that don't overlap share nobody")
    style: Style = Field("plain", description="painted: inked, hatched or printed heads in colours that no clip has")
    still: bool = Field(False, description="pictures instead of clips: source and driving are the same frame")
    jitter: float = Field(1.0, ge=0, le=2, description="strength of the other colours of driving_seen; 0 for none")
    exercise: float = Field(0.0, ge=0, le=1, description="share of frames whose eyes and lips are as far open as chance says")
    winks: float = Field(0.0, ge=0, le=1, description="share of samples that drive a frame by itself with other eyes and lips")
    keep: int = Field(0, ge=0, description="drawn frames that each worker keeps in memory, for few that are drawn often")
    cross: bool = Field(False, description="also give a frame of somebody else, for stage two")

    @model_validator(mode="after")
    def _has_others(self) -> FacesConfig:
        if self.cross and self.identities < 2:
            raise ValueError("cross needs somebody else: identities must be at least 2")
        if self.winks and self.still:
            raise ValueError("winks: a still has one picture alone; give winks to clips, or leave `still` out")
        if self.spacing >= self.frames:
            raise ValueError(f"spacing {self.spacing}: samples take two of {self.frames} frames; at most {self.frames - 1}")
        return self


class Stretch(NamedTuple):
    """Some frames of a clip: `images` uint8 (T, S, S, 3), `landmarks` (T, 203, 2) in pixels, pose (T, 3), expression (T, 10)."""

    images: Picture
    landmarks: Array
    pose: Array
    expression: Array


class Faces:
    """Drawn faces; item `identity * clips + clip`, counted from `first_identity`."""

    Config = FacesConfig

    def __init__(self, config: FacesConfig, name: str, root: Path) -> None:
        self.config, self.name = config, name
        facts = config.model_dump(exclude={"type", "max_epochs", "keep"})
        digest = hashlib.blake2b(repr((VERSION, sorted(facts.items()))).encode(), digest_size=16).hexdigest()
        tags = ("image",) if config.still else ("video",)
        size = config.identities * config.clips
        self.kept: dict[tuple[int, int], Frame] = {}
        self.info = SourceInfo(name, size, digest, tags=tags, max_epochs=config.max_epochs)

    def __len__(self) -> int:
        return self.info.size

    def identity(self, index: int) -> int:
        """Number of the person of an item. IndexError when there is no such item."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no sample {index}, it has {len(self)}")
        return self.config.first_identity + index // self.config.clips

    def clip(self, index: int) -> DrawnClip:
        """The clip of an item."""
        config = self.config
        return DrawnClip(config.seed, self.identity(index), index % config.clips, config.frames, config.style)

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """Two frames of the clip, or one picture twice; see `sample` for the fields."""
        draw = rng.at("frames").numpy()
        if self.config.still:
            source = driving = self.frame(index, self.config.frames // 2)
        else:
            first, second = draw.choice(self._choices(), 2, replace=False).tolist()
            source = self.frame(index, first)
            is_wink = self.config.winks and draw.random() < self.config.winks
            driving = self._winking(index, first, draw) if is_wink else self.frame(index, second)
        seen = jittered(driving.image, self.config.jitter, draw)
        other = self._other(index, draw) if self.config.cross else None
        number = self.identity(index)
        fields = fields_of(source, driving, seen, not self.config.still, number, other)
        return Sample(fields, key=f"person {number}, clip {index % self.config.clips}")

    def stretch(self, index: int, frames: NDArray[np.integer] | list[int], doing: int | None = None) -> Stretch:
        """Frames of an item's clip, for evaluation; with `doing`, the same person in the poses and expressions of that item."""
        clip = self.clip(index)
        states = [(clip if doing is None else self.clip(doing)).state(int(frame)) for frame in frames]
        drawn = [clip.doing(state, self.config.size) for state in states]
        images, landmarks = (np.stack([getattr(one, name) for one in drawn]) for name in ("image", "landmarks"))
        pose, expression = zip(*map(_labels, states), strict=True)
        return Stretch(images, landmarks, np.stack(pose), np.stack(expression))

    def _choices(self) -> NDArray[np.integer]:
        """Frames of a clip that samples take."""
        return np.arange(0, self.config.frames, self.config.spacing)

    def frame(self, index: int, frame: int) -> Frame:
        """A frame of an item's clip, drawn or remembered."""
        if (index, frame) in self.kept:
            return self.kept[index, frame]
        drawn = self._drawn(*self._scene(index, frame))
        if self.config.keep:
            if len(self.kept) >= self.config.keep:
                del self.kept[next(iter(self.kept))]
            self.kept[index, frame] = drawn
        return drawn

    def _winking(self, index: int, frame: int, chance: np.random.Generator) -> Frame:
        """The same frame with other eyes and lips."""
        clip, state = self._scene(index, frame)
        return self._drawn(clip, state.exercised(chance))

    def _scene(self, index: int, frame: int) -> tuple[DrawnClip, State]:
        """An item's clip, and what its person does in a frame."""
        clip = self.clip(index)
        state = clip.state(frame)
        if self.config.exercise:
            chance = KeyedRng("exercise", self.config.seed, self.identity(index), index % self.config.clips, frame).numpy()
            if chance.random() < self.config.exercise:
                state = state.exercised(chance)
        return clip, state

    def _drawn(self, clip: DrawnClip, state: State) -> Frame:
        drawn = clip.doing(state, self.config.size)
        return Frame.of(drawn.image, drawn.landmarks, *_labels(state))

    def _other(self, index: int, draw: np.random.Generator) -> Frame:
        """A frame of somebody else of this source."""
        config = self.config
        person = (index // config.clips + int(draw.integers(1, config.identities))) % config.identities
        other = person * config.clips + int(draw.integers(config.clips))
        return self.frame(other, config.frames // 2 if config.still else int(draw.choice(self._choices())))


def _labels(state: State) -> tuple[Array, Array]:
    """Pose (3,) in degrees and expression (10,)."""
    return np.array(state.pose[:3], np.float32), state.expression.vector()
