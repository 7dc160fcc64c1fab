"""Whole installations and large scenes, each in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"

RENDER = """
import torch, mixtura_splat
from mixtura_splat import backend, rasterize
pose = torch.eye(4)
means = torch.tensor([[0.0, 0, 3]], requires_grad=True)
k = torch.tensor([[20.0, 0, 10], [0, 20, 10], [0, 0, 1]])
made = rasterize(means, torch.ones(1, 4), torch.full((1, 3), 0.2), torch.tensor([0.9]), pose, k, 20, 20, colors=torch.ones(1, 3))
made.image.sum().backward()
assert made.alpha.max() > 0.5 and means.grad.any()
print(mixtura_splat.__file__)
print(backend.load("cpu").path if backend.is_available(means) else "reference")
"""

MILLION = """
import torch
from mixtura_splat import rasterize

def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

def render(count):
    random = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.rand(*shape, generator=random)
    inputs = draw(count, 3) * 2 - 1, draw(count, 4) - 0.5, draw(count, 3) * 0.004 + 0.001, draw(count), draw(count, 3)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    pose, k = torch.eye(4), torch.tensor([[400.0, 0, 256], [0, 400, 256], [0, 0, 1]])
    pose[2, 3] = 3
    before = peak()
    rasterize(*inputs[:4], pose, k, 512, 512, colors=inputs[4]).image.sum().backward()
    return peak() - before

render(100)
print(render(1_000_000))
"""


def run(code: str, **environment: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False, cwd="/"
    )
    assert not done.returncode, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_installs_imports_and_renders(tmp_path: Path) -> None:
    source, wheels, site = tmp_path / "kernels", tmp_path / "wheels", tmp_path / "site"
    shutil.copytree(KERNELS, source, ignore=shutil.ignore_patterns("*.so", "*.egg-info", "build", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("needs pip")
    wheel = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(wheels), str(source)]
    built = subprocess.run(wheel, capture_output=True, text=True, check=False)
    assert not built.returncode, built.stderr
    (made,) = wheels.glob("mixtura_splat-*.whl")
    assert not made.name.endswith("none-any.whl")  # it holds machine code
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", "--target", str(site), str(made)], check=True)
    package, library = run(RENDER, PYTHONPATH=str(site)).split()
    assert Path(package).parent == site / "mixtura_splat"
    if shutil.which("g++"):
        assert Path(library).parent == site / "mixtura_splat" / "libraries"
    assert (site / "mixtura_splat" / "csrc" / "math.h").is_file()  # so that an installed package can build itself


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_million_gaussians_fit_into_little_memory() -> None:
    assert float(run(MILLION, PYTHONPATH=str(KERNELS))) < 300  # MiB besides the inputs; gradients are 56 of them


@pytest.mark.slow
def test_importing_loads_no_library_and_compiles_nothing() -> None:
    code = "import mixtura_splat, sys; from mixtura_splat import backend; print(backend.load.cache_info().currsize)"
    assert run(code, PYTHONPATH=str(KERNELS), CXX="/nonexistent").strip() == "0"
