"""Squares to train on, from the landmarks of a clip: one for all frames, or one that follows the face slowly; and motion.

Squares are never turned, so that a leaning head leans in the sample. `motion` tells how much a face moves, in its own lengths.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from mixtura_live_portrait.data.clip_files import Picture
from mixtura_live_portrait.data.sample import Array
from mixtura_live_portrait.faces.crop import Framing, Square, as_frames, crop, moved, square
from mixtura_live_portrait.faces.layouts import outline

Crop = Literal["auto", "fixed", "smooth", "none"]
SLOW = 12.0
"""Standard deviation, in frames, of what smooths a square that follows the face."""


def squares(landmarks: Array, framing: Framing, how: Crop) -> list[Square]:
    """A square for each frame of landmarks (T, L, 2); `how` is fixed or smooth. DataError for landmarks that coincide."""
    framing = framing._replace(upright=False)
    rows = np.array([square(points, framing)[:3] for points in landmarks], np.float64)
    rows = np.broadcast_to(rows.mean(0), rows.shape) if how == "fixed" else gaussian_filter1d(rows, SLOW, axis=0, mode="nearest")
    return [Square(*row) for row in rows.tolist()]


def whole(image: Picture) -> Square:
    """The largest square in the middle of a frame (H, W, 3)."""
    height, width = image.shape[:2]
    return Square(width / 2, height / 2, float(min(width, height)))


def cut(image: Picture, landmarks: Array | None, place: Square, size: int) -> tuple[Picture, Array | None]:
    """A square of a frame in `size` pixels, and landmarks (L, 2) in them; black where the square leaves the frame."""
    points = None if landmarks is None else moved(landmarks, place.to_crop(size))
    if place == whole(image) and image.shape[:2] == (size, size):
        return image, points
    if not place.angle and (box := _inside(image, place)) is not None:  # Pillow is several times faster
        return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box)), points
    return as_frames(crop(image, place.to_frame(size), size))[0], points


def _inside(image: Picture, place: Square) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom of a square that lies within a frame; None when it doesn't."""
    half, (height, width) = place.side / 2, image.shape[:2]
    left, top, right, bottom = place.x - half, place.y - half, place.x + half, place.y + half
    return (left, top, right, bottom) if min(left, top) >= 0 and right <= width and bottom <= height else None


def length(landmarks: Array) -> float:
    """Side of the square around the faces (T, L, 2), the mean over the frames, in pixels."""
    points = outline(landmarks)
    return float((points.max(-2) - points.min(-2)).max(-1).mean())


def motion(landmarks: Array) -> float:
    """How far points (T, L, 2) are from their means, root mean square, in lengths of the face."""
    spread = ((landmarks - landmarks.mean(0)) ** 2).sum(-1).mean()
    return float(np.sqrt(spread)) / max(length(landmarks), 1e-6)
