"""Pictures for people to look at: faces with their landmarks and squares, crops, driving and source beside the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from mixtura_live_portrait.animate.looking import Looked
from mixtura_live_portrait.faces.crop import Frame, as_frames, crop

LINE, DOT = (40, 220, 120), (255, 90, 60)
DENSE = 150
"""Landmarks from which dots are drawn smaller."""


def marked(frame: Frame, faces: Sequence[Looked], number: int = 0) -> Frame:
    """A frame with the squares of its faces, numbered, and the landmarks of the first frame on that one."""
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    size = max(1, round(max(frame.shape) / 400))
    for index, face in enumerate(faces):
        corners = [(float(x), float(y)) for x, y in face.squares[min(number, len(face) - 1)].corners()]
        draw.line([*corners, corners[0]], LINE, 2 * size)
        if len(faces) > 1:
            draw.text(corners[0], str(index), LINE, font_size=12 * size)
        if face.landmarks is not None and number == 0:
            radius = size if len(face.landmarks) < DENSE else size / 2
            for x, y in face.landmarks.tolist():
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), DOT)
    return np.array(picture)


def cropped(frame: Frame, face: Looked, side: int, number: int = 0) -> Frame:
    """(side, side, 3): a face's square of a frame."""
    square = face.squares[min(number, len(face) - 1)]
    return as_frames(crop(frame, square.to_frame(side), side))[0]


def crops(frames: Iterator[Frame], face: Looked, side: int) -> Iterator[Frame]:
    """The same of every frame."""
    for number, frame in enumerate(frames):
        yield cropped(frame, face, side, number)


def beside(rows: Sequence[Sequence[Frame | None]]) -> Frame:
    """Rows of equal crops as one picture; black where there is none."""
    shape = next(entry.shape for row in rows for entry in row if entry is not None)
    black = np.zeros(shape, np.uint8)
    return np.concatenate([np.concatenate([black if entry is None else entry for entry in row], 1) for row in rows])
