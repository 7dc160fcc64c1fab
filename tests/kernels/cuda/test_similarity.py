"""Structural similarity by the CUDA kernels, and its gradient, beside float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.kernels.emulation import driver
from tests.kernels.emulation.driver import Library, floats
from tests.parity.fill import compare

FORWARD, BACKWARD = 1e-5, 1e-4


def similarity(x: torch.Tensor, y: torch.Tensor, c1: float, c2: float) -> torch.Tensor:
    """Of planes [P,H,W], by its definition."""
    line = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / 4.5)
    kernel = torch.outer(line, line)[None, None] / line.sum() ** 2

    def blur(t: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(t[:, None], kernel, padding=5)[:, 0]

    a, b = blur(x), blur(y)
    spread, shape = blur(x * x) - a * a + blur(y * y) - b * b, blur(x * y) - a * b
    return (2 * a * b + c1) * (2 * shape + c2) / ((a * a + b * b + c1) * (spread + c2))


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 37, 70), (2, 32, 32), (1, 6, 101)])
def test_structural_similarity_and_its_gradient(lib: Library, size: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    a, b, v = floats(rng.random(size)), floats(rng.random(size)), floats(rng.standard_normal(size))
    b += np.float32(0.5) * a
    planes, height, width = size
    options = driver.Options(1, 4, width=width, height=height)
    out, partials, v_a = driver.rubbish(*size), driver.rubbish(3, *size), driver.rubbish(*size)
    lib.call("splat_ssim", options, planes, 1e-4, 9e-4, a, b, out, partials)
    lib.call("splat_ssim_backward", options, planes, a, b, v, partials, v_a)
    x = torch.from_numpy(a).double().requires_grad_()
    expected = similarity(x, torch.from_numpy(b).double(), 1e-4, 9e-4)
    (expected * torch.from_numpy(v)).sum().backward()
    assert compare(out, expected.detach().numpy()) < FORWARD
    assert compare(v_a, x.grad.numpy()) < BACKWARD
