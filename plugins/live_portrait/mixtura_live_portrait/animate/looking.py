"""Where faces are in a picture or a clip: by a detector, by landmarks or squares from a file, or the whole frame.

`look` goes through the frames once and keeps numbers alone: for each frame a square to crop and the ratios of eyes and lips. It
serves sources, whose square turns and moves with the face, and driving clips, whose square stands still (`still`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mixtura.errors import DataError
from mixtura_live_portrait.faces.crop import DRIVING, SOURCE, Frame, Framing, Square, mean_square, square
from mixtura_live_portrait.faces.detector import Detector, Face, NoFace, ordered
from mixtura_live_portrait.faces.given import Given
from mixtura_live_portrait.faces.layouts import GUIDES, Points, guide, ratios
from mixtura_live_portrait.faces.tracking import Tracker, Tracking

Crop = Literal["face", "whole"]


@dataclass(frozen=True)
class How:
    """How faces are looked for.

    `crop`: the square of the `face`, or the `whole` frame (the largest square in its middle), for what is cropped already; then
    landmarks serve for ratios alone and may be lacking. `given` takes the place of the detector. `tracking` tells which face.
    """

    framing: Framing = SOURCE
    crop: Crop = "face"
    tracking: Tracking = field(default_factory=Tracking)
    given: Given | None = None
    file: str | Path = ""


SOURCES, DRIVINGS = How(SOURCE), How(DRIVING)


@dataclass(frozen=True, eq=False)
class Looked:
    """One face through n frames: `squares` (n), `ratios` (n, 3) of left eye, right eye and lips, NaN where they can't be told.

    `landmarks` (L, 2) are those of the first frame; None where squares were given, or nothing was found in a whole frame.
    `guides` (n, 12, 2) are what `faces.layouts.guide` takes of all frames' landmarks, in pixels, NaN where there is nothing.
    """

    squares: tuple[Square, ...]
    ratios: Tensor
    landmarks: Points | None = None
    guides: Points | None = None

    def __len__(self) -> int:
        return len(self.squares)

    def still(self) -> Looked:
        """With one square for all frames, the mean, not turned: so a head that moves also moves in its crop."""
        if len(self) == 1:
            return self
        return replace(self, squares=(mean_square(list(self.squares)),) * len(self))


def whole(frame: Frame) -> Square:
    """The largest square in the middle of a frame."""
    height, width = frame.shape[:2]
    return Square(width / 2, height / 2, min(height, width))


def look(frames: Iterable[Frame], detector: Detector | None, how: How = SOURCES) -> Looked:
    """Find one face in every frame. Raises NoFace, and DataError for clips without frames and files that don't fit."""
    squares, rows, guides, first = [], [], [], None
    seeker = Seeker(detector, how)
    for number, frame in enumerate(frames):
        around, face = seeker.step(frame)
        squares.append(around)
        rows.append(opening(face))
        guides.append(guiding(face))
        if number == 0 and face is not None:
            first = face.landmarks
    if not squares:
        raise DataError(f"{how.file or 'the clip'}: no frame at all; give a clip with at least one")
    if how.given is not None:
        how.given.check(len(squares))
    return Looked(tuple(squares), torch.cat(rows), first, np.stack(guides))


class Seeker:
    """Follows one face. `step` takes the frames in order, so a stream is as good as a file."""

    def __init__(self, detector: Detector | None, how: How = SOURCES) -> None:
        if detector is None and how.given is None and how.crop == "face":
            raise DataError("no detector, no landmarks and no crops: give one of them")
        self.how, self.frame = how, 0
        self.tracker = Tracker(detector, how.tracking, how.file) if detector is not None and how.given is None else None

    def step(self, frame: Frame) -> tuple[Square, Face | None]:
        """The square of the next frame, and its face. Raises NoFace."""
        number, self.frame = self.frame, self.frame + 1
        given = self.how.given
        if given is not None and (by_hand := given.square(number)) is not None:
            return by_hand, None
        face = given.face(number) if given is not None else self._found(frame)
        if self.how.crop == "whole" or face is None:
            return whole(frame), face
        return square(face.landmarks, self.how.framing), face

    def _found(self, frame: Frame) -> Face | None:
        if self.tracker is None:
            return None
        try:
            return self.tracker.step(frame)
        except NoFace:
            if self.how.crop == "face":
                raise
            return None


def opening(face: Face | None) -> Tensor:
    """Ratios (1, 3) of a face; NaN where there is none."""
    values = np.full(3, np.nan, np.float32) if face is None else ratios(face.landmarks)
    return torch.from_numpy(np.array(values, np.float32))[None]


def guiding(face: Face | None) -> Points:
    """The guide (12, 2) of a face in pixels; NaN where there is none."""
    return np.full((GUIDES, 2), np.nan, np.float32) if face is None else guide(face.landmarks)


def look_for_several(
    frames: Iterable[Frame], detector: Detector | None, how: How = SOURCES, count: int | None = None
) -> list[Looked]:
    """`count` faces of the first frame, from the index of `how` on in its order, each followed through all frames; None: all.

    `frames` must begin anew with each iteration. Raises NoFace; DataError when there are too few faces, and for more than one
    where landmarks are given by hand.
    """
    if how.given is not None or detector is None:
        if count not in (None, 1):
            raise DataError(f"{how.file}: {count} faces, but landmarks or crops by hand are those of one; leave them out")
        return [look(frames, detector, how)]
    first = next(iter(frames), None)
    faces = [] if first is None else ordered(detector.find(first), how.tracking.order)
    if not faces:
        raise NoFace(0, how.file)
    index = how.tracking.index
    chosen = faces[index:] if count is None else faces[index : index + count]
    if not chosen or (count is not None and len(chosen) < count):
        wanted = f"{count or 'all'} from number {index} on were asked for"
        raise DataError(f"{how.file}: {wanted}, but there are {len(faces)} faces in its first frame")
    if isinstance(frames, Sequence) and len(frames) == 1:
        return [_of_picture(frames[0], face, how) for face in chosen]
    tracks = [replace(how, tracking=replace(how.tracking, index=index + number)) for number in range(len(chosen))]
    return [look(frames, detector, track) for track in tracks]


def _of_picture(frame: Frame, face: Face, how: How) -> Looked:
    around = whole(frame) if how.crop == "whole" else square(face.landmarks, how.framing)
    return Looked((around,), opening(face), face.landmarks, guiding(face)[None])
