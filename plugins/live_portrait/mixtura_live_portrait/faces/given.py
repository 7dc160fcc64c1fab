"""Landmarks and crops by hand: read from JSON or npz, checked, and used in place of a detector.

JSON: {"landmarks": [[[x, y], …], …]} with one list of points for each frame, or {"crops": [[x, y, side, angle], …]} with a square
for each frame (angle in degrees, clockwise, may be left out); instead of a list of one, the one itself. npz: an array
`landmarks` (T, L, 2) or (L, 2), or `crops` (T, 4), (T, 3). All in pixels of the frame, upper left corner of the picture at 0.
One entry serves for every frame of a clip.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mixtura.errors import DataError
from mixtura_live_portrait.faces.crop import Square
from mixtura_live_portrait.faces.detector import Face
from mixtura_live_portrait.faces.layouts import Points, layout_of

LARGEST = 1 << 28
"""Bytes of the largest file that is read."""
NAMES = ("landmarks", "crops")


class Given:
    """Faces, or squares to crop, by frame. One of `faces` and `squares` is empty."""

    def __init__(self, faces: list[Face], squares: list[Square], file: str | Path = "") -> None:
        self.faces, self.squares, self.file = faces, squares, file

    def __len__(self) -> int:
        return len(self.faces) or len(self.squares)

    def check(self, frames: int) -> None:
        """Raises DataError unless there is one entry for each of `frames`, or one for all."""
        if len(self) not in (1, frames):
            what = NAMES[0] if self.faces else NAMES[1]
            raise DataError(f"{self.file}: {what} of {len(self)} frames for a clip of {frames}; give one each, or one for all")

    def face(self, frame: int) -> Face | None:
        """Landmarks of a frame; None when crops were given."""
        return self._entry(self.faces, frame)

    def square(self, frame: int) -> Square | None:
        """Square of a frame; None when landmarks were given."""
        return self._entry(self.squares, frame)

    def _entry(self, entries: list[Any], frame: int) -> Any:
        if not entries:
            return None
        if len(entries) > 1 and frame >= len(entries):
            raise DataError(
                f"{self.file}: holds {len(entries)} frames, but frame {frame} was asked for; give one each, or one for all"
            )
        return entries[0] if len(entries) == 1 else entries[frame]


def read_given(path: Path) -> Given:
    """Landmarks or crops of a file. Raises DataError for everything that isn't laid out as above."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a .json or .npz with landmarks or crops")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path}: larger than {LARGEST >> 20} MB; that can't be landmarks of one clip")
    name, values = _from_npz(path) if path.suffix == ".npz" else _from_json(path)
    entries = _numbers(path, name, values)
    if name == "landmarks":
        landmarks = entries[None] if entries.ndim == 2 else entries
        if landmarks.ndim != 3:
            raise DataError(f"{path}: landmarks of shape {entries.shape}; expected (frames, points, 2) or (points, 2)")
        layout_of(landmarks, str(path))
        return Given([Face.of(points) for points in landmarks], [], path)
    return Given([], _squares(path, entries), path)


def _from_npz(path: Path) -> tuple[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _single(path, {name: archive[name] for name in archive.files if name in NAMES})
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an npz file of plain numbers ({error})") from error


def _from_json(path: Path) -> tuple[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    return _single(path, {name: content[name] for name in NAMES if name in content} if isinstance(content, dict) else {})


def _single(path: Path, found: dict[str, Any]) -> tuple[str, Any]:
    if len(found) != 1:
        raise DataError(f"{path}: holds {' and '.join(found) or 'neither landmarks nor crops'}; expected one of landmarks, crops")
    return next(iter(found.items()))


def _numbers(path: Path, name: str, values: Any) -> Points:
    try:
        numbers = np.asarray(values, np.float32)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: {name} aren't a regular list of numbers ({error}); every frame needs as many points") from error
    if not numbers.size or not np.isfinite(numbers).all():
        raise DataError(f"{path}: {name} are empty, or hold NaN or infinity; give pixels of every frame")
    return numbers


def _squares(path: Path, entries: Points) -> list[Square]:
    rows = entries[None] if entries.ndim == 1 else entries
    if rows.ndim != 2 or rows.shape[1] not in (3, 4) or (rows[:, 2] <= 0).any():
        raise DataError(f"{path}: crops of shape {entries.shape}; expected x, y, side > 0 and perhaps an angle for each frame")
    return [Square(*(float(number) for number in row)) for row in rows]


def write_landmarks(path: Path, faces: list[Face]) -> None:
    """Landmarks of a clip, all of one layout, as JSON or npz, as `read_given` takes them."""
    if len({face.landmarks.shape for face in faces}) != 1:
        raise DataError(f"{path}: faces with different layouts, or none; write one clip with one detector")
    landmarks = np.stack([face.landmarks for face in faces])
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez_compressed(path, landmarks=landmarks)
    else:
        path.write_text(json.dumps({"landmarks": np.round(landmarks.astype(float), 3).tolist()}), "utf-8")
