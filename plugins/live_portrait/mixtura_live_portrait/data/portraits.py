"""The source `portrait_clips`: real people, from videos or folders of frames with landmarks beside them.

An item is a stretch of a clip; reading it takes the source frame from the stretch and the driving frame from elsewhere in the
clip. The generator of the same name makes folders of frames with landmarks out of videos, so that training runs no detector.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from mixtura.data.formats.folders import fingerprint
from mixtura.data.source import Sample, SourceConfig, SourceInfo, part_of
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.augment import jittered
from mixtura_live_portrait.data.clip_files import find_clips, first_picture, frame_count, read_frame
from mixtura_live_portrait.data.cropping import Crop, cut, motion, squares, whole
from mixtura_live_portrait.data.marks import Marks, marks_beside, read_marks
from mixtura_live_portrait.data.sample import Array, Frame, fields_of
from mixtura_live_portrait.faces.crop import SOURCE, Framing, Square

Landmarks = Literal["require", "use", "ignore"]
NO_CONTENT = {"type", "path", "max_epochs"}
"""Settings that don't change samples."""
TRIES = 6
"""Driving frames that are looked at for one that moved enough."""


class PortraitConfig(SourceConfig):
    """Settings that clips and pictures share."""

    path: str = Field(description="folder of the clips or pictures, with any depth of sub-folders")
    size: int = Field(64, ge=16, description="pixels of the samples; the system's image size must agree")
    scale: float = Field(SOURCE.scale, gt=0, description="side of the crop over that of the square around the landmarks")
    shift: float = Field(SOURCE.vy, description="how far the crop is moved down, in its sides")
    jitter: float = Field(1.0, ge=0, le=2, description="strength of the other colours of driving_seen; 0 for none")
    mirror: bool = Field(False, description="mirror half of the samples, with all that is known of them")

    def framing(self) -> Framing:
        """How crops lie around landmarks."""
        return Framing(self.scale, 0.0, self.shift)


class PortraitClipsConfig(PortraitConfig):
    """`sources: {NAME: {type: portrait_clips, path: data/talking-heads, size: 128}}`."""

    landmarks: Landmarks = Field("require", description="use: clips without landmarks are taken as they are; ignore: all are")
    crop: Crop = Field(
        "auto", description="one square a clip, one that follows, none; auto: none where frames are cropped already"
    )
    gap: tuple[int, int] = Field((1, 250), description="frames from source to driving, least and most, either way")
    every: int = Field(10, ge=1, description="frames of a stretch: an item is where the source frame comes from")
    least_motion: float = Field(0.02, ge=0, description="in lengths of the face; clips that move less are left out")
    identity: Literal["clip", "folder"] = Field(
        "clip", description="folder: clips of one first folder show one person; clip: each its own, or as all their files say"
    )
    cross: bool = Field(False, description="also give a frame of somebody else, for stage two")

    @model_validator(mode="after")
    def _ordered(self) -> PortraitClipsConfig:
        if not 1 <= self.gap[0] <= self.gap[1]:
            raise ValueError(f"gap {list(self.gap)}: expected [least, most] with 1 <= least <= most")
        return self


class Known(NamedTuple):
    """A clip that is used: path below the folder, frames, number of the person (None: not told)."""

    path: Path
    frames: int
    identity: int | None


class Places(NamedTuple):
    """Landmarks and squares of a clip; None when they aren't known."""

    marks: Marks | None
    squares: list[Square] | None


