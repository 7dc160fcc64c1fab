"""Video files through PyAV: write h264 mp4, read spans of frames, and count what is there.

Frames are uint8 (H, W, 3) RGB. `VideoWriter` appends frames to one constant-rate file; `read_frames` walks through a
file in order; `read_span` gives the frames of [start, end) seconds and checks their number.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from mixtura.errors import DataError

CRF = 18
"""Quality of what we write: lower is better and larger; 18 is close to the source."""
GOP = 2
"""Frames from one key frame to the next: a short distance makes reading from the middle cheap."""


def check_frame(frame: np.ndarray, shape: tuple[int, int], what: str) -> None:
    """Raise DataError unless `frame` is uint8 of (H, W, 3)."""
    if frame.dtype != np.uint8 or frame.shape != (*shape, 3):
        raise DataError(f"{what}: got {frame.dtype} {frame.shape}, expected uint8 {(*shape, 3)} (height, width, RGB)")


def check_even(shape: tuple[int, int], what: str) -> None:
    """Raise DataError unless height and width are even, as yuv420p needs them."""
    if shape[0] % 2 or shape[1] % 2:
        raise DataError(f"{what}: frames of {shape[0]} x {shape[1]} can't be stored as yuv420p video; pad or crop to even sizes")


class VideoWriter:
    """Writes frames to an mp4 file (h264, yuv420p); frame k is shown at k / fps seconds.

    Height and width must be even (yuv420p halves the colour planes). `frames` counts what was appended, `bytes` what
    the encoder has put out so far. Without B-frames, so times in the file are exact multiples of 1 / fps.
    """

    def __init__(self, path: Path, fps: int | Fraction, shape: tuple[int, int], crf: int = CRF, gop: int = GOP) -> None:
        check_even(shape, str(path))
        height, width = shape
        self.path, self.fps, self.shape = path, fps, shape
        self.frames = self.bytes = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container: Any = av.open(str(path), "w", options={"movflags": "faststart"})
        options = {"crf": str(crf), "g": str(gop), "bf": "0", "preset": "veryfast"}
        self._stream: Any = self._container.add_stream("libx264", rate=fps, options=options)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, fps)

    def append(self, frame: np.ndarray, key: bool = False) -> None:
        """Add one frame (H, W, 3) uint8; `key` forces a key frame (the start of an episode)."""
        check_frame(frame, self.shape, f"{self.path}: frame {self.frames}")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self.frames, Fraction(1, self.fps)
        if key:
            picture.pict_type = av.video.frame.PictureType.I
        self._mux(picture)
        self.frames += 1

    def _mux(self, picture: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            self.bytes += packet.size
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the file; harmless when called twice."""
        if self._container is not None:
            if self.frames:
                self._mux(None)
            self._container.close()
            self._container = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextlib.contextmanager
def _opened(path: Path, done: str, missing: str = "", damaged: str = "") -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video file and its first video stream, closed at the end.

    DataError when the file isn't there (and then `missing`), holds no video, or can't be `done` (and then `damaged`).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such video file{missing}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: holds no video stream")
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, OSError) as error:
        raise DataError(f"{path}: can't be {done} ({error}){damaged}") from error


def read_frames(path: Path, start: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (time in seconds, (H, W, 3) uint8) from the last key frame at or before `start` on, in showing order.

    Raises DataError when the file is missing, is no video, or breaks off.
    """
    missing, damaged = "; the dataset is incomplete, copy it again", "; the file is damaged or cut off, copy it again"
    with _opened(path, "decoded", missing, damaged) as (container, stream):
        stream.thread_type = "AUTO"
        if start > 0 and stream.time_base is not None:
            # one tick early: rounding must not push the seek behind the key frame that we want
            container.seek(round(start / stream.time_base) - 1, backward=True, any_frame=False, stream=stream)
        for picture in container.decode(stream):
            if picture.pts is not None and picture.time is not None:
                yield float(picture.time), picture.to_ndarray(format="rgb24")


def read_span(path: Path, start: float, end: float, fps: float, expected: int | None = None) -> np.ndarray:
    """All frames of [start, end) seconds as (N, H, W, 3) uint8; with `expected`, DataError unless N equals it."""
    half = 0.5 / fps
    frames = []
    for time, frame in read_frames(path, start):
        if time >= end - half:
            break
        if time >= start - half:
            frames.append(frame)
    if not frames or (expected is not None and len(frames) != expected):
        wanted = "at least one" if expected is None else str(expected)
        raise DataError(
            f"{path}: {len(frames)} frames in [{start:.4f}, {end:.4f}) s, expected {wanted}; video and table don't match"
        )
    return np.stack(frames)


def probe(path: Path) -> dict[str, Any]:
    """Facts of a video without decoding it: frames (as the container counts), fps, height, width, codec, pix_fmt."""
    with _opened(path, "opened as a video") as (container, stream):
        rate = stream.average_rate or stream.base_rate or Fraction(0)
        seconds = (
            float(stream.duration * stream.time_base) if stream.duration and stream.time_base else (container.duration or 0) / 1e6
        )
        context = stream.codec_context
        return {
            "frames": stream.frames or round(seconds * float(rate)), "fps": float(rate), "height": context.height,
            "width": context.width, "codec": stream.codec.canonical_name, "pix_fmt": context.pix_fmt,
        }  # fmt: skip


def decode_bytes(data: bytes) -> np.ndarray:
    """All frames of a video in memory: (T, H, W, 3) uint8; ValueError when there is none."""
    with av.open(io.BytesIO(data), "r") as container:
        frames = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
    if not frames:
        raise ValueError("no frame")
    return np.stack(frames)
