"""Videos made on the spot: good ones, and ones that claim to be more than they are."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_video(path: Path, frames: int = 10, size: tuple[int, int] = (32, 24), apart: int = 1, codec: str = "libx264") -> Path:
    """A video of `frames` frames of grey noise at 25 frames a second; `apart` > 1 leaves gaps of so many frames."""
    numbers = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        picture = av.VideoFrame.from_ndarray(numbers.integers(0, 255, (size[1], size[0], 3), np.uint8), format="rgb24")
        for number in range(frames):
            picture.pts = number * apart
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def endless_video(path: Path) -> Path:
    """A few kilobytes that claim to last forty minutes: five frames, far apart."""
    return write_video(path, frames=5, apart=25 * 600)
