"""Terms that look at keypoints: equivariance, prior, pose, deformation, landmark guidance and its gaps (paper, section 3.2).

Keypoints (b, k, 3), x right, y down, z into the picture, x and y -1 to 1 over the picture. Every function gives one value for an
item, or a sum with its count; unknown labels are NaN and give neither.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mixtura.rng import SampleNoise
from mixtura_live_portrait.config import EquivarianceConfig, PriorConfig, WingConfig
from mixtura_live_portrait.faces.layouts import GAPS, SPANS


class Warp(NamedTuple):
    """A random smooth map of the plane, one for each item (FOMM, section 3.1): affine, plus a thin-plate spline.

    The picture that it makes has at a place p what the given one has at `points(p)`.
    """

    affine: Tensor
    bend: Tensor
    centres: Tensor

    @staticmethod
    def drawn(noise: SampleNoise, config: EquivarianceConfig) -> Warp:
        """From the noise called `warp`: affine (b, 2, 3), weights of the spline (b, 2, n), its centres (n, 2)."""
        line = torch.linspace(-1, 1, config.points, device=noise.device)
        centres = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).flatten(0, 1)
        affine = torch.eye(2, 3, device=noise.device) + config.affine * noise.normal("warp", 2, 3)
        return Warp(affine, config.bend * noise.normal("warp bend", 2, len(centres)), centres)

    def points(self, places: Tensor) -> Tensor:
        """Places (b, n, 2), or (1, n, 2) for the same in all items -> where the maps take them (b, n, 2)."""
        squared = (places[:, :, None] - self.centres).square().sum(-1)
        plate = squared * (squared + 1e-12).log() / 2  # r² log r
        moved = places @ self.affine[:, :, :2].mT + self.affine[:, None, :, 2]
        return moved + plate @ self.bend.mT

    def picture(self, pictures: Tensor) -> Tensor:
        """Pictures (b, c, h, w) under the map; beyond the border they are mirrored."""
        height, width = pictures.shape[-2:]
        rows, columns = ((torch.arange(n, device=pictures.device) + 0.5) * (2 / n) - 1 for n in (height, width))
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).flatten(0, 1)
        taken = self.points(grid[None]).unflatten(1, (height, width))
        return F.grid_sample(pictures, taken.to(pictures.dtype), "bilinear", "reflection", align_corners=False)


def equivariance(x: Tensor, x_warped: Tensor, warp: Warp) -> Tensor:
    """How far keypoints of a warped picture, taken back by the warp, are from those of the picture (b,); x and y only."""
    return (x[..., :2] - warp.points(x_warped[..., :2])).abs().flatten(1).mean(1)


def prior(x: Tensor, config: PriorConfig, guided: int) -> Tensor:
    """Keypoints shall keep their distance, and their mean depth (face-vid2vid, section A.2): (b,).

    The sum over pairs of max(0, D - |x_i - x_j|²), for each keypoint, plus |mean z - depth|. Pairs of which both are guided by
    landmarks are left out: where those are is known, and lids lie close together.
    """
    squared = (x[:, :, None] - x[:, None]).square().sum(-1)
    pairs = 1 - torch.eye(x.shape[1], device=x.device)
    pairs[:guided, :guided] = 0
    crowd = ((config.distance - squared).clamp(min=0) * pairs).sum((1, 2)) / x.shape[1]
    return crowd + (x[..., 2].mean(1) - config.depth).abs()


def pose(found: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Mean error in radians of three angles (b, f, 3) in degrees: summed over those with a known pose, and their number; (b,)."""
    is_known = true.isfinite().all(-1)
    off = torch.deg2rad((found - true).abs()).mean(-1)
    return torch.where(is_known, off, 0.0).sum(1), is_known.sum(1)


def deformation(exp: Tensor) -> Tensor:
    """Mean absolute offset of the expression (b,): what the canonical keypoints and the pose explain shall not be in it."""
    return exp.abs().flatten(1).mean(1)


def wing(distance: Tensor, config: WingConfig) -> Tensor:
    """w log(1 + d / ε) for d below w, above it d + a constant that joins both (Feng et al. 2018, equation 5)."""
    joint = config.width - config.width * math.log1p(config.width / config.bend)
    near = config.width * torch.log1p(distance / config.bend)
    return torch.where(distance < config.width, near, distance - joint)


def guide(x: Tensor, landmarks: Tensor, config: WingConfig) -> tuple[Tensor, Tensor]:
    """Wing loss of the first keypoints (b, f, k, 3) to landmarks (b, f, n, 2): sum over known points, and their number; (b,)."""
    count = min(x.shape[2], landmarks.shape[2])
    near, true = x[:, :, :count, :2], landmarks[:, :, :count]
    is_known = true.isfinite().all(-1)
    off = wing((near - true.nan_to_num()).abs(), config).sum(-1)
    return torch.where(is_known, off, 0.0).flatten(1).sum(1), is_known.flatten(1).sum(1)


def ways(points: Tensor) -> Tensor:
    """Points (..., k, d) in the order of `guide` -> the ways across eyes and lips (..., 6, d), fewer if k < 12.

    From upper to lower lids and lips, then from corner to corner: an opening is the length of one over that of the other.
    """
    starts, ends = ([pair[side] for pair in GAPS + SPANS if max(pair) < points.shape[-2]] for side in (0, 1))
    return points[..., ends, :] - points[..., starts, :]


def gaps(x: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Error of the ways of keypoints (b, f, k, 3) beside landmarks (b, f, n, 2): sum over known ones, and their number; (b,).

    `guide` hardly asks for them: a lid's place is mostly the head's, and what a wink adds is less than what is left of the
    head's error.
    """
    count = min(x.shape[2], landmarks.shape[2])
    true = ways(landmarks[:, :, :count])
    is_known = true.isfinite().all(-1)
    off = (ways(x[:, :, :count, :2]) - true.nan_to_num()).abs().sum(-1)
    return torch.where(is_known, off, 0.0).flatten(1).sum(1), is_known.flatten(1).sum(1)
