"""What of a picture is the object: from its alpha, from a plain background, by rembg, or by a function of the user's.

`foreground` gives the picture with such an alpha. The method `border` is our own and works offline: it learns the background's
colour, shading included, from the border, and floods from there until colours differ.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mixtura.errors import ConfigError, DataError
from mixtura_diffusion_gs.use.pictures import Rgba, Say

Floats = NDArray[np.float64]
Alpha = NDArray[np.uint8]

LEAST = 0.002
"""Share of the pixels that object and background must have at least."""
BAND = 0.02
"""Width of the border that shows the background, as a share of the shorter side."""
PLAIN = 0.75
"""Share of the border that must have the background's colour."""
ROUNDS = 8
FLAT, NOISY = 3.0, 24.0
"""Distances of colours, on 0..255: any background may differ by the first from its model, none by more than the second."""
DARKEST = 0.75
"""Factor of the deepest shadow that still counts as background."""
VIVID = 60.0
"""Difference of a background's channels from which its colour alone tells it from the object."""
SPECK = 0.005
SOFT = 3
"""Width of the soft edge in pixels, on both sides."""
WEIGHTS = "u2net.onnx"
REMEDY = (
    "cut the object out and save it as PNG with transparency, photograph it in front of a plain background, or name another "
    "`remover`: alpha, border, rembg or module:function"
)


def foreground(rgba: Rgba, remover: str = "auto", say: Say = lambda text: None, name: str = "picture") -> Rgba:
    """A picture whose alpha shows the object only.

    `remover` is "auto" (alpha where it tells something, else border where the border is plain, else rembg where it is installed
    with its weights), "alpha", "border", "rembg", or "module:function" for a function of yours: (H, W, 4) uint8 to (H, W), uint8,
    bool or float in 0..1. Raises DataError when no object is found or nothing but object, ConfigError for a wrong remover.
    """
    method = remover
    if remover == "auto":
        method = _chosen(rgba, name)
        say(f"background removed by: {method}")
    if method == "alpha":
        result = rgba
    elif method == "border":
        result = by_border(rgba, name)
    elif method == "rembg":
        result = with_alpha(rgba, _by_rembg(rgba, name))
    elif ":" in method:
        result = with_alpha(rgba, _by_function(rgba, method, name))
    else:
        raise ConfigError(f"remover '{remover}': expected auto, alpha, border, rembg or module:function")
    share = float((result[..., 3] > 127).mean())
    if share < LEAST:
        raise DataError(f"{name}: no object found ({share:.2%} of the picture are left by '{method}'); {REMEDY}")
    if share > 1 - LEAST:
        raise DataError(f"{name}: no background found, all of the picture counts as the object ('{method}'); {REMEDY}")
    return result


def _chosen(rgba: Rgba, name: str) -> str:
    is_clear = float((rgba[..., 3] < 128).mean())
    if LEAST < is_clear < 1 - LEAST:
        return "alpha"
    if _border_model(rgba) is not None:
        return "border"
    if importlib.util.find_spec("rembg") and _weights().is_file():
        return "rembg"
    raise DataError(f"{name}: no transparency, and a background that isn't plain; {REMEDY}")


def with_alpha(rgba: Rgba, alpha: Alpha) -> Rgba:
    """The same colours with another alpha (H, W), which what was transparent already stays out of."""
    return np.dstack([rgba[..., :3], np.minimum(alpha, rgba[..., 3])])


# -- plain backgrounds --------------------------------------------------------------------------------------------


def by_border(rgba: Rgba, name: str = "picture") -> Rgba:
    """The object in front of a plain background: what can't be flooded from the border.

    Gaps that the object encloses stay with it, unless the background has a vivid colour; specks are dropped. Colours of the soft
    edge are freed of the background's. Raises DataError when the border isn't plain.
    """
    found = _border_model(rgba)
    if found is None:
        raise DataError(f"{name}: the border of the picture has no plain colour; {REMEDY}")
    background, limit = found
    colours = rgba[..., :3].astype(np.float64)
    distance = _distance(colours, background)
    is_alike = ndimage.gaussian_filter(distance, 1.0) < limit
    is_vivid = float(np.ptp(background, axis=-1).mean()) > VIVID
    is_clear = ~_large(~(is_alike if is_vivid else _flooded(is_alike)))
    # The picture's own edge is no edge of the object.
    inner = ndimage.binary_erosion(is_clear, iterations=SOFT, border_value=1)
    near = ndimage.binary_dilation(is_clear, iterations=SOFT) & ~inner
    # In the edge a pixel mixes both colours, so its distance to the background tells how much of it is object.
    full = ndimage.maximum_filter(np.where(is_clear, 0, distance), size=2 * SOFT + 1)
    mixed = np.clip((distance - limit / 2) / np.maximum(full - limit / 2, limit / 2), 0, 1)
    alpha = np.where(near, mixed, np.where(is_clear, 0.0, 1.0))
    colours = np.where(near[..., None], _freed(colours, background, alpha, near | is_clear), colours)
    cut = np.dstack([np.round(colours).astype(np.uint8), rgba[..., 3]])
    return with_alpha(cut, np.round(alpha * 255).astype(np.uint8))


