"""Pictures and videos from users: looked at before they are decoded, refused with a sentence when too large or broken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps

from mixtura_demos.shared.errors import Refused
from mixtura_demos.shared.limits import LIMITS

PICTURES = ("PNG", "JPEG", "WEBP", "BMP")
CONTAINERS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,gif"
"""No playlists or patterns: those would make libav open other files."""


def bound_pillow() -> None:
    """Let Pillow refuse larger pictures in this whole process, and so gradio's own components, before a handler sees the file.

    The server does so. An import must not: other code has its own limits.
    """
    Image.MAX_IMAGE_PIXELS = LIMITS.pixels // 2  # Pillow refuses above twice this number


def picture(path: str | Path | None) -> np.ndarray:
    """The picture (H, W, 3), or (H, W, 4) when it has transparency, uint8, turned upright. Raises Refused."""
    file = _file(path, "picture")
    try:
        with Image.open(file, formats=PICTURES) as opened:
            _small_enough(opened.size)
            has_alpha = opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info
            upright = ImageOps.exif_transpose(opened)
            return np.asarray(upright.convert("RGBA" if has_alpha else "RGB"))
    except Image.DecompressionBombError as error:
        raise Refused(f"the picture has too many pixels; give one of at most {LIMITS.pixels // 10**6} megapixels") from error
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        raise Refused("the file can't be read as a picture; give a whole PNG, JPEG, WebP or BMP file") from error


def _small_enough(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > LIMITS.pixels:
        limit = LIMITS.pixels // 10**6
        raise Refused(f"the picture has {width} × {height} pixels, more than {limit} megapixels; give a smaller one")


def _file(path: str | Path | None, what: str) -> Path:
    if path is None or not str(path):
        raise Refused(f"no {what} was given; upload one or choose an example")
    file = Path(path)
    if not file.is_file():
        raise Refused(f"the {what} is gone from the server; upload it again")
    if file.stat().st_size > LIMITS.bytes:
        size, limit = file.stat().st_size // 2**20, LIMITS.bytes // 2**20
        raise Refused(f"the {what} has {size} MiB, more than {limit} MiB; give a smaller file")
    return file


def checked_video(path: str | Path | None) -> Path:
    """The path of a video that is safe to decode: frames, seconds and pixels within the limits. Raises Refused."""
    file = _file(path, "video")
    with _opened(file) as (container, stream):
        _claims(container, stream)
        _count(container, stream)
    with _opened(file) as (container, stream):
        _key_frames(container, stream)
    return file


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream; libav's errors become Refused. Only containers that hold video are tried."""
    logging.getLogger("libav").setLevel(logging.CRITICAL)
    try:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file", "max_pixels": str(LIMITS.frame_pixels)}
        with av.open(f"file:{file}", options=options) as container:
            if not container.streams.video:
                raise Refused("the file holds no video, give one with a picture")
            stream = container.streams.video[0]
            stream.codec_context.options = {"max_pixels": str(LIMITS.frame_pixels)}
            yield container, stream
    except (av.error.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        raise Refused("the file can't be read as a video, or its frames are too large; give a whole MP4 or WebM file") from error


def _claims(container: Any, stream: Any) -> None:
    """Refuse by what the header says."""
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > LIMITS.frame_pixels:
        raise Refused(f"the video has frames of {width} × {height} pixels; give one of at most 4096 × 2304")
    seconds = max(container.duration or 0, 0) / av.time_base
    if stream.duration and stream.time_base:
        seconds = max(seconds, float(stream.duration * stream.time_base))
    if seconds > LIMITS.seconds:
        raise Refused(f"the video lasts {seconds:.0f} seconds; give one of at most {LIMITS.seconds:.0f}")
    if stream.frames > LIMITS.frames:
        raise Refused(f"the video has {stream.frames} frames; give one of at most {LIMITS.frames}")


def _count(container: Any, stream: Any) -> None:
    """Refuse by what is really there: packets are counted and their times read, nothing is decoded."""
    frames, last = 0, 0.0
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        frames += 1
        if packet.pts is not None and packet.time_base is not None:
            last = max(last, float(packet.pts * packet.time_base))
        if frames > LIMITS.frames:
            raise Refused(f"the video has more than {LIMITS.frames} frames; give a shorter one")
        if last > LIMITS.seconds:
            raise Refused(f"the video lasts more than {LIMITS.seconds:.0f} seconds; give a shorter one")
    if frames == 0:
        raise Refused("the video holds no frames; give a whole MP4 or WebM file")


def _key_frames(container: Any, stream: Any) -> None:
    """Decode the frames at which a stream may change its size: headers may lie, the decoder refuses what is larger."""
    stream.codec_context.skip_frame = "NONKEY"
    decoded = sum(1 for _ in container.decode(stream))
    if decoded == 0:
        raise Refused("no frame of the video can be decoded; give a whole MP4 or WebM file")
