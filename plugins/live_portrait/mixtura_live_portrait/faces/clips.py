"""Clips as frames at a constant rate: any video that FFmpeg reads, animations, or one picture.

`open_clip` tells size and rate without decoding; iterating decodes one frame at a time, so memory doesn't grow with length.
Frames whose times are irregular (phones, screen recordings) are resampled to the constant rate: at each tick the nearest frame is
shown. Rotation that a phone notes beside the picture is applied, pixels that aren't square are made so, and frames are fitted as
pictures are (`pictures.fitted`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from mixtura.errors import DataError
from mixtura_live_portrait.faces.crop import Frame
from mixtura_live_portrait.faces.pictures import LARGEST, LONGEST, MULTIPLE, SMALLEST, fitted, fitted_size, read_picture

FPS = 25.0
"""Rate of what has none of its own: pictures, videos of one frame, broken headers."""
SLOWEST, FASTEST = 1.0, 120.0
"""Rates that are believed."""
LONGEST_GAP = 60.0
"""Seconds between two frames that are believed; more are taken for damage."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Names of files that are read as one picture; GIF and the rest as videos."""


@dataclass(frozen=True)
class Clip:
    """An opened clip. Iterating gives (H, W, 3) uint8 frames at k / fps seconds, each time from the start.

    `frames` is how many are expected, from the file's header: the real number can differ by a few.
    """

    path: Path
    fps: float
    frames: int
    longest: int = LONGEST
    multiple: int = MULTIPLE

    @property
    def is_picture(self) -> bool:
        """Whether the file is one picture."""
        return self.path.suffix.lower() in PICTURES

    def __iter__(self) -> Iterator[Frame]:
        if self.is_picture:
            yield read_picture(self.path, self.longest, self.multiple)
            return
        yield from at_rate(self._timed(), self.fps)

    def _timed(self) -> Iterator[tuple[float, Frame]]:
        """(seconds from the first frame, frame) in showing order. Raises DataError for damaged files and changing sizes."""
        with _Opened(self.path) as (container, stream):
            stream.thread_type = "AUTO"
            start, last, shape = math.nan, -1.0, None
            for picture in container.decode(stream):
                time = float(picture.time) if picture.time is not None else last + 1 / self.fps
                start = time if math.isnan(start) else start
                frame = _upright(picture, stream, self.longest, self.multiple)
                shape = shape or frame.shape
                if frame.shape != shape:
                    raise DataError(f"{self.path}: frames change from {shape[:2]} to {frame.shape[:2]}; convert it to one size")
                if time - start > max(last, 0.0) + LONGEST_GAP:
                    raise DataError(f"{self.path}: times jump to {time:.0f} s; the file is damaged, convert it anew")
                last = max(time - start, last)
                yield last, frame
            if last < 0:
                raise DataError(f"{self.path}: holds no frame; the file is empty or cut off")


class _Opened:
    """A file and its first video stream; FFmpeg's errors, also those of decoding, become DataError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> tuple[InputContainer, VideoStream]:
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file; give the path of a video")
        try:
            self._container: InputContainer = av.open(str(self.path))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise DataError(f"{self.path}: not a video that can be read ({error}); convert it to mp4 (h264)") from error
        if not self._container.streams.video:
            self._container.close()
            raise DataError(f"{self.path}: holds no video, perhaps only sound")
        return self._container, self._container.streams.video[0]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._container.close()
        if isinstance(error, av.error.FFmpegError):
            raise DataError(f"{self.path}: can't be decoded ({error}); the file is damaged or cut off") from error


def open_clip(path: Path, fps: float | None = None, longest: int = LONGEST, multiple: int = MULTIPLE) -> Clip:
    """A clip at `fps`, or at its own average rate. Raises DataError for files without video, and for sizes out of bounds."""
    if fps is not None and not SLOWEST <= fps <= FASTEST:
        raise DataError(f"{path}: {fps} frames a second; expected {SLOWEST:g} to {FASTEST:g}")
    if path.suffix.lower() in PICTURES:
        if not path.is_file():
            raise DataError(f"{path}: no such file; give the path of a picture or a video")
        return Clip(path, fps or FPS, 1, longest, multiple)
    with _Opened(path) as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        if min(width, height) < SMALLEST or width * height > LARGEST:
            raise DataError(
                f"{path}: {width} x {height} pixels; each side needs {SMALLEST}, at most {LARGEST // 1_000_000} million"
            )
        own = float(stream.average_rate or stream.guessed_rate or 0)
        has_rate = SLOWEST <= own <= FASTEST and stream.frames != 1
        rate = fps or (own if has_rate else FPS)
        return Clip(path, rate, _expected(container, stream, rate, own), longest, multiple)


def _expected(container: InputContainer, stream: VideoStream, fps: float, own: float) -> int:
    """Frames at `fps`, by the header's duration or count."""
    if stream.frames == 1:
        return 1
    seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    seconds = seconds or (container.duration or 0) / av.time_base or (stream.frames / own if own else 0.0)
    return max(1, round(seconds * fps))


def at_rate(timed: Iterator[tuple[float, Frame]], fps: float) -> Iterator[Frame]:
    """Frames with their times (seconds, rising, first at 0) -> at each k / fps the nearest one.

    The last frame lasts as long as the one before it did; one frame alone is given once.
    """
    tick, gap, held = 0, 0.0, None
    for time, frame in timed:
        while held is not None and tick / fps - held[0] < time - tick / fps:
            yield held[1]
            tick += 1
        gap = time - held[0] if held is not None else 0.0
        held = (time, frame)
    while held is not None and (tick == 0 or tick / fps < held[0] + gap - 0.5 / fps):
        yield held[1]
        tick += 1


def _upright(picture: av.VideoFrame, stream: VideoStream, longest: int, multiple: int) -> Frame:
    """A decoded picture as a frame: square pixels, fitted, turned as its metadata says."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width = round(picture.width * aspect) if Fraction(1, 8) < aspect < 8 else picture.width
    wide, high, *_ = fitted_size(width, picture.height, longest, multiple)
    frame = picture.to_ndarray(format="rgb24", width=wide, height=high, interpolation="LANCZOS")
    return fitted(np.rot90(frame, round((picture.rotation or 0) / 90)), 0, multiple)
