"""A user's picture as the network wants it: read, checked, cut to the object, centred on white.

`load_picture` reads any file that Pillow knows as RGBA; `framed` and `squared` make the condition view of an object or a scene
from it. What is object and what background is decided in `removal`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mixtura.errors import DataError

Say = Callable[[str], None]
Rgba = NDArray[np.uint8]
"""A picture (H, W, 4): red, green, blue, alpha; colours are not multiplied by alpha."""

SMALLEST = 16
"""Pixels that each side of a picture must have."""
LARGEST = 64_000_000
"""Pixels of the largest picture that is decoded, against files that unpack to far more than memory holds."""
LONGEST = 2048
"""Larger pictures are reduced to this many pixels on their longer side: more than any network sees."""
SEEN = 25
"""Alpha from which a pixel counts to the object's box."""
LEVELS_16 = 65535
READABLE = (OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, IndexError, OverflowError)
"""What Pillow raises about files that are damaged."""


class Framed(NamedTuple):
    """A picture for the network, float32 in 0..1."""

    image: Tensor
    """(3, S, S) over white."""
    alpha: Tensor
    """(1, S, S), 1 where the object is."""


def load_picture(path: Path) -> Rgba:
    """A file as (H, W, 4) uint8, upright, at most `LONGEST` pixels long; of an animation the first frame.

    Raises DataError for files that are missing, no pictures or damaged, and for pictures that are tiny or huge, or hold a shape
    in their alpha but one colour only.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the path of a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # we have limits of our own
            with Image.open(path) as opened:
                _check_size(path, *opened.size)
                rgba = _reduced(_eight_bits(path, ImageOps.exif_transpose(opened)))
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far too many pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not a picture that can be read; save it as PNG, JPEG, WebP or TIFF") from error
    except READABLE as error:
        raise DataError(f"{path}: the picture is damaged or incomplete ({error}); save it again, as PNG say") from error
    pixels = np.array(rgba)
    _check_colours(path, pixels)
    return pixels


def _check_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < SMALLEST:
        raise DataError(f"{path}: {width} x {height} pixels are too few; each side needs {SMALLEST}, better some hundred")
    if width * height > LARGEST:
        raise _too_large(path, f"{width} x {height} pixels")


def _too_large(path: Path, size: str) -> DataError:
    limit = LARGEST // 1_000_000
    return DataError(f"{path}: {size}; at most {limit} million are decoded, and {LONGEST} on a side are plenty: reduce it")


def _eight_bits(path: Path, image: Image.Image) -> Image.Image:
    """Any mode as RGBA with 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_levels(path, np.asarray(image)))
    elif image.mode == "LAB":
        raise DataError(f"{path}: colours are stored as LAB; save it as PNG in RGB")
    has_alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    return image.convert("RGBA") if has_alpha else image.convert("RGB").convert("RGBA")


def _levels(path: Path, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of 16 bits or floats as 8 bits; the range tells the scale: up to 1, 255 or 65535."""
    numbers = values.astype(np.float64)
    top = float(numbers.max(initial=0)) if np.isfinite(numbers).all() else np.inf
    if numbers.min(initial=0) < 0 or top > LEVELS_16:
        raise DataError(f"{path}: grey values beyond 0..{LEVELS_16}, or none at all; save it with 8 or 16 bits")
    is_float = values.dtype.kind == "f"
    scale = LEVELS_16 if not is_float or top > 255 else (255 if top > 1 else 1)
    return (numbers / scale * 255 + 0.5).astype(np.uint8)


def _reduced(image: Image.Image) -> Image.Image:
    if max(image.size) > LONGEST:
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return image


def _check_colours(path: Path, rgba: Rgba) -> None:
    alpha = rgba[..., 3]
    visible = rgba[alpha > 0][:, :3]
    if not len(visible):
        raise DataError(f"{path}: all of the picture is transparent; save it with its content visible")
    if (visible == visible[0]).all() and alpha.min() < alpha.max():
        raise DataError(
            f"{path}: the picture is a stencil, one colour with a shape in its alpha; a network needs the object's colours: "
            "save the picture itself, with or without transparency"
        )


def framed(rgba: Rgba, size: int, foreground_ratio: float = 0.825, say: Say = lambda text: None) -> Framed:
    """An object cut out by its alpha: its box fills `foreground_ratio` of a white square of `size` pixels, centred.

    Tells by `say` of an object that touches the picture's edge or has fewer pixels than it is shown with. Raises DataError when
    nothing is visible.
    """
    rows, columns = (np.flatnonzero((rgba[..., 3] >= SEEN).any(axis)) for axis in (1, 0))
    if not len(rows):
        raise DataError("nothing of the picture is visible; remove less of the background")
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    _warn(rgba, (top, bottom, left, right), size * foreground_ratio, say)
    scale = size * foreground_ratio / max(bottom - top, right - left)
    width, height = (max(1, min(size, round(length * scale))) for length in (right - left, bottom - top))
    # Pillow multiplies by alpha before it resizes RGBA and divides afterwards, so hidden colours don't bleed into the edge.
    cut = Image.fromarray(rgba[top:bottom, left:right]).resize((width, height), Image.Resampling.BILINEAR)
    canvas = Image.new("RGBA", (size, size), (255, 255, 255, 0))
    canvas.paste(cut, ((size - width) // 2, (size - height) // 2))
    return _over_white(canvas)


def _warn(rgba: Rgba, box: tuple[int, int, int, int], wanted: float, say: Say) -> None:
    top, bottom, left, right = box
    height, width = rgba.shape[:2]
    is_solid = rgba[..., 3] > 127
    edges = {
        "top": top == 0 and is_solid[0],
        "bottom": bottom == height and is_solid[-1],
        "left": left == 0 and is_solid[:, 0],
        "right": right == width and is_solid[:, -1],
    }
    # A box that fills its picture exactly touches all edges in a point or two; what was cut off touches in a line.
    cut = [name for name, line in edges.items() if np.mean(line) > 0.1]
    if cut:
        say(f"the object touches the {' and '.join(cut)} edge of the picture and may be cut off there; leave some room around it")
    longest = max(bottom - top, right - left)
    if longest < wanted / 2:
        say(f"the object is only {longest} pixels long and is enlarged to {round(wanted)}; a larger picture gives more detail")


def squared(rgba: Rgba, size: int) -> Framed:
    """The middle of a picture as a square of `size` pixels, over white: the condition view of a scene."""
    height, width = rgba.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = Image.fromarray(rgba[top : top + side, left : left + side])
    return _over_white(cut.resize((size, size), Image.Resampling.BILINEAR))


def _over_white(image: Image.Image) -> Framed:
    values = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
    alpha = values[3:]
    return Framed(values[:3] * alpha + 1 - alpha, alpha)
