"""nvcc compiles the kernels without a warning, and the library says clearly when there is no GPU."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest

from tests.kernels.emulation.clouds import random_scene
from tests.kernels.emulation.driver import BAD_OPTIONS, DEVICE, NVCC, Library, SplatError, build_cuda

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NVCC is None, reason="nvcc is not installed"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The shared library and what the assembler said of every kernel."""
    return build_cuda(tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def library(built: tuple[Path, str]) -> Library:
    return Library(built[0])


def test_no_kernel_spills_registers(built: tuple[Path, str]) -> None:
    kernels = re.findall(r"Function properties for (\S*splat\S*)\n\s+(\d+) bytes stack frame, (\d+) bytes spill stores", built[1])
    assert len(kernels) > 50
    assert not [kernel for kernel in kernels if kernel[1:] != ("0", "0")]


def test_the_library_names_itself(library: Library) -> None:
    assert library.handle.splat_abi() == 1
    assert library.describe().startswith("cuda")
    assert "float32" in library.describe()


def test_it_needs_no_driver_to_load(built: tuple[Path, str]) -> None:
    needed = subprocess.run(["ldd", built[0]], capture_output=True, text=True, check=True).stdout
    assert "libcuda" not in needed


def has_gpu() -> bool:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_a_machine_without_gpu_gets_a_clear_error(library: Library) -> None:
    scene = random_scene(1)
    with pytest.raises(SplatError, match="is there an NVIDIA GPU") as caught:
        library.call("splat_project", scene.options(), *[scene.means] * 14)
    assert caught.value.code > DEVICE
    with pytest.raises(SplatError, match="is there an NVIDIA GPU"):
        library.scratch(scene.options(), 0, 100)


def test_wrong_options_are_seen_before_the_device(library: Library) -> None:
    options = random_scene(1).options()
    options.abi = 0
    with pytest.raises(SplatError) as caught:
        library.call("splat_project", options)
    assert caught.value.code == BAD_OPTIONS