class PortraitClips:
    """Stretches of clips. Raises BadSample for frames that can't be decoded."""

    Config = PortraitClipsConfig

    def __init__(self, config: PortraitClipsConfig, name: str, root: Path) -> None:
        self.config, self.name, self.folder = config, name, Path(root) / config.path
        found = find_clips(self.folder)
        known, left = list[Known](), list[str]()
        for path in found:
            clip, why = self._known(path)
            left.append(f"{self.folder / path}: {why}") if clip is None else known.append(clip)
        told = f" ({len(left)} of {len(found)} clips are left out, the first for: {left[0]})" if left else ""
        if not known:
            raise DataError(f"{self.folder}: no clip can be used{told}")
        self.clips = _numbered(known, config.identity == "folder")
        if config.cross and len({clip.identity for clip in self.clips}) < 2:
            raise DataError(f"{self.folder}: `cross: true` needs somebody else, but there is only one person{told}")
        counts = [-(-clip.frames // config.every) for clip in self.clips]
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        content = fingerprint(self.folder, self._files(), *sorted(config.model_dump(exclude=NO_CONTENT).items()))
        extra = {"clips": len(self.clips), "left_out": left}
        self.info = SourceInfo(
            name, int(self.starts[-1]), content, tags=("video",), max_epochs=config.max_epochs, extra=extra
        )  # fmt: skip

    def __len__(self) -> int:
        return self.info.size

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """A pair of frames; see `sample` for the fields."""
        number, stretch = part_of(self.starts, index, self.name)
        clip, draw = self.clips[number], rng.at("frames").numpy()
        start = stretch * self.config.every
        first = int(draw.integers(start, min(start + self.config.every, clip.frames)))
        second = self._partner(number, first, draw)
        is_mirrored = self.config.mirror and bool(draw.integers(2))
        source, driving = (self.frame(number, frame, is_mirrored) for frame in (first, second))
        seen = jittered(driving.image, self.config.jitter, draw)
        other = None
        if self.config.cross:
            others = [place for place, one in enumerate(self.clips) if one.identity != clip.identity]
            chosen = others[draw.integers(len(others))]
            other = self.frame(chosen, int(draw.integers(self.clips[chosen].frames)), is_mirrored)
        fields = fields_of(source, driving, seen, True, int(clip.identity or 0), other)
        return Sample(fields, key=f"{clip.path.as_posix()}@{first},{second}")

    def frame(self, clip: int, frame: int, is_mirrored: bool = False) -> Frame:
        """A frame of a clip, cropped, with what is known of it. Raises BadSample when it can't be decoded."""
        known = self.clips[clip]
        try:
            image, (marks, around) = read_frame(self.folder / known.path, frame), self._places(clip)
            points, pose, expression = _at(marks, frame)
            image, points = cut(image, points, whole(image) if around is None else around[frame], self.config.size)
        except DataError as error:
            raise BadSample(str(error)) from error
        made = Frame.of(image, points, pose, expression)
        return made.mirrored() if is_mirrored else made

    # -- which clips there are ----------------------------------------------------------------------------

    def _known(self, path: Path) -> tuple[Known | None, str]:
        """A clip, or None and why it is left out. DataError when landmarks are required and aren't there."""
        whole_path = self.folder / path
        beside = marks_beside(whole_path) if self.config.landmarks != "ignore" else None
        if beside is None and self.config.landmarks == "require":
            raise DataError(
                f"{whole_path}: no landmarks beside it ({path.stem}.json or .npz); make them with the generator portrait_clips, "
                "or take clips as they are with `landmarks: use`"
            )
        marks = read_marks(beside) if beside else None
        frames = len(marks) if marks else frame_count(whole_path)
        if marks and whole_path.is_dir() and frame_count(whole_path) != frames:
            raise DataError(f"{beside}: landmarks of {frames} frames, the folder has {frame_count(whole_path)} pictures")
        if frames <= self.config.gap[0]:
            return None, f"{frames} frames, a pair with `gap: {list(self.config.gap)}` needs more"
        if marks and (moved := motion(marks.landmarks)) < self.config.least_motion:
            return None, f"the face moves by {moved:.3f} of its length, `least_motion` is {self.config.least_motion:g}"
        return Known(path, frames, marks.identity if marks else None), ""

    def _files(self) -> Iterator[Path]:
        for clip in self.clips:
            path = self.folder / clip.path
            beside = marks_beside(path)
            yield path if path.is_file() else first_picture(path)
            if beside is not None:
                yield beside

    def _places(self, clip: int) -> Places:
        config = self.config
        return places(self.folder / self.clips[clip].path, config.landmarks != "ignore", config.crop, config.framing())

    def _partner(self, clip: int, first: int, draw: np.random.Generator) -> int:
        """A driving frame within the gap: the first that moved enough among a few, or else the one that moved most."""
        least, most = self.config.gap
        frames = self.clips[clip].frames
        before, after = (
            np.arange(max(0, first - most), first - least + 1),
            np.arange(first + least, min(frames, first + most + 1)),
        )
        choices = np.concatenate([before, after])
        if not len(choices):  # in the middle of a clip shorter than two gaps: the end that is farther away
            return 0 if first > frames // 2 else frames - 1
        tried = draw.choice(choices, TRIES)
        marks = self._marks(clip)
        if marks is None:
            return int(tried[0])
        moves = [motion(marks.landmarks[[first, other]]) for other in tried.tolist()]
        enough = [place for place, move in enumerate(moves) if move >= self.config.least_motion]
        return int(tried[enough[0] if enough else int(np.argmax(moves))])

    def _marks(self, clip: int) -> Marks | None:
        try:
            return self._places(clip).marks
        except DataError as error:
            raise BadSample(str(error)) from error


def _numbered(clips: list[Known], by_folder: bool) -> list[Known]:
    """Clips with a number for every person."""
    if by_folder:
        names = sorted({clip.path.parts[0] for clip in clips})
        return [clip._replace(identity=names.index(clip.path.parts[0])) for clip in clips]
    if any(clip.identity is None for clip in clips):
        return [clip._replace(identity=number) for number, clip in enumerate(clips)]
    return clips


@functools.lru_cache(64)
def places(path: Path, is_marked: bool, how: Crop, framing: Framing) -> Places:
    """Landmarks and squares of a clip; `is_marked` False: don't look for landmarks."""
    beside = marks_beside(path) if is_marked else None
    if beside is None:
        return Places(None, None)
    marks = read_marks(beside)
    if how == "auto":
        how = "none" if marks.is_cropped else "fixed"
    return Places(marks, None if how == "none" else squares(marks.landmarks, framing, how))


def _at(marks: Marks | None, frame: int) -> tuple[Array | None, Array | None, Array | None]:
    """Landmarks, pose and expression of a frame."""
    if marks is None:
        return None, None, None
    parts = (marks.landmarks, marks.pose, marks.expression)
    found = [None if part is None else part[frame] for part in parts]
    return found[0], found[1], found[2]
