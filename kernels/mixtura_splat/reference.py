"""The same stages in plain PyTorch: the yardstick of the tests, and what runs where nothing could be compiled.

Slow (every pixel looks at every Gaussian) and simple; differentiable by autograd, in any floating-point type, on any
device. Signatures and results are those of ops.py. Formulas: Zwicker et al., EWA Splatting; Kerbl et al., 3D Gaussian
Splatting, sections 4 and 6; Yu et al., Mip-Splatting (the antialiased mode's ancestor).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixtura_splat.backend import ANTIALIASED, DEPTH, GRAPHDECO, TILE

STOP = 1e-4 * (1 + 1e-6)
"""Transmittance at which a pixel ends. Two hits at alpha 0.99 leave 1e-4: the margin lets them end it however they round."""
PIXELS_AT_ONCE = 1 << 22
"""Bound on pixels x Gaussians of one piece of the compositor."""


def rotations(quats: Tensor) -> Tensor:
    """quats [.., 4] (w, x, y, z), any length -> [.., 3, 3]; the zero quaternion is the identity, with zero gradient."""
    norm = (quats * quats).sum(-1, keepdim=True)
    given = norm > 0
    unit = torch.where(given, quats / torch.where(given, norm, 1.0).sqrt(), quats.new_tensor([1.0, 0, 0, 0]))
    w, x, y, z = unit.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(*quats.shape[:-1], 3, 3)


def sh_basis(degree: int, d: Tensor) -> Tensor:
    """Real spherical harmonics at unit vectors d [.., 3] -> [.., (degree + 1)^2], l by l, m from -l to l."""
    x, y, z = d.unbind(-1)
    zz, c1, s1 = z * z, x * x - y * y, 2 * x * y
    c2, s2 = x * c1 - y * s1, x * s1 + y * c1
    c3, s3 = x * c2 - y * s2, x * s2 + y * c2
    k1, k2 = 0.48860251190292, 1.092548430592079
    plane = -2.285228997322329 * zz + 0.4570457994644658
    pole = z * (1.865881662950577 * zz - 1.119528997770346)
    tilt, inner = 0.9461746957575601 * zz - 0.3153915652525201, 3.31161143515146 * zz - 0.47308734787878
    outer = z * (-4.683325804901025 * zz + 2.007139630671868)
    bands = [
        [torch.full_like(x, 0.28209479177387814)],
        [-k1 * y, k1 * z, -k1 * x],
        [k2 * x * y, -k2 * y * z, tilt, -k2 * x * z, 0.5462742152960396 * c1],
        [-0.5900435899266435 * s2, 1.445305721320277 * z * s1, plane * y, pole, plane * x, 1.445305721320277 * z * c1,
         -0.5900435899266435 * c2],
        [0.6258357354491763 * s3, -1.770130769779931 * z * s2, inner * s1, outer * y,
         1.984313483298443 * z * pole - 1.006230589874905 * tilt, outer * x, inner * c1, -1.770130769779931 * z * c2,
         0.6258357354491763 * c3],
    ]  # fmt: skip
    return torch.stack([y for band in bands[: degree + 1] for y in band], -1)


def camera_centres(viewmats: Tensor) -> Tensor:
    """-W^-1 t of [W|t] for viewmats [..,4,4]: [..,3]; not finite where W is singular."""
    a, b, c = viewmats[..., :3, :3].unbind(-2)
    t = viewmats[..., :3, 3]
    columns = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -1)
    return -(columns @ t[..., None])[..., 0] / (a * columns[..., 0]).sum(-1, keepdim=True)


def shade(means: Tensor, viewmats: Tensor, sh: Tensor, sh_degree: int) -> Tensor:
    """means [B,N,3], viewmats [B,V,4,4], sh [B,N,K,3] -> colours [B,V,N,3] = max(SH + 0.5, 0)."""
    centres = camera_centres(viewmats)
    d = means[:, None] - centres[:, :, None]
    norm = (d * d).sum(-1, keepdim=True)
    d = d * torch.where(norm > 0, 1 / torch.where(norm > 0, norm, 1.0).sqrt(), 0.0)
    used = (sh_degree + 1) ** 2
    return (torch.einsum("bvnk,bnkc->bvnc", sh_basis(sh_degree, d), sh[:, :, :used]) + 0.5).clamp(min=0)


def normals(means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor) -> Tensor:
    """The axis along which each Gaussian is thinnest, turned towards the camera: [B,V,N,3], world space, length 1."""
    axis = rotations(quats).gather(-1, scales.argmin(-1)[..., None, None].expand(*scales.shape[:2], 3, 1))[..., 0]
    centres = camera_centres(viewmats)
    towards = centres[:, :, None] - means[:, None]
    sign = torch.where((axis[:, None] * towards).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return axis[:, None] * sign.detach()


def _limits(ks: Tensor, width: int, height: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Lower and upper limits [B,V,1,2] of x/z and y/z in the Jacobian."""
    size = ks.new_tensor([width, height])
    f, c = ks[..., [0, 1], [0, 1]], ks[..., :2, 2]
    if symmetric:
        high = 0.65 * size / f
        return -high[:, :, None], high[:, :, None]
    margin = 0.15 * size / f
    return -(c / f + margin)[:, :, None], ((size - c) / f + margin)[:, :, None]


