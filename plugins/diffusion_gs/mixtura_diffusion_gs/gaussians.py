"""From the denoiser's channels to Gaussians, and what is drawn of them (published code's `to_gs`; paper, section 3.2).

`RawGaussians` are the numbers before activation, in the published order: the free Gaussians, then the pixels'. A `DepthRule` says
how far along its ray a pixel's Gaussian may lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mixtura_diffusion_gs.cameras import matrices, nearest, viewmats
from mixtura_diffusion_gs.nets.denoiser import Sizes
from mixtura_splat import Gaussians, rasterize

SCALE_SHIFT, SCALE_LIMIT = -2.3, -1.2
"""Log scales are min(s + shift, limit): 0.1 at first, 0.301 at most."""
OPACITY_SHIFT = -2.0
WHITE = 1.0


@dataclass(frozen=True)
class DepthRule:
    """Distance u along a ray from w = sigmoid(...) in 0..1.

    `centred`: u = k + reach (2w - 1), k the distance to the ray's point nearest to the origin (objects);
    `range`: u = near + w (far - near) (scenes).
    """

    rule: str
    reach: float = 1.8
    near: float = 0.0
    far: float = 500.0

    def distance(self, w: Tensor, k: Tensor) -> Tensor:
        """Distances of the shape of `w` and `k`."""
        if self.rule == "centred":
            return k + self.reach * (2 * w - 1)
        return self.near + w * (self.far - self.near)


class RawGaussians(NamedTuple):
    """Gaussians before activation, float32 (B, G, .)."""

    xyz: Tensor
    """Centres (B, G, 3) in world units."""
    features: Tensor
    """Spherical harmonics (B, G, K, 3)."""
    scaling: Tensor
    """Natural logarithms of the axes' lengths (B, G, 3)."""
    rotation: Tensor
    """Quaternions w, x, y, z (B, G, 4), of any length."""
    opacity: Tensor
    """Logits (B, G, 1)."""

    def activated(self) -> dict[str, Tensor]:
        """What `mixtura_splat.rasterize` takes: means, quats, scales, opacities, sh."""
        return {
            "means": self.xyz,
            "quats": self.rotation,
            "scales": self.scaling.exp(),
            "opacities": self.opacity.squeeze(-1).sigmoid(),
            "sh": self.features,
        }

    def scene(self, item: int) -> Gaussians:
        """One item of the batch, detached."""
        return Gaussians(**{name: tensor[item].detach() for name, tensor in self.activated().items()})

    def mirrored(self, which: Tensor) -> RawGaussians:
        """Items where `which` (B,) bool holds, in a world whose y points the other way; shapes, turns and harmonics follow.

        Axes keep their lengths: with M the mirror, R becomes the rotation M R M, so M R S^2 R^T M is their covariance.
        """
        mine = which[:, None, None]
        flipped = [index for index in range(self.features.shape[2]) if index < math.isqrt(index) * (math.isqrt(index) + 1)]
        signs = self.features.new_ones(self.features.shape[2], 1)
        signs[flipped] = -1  # harmonics of negative order are odd in y
        return self._replace(
            xyz=torch.where(mine, self.xyz * self.xyz.new_tensor([1, -1, 1]), self.xyz),
            features=torch.where(mine[..., None], self.features * signs, self.features),
            rotation=torch.where(mine, self.rotation * self.rotation.new_tensor([1, -1, 1, -1]), self.rotation),
        )

    def render(
        self, c2w: Tensor, intrinsics: Tensor, height: int, width: int, compat: str = "fixed", deferred: bool = False
    ) -> Tensor:
        """Pictures (B, V, 3, H, W) over white from cameras `c2w` (B, V, 4, 4), `intrinsics` (B, V, 4) in pixels.

        `compat="official"` draws as the published rasteriser does. `deferred` draws view by view and again in the backward pass,
        so that the memory in use is that of one view.
        """
        options = {"near": None, "compat": "graphdeco"} if compat == "official" else {"near": 0.01}
        background = torch.full((3,), WHITE, device=self.xyz.device)

        def draw(poses: Tensor, lenses: Tensor, *values: Tensor) -> Tensor:
            means, quats, scales, opacities, sh = values
            return rasterize(
                means, quats, scales, opacities, poses, lenses, width, height, sh=sh, background=background, **options
            ).image

        poses, lenses = viewmats(c2w.float()), matrices(intrinsics.float())
        values = tuple(value.float() for value in self.activated().values())
        with torch.autocast(self.xyz.device.type, enabled=False):
            if deferred and torch.is_grad_enabled():
                single = [
                    checkpoint(draw, poses[:, v : v + 1], lenses[:, v : v + 1], *values, use_reentrant=False)
                    for v in range(poses.shape[1])
                ]
                images = torch.cat(single, 1)
            else:
                images = draw(poses, lenses, *values)
        return images.movedim(-1, -3)


def split(channels: Tensor, sh_degree: int) -> RawGaussians:
    """Channels (B, G, 14 or more) as the five quantities, offsets and limit of the scales applied."""
    harmonics = 3 * (sh_degree + 1) ** 2
    xyz, features, scaling, rotation, opacity = channels.float().split([3, harmonics, 3, 4, 1], -1)
    return RawGaussians(
        xyz, features.unflatten(-1, (-1, 3)), (scaling + SCALE_SHIFT).clamp(max=SCALE_LIMIT), rotation, opacity + OPACITY_SHIFT
    )


def assemble(
    free: Tensor, pixels: Tensor, origins: Tensor, directions: Tensor, rules: list[DepthRule], sizes: Sizes
) -> tuple[RawGaussians, Tensor]:
    """All Gaussians of a batch, and the centres of the pixels' as pictures (B, V, 3, H, W).

    `free` (B, F, g) and `pixels` (B, V H W, g) are the denoiser's channels, `origins` and `directions` (B, V, 3, H, W) the
    rays of its views, `rules` the depth rule of each item.
    """
    _, v, _, h, w = origins.shape
    weight = from_patches(pixels[..., :3].float().mean(-1, keepdim=True).sigmoid(), v, h, w, sizes.patch)
    k = nearest(origins, directions)
    if len(set(rules)) == 1:
        u = rules[0].distance(weight, k)
    else:
        u = torch.stack([rule.distance(weight[i], k[i]) for i, rule in enumerate(rules)])
    points = origins + u * directions
    raw = split(torch.cat([free, pixels], 1), sizes.sh_degree)
    centres = torch.cat([raw.xyz[:, : free.shape[1]], into_order(points, sizes.patch)], 1)
    return raw._replace(xyz=centres), points


def from_patches(values: Tensor, v: int, h: int, w: int, patch: int) -> Tensor:
    """(B, V H W, C) in the order of the tokens -> pictures (B, V, C, H, W)."""
    cut = values.view(len(values), v, h // patch, w // patch, patch, patch, -1)
    return cut.permute(0, 1, 6, 2, 4, 3, 5).reshape(len(values), v, -1, h, w)


def into_order(pictures: Tensor, patch: int) -> Tensor:
    """Pictures (B, V, C, H, W) -> (B, V H W, C) in the order of the tokens; the inverse of `from_patches`."""
    b, v, c, h, w = pictures.shape
    cut = pictures.view(b, v, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 1, 3, 5, 4, 6, 2).reshape(b, v * h * w, c)
