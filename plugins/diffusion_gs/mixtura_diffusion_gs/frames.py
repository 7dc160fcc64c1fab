"""World frames: cameras of a file into the frame that the network sees, and checks of what a file says.

All cameras are camera-to-world matrices with OpenCV axes (columns right, down, forward, centre), float64 until the very end.
`object_frame` and `scene_frame` are ours; the `official_` functions give what the published loaders make of the same cameras.
`check_cameras` names what is wrong with cameras before anybody trains on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtura.errors import DataError

Array = NDArray[np.floating[Any]]

RADIUS = 3.0
"""Distance of an object's condition camera from its centre."""
SCENE_MARGIN = 1.35
"""Cameras of a scene are scaled so that their largest coordinate is 1 divided by this."""
ROTATION_TOLERANCE = 1e-3
NEARLY_PARALLEL = 0.01
"""Below this (mean squared sine of angles between optical axes, about 6 degrees) axes meet nowhere."""
LEAST_FOCAL = 0.05
"""Of a picture's size: a shorter focal length means other units (it would see 168 degrees)."""
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


# -- conventions --------------------------------------------------------------------------------------------------


def from_opengl(c2w: Array) -> Array:
    """Cameras (..., 4, 4) with OpenGL axes (x right, y up, z backward) with OpenCV axes; the other way round as well."""
    turned: Array = np.asarray(c2w, np.float64) @ FLIP
    return turned


def inverse(pose: Array) -> Array:
    """The inverse of rigid maps (..., 4, 4)."""
    inverted = np.zeros_like(pose)
    inverted[..., :3, :3] = np.swapaxes(pose[..., :3, :3], -1, -2)
    inverted[..., :3, 3:] = -inverted[..., :3, :3] @ pose[..., :3, 3:]
    inverted[..., 3, 3] = 1
    return inverted


# -- checks -------------------------------------------------------------------------------------------------------


def check_cameras(c2w: Array, intrinsics: Array, width: int, height: int, where: str | Sequence[str]) -> None:
    """Raise DataError naming the first camera that can't be one.

    `c2w` (V, 4, 4), `intrinsics` (V, 4) in pixels of `width` x `height` pictures; `where` names the file, or each camera.
    """
    names = [f"{where}: frame {number}" for number in range(len(c2w))] if isinstance(where, str) else list(where)
    for name, pose, (fx, fy, cx, cy) in zip(names, c2w, intrinsics, strict=True):
        check_pose(pose, name)
        if not np.isfinite([fx, fy, cx, cy]).all() or min(fx, fy) <= 0:
            raise DataError(
                f"{name}: focal lengths {fx:g} and {fy:g}, principal point {cx:g}, {cy:g}: all must be finite, focals above 0"
            )
        if min(fx / width, fy / height) < LEAST_FOCAL:
            raise DataError(
                f"{name}: focal lengths {fx:g} and {fy:g} for a picture of {width} x {height} pixels: mismatched intrinsics; "
                "give them in pixels of this size, not as parts of it"
            )
        if not (0 < cx < width and 0 < cy < height):
            raise DataError(
                f"{name}: principal point {cx:g}, {cy:g} lies outside the picture of {width} x {height} pixels; "
                "mismatched intrinsics: give them in pixels of this size"
            )


def check_pose(pose: Array, name: str) -> None:
    """Raise DataError when a camera (4, 4) isn't a turn and a shift in a right-handed world."""
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise DataError(f"{name}: camera-to-world must be 4 x 4 finite numbers, got shape {list(pose.shape)} {_broken(pose)}")
    axes = pose[:3, :3]
    error = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if error > ROTATION_TOLERANCE:
        raise DataError(
            f"{name}: the camera's axes are not orthonormal (off by {error:.2g}, up to {ROTATION_TOLERANCE:g} is fine); "
            "take scale and shear out of the rotation"
        )
    if np.linalg.det(axes) < 0:
        raise DataError(
            f"{name}: the camera's axes are mirrored (determinant -1); a right-handed world is needed, so swap or negate an axis"
        )


def _broken(pose: Array) -> str:
    return "" if np.isfinite(pose).all() else "with NaN or infinity"


def check_size(told: tuple[int, int], found: tuple[int, int], name: str) -> None:
    """Raise DataError when intrinsics for pictures of one width and height come with a picture of another."""
    if told != found:
        raise DataError(
            f"{name}: mismatched intrinsics: they are given for {told[0]} x {told[1]} pixels, the picture has "
            f"{found[0]} x {found[1]}; scale them, or correct w and h"
        )


# -- where cameras look -------------------------------------------------------------------------------------------


