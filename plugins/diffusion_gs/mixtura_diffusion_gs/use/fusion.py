"""Depth pictures of many views fused into one volume of signed distances (Curless and Levoy, 1996), with colours.

`Volume` holds, for every voxel, the mean distance to the surface along the views' rays in units of the truncation, positive
outside, and the mean colour near the surface.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mixtura_diffusion_gs.cameras import matrices, viewmats
from mixtura_diffusion_gs.use.depths import SOLID, Views

CLEAR = 0.1
"""Alpha up to which a pixel shows that there is no surface."""
TRUNCATION = 3.0
"""Distances are cut off at this many voxels."""
CLOSE = 1.5
"""Voxels within this many truncations of a surface are looked at closely."""
AT_ONCE = 2**18
"""Voxels that are looked at together: bounds the memory beside the volume itself to some tens of megabytes."""


class Volume:
    """Voxels of edge `step` whose centres start at `low` (3,); `shape` tells how many lie along x, y and z."""

    def __init__(self, low: Tensor, high: Tensor, resolution: int) -> None:
        self.low = low.float()
        self.step = float((high - low).max()) / (resolution - 1)
        self.shape = tuple(int(n) for n in ((high - low) / self.step).ceil().long() + 1)
        count = self.shape[0] * self.shape[1] * self.shape[2]
        self.distance, self.weight = torch.zeros(count), torch.zeros(count)
        self.colour, self.colour_weight = torch.zeros(count, 3), torch.zeros(count)

    def fuse(self, views: Views) -> None:
        """Add all views."""
        limit = TRUNCATION * self.step
        maps, codes = _maps(views, limit)
        lenses = matrices(views.intrinsics)
        projections = lenses @ viewmats(views.c2w)[:, :3]
        for start in range(0, self.shape[0], self._slab):
            planes = range(start, min(start + self._slab, self.shape[0]))
            for view in range(len(maps)):
                self._add(planes, projections[view], lenses[view], maps[view], codes[view], limit)

    @property
    def _slab(self) -> int:
        """Planes of constant x that are looked at together."""
        return max(1, AT_ONCE // (self.shape[1] * self.shape[2]))

    def _add(self, planes: range, projection: Tensor, lens: Tensor, maps: Tensor, codes: Tensor, limit: float) -> None:
        """Add what one view tells of some planes: most voxels are clearly free or hidden, only those near a surface cost time."""
        place, z = self._projected(planes, projection)
        h, w = codes.shape
        column, row = (place[0] / z).long(), (place[1] / z).long()
        is_seen = (z > 1e-3) & (place >= 0).all(0) & (column < w) & (row < h)
        ahead = codes.view(-1)[(row * w + column).where(is_seen, 0)].where(is_seen, -torch.inf) - z
        is_free = ahead >= CLOSE * limit
        part = slice(planes.start * self._plane, planes.stop * self._plane)
        self.distance[part] += is_free
        self.weight[part] += is_free
        chosen = (ahead.abs() < CLOSE * limit).nonzero()[:, 0]
        if len(chosen):
            pixels, near = (place[:, chosen] / z[chosen]).T, z[chosen]
            self._add_near(chosen + part.start, pixels, near, lens, maps, limit)

    @property
    def _plane(self) -> int:
        return self.shape[1] * self.shape[2]

    def _projected(self, planes: range, projection: Tensor) -> tuple[Tensor, Tensor]:
        """Pixel coordinates times z (2, P) and z (P,) of the voxels of some planes: a projection (3, 4) is linear along axes."""
        axes = [torch.arange(n) for n in (0, *self.shape[1:])]
        axes[0] = torch.arange(planes.start, planes.stop)
        x, y, z = (projection[:, axis, None] * (self.low[axis] + index * self.step) for axis, index in enumerate(axes))
        sum_xyz = (x + projection[:, 3:])[:, :, None, None] + (y[:, :, None] + z[:, None, :])[:, None]
        flat = sum_xyz.reshape(3, -1)
        return flat[:2], flat[2]

    def _add_near(self, voxels: Tensor, pixels: Tensor, z: Tensor, lens: Tensor, maps: Tensor, limit: float) -> None:
        """Add what maps (6, H, W) tell of voxels (P,) that lie close to a surface at pixels (P, 2) and depths z (P,)."""
        size = torch.tensor([maps.shape[2], maps.shape[1]])
        found = functional.grid_sample(maps[None], (pixels / size * 2 - 1)[None, None], align_corners=False)[0, :, 0]
        solid = found[0].clamp(min=1e-6)
        depth, facing, colour = found[1] / solid, found[2] / solid, (found[3:] / solid).T
        ray = (pixels - lens[:2, 2]) / lens[[0, 1], [0, 1]]
        # Distances along the ray rather than along the camera's axis.
        distance = (depth - z) * (1 + (ray**2).sum(-1)).sqrt()
        weight = facing * ((found[0] > 0.75) & (distance > -limit))
        self.distance[voxels] += weight * (distance / limit).clamp(max=1)
        self.weight[voxels] += weight
        weight = weight * (distance < limit)
        self.colour[voxels] += weight[:, None] * colour
        self.colour_weight[voxels] += weight

    def filled(self, is_closed: bool) -> tuple[Tensor, Tensor]:
        """Mean distances (X, Y, Z), and where they are known (X, Y, Z) bool.

        `is_closed` takes what no view has seen for the inside, as behind a surface that was looked at from everywhere.
        """
        is_known = self.weight > 1e-6
        mean = torch.where(is_known, self.distance / self.weight.clamp(min=1e-6), -torch.ones_like(self.distance))
        return mean.view(self.shape), (torch.ones_like(is_known) if is_closed else is_known).view(self.shape)

    def colours(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Colours (P, 3) at world points (P, 3), and whether they are known there (P,) bool."""
        sizes = torch.tensor(self.shape)
        places = (points - self.low) / self.step / (sizes - 1).clamp(min=1) * 2 - 1
        stored = torch.cat([self.colour, self.colour_weight[:, None]], -1).T.reshape(1, 4, *self.shape)
        # grid_sample counts coordinates from the last axis.
        found = functional.grid_sample(stored, places.flip(-1)[None, None, None], align_corners=True)[0, :, 0, 0]
        return (found[:3] / found[3].clamp(min=1e-9)).T.clamp(0, 1), found[3] > 1e-6


