"""One face through a clip: found once, followed from frame to frame, its landmarks smoothed on request.

`track` is an iterator: it keeps one frame and one face in memory, so a webcam's stream is as good as a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixtura.errors import DataError
from mixtura_live_portrait.faces.blaze import overlap
from mixtura_live_portrait.faces.crop import Frame
from mixtura_live_portrait.faces.detector import Detector, Face, Follower, NoFace, choose


@dataclass(frozen=True)
class Tracking:
    """How a face is chosen and followed.

    order, index: which of several faces in the first frame that has any (see `detector.choose`); by default the largest.
    smooth: 0 keeps landmarks as they are found; towards 1 more of the last frame's stay. What moves far is smoothed less.
    gaps: frames in a row without a face that are bridged by the last one; one more is an error. A live stream wants many.
    """

    order: str = "large-small"
    index: int = 0
    smooth: float = 0.0
    gaps: int = 0


SHARED = 0.1
"""Overlap with the last box that a face found anew must have to be the same person's."""
FAR = 0.02
"""Movement, in longer sides of the box, at which smoothing is down to a third."""


class Tracker:
    """Follows one face. `step` takes the frames in order; `face` is the last one found."""

    def __init__(self, detector: Detector, how: Tracking | None = None, file: str | Path = "") -> None:
        how = how or Tracking()
        if not 0 <= how.smooth < 1 or how.gaps < 0:
            raise DataError(f"tracking: smooth {how.smooth}, gaps {how.gaps}; expected 0 <= smooth < 1 and gaps >= 0")
        self.detector, self.how, self.file = detector, how, file
        self.face: Face | None = None
        self.frame = self.missed = 0

    def step(self, frame: Frame) -> Face:
        """The face in the next frame. Raises NoFace, naming frame and file, when there is none and the gap is too long."""
        found = self._start(frame) if self.face is None else self._next(frame, self.face)
        number, self.frame = self.frame, self.frame + 1
        if found is None:
            self.missed += 1
            if self.face is None or self.missed > self.how.gaps:
                raise NoFace(number, self.file)
            return self.face
        self.face, self.missed = found, 0
        return found

    def _start(self, frame: Frame) -> Face | None:
        faces = self.detector.find(frame)
        return choose(faces, self.how.order, self.how.index) if faces else None

    def _next(self, frame: Frame, last: Face) -> Face | None:
        found = self.detector.follow(frame, last) if isinstance(self.detector, Follower) else None
        found = found or _nearest(self.detector.find(frame), last)
        return _smoothed(found, last, self.how.smooth) if found else None


def _nearest(faces: list[Face], last: Face) -> Face | None:
    """The face that lies most where the last one was; None when none lies there."""
    if not faces:
        return None
    shared = overlap(last.box, np.stack([face.box for face in faces]))
    best = int(shared.argmax())
    return faces[best] if shared[best] >= SHARED else None


def _smoothed(face: Face, last: Face, smooth: float) -> Face:
    """Landmarks mixed with the last ones, each the less the farther it has moved."""
    if not smooth or face.landmarks.shape != last.landmarks.shape:
        return face
    size = max(float((face.box[2:] - face.box[:2]).max()), 1e-6)
    far = np.linalg.norm(face.landmarks - last.landmarks, axis=-1, keepdims=True) / (FAR * size)
    share = smooth / (1 + 2 * far)
    landmarks = share * last.landmarks + (1 - share) * face.landmarks
    return Face.of(landmarks, face.score)


def track(
    frames: Iterable[Frame], detector: Detector, how: Tracking | None = None, file: str | Path = ""
) -> Iterator[tuple[Frame, Face]]:
    """(frame, face) of each frame, in order. Raises NoFace, also for a clip without any frame."""
    tracker = Tracker(detector, how, file)
    for frame in frames:
        yield frame, tracker.step(frame)
    if not tracker.frame:
        raise DataError(f"{file or 'the clip'}: no frame at all; give a clip with at least one")
