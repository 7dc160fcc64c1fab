"""The default detector: BlazeFace finds faces, Face Mesh V2 gives 478 landmarks of each; both run as PyTorch modules.

    detector = make()                      # models of the installed wheel, see `bundle`
    faces = detector.find(frame)           # any number, each with its score
    face = detector.follow(frame, faces[0])  # in the next frame of a clip: no search, one network

`find` looks at the whole frame, then closer at overlapping squares, since the network sees 128 pixels only, and where that
leaves it in doubt at the frame turned by quarter and half turns. How far it goes is `search`: `all` finds small faces beside
large ones, `first` stops at the first certain face, `glance` looks once, for streams that can't wait. Landmarks are in pixels of
the frame, however the face is turned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mixtura.errors import DataError
from mixtura_live_portrait.faces import blaze
from mixtura_live_portrait.faces.bundle import load_bundle
from mixtura_live_portrait.faces.crop import Frame, Framing, Square, crop, moved, square
from mixtura_live_portrait.faces.detector import SCORE, Face
from mixtura_live_portrait.faces.layouts import Points, eye_centres
from mixtura_live_portrait.faces.tflite import Network

POINTS = 478
ROOM = 1.5
"""Side of what the landmark network sees, in sides of the face's box."""
OTHERS = Framing(1.8, 0.0, -0.08)
"""Much the same square from the landmarks of other layouts, which end at the brows."""
SAME = 0.3
"""Overlap of landmark boxes from which two faces are one."""
ROUNDS = 4
"""Times that landmarks are found again, at most; two are enough unless the face is turned."""
CERTAIN = 0.999
"""Confidence below which the search goes on: faces seen the wrong way up reach 0.996, upright ones 1.000."""
KNOWN = 0.4
"""Overlap with the box of a certain face from which a detection isn't looked at again."""
CLOSER = (1.0, 0.5)
"""Sides of the squares of a closer look, in shorter sides of the frame; they overlap by half."""
SEARCHES = ("all", "first", "glance")
UPRIGHT = 2
"""Looks before those at the turned frame."""
BATCH = 16
"""Squares that the networks see at once."""
DETECTOR_SAMPLES = 2
"""Samples along a pixel's side for the 128² input: the network was trained on plainly reduced pictures."""


class FaceMesh:
    """BlazeFace and Face Mesh V2. `find` and `follow` are pure: they keep nothing of what they have seen."""

    def __init__(
        self, detector: Network, landmarks: Network, device: str = "cpu", threshold: float = SCORE, search: str = "all"
    ) -> None:
        if detector.size != (blaze.SIDE, blaze.SIDE):
            raise DataError(f"the face detector's input is {detector.size}; expected {blaze.SIDE} x {blaze.SIDE} (short range)")
        if search not in SEARCHES:
            raise DataError(f"search {search!r}: take one of {', '.join(SEARCHES)}")
        self.device, self.threshold, self.search = torch.device(device), threshold, search
        self.detector, self.network = detector.to(self.device), landmarks.to(self.device)
        self.side = landmarks.size[0]

    def find(self, frame: Frame) -> list[Face]:
        """All faces of a frame, uint8 (H, W, 3), best score first."""
        faces: list[Face] = []
        for number, views in enumerate(_looks(frame)):
            is_sure = any(face.score >= CERTAIN for face in faces)
            if (is_sure and (number >= UPRIGHT or self.search == "first")) or (number and self.search == "glance"):
                break
            faces += self._look(frame, views, faces)
        return _distinct(faces)

    def follow(self, frame: Frame, previous: Face) -> Face | None:
        """The face near where it was in the frame before; None when it is lost. Any layout will do for `previous`."""
        around = region(previous.landmarks)
        found = self.landmarks(frame, [around] if around else [])
        return found[0] if found and found[0].score >= self.threshold else None

    def landmarks(self, frame: Frame, squares: list[Square]) -> list[Face]:
        """What the landmark network sees in each square, with its confidence that there is a face at all."""
        faces = []
        for start in range(0, len(squares), BATCH):
            matrices = np.stack([square.to_frame(self.side) for square in squares[start : start + BATCH]])
            with torch.inference_mode():
                outputs = self.network(crop(frame, matrices, self.side, self.device))
            points = outputs[0].reshape(len(matrices), -1, 3)[..., :2].float().cpu().numpy()
            if points.shape[1] != POINTS:
                raise DataError(f"the landmark model gives {points.shape[1]} points; expected {POINTS} (Face Mesh V2)")
            scores = outputs[1].reshape(-1).float().sigmoid().tolist()
            placed = moved(points, matrices[:, None])
            faces += [Face.of(landmarks, score) for landmarks, score in zip(placed, scores, strict=True)]
        return faces

    def _look(self, frame: Frame, views: list[Square], known: list[Face]) -> list[Face]:
        """Faces in some views of the frame beside known ones: boxes, then landmarks, again and again until these stand still."""
        squares = [
            square for start in range(0, len(views), BATCH) for square in self._detect(frame, views[start : start + BATCH])
        ]
        squares = [square for square in squares if not _is_known(square, known)]
        faces = [face for face in self.landmarks(frame, squares) if face.score >= self.threshold]
        settled = [self._settled(frame, face) for face in _distinct(faces)]
        return [face for face in settled if face.score >= self.threshold]

    def _settled(self, frame: Frame, face: Face) -> Face:
        """The landmarks found again in the square that they give, until it stops moving."""
        around = region(face.landmarks)
        for _ in range(ROUNDS):
            if around is None:
                break
            (face,) = self.landmarks(frame, [around])
            before, around = around, region(face.landmarks)
            if around is not None and _is_near(before, around):
                break
        return face

    def _detect(self, frame: Frame, views: list[Square]) -> list[Square]:
        matrices = np.stack([view.to_frame(blaze.SIDE) for view in views])
        with torch.inference_mode():
            pictures = crop(frame, matrices, blaze.SIDE, self.device, DETECTOR_SAMPLES)
            regressors, logits = self.detector(pictures * 2 - 1)
        squares = []
        for view, matrix, found in zip(views, matrices, blaze.decode(regressors, logits, self.threshold), strict=True):
            squares += [_around_box(row, view, matrix) for row in blaze.suppressed(found)]
        return squares


