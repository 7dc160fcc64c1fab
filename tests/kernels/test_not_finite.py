"""NaN and infinities: Gaussians and cameras that have them are left out and counted, colours that have them show it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mixtura_splat import rasterize
from tests.kernels.sample_scenes import ARRAYS, Scene, differentiate, distance, images, make_scene, worst

BAD = [math.nan, math.inf, -math.inf]
PARAMETERS = ("means", "quats", "scales", "opacities", "sh")


@pytest.fixture(params=[True, False], ids=["kernels", "reference"])
def kernels(request: pytest.FixtureRequest) -> bool:
    return request.param


def spoiled(scene: Scene, name: str, value: float, *index: int) -> Scene:
    """A copy with `value` at the first place behind `index` (at the last for harmonics)."""
    array = scene[name].clone()
    row = array[index] if array.ndim > len(index) else array[index[:-1]][index[-1] :]
    row.reshape(-1)[-1 if name == "sh" else 0] = value
    return scene | {name: array}


def without(gradients: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """Gradients without the row of one Gaussian."""
    return {k: torch.cat([g[:index], g[index + 1 :]]) if k in (*PARAMETERS, "features") else g for k, g in gradients.items()}


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_gaussian_that_is_not_finite_is_as_if_it_were_not_there(name: str, value: float, kernels: bool) -> None:
    scene = make_scene(40, degree=2, dtype=torch.float64)
    fewer = scene | {n: torch.cat([scene[n][:17], scene[n][18:]]) for n in PARAMETERS}
    made, found = differentiate(spoiled(scene, name, value, 17), kernels=kernels, depth="expected")
    expected_made, expected = differentiate(fewer, kernels=kernels, depth="expected")
    assert made.info.not_finite == 1
    assert not made.info.seen[17]
    assert max(distance(a, b) for a, b in zip(images(made), images(expected_made), strict=True)) < 1e-12
    assert worst(without(found, 17), expected) < 1e-9
    assert all(not found[n][17].any() for n in PARAMETERS)


def test_every_view_counts_what_it_left_out(kernels: bool) -> None:
    scene = make_scene(20, scenes=2, views=3, degree=1)
    scene = spoiled(spoiled(scene, "means", math.nan, 0, 3), "quats", math.inf, 1, 5)
    assert rasterize(**scene, kernels=kernels).info.not_finite == 6


def test_harmonics_beyond_the_degree_are_not_looked_at(kernels: bool) -> None:
    scene = spoiled(make_scene(20, degree=2), "sh", math.nan, 4)
    made = rasterize(**scene, sh_degree=1, kernels=kernels)
    assert made.info.not_finite == 0
    assert made.image.isfinite().all()


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["viewmats", "Ks"])
def test_a_camera_that_is_not_finite_sees_nothing(name: str, value: float, kernels: bool) -> None:
    scene = make_scene(20, views=2, degree=1)
    made, gradients = differentiate(spoiled(scene, name, value, 1), kernels=kernels)
    good, _ = differentiate(scene, kernels=kernels)
    assert made.info.not_finite == 20
    assert torch.equal(made.image[0], good.image[0])
    assert torch.equal(made.image[1], scene["background"].expand(28, 36, 3))
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert not gradients["viewmats"][1].any()


@pytest.mark.parametrize("name", ["colors", "features"])
def test_a_colour_that_is_not_finite_shows_where_its_gaussian_is(name: str) -> None:
    scene = make_scene(20, scale=0.02, size=(64, 48)) | {"features": torch.rand(20, 2)}
    good, bad = rasterize(**scene), rasterize(**spoiled(scene, name, math.nan, 4))
    pixel = (
        torch.stack(torch.meshgrid(torch.arange(64), torch.arange(48), indexing="xy"), -1) + 0.5 - good.info.means2d[4]
    ).abs()
    touched = (pixel <= good.info.extents[4]).all(-1)
    near = (pixel <= good.info.extents[4] + 4).all(-1)  # pixels are worked on in blocks of 4 x 4
    before, after = (made.image if name == "colors" else made.features for made in (good, bad))
    inner = (pixel <= 1).all(-1)
    assert touched.any()
    assert after[inner][:, 0].isnan().all()
    assert torch.equal(after[~near], before[~near])
    assert torch.equal(after[..., 1], before[..., 1])
    assert bad.info.not_finite == 0


def test_a_colour_that_is_not_finite_does_no_harm_where_nothing_is_seen(kernels: bool) -> None:
    scene = make_scene(20)
    scene["means"][4] = torch.tensor([0, 0, -50.0]) @ scene["viewmats"][:3, :3]  # behind the camera
    expected, _ = differentiate(scene, kernels=kernels)
    made, gradients = differentiate(spoiled(scene, "colors", math.nan, 4), kernels=kernels)
    assert torch.equal(made.image, expected.image)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ARRAYS)
def test_validate_names_the_argument_and_the_place(name: str, value: float) -> None:
    scene = make_scene(20, views=2, degree=1 if name == "sh" else None) | {"features": torch.rand(20, 2)}
    array = scene[name].clone()
    place = [size // 2 for size in array.shape]
    array[tuple(place)] = value
    with pytest.raises(ValueError, match=rf"^{name}: 1 values are not finite.*\[{', '.join(map(str, place))}\]"):
        rasterize(**scene | {name: array}, validate=True)


def test_validate_lets_finite_scenes_pass() -> None:
    scene = make_scene(20)
    assert torch.equal(rasterize(**scene, validate=True).image, rasterize(**scene).image)
