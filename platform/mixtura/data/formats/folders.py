"""Folders of plain files as sources: images, with sub-folders as labels, and videos, cut into windows of frames."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from mixtura.data.formats.video import probe, read_frames
from mixtura.data.source import Sample, SourceConfig, SourceInfo, part_of
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng

IMAGE_FILES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".gif", ".tif", ".tiff"})
VIDEO_FILES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})
PROBED = ".mixtura-clips.json"


def found_files(folder: Path, endings: Iterable[str], kind: str) -> list[Path]:
    """Files below a folder with one of the endings, sorted by path; hidden ones are left out. DataError when there is none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; `path:` must name a folder of {kind} files")
    wanted, files = frozenset(endings), []
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(place, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in wanted]
    if not files:
        raise DataError(f"{folder}: no {kind} file below it; these endings are read: {', '.join(sorted(wanted))}")
    return sorted(files)


def fingerprint(folder: Path, files: Iterable[Path], *facts: object) -> str:
    """Changes with names and sizes of the files, and with `facts`."""
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()


class ImageFolderConfig(SourceConfig):
    """`sources: {NAME: {type: images, path: data/photos}}`."""

    path: str = Field(description="folder of images, with any depth of sub-folders")


class ImageFolder:
    """One sample an image file: `image` uint8 (H, W, 3), `path` relative to the folder.

    When every image lies in a sub-folder, the first one is its label: `label` int (in sorted order) and `label_name`;
    `info.extra["labels"]` lists them. Raises BadSample for images that can't be decoded.
    """

    Config = ImageFolderConfig

    def __init__(self, config: ImageFolderConfig, name: str, root: Path) -> None:
        self.config, self.name, self.folder = config, name, Path(root) / config.path
        files = found_files(self.folder, IMAGE_FILES, "image")
        self.paths = [path.relative_to(self.folder) for path in files]
        labelled = all(len(path.parts) > 1 for path in self.paths)
        self.labels = sorted({path.parts[0] for path in self.paths}) if labelled else []
        extra = {"labels": self.labels}
        self.info = SourceInfo(name, len(files), fingerprint(self.folder, files), max_epochs=config.max_epochs, extra=extra)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """The image at `index`; `rng` is not used."""
        path = self.paths[index]
        try:
            with Image.open(self.folder / path) as image:
                fields: dict[str, Any] = {"image": np.asarray(image.convert("RGB")), "path": path.as_posix()}
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise BadSample(f"{self.folder / path}: can't be decoded ({error})") from error
        if self.labels:
            fields |= {"label": self.labels.index(path.parts[0]), "label_name": path.parts[0]}
        return Sample(fields, key=path.as_posix())


class ClipFolderConfig(SourceConfig):
    """`sources: {NAME: {type: clips, path: data/clips, frames: 16, stride: 2}}`."""

    path: str = Field(description="folder of video files, with any depth of sub-folders")
    frames: int = Field(ge=1, description="frames of a sample")
    stride: int = Field(1, ge=1, description="frames of the video from one frame of the sample to the next")
    every: int | None = Field(
        None, ge=1, description="frames from the start of one window to the next; windows touch when left out"
    )


class ClipFolder:
    """One sample a window of a video: `video` uint8 (frames, H, W, 3), `fps` (of the sample), `path`, `start` (frame).

    Videos that are shorter than a window give no sample. Raises BadSample when a window can't be decoded whole.
    """

    Config = ClipFolderConfig

    def __init__(self, config: ClipFolderConfig, name: str, root: Path) -> None:
        self.config, self.name, self.folder = config, name, Path(root) / config.path
        files = found_files(self.folder, VIDEO_FILES, "video")
        self.span = (config.frames - 1) * config.stride + 1
        self.hop = config.every or config.frames * config.stride
        facts = probed(self.folder, files)
        self.paths = [path.relative_to(self.folder) for path in files]
        self.rates = [rate for _, rate in facts]
        counts = [max(0, (frames - self.span) // self.hop + 1) for frames, _ in facts]
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if not self.starts[-1]:
            longest = max(frames for frames, _ in facts)
            raise DataError(
                f"{self.folder}: a window takes {self.span} frames, the longest video has {longest}; lower `frames` or `stride`"
            )
        content = fingerprint(self.folder, files, config.frames, config.stride, self.hop)
        extra = {"videos": len(files), "too_short": counts.count(0)}
        size = int(self.starts[-1])
        self.info = SourceInfo(name, size, content, "frames", float(config.frames), max_epochs=config.max_epochs, extra=extra)

    def __len__(self) -> int:
        return self.info.size

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """The window at `index`; `rng` is not used."""
        number, window = part_of(self.starts, index, self.name)
        path, rate = self.paths[number], self.rates[number]
        start = window * self.hop
        wanted = {start + k * self.config.stride for k in range(self.config.frames)}
        frames: dict[int, np.ndarray] = {}
        try:
            for time, frame in read_frames(self.folder / path, start / rate):
                place = round(time * rate)
                if place in wanted:
                    frames[place] = frame
                if place >= max(wanted):
                    break
        except DataError as error:
            raise BadSample(str(error)) from error
        if len(frames) < len(wanted):
            raise BadSample(
                f"{self.folder / path}: {len(frames)} of the {len(wanted)} frames from frame {start} on can be decoded"
            )
        video = np.stack([frames[place] for place in sorted(wanted)])
        fields = {"video": video, "fps": rate / self.config.stride, "path": path.as_posix(), "start": start}
        return Sample(fields, key=f"{path.as_posix()}@{start}")


def probed(folder: Path, files: list[Path]) -> list[tuple[int, float]]:
    """(frames, frames per second) of every video; kept in a file of the folder, so that opening again is quick."""
    store = folder / PROBED
    known: dict[str, list[Any]] = {}
    with contextlib.suppress(OSError, ValueError):
        known = dict(json.loads(store.read_text()))
    facts: dict[str, list[Any]] = {}
    for path in files:
        state, name = path.stat(), path.relative_to(folder).as_posix()
        mark = [state.st_size, state.st_mtime_ns]
        old = known.get(name)
        if not isinstance(old, list) or len(old) != 4 or old[:2] != mark:
            found = probe(path)
            old = [*mark, found["frames"], found["fps"]]
        if not old[3] > 0:
            raise DataError(f"{path}: tells no frame rate; convert it to mp4")
        facts[name] = old
    if facts != known:
        part = store.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError):  # a read-only folder is only slower
            part.write_text(json.dumps(facts))
            os.replace(part, store)
    return [(int(frames), float(rate)) for _, _, frames, rate in facts.values()]
