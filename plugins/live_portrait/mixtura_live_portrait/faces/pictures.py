"""Any picture file as a frame: uint8 (H, W, 3) RGB, the right way up, small enough to work with, with even sides.

Camera rotation (EXIF) is applied, 16 bits and floats become 8, palettes, grey and CMYK become RGB, transparency is laid over
`background` (white unless told otherwise); of an animation the first frame is taken. `fitted` is also what clips go through.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mixtura.errors import DataError
from mixtura_live_portrait.faces.crop import Frame

SMALLEST = 32
"""Pixels that each side must have; a face needs more."""
LARGEST = 100_000_000
"""Pixels of the largest picture that is decoded, against files that unpack to more than memory holds."""
LONGEST = 1280
"""Pixels of the longer side that frames are reduced to, as in the official code."""
MULTIPLE = 2
"""What both sides are cut to a multiple of, for video."""
LEVELS_16 = 65535
WHITE = (255, 255, 255)
READABLE = (OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, IndexError, OverflowError)
"""What Pillow raises about damaged files."""


def read_picture(
    path: Path | bytes, longest: int = LONGEST, multiple: int = MULTIPLE, background: tuple[int, int, int] = WHITE
) -> Frame:
    """A picture file, or its bytes, as a frame of at most `longest` pixels with sides that are multiples of `multiple`.

    Raises DataError for files that are missing, no pictures, damaged, tiny or huge, and for colours that can't be told (LAB).
    """
    name = "the picture" if isinstance(path, bytes) else str(path)
    if isinstance(path, Path) and not path.is_file():
        raise DataError(f"{name}: no such file; give the path of a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; the limit here is its own
            with Image.open(io.BytesIO(path) if isinstance(path, bytes) else path) as opened:
                _check_size(name, *opened.size)
                pixels = np.array(_rgb(name, ImageOps.exif_transpose(opened), background))
    except Image.DecompressionBombError as error:
        raise _too_large(name, "far too many pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not a picture that can be read; save it as PNG, JPEG, WebP or TIFF") from error
    except READABLE as error:
        raise DataError(f"{name}: the picture is damaged or incomplete ({error}); save it again, as PNG say") from error
    return fitted(pixels, longest, multiple)


def _check_size(name: str, width: int, height: int) -> None:
    if min(width, height) < SMALLEST:
        raise DataError(f"{name}: {width} x {height} pixels are too few; each side needs {SMALLEST}, a face better 200")
    if width * height > LARGEST:
        raise _too_large(name, f"{width} x {height} pixels")


def _too_large(name: str, size: str) -> DataError:
    return DataError(
        f"{name}: {size}; at most {LARGEST // 1_000_000} million are decoded: reduce it, {LONGEST} on a side are used"
    )


def _rgb(name: str, image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Any mode as RGB with 8 bits, transparency laid over the background."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_levels(name, np.asarray(image))).convert("RGB")
    if image.mode in ("LAB", "HSV"):
        raise DataError(f"{name}: colours are stored as {image.mode}; save it as PNG in RGB")
    if image.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in image.info:
        return image.convert("RGB")
    visible = image.convert("RGBA")
    below = Image.new("RGBA", visible.size, (*background, 255))
    return Image.alpha_composite(below, visible).convert("RGB")


def _levels(name: str, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of 16 bits or floats as 8 bits; the range tells the scale of floats: up to 1, 255 or 65535."""
    numbers = values.astype(np.float64)
    top = float(numbers.max(initial=0)) if np.isfinite(numbers).all() else np.inf
    if numbers.min(initial=0) < 0 or top > LEVELS_16:
        raise DataError(f"{name}: grey values beyond 0..{LEVELS_16}, or none at all; save it with 8 or 16 bits")
    scale = LEVELS_16 if values.dtype.kind != "f" or top > 255 else (255 if top > 1 else 1)
    return (numbers / scale * 255 + 0.5).astype(np.uint8)


def fitted_size(width: int, height: int, longest: int = LONGEST, multiple: int = MULTIPLE) -> tuple[int, int, int, int]:
    """(width, height) to resize to and (width, height) to cut to afterwards. Pictures are never enlarged."""
    scale = min(1.0, longest / max(width, height)) if longest else 1.0
    wide, high = max(multiple, round(width * scale)), max(multiple, round(height * scale))
    return wide, high, wide - wide % multiple, high - high % multiple


def fitted(frame: Frame, longest: int = LONGEST, multiple: int = MULTIPLE) -> Frame:
    """A frame reduced to `longest` pixels on its longer side (0: as it is), right and bottom cut to multiples of `multiple`."""
    height, width = frame.shape[:2]
    wide, high, cut_wide, cut_high = fitted_size(width, height, longest, multiple)
    if (wide, high) != (width, height):
        frame = np.array(Image.fromarray(frame).resize((wide, high), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(frame[:cut_high, :cut_wide])
