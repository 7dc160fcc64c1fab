"""Images and gradients of the CUDA kernels agree with recorded ones and with float64, edges and errors included."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.kernels.emulation import dense, driver
from tests.kernels.emulation.clouds import OF_A_GAUSSIAN, cotangents, gradients_of, random_scene, views_of
from tests.kernels.emulation.driver import DEPTH, DETERMINISTIC, GRAPHDECO, SHARED_FEATURES, Library, Scene, SplatError, floats
from tests.kernels.emulation.goldens import CASES, golden, golden_cotangents, golden_scene
from tests.parity.fill import compare

FORWARD, BACKWARD = 1e-5, 1e-4


# ---- recorded scenes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_images_agree_with_the_recorded_ones(lib: Library, case: str) -> None:
    out, expected = driver.render(lib, golden_scene(case)), golden(case)
    assert compare(out["image"], expected["rgb"]) < FORWARD
    assert compare(1 - out["transmittance"], expected["alpha"][..., 0]) < FORWARD
    assert compare(out["depth"], expected["depth"][..., 0]) < FORWARD


@pytest.mark.parametrize("case", CASES)
def test_splats_agree_with_the_recorded_ones(lib: Library, case: str) -> None:
    out, expected = driver.project(lib, golden_scene(case)), golden(case)
    seen = out["tiles"] > 0
    assert np.all(expected["valid"][seen])
    x, y, u11, u12, u22, _, _, depth = (column[seen] for column in np.moveaxis(out["splats"].astype(np.float64), -1, 0))
    assert compare(np.stack([x, y], -1), expected["means2d"][seen]) < FORWARD
    assert compare(depth, expected["depths"][seen]) < FORWARD
    assert compare(np.stack([u11**2, u11 * u12, u12**2 + u22**2], -1), expected["conics"][seen]) < FORWARD
    assert compare(out["colors"][seen], np.maximum(expected["sh_raw"][seen] + 0.5, 0)) < FORWARD


@pytest.mark.parametrize("mode", [0, DETERMINISTIC], ids=["atomic", "deterministic"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_agree_with_the_recorded_ones(lib: Library, case: str, mode: int) -> None:
    scene, expected = golden_scene(case), golden(case)
    scene.flags |= mode
    grads = driver.differentiate(lib, scene, driver.render(lib, scene), *golden_cotangents(case))
    for name in OF_A_GAUSSIAN:
        assert compare(grads["v_" + name], expected["v_" + name]) < BACKWARD, name
    assert compare(grads["v_splats"][..., :2], expected["v_means2d"]) < BACKWARD
    assert compare(grads["v_absolute"], expected["absgrad"]) < BACKWARD
    assert compare(grads["v_background"], expected["v_backgrounds"]) < BACKWARD
    assert compare(grads["v_viewmats"][..., :3, :], expected["v_viewmats"][..., :3, :]) < BACKWARD
    for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)):  # the recorded derivative by the skew of K is none of ours
        assert compare(grads["v_ks"][..., i, j], expected["v_Ks"][..., i, j]) < BACKWARD, (i, j)
    assert not grads["v_viewmats"][..., 3, :].any()


# ---- compositing against float64 -----------------------------------------------------------------------------------


def dense_view(scene: Scene, splats: torch.Tensor, features: torch.Tensor, i: int, j: int, allowed: torch.Tensor | None = None):  # type: ignore[no-untyped-def]
    """View j of scene i by the dense compositor."""
    background = None if scene.background is None else torch.from_numpy(scene.background[i, j]).double()
    own = features[i, j if features.shape[1] > 1 else 0]
    return dense.composite(splats[i, j], own, scene.width, scene.height, background, scene.alpha_limit, allowed)


@pytest.mark.parametrize("mode", [0, DETERMINISTIC], ids=["atomic", "deterministic"])
@pytest.mark.parametrize("with_depth", [0, DEPTH], ids=["", "depth"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9, 32])
def test_any_number_of_channels(lib: Library, channels: int, with_depth: int, mode: int) -> None:
    shared = channels % 2 == 1
    scene = random_scene(channels, views=2, channels=channels, shared=shared, flags=with_depth | mode)
    scene.flags |= SHARED_FEATURES if shared else 0
    v_image, v_depth, v_end = cotangents(7, scene)
    out = driver.render(lib, scene)
    grads = driver.composite_backward(lib, scene, out, v_image, v_depth if with_depth else None, v_end)

    splats = torch.from_numpy(out["splats"]).double().requires_grad_()
    features = torch.from_numpy(scene.features).double().requires_grad_()
    loss = 0.0
    for i, j in views_of(scene):
        image, depth, end = dense_view(scene, splats, features, i, j)
        assert compare(out["image"][i, j], image.detach().numpy()) < FORWARD
        assert compare(out["transmittance"][i, j], end.detach().numpy()) < FORWARD
        loss = loss + (image * torch.from_numpy(v_image[i, j])).sum() + (end * torch.from_numpy(v_end[i, j])).sum()
        if with_depth:
            assert compare(out["depth"][i, j], depth.detach().numpy()) < FORWARD
            loss = loss + (depth * torch.from_numpy(v_depth[i, j])).sum()
    loss.backward()
    assert compare(grads["v_splats"], splats.grad.numpy()) < BACKWARD
    assert compare(grads["v_features"], features.grad.numpy()) < BACKWARD


@pytest.mark.parametrize("flags", [0, GRAPHDECO])
def test_two_opaque_hits_end_a_pixel(lib: Library, flags: int) -> None:
    scene = random_scene(51, gaussians=3, width=8, height=8, channels=1, log_scales=(3, 3), flags=flags)
    scene.opacities[:] = 1
    scene.means = floats([[[0, 0, z] for z in (0.0, 0.1, 0.2)]])
    out = driver.render(lib, scene)
    assert np.all(out["last"] == 1)
    assert np.allclose(out["transmittance"], 0.01)


@pytest.mark.parametrize("mode", [0, DETERMINISTIC], ids=["atomic", "deterministic"])
def test_lists_longer_than_a_batch(lib: Library, mode: int) -> None:
    scene = random_scene(50, gaussians=900, width=20, height=18, channels=3, log_scales=(-3, -2), flags=mode)
    scene.opacities *= np.float32(0.1)  # so that pixels go far into their lists
    v_image, _, v_end = cotangents(1, scene)
    out = driver.render(lib, scene)
    assert out["last"].max() > 512
    grads = driver.composite_backward(lib, scene, out, v_image, None, v_end)
    splats = torch.from_numpy(out["splats"]).double().requires_grad_()
    image, _, end = dense_view(scene, splats, torch.from_numpy(scene.features).double(), 0, 0)
    assert compare(out["image"][0, 0], image.detach().numpy()) < FORWARD
    ((image * torch.from_numpy(v_image[0, 0])).sum() + (end * torch.from_numpy(v_end[0, 0])).sum()).backward()
    assert compare(grads["v_splats"], splats.grad.numpy()) < BACKWARD


@pytest.mark.parametrize("mode", [0, DETERMINISTIC], ids=["atomic", "deterministic"])
@pytest.mark.parametrize("channels", [3, 9])
def test_absolute_gradients_are_summed_over_pixels(lib: Library, channels: int, mode: int) -> None:
    scene = random_scene(1, gaussians=6, width=9, height=8, channels=channels, log_scales=(-2, -1), flags=mode)
    v_image, _, _ = cotangents(2, scene)
    out = driver.render(lib, scene)
    grads = driver.composite_backward(lib, scene, out, v_image)
    splats = torch.from_numpy(out["splats"]).double().requires_grad_()
    image, _, _ = dense_view(scene, splats, torch.from_numpy(scene.features).double(), 0, 0)
    per_pixel = (image * torch.from_numpy(v_image[0, 0])).sum(-1).reshape(-1)
    total = sum(torch.autograd.grad(p, splats, retain_graph=True)[0][..., :2].abs() for p in per_pixel)
    assert compare(grads["v_absolute"], total.numpy()) < BACKWARD


def test_cotangents_may_be_left_out(lib: Library) -> None:
    scene = random_scene(4, flags=DEPTH)
    out = driver.render(lib, scene)
    zeros = [np.zeros_like(v) for v in cotangents(1, scene)]
    v_image, v_depth, v_end = cotangents(1, scene)
    for given in ([v_image, None, None], [None, v_depth, None], [None, None, v_end]):
        filled = [zero if v is None else v for v, zero in zip(given, zeros, strict=True)]
        some, full = driver.composite_backward(lib, scene, out, *given), driver.composite_backward(lib, scene, out, *filled)
        assert compare(some["v_splats"], full["v_splats"]) < 1e-6


def original_tiles(scene: Scene, out: dict[str, np.ndarray]) -> torch.Tensor:
    """[H,W,N]: pixels of the tiles that the original implementation gives to a splat."""
    xy = out["splats"][0, 0, :, :2].astype(np.float64) - 0.5
    radius = out["extents"][0, 0, :, :1].astype(np.float64)
    first, past = np.floor((xy - radius) / 16), np.floor((xy + radius + 15) / 16)
    rows, columns = np.mgrid[: scene.height, : scene.width] // 16
    inside = (columns[..., None] >= first[:, 0]) & (columns[..., None] < past[:, 0])
    return torch.from_numpy(inside & (rows[..., None] >= first[:, 1]) & (rows[..., None] < past[:, 1]))


def test_the_original_extent_reaches_whole_tiles(lib: Library) -> None:
    scene = random_scene(11, gaussians=80, width=70, height=40, log_scales=(-4.5, -2.5), flags=GRAPHDECO)
    out = driver.render(lib, scene)
    splats, colors = torch.from_numpy(out["splats"]).double(), torch.from_numpy(out["colors"]).double()
    image, _, _ = dense_view(scene, splats, colors, 0, 0, original_tiles(scene, out))
    assert compare(out["image"][0, 0], image.numpy()) < FORWARD
    everywhere, _, _ = dense_view(scene, splats, colors, 0, 0)
    assert compare(everywhere.numpy(), image.numpy()) > FORWARD  # or this test would show nothing


# ---- colours alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", range(5))
def test_colours_change_as_their_gradient_says(lib: Library, degree: int) -> None:
    scene = random_scene(20 + degree, views=2, gaussians=50, degree=degree)
    scene.sh *= np.float32(0.1)  # colours stay above 0, where they are cut off
    rng = np.random.default_rng(degree)
    v_colors = floats(rng.standard_normal((1, 2, 50, 3)))
    for name, grad in driver.shade_backward(lib, scene, v_colors).items():
        step = rng.standard_normal(grad.shape)
        if name == "viewmats":
            step[..., 3, :] = 0
        moved = [dataclasses.replace(scene, **{name: floats(getattr(scene, name) + sign * 3e-3 * step)}) for sign in (1, -1)]
        slope = ((driver.shade(lib, moved[0]).astype(np.float64) - driver.shade(lib, moved[1])) * v_colors).sum() / 6e-3
        assert abs(slope - (grad * step).sum()) < 3e-3 * max(1, np.abs(grad * step).sum() / 10), name


def test_colours_alone_equal_those_of_the_projection(lib: Library) -> None:
    scene = random_scene(30, views=2, degree=2)
    assert compare(driver.shade(lib, scene), driver.project(lib, scene)["colors"]) < 1e-6


# ---- edges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, DETERMINISTIC])
@pytest.mark.parametrize("gaussians", [0, 5])
def test_scenes_without_visible_gaussians_show_the_background(lib: Library, gaussians: int, flags: int) -> None:
    scene = random_scene(40, gaussians=gaussians, flags=DEPTH | flags)
    scene.means[..., 1] += 100
    out = driver.render(lib, scene)
    assert out["stats"].tolist() == [0, 0]
    assert np.array_equal(out["image"], np.broadcast_to(scene.background[:, :, None, None], out["image"].shape))
    assert not out["depth"].any()
    grads = gradients_of(lib, scene)
    assert not any(grads[name].any() for name in ("v_means", "v_quats", "v_sh", "v_viewmats", "v_ks", "v_splats"))


def test_an_image_of_one_pixel(lib: Library) -> None:
    scene = random_scene(41, width=1, height=1, log_scales=(-1, 0))
    out = driver.render(lib, scene)
    image, _, _ = dense_view(scene, torch.from_numpy(out["splats"]).double(), torch.from_numpy(out["colors"]).double(), 0, 0)
    assert compare(out["image"][0, 0], image.numpy()) < FORWARD


def test_values_that_are_not_finite_are_dropped_and_counted(lib: Library) -> None:
    scene, clean = random_scene(42, views=2), random_scene(42, views=2)
    for i, name in enumerate(OF_A_GAUSSIAN):
        getattr(scene, name).reshape(40, -1)[3 + 5 * i, 0] = (np.nan, np.inf)[i % 2]
    clean.opacities[0, [3, 8, 13, 18, 23]] = 0
    out = driver.render(lib, scene)
    assert out["stats"][1] == 10
    assert np.array_equal(out["image"], driver.render(lib, clean)["image"])
    assert all(np.isfinite(value).all() for value in gradients_of(lib, scene).values())


@pytest.mark.parametrize("broken", [np.nan, 0.0], ids=["nan", "singular"])
def test_a_camera_without_inverse_sees_nothing(lib: Library, broken: float) -> None:
    scene = random_scene(47, views=2)
    scene.viewmats[0, 1, :3, :3] = broken
    out = driver.render(lib, scene)
    assert out["stats"][1] == 40
    assert not out["tiles"][0, 1].any()
    assert all(np.isfinite(value).all() for value in gradients_of(lib, scene).values())


def test_only_the_first_gaussians_of_a_scene_count(lib: Library) -> None:
    scene = random_scene(43, scenes=2)
    scene.counts = np.array([40, 17], np.int64)
    fewer = random_scene(43, scenes=2)
    fewer.opacities[1, 17:] = 0
    assert np.array_equal(driver.render(lib, scene)["image"], driver.render(lib, fewer)["image"])


# ---- errors --------------------------------------------------------------------------------------------------------


def test_options_that_do_not_fit_are_refused(lib: Library) -> None:
    scene = random_scene(44)
    for field, value in (("abi", 2), ("real_bytes", 8), ("width", 0), ("sh_degree", 2), ("views", 1 << 40)):
        options = scene.options()
        setattr(options, field, value)
        with pytest.raises(SplatError, match="do not fit"):
            lib.call("splat_project", options, *[scene.means] * 14)


def test_too_little_scratch_memory_is_refused(lib: Library) -> None:
    scene = random_scene(45)
    out = driver.project(lib, scene)
    lists = [out["tiles"]] * 3
    with pytest.raises(SplatError, match="scratch"):
        lib.call("splat_bin", scene.options(), out["splats"], out["extents"], out["tiles"], 10, *lists, out["stats"])


def test_more_entries_than_deterministic_lists_can_number(lib: Library) -> None:
    scene = random_scene(46)
    out = driver.project(lib, scene)
    lists = [out["tiles"]] * 3
    with pytest.raises(SplatError, match="too many list entries"):
        lib.call("splat_bin", scene.options(), out["splats"], out["extents"], out["tiles"], 1 << 31, *lists, out["stats"])
