"""One posed picture as values, read from an image file and brought to a square of the network's size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixtura.errors import DataError
from mixtura_diffusion_gs.frames import Array

Filter = Literal["area", "lanczos", "nearest"]
Square = Literal["crop", "pad"]
WHITE = 255
FILTERS = {"area": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS}


@dataclass(frozen=True, eq=False)
class Picture:
    """What one camera saw.

    `image` uint8 (H, W, 3) over white, `intrinsics` (4,) fx, fy, cx, cy in its pixels, `mask` bool (H, W) where something is
    (None: everywhere), `depth` float32 (H, W) along z in the units of the cameras, 0 where unknown (None: not known at all).
    """

    image: NDArray[np.uint8]
    intrinsics: Array
    mask: NDArray[np.bool_] | None = None
    depth: Array | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]


def read_image(path: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """A picture over white (H, W, 3), and where it is opaque (H, W), None without alpha.

    Raises DataError naming `name` when there is no such file or it can't be decoded.
    """
    try:
        with Image.open(path) as picture:
            if "A" not in picture.getbands() and "transparency" not in picture.info:
                return np.asarray(picture.convert("RGB")), None
            rgba = np.asarray(picture.convert("RGBA"))
    except FileNotFoundError:
        raise DataError(f"{name}: there is no picture {path}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: {path} can't be decoded ({error})") from error
    return over_white(rgba), rgba[..., 3] > 127


def over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA with straight alpha (H, W, 4) over white."""
    alpha = rgba[..., 3:].astype(np.uint16)
    blended = rgba[..., :3] * alpha + WHITE * (255 - alpha)
    return ((blended + 127) // 255).astype(np.uint8)


def read_depth(path: Path, unit: float, name: str) -> Array:
    """A 16-bit depth picture (H, W) in steps of `unit`. Raises DataError when it is missing or something else."""
    try:
        with Image.open(path) as picture:
            steps = np.asarray(picture)
    except FileNotFoundError:
        raise DataError(f"{name}: there is no depth picture {path}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: {path} can't be decoded ({error})") from error
    if steps.ndim != 2 or not np.issubdtype(steps.dtype, np.integer):
        raise DataError(
            f"{name}: {path} must hold one channel of 16-bit depths, it has shape {list(steps.shape)} of {steps.dtype}"
        )
    return steps.astype(np.float32) * np.float32(unit)


# -- to a square --------------------------------------------------------------------------------------------------


def squared(picture: Picture, how: Square) -> Picture:
    """The middle of a picture (crop), or the whole of it with white beside (pad), as a square; intrinsics follow."""
    width, height = picture.size
    if width == height:
        return picture
    side = min(width, height) if how == "crop" else max(width, height)
    left, top = (width - side) // 2, (height - side) // 2  # negative: what is added
    move = np.array([0, 0, left, top])
    arrays = {"image": picture.image, "mask": picture.mask, "depth": picture.depth}
    if how == "crop":
        parts: dict[str, Any] = {k: None if a is None else a[top : top + side, left : left + side] for k, a in arrays.items()}
    else:
        edges = ((-top, side - height + top), (-left, side - width + left))
        parts = {k: None if a is None else _padded(a, edges, WHITE if k == "image" else 0) for k, a in arrays.items()}
    return Picture(intrinsics=picture.intrinsics - move, **parts)


def _padded(array: NDArray[Any], edges: tuple[tuple[int, int], ...], value: int) -> NDArray[Any]:
    return np.pad(array, (*edges, *[(0, 0)] * (array.ndim - 2)), constant_values=value)


def resized(picture: Picture, width: int, height: int, how: Filter, from_corner: bool = False) -> Picture:
    """A picture at another size; depths and masks are never blended. `from_corner`: nearest pixels counted as torch does."""
    old = picture.size
    if old == (width, height):
        return picture
    rows, columns = (_nearest(new, size, from_corner) for new, size in ((height, old[1]), (width, old[0])))

    def picked(array: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if array is None else array[rows[:, None], columns]

    if how == "nearest":
        image = picture.image[rows[:, None], columns]
    else:
        # An area filter repeats pixels when it enlarges, so those pictures are interpolated.
        grows = how == "area" and (width > old[0] or height > old[1])
        chosen = Image.Resampling.BICUBIC if grows else FILTERS[how]
        image = np.asarray(Image.fromarray(picture.image).resize((width, height), chosen))
    factor = np.array([width / old[0], height / old[1]] * 2)
    return replace(
        picture, image=image, intrinsics=picture.intrinsics * factor, mask=picked(picture.mask), depth=picked(picture.depth)
    )


def _nearest(new: int, old: int, from_corner: bool) -> NDArray[np.int64]:
    at = np.arange(new) + (0.0 if from_corner else 0.5)
    return np.minimum((at * old / new).astype(np.int64), old - 1)
