"""The official landmark models, when the user gives them: 203 points, faces found by InsightFace's models or by our own.

    detector = make("pretrained_weights")   # a folder with landmark.onnx, and perhaps det_10g.onnx and 2d106det.onnx below it

`landmark.onnx` belongs to LivePortrait; `det_10g.onnx` and `2d106det.onnx` to InsightFace's buffalo_l, whose licence allows
non-commercial research only. Without these two the default detector (`mesh`) finds the faces. Needs `onnxruntime`.

What goes in and comes out follows the public code of both projects. The real files weren't at hand when this was written: it was
tested on small files with the same names, inputs and outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtura.errors import DataError, MixturaError
from mixtura_live_portrait.faces.blaze import overlap
from mixtura_live_portrait.faces.crop import LANDMARKS, Frame, Matrix, Square, crop, moved, square
from mixtura_live_portrait.faces.detector import SCORE, Detector, Face
from mixtura_live_portrait.faces.layouts import Points

LANDMARK_FILE, BOX_FILE, POINTS_FILE = "landmark.onnx", "det_10g.onnx", "2d106det.onnx"
LANDMARK_SIDE, BOX_SIDE, POINTS_SIDE = 224, 512, 192
STRIDES = (8, 16, 32)
ANCHORS = 2
"""Candidates at each place, with the same centre."""
OVERLAP = 0.4
"""Intersection over union from which two boxes are one face."""
ROOM = 1.5
"""Side of what the 106-point model sees, in longer sides of the box."""
KEPT = 0.1
"""Overlap with the last box below which a followed face is lost."""
INSTALL = "pip install onnxruntime"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Session:
    """One ONNX file, checked: `inputs` of (1, 3, side, side), number of outputs."""

    path: Path
    session: Any
    name: str

    def __call__(self, images: Floats) -> list[Floats]:
        """images (1, 3, S, S) -> all outputs. DataError when the file doesn't take them."""
        try:
            return [np.asarray(output, np.float32) for output in self.session.run(None, {self.name: images})]
        except Exception as error:  # onnxruntime's errors share no class
            raise DataError(f"{self.path}: can't be run on {images.shape} ({error}); is it the official file?") from error


def open_session(path: Path, outputs: int, device: str = "cpu") -> Session:
    """An ONNX file with one input and at least that many outputs. Raises DataError, and MixturaError without onnxruntime."""
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise MixturaError(f"{path}: ONNX models need onnxruntime; run: {INSTALL}") from error
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a folder with {LANDMARK_FILE}")
    provider = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise MixturaError(f"onnxruntime can't use {device}; take device cpu, or run: pip install onnxruntime-gpu")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=[provider])
    except Exception as error:  # onnxruntime's errors share no class
        raise DataError(f"{path}: not an ONNX model that can be read ({error}); get the file anew") from error
    names, results = [entry.name for entry in session.get_inputs()], len(session.get_outputs())
    if len(names) != 1 or results < outputs:
        raise DataError(f"{path}: {len(names)} inputs, {results} outputs; expected 1 and {outputs}: is it the official file?")
    return Session(path, session, names[0])


class InsightFace:
    """Boxes by `det_10g.onnx` (SCRFD, arXiv 2105.04714), 106 points of each by `2d106det.onnx`."""

    def __init__(self, boxes: Session, points: Session, threshold: float = SCORE) -> None:
        self.boxes, self.points, self.threshold = boxes, points, threshold

    def find(self, frame: Frame) -> list[Face]:
        """All faces of a frame with 106 points, best score first."""
        side = max(frame.shape[:2])
        # the frame lies in the upper left of the square that the model sees
        whole = Square(side / 2, side / 2, side).to_frame(BOX_SIDE)
        levels: Floats = (crop(frame, whole, BOX_SIDE) * 255 - 127.5).div(128).numpy()
        found = decode(self.boxes(levels), self.threshold, self.boxes.path)
        return [self._points(frame, row[:4] * side / BOX_SIDE, float(row[4])) for row in found]

    def _points(self, frame: Frame, box: Floats, score: float) -> Face:
        left, top, right, bottom = (float(number) for number in box)
        around = Square((left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) * ROOM)
        to_frame = around.to_frame(POINTS_SIDE)
        (output, *_) = self.points(crop(frame, to_frame, POINTS_SIDE).mul(255).numpy())
        points = _checked(output, 106, self.points.path)
        return Face.of(moved((points + 1) * (POINTS_SIDE / 2), to_frame), score)


