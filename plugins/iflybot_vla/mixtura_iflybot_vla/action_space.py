"""Actions and states as the published checkpoints read them: arms, normalisation, relative poses (sheet section 9).

A pose arm has 8 channels: xyz, unit quaternion xyzw, gripper. A joint arm has 7 joints and a gripper. Arms are padded to 10
channels each, two arms make the unified width 20. `delta` (LIBERO) pads its 7 channels without arms. Poses of several arms
keep the arms on axis 2: (B, T, arms, 8). All functions take and give NumPy arrays, float64 inside.
"""

from __future__ import annotations

import numpy as np

from mixtura.errors import DataError

ARM_WIDTH, WIDTH, POSE = 10, 20, 8
CLIP, EPS = 1.5, 1e-8
XYZ, ROTATION, GRIPPER = slice(0, 3), slice(3, 7), 7
LIBERO_STATE, LIBERO_ZERO, LIBERO_ACTION = 8, 6, 7
"""LIBERO: position, axis-angle, two fingers; a zero goes in before the fingers; 6 deltas and a gripper."""


# -- normalisation and padding --------------------------------------------------------------------------------
def normalise(values: np.ndarray, low: np.ndarray, high: np.ndarray, raw: np.ndarray | None = None) -> np.ndarray:
    """2 (x - low) / (high - low + 1e-8) - 1, clipped to +-1.5; channels of the mask `raw` stay; constant ones give 0."""
    scaled = np.clip(2 * (values - low) / (high - low + EPS) - 1, -CLIP, CLIP)
    scaled = np.where(high == low, 0.0, scaled)
    return scaled if raw is None else np.where(raw, values, scaled)


def denormalise(values: np.ndarray, low: np.ndarray, high: np.ndarray, raw: np.ndarray | None = None) -> np.ndarray:
    """The inverse of `normalise` inside the clip."""
    restored = (values + 1) / 2 * (high - low + EPS) + low
    return restored if raw is None else np.where(raw, values, restored)


def rotation_channels(arms: int = 1) -> np.ndarray:
    """Mask of the quaternion channels of `arms` pose arms."""
    arm = np.zeros(POSE, bool)
    arm[ROTATION] = True
    return np.tile(arm, arms)


def pad_arms(values: np.ndarray, arms: int = 1) -> np.ndarray:
    """(..., arms * n) to (..., 20): every arm to 10 channels, a single arm on the left."""
    if values.shape[-1] % arms or values.shape[-1] // arms > ARM_WIDTH or arms * ARM_WIDTH > WIDTH:
        raise DataError(f"{values.shape[-1]} channels given; {arms} arms need an equal number each, at most {ARM_WIDTH}")
    padded = np.zeros((*values.shape[:-1], WIDTH))
    each = values.shape[-1] // arms
    for arm in range(arms):
        padded[..., arm * ARM_WIDTH : arm * ARM_WIDTH + each] = values[..., arm * each : (arm + 1) * each]
    return padded


def unpad_arms(values: np.ndarray, each: int, arms: int = 1) -> np.ndarray:
    """(..., 20) to (..., arms * each), the inverse of `pad_arms`."""
    return np.concatenate([values[..., arm * ARM_WIDTH : arm * ARM_WIDTH + each] for arm in range(arms)], -1)


# -- rotations ---------------------------------------------------------------------------------------------------
def unit(quaternion: np.ndarray) -> np.ndarray:
    """A quaternion of length 1; a zero one becomes the identity."""
    length = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    identity = np.array([0.0, 0.0, 0.0, 1.0])
    return np.where(length > 0, quaternion / np.where(length > 0, length, 1.0), identity)


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of quaternions xyzw: first b, then a."""
    ax, ay, az, aw = np.moveaxis(a, -1, 0)
    bx, by, bz, bw = np.moveaxis(b, -1, 0)
    x = aw * bx + ax * bw + ay * bz - az * by
    y = aw * by - ax * bz + ay * bw + az * bx
    z = aw * bz + ax * by - ay * bx + az * bw
    return np.stack([x, y, z, aw * bw - ax * bx - ay * by - az * bz], -1)


def invert(quaternion: np.ndarray) -> np.ndarray:
    """The inverse rotation of a unit quaternion xyzw."""
    return quaternion * np.array([-1.0, -1.0, -1.0, 1.0])


def canonical(quaternion: np.ndarray) -> np.ndarray:
    """The one of q and -q whose largest component is positive, as conversion from a rotation matrix gives it."""
    largest = np.take_along_axis(quaternion, np.abs(quaternion).argmax(-1)[..., None], -1)
    return np.where(largest < 0, -quaternion, quaternion)


def turn(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) rotated by unit quaternions xyzw (..., 4)."""
    axis, real = quaternion[..., :3], quaternion[..., 3:]
    twice = 2 * np.cross(axis, vector)
    return vector + real * twice + np.cross(axis, twice)


