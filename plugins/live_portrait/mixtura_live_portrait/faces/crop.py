"""The upright square of a face: cut out of a frame, and pasted back.

`square` finds it from landmarks; its `to_crop` is the matrix M_o2c that takes points of the frame to points of the crop, its
`to_frame` the way back, M_c2o; `moved` takes landmarks through either. `crop` samples frames, `paste` blends a result into its
frame under `soft_mask`. Matrices (3, 3) act on (x, y, 1) in pixels whose centres lie at +0.5, so that the edge of a picture is
0 and its full width, and a matrix for another side of the crop is the same one scaled.

Pictures are sampled bilinearly; where they shrink, every pixel is the mean of as many samples as it covers pixels, up to
FINEST along a side, so that fine stripes become grey and not moiré. Outside the frame is black.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mixtura.errors import DataError
from mixtura_live_portrait.faces.layouts import Points, axis, layout_of, outline

Frame = NDArray[np.uint8]
"""(H, W, 3) RGB."""
Matrix = NDArray[np.float64]
"""(3, 3), acting on column vectors (x, y, 1)."""

FINEST = 8
"""Samples along each side of a pixel, at most."""
SHORTEST = 1e-3
"""Pixels below which the axis of a face has no direction; then down is down."""


class Framing(NamedTuple):
    """How a square lies around landmarks: its side is `scale` times their square's, its centre moved by vx, vy times the side.

    vx goes along the eyes to the right, vy along the axis down. With `upright` the square turns with the face; without, its
    sides stay parallel to the frame's.
    """

    scale: float
    vx: float = 0.0
    vy: float = 0.0
    upright: bool = True


SOURCE = Framing(2.3, 0.0, -0.125)
DRIVING = Framing(2.2, 0.0, -0.1)
LANDMARKS = Framing(1.5, 0.0, -0.1)
"""What the official landmark model looks at."""


class Square(NamedTuple):
    """A square in a frame: centre and side in pixels, and degrees by which it is turned, clockwise as seen."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    def to_crop(self, side: int) -> Matrix:
        """M_o2c for crops of `side` pixels: frame -> crop."""
        scale, turn = side / self.side, math.radians(self.angle)
        cos, sin = scale * math.cos(turn), scale * math.sin(turn)
        shift_x, shift_y = side / 2 - cos * self.x - sin * self.y, side / 2 + sin * self.x - cos * self.y
        return np.array([[cos, sin, shift_x], [-sin, cos, shift_y], [0, 0, 1]], np.float64)

    def to_frame(self, side: int) -> Matrix:
        """M_c2o for crops of `side` pixels: crop -> frame."""
        return np.asarray(np.linalg.inv(self.to_crop(side)))

    def corners(self) -> Points:
        """(4, 2): its corners in the frame, clockwise from the one that is upper left in the crop."""
        return moved(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32), self.to_frame(1))


def square(landmarks: Points, framing: Framing = SOURCE) -> Square:
    """The square around landmarks (L, 2) in pixels, turned so that the axis from eyes to lips points down.

    Raises DataError for unknown layouts and for landmarks that aren't finite or all coincide.
    """
    layout_of(landmarks)
    if not np.isfinite(landmarks).all():
        raise DataError("landmarks with NaN or infinity in them; give each point a place in pixels")
    points = outline(landmarks).astype(np.float64)
    eyes, lip = axis(landmarks).astype(np.float64)
    length = float(np.linalg.norm(lip - eyes))
    down = (lip - eyes) / length if length > SHORTEST else np.array([0.0, 1.0])
    right = np.array([down[1], -down[0]])
    basis = np.stack([right, down])
    around = points @ basis.T
    low, high = around.min(0), around.max(0)
    side = float((high - low).max()) * framing.scale
    if side < SHORTEST:
        raise DataError(f"landmarks that all lie at {tuple(points[0].tolist())}; give each point its own place in pixels")
    centre = (low + high) / 2 @ basis + right * framing.vx * side + down * framing.vy * side
    angle = math.degrees(math.atan2(right[1], right[0])) if framing.upright else 0.0
    return Square(float(centre[0]), float(centre[1]), side, angle)


def mean_square(squares: list[Square]) -> Square:
    """One square for a clip whose crop shall stand still: mean centre and side, not turned (what is done to driving clips)."""
    if not squares:
        raise DataError("no square to take the mean of; give the landmarks of at least one frame")
    x, y, side, _ = np.mean(np.array(squares, np.float64), 0)
    return Square(float(x), float(y), float(side))


def moved(points: Points, matrix: Matrix) -> Points:
    """Points (..., 2) through a matrix (3, 3), or (..., 1, 3, 3) that fits their leading dimensions."""
    rows = matrix[..., :2, :2]
    return (np.einsum("...ij,...j->...i", rows, points.astype(np.float64)) + matrix[..., :2, 2]).astype(np.float32)


