"""Clips on disk: video files, and folders of frames; which there are below a folder, and one frame of one by its number.

A folder that has landmarks.json or landmarks.npz is a clip whose frames are its pictures in the order of their names; there every
frame is at hand at once. Of a video everything from the last key frame on is decoded. Frame k of a video is the one shown nearest
to k / rate seconds after the first, as `faces.clips` counts them.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from mixtura.data.formats.folders import IMAGE_FILES, VIDEO_FILES
from mixtura.data.formats.video import probe, read_frames
from mixtura.errors import DataError
from mixtura_live_portrait.data.marks import marks_beside
from mixtura_live_portrait.faces.pictures import read_picture

Picture = NDArray[np.uint8]


def find_clips(folder: Path) -> list[Path]:
    """Videos and folders of frames below a folder, relative to it and sorted. DataError when there is none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; `path:` must name a folder of clips")
    found = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if marks_beside(here) is not None:
            found.append(here.relative_to(folder))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not name.endswith(".part"))
        found += [(here / name).relative_to(folder) for name in names if Path(name).suffix.lower() in VIDEO_FILES]
    if not found:
        endings = ", ".join(sorted(VIDEO_FILES))
        raise DataError(f"{folder}: no clip below it: neither a video ({endings}) nor a folder of pictures with a landmarks.json")
    return sorted(found)


def frame_count(path: Path) -> int:
    """Frames of a clip: its pictures, or what the video's header says."""
    return len(_pictures(path)) if path.is_dir() else int(probe(path)["frames"])


def first_picture(folder: Path) -> Path:
    """The first frame of a folder of frames. DataError when it has none."""
    names = _pictures(folder)
    if not names:
        raise DataError(f"{folder}: landmarks without a picture; put the frames beside them")
    return folder / names[0]


def read_frame(path: Path, number: int) -> Picture:
    """Frame `number` of a clip (H, W, 3). Raises DataError when it isn't there or can't be decoded."""
    if path.is_dir():
        names = _pictures(path)
        if not 0 <= number < len(names):
            raise DataError(f"{path}: frame {number} is asked for, it has {len(names)} pictures")
        return read_picture(path / names[number], 0, 1)
    start = _start(path)
    wanted = start.time + number / start.rate
    best: tuple[float, Picture] | None = None
    for time, frame in read_frames(path, max(0.0, wanted - 0.5 / start.rate)):
        if best is None or abs(time - wanted) < abs(best[0] - wanted):
            best = time, frame
        if time >= wanted:
            break
    if best is None or best[0] < wanted - 1.5 / start.rate:
        raise DataError(f"{path}: frame {number} is asked for, the video ends before it")
    return best[1]


@functools.lru_cache(1024)
def _pictures(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(name for name in os.listdir(folder) if Path(name).suffix.lower() in IMAGE_FILES))


class _Start(NamedTuple):
    """When a video's first frame is shown, in seconds, and frames a second."""

    time: float
    rate: float


@functools.lru_cache(1024)
def _start(path: Path) -> _Start:
    """Raises DataError for videos that must be turned or stretched to be looked at."""
    rate = float(probe(path)["fps"])
    if not rate > 0:
        raise DataError(f"{path}: tells no frame rate; prepare it with the generator portrait_clips")
    try:
        with av.open(str(path)) as container:
            first = next(container.decode(container.streams.video[0]))
            aspect = container.streams.video[0].sample_aspect_ratio or 1
            if first.rotation or aspect != 1:
                raise DataError(f"{path}: is stored turned or with pixels that aren't square; prepare it with portrait_clips")
            return _Start(float(first.time or 0.0), rate)
    except (av.error.FFmpegError, OSError, StopIteration) as error:
        raise DataError(f"{path}: its first frame can't be decoded ({error}); the file is damaged or cut off") from error
