"""Cameras as the network and the rasteriser take them: rays, matrices, orbits.

OpenCV axes: the columns of `c2w` (..., 4, 4) are right, down, forward and the centre. `intrinsics` (..., 4) are fx, fy, cx, cy in
pixels; the centre of the pixel in row i and column j lies at (j + 0.5, i + 0.5). Leading axes are free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def rays(c2w: Tensor, intrinsics: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where the rays of all pixels start and their unit directions, both (..., 3, H, W) in world axes."""
    fx, fy, cx, cy = (value[..., None, None] for value in intrinsics.unbind(-1))
    column = torch.arange(width, dtype=c2w.dtype, device=c2w.device) + 0.5
    row = torch.arange(height, dtype=c2w.dtype, device=c2w.device)[:, None] + 0.5
    x = ((column - cx) / fx).expand(*fx.shape[:-2], height, width)
    y = ((row - cy) / fy).expand(*fx.shape[:-2], height, width)
    # products of matrices would be rounded to half precision under autocast
    right, down, forward = (axis[..., None, None] for axis in c2w[..., :3, :3].unbind(-1))
    directions = right * x[..., None, :, :] + down * y[..., None, :, :] + forward
    # not norm(): it is slow across a dimension that isn't the last
    directions = directions / directions.square().sum(-3, keepdim=True).sqrt()
    origins = c2w[..., :3, 3, None, None].expand_as(directions)
    return origins, directions


def nearest(origins: Tensor, directions: Tensor) -> Tensor:
    """Signed distance (..., 1, H, W) along each ray to its point nearest to the world's origin: k = -(o . d)."""
    return -(origins * directions).sum(-3, keepdim=True)


def viewmats(c2w: Tensor) -> Tensor:
    """World to camera (..., 4, 4): the inverse of a rigid `c2w`, mirrored worlds (determinant -1) included."""
    turned = c2w[..., :3, :3].transpose(-1, -2)
    moved = -(turned * c2w[..., None, :3, 3]).sum(-1, keepdim=True)
    last = torch.zeros_like(c2w[..., 3:, :])
    last[..., 3] = 1
    return torch.cat([torch.cat([turned, moved], -1), last], -2)


def matrices(intrinsics: Tensor) -> Tensor:
    """fx, fy, cx, cy (..., 4) as matrices (..., 3, 3)."""
    fx, fy, cx, cy = intrinsics.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], -1).unflatten(-1, (3, 3))


def pinhole(fov: float, size: int) -> Tensor:
    """fx, fy, cx, cy (4,) of a square picture of `size` pixels that sees `fov` degrees."""
    focal = size / 2 / math.tan(math.radians(fov) / 2)
    return torch.tensor([focal, focal, size / 2, size / 2])


def orbit(azimuths: Sequence[float], elevations: Sequence[float], radius: float, fov: float, size: int) -> tuple[Tensor, Tensor]:
    """Cameras around the origin that look at it, z up: c2w (V, 4, 4) and intrinsics (V, 4).

    Angles in degrees, elevations between -90 and 90 without these. Azimuth 0 stands on the -y side and looks along +y; azimuths
    grow counter-clockwise seen from +z.
    """
    turn, rise = torch.tensor(azimuths, dtype=torch.float64).deg2rad(), torch.tensor(elevations, dtype=torch.float64).deg2rad()
    sin, cos = turn.sin(), turn.cos()
    right = torch.stack([cos, sin, torch.zeros_like(sin)], -1)
    forward = torch.stack([-sin * rise.cos(), cos * rise.cos(), -rise.sin()], -1)
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(turn), 1, 1)
    c2w[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], -1)
    c2w[:, :3, 3] = -radius * forward
    return c2w.float(), pinhole(fov, size).repeat(len(turn), 1)


def mirrored(c2w: Tensor) -> Tensor:
    """Cameras (..., 4, 4) in a world whose y points the other way, which mirrors it; its own inverse.

    The published object frame is our object frame seen in this mirror: z up, the condition camera on the +y side.
    """
    return c2w * c2w.new_tensor([1, -1, 1, 1])[:, None]