def project(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmats: Tensor, ks: Tensor, sh: Tensor | None,
    counts: Tensor | None, width: int, height: int, sh_degree: int, eps2d: float, near: float, far: float, flags: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As ops.project: splats [B,V,N,8], extents [B,V,N,2], tiles [B,V,N], colours [B,V,N,3] (empty without sh), stats [2]."""
    b, v, n = means.shape[0], viewmats.shape[1], means.shape[1]
    sh = None if sh is None else sh[:, :, : (sh_degree + 1) ** 2]
    present = torch.ones(b, n, dtype=torch.bool, device=means.device)
    if counts is not None:
        present = torch.arange(n, device=means.device) < counts[:, None]
    kept = _finite(means, quats, scales, opacities[..., None], None if sh is None else sh.flatten(2)) & present
    means, quats, scales, opacities = (
        torch.where(kept.reshape(b, n, *[1] * (t.ndim - 2)), t, torch.zeros_like(t)) for t in (means, quats, scales, opacities)
    )
    working = _finite(viewmats[..., :3, :].flatten(2), ks[..., :2, :].flatten(2))
    viewmats, ks = (torch.where(working[..., None, None], t, torch.eye(t.shape[-1]).to(t)) for t in (viewmats, ks))
    p = torch.einsum("bvij,bnj->bvni", viewmats[..., :3, :3], means) + viewmats[..., None, :3, 3]
    inside = (p[..., 2] > near) & (p[..., 2] < far) & kept[:, None] & working[..., None]
    z = torch.where(inside, p[..., 2], 1.0)
    f, c = ks[..., [0, 1], [0, 1]][:, :, None], ks[..., None, :2, 2]
    ratio = p[..., :2] / z[..., None]
    low, high = _limits(ks, width, height, bool(flags & GRAPHDECO))
    clamped = torch.minimum(torch.maximum(ratio, low), high)
    wm = torch.einsum("bvij,bnjk->bvnik", viewmats[..., :3, :3], rotations(quats) * scales[..., None, :])
    root = (f / z[..., None])[..., None] * (wm[..., :2, :] - clamped[..., None] * wm[..., 2:, :])  # J W R S: [B,V,N,2,3]
    q = root @ root.mT
    det0 = torch.linalg.cross(root[..., 0, :], root[..., 1, :]).square().sum(-1)
    c00, c01, c11 = q[..., 0, 0] + eps2d, q[..., 0, 1], q[..., 1, 1] + eps2d
    det = det0 + eps2d * (q[..., 0, 0] + q[..., 1, 1]) + eps2d**2
    opacity = opacities[:, None].expand(b, v, n)
    if flags & ANTIALIASED:
        opacity = opacity * (det0 / det).clamp(min=0.005**2).sqrt()
    xy = ratio * f + c
    root11, root = c11.sqrt(), det.sqrt()  # their squares' product may be too large
    fields = [*xy.unbind(-1), root11 / root, -c01 / root11 / root, 1 / root11, opacity]
    broken = ~(kept[:, None] & working[..., None]) | inside & ~_finite(torch.stack(fields, -1))
    colors = means.new_empty(0)
    if sh is not None:
        colors = shade(means, viewmats, torch.where(kept[..., None, None], sh, 0.0), sh_degree)
        broken = broken | ~_finite(colors)
        colors = torch.where(broken[..., None], 0.0, colors)
    inside = inside & ~broken
    seen = inside & (opacity >= 1 / 255)
    tau = torch.where(seen, (255 * torch.where(seen, opacity, 1.0)).log(), -1.0).detach()
    extents = _extents(c00.detach(), c11.detach(), det.detach(), tau, seen, flags)
    flat = torch.cat([xy.detach() + extents, extents.new_tensor([width, height]) - xy.detach() + extents], -1)
    seen = seen & (flat >= 0).all(-1)
    tau, extents = torch.where(seen, tau, -1.0), torch.where(seen[..., None], extents, 0.0)
    fields = [torch.where(inside, t, 0.0) for t in fields]
    splats = torch.stack([*fields, tau, torch.where(inside, p[..., 2], 0.0)], -1)
    stats = torch.stack([seen.sum(), (present[:, None] & broken).sum()])
    return splats, extents, seen.to(torch.int32), colors, stats


def _finite(*parts: Tensor | None) -> Tensor:
    """Whether all values of a row are finite, in all parts [.., *]: [..]."""
    return torch.stack([torch.isfinite(p).all(-1) for p in parts if p is not None]).all(0)


def _extents(c00: Tensor, c11: Tensor, det: Tensor, tau: Tensor, seen: Tensor, flags: int) -> Tensor:
    """Half width and height [B,V,N,2] in pixels."""
    if flags & GRAPHDECO:
        mid = 0.5 * (c00 + c11)
        radius = torch.ceil(3 * (mid + (mid * mid - det).clamp(min=0.1).sqrt()).sqrt())
        return torch.where(seen, radius, 0.0)[..., None].expand(*radius.shape, 2)
    reach = torch.where(seen, 2 * tau, 0.0)
    return torch.stack([(reach * c00).sqrt(), (reach * c11).sqrt()], -1)


def composite(
    splats: Tensor, features: Tensor, background: Tensor | None, extents: Tensor, tiles: Tensor, probe: Tensor | None,
    width: int, height: int, alpha_limit: float, flags: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """As ops.composite: image [B,V,H,W,C], depth [B,V,H,W] (empty without), transmittance [B,V,H,W].

    `probe` gets the gradient of x and y, but absolute sums need the kernels: its last two columns stay zero.
    """
    b, v, _, _ = splats.shape
    images = []
    for scene in range(b):
        for view in range(v):
            mine = splats[scene, view]
            if probe is not None:
                mine = torch.cat([mine[:, :2] + probe[scene, view, :, :2], mine[:, 2:]], -1)
            f = features[scene, view if features.shape[1] > 1 else 0]
            back = None if background is None else background[scene, view]
            images.append(_composite_view(mine, f, back, extents[scene, view], width, height, alpha_limit, flags))
    shape = (b, v, height, width)
    image, depth, left = (torch.stack(part) for part in zip(*images, strict=True))
    return image.reshape(*shape, -1), depth.reshape(shape) if flags & DEPTH else splats.new_empty(0), left.reshape(shape)


def _composite_view(
    s: Tensor, features: Tensor, background: Tensor | None, extents: Tensor, width: int, height: int, limit: float, flags: int
) -> tuple[Tensor, Tensor, Tensor]:
    order = torch.where(s[:, 6] >= 0, s[:, 7], torch.inf).argsort(stable=True)[: int((s[:, 6] >= 0).sum())]
    s, f, extents = s[order], features[order], extents[order]
    values = torch.cat([f, s[:, 7:]], -1)
    index = torch.arange(width * height, device=s.device)
    pieces = []
    for piece in torch.split(index, max(1, PIXELS_AT_ONCE // max(1, len(order)))):
        column, row = piece % width, piece // width
        u11, u12, u22, opacity, tau = s[:, 2:7].unbind(-1)
        dx, dy = s[:, 0] - (column[:, None] + 0.5), s[:, 1] - (row[:, None] + 0.5)
        sigma = 0.5 * ((u11 * dx + u12 * dy).square() + (u22 * dy).square())
        hit = sigma <= tau
        if flags & GRAPHDECO:
            hit &= _in_square(column[:, None], row[:, None], s[:, :2].detach() - 0.5, extents[:, 0])
        raw = opacity * torch.exp(-torch.where(hit, sigma, 0.0))
        alpha = torch.where(hit, raw.clamp(max=limit), 0.0)
        after = (1 - alpha).cumprod(-1)
        going = after >= STOP if flags & GRAPHDECO else after > STOP
        going = going.to(torch.int8).cummin(-1).values.bool()  # nothing counts behind the one that stops
        alpha = torch.where(going, alpha, 0.0)
        before = torch.cat([alpha.new_ones(len(alpha), 1), (1 - alpha).cumprod(-1)], -1)
        pieces.append(torch.cat([(alpha * before[:, :-1]) @ values, before[:, -1:]], -1))
    out = torch.cat(pieces)
    image, depth, left = out[:, :-2], out[:, -2], out[:, -1]
    if background is not None:
        image = image + left[:, None] * background
    return image, depth, left


def _in_square(column: Tensor, row: Tensor, xy: Tensor, radius: Tensor) -> Tensor:
    """Whether the pixel's tile is one of those that the square of 3 sigma touches, as the original rounds it."""
    hit = torch.ones((), dtype=torch.bool, device=xy.device)
    for pixel, centre in ((column, xy[:, 0]), (row, xy[:, 1])):
        tile = pixel // TILE
        low, high = torch.trunc((centre - radius) / TILE), torch.trunc((centre + radius + TILE - 1) / TILE)
        hit = hit & (tile >= low.clamp(min=0)) & (tile < high)
    return hit
