"""Which kernels are taken, and what happens when there are none."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from mixtura_splat import BackendMissing, backend, rasterize
from tests.kernels.sample_scenes import differentiate, make_scene, worst

SCENE = make_scene(20, degree=1)


def test_the_environment_may_ask_for_pytorch(fresh_backend: pytest.MonkeyPatch) -> None:
    plain, expected = differentiate(SCENE, kernels=False)
    fresh_backend.setenv("MIXTURA_SPLAT_BACKEND", "reference")
    made, found = differentiate(SCENE)
    assert torch.equal(made.image, plain.image)
    assert worst(found, expected) == 0
    with pytest.raises(BackendMissing, match="MIXTURA_SPLAT_BACKEND=reference asks for PyTorch"):
        rasterize(**SCENE, kernels=True)


def test_without_libraries_pytorch_takes_over(fresh_backend: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh_backend.setattr(backend, "LIBRARIES", tmp_path)
    assert not backend.is_available(SCENE["means"])
    assert torch.equal(rasterize(**SCENE).image, rasterize(**SCENE, kernels=False).image)


def test_without_libraries_asking_for_them_says_what_to_do(fresh_backend: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh_backend.setattr(backend, "LIBRARIES", tmp_path)
    with pytest.raises(
        BackendMissing, match=r"no compiled cpu kernels .* Remedy: install g\+\+, then python -m mixtura_splat.build"
    ):
        rasterize(**SCENE, kernels=True)


def test_a_library_that_appears_is_found(fresh_backend: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = backend.load("cpu").path
    backend.load.cache_clear()
    fresh_backend.setattr(backend, "LIBRARIES", tmp_path)
    assert not backend.is_available(SCENE["means"])
    shutil.copyfile(path, tmp_path / path.name)
    assert backend.is_available(SCENE["means"])


def test_a_broken_library_says_how_to_mend_it(fresh_backend: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh_backend.setattr(backend, "LIBRARIES", tmp_path)
    for name in backend.candidates("cpu"):
        (tmp_path / f"{name}.so").write_text("not a library")
    with pytest.raises(BackendMissing, match="cannot be loaded: .* Remedy: python -m mixtura_splat.build --force"):
        rasterize(**SCENE, kernels=True)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_library_of_another_version_says_how_to_renew_it(fresh_backend: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fresh_backend.setattr(backend, "LIBRARIES", tmp_path)
    (tmp_path / "old.c").write_text("int splat_abi(void) { return 999; }")
    name = backend.candidates("cpu")[0]
    subprocess.run(["gcc", "-shared", "-fPIC", str(tmp_path / "old.c"), "-o", str(tmp_path / f"{name}.so")], check=True)
    with pytest.raises(BackendMissing, match="is of another version. Remedy: python -m mixtura_splat.build"):
        rasterize(**SCENE, kernels=True)


def test_the_best_level_of_the_processor_comes_first(fresh_backend: pytest.MonkeyPatch) -> None:
    fresh_backend.delenv("MIXTURA_SPLAT_LEVEL", raising=False)
    for capability, best in (("AVX512", "cpu-v4"), ("AVX2", "cpu-v3"), ("DEFAULT", "cpu-v2")):
        fresh_backend.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        assert backend.processor_levels()[0] == best


def test_a_forced_level_that_was_not_built_is_missing(fresh_backend: pytest.MonkeyPatch) -> None:
    fresh_backend.setenv("MIXTURA_SPLAT_LEVEL", "v9")
    with pytest.raises(BackendMissing, match="no compiled cpu kernels"):
        backend.load("cpu")


@pytest.mark.parametrize(
    ("device", "dtype", "reason"),
    [
        ("meta", torch.float32, "no kernels for device meta"),
        ("cuda", torch.float64, "float64 runs on the CPU only"),
        ("cpu", torch.int32, "no kernels for torch.int32"),
    ],
)
def test_why_there_are_no_kernels_is_told(device: str, dtype: torch.dtype, reason: str) -> None:
    assert reason in backend.why_missing(device, dtype)


def test_libraries_say_what_they_are() -> None:
    assert backend.load("cpu").name.startswith("cpu ")
    assert backend.load("cpu").name.endswith("float32")
    assert backend.load("cpu-float64").name.endswith("float64")


def test_options_are_those_of_the_library() -> None:
    header = (backend.LIBRARIES.parent.parent / "csrc" / "abi.h").read_text()
    body = header[header.index("typedef struct SplatOptions {") : header.index("} SplatOptions;")]
    names = [name for name, _ in backend.Options._fields_]
    places = [body.index(name) for name in names]
    assert places == sorted(places)
    assert ctypes.sizeof(backend.Options) == 120


def test_a_call_with_options_of_another_version_is_refused() -> None:
    options = backend.options(SCENE["means"], 1, 1, 1, 16, 16)
    options.abi = 7
    nothing = [None] * 11
    with pytest.raises(RuntimeError, match=r"project on cpu .*\(another ABI version"):
        backend.load("cpu").call("project", options, *nothing, None, None)


def test_arrays_with_gaps_do_not_reach_a_library() -> None:
    with pytest.raises(RuntimeError, match=r"shape \(4, 3\) reached a kernel without being contiguous"):
        backend.load("cpu").call("project", backend.options(SCENE["means"], 1, 1, 1, 16, 16), torch.rand(3, 4).T)