def slerp(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4) at `share` (...,) of the shorter way from a to b."""
    dot = (a * b).sum(-1, keepdims=True)
    b, dot = np.where(dot < 0, -b, b), np.abs(dot)
    angle = np.arccos(np.clip(dot, -1, 1))
    near, s = np.sin(angle) < 1e-6, share[..., None]
    divisor = np.where(near, 1.0, np.sin(angle))
    left = np.where(near, 1 - s, np.sin((1 - s) * angle) / divisor)
    right = np.where(near, s, np.sin(s * angle) / divisor)
    return unit(left * a + right * b)


def rotation_6d(quaternion: np.ndarray) -> np.ndarray:
    """The first two columns of the rotation matrix, row by row (..., 6), of unit quaternions xyzw."""
    columns = [turn(quaternion, np.broadcast_to(axis, (*quaternion.shape[:-1], 3))) for axis in np.eye(3)[:2]]
    return np.stack(columns, -1).reshape(*quaternion.shape[:-1], 6)


# -- relative poses ------------------------------------------------------------------------------------------------
def relative_pose(pose: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`pose` (..., 8) seen from `reference` (..., 8): inverse(reference) * pose; the gripper stays as it is."""
    back = invert(unit(reference[..., ROTATION]))
    moved = turn(back, pose[..., XYZ] - reference[..., XYZ])
    turned = canonical(multiply(back, unit(pose[..., ROTATION])))
    return np.concatenate([moved, turned, pose[..., GRIPPER:]], -1)


def absolute_pose(relative: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """reference * relative, the inverse of `relative_pose`."""
    there = unit(reference[..., ROTATION])
    moved = reference[..., XYZ] + turn(there, relative[..., XYZ])
    turned = canonical(multiply(there, unit(relative[..., ROTATION])))
    return np.concatenate([moved, turned, relative[..., GRIPPER:]], -1)


def relative_chunk(poses: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Chunks (B, T, arms, 8) relative to each arm's own current pose (B, arms, 8)."""
    return relative_pose(poses, _current(poses, current))


def absolute_chunk(chunk: np.ndarray, current: np.ndarray) -> np.ndarray:
    """The inverse of `relative_chunk`: every arm is composed with its own current pose."""
    return absolute_pose(chunk, _current(chunk, current))


def _current(chunk: np.ndarray, current: np.ndarray) -> np.ndarray:
    if chunk.ndim != 4 or chunk.shape[-1] != POSE or current.shape != (len(chunk), chunk.shape[2], POSE):
        raise DataError(
            f"chunk {chunk.shape} and current pose {current.shape} given; expected (B, T, arms, {POSE}) and (B, arms, {POSE})"
        )
    return current[:, None]


# -- chunks --------------------------------------------------------------------------------------------------------
def resample(window: np.ndarray, steps: int, floor: tuple[int, ...] = (), rotation: slice | None = None) -> np.ndarray:
    """A window (W + 1, D) from the current step on to `steps` future steps, linear in the index; the current is dropped.

    Channels of `floor` take the value at the index below, those of `rotation` (a quaternion) go along the shorter arc.
    """
    places = np.linspace(0, len(window) - 1, steps + 1)[1:]
    below = np.minimum(np.floor(places).astype(int), len(window) - 1)
    above, share = np.minimum(below + 1, len(window) - 1), places - below
    made = window[below] * (1 - share[:, None]) + window[above] * share[:, None]
    made[:, list(floor)] = window[below][:, list(floor)]
    if rotation is not None:
        made[:, rotation] = slerp(unit(window[below][:, rotation]), unit(window[above][:, rotation]), share)
    return made


# -- what a robot is told --------------------------------------------------------------------------------------------
def pose_command(raw: np.ndarray, low: np.ndarray, high: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Network output (T, 20) to absolute poses (T, 8): xyz, quaternion **wxyz**, gripper 0 or 1.

    `low`, `high` (8,) are the action statistics, `current` (8,) the pose that the chunk is relative to.
    """
    chunk = denormalise(raw[..., :POSE], low, high, rotation_channels())
    pose = absolute_pose(chunk, np.broadcast_to(current, chunk.shape))
    grip = (pose[..., GRIPPER:] > 0.5).astype(np.float64)
    return np.concatenate([pose[..., XYZ], pose[..., [6, 3, 4, 5]], grip], -1)


def joint_command(raw: np.ndarray, low: np.ndarray, high: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Network output (T, 20) to absolute joints (T, 8): 7 joints added to the current ones, gripper as it is."""
    chunk = denormalise(raw[..., :POSE], low, high)
    chunk[..., :GRIPPER] += current[:GRIPPER]
    return chunk


def libero_command(raw: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Network output (T, 20) to LIBERO actions (T, 7): six deltas, gripper sign(1 - 2 g)."""
    chunk = denormalise(raw[..., :LIBERO_ACTION], low, high)
    chunk[..., -1] = np.sign(1 - 2 * chunk[..., -1])
    return chunk


def libero_state(state: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """LIBERO state (..., 8) to the normalised 20 channels; the zero put in before the fingers stays zero."""
    if state.shape[-1] != LIBERO_STATE:
        raise DataError(
            f"a LIBERO state has {LIBERO_STATE} channels (position, axis-angle, two fingers), {state.shape[-1]} given"
        )
    wide = np.insert(state, LIBERO_ZERO, 0.0, axis=-1)
    raw = np.arange(wide.shape[-1]) == LIBERO_ZERO
    padded = np.zeros((*state.shape[:-1], WIDTH))
    padded[..., : wide.shape[-1]] = normalise(wide, low, high, raw)
    return padded


def pose_state(state: np.ndarray, low: np.ndarray, high: np.ndarray, arms: int = 1) -> np.ndarray:
    """Pose state (..., arms * 8) to the normalised 20 channels; quaternions stay as they are."""
    return pad_arms(normalise(state, low, high, rotation_channels(arms)), arms)
