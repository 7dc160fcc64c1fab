"""Pictures and clips as data URIs: small enough for one file, never from outside the run folder."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from PIL import Image, ImageSequence

LONGEST, CLIP_LONGEST, FRAMES = 1280, 320, 48
"""Pixels of the longer side of a still and of an animation, and frames of an animation that is made smaller."""
MOST_BYTES, MOST_PIXELS = 1_500_000, 64_000_000
"""One file's share of the report, and the largest picture that is decoded."""
VIDEO = {".mp4": "video/mp4", ".webm": "video/webm", ".m4v": "video/mp4", ".mov": "video/mp4", ".mkv": "", ".avi": ""}
PLAYABLE = ("h264", "vp8", "vp9", "av1", "libdav1d")
"""Codecs that browsers play."""


@dataclass
class Budget:
    """Bytes of media that the report may still hold. `left_out` names what found no room."""

    room: int = 24_000_000
    left_out: list[str] = field(default_factory=list)

    def embed(self, folder: Path, name: str, caption: str) -> str:
        """HTML of one file below `folder`; a sentence where it is absent, unreadable, outside, or too big."""
        path = folder / name
        label = escape(name)
        if not path.resolve().is_relative_to(folder.resolve()):
            return f'<p class="empty">{label} lies outside the run folder and is not shown</p>'
        if not path.is_file():
            return f'<p class="empty">{label} is absent</p>'
        if self.room <= 0:
            self.left_out.append(name)
            return f'<p class="empty">left out to keep this file small: {label}</p>'
        try:
            data, kind, size = load(path)
        except Exception as error:  # decoders raise whatever they like, and one bad picture must not cost the report
            reason = (str(error) or type(error).__name__).splitlines()[0]
            return f'<p class="empty">{label} can\'t be shown: {escape(reason)}</p>'
        if len(data) > self.room:
            self.left_out.append(name)
            return f'<p class="empty">left out to keep this file small: {label}</p>'
        self.room -= len(data)
        uri = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        if kind.startswith("video/"):
            return f'<video src="{uri}" controls muted loop playsinline preload="metadata" title="{escape(caption)}"></video>'
        small = ' class="small"' if max(size) < 160 else ""
        return f'<img{small} src="{uri}" alt="{escape(caption)}">'


def load(path: Path) -> tuple[bytes, str, tuple[int, int]]:
    """Bytes, media type and (width, height) of a file, made smaller where needed; videos that browsers play stay as they are."""
    if path.suffix.lower() not in VIDEO:
        return _picture(path)
    kind = VIDEO[path.suffix.lower()]
    if kind and path.stat().st_size <= MOST_BYTES and _codec(path) in PLAYABLE:
        return path.read_bytes(), kind, (0, 0)
    return _animation(_video_frames(path))


def _picture(path: Path) -> tuple[bytes, str, tuple[int, int]]:
    with Image.open(path) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        kind = Image.MIME.get(image.format or "", "")
        count = getattr(image, "n_frames", 1)
        fits = max(image.size) <= LONGEST and path.stat().st_size <= MOST_BYTES
        if fits and kind in ("image/png", "image/jpeg", "image/gif", "image/webp"):
            return path.read_bytes(), kind, image.size
        if count > 1:
            stride = -(-count // FRAMES)
            frames = [(f.convert("RGB"), int(f.info.get("duration", 100)) * stride) for f in _every(image, stride)]
            return _animation(frames)
        still = image.convert("RGB")
    still.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    still.save(buffer, "WEBP", quality=85)
    return buffer.getvalue(), "image/webp", still.size


def _every(image: Image.Image, stride: int) -> list[Image.Image]:
    return [frame.copy() for k, frame in enumerate(ImageSequence.Iterator(image)) if k % stride == 0]


def _codec(path: Path) -> str:
    import av

    with av.open(str(path)) as container:
        return str(container.streams.video[0].codec_context.name)


def _video_frames(path: Path) -> list[tuple[Image.Image, int]]:
    """About FRAMES frames of a video, small, with the time in ms that each is shown."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 25)
        known = stream.frames or int(float(stream.duration or 0) * float(stream.time_base or 0) * rate)
        stride = max(1, -(-known // FRAMES))
        shown = round(1000 * stride / rate)
        frames = []
        for k, frame in enumerate(container.decode(stream)):
            if k % stride == 0:
                still: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
                still.thumbnail((CLIP_LONGEST, CLIP_LONGEST))
                frames.append((still, shown))
            if len(frames) >= 2 * FRAMES:
                break
    if not frames:
        raise ValueError("no frame can be decoded")
    return frames


def _animation(frames: list[tuple[Image.Image, int]]) -> tuple[bytes, str, tuple[int, int]]:
    """An animated WebP."""
    for still, _ in frames:
        still.thumbnail((CLIP_LONGEST, CLIP_LONGEST))
    first, *rest = [still for still, _ in frames]
    buffer = io.BytesIO()
    times = [max(20, shown) for _, shown in frames]
    first.save(
        buffer, "WEBP", save_all=True, append_images=rest, duration=times if rest else times[0], loop=0, quality=70, method=3
    )
    return buffer.getvalue(), "image/webp", first.size
