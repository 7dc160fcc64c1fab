"""Structural similarity: the kernels against convolutions and finite differences, and the contract of ssim and ssim_map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixtura_splat import backend, ssim
from mixtura_splat.ssim import Padding, ssim_map

SIZES = [(1, 1), (5, 7), (11, 11), (33, 20), (1, 200), (200, 1), (70, 300)]
ids = "{0[0]}x{0[1]}".format


def pair(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two images that are somewhat alike, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(shape, dtype=torch.float64, generator=generator)
    b = (a + 0.2 * torch.randn(shape, dtype=torch.float64, generator=generator)).clamp(0, 1)
    return a.to(dtype), b.to(dtype)


def results(a: Tensor, b: Tensor, function: Callable[..., Tensor] = ssim_map, **options: Any) -> tuple[Tensor, ...]:
    """What `function` gives and the gradients of a and b, each value with another weight."""
    a, b = (image.detach().clone().requires_grad_() for image in (a, b))
    out = function(a, b, **options)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    return out.detach(), *torch.autograd.grad(out, (a, b), weights)


def direct(a: Tensor, b: Tensor) -> Tensor:
    """Equation 13 at the middle pixel of two 11 x 11 images, straight from the definition."""
    offsets = torch.arange(11, dtype=torch.float64) - 5
    window = torch.exp(-(offsets[:, None] ** 2 + offsets**2) / 4.5)
    window /= window.sum()
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    covariance = (window * (a - mean_a) * (b - mean_b)).sum()
    spread = (window * (a - mean_a) ** 2).sum() + (window * (b - mean_b) ** 2).sum()
    return (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4) / ((mean_a**2 + mean_b**2 + 1e-4) * (spread + 9e-4))


@pytest.mark.parametrize("kernels", [True, False])
def test_the_map_is_the_formula(kernels: bool) -> None:
    a, b = pair(11, 11, 1, dtype=torch.float64)
    assert ssim_map(a, b, kernels=kernels)[5, 5, 0] == pytest.approx(direct(a[..., 0], b[..., 0]).item(), abs=1e-14)


@pytest.mark.parametrize("size", SIZES, ids=ids)
def test_float32_is_near_convolutions_in_float64(size: tuple[int, int]) -> None:
    a, b = pair(2, *size, 3)
    ours, exact = results(a, b, kernels=True), results(a.double(), b.double(), kernels=False)
    assert torch.allclose(ours[0].double(), exact[0], rtol=0, atol=1e-6)
    for gradient, expected in zip(ours[1:], exact[1:], strict=True):
        assert (gradient - expected).norm() < 3e-6 * expected.norm()


@pytest.mark.parametrize("size", SIZES, ids=ids)
def test_float64_equals_convolutions(size: tuple[int, int]) -> None:
    a, b = pair(*size, 2, dtype=torch.float64)
    for ours, expected in zip(results(a, b, kernels=True), results(a, b, kernels=False), strict=True):
        assert torch.allclose(ours, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("level", ["v2", "v3", "v4"])
def test_every_instruction_set_gives_the_same(level: str, fresh_backend: pytest.MonkeyPatch) -> None:
    if f"cpu-{level}" not in backend.processor_levels():
        pytest.skip("this processor does not run it")
    a, b = pair(37, 45, 3)
    fresh_backend.setenv("MIXTURA_SPLAT_LEVEL", level)
    ours, exact = results(a, b, kernels=True), results(a.double(), b.double(), kernels=False)
    assert torch.allclose(ours[0].double(), exact[0], rtol=0, atol=1e-6)
    assert (ours[1] - exact[1]).norm() < 3e-6 * exact[1].norm()


def test_bright_even_images_keep_their_digits() -> None:
    a, noise = pair(40, 40, 1, dtype=torch.float64)
    a = 0.9 + 0.02 * a
    b = a + 1e-3 * noise
    exact, ours = ssim_map(a, b, kernels=False), ssim_map(a.float(), b.float(), kernels=True)
    assert (ours - exact).abs().max() < 2e-6  # convolutions in float32: 4e-4


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [(12, 13), (13, 12)], ids=ids)
def test_gradients_against_finite_differences(size: tuple[int, int], padding: Padding) -> None:
    a, b = (image.requires_grad_() for image in pair(*size, 1, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x, y: ssim_map(x, y, padding=padding, kernels=True), (a, b), atol=1e-6)
    assert torch.autograd.gradcheck(lambda x, y: ssim(x, y, padding=padding, kernels=True), (a, b), atol=1e-6)


def test_planes_do_not_mix() -> None:
    a, b = pair(2, 3, 19, 23, 3)
    together, one_by_one = (
        ssim_map(a, b),
        [[ssim_map(x, y) for x, y in zip(i, j, strict=True)] for i, j in zip(a, b, strict=True)],
    )
    assert torch.equal(together, torch.stack([torch.stack(row) for row in one_by_one]))
    assert torch.equal(together[..., :1], ssim_map(a[..., :1], b[..., :1]))


def test_channels_may_come_first() -> None:
    a, b = pair(2, 19, 23, 3)
    first = [image.movedim(-1, -3) for image in (a, b)]
    assert torch.equal(ssim_map(a, b).movedim(-1, -3), ssim_map(*first, layout="channels_first"))
    assert torch.equal(ssim(a, b), ssim(*first, layout="channels_first"))


def test_valid_leaves_out_what_meets_the_border() -> None:
    a, b = pair(2, 15, 30, 3)
    whole, inner = ssim_map(a, b), ssim_map(a, b, padding="valid")
    assert torch.equal(inner, whole[:, 5:-5, 5:-5])
    assert ssim(a, b, padding="valid").item() == pytest.approx(inner.mean().item(), abs=1e-6)


def test_the_unit_of_values_does_not_matter() -> None:
    a, b = pair(20, 20, 3)
    assert ssim(255 * a, 255 * b, data_range=255).item() == pytest.approx(ssim(a, b).item(), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_do_not_depend_on_threads(dtype: torch.dtype) -> None:
    a, b = pair(3, 61, 130, 3, dtype=dtype)
    every = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        every.append([*results(a, b), *results(a, b, ssim)])
    assert all(torch.equal(x, y) for other in every for x, y in zip(every[0], other, strict=True))


def test_equal_images_give_one_and_no_gradient() -> None:
    a, _ = pair(40, 50, 3)
    value, v_a, v_b = results(a, a, ssim)
    assert value == 1
    assert max(v_a.abs().max(), v_b.abs().max()) < 1e-6


def test_the_map_stays_in_bounds_where_rounding_rules() -> None:
    a, b = pair(40, 40, 1)
    assert ssim_map(1e4 + a, 1e4 + b).abs().max() <= 1


@pytest.mark.parametrize("kernels", [True, False])
def test_not_a_number_spreads_as_far_as_the_window(kernels: bool) -> None:
    a, b = pair(30, 40, 1)
    a[12, 20] = torch.nan
    similarity = ssim_map(a, b, kernels=kernels)[..., 0]
    reached = torch.zeros(30, 40, dtype=torch.bool)
    reached[7:18, 15:26] = True
    assert torch.equal(similarity.isnan(), reached)


def test_half_precision_is_computed_in_float32() -> None:
    a, b = (image.bfloat16() for image in pair(20, 20, 3))
    exact = ssim(a.float(), b.float())
    assert torch.equal(ssim(a, b), exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ssim(a, b.float()), exact)
        assert ssim(a, b, kernels=False).item() == pytest.approx(exact.item(), abs=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_by_torch(compiler: str, padding: Padding) -> None:
    a, b = pair(2, 20, 24, 3)
    compiled = torch.compile(ssim, fullgraph=True, backend=compiler)
    for ours, expected in zip(results(a, b, compiled, padding=padding), results(a, b, ssim, padding=padding), strict=True):
        assert torch.allclose(ours, expected, atol=1e-7)


def test_operators_keep_their_contract() -> None:
    a, b = (image[..., 0].requires_grad_() for image in pair(2, 12, 9, 1))
    for keep in (True, False):
        torch.library.opcheck(torch.ops.mixtura_splat.ssim.default, (a, b, 1e-4, 9e-4, keep))
    planes = a.detach()
    torch.library.opcheck(torch.ops.mixtura_splat.ssim_backward.default, (planes, planes, planes, torch.rand(3, *planes.shape)))


def test_without_kernels_convolutions_do_it(fresh_backend: pytest.MonkeyPatch) -> None:
    a, b = pair(40, 40, 3)
    fresh_backend.setenv("MIXTURA_SPLAT_BACKEND", "reference")
    assert torch.equal(ssim_map(a, b), ssim_map(a, b, kernels=False))
    with pytest.raises(backend.BackendMissing, match="asks for PyTorch"):
        ssim(a, b, kernels=True)


image = torch.zeros(12, 12, 3)
MISTAKES = {
    "shapes": (ValueError, r"\(12, 12, 3\) and \(11, 12, 3\)", (image, image[1:]), {}),
    "too few axes": (ValueError, r"\[.., H, W, C\]", (image[0], image[0]), {}),
    "empty": (ValueError, "not empty", (image[:0], image[:0]), {}),
    "dtypes": (TypeError, "float32 and torch.float64", (image, image.double()), {}),
    "bytes": (TypeError, "divide bytes by 255", (image.byte(), image.byte()), {}),
    "devices": (ValueError, "cpu and meta", (image, image.to("meta")), {}),
    "small": (ValueError, r"11 x 11 pixels or more, not 10 x 12 \(H x W\)", (image[2:], image[2:]), {"padding": "valid"}),
    "padding": (ValueError, "'zero'", (image, image), {"padding": "zero"}),
    "layout": (ValueError, "'HWC'", (image, image), {"layout": "HWC"}),
    "range": (ValueError, "data_range", (image, image), {"data_range": 0.0}),
}


@pytest.mark.parametrize(("error", "text", "images", "options"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(error: type[Exception], text: str, images: tuple[Tensor, Tensor], options: dict[str, Any]) -> None:
    for function in (ssim, ssim_map):
        with pytest.raises(error, match=text):
            function(*images, **options)
