"""How much is taken from users, for the server and for what looks at files. Imports little: the first page is quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is taken: bytes of a file, pixels of a picture, pixels of a video's frame, frames and seconds of a video."""

    bytes: int = 64 * 2**20
    pixels: int = 40_000_000
    frame_pixels: int = 4096 * 2304
    frames: int = 3000
    seconds: float = 120.0


LIMITS = Limits()
