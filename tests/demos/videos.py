"""Videos made on the spot: good ones, and ones that claim to be more than they are."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_video(
    path: Path, frames: int = 10, size: tuple[int, int] = (32, 24), apart: int = 1, rate: int = 25, flat: bool = False
) -> Path:
    """An H.264 video of `frames` equal frames, noise or `flat` grey; `apart` > 1 leaves gaps of so many frames."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        picture = av.VideoFrame.from_ndarray(np.full_like(noise, 128) if flat else noise, format="rgb24")
        for number in range(frames):
            picture.pts = number * apart
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def endless_video(path: Path) -> Path:
    """A few kilobytes that claim to last forty minutes: five frames, far apart."""
    return write_video(path, frames=5, apart=25 * 600)
