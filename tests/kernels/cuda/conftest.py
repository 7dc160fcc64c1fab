"""The CUDA kernels: compiled as C++ against a CPU emulation, and on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.emulation import driver
from tests.kernels.emulation.driver import Library


@pytest.fixture(scope="module", params=["emulated", pytest.param("device", marks=pytest.mark.gpu)])
def lib(request: pytest.FixtureRequest) -> Library:
    if request.param == "emulated":
        return driver.emulated()
    if not torch.cuda.is_available() or driver.NVCC is None:
        pytest.skip("no GPU that torch can use, or no nvcc")
    return driver.on_device()
