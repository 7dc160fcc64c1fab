"""Two backends, one mathematics: the emulated CUDA kernels and the CPU library agree through the same interface."""

from __future__ import annotations

import pytest

from mixtura_splat import backend
from tests.kernels.emulation import driver
from tests.kernels.emulation.clouds import cotangents, random_scene
from tests.kernels.emulation.driver import ANTIALIASED, DEPTH, DETERMINISTIC, GRAPHDECO, Library
from tests.parity.fill import compare


@pytest.fixture(scope="module")
def cpu() -> Library:
    try:
        return Library(backend.load("cpu").path)
    except backend.BackendMissing as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("needles", [False, True], ids=["round", "needles"])
@pytest.mark.parametrize("flags", [DEPTH, ANTIALIASED, GRAPHDECO, GRAPHDECO | DEPTH, DEPTH | DETERMINISTIC])
def test_images_and_gradients_agree(cpu: Library, flags: int, needles: bool) -> None:
    sizes = {"scenes": 2, "views": 2, "gaussians": 300, "width": 90, "height": 70}
    scene = random_scene(flags, degree=3, flags=flags, log_scales=(-4.5, -1.0), **sizes)
    if needles:
        scene.scales[..., 0] *= 0.02
    v_image, v_depth, v_end = cotangents(1, scene)
    results = []
    for library in (cpu, driver.emulated()):
        out = driver.render(library, scene, numbered=True)
        grads = driver.differentiate(library, scene, out, v_image, v_depth if flags & DEPTH else None, v_end)
        results.append({name: out[name] for name in ("splats", "colors", "image", "transmittance")} | grads)
    for name, value in results[0].items():  # a pixel on the rim of a splat, where alpha is 1/255, may fall on either side
        assert compare(results[1][name], value) < (1e-3 if name.startswith("v_") else 1e-4), name
