"""How near an image is to another: PSNR, SSIM and GMSD, per image, in float64 on the images' device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
"""The window and constants of Wang et al. 2004, section III.C."""


def psnr(predicted: Tensor, target: Tensor, peak: float | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB of images (..., C, H, W); returns float64 (...), inf for equal images.

    `peak` is the largest possible value: 255 for uint8 and 1 for floats when left out. Raises ValueError when shapes differ.
    """
    predicted, target, peak = _checked(predicted, target, peak)
    error = (predicted - target).square().mean(dim=(-3, -2, -1))
    return 10 * torch.log10(peak * peak / error)


def ssim(predicted: Tensor, target: Tensor, peak: float | None = None) -> Tensor:
    """Structural similarity of images (..., C, H, W), mean over channels and places; returns float64 (...).

    Gaussian window of 11 x 11 (sigma 1.5), only where it lies within the image, biased moments: Wang et al. 2004,
    equation 13. `peak` as in `psnr`. Raises ValueError when shapes differ or a side is shorter than 11.
    """
    predicted, target, peak = _checked(predicted, target, peak)
    if min(target.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of {WINDOW} x {WINDOW} or more, not {tuple(target.shape[-2:])}")
    x, y = predicted.reshape(-1, 1, *target.shape[-2:]), target.reshape(-1, 1, *target.shape[-2:])
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return similarity.mean(dim=(-3, -2, -1)).reshape(target.shape[:-2]).mean(-1)


def _checked(predicted: Tensor, target: Tensor, peak: float | None) -> tuple[Tensor, Tensor, float]:
    """Both in float64, and the peak; refuses shapes and kinds that don't match."""
    if predicted.shape != target.shape or target.ndim < 3:
        raise ValueError(f"both images must be (..., C, H, W), not {tuple(predicted.shape)} and {tuple(target.shape)}")
    if predicted.is_floating_point() != target.is_floating_point() and peak is None:
        raise ValueError(f"one image is {predicted.dtype}, the other {target.dtype}; bring them to one range, or give peak")
    if peak is None:
        peak = 1.0 if target.is_floating_point() else 255.0
    return predicted.double(), target.double(), float(peak)


def _blur(images: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, 1, H - 10, W - 10): the Gaussian is separable, so rows and columns one after the other."""
    offsets = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    kernel = kernel / kernel.sum()
    return F.conv2d(F.conv2d(images, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def gmsd(predicted: Tensor, target: Tensor, peak: float | None = None) -> Tensor:
    """Gradient magnitude similarity deviation of images (..., C, H, W): 0 for equal ones, larger is worse; float64 (...).

    Xue et al. 2014, section II: the mean of the channels, halved, Prewitt gradients, c = 170 / 255^2; the standard deviation of
    their similarity over the image follows human judgement closely and needs no weights. `peak` as in `psnr`. Raises
    ValueError when shapes differ or a side is shorter than 4.
    """
    predicted, target, peak = _checked(predicted, target, peak)
    if min(target.shape[-2:]) < 4:
        raise ValueError(f"GMSD needs images of 4 x 4 or more, not {tuple(target.shape[-2:])}")
    a, b = (_gradients(images.mean(-3) / peak) for images in (predicted, target))
    c = 170 / 255**2
    similarity = (2 * a * b + c) / (a.square() + b.square() + c)
    return similarity.flatten(-2).std(-1, correction=0)


def _gradients(images: Tensor) -> Tensor:
    """Magnitudes of the Prewitt gradients of images (..., H, W), at half their size."""
    flat = F.avg_pool2d(images.reshape(-1, 1, *images.shape[-2:]), 2)
    slope = torch.tensor([[1.0, 0.0, -1.0]] * 3, dtype=flat.dtype, device=flat.device).view(1, 1, 3, 3) / 3
    padded = F.pad(flat, (1, 1, 1, 1), mode="replicate")
    across, down = F.conv2d(padded, slope), F.conv2d(padded, slope.mT.contiguous())
    return (across.square() + down.square() + 1e-24).sqrt().reshape(*images.shape[:-2], *flat.shape[-2:])
