"""Clips as files: written at any rate, then joined with the sound of another file, whose packets are copied as they are."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream

from mixtura.data.formats.video import VideoWriter

FINEST = 1001
"""Denominator of rates, which knows 30000/1001."""


def exact(fps: float) -> Fraction:
    """A rate as video files have it."""
    return Fraction(fps).limit_denominator(FINEST)


@contextmanager
def writing(path: Path, fps: float, shape: tuple[int, int]) -> Iterator[VideoWriter]:
    """A writer of frames (height, width, 3); the file gets its name when all are written, and stays away when they aren't."""
    part, rate = path.with_name(f"{path.stem}.part{path.suffix}"), exact(fps)
    try:
        with VideoWriter(part, rate, shape, gop=max(1, round(fps))) as writer:
            yield writer
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def has_sound(path: Path) -> bool:
    """Whether a file has a stream of sound."""
    try:
        with av.open(str(path)) as container:
            return bool(container.streams.audio)
    except (av.error.FFmpegError, OSError, ValueError):
        return False


def add_sound(video: Path, sound: Path) -> str:
    """Put the first sound of `sound` into `video`, from its first frame on and no longer than the video lasts.

    Returns why it can't be done, in words, or nothing: then the file is as it was. The sound isn't encoded anew, so it must be of
    a kind that mp4 holds (AAC, MP3, AC-3, Opus, FLAC, …).
    """
    part = video.with_name(f"{video.stem}.sound{video.suffix}")
    try:
        with av.open(str(video)) as pictures, av.open(str(sound)) as sounds:
            if not sounds.streams.audio:
                return f"{sound} has none"
            with av.open(str(part), "w", options={"movflags": "faststart"}) as joined:
                _join(joined, pictures, sounds)
        part.replace(video)
        return ""
    except (av.error.FFmpegError, OSError, ValueError) as error:
        return f"the sound of {sound} can't be copied into mp4 ({error}); convert it to AAC"
    finally:
        part.unlink(missing_ok=True)


def _join(joined: Any, pictures: InputContainer, sounds: InputContainer) -> None:
    shown, heard = pictures.streams.video[0], sounds.streams.audio[0]
    targets = [joined.add_stream_from_template(stream) for stream in (shown, heard)]
    seconds = float(shown.duration * shown.time_base) if shown.duration and shown.time_base else 0.0
    start = _start(sounds)
    flows = [_timed(pictures, shown, 0.0, float("inf"), 0), _timed(sounds, heard, start, start + seconds, 1)]
    for _, number, packet in heapq.merge(*flows, key=lambda entry: entry[:2]):
        packet.stream = targets[number]
        joined.mux(packet)


def _start(container: InputContainer) -> float:
    """Seconds at which a file's first picture is shown."""
    stream = next(iter(container.streams.video), None)
    return float(stream.start_time * stream.time_base) if stream and stream.start_time and stream.time_base else 0.0


def _timed(
    container: InputContainer, stream: Stream, start: float, end: float, number: int
) -> Iterator[tuple[float, int, Packet[Any]]]:
    """(seconds, number, packet) between two times, moved so that `start` is 0."""
    base = stream.time_base or Fraction(1)
    for packet in container.demux(stream):
        if packet.pts is None or packet.dts is None or packet.pts * base < start:
            continue
        if packet.pts * base >= end:
            break
        shift = round(start / base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        yield float(packet.dts * base), number, packet
