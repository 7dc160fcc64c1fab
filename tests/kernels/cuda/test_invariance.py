"""What must not matter to the CUDA kernels: threads, order, tiles, other scenes and views."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.kernels.emulation import driver
from tests.kernels.emulation.clouds import OF_A_GAUSSIAN, OF_A_VIEW, cotangents, gradients_of, random_scene, views_of
from tests.kernels.emulation.driver import DEPTH, DETERMINISTIC, SHARED_FEATURES, Library
from tests.parity.fill import compare

FORWARD = 1e-5


@pytest.mark.parametrize("flags", [0, DETERMINISTIC | DEPTH], ids=["atomic", "deterministic"])
def test_the_schedule_of_threads_does_not_matter(lib: Library, flags: int) -> None:
    scene = random_scene(12, views=2, gaussians=60, flags=flags)
    runs = []
    for seed in range(4):
        lib.seed(seed)
        runs.append({**driver.render(lib, scene), **gradients_of(lib, scene)})
    for name, first in runs[0].items():
        if first is None:
            continue
        for other in runs[1:]:
            if flags & DETERMINISTIC or not name.startswith("v_"):
                assert np.array_equal(first, other[name], equal_nan=True), name
            else:
                assert compare(other[name], first) < 1e-5, name


@pytest.mark.parametrize("channels", [None, 6])
def test_deterministic_gradients_equal_the_atomic_ones(lib: Library, channels: int | None) -> None:
    scene = random_scene(13, scenes=2, views=3, channels=channels, shared=channels is not None, flags=DEPTH)
    scene.flags |= SHARED_FEATURES if channels else 0
    atomic = gradients_of(lib, scene)
    scene.flags |= DETERMINISTIC
    for name, value in gradients_of(lib, scene).items():
        assert value is None or compare(value, atomic[name]) < 1e-5, name


def test_the_order_of_gaussians_does_not_matter(lib: Library) -> None:
    scene = random_scene(14, views=2, flags=DEPTH | DETERMINISTIC)
    order = np.random.default_rng(0).permutation(scene.sizes[2])
    inputs = {name: np.ascontiguousarray(getattr(scene, name)[:, order]) for name in OF_A_GAUSSIAN}
    shuffled = dataclasses.replace(scene, **inputs)
    assert np.array_equal(driver.render(lib, scene)["image"], driver.render(lib, shuffled)["image"])
    grads, moved = gradients_of(lib, scene), gradients_of(lib, shuffled)
    for name in inputs:
        assert compare(moved["v_" + name], grads["v_" + name][:, order]) < 1e-6, name


def test_tile_borders_do_not_matter(lib: Library) -> None:
    scene = random_scene(15, gaussians=200, width=100, height=60, log_scales=(-4.5, -3.0))
    whole = driver.render(lib, scene)["image"]
    for left, top, width, height in ((7, 5, 50, 33), (41, 22, 59, 38)):
        part = dataclasses.replace(scene, width=width, height=height, ks=scene.ks.copy())
        part.ks[..., 0, 2] -= left
        part.ks[..., 1, 2] -= top
        expected = whole[:, :, top : top + height, left : left + width]
        assert compare(driver.render(lib, part)["image"], expected) < FORWARD


def test_scenes_and_views_of_a_batch_are_independent(lib: Library) -> None:
    scene = random_scene(16, scenes=2, views=2, flags=DEPTH)
    images, grads = driver.render(lib, scene)["image"], gradients_of(lib, scene)
    v_image, v_depth, v_end = cotangents(3, scene)
    sums = np.zeros_like(grads["v_means"])
    for i, j in views_of(scene):
        inputs = {name: getattr(scene, name)[i : i + 1] for name in OF_A_GAUSSIAN}
        cameras = {name: np.ascontiguousarray(getattr(scene, name)[i : i + 1, j : j + 1]) for name in OF_A_VIEW}
        one = dataclasses.replace(scene, **inputs, **cameras)
        out = driver.render(lib, one)
        assert np.array_equal(out["image"][0, 0], images[i, j])
        single = [np.ascontiguousarray(v[i : i + 1, j : j + 1]) for v in (v_image, v_depth, v_end)]
        g = driver.differentiate(lib, one, out, *single)
        sums[i] += g["v_means"][0]
        assert compare(g["v_viewmats"][0, 0], grads["v_viewmats"][i, j]) < 1e-5
    assert compare(grads["v_means"], sums) < 1e-5


@pytest.mark.parametrize("view", [0, 36])
def test_more_views_than_a_block_holds_cameras(lib: Library, view: int) -> None:
    scene = random_scene(17, views=37, gaussians=100, width=8, height=8)
    grads, v_image, v_end = gradients_of(lib, scene), *cotangents(3, scene)[::2]
    one = dataclasses.replace(scene, **{name: getattr(scene, name)[:, view : view + 1].copy() for name in OF_A_VIEW})
    out = driver.render(lib, one)
    assert np.array_equal(out["image"][:, 0], driver.render(lib, scene)["image"][:, view])
    cut = [np.ascontiguousarray(v[:, view : view + 1]) for v in (v_image, v_end)]
    last = driver.differentiate(lib, one, out, cut[0], None, cut[1])
    assert compare(last["v_viewmats"][:, 0], grads["v_viewmats"][:, view]) < 1e-5
    colors = driver.shade(lib, scene)
    assert np.array_equal(driver.shade(lib, one)[:, 0], colors[:, view])


def test_camera_gradients_are_an_extra(lib: Library) -> None:
    scene = random_scene(18, views=2)
    out = driver.render(lib, scene)
    grads = driver.composite_backward(lib, scene, out, cotangents(1, scene)[0])
    with_cameras = dict(driver.project_backward(lib, scene, out, dict(grads)))
    without = driver.project_backward(lib, scene, out, dict(grads), cameras=False)
    assert without["v_viewmats"] is None
    for name in OF_A_GAUSSIAN:
        assert compare(without["v_" + name], with_cameras["v_" + name]) < 1e-6
