"""Landmarks and labels of a clip in a file beside it: NAME.json or NAME.npz for NAME.mp4, landmarks.json or .npz in a folder.

JSON: {"landmarks": [[[x, y], …], …]}, one list of points a frame, in pixels of the frames, in any layout that `faces.layouts`
knows; npz, which is read faster: an array `landmarks` (T, L, 2). Optional: `pose` (T, 3) pitch, yaw, roll in degrees,
`expression` (T, 10) as drawn faces have it, `identity` a number, `cropped` true when the frames are the squares to train on.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixtura.errors import DataError
from mixtura_live_portrait.data.drawn.state import Expression
from mixtura_live_portrait.data.sample import Array
from mixtura_live_portrait.faces.layouts import layout_of

LARGEST = 1 << 28
"""Bytes of the largest file that is read."""
ENDINGS = (".npz", ".json")
LABELS = {"pose": 3, "expression": len(Expression._fields)}
"""Optional arrays and their numbers a frame."""


@dataclass(frozen=True, eq=False)
class Marks:
    """What is known of a clip: `landmarks` (T, L, 2), `pose` (T, 3) or None, `expression` (T, 10) or None."""

    landmarks: Array
    pose: Array | None = None
    expression: Array | None = None
    identity: int | None = None
    is_cropped: bool = False

    def __len__(self) -> int:
        return len(self.landmarks)


def marks_beside(path: Path) -> Path | None:
    """The file with the landmarks of a video or picture, or of a folder of frames; None when there is none."""
    stem = path / "landmarks" if path.is_dir() else path.with_suffix("")
    return next((file for ending in ENDINGS if (file := stem.with_name(stem.name + ending)).is_file()), None)


def read_marks(path: Path) -> Marks:
    """Read such a file. Raises DataError for everything that isn't laid out as above."""
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path}: larger than {LARGEST >> 20} MB; that can't be landmarks of one clip")
    content = _from_npz(path) if path.suffix == ".npz" else _from_json(path)
    if "landmarks" not in content:
        raise DataError(f"{path}: holds no `landmarks`, but {', '.join(sorted(content)) or 'nothing'}")
    landmarks = _numbers(path, "landmarks", content["landmarks"])
    landmarks = landmarks[None] if landmarks.ndim == 2 else landmarks
    if landmarks.ndim != 3:
        raise DataError(f"{path}: landmarks of shape {landmarks.shape}; expected (frames, points, 2)")
    layout_of(landmarks, str(path))
    labels = {name: _label(path, name, content[name], len(landmarks)) for name in LABELS if name in content}
    identity = content.get("identity")
    return Marks(
        landmarks,
        labels.get("pose"),
        labels.get("expression"),
        None if identity is None else _identity(path, identity),
        bool(content.get("cropped", False)),
    )


def write_marks(path: Path, marks: Marks) -> None:
    """Write what `read_marks` reads, as JSON (pixels and labels to three digits) or npz, by the ending."""
    content: dict[str, Any] = {"landmarks": marks.landmarks, "cropped": marks.is_cropped}
    content |= {name: value for name in LABELS if (value := getattr(marks, name)) is not None}
    if marks.identity is not None:
        content["identity"] = marks.identity
    if path.suffix == ".npz":
        np.savez_compressed(path, **content)
        return
    plain = {
        name: np.round(value.astype(float), 3).tolist() if isinstance(value, np.ndarray) else value
        for name, value in content.items()
    }
    path.write_text(json.dumps(plain), "utf-8")


def _from_npz(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an npz file of plain numbers ({error})") from error


def _from_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f'{path}: expected {{"landmarks": [[[x, y], …], …]}}, got a {type(content).__name__}')
    return content


def _numbers(path: Path, name: str, values: Any) -> Array:
    try:
        numbers = np.asarray(values, np.float32)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: {name} aren't a regular list of numbers ({error}); every frame needs as many") from error
    if not numbers.size or not np.isfinite(numbers).all():
        raise DataError(f"{path}: {name} are empty, or hold NaN or infinity; cut out the frames where there is no face")
    return numbers


def _label(path: Path, name: str, values: Any, frames: int) -> Array:
    numbers = _numbers(path, name, values)
    if numbers.shape != (frames, LABELS[name]):
        raise DataError(
            f"{path}: {name} of shape {numbers.shape}, expected {(frames, LABELS[name])} as there are {frames} frames"
        )
    return numbers


def _identity(path: Path, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: identity {value!r} must be a whole number") from error
