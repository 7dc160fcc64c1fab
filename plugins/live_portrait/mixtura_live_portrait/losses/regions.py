"""Regions of pictures by boxes (b, 4), x0, y0, x1, y1 from -1 to 1 over the picture: cut out, or as masks. NaN is unknown.

Training only has boxes of faces, eyes and lips; there is no segmentation. So the shoulders of stage two are what lies below the
chin, and a mouth's surroundings are what lies outside of its enlarged box: our reading of the paper's masks (section 3.3).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

FACE, EYES, LIPS = 0, 1, 2
"""Places of the boxes in a sample."""
ZOOM = 1.4
"""Side of a patch over the distance of the two corners that it lies around."""


def known(boxes: Tensor) -> Tensor:
    """Which boxes (..., 4) are numbers: (...) bool."""
    return boxes.isfinite().all(-1)


def cut(pictures: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The square around each box in `side` pixels (b, c, side, side); the whole picture where the box is unknown.

    What lies outside of the picture repeats its border.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    whole = ~known(boxes)[:, None]
    centre = torch.where(whole, 0.0, (low + high) / 2)
    half = torch.where(whole[:, 0], 1.0, (high - low).amax(-1) / 2)
    line = (torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5) * (2 / side) - 1
    x = centre[:, 0, None] + half[:, None] * line
    y = centre[:, 1, None] + half[:, None] * line
    grid = torch.stack([x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1)
    return F.grid_sample(pictures, grid.to(pictures.dtype), "bilinear", "border", align_corners=False)


def corners(guide: Tensor) -> Tensor:
    """Left and right corner of left eye, right eye, lips (..., 3, 2, 2) from guides (..., 12, 2); NaN if unknown."""
    return torch.stack([guide[..., 0:2, :], guide[..., 4:6, :], guide[..., 10:12, :]], -3)


def lengths(ends: Tensor) -> Tensor:
    """Distance of each pair of points (..., 2, 2) -> (...)."""
    return (ends[..., 1, :] - ends[..., 0, :]).norm(dim=-1)


def patches(pictures: Tensor, ends: Tensor, side: int) -> Tensor:
    """Squares (b, n, c, side, side) around pairs of points (b, n, 2, 2), turned along them and ZOOM times as long.

    Pictures (b, c, h, w); around unknown points there is the whole picture.
    """
    count = ends.shape[1]
    unknown = ~ends.isfinite().flatten(2).all(-1)[..., None]
    centre = torch.where(unknown, 0.0, ends.mean(2))
    right = torch.where(unknown, ends.new_tensor([1.0, 0.0]), (ends[:, :, 1] - ends[:, :, 0]) * (ZOOM / 2))
    down = torch.stack([-right[..., 1], right[..., 0]], -1)
    line = (torch.arange(side, device=ends.device, dtype=torch.float32) + 0.5) * (2 / side) - 1
    x, y = line[None, :, None], line[:, None, None]
    grid = centre[:, :, None, None] + x * right[:, :, None, None] + y * down[:, :, None, None]
    # one picture has several patches: they are sampled as one tall patch
    tall = F.grid_sample(pictures, grid.flatten(1, 2).to(pictures.dtype), "bilinear", "border", align_corners=False)
    return tall.unflatten(2, (count, side)).transpose(1, 2)


def grown(boxes: Tensor, by: float) -> Tensor:
    """Boxes that reach farther to all sides, by a share of their longer side."""
    room = by * (boxes[:, 2:] - boxes[:, :2]).amax(-1, keepdim=True)
    return torch.cat([boxes[:, :2] - room, boxes[:, 2:] + room], -1)


def inside(boxes: Tensor, side: int) -> Tensor:
    """1 where a pixel's centre lies in the box, else 0: (b, 1, side, side); nowhere for unknown ones."""
    line = (torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5) * (2 / side) - 1
    across = (line >= boxes[:, 0, None]) & (line <= boxes[:, 2, None])
    down = (line >= boxes[:, 1, None]) & (line <= boxes[:, 3, None])
    return (down[:, :, None] & across[:, None])[:, None].float()


def below(boxes: Tensor, side: int) -> Tensor:
    """1 below the box, over the whole width: (b, 1, side, side); nowhere for unknown ones."""
    edges = torch.stack([torch.full_like(boxes[:, 0], -1.0), boxes[:, 3], *boxes.new_ones(2, len(boxes))], -1)
    return inside(edges, side)


def difference(one: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean absolute difference (b,) of pictures (b, c, h, w), over the pixels of a mask (b, 1, h, w) if there is one.

    0 where the mask is empty.
    """
    off = (one - other).abs().mean(1, keepdim=True)
    if mask is None:
        return off.flatten(1).mean(1)
    return (off * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1)
