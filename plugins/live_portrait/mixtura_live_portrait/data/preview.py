"""A sheet of drawn faces to look at: python -m mixtura_live_portrait.data.preview OUT.png [--style painted] [--marks] …

Every row is a clip of another person. (`mixtura data preview CONFIG` makes a page with samples of all sources instead.)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixtura_live_portrait.data.drawn.clip import DrawnClip, Style
from mixtura_live_portrait.data.drawn.render import Drawn

MARK = (255, 0, 200)


def sheet(
    rows: int, columns: int, size: int, seed: int = 0, first: int = 0, style: Style = "plain", marks: bool = False
) -> Image.Image:
    """`rows` people, from number `first` of the crowd `seed`, in `columns` frames of a clip each; `marks` dots the landmarks."""
    frames = 25 * 6
    page = np.zeros((rows, size, columns, size, 3), np.uint8)
    for row in range(rows):
        clip = DrawnClip(seed, first + row, 0, frames, style)
        for column, frame in enumerate(np.linspace(0, frames - 1, columns)):
            drawn = clip.frame(round(frame), size)
            page[row, :, column] = marked(drawn) if marks else drawn.image
    return Image.fromarray(page.reshape(rows * size, columns * size, 3))


def marked(drawn: Drawn) -> NDArray[np.uint8]:
    """The frame with a dot at each landmark."""
    image = drawn.image.copy()
    at = np.floor(drawn.landmarks).astype(int)
    x, y = at[((at >= 0) & (at < image.shape[0])).all(1)].T
    image[y, x] = MARK
    return image


def main() -> None:
    """Read the arguments, write the sheet."""
    parser = argparse.ArgumentParser(prog="python -m mixtura_live_portrait.data.preview", description="a sheet of drawn faces")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--rows", type=int, default=8, help="people")
    parser.add_argument("--columns", type=int, default=12, help="frames of each")
    parser.add_argument("--size", type=int, default=128, help="pixels of a frame")
    parser.add_argument("--seed", type=int, default=0, help="which crowd")
    parser.add_argument("--first", type=int, default=0, help="number of the first person")
    parser.add_argument("--style", choices=("plain", "painted"), default="plain")
    parser.add_argument("--marks", action="store_true", help="dot the landmarks")
    options = parser.parse_args()
    if min(options.rows, options.columns) < 1 or options.size < 16 or options.first < 0:
        parser.error("--rows and --columns must be at least 1, --size at least 16, --first at least 0")
    settings = vars(options)
    out: Path = settings.pop("out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet(**settings).save(out)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {out} can't be written ({error}); give the name of a PNG file")
    sys.stdout.write(f"wrote {out}\n")


if __name__ == "__main__":
    main()
