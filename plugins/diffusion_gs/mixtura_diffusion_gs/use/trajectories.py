"""The cameras of a generation: around an object, along a path through a scene, or from a user's file.

Camera 0 is the condition, the view that the picture shows; the others are views to generate. Objects have cameras in our object
frame (z up, condition at azimuth 0), scenes in the scene frame of the training data (mean camera, scaled).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixtura.errors import DataError
from mixtura_diffusion_gs.cameras import orbit, pinhole
from mixtura_diffusion_gs.frames import check_cameras, scene_frame
from mixtura_diffusion_gs.use.pictures import Say

Floats = NDArray[np.floating[Any]]
Route = Literal["forward", "sideways", "arc"]

ARC = 30.0
"""Degrees from the first camera of an arc to the last."""
FORMAT = '{"c2w": [[4 x 4], ...], "fxfycxcy": [[fx, fy, cx, cy], ...], "size": pixels that these belong to}'


class Cameras(NamedTuple):
    """Cameras with OpenCV axes, float32."""

    c2w: Tensor
    """(N, 4, 4)."""
    intrinsics: Tensor
    """(N, 4): fx, fy, cx, cy in pixels."""


def object_cameras(views: int, elevation: float, radius: float, fov: float, size: int) -> Cameras:
    """The condition at azimuth 0 and the other views at equal steps around the object, all at one elevation in degrees."""
    azimuths = [360 * view / views for view in range(views)]
    return Cameras(*orbit(azimuths, [elevation] * views, radius, fov, size))


def scene_cameras(views: int, route: Route, fov: float, size: int) -> Cameras:
    """A short way that starts at the condition: forward, sideways (to the right), or an arc around what lies ahead.

    How far it goes tells nothing: the frame of scenes scales every path to the same size.
    """
    steps = np.linspace(0, 1, views)
    c2w = np.tile(np.eye(4), (views, 1, 1))
    if route == "forward":
        c2w[:, 2, 3] = steps
    elif route == "sideways":
        c2w[:, 0, 3] = steps
    else:
        turn = np.deg2rad(ARC) * steps
        sin, cos = np.sin(turn), np.cos(turn)
        c2w[:, :3, 0] = np.stack([cos, 0 * turn, sin], -1)
        c2w[:, :3, 2] = np.stack([-sin, 0 * turn, cos], -1)
        c2w[:, :3, 3] = np.stack([sin, 0 * turn, 1 - cos], -1)
    framed, _ = scene_frame(c2w)
    return Cameras(torch.from_numpy(framed).float(), pinhole(fov, size).repeat(views, 1))


def read_cameras(path: Path, kind: str, radius: float, size: int, say: Say = lambda text: None) -> Cameras:
    """Cameras of a JSON file, camera 0 the condition; intrinsics scaled to pictures of `size` pixels.

    Scenes are brought into the scene frame. Objects must be in the object frame already; `say` tells when the condition isn't
    where the network knows it. Raises DataError for files and cameras that are wrong.
    """
    values = _read(path)
    c2w = _array(path, values, "c2w", (4, 4))
    intrinsics = _array(path, values, "fxfycxcy", (4,))
    given = values.get("size")
    if isinstance(given, bool) or not isinstance(given, int | float) or given <= 0:
        raise DataError(f"{path}: size must be the pixels that fxfycxcy belong to, not {given!r}; expected {FORMAT}")
    if len(intrinsics) == 1:
        intrinsics = np.repeat(intrinsics, len(c2w), 0)
    if len(intrinsics) != len(c2w) or len(c2w) < 2:
        raise DataError(
            f"{path}: {len(c2w)} cameras and {len(intrinsics)} rows of fxfycxcy; expected two cameras or more (the condition "
            "first) and a row for each, or one for all"
        )
    check_cameras(c2w, intrinsics, round(given), round(given), str(path))
    if kind == "scene":
        c2w, _ = scene_frame(c2w)
    else:
        _check_condition(path, c2w[0], radius, say)
    return Cameras(torch.from_numpy(c2w).float(), torch.from_numpy(intrinsics * (size / given)).float())


def _check_condition(path: Path, c2w: Floats, radius: float, say: Say) -> None:
    centre = c2w[:3, 3]
    distance = float(np.linalg.norm(centre))
    azimuth = float(np.rad2deg(np.arctan2(centre[0], -centre[1])))
    if abs(distance - radius) > 0.1 * radius or abs(azimuth) > 10:
        say(
            f"{path}: the condition camera stands at azimuth {azimuth:.0f} degrees, {distance:.2f} from the origin; the network "
            f"knows it at azimuth 0 (the -y side) and {radius:g}, so expect a poor result"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cameras can't be read ({error}); expected {FORMAT}") from error
    if not isinstance(values, dict) or not {"c2w", "fxfycxcy", "size"} >= set(values) or "c2w" not in values:
        raise DataError(f"{path}: expected {FORMAT}")
    return values


def _array(path: Path, values: dict[str, Any], name: str, item: tuple[int, ...]) -> Floats:
    """A list of items of one shape; a single item counts as a list of one."""
    try:
        array = np.asarray(values.get(name), np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {name} must be numbers in lists of one length ({error}); expected {FORMAT}") from error
    if array.shape == item:
        array = array[None]
    if array.ndim != len(item) + 1 or array.shape[1:] != item:
        raise DataError(f"{path}: {name} has shape {list(array.shape)}, expected N x {' x '.join(map(str, item))}: {FORMAT}")
    return array


def interpolated(cameras: Cameras, count: int) -> Cameras:
    """`count` cameras on the way along all of `cameras` and back: turns by spherical interpolation, the rest straight."""
    last = len(cameras.c2w) - 1
    # A triangle wave without its end point, so that the clip can be played again and again.
    places = last * (1 - (torch.arange(count, dtype=torch.float64) * 2 / count - 1).abs())
    first = places.floor().long().clamp(max=max(last - 1, 0))
    share = (places - first)[:, None]
    second = (first + 1).clamp(max=last)
    turns = _quaternions(cameras.c2w[:, :3, :3].double())
    c2w = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    c2w[:, :3, :3] = _rotations(_slerp(turns[first], turns[second], share))
    centres = cameras.c2w[:, :3, 3].double()
    c2w[:, :3, 3] = torch.lerp(centres[first], centres[second], share)
    lenses = cameras.intrinsics.double()
    return Cameras(c2w.float(), torch.lerp(lenses[first], lenses[second], share).float())


def _slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Unit quaternions (V, 4) between two others, the short way; share (V, 1) in 0..1."""
    cos = (start * end).sum(-1, keepdim=True)
    end, cos = torch.where(cos < 0, -end, end), cos.abs().clamp(max=1)
    angle = cos.acos()
    straight = torch.lerp(start, end, share)
    turned = (((1 - share) * angle).sin() * start + (share * angle).sin() * end) / angle.sin().clamp(min=1e-12)
    mixed = torch.where(angle < 1e-6, straight, turned)
    unit: Tensor = mixed / mixed.norm(dim=-1, keepdim=True)
    return unit


def _quaternions(rotations: Tensor) -> Tensor:
    """w, x, y, z (V, 4) of rotations (V, 3, 3): the eigenvector of largest eigenvalue of Bar-Itzhack's matrix."""
    r = rotations
    k = torch.zeros(len(r), 4, 4, dtype=r.dtype)
    k[:, 0, 0] = r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2]
    for i, (row, column) in enumerate(((2, 1), (0, 2), (1, 0)), 1):
        k[:, 0, i] = k[:, i, 0] = r[:, row, column] - r[:, column, row]
    k[:, 1:, 1:] = r + r.transpose(1, 2) - k[:, :1, :1] * torch.eye(3, dtype=r.dtype)
    largest: Tensor = torch.linalg.eigh(k / 3).eigenvectors[..., -1]
    return largest


def _rotations(quaternions: Tensor) -> Tensor:
    """Rotations (V, 3, 3) of unit quaternions (V, 4)."""
    w, x, y, z = quaternions.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)
