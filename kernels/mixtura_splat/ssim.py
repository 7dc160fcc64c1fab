"""Structural similarity of images, differentiable in both: `ssim` gives the mean, `ssim_map` the value at every pixel.

Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, from error visibility to structural similarity (IEEE TIP 13(4),
2004), equation 13 with the window of section III.C: Gaussian, 11 x 11, sigma 1.5, K1 = 0.01, K2 = 0.03, biased moments,
each channel by itself.

Compiled kernels do forward and backward in one pass over the images each; where there are none, depthwise convolutions
of PyTorch do the same. Neither multi-scale SSIM nor other windows are here.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn import functional as F

from mixtura_splat import backend

Layout = Literal["channels_last", "channels_first"]
Padding = Literal["same", "valid"]

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
REACH = WINDOW // 2


def ssim(
    a: Tensor,
    b: Tensor,
    *,
    data_range: float = 1.0,
    padding: Padding = "same",
    layout: Layout = "channels_last",
    kernels: bool | None = None,
) -> Tensor:
    """Mean structural similarity of images a and b over all pixels, channels and images: a scalar in [-1, 1].

    a and b: [.., H, W, C], or [.., C, H, W] with layout "channels_first"; values in [0, data_range] (nothing checks that).
    float32 (float64 for checks, CPU only in kernels); half precision is cast to float32. Gradients reach both.

    padding "same" counts as 0 what a window meets outside the image; "valid" leaves out the 5 pixels along each side where
    that happens. `kernels` forces the compiled kernels (True) or PyTorch (False); by default kernels are used where there
    are any.

    Raises ValueError or TypeError naming what does not fit, and backend.BackendMissing with `kernels=True` and none.
    """
    # row by row: more exact than one long sum, and the same for any number of threads
    return _planes_of_map(a, b, data_range, padding, layout, kernels).mean(2).mean(1).mean()


def ssim_map(
    a: Tensor,
    b: Tensor,
    *,
    data_range: float = 1.0,
    padding: Padding = "same",
    layout: Layout = "channels_last",
    kernels: bool | None = None,
) -> Tensor:
    """Structural similarity around every pixel, in [-1, 1]; arguments and errors as for `ssim`.

    The result is [.., H, W, C] or [.., C, H, W] as the images, with H - 10 and W - 10 in place of H and W when padding is
    "valid".
    """
    planes = _planes_of_map(a, b, data_range, padding, layout, kernels)
    size = planes.shape[1:]
    if layout == "channels_first":
        return planes.reshape(*a.shape[:-2], *size)
    return planes.reshape(*a.shape[:-3], a.shape[-1], *size).movedim(-3, -1)


def _planes_of_map(a: Tensor, b: Tensor, data_range: float, padding: Padding, layout: Layout, kernels: bool | None) -> Tensor:
    """Similarity [P, H, W] of all channels of all images, cropped if padding is "valid"."""
    _check_choices(data_range, padding, layout)
    a, b = _check_images(a, b)
    planes_a, planes_b = _planes(a, layout), _planes(b, layout)
    high, wide = planes_a.shape[1:]
    if padding == "valid" and min(high, wide) < WINDOW:
        raise ValueError(f'padding "valid" needs images of {WINDOW} x {WINDOW} pixels or more, not {high} x {wide} (H x W)')
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    if not backend.wants_kernels(a, kernels):
        with torch.autocast(a.device.type, enabled=False):  # convolutions would be rounded to half precision
            similarity = reference(planes_a, planes_b, c1, c2)
    else:
        keep = torch.is_grad_enabled() and planes_a.requires_grad
        similarity, _ = _ssim(planes_a, planes_b, c1, c2, keep)
    if padding == "valid":
        return similarity[:, REACH:-REACH, REACH:-REACH]
    return similarity


def _check_choices(data_range: float, padding: str, layout: str) -> None:
    if not 0 < data_range < math.inf:
        raise ValueError(f"data_range: a number above 0 is needed, got {data_range}")
    if padding not in ("same", "valid"):
        raise ValueError(f'padding: "same" or "valid", not {padding!r}')
    if layout not in ("channels_last", "channels_first"):
        raise ValueError(f'layout: "channels_last" or "channels_first", not {layout!r}')


def _check_images(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both images, half precision as float32."""
    if not a.is_floating_point() or not b.is_floating_point():
        raise TypeError(f"a and b: floating point is needed, got {a.dtype} and {b.dtype}; divide bytes by 255")
    a, b = (image.float() if image.dtype in (torch.float16, torch.bfloat16) else image for image in (a, b))
    if a.dtype != b.dtype:
        raise TypeError(f"a and b: one dtype is needed, got {a.dtype} and {b.dtype}")
    if a.device != b.device:
        raise ValueError(f"a and b: one device is needed, got {a.device} and {b.device}")
    if a.shape != b.shape or a.ndim < 3 or not a.numel():
        raise ValueError(
            "a and b: one shape is needed, [.., H, W, C] or [.., C, H, W], and not empty; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    return a, b


def _planes(images: Tensor, layout: Layout) -> Tensor:
    """Every channel of every image as [P, H, W], contiguous."""
    if layout == "channels_last":
        images = images.movedim(-1, -3)
    return images.reshape(-1, *images.shape[-2:]).contiguous()


def reference(a: Tensor, b: Tensor, c1: float, c2: float) -> Tensor:
    """The same in plain PyTorch: similarity of planes [P, H, W], zeros outside. The yardstick of the tests."""
    mean_a, mean_b, aa, bb, ab = _blur(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
    variances, covariance = (aa - mean_a**2) + (bb - mean_b**2), ab - mean_a * mean_b
    means = mean_a**2 + mean_b**2
    return (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((means + c1) * (variances + c2))


def _blur(planes: Tensor) -> Tensor:
    """The window's mean around every pixel of [P, H, W]: along columns, then along rows."""
    offsets = torch.arange(WINDOW, dtype=torch.float64, device=planes.device) - REACH
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = (weights / weights.sum()).to(planes.dtype).expand(len(planes), 1, WINDOW)
    # depthwise: several times faster than planes as a batch, and never in TF32
    columns = F.conv2d(planes[None], weights[..., None], padding=(REACH, 0), groups=len(planes))
    return F.conv2d(columns, weights[:, :, None], padding=(0, REACH), groups=len(planes))[0]


# ---- the kernels as operators ------------------------------------------------------------------------------------------


@custom_op("mixtura_splat::ssim", mutates_args=())
def _ssim(a: Tensor, b: Tensor, c1: float, c2: float, keep: bool) -> tuple[Tensor, Tensor]:
    """Similarity [P, H, W]; if `keep`, its derivatives by the window's means of a, a^2 and ab [3, P, H, W] too, else [0]."""
    _check_alike(a, b)
    similarity, partials = torch.empty_like(a), a.new_empty((3, *a.shape) if keep else (0,))
    _call("ssim", a, c1, c2, a, b, similarity, partials if keep else None)
    return similarity, partials


@_ssim.register_fake
def _(a, b, c1, c2, keep):  # type: ignore[no-untyped-def]
    return torch.empty_like(a), a.new_empty((3, *a.shape) if keep else (0,))


@custom_op("mixtura_splat::ssim_backward", mutates_args=())
def _ssim_backward(a: Tensor, b: Tensor, v_map: Tensor, partials: Tensor) -> Tensor:
    """Gradient of a [P, H, W]; `partials` as `_ssim` keeps them."""
    _check_alike(a, b, v_map)
    _check_alike(a.expand(3, *a.shape), partials)
    v_a = torch.empty_like(a)
    _call("ssim_backward", a, a, b, v_map.contiguous(), partials, v_a)
    return v_a


@_ssim_backward.register_fake
def _(a, b, v_map, partials):  # type: ignore[no-untyped-def]
    return torch.empty_like(a)


def _check_alike(a: Tensor, *others: Tensor) -> None:
    """The kernels read as far as the shape of `a` says."""
    kind = a.shape, a.dtype, a.device
    if any((other.shape, other.dtype, other.device) != kind for other in others):
        raise ValueError(f"ssim: arrays of one kind are needed, got {kind} and others")


def _call(function: str, planes: Tensor, *arguments: Tensor | float | None) -> None:
    count, high, wide = planes.shape
    backend.call(function, planes, backend.options(planes, 1, 1, 0, wide, high), count, *arguments)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a, b, *ctx.constants, _ = inputs
    ctx.save_for_backward(a, b, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _vjp(ctx: Any, v_map: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    a, b, partials = ctx.saved_tensors
    v_a = v_b = None
    if v_map is not None and ctx.needs_input_grad[0]:
        if not partials.numel():
            _, partials = _ssim(a, b, *ctx.constants, True)
        v_a = _ssim_backward(a, b, v_map, partials)
    if v_map is not None and ctx.needs_input_grad[1]:  # as that of a with the roles exchanged: similarity is symmetric
        _, partials = _ssim(b, a, *ctx.constants, True)
        v_b = _ssim_backward(b, a, v_map, partials)
    return v_a, v_b, None, None, None


_ssim.register_autograd(_vjp, setup_context=_setup)
for _device in ("cpu", "cuda"):
    _ssim.register_autocast(_device, torch.float32)
