"""`rasterize`: Gaussians and cameras in, images out, differentiable in everything.

Purpose: the one function most users need. It checks its arguments, brings them to complete shapes, and runs the stages of
ops.py (compiled kernels) or reference.py (plain PyTorch, when there are no kernels for the device).

Conventions: OpenCV cameras (x right, y down, z forward), `viewmats` = world to camera; the centre of pixel (column i,
row j) is (i + 0.5, j + 0.5); quaternions (w, x, y, z), normalised inside; scales and opacities linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mixtura_splat import backend, reference
from mixtura_splat.arguments import Scene, check_finite, complete

Mode = Literal["classic", "antialiased"]
Depth = Literal["none", "accumulated", "expected"]


@dataclass(frozen=True)
class Info:
    """What a rendering leaves besides its images. Leading axes as given to `rasterize`; the images are computed from
    `splats`, so `info.splats.retain_grad()` before backward() gives the gradients of the projected quantities."""

    splats: Tensor
    """[.., V, N, 8]: x, y [pixels], u11, u12, u22 (factor of the inverse covariance), opacity, tau, depth [camera z]."""
    extents: Tensor
    """[.., V, N, 2] half width and height of each splat in pixels; 0 where it is not seen."""
    tiles: Tensor
    """[.., V, N] int32: how many tiles of 16 x 16 pixels each splat touches."""
    not_finite: Tensor
    """() int64: (view, Gaussian) pairs that were left out because a parameter or the camera was NaN or infinite."""
    normals: Tensor | None
    """[.., V, H, W, 3] blended normals in world space, not normalised; only with `normals=True`."""
    probe: Tensor | None
    """[.., V, N, 4] zeros whose `.grad` after backward() is (gradient of x, of y, and the same summed in absolute value);
    only with `absgrad=True`."""

    @property
    def means2d(self) -> Tensor:
        """[.., V, N, 2] projected means in pixels."""
        return self.splats[..., :2]

    @property
    def depths(self) -> Tensor:
        """[.., V, N] camera z."""
        return self.splats[..., 7]

    @property
    def seen(self) -> Tensor:
        """[.., V, N] bool: in front of the camera, on the image, at least 1/255 opaque, finite."""
        return self.splats[..., 6] >= 0

    @property
    def conics(self) -> Tensor:
        """[.., V, N, 3] inverse covariance (a, b, c) in 1/pixel^2: a dx^2 + 2 b dx dy + c dy^2."""
        u11, u12, u22 = self.splats[..., 2:5].unbind(-1)
        return torch.stack([u11 * u11, u11 * u12, u12 * u12 + u22 * u22], -1)

    @property
    def absgrad(self) -> Tensor:
        """[.., V, N, 2] sum over pixels of the absolute gradient of x and y. Needs `absgrad=True` and a backward()."""
        if self.probe is None or self.probe.grad is None:
            raise RuntimeError("absgrad is there after rasterize(..., absgrad=True) and backward()")
        return self.probe.grad[..., 2:]


class Rendering(NamedTuple):
    """The result of `rasterize`; leading axes as given: [H, W, ..], [V, H, W, ..] or [B, V, H, W, ..]."""

    image: Tensor
    """[.., H, W, C] colours over the background."""
    alpha: Tensor
    """[.., H, W, 1] in [0, 1)."""
    depth: Tensor | None
    """[.., H, W, 1] camera z: weighted sum ("accumulated") or mean ("expected"); None without."""
    features: Tensor | None
    """[.., H, W, F] blended features over 0; None without."""
    info: Info


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    Ks: Tensor,  # noqa: N803
    width: int,
    height: int,
    *,
    colors: Tensor | None = None,
    sh: Tensor | None = None,
    sh_degree: int | None = None,
    features: Tensor | None = None,
    background: Tensor | None = None,
    counts: Tensor | None = None,
    mode: Mode = "classic",
    depth: Depth = "none",
    normals: bool = False,
    absgrad: bool = False,
    eps2d: float = 0.3,
    near: float | None = None,
    far: float = 1e10,
    alpha_limit: float = 0.99,
    compat: Literal["graphdeco"] | None = None,
    deterministic: bool | None = None,
    validate: bool = False,
    kernels: bool | None = None,
) -> Rendering:
    """Render B scenes of N Gaussians from V cameras each.

    Shapes, [B] and [V] optional (V only without B): means [B,N,3], quats [B,N,4], scales [B,N,3], opacities [B,N],
    viewmats [B,V,4,4], Ks [B,V,3,3]; colors [B,N,C] or [B,V,N,C], or sh [B,N,K,3] with K = 1, 4, 9, 16 or 25 (the first
    (sh_degree + 1)^2 are used; colour = max(SH + 0.5, 0)); features [B,N,F] or [B,V,N,F]; background [C], [V,C] or
    [B,V,C]; counts [B] int64: only the first counts[b] Gaussians of scene b exist.

    float32 (float64 for checks, CPU only); half precision is cast to float32. Gradients reach every float argument,
    cameras and intrinsics too.

    mode "antialiased" multiplies opacities by sqrt(det C0 / det C), which keeps thin splats from growing with the low-pass
    `eps2d` [pixels^2]. `near` and `far` cull by camera z (near: 0.01; 0.2 with compat). `compat="graphdeco"` reproduces
    the extent (squares of 3 sigma rounded to tiles), clamp and stop rule of the original implementation. `absgrad` fills
    `info.absgrad` (kernels only; torch.compile breaks the graph for it). `deterministic` (default: as
    torch.use_deterministic_algorithms) gives the same bits on every run; the CPU always does, for any number of threads.
    `kernels` forces the compiled kernels (True) or PyTorch (False); by default kernels are used where there are any.

    Values that are not finite: `validate` looks for them first and names the argument. Without it, Gaussians with such
    parameters (harmonics included) and all Gaussians in the view of such a camera are left out, get no gradient and are
    counted in `info.not_finite`. `colors`, `features` and `background` are not looked at: a NaN in them is one in the
    pixels of the Gaussian, and may spread to others and to gradients.

    Raises ValueError or TypeError naming the argument, and backend.BackendMissing with `kernels=True` and none.
    """
    scene = complete(
        means, quats, scales, opacities, viewmats, Ks, width, height, colors, sh, sh_degree, features, background, counts
    )
    if mode not in ("classic", "antialiased"):
        raise ValueError(f'mode: "classic" or "antialiased", not {mode!r}')
    if depth not in ("none", "accumulated", "expected"):
        raise ValueError(f'depth: "none", "accumulated" or "expected", not {depth!r}')
    if compat not in (None, "graphdeco"):
        raise ValueError(f'compat: None or "graphdeco", not {compat!r}')
    if validate:
        check_finite(
            means=means, quats=quats, scales=scales, opacities=opacities, viewmats=viewmats, Ks=Ks, colors=colors, sh=sh,
            features=features, background=background,
        )  # fmt: skip
    if near is None:
        near = 0.2 if compat else 0.01
    if not 0 < near < far:
        raise ValueError(f"near and far: 0 < near < far is needed, got near={near}, far={far}")
    if not (0 <= eps2d < float("inf") and 0 < alpha_limit <= 1):
        raise ValueError(f"eps2d >= 0 and 0 < alpha_limit <= 1 are needed, got eps2d={eps2d}, alpha_limit={alpha_limit}")
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    flags = (backend.ANTIALIASED if mode == "antialiased" else 0) | (backend.GRAPHDECO if compat else 0)
    flags |= backend.DETERMINISTIC if deterministic else 0
    lens = (eps2d, near, far, flags)
    stages = _stages(scene, kernels)
    with torch.autocast(means.device.type, enabled=False):  # the reference would be rounded to half precision
        return _render(scene, stages, lens, depth, normals, absgrad, alpha_limit)


def _stages(scene: Scene, kernels: bool | None) -> Any:
    """The module whose `project` and `composite` are to run: ops or reference."""
    if not backend.wants_kernels(scene.means, kernels):
        return reference
    from mixtura_splat import ops

    return ops


def _render(
    scene: Scene, stages: Any, lens: tuple[float, float, float, int], depth: Depth, normals: bool, absgrad: bool, limit: float
) -> Rendering:
    s = scene
    eps2d, near, far, flags = lens
    splats, extents, tiles, shaded, stats = stages.project(
        s.means, s.quats, s.scales, s.opacities, s.viewmats, s.ks, s.sh, s.counts, s.width, s.height, s.sh_degree,
        eps2d, near, far, flags,
    )  # fmt: skip
    shown = s.restore(splats)
    parts = [shaded if s.colors is None else s.colors, s.features]
    parts.append(reference.normals(s.means, s.quats, s.scales, s.viewmats) if normals else None)
    channels = [0 if part is None else part.shape[3] for part in parts]
    probe = shown.new_zeros(*shown.shape[:-1], 4).requires_grad_() if absgrad else None
    flags |= backend.DEPTH if depth != "none" else 0
    blended, depths, transmittance, *_ = stages.composite(
        shown.reshape(splats.shape), _side_by_side([part for part in parts if part is not None], s.views),
        _widened(s.background, sum(channels[1:])), extents, tiles,
        None if probe is None else probe.reshape(*splats.shape[:3], 4), s.width, s.height, limit, flags,
    )  # fmt: skip
    alpha = 1 - transmittance[..., None]
    image, feature_image, normal_image = blended, None, None
    if sum(channels[1:]):
        image, *others = torch.split(blended, channels, -1)
        feature_image, normal_image = (s.restore(part) if part.shape[-1] else None for part in others)
    depth_image = None
    if depth != "none":
        depth_image = s.restore(depths[..., None] / alpha.clamp(min=1e-10) if depth == "expected" else depths[..., None])
    info = Info(shown, s.restore(extents), s.restore(tiles), stats[1], normal_image, probe)
    return Rendering(s.restore(image), s.restore(alpha), depth_image, feature_image, info)


def _side_by_side(parts: list[Tensor], views: int) -> Tensor:
    """One array of features from several [B, 1 or V, N, C]; a single one is not copied."""
    if len(parts) == 1:
        return parts[0]
    if any(part.shape[1] != 1 for part in parts):
        parts = [part.expand(-1, views, -1, -1) for part in parts]
    return torch.cat(parts, -1)


def _widened(background: Tensor | None, channels: int) -> Tensor | None:
    """The background [B,V,C] with `channels` zeros behind it."""
    if background is None or not channels:
        return background
    return torch.cat([background, background.new_zeros(*background.shape[:2], channels)], -1)