def _maps(views: Views, limit: float) -> tuple[Tensor, Tensor]:
    """What voxels look up: maps (V, 6, H, W), solid and then depth, facing and colour times solid; and codes (V, H, W).

    A pixel is solid where it is opaque enough and what it blends lies close together. Products with `solid` may be interpolated;
    divided by the interpolated `solid` they are free of pixels that show nothing. Codes are depths, infinite where a view sees
    through, minus infinite where it tells nothing.
    """
    is_solid = (views.alpha > SOLID) & (views.spread < limit)
    solid = is_solid[:, None].float()
    maps = torch.cat([solid, views.depth[:, None] * solid, _facing(views)[:, None] * solid, views.image * solid], 1)
    seen_through = torch.where(views.alpha < CLEAR, torch.inf, -torch.inf)
    return maps, torch.where(is_solid, views.depth, seen_through)


def _facing(views: Views) -> Tensor:
    """How much surfaces (V, H, W) face their camera, 0.05..1: cosines of the angles between normals and rays, from depths."""
    _, h, w = views.depth.shape
    fx, fy, cx, cy = (value[:, None, None] for value in views.intrinsics.unbind(-1))
    x = ((torch.arange(w) + 0.5 - cx) / fx).expand(-1, h, w)
    y = ((torch.arange(h)[:, None] + 0.5 - cy) / fy).expand(-1, h, w)
    rays = torch.stack([x, y, torch.ones_like(x)], -1)
    points = functional.pad((rays * views.depth[..., None]).permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate")
    across, along = points[..., 1:-1, 2:] - points[..., 1:-1, :-2], points[..., 2:, 1:-1] - points[..., :-2, 1:-1]
    normals = torch.linalg.cross(across, along, dim=1)
    cosines = functional.cosine_similarity(normals, rays.permute(0, 3, 1, 2), dim=1).abs()
    return cosines.clamp(min=0.05)