def as_tensor(frames: Frame, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (..., H, W, 3) -> float32 (..., 3, H, W) in 0..1 on `device`."""
    if frames.dtype != np.uint8 or frames.ndim < 3 or frames.shape[-1] != 3:
        raise DataError(f"frames of {frames.dtype} {frames.shape}; expected uint8 (..., height, width, 3), RGB")
    own = np.require(frames, requirements=["C", "W"])  # PyTorch wants memory that may be written to
    return torch.from_numpy(own).to(device).movedim(-1, -3).float() / 255


def as_frames(images: Tensor) -> Frame:
    """float (..., 3, H, W) in 0..1 -> uint8 (..., H, W, 3), clipped and rounded."""
    levels = images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.movedim(-3, -1).cpu().numpy())


def crop(frames: Frame, to_frame: Matrix, side: int, device: torch.device | str = "cpu", finest: int = FINEST) -> Tensor:
    """Squares of frames: uint8 (N, H, W, 3) or (H, W, 3) -> float32 (N, 3, side, side) in 0..1 on `device`.

    to_frame: (N, 3, 3) or (3, 3), M_c2o of each frame for crops of `side` pixels (`Square.to_frame`). One frame with N matrices
    gives N crops of it. `finest` bounds the samples along a side of a pixel; 1 is plain bilinear.
    """
    frames = frames[None] if frames.ndim == 3 else frames
    count = max(len(frames), 1 if to_frame.ndim == 2 else len(to_frame)) if len(frames) else 0
    frames, matrices = np.broadcast_to(frames, (count, *frames.shape[1:])), np.broadcast_to(to_frame, (count, 3, 3))
    crops = [_cut(frame, matrix, side, device, finest) for frame, matrix in zip(frames, matrices, strict=True)]
    return torch.stack(crops) if crops else torch.zeros(0, 3, side, side, device=device)


def _cut(frame: Frame, to_frame: Matrix, side: int, device: torch.device | str, finest: int) -> Tensor:
    """One crop; only the part of the frame that it covers is converted."""
    height, width = frame.shape[:2]
    corners = moved(np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32), to_frame)
    left, top = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, [width - 1, height - 1])
    right, bottom = np.clip(np.ceil(corners.max(0)).astype(int) + 2, [left + 1, top + 1], [width, height])
    shifted = _shift(-left, -top) @ to_frame
    return warp(as_tensor(frame[top:bottom, left:right], device), shifted, (side, side), finest)


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def warp(image: Tensor, to_image: Matrix, size: tuple[int, int], finest: int = FINEST) -> Tensor:
    """image (C, h, w) -> (C, *size): each pixel of the result is taken at `to_image` of its place, black outside."""
    stretch = float(np.linalg.norm(to_image[:2, :2], axis=0).max())
    fine = min(finest, max(1, math.ceil(stretch - 1e-3)))
    height, width = image.shape[-2:]
    # to -1..1 of the image, where grid_sample without aligned corners has the edges
    unit = np.diag([2 / width, 2 / height, 1.0]) @ to_image - np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    rows, columns = ((torch.arange(n * fine, dtype=torch.float32, device=image.device) + 0.5) / fine for n in size)
    (a, b, c), (d, e, f) = unit[:2].tolist()
    grid = torch.stack([(rows * b + c)[:, None] + columns * a, (rows * e + f)[:, None] + columns * d], -1)
    sampled = F.grid_sample(image[None], grid[None], "bilinear", "zeros", align_corners=False)[0]
    return F.avg_pool2d(sampled[None], fine)[0] if fine > 1 else sampled


def soft_mask(side: int, soft: float = 0.2, power: float = 4.0) -> Tensor:
    """What of a crop is pasted back: float32 (side, side) in 0..1, a square with round corners and a soft rim.

    With u, v from -1 to 1 over the crop and r = (|u|^power + |v|^power)^(1/power), the mask is 1 up to r = 1 - soft and falls to
    0 at r = 1, the middles of the edges, along 3t² - 2t³. power 2 is an ellipse, larger ones are squarer.
    """
    if not 0 < soft <= 1 or power <= 0:
        raise DataError(f"soft_mask: soft {soft}, power {power}; expected 0 < soft <= 1 and power > 0")
    line = (torch.arange(side, dtype=torch.float32) + 0.5).mul(2 / side).sub(1).abs() ** power
    radius = (line[:, None] + line) ** (1 / power)
    ramp = ((1 - radius) / soft).clamp(0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def paste(result: Tensor, frame: Frame, to_frame: Matrix, mask: Tensor) -> Frame:
    """A result (3, S, S) in 0..1 blended into its frame (H, W, 3): mask · new + (1 - mask) · old, clipped.

    to_frame: M_c2o for crops of S pixels. mask: (S, S) in 0..1. The frame isn't changed, a new one is returned; outside the
    mask it is the same, bit for bit.
    """
    side = result.shape[-1]
    if tuple(result.shape) != (3, side, side) or tuple(mask.shape) != (side, side):
        raise DataError(
            f"paste: a result of {tuple(result.shape)} with a mask of {tuple(mask.shape)}; expected (3, S, S) and (S, S)"
        )
    blended, (height, width) = frame.copy(), frame.shape[:2]
    corners = moved(np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32), to_frame)
    left, top = np.clip(np.floor(corners.min(0)).astype(int), 0, [width, height])
    right, bottom = np.clip(np.ceil(corners.max(0)).astype(int), 0, [width, height])
    if right <= left or bottom <= top:
        return blended
    to_result = np.linalg.inv(to_frame) @ _shift(left, top)
    layers = torch.cat([result.float().clamp(0, 1) * 255, mask.to(result)[None].float()])
    warped = warp(layers, to_result, (int(bottom - top), int(right - left)))
    # Colours are black outside the crop; where the rim is sampled half outside, the mask is as dark and hides it.
    new, share = warped[:3].movedim(0, -1), warped[3:].movedim(0, -1)
    old = torch.from_numpy(frame[top:bottom, left:right].copy()).to(new).float()
    mixed = (share * new + (1 - share) * old).round().clamp(0, 255).to(torch.uint8)
    blended[top:bottom, left:right] = mixed.cpu().numpy()
    return blended
