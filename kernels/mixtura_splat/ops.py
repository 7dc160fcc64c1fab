"""The differentiable stages as PyTorch operators: project, shade, composite (and their backward operators).

Shapes here are always complete: B scenes, V views, N Gaussians, H x W pixels. `rasterize` (rasterize.py) is the front
door; use the stages to put something of your own between them. All are registered with torch.library: fake tensors,
torch.compile and autocast (to float32) work.

A projected splat is 8 numbers (csrc/math.h): x, y [pixels], u11, u12, u22 (factor of the inverse covariance), opacity,
tau = ln(255 opacity) (negative: not seen), depth [camera z].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from mixtura_splat import backend
from mixtura_splat.backend import FIELDS, TILE

Optional = Tensor | None


def _sizes(means: Tensor, viewmats: Tensor) -> tuple[int, int, int]:
    return means.shape[0], viewmats.shape[1], means.shape[1]


def _lens(eps2d: float, near: float, far: float) -> dict[str, float]:
    return {"eps": eps2d, "near_z": near, "far_z": far}


def _shading(sh: Optional, degree: int) -> dict[str, int]:
    return {} if sh is None else {"sh_degree": degree, "sh_coefficients": sh.shape[2]}


def _check(like: Tensor, **arrays: tuple[Optional, tuple[int | None, ...]]) -> None:
    """The kernels read as far as the sizes say: {name: (array or None, its shape, None for any length)}."""
    for name, (array, shape) in arrays.items():
        if array is None:
            continue
        fits = array.ndim == len(shape) and all(want in (None, size) for want, size in zip(shape, array.shape, strict=True))
        dtype = {"counts": torch.int64, "tiles": torch.int32}.get(name, like.dtype)
        if not fits or array.dtype != dtype or array.device != like.device:
            wanted = f"{dtype} {[size if size is not None else '..' for size in shape]} on {like.device}"
            raise ValueError(f"{name}: {wanted} is needed, got {array.dtype} {list(array.shape)} on {array.device}")


def _check_sh(sh: Optional, degree: int) -> None:
    if sh is not None and not (0 <= degree <= 4 and (degree + 1) ** 2 <= sh.shape[2]):
        raise ValueError(f"sh_degree: 0 to 4 with at least (sh_degree + 1)^2 coefficients, got {degree} with {sh.shape[2]}")


def tile_count(width: int, height: int) -> int:
    """Tiles of 16 x 16 pixels of an image."""
    return -(-width // TILE) * -(-height // TILE)


# ---- project ---------------------------------------------------------------------------------------------------------


@custom_op("mixtura_splat::project", mutates_args=())
def _project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    ks: Tensor,
    sh: Optional,
    counts: Optional,
    width: int,
    height: int,
    sh_degree: int,
    eps2d: float,
    near: float,
    far: float,
    flags: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    b, v, n = _sizes(means, viewmats)
    _check(
        means, means=(means, (b, n, 3)), quats=(quats, (b, n, 4)), scales=(scales, (b, n, 3)), opacities=(opacities, (b, n)),
        viewmats=(viewmats, (b, v, 4, 4)), ks=(ks, (b, v, 3, 3)), sh=(sh, (b, n, None, 3)), counts=(counts, (b,)),
    )  # fmt: skip
    _check_sh(sh, sh_degree)
    splats = means.new_empty(b, v, n, FIELDS)
    extents = means.new_empty(b, v, n, 2)
    tiles = torch.empty(b, v, n, dtype=torch.int32, device=means.device)
    colors = means.new_empty((b, v, n, 3) if sh is not None else (0,))
    stats = torch.zeros(2, dtype=torch.int64, device=means.device)
    opts = backend.options(means, b, v, n, width, height, flags=flags, **_lens(eps2d, near, far), **_shading(sh, sh_degree))
    inputs = [_flat(t) for t in (means, quats, scales, opacities, viewmats, ks, counts, sh)]
    backend.call("project", means, opts, *inputs, splats, extents, tiles, colors if sh is not None else None, stats)
    return splats, extents, tiles, colors, stats


@_project.register_fake
def _(means, quats, scales, opacities, viewmats, ks, sh, counts, width, height, sh_degree, eps2d, near, far, flags):  # type: ignore[no-untyped-def]
    b, v, n = _sizes(means, viewmats)
    return (
        means.new_empty(b, v, n, FIELDS),
        means.new_empty(b, v, n, 2),
        means.new_empty(b, v, n, dtype=torch.int32),
        means.new_empty((b, v, n, 3) if sh is not None else (0,)),
        means.new_empty(2, dtype=torch.int64),
    )


@custom_op("mixtura_splat::project_backward", mutates_args=())
def _project_backward(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmats: Tensor,
    ks: Tensor,
    sh: Optional,
    splats: Tensor,
    colors: Tensor,
    v_splats: Tensor,
    v_colors: Optional,
    width: int,
    height: int,
    sh_degree: int,
    eps2d: float,
    near: float,
    far: float,
    flags: int,
    camera: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    b, v, n = _sizes(means, viewmats)
    shaded = sh is not None and v_colors is not None
    out = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (means, quats, scales, opacities)]
    v_sh = torch.empty_like(sh, memory_format=torch.contiguous_format) if sh is not None else means.new_empty(0)
    if sh is not None and not shaded:
        v_sh.zero_()
    poses = (viewmats.new_empty(viewmats.shape), ks.new_empty(ks.shape)) if camera else (means.new_empty(0), means.new_empty(0))
    opts = backend.options(means, b, v, n, width, height, flags=flags, **_lens(eps2d, near, far), **_shading(sh, sh_degree))
    inputs = [_flat(t) for t in (means, quats, scales, opacities, viewmats, ks)]
    with_sh = (_flat(sh), splats, colors) if shaded else (None, splats, None)
    cotangents = (_flat(v_splats), _flat(v_colors) if shaded else None)
    results = (*out, v_sh if shaded else None, *(poses if camera else (None, None)))
    backend.call(
        "project_backward", means, opts, *inputs, *with_sh, *cotangents, *results, scratch=(backend.FOR_PROJECT_BACKWARD, 0)
    )
    return out[0], out[1], out[2], out[3], v_sh, poses[0], poses[1]


@_project_backward.register_fake
def _(means, quats, scales, opacities, viewmats, ks, sh, splats, colors, v_splats, v_colors, *options):  # type: ignore[no-untyped-def]
    camera = options[-1]
    return (
        *(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (means, quats, scales, opacities)),
        torch.empty_like(sh, memory_format=torch.contiguous_format) if sh is not None else means.new_empty(0),
        viewmats.new_empty(viewmats.shape) if camera else means.new_empty(0),
        ks.new_empty(ks.shape) if camera else means.new_empty(0),
    )


def _project_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    means, quats, scales, opacities, viewmats, ks, sh, _, *options = inputs
    splats, extents, tiles, colors, stats = output
    ctx.save_for_backward(means, quats, scales, opacities, viewmats, ks, sh, splats, colors)
    ctx.options = options
    ctx.mark_non_differentiable(extents, tiles, stats)
    ctx.set_materialize_grads(False)


def _project_vjp(ctx: Any, v_splats: Optional, _extents: Any, _tiles: Any, v_colors: Optional, _stats: Any) -> tuple[Any, ...]:
    *inputs, sh, splats, colors = ctx.saved_tensors
    nothing = (None,) * 15
    if v_splats is None and v_colors is None:
        return nothing
    if v_splats is None:
        v_splats = torch.zeros_like(splats)
    camera = ctx.needs_input_grad[4] or ctx.needs_input_grad[5]
    if sh is None:
        v_colors = None
    grads = _project_backward(*inputs, sh, splats, colors, v_splats, v_colors, *ctx.options, camera)
    v_sh = grads[4] if sh is not None else None
    poses = grads[5:] if camera else (None, None)
    return (*grads[:4], *poses, v_sh, *nothing[7:])


_project.register_autograd(_project_vjp, setup_context=_project_setup)


# ---- shade -----------------------------------------------------------------------------------------------------------


@custom_op("mixtura_splat::shade", mutates_args=())
def _shade(means: Tensor, viewmats: Tensor, sh: Tensor, sh_degree: int) -> Tensor:
    b, v, n = _sizes(means, viewmats)
    _check(means, means=(means, (b, n, 3)), viewmats=(viewmats, (b, v, 4, 4)), sh=(sh, (b, n, None, 3)))
    _check_sh(sh, sh_degree)
    colors = means.new_empty(b, v, n, 3)
    opts = backend.options(means, b, v, n, 1, 1, **_shading(sh, sh_degree))
    backend.call("shade", means, opts, _flat(means), _flat(viewmats), _flat(sh), colors)
    return colors


@_shade.register_fake
def _(means, viewmats, sh, sh_degree):  # type: ignore[no-untyped-def]
    return means.new_empty(*means.shape[:1], viewmats.shape[1], means.shape[1], 3)


@custom_op("mixtura_splat::shade_backward", mutates_args=())
def _shade_backward(
    means: Tensor, viewmats: Tensor, sh: Tensor, colors: Tensor, v_colors: Tensor, sh_degree: int, camera: bool
) -> tuple[Tensor, Tensor, Tensor]:
    b, v, n = _sizes(means, viewmats)
    v_means, v_sh = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (means, sh))
    v_viewmats = viewmats.new_empty(viewmats.shape if camera else (0,))
    opts = backend.options(means, b, v, n, 1, 1, **_shading(sh, sh_degree))
    inputs = [_flat(t) for t in (means, viewmats, sh, colors, v_colors)]
    backend.call(
        "shade_backward", means, opts, *inputs, v_means, v_viewmats if camera else None, v_sh,
        scratch=(backend.FOR_PROJECT_BACKWARD, 0),
    )  # fmt: skip
    return v_means, v_viewmats, v_sh


@_shade_backward.register_fake
def _(means, viewmats, sh, colors, v_colors, sh_degree, camera):  # type: ignore[no-untyped-def]
    v_means, v_sh = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (means, sh))
    return v_means, viewmats.new_empty(viewmats.shape if camera else (0,)), v_sh


def _shade_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3], output)
    ctx.degree = inputs[3]


def _shade_vjp(ctx: Any, v_colors: Tensor) -> tuple[Any, ...]:
    means, viewmats, sh, colors = ctx.saved_tensors
    camera = ctx.needs_input_grad[1]
    v_means, v_viewmats, v_sh = _shade_backward(means, viewmats, sh, colors, v_colors, ctx.degree, camera)
    return v_means, v_viewmats if camera else None, v_sh, None


_shade.register_autograd(_shade_vjp, setup_context=_shade_setup)


# ---- composite -------------------------------------------------------------------------------------------------------


def _composite_options(
    splats: Tensor, features: Tensor, width: int, height: int, alpha_limit: float, flags: int
) -> backend.Options:
    b, v, n, _ = splats.shape
    flags |= backend.SHARED_FEATURES if features.shape[1] == 1 and v > 1 else 0
    return backend.options(splats, b, v, n, width, height, channels=features.shape[3], flags=flags, alpha_limit=alpha_limit)


def _entries(tiles: Tensor) -> int:
    """How long the lists of all views will be. Raises RuntimeError when those of a view are too long, before memory is taken."""
    views = tiles.sum(2, dtype=torch.int64).flatten().tolist()
    if max(views, default=0) >= 2**31:
        raise RuntimeError(
            f"tiles: {max(views)} list entries in one view, but fewer than 2^31 fit. Remedy: fewer or smaller Gaussians, or a "
            "smaller image"
        )
    return sum(views)


@custom_op("mixtura_splat::composite", mutates_args=())
def _composite(
    splats: Tensor,
    features: Tensor,
    background: Optional,
    extents: Tensor,
    tiles: Tensor,
    probe: Optional,
    width: int,
    height: int,
    alpha_limit: float,
    flags: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    b, v, n, _ = splats.shape
    _check(
        splats, splats=(splats, (b, v, n, FIELDS)), features=(features, (b, 1 if features.shape[1] == 1 else v, n, None)),
        background=(background, (b, v, features.shape[-1])), extents=(extents, (b, v, n, 2)), tiles=(tiles, (b, v, n)),
    )  # fmt: skip
    splats, features, background, extents, tiles = map(_flat, (splats, features, background, extents, tiles))
    opts = _composite_options(splats, features, width, height, alpha_limit, flags)
    device = splats.device
    entries = _entries(tiles)
    ids = torch.empty(entries, dtype=torch.int32, device=device)
    with_slots = not splats.is_cuda or bool(flags & backend.DETERMINISTIC)
    slots = torch.empty(entries if with_slots else 0, dtype=torch.int32, device=device)
    first = torch.empty((b, v, n) if with_slots else (0,), dtype=torch.int32, device=device)
    ranges = torch.empty(b * v, tile_count(width, height) + 1, dtype=torch.int64, device=device)
    links = (slots, first) if with_slots else (None, None)
    backend.call("bin", splats, opts, splats, extents, tiles, entries, ids, *links, ranges, scratch=(backend.FOR_BIN, entries))
    image = splats.new_empty(b, v, height, width, features.shape[3])
    depth = splats.new_empty((b, v, height, width) if flags & backend.DEPTH else (0,))
    transmittance = splats.new_empty(b, v, height, width)
    last = torch.empty(b, v, height, width, dtype=torch.int32, device=device)
    backend.call(
        "composite", splats, opts, splats, features, background, ids, ranges, image,
        depth if flags & backend.DEPTH else None, transmittance, last,
    )  # fmt: skip
    return image, depth, transmittance, last, ids, slots, first, ranges


@_composite.register_fake
def _(splats, features, background, extents, tiles, probe, width, height, alpha_limit, flags):  # type: ignore[no-untyped-def]
    b, v, n, _ = splats.shape
    entries = torch.library.get_ctx().new_dynamic_size()
    with_slots = splats.device.type != "cuda" or bool(flags & backend.DETERMINISTIC)
    return (
        splats.new_empty(b, v, height, width, features.shape[3]),
        splats.new_empty((b, v, height, width) if flags & backend.DEPTH else (0,)),
        splats.new_empty(b, v, height, width),
        splats.new_empty(b, v, height, width, dtype=torch.int32),
        splats.new_empty(entries, dtype=torch.int32),
        splats.new_empty(entries if with_slots else 0, dtype=torch.int32),
        splats.new_empty((b, v, n) if with_slots else (0,), dtype=torch.int32),
        splats.new_empty(b * v, tile_count(width, height) + 1, dtype=torch.int64),
    )


@custom_op("mixtura_splat::composite_backward", mutates_args=())
def _composite_backward(
    splats: Tensor,
    features: Tensor,
    background: Optional,
    tiles: Tensor,
    transmittance: Tensor,
    last: Tensor,
    ids: Tensor,
    slots: Tensor,
    first: Tensor,
    ranges: Tensor,
    v_image: Optional,
    v_depth: Optional,
    v_transmittance: Optional,
    width: int,
    height: int,
    alpha_limit: float,
    flags: int,
    absolute: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    b, v, n, _ = splats.shape
    splats, features, background = _flat(splats), _flat(features), _flat(background)
    opts = _composite_options(splats, features, width, height, alpha_limit, flags)
    v_splats, v_features = torch.empty_like(splats), torch.empty_like(features)
    v_absolute = splats.new_empty((b, v, n, 2) if absolute else (0,))
    links = (slots, first) if first.numel() or not splats.is_cuda else (None, None)
    backend.call(
        "composite_backward", splats, opts, splats, features, background, ids, tiles, *links, ranges, transmittance, last,
        _flat(v_image), _flat(v_depth), _flat(v_transmittance), v_splats, v_features, v_absolute if absolute else None,
        scratch=(backend.FOR_COMPOSITE_BACKWARD, ids.shape[0]),
    )  # fmt: skip
    return v_splats, v_features, v_absolute


@_composite_backward.register_fake
def _(splats, features, *others):  # type: ignore[no-untyped-def]
    b, v, n, _ = splats.shape
    absolute = others[-1]
    return (
        torch.empty_like(splats, memory_format=torch.contiguous_format),
        torch.empty_like(features, memory_format=torch.contiguous_format),
        splats.new_empty((b, v, n, 2) if absolute else (0,)),
    )


def _composite_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    splats, features, background, _, tiles, probe, *options = inputs
    _, depth, transmittance, last, ids, slots, first, ranges = output
    ctx.save_for_backward(splats, features, background, tiles, transmittance, last, ids, slots, first, ranges)
    ctx.options, ctx.probed = options, probe is not None
    unmarked = (last, ids, slots, first, ranges)
    ctx.mark_non_differentiable(*unmarked, *(() if options[3] & backend.DEPTH else (depth,)))
    ctx.set_materialize_grads(False)


def _composite_vjp(ctx: Any, v_image: Optional, v_depth: Optional, v_transmittance: Optional, *_: Any) -> tuple[Any, ...]:
    splats, features, background, tiles, transmittance, *rest = ctx.saved_tensors
    if v_image is None and v_depth is None and v_transmittance is None:
        return (None,) * 10
    width, height, alpha_limit, flags = ctx.options
    v_splats, v_features, v_absolute = _composite_backward(
        splats, features, background, tiles, transmittance, *rest, v_image, v_depth, v_transmittance,
        width, height, alpha_limit, flags, ctx.probed,
    )  # fmt: skip
    v_background = None
    if background is not None and ctx.needs_input_grad[2] and v_image is not None:
        # row by row: more exact than one long sum, the same for any number of threads, and in float32 under autocast
        v_background = (transmittance[..., None] * v_image).sum(3).sum(2)
    v_probe = torch.cat([v_splats[..., :2], v_absolute], -1) if ctx.probed else None
    return v_splats, v_features, v_background, None, None, v_probe, None, None, None, None


_composite.register_autograd(_composite_vjp, setup_context=_composite_setup)


def _flat(tensor: Optional) -> Any:
    return None if tensor is None else tensor.contiguous()


def _no_second_vjp(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "mixtura_splat: the kernels have first derivatives only. Remedy: kernels=False, whose PyTorch has them all"
    )


for _op in (_project_backward, _shade_backward, _composite_backward):
    _op.register_autograd(_no_second_vjp)
project, shade, composite = _project, _shade, _composite
for _op in (_project, _shade, _composite):
    for _device in ("cpu", "cuda"):
        _op.register_autocast(_device, torch.float32)