def _around_box(row: NDArray[np.float32], view: Square, to_frame: NDArray[np.float64]) -> Square:
    """The square of a detection, turned so that its eyes are level."""
    eyes = row[4:8].reshape(2, 2)
    right, down = eyes[blaze.LEFT_EYE] - eyes[blaze.RIGHT_EYE]
    centre = moved(row[:4].reshape(2, 2).mean(0, dtype=np.float32), to_frame)
    side = float((row[2:4] - row[:2]).max()) * view.side / blaze.SIDE * ROOM
    return Square(float(centre[0]), float(centre[1]), side, view.angle + math.degrees(math.atan2(float(down), float(right))))


def region(landmarks: Points) -> Square | None:
    """The square that the landmark network shall see next, from any landmarks (L, 2); None when they have no extent."""
    if len(landmarks) != POINTS:
        return square(landmarks, OTHERS)
    left, right = eye_centres(landmarks)
    across = right - left
    turn = math.atan2(float(across[1]), float(across[0]))
    basis = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    around = landmarks.astype(np.float64) @ basis.T
    low, high = around.min(0), around.max(0)
    x, y = (low + high) / 2 @ basis
    side = float((high - low).max()) * ROOM
    return Square(float(x), float(y), side, math.degrees(turn)) if math.isfinite(side) and side > 1 else None


def _is_known(around: Square, known: list[Face]) -> bool:
    """Whether a detection's square is that of a face whose landmarks are certain already."""
    half = around.side / ROOM / 2
    box = np.array([around.x - half, around.y - half, around.x + half, around.y + half], np.float32)
    boxes = [face.box for face in known if face.score >= CERTAIN]
    return bool(boxes) and bool(blaze.overlap(box, np.stack(boxes)).max() > KNOWN)


def _is_near(first: Square, second: Square) -> bool:
    turn = abs((first.angle - second.angle + 180) % 360 - 180)
    return turn < 2 and math.hypot(first.x - second.x, first.y - second.y) < 0.02 * first.side


def _looks(frame: Frame) -> Iterator[list[Square]]:
    """Views of a frame: all of it, overlapping squares, all of it turned, larger squares turned."""
    height, width = frame.shape[:2]
    whole = Square(width / 2, height / 2, max(height, width))
    closer = [square for part in CLOSER for square in _tiles(height, width, part * min(height, width))]
    yield from ([whole], closer)
    for turn in (90.0, 270.0, 180.0):
        yield [whole._replace(angle=turn)]
    yield [square._replace(angle=turn) for turn in (90.0, 270.0, 180.0) for square in closer if square.side == min(height, width)]


def _tiles(height: int, width: int, side: float) -> list[Square]:
    """Squares of that side that cover a frame and overlap by half; none where they show no more than the whole frame."""
    if side >= max(height, width) or side < blaze.SIDE:
        return []

    def places(length: int) -> NDArray[np.float64]:
        return np.linspace(side / 2, length - side / 2, max(1, math.ceil((length - side) / (side / 2)) + 1))

    return [Square(float(x), float(y), side) for y in places(height) for x in places(width)]


def _distinct(faces: list[Face]) -> list[Face]:
    """Best score first; of faces that lie on each other the best."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not kept or blaze.overlap(face.box, np.stack([other.box for other in kept])).max() <= SAME:
            kept.append(face)
    return kept


def make(models: str | Path | None = None, device: str = "cpu", threshold: float = SCORE, search: str = "all") -> FaceMesh:
    """The default detector. `models`: a face_landmarker.task instead of the installed one. Raises bundle.NoModels without any."""
    detector, landmarks = load_bundle(Path(models) if models else None)
    return FaceMesh(detector, landmarks, device, threshold, search)
