"""Scenes at the edge of what makes sense: nothing to see, odd image sizes, extreme places, sizes and opacities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixtura_splat import Rendering, rasterize
from tests.kernels.sample_scenes import ARRAYS, Scene, differentiate, distance, images, leaves, make_scene, worst

double = torch.float64


@pytest.fixture(params=[True, False], ids=["kernels", "reference"])
def kernels(request: pytest.FixtureRequest) -> bool:
    return request.param


def shows_nothing(scene: Scene, kernels: bool) -> bool:
    """Background everywhere, zero gradients for the Gaussians, and no NaN anywhere."""
    made, gradients = differentiate(scene, kernels=kernels, depth="expected", normals=True, mode="antialiased")
    assert not made.info.seen.any()
    assert not made.alpha.any()
    assert not made.depth.any()
    assert torch.equal(made.image, scene["background"].expand(made.image.shape))
    assert gradients["background"].any()
    return not any(gradients[name].any() for name in gradients if name != "background")


def in_front(*, depth: float = 3.0, **changes: Tensor) -> Scene:
    """One Gaussian on the axis of a camera in the origin, at the centre of 20 x 20 pixels."""
    scene = make_scene(1, size=(20, 20))
    scene |= {"means": torch.tensor([[0, 0, depth]]), "viewmats": torch.eye(4), "scales": torch.full((1, 3), 0.2)}
    scene["Ks"] = torch.tensor([[20.0, 0, 10], [0, 20, 10], [0, 0, 1]])
    return scene | changes


# ---- nothing to see --------------------------------------------------------------------------------------------------


def test_a_scene_without_gaussians_is_background(kernels: bool) -> None:
    assert shows_nothing(make_scene(0), kernels)


def test_a_batch_of_scenes_without_gaussians_is_background(kernels: bool) -> None:
    scene = make_scene(0, scenes=2, views=2, degree=1)
    made, gradients = differentiate(scene, kernels=kernels)
    assert torch.equal(made.image, scene["background"].expand(2, 2, 28, 36, 3))
    assert gradients["sh"].shape == (2, 0, 4, 3)


def test_gaussians_behind_the_camera_are_not_seen(kernels: bool) -> None:
    scene = make_scene(20)
    scene["viewmats"][2, 3] = -5.0
    assert shows_nothing(scene, kernels)


def test_gaussians_beside_the_image_are_not_seen(kernels: bool) -> None:
    scene = make_scene(20, scale=0.01)
    scene["means"][:, 0] += 50
    assert shows_nothing(scene, kernels)


@pytest.mark.parametrize("opacity", [0.0, 0.0039, -0.5, -1e30])
def test_gaussians_fainter_than_one_step_of_a_screen_are_not_seen(opacity: float, kernels: bool) -> None:
    assert shows_nothing(make_scene(20) | {"opacities": torch.full((20,), opacity)}, kernels)


@pytest.mark.parametrize(("depth", "seen"), [(0.0, False), (0.01, False), (0.0101, True), (99.0, True), (100.0, False)])
def test_near_and_far_are_outside(depth: float, seen: bool, kernels: bool) -> None:
    scene = in_front(depth=depth, scales=torch.full((1, 3), 0.2 * max(depth, 1e-3)))
    assert rasterize(**scene, kernels=kernels, near=0.01, far=100.0).info.seen.item() is seen


def test_no_scenes_or_no_cameras_are_an_error() -> None:
    batch = make_scene(5, scenes=2, views=2)
    nobody = {name: batch[name][:0] for name in ARRAYS if name in batch and name != "background"}
    with pytest.raises(ValueError, match="at least one scene and one camera"):
        rasterize(**batch | nobody)
    with pytest.raises(ValueError, match="at least one scene and one camera"):
        rasterize(**batch | {name: batch[name][:, :0] for name in ("viewmats", "Ks")})


# ---- image sizes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (53, 1), (15, 16), (16, 16), (17, 33), (3, 200)])
def test_images_have_any_size(size: tuple[int, int]) -> None:
    scene = make_scene(30, size=size, dtype=double)
    made, gradients = differentiate(scene, depth="accumulated")
    plain, expected = differentiate(scene, depth="accumulated", kernels=False)
    assert made.image.shape == (size[1], size[0], 3)
    assert max(distance(a, b) for a, b in zip(images(made), images(plain), strict=True)) < 1e-10
    assert worst(gradients, expected) < 1e-10


@pytest.mark.parametrize("size", [(5000, 3), (2, 5000)])
def test_images_may_be_larger_than_4096(size: tuple[int, int]) -> None:
    scene = make_scene(60, size=size, scale=0.02)
    longest = size.index(max(size))
    scene["means"][:, 1 - longest] *= 0.002
    scene["Ks"] = torch.tensor([[7000.0, 0, size[0] / 2], [0, 7000, size[1] / 2], [0, 0, 1]])
    scene["viewmats"] = torch.eye(4) + torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 3.0], [0, 0, 0, 0]])
    exact = rasterize(**{name: value.double() if isinstance(value, Tensor) else value for name, value in scene.items()})
    made = rasterize(**scene)
    beyond = made.alpha[4096:] if longest else made.alpha[:, 4096:]
    assert beyond.amax() > 0.1
    assert distance(made.image, exact.image) < 1e-4


@pytest.mark.parametrize("offset", [(-40.0, 10.0), (10.0, 70.0), (-300.0, -300.0)])
def test_the_principal_point_may_lie_outside(offset: tuple[float, float]) -> None:
    scene = make_scene(60, scale=0.3, dtype=double)
    scene["Ks"][:2, 2] = torch.tensor(offset)
    made, gradients = differentiate(scene)
    plain, expected = differentiate(scene, kernels=False)
    assert distance(made.image, plain.image) < 1e-10
    assert worst(gradients, expected) < 1e-9


# ---- extreme places, sizes and opacities -----------------------------------------------------------------------------


def is_sound(rendering: Rendering, gradients: dict[str, Tensor]) -> bool:
    return all(t.isfinite().all() for t in (*images(rendering), *gradients.values()))


def test_a_gaussian_just_behind_the_near_plane_gives_finite_values(kernels: bool) -> None:
    scene = in_front(depth=0.0100001, scales=torch.full((1, 3), 1.0))
    assert is_sound(*differentiate(scene, kernels=kernels, depth="expected"))


@pytest.mark.parametrize("depth", [1e4, 1e9])
def test_a_gaussian_far_away_is_a_dot_of_the_low_pass(depth: float, kernels: bool) -> None:
    scene = in_front(depth=depth)
    made, gradients = differentiate(scene, kernels=kernels)
    assert distance(made.info.conics, torch.tensor([[1 / 0.3, 0, 1 / 0.3]])) < 1e-5
    assert is_sound(made, gradients)


def test_a_gaussian_without_size_is_a_dot_of_the_low_pass(kernels: bool) -> None:
    made, gradients = differentiate(in_front(scales=torch.zeros(1, 3)), kernels=kernels)
    assert distance(made.info.conics, torch.tensor([[1 / 0.3, 0, 1 / 0.3]])) < 1e-6
    assert made.alpha.amax() > 0.1
    assert is_sound(made, gradients)


def test_the_compensation_has_a_floor_where_sizes_have_no_gradient(kernels: bool) -> None:
    scene = in_front(scales=torch.full((1, 3), 1e-3), opacities=torch.tensor([50.0]))
    ready = leaves(scene)
    opacity = rasterize(**ready, kernels=kernels, mode="antialiased").info.splats[0, 5]
    opacity.backward()
    assert opacity.item() == pytest.approx(50 * 0.005, rel=1e-5)
    assert ready["opacities"].grad.item() == pytest.approx(0.005, rel=1e-5)
    assert not ready["scales"].grad.any()


def test_without_low_pass_a_gaussian_without_size_is_left_out(kernels: bool) -> None:
    made, gradients = differentiate(in_front(scales=torch.zeros(1, 3)), kernels=kernels, eps2d=0.0)
    assert not made.info.seen.any()
    assert made.info.not_finite == 1
    assert is_sound(made, {name: gradients[name] for name in ("background", "colors")})


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_a_huge_gaussian_covers_the_image_evenly(size: float, kernels: bool) -> None:
    scene = in_front(scales=torch.full((1, 3), size), opacities=torch.tensor([0.7]))
    made, gradients = differentiate(scene, kernels=kernels)
    assert made.info.not_finite == 0
    assert distance(made.alpha, torch.full_like(made.alpha, 0.7)) < 1e-5
    assert is_sound(made, gradients)


def test_a_size_that_overflows_is_left_out_and_counted(kernels: bool) -> None:
    made = rasterize(**in_front(scales=torch.full((1, 3), 1e30)), kernels=kernels)
    assert not made.info.seen.any()
    assert made.info.not_finite == 1


def test_the_zero_quaternion_is_the_identity_without_gradient(kernels: bool) -> None:
    scene = in_front(scales=torch.tensor([[0.3, 0.1, 0.2]]), quats=torch.zeros(1, 4))
    made, gradients = differentiate(scene, kernels=kernels)
    same = rasterize(**scene | {"quats": torch.tensor([[1.0, 0, 0, 0]])}, kernels=kernels)
    assert torch.equal(made.image, same.image)
    assert not gradients["quats"].any()


@pytest.mark.parametrize("opacity", [1.5, 100.0, 1e20])
def test_opacities_above_one_are_cut_by_the_alpha_limit(opacity: float, kernels: bool) -> None:
    made, gradients = differentiate(in_front(opacities=torch.tensor([opacity])), kernels=kernels)
    assert made.alpha.amax().item() == pytest.approx(0.99, abs=1e-6)
    assert is_sound(made, gradients)


def test_alpha_below_the_limit_still_has_the_gaussian_profile() -> None:
    made = rasterize(**in_front(opacities=torch.tensor([50.0])))
    info, (row, column) = made.info, (10, 15)
    offset = torch.tensor([column + 0.5, row + 0.5]) - info.means2d[0]
    a, b, c = info.conics[0]
    sigma = 0.5 * (a * offset[0] ** 2 + c * offset[1] ** 2) + b * offset[0] * offset[1]
    assert made.alpha[row, column, 0] == pytest.approx(min(0.99, float(50 * (-sigma).exp())), rel=1e-4)


def test_two_opaque_gaussians_end_a_pixel(kernels: bool) -> None:
    scene = in_front()
    stack = {name: scene[name].expand(3, *scene[name].shape[1:]) for name in ("quats", "colors")}
    stack |= {"means": torch.tensor([[0, 0, 2.0], [0, 0, 3], [0, 0, 4]]), "scales": torch.full((3, 3), 50.0)}
    made = rasterize(**scene | stack | {"opacities": torch.ones(3), "background": torch.ones(3) * 1e3}, kernels=kernels)
    assert distance(1 - made.alpha, torch.full((20, 20, 1), 0.01)) < 1e-4  # the second would leave 1e-4, so it is not taken


def test_a_singular_camera_has_no_centre_to_see_harmonics_from(kernels: bool) -> None:
    scene = make_scene(20, degree=1)
    scene["viewmats"][:3, :3] = 0
    made = rasterize(**scene, kernels=kernels, normals=True)
    assert made.info.not_finite == 20
    assert torch.equal(made.image, scene["background"].expand(28, 36, 3))


def test_harmonics_at_the_camera_itself_have_no_direction() -> None:
    scene = in_front(depth=0.0) | {"near": 1e-6}
    scene |= {"sh": torch.rand(1, 4, 3), "colors": None, "means": torch.zeros(1, 3)}
    made = rasterize(**scene)
    assert made.image.isfinite().all()
