"""What finds faces: the `Detector` interface, the choice among several faces, and detectors by name.

`make("auto")` gives the default detector, which needs no download; other names, and plug-ins as `module:function`, are built
with the settings that they take. `choose` picks one of several faces by order and index.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mixtura.errors import DataError, MixturaError
from mixtura_live_portrait.faces.crop import Frame, Matrix, moved
from mixtura_live_portrait.faces.layouts import Points, layout_of

SCORE = 0.5
"""Confidence from which a face counts."""


class NoFace(DataError):
    """No face where one is needed; the text names the frame and the file."""

    def __init__(self, frame: int | None, file: str | Path = "") -> None:
        self.frame, self.file = frame, str(file)
        where = " of ".join(part for part in ("" if frame is None else f"frame {frame}", self.file) if part)
        super().__init__(f"no face found{' in ' if where else ''}{where}; pass landmarks or a crop")


@dataclass(frozen=True, eq=False)
class Face:
    """One face in a frame: landmarks (L, 2) and box x0, y0, x1, y1 in pixels, score in 0..1."""

    landmarks: Points
    box: NDArray[np.float32]
    score: float = 1.0

    @classmethod
    def of(cls, landmarks: Points, score: float = 1.0) -> Face:
        """A face whose box is that of its landmarks; DataError for unknown layouts."""
        layout_of(landmarks)
        points = landmarks.astype(np.float32)
        return cls(points, np.concatenate([points.min(0), points.max(0)]), score)

    @property
    def layout(self) -> str:
        """Name of the landmarks' layout."""
        return layout_of(self.landmarks).name

    @property
    def area(self) -> float:
        """Pixels of the box."""
        width, height = self.box[2:] - self.box[:2]
        return float(width * height)

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box."""
        x, y = (self.box[:2] + self.box[2:]) / 2
        return float(x), float(y)

    def through(self, matrix: Matrix) -> Face:
        """The same face in other coordinates."""
        return Face.of(moved(self.landmarks, matrix), self.score)


class Detector(Protocol):
    """Finds the faces of a frame, uint8 (H, W, 3); an empty list when there is none. Pure: no memory of other frames."""

    def find(self, frame: Frame) -> list[Face]:
        """All faces, in no particular order."""
        ...


@runtime_checkable
class Follower(Protocol):
    """A detector that can also look again where a face was in the frame before, which is faster and keeps to it."""

    def follow(self, frame: Frame, previous: Face) -> Face | None:
        """The face near `previous`, or None when it is lost."""
        ...


ORDERS: dict[str, Callable[[Face], float]] = {
    "large-small": lambda face: -face.area,
    "small-large": lambda face: face.area,
    "left-right": lambda face: float(face.box[0]),
    "right-left": lambda face: -float(face.box[0]),
    "top-bottom": lambda face: float(face.box[1]),
    "bottom-top": lambda face: -float(face.box[1]),
}
"""Orders of several faces, by the names of the official configuration."""


def ordered(faces: list[Face], order: str = "large-small") -> list[Face]:
    """Faces in an order of ORDERS; DataError for other names."""
    if order not in ORDERS:
        raise DataError(f"faces can't be ordered by {order!r}: take one of {', '.join(ORDERS)}")
    return sorted(faces, key=ORDERS[order])


def choose(faces: list[Face], order: str = "large-small", index: int = 0) -> Face:
    """The face with that index in that order: by default the largest. DataError when there are too few."""
    if not 0 <= index < len(faces):
        raise DataError(f"face {index} was asked for, but there are {len(faces)}; count from 0 in the order {order!r}")
    return ordered(faces, order)[index]


DETECTORS = {
    "mesh": "mixtura_live_portrait.faces.mesh:make",
    "onnx": "mixtura_live_portrait.faces.onnx:make",
}
"""Name -> module:function that builds the detector from keyword settings."""


def make(name: str = "auto", **settings: Any) -> Detector:
    """A detector by name: `auto`, one of DETECTORS, or a plug-in as `module:function`.

    `auto` is `onnx` when a folder of official models is given (`folder=…`), else `mesh`. Settings go to the function; DataError
    names those that it doesn't take, and modules that can't be imported.
    """
    if name == "auto":
        name = "onnx" if settings.get("folder") else "mesh"
    target = DETECTORS.get(name, name)
    module, _, function = target.partition(":")
    if not module or not function:
        raise DataError(f"no detector is called {name!r}: take auto, {', '.join(DETECTORS)} or a plug-in as module:function")
    try:
        build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise DataError(f"detector {name!r} can't be loaded: {error}; is its package installed?") from error
    try:
        inspect.signature(build).bind(**settings)
    except TypeError as error:
        raise DataError(f"detector {name!r}: {error}; it takes {inspect.signature(build)}") from error
    detector: Detector = build(**settings)
    if not callable(getattr(detector, "find", None)):
        raise MixturaError(f"detector {name!r}: {target} gave {type(detector).__name__}, which has no find(frame)")
    return detector