def meeting_point(c2w: Array) -> Array | None:
    """The point (3,) nearest to all optical axes of cameras (V, 4, 4); None where they look the same way or away from it."""
    centres, forward = c2w[:, :3, 3], c2w[:, :3, 2]
    across = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    total = across.mean(0)
    if np.linalg.eigvalsh(total)[0] < NEARLY_PARALLEL:
        return None
    point: Array = np.linalg.solve(total, np.einsum("vij,vj->i", across, centres) / len(c2w))
    return point if np.einsum("vi,vi->v", point - centres, forward).mean() > 0 else None


# -- our frames ---------------------------------------------------------------------------------------------------


def object_frame(c2w: Array, radius: float = RADIUS, centre: Array | None = None) -> tuple[Array, float]:
    """Cameras (V, 4, 4) of a world with z up, turned about z and scaled; and the factor on lengths.

    Camera 0, the condition, comes to azimuth 0 (on the -y side) at `radius` from the origin; elevation and roll stay.
    `centre` (3,) moves to the origin first. Raises DataError when camera 0 stands there.
    """
    moved = np.array(c2w, np.float64)
    if centre is not None:
        moved[:, :3, 3] -= centre
    distance = float(np.linalg.norm(moved[0, :3, 3]))
    if distance < 1e-9:
        raise DataError("the condition camera stands at the object's centre; the object must lie around the origin")
    x, y = moved[0, :2, 3]
    if np.hypot(x, y) < 1e-6 * distance:  # straight above or below: what is right in its picture comes to +x
        x, y = moved[0, 1, 0], -moved[0, 0, 0]
    turn = np.eye(4)
    turn[:2, :2] = np.array([[-y, x], [-x, -y]]) / np.hypot(x, y)
    turned: Array = turn @ moved
    turned[:, :3, 3] *= radius / distance
    return turned, radius / distance


def scene_frame(c2w: Array, used: int | None = None, scale: float | None = None) -> tuple[Array, float]:
    """Cameras (V, 4, 4) seen from the mean of the first `used` (all when None), and the factor on lengths.

    The factor is `scale`, or makes the largest coordinate of those cameras 1 / 1.35. Raises DataError when they have no mean
    direction, or all stand in one place and no scale is given.
    """
    poses = np.asarray(c2w, np.float64)
    moved = inverse(_mean_camera(poses[:used])) @ poses
    if scale is None:
        reach = float(np.abs(moved[:used, :3, 3]).max())
        if reach < 1e-9:
            raise DataError("all cameras of the network stand in one place, so they tell no size of the scene; give `scale`")
        scale = 1 / (SCENE_MARGIN * reach)
    moved[:, :3, 3] *= scale
    return moved, scale


def _mean_camera(poses: Array) -> Array:
    forward, down = poses[:, :3, 2].mean(0), poses[:, :3, 1].mean(0)
    right = np.cross(down, forward)
    if min(np.linalg.norm(forward), np.linalg.norm(right)) < 1e-6:
        raise DataError("the cameras look in opposite directions and have no mean; take views that look more alike")
    mean = np.eye(4)
    forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
    mean[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    mean[:3, 3] = poses[:, :3, 3].mean(0)
    return mean


# -- the published frames -----------------------------------------------------------------------------------------


def official_object_frame(c2w: Array, radius: float = RADIUS) -> tuple[Array, float]:
    """What the published object loader makes of selected cameras (V, 4, 4) of a z-up world: cameras and the factor on depths.

    Cameras are rebuilt looking at the origin without roll, azimuths count from camera 0, the LAST camera gets the radius, and the
    world is mirrored (determinant -1): camera 0 stands on the +y side.
    """
    poses = np.asarray(c2w, np.float64)
    rebuilt = np.stack([_upright(pose[:3, 3]) for pose in poses])
    turned, _ = object_frame(rebuilt)
    distances = np.linalg.norm(poses[:, :3, 3], axis=1)
    scale = float(radius / distances[-1])
    turned[:, :3, 3] *= (distances * scale / np.linalg.norm(turned[:, :3, 3], axis=1))[:, None]
    mirrored: Array = np.diag([1.0, -1.0, 1.0, 1.0]) @ turned
    return mirrored, scale


def official_scene_frame(c2w: Array) -> Array:
    """What the published scene loader makes of cameras (V, 4, 4): the frame and size of all of them."""
    return scene_frame(c2w)[0]


def _upright(eye: Array) -> Array:
    """A camera (4, 4) at `eye` that looks at the origin, z up in its picture."""
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right) if np.linalg.norm(right) > 1e-9 else np.array([1.0, 0.0, 0.0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = eye
    return pose