def _freed(colours: Floats, background: Floats, alpha: Floats, is_outside: NDArray[np.bool_]) -> Floats:
    """Colours without the background's share: those of the object's nearest inner pixel, or, in parts too thin to have an inside,
    what is left after the background is taken out."""
    rest = np.clip((colours - (1 - alpha[..., None]) * background) / np.maximum(alpha[..., None], 0.2), 0, 255)
    if is_outside.all():
        return rest
    distance, (i, j) = ndimage.distance_transform_edt(is_outside, return_indices=True)
    freed: Floats = np.where((distance <= 2 * SOFT + 1)[..., None], colours[i, j], rest)
    return freed


def _large(is_object: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the connected parts that hold less than `SPECK` of it."""
    labels, count = ndimage.label(is_object)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = sizes > SPECK * is_object.sum()
    kept[0] = False
    large: NDArray[np.bool_] = kept[labels]
    return large


def _distance(colours: Floats, background: Floats) -> Floats:
    """How far colours are from the background's, on 0..255: the largest channel's difference, soft shadows forgiven.

    A shadow multiplies all channels by the same factor. The best factor between `DARKEST` and 1 is taken out and what it took
    counts a quarter.
    """
    factor = (colours * background).sum(-1) / np.maximum((background**2).sum(-1), 1.0)
    factor = np.clip(factor, DARKEST, 1)[..., None]
    rest = np.abs(colours - factor * background).max(-1)
    distance: Floats = rest + 0.25 * ((1 - factor) * background).max(-1)
    return distance


def _border_model(rgba: Rgba) -> tuple[Floats, float] | None:
    """The background's colour at every pixel (H, W, 3) and the distance up to which a pixel belongs to it; None without one.

    The colour is a quadratic polynomial in the pixel's place, fitted to the border by least squares, again and again with
    less weight on what lies far off (an object that crosses the border).
    """
    height, width = rgba.shape[:2]
    band = max(2, round(BAND * min(height, width)))
    is_border = np.ones((height, width), bool)
    is_border[band:-band, band:-band] = False
    rows, columns = np.nonzero(is_border & (rgba[..., 3] > 127))
    if len(rows) < 16:
        return None
    known = rgba[rows, columns, :3].astype(np.float64)
    places, weight = _terms(rows / height, columns / width), np.ones((len(rows), 1))
    for _ in range(ROUNDS):
        coefficients = np.linalg.lstsq(places * weight, known * weight, rcond=None)[0]
        distance = _distance(known, places @ coefficients)
        weight = 1 / (1 + (distance / max(FLAT, 2 * _spread(distance))) ** 2)[:, None]
    is_plain = distance < NOISY
    if is_plain.mean() < PLAIN:
        return None
    limit = min(NOISY, FLAT + 4 * _spread(distance[is_plain]))
    i, j = np.mgrid[:height, :width]
    background = _terms((i / height).ravel(), (j / width).ravel()) @ coefficients
    return np.clip(background, 0, 255).reshape(height, width, 3), limit


def _terms(i: Floats, j: Floats) -> Floats:
    """The terms (P, 6) of a quadratic polynomial in two coordinates (P,)."""
    return np.stack([np.ones_like(i), i, j, i * i, i * j, j * j], -1)


def _spread(distance: Floats) -> float:
    """A standard deviation that outliers don't change: from the median of distances."""
    return float(1.4826 * np.median(distance))


def _flooded(is_alike: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What can be reached from the picture's border through pixels that are alike."""
    labels, _ = ndimage.label(is_alike)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    reached: NDArray[np.bool_] = np.isin(labels, np.unique(edge[edge > 0]))
    return reached


# -- others' methods ----------------------------------------------------------------------------------------------


def _weights() -> Path:
    """Where rembg keeps its weights."""
    home = os.environ.get("U2NET_HOME") or Path(os.environ.get("XDG_DATA_HOME", "~")) / ".u2net"
    return Path(home).expanduser() / WEIGHTS


def _by_rembg(rgba: Rgba, name: str) -> Alpha:
    try:
        rembg = importlib.import_module("rembg")
    except ImportError as error:
        raise ConfigError(
            f"{name}: remover rembg can't be imported ({error}); pip install 'rembg[cpu]', then fetch its weights with `rembg d "
            "u2net`; or use `remover: border`"
        ) from error
    if not _weights().is_file():
        raise ConfigError(f"{name}: rembg has no weights in {_weights()}, and we don't fetch any; run `rembg d u2net` once")
    mask = rembg.remove(np.ascontiguousarray(rgba[..., :3]), session=rembg.new_session("u2net"), only_mask=True)
    return _checked(mask, rgba, "rembg", name)


def _by_function(rgba: Rgba, path: str, name: str) -> Alpha:
    module, _, attribute = path.partition(":")
    try:
        function: Callable[[Rgba], Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"remover '{path}': can't be imported ({error}); write module:function, and put the module's folder on PYTHONPATH"
        ) from error
    try:
        mask = function(rgba.copy())
    except Exception as error:
        raise DataError(f"{name}: remover '{path}' failed: {type(error).__name__}: {error}") from error
    return _checked(mask, rgba, path, name)


def _checked(mask: Any, rgba: Rgba, remover: str, name: str) -> Alpha:
    """A remover's result as uint8. Raises DataError when it is no alpha of this picture."""
    values = np.asarray(mask)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.shape != rgba.shape[:2]:
        raise DataError(f"{name}: remover '{remover}' gave shape {values.shape}, expected an alpha {rgba.shape[:2]}")
    if values.dtype == np.uint8:
        return values
    is_share = values.dtype.kind in "bf" and np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1
    if not is_share:
        raise DataError(f"{name}: remover '{remover}' gave {values.dtype}; expected uint8, bool, or float in 0..1")
    return np.round(values * 255).astype(np.uint8)
