"""Depth pictures of Gaussians: how far away the first surface is, pixel by pixel.

The rasteriser blends depths as it blends colours, so where a surface lets a little light through, what lies far behind pulls the
mean depth away from it. Gaussians behind a first guess are therefore left out and the rest is drawn again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixtura_diffusion_gs.cameras import matrices, viewmats
from mixtura_diffusion_gs.use.trajectories import Cameras
from mixtura_splat import Gaussians
from mixtura_splat.rasterize import Rendering

SOLID = 0.5
"""Alpha from which a pixel shows a surface."""
BEHIND = 0.02
"""Gaussians further behind the guess than this share of its depth are left out."""
ROUNDS = 2


class Views(NamedTuple):
    """Pictures of V views and their cameras, float32."""

    image: Tensor
    """Colours (V, 3, H, W) of the first surface in 0..1, not multiplied by alpha."""
    alpha: Tensor
    """(V, H, W), of all there is."""
    depth: Tensor
    """Camera z (V, H, W) of the first surface, world units."""
    spread: Tensor
    """Standard deviation (V, H, W) of the depths that were blended in a pixel, world units."""
    c2w: Tensor
    """(V, 4, 4)."""
    intrinsics: Tensor
    """(V, 4) in pixels."""


def seen_from(scene: Gaussians, cameras: Cameras, size: int, is_official: bool = False) -> Views:
    """Colours, alphas and depths of Gaussians from cameras, pictures of `size` pixels, on the CPU."""
    options: dict[str, Any] = {"compat": "graphdeco"} if is_official else {}
    poses, lenses = viewmats(cameras.c2w).to(scene.means), matrices(cameras.intrinsics).to(scene.means)
    views = [_seen(scene, pose, lens, size, options) for pose, lens in zip(poses, lenses, strict=True)]
    image, alpha, depth, spread = (torch.stack(part).cpu() for part in zip(*views, strict=True))
    return Views(image, alpha, depth, spread, cameras.c2w.cpu(), cameras.intrinsics.cpu())


@torch.no_grad()
def _seen(
    scene: Gaussians, pose: Tensor, lens: Tensor, size: int, options: dict[str, Any]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image (3, H, W), alpha, depth and spread (H, W) from one camera."""
    inside = scene.means @ pose[:3, :3].T + pose[:3, 3]
    squares = (inside[:, 2:] ** 2).contiguous()

    def draw(part: Gaussians) -> Rendering:
        return part.render(pose, lens, size, size, depth="expected", features=squares, **options)

    view = draw(scene)
    alpha = view.alpha[..., 0]
    for _ in range(ROUNDS):
        assert view.depth is not None
        is_behind = _behind(inside, lens, view.depth[..., 0], view.alpha[..., 0])
        kept = torch.where(is_behind, 0.0, scene.opacities)
        view = draw(Gaussians(scene.means, scene.quats, scene.scales, kept, scene.sh))
    assert view.depth is not None
    assert view.features is not None
    share = view.alpha.clamp(min=1e-6)
    spread = (view.features / share - view.depth**2).clamp(min=0).sqrt()
    return (view.image / share).clamp(0, 1).permute(2, 0, 1), alpha, view.depth[..., 0], spread[..., 0]


def _behind(inside: Tensor, lens: Tensor, depth: Tensor, alpha: Tensor) -> Tensor:
    """Which Gaussians (N,), at places (N, 3) in camera axes, lie behind the depth (H, W) of their pixel, where it is solid."""
    h, w = depth.shape
    z = inside[:, 2].clamp(min=1e-6)
    column = (inside[:, 0] / z * lens[0, 0] + lens[0, 2]).floor()
    row = (inside[:, 1] / z * lens[1, 1] + lens[1, 2]).floor()
    is_shown = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    pixel = torch.where(is_shown, row * w + column, 0).long()
    limit = torch.where(alpha > SOLID, depth * (1 + BEHIND), torch.inf).flatten()[pixel]
    return is_shown & (z > limit)


def points_of(views: Views) -> Tensor:
    """World points (P, 3) of all solid pixels."""
    _, h, w = views.depth.shape
    fx, fy, cx, cy = (value[:, None, None] for value in views.intrinsics.unbind(-1))
    x = (torch.arange(w) + 0.5 - cx) / fx * views.depth
    y = (torch.arange(h)[:, None] + 0.5 - cy) / fy * views.depth
    inside = torch.stack([x, y, views.depth], -1)
    world = torch.einsum("vij,vhwj->vhwi", views.c2w[:, :3, :3], inside) + views.c2w[:, None, None, :3, 3]
    return world[views.alpha > SOLID]