def decode(outputs: list[Floats], threshold: float, path: Path | str = BOX_FILE) -> Floats:
    """Nine outputs (scores, boxes, keypoints of three strides) -> (N, 5): x0, y0, x1, y1, score; best first, one for a face."""
    rows = []
    for index, stride in enumerate(STRIDES):
        line = np.arange(BOX_SIDE // stride, dtype=np.float32) * stride
        places = np.stack(np.meshgrid(line, line), -1).reshape(-1, 1, 2).repeat(ANCHORS, 1).reshape(-1, 2)
        scores, boxes = outputs[index].reshape(-1), outputs[index + len(STRIDES)].reshape(-1, 4) * stride
        if len(scores) != len(places) or len(boxes) != len(places):
            raise DataError(
                f"{path}: {len(scores)} scores, {len(boxes)} boxes at stride {stride}; expected {len(places)} of each"
            )
        rows.append(np.concatenate([places - boxes[:, :2], places + boxes[:, 2:], scores[:, None]], -1)[scores >= threshold])
    rest, kept = np.concatenate(rows), []
    rest = rest[np.argsort(-rest[:, 4], kind="stable")]
    while len(rest):
        kept.append(rest[0])
        rest = rest[1:][overlap(rest[0, :4], rest[1:, :4]) <= OVERLAP]
    return np.stack(kept) if kept else np.zeros((0, 5), np.float32)


def _checked(output: Floats, count: int, path: Path) -> Points:
    if output.size != 2 * count or not np.isfinite(output).all():
        raise DataError(f"{path}: an output of shape {output.shape}; expected {count} finite points (x, y)")
    return output.reshape(count, 2)


class Landmarks203:
    """`landmark.onnx`: 203 points of faces that another detector finds."""

    def __init__(self, landmarks: Session, finder: Detector) -> None:
        self.network, self.finder = landmarks, finder

    def find(self, frame: Frame) -> list[Face]:
        """All faces of a frame with 203 points."""
        return [self._look(frame, face.landmarks, face.score) for face in self.finder.find(frame)]

    def follow(self, frame: Frame, previous: Face) -> Face | None:
        """The face near `previous`; the model has no confidence, so it is lost when it jumps away or changes its size by half."""
        face = self._look(frame, previous.landmarks, previous.score)
        is_near = overlap(previous.box, face.box[None])[0] >= KEPT
        return face if is_near and 0.5 <= (face.area + 1) / (previous.area + 1) <= 2 else None

    def _look(self, frame: Frame, around: Points, score: float) -> Face:
        to_frame: Matrix = square(around, LANDMARKS).to_frame(LANDMARK_SIDE)
        points = _checked(self.network(crop(frame, to_frame, LANDMARK_SIDE).numpy())[2], 203, self.network.path)
        return Face.of(moved(points * LANDMARK_SIDE, to_frame), score)


def make(folder: str | Path, device: str = "cpu", threshold: float = SCORE) -> Landmarks203:
    """203 landmarks by the official files in `folder` or below it. DataError when landmark.onnx isn't there."""
    top = Path(folder)
    found = {name: next(iter(sorted(top.rglob(name))), None) for name in (LANDMARK_FILE, BOX_FILE, POINTS_FILE)}
    landmark, boxes, points = found.values()
    if landmark is None:
        raise DataError(
            f"{top}: no {LANDMARK_FILE} in it or below; give the folder of the official weights, or take detector mesh"
        )
    session = open_session(landmark, 3, device)
    if boxes is None or points is None:
        from mixtura_live_portrait.faces.mesh import make as make_mesh

        return Landmarks203(session, make_mesh(device=device, threshold=threshold))
    return Landmarks203(session, InsightFace(open_session(boxes, 9, device), open_session(points, 1, device), threshold))
