"""Changes of the scene that must not change the images, or change them in a known way."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mixtura_splat import rasterize
from mixtura_splat.reference import rotations
from tests.kernels.sample_scenes import Scene, differentiate, distance, images, make_scene

GAUSSIANS = ("means", "quats", "scales", "opacities", "colors")
SEEDS = st.integers(0, 10_000)
double = torch.float64


def same_images(left: Scene, right: Scene, limit: float = 1e-12, **options: object) -> bool:
    pairs = zip(images(rasterize(**left, **options)), images(rasterize(**right, **options)), strict=True)
    return all(distance(a, b) <= limit for a, b in pairs)


@settings(max_examples=20)
@given(seed=SEEDS)
def test_the_order_of_gaussians_does_not_matter(seed: int) -> None:
    scene = make_scene(seed=seed)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    before, expected = differentiate(scene)
    after, found = differentiate(scene | {name: scene[name][order] for name in GAUSSIANS})
    assert torch.equal(after.image, before.image)
    assert all(torch.equal(found[name], expected[name][order]) for name in GAUSSIANS)
    assert distance(found["viewmats"], expected["viewmats"]) < 1e-4


def test_at_equal_depth_the_lower_index_is_in_front() -> None:
    scene = make_scene(1)
    twins = {name: scene[name].expand(2, *scene[name].shape[1:]) for name in GAUSSIANS}
    image = rasterize(**scene | twins | {"colors": torch.eye(3)[:2], "background": None}).image
    assert (image[..., 0] >= image[..., 1]).all()
    assert (image[..., 0] > image[..., 1]).any()


@settings(max_examples=10)
@given(seed=SEEDS)
def test_scenes_and_views_may_be_in_any_order(seed: int) -> None:
    scene = make_scene(seed=seed, scenes=3, views=2)
    whole = rasterize(**scene).image
    flipped = scene | {name: scene[name].flip(0) for name in (*GAUSSIANS, "viewmats", "Ks")}
    assert torch.equal(rasterize(**flipped).image, whole.flip(0))
    turned = scene | {name: scene[name].flip(1) for name in ("viewmats", "Ks")}
    assert torch.equal(rasterize(**turned).image, whole.flip(1))


@pytest.mark.parametrize("left", [1, 7, 16, 20])
@pytest.mark.parametrize("top", [3, 16])
def test_a_crop_is_a_shift_of_the_principal_point(left: int, top: int) -> None:
    scene = make_scene(300, seed=1, scale=0.004, dtype=double)  # smaller than the margin in which the Jacobian is not clamped
    shifted = scene["Ks"].clone()
    shifted[:2, 2] -= torch.tensor([left, top])
    crop = scene | {"Ks": shifted, "width": scene["width"] - left, "height": scene["height"] - top}
    assert distance(rasterize(**crop).image, rasterize(**scene).image[top:, left:]) < 1e-12


@pytest.mark.parametrize("axis", [0, 1])
def test_a_negative_focal_length_mirrors_the_image(axis: int) -> None:
    scene = make_scene(scale=0.4, dtype=double)
    size = (scene["width"], scene["height"])[axis]
    mirrored = scene["Ks"].clone()
    mirrored[axis, axis] *= -1
    mirrored[axis, 2] = size - mirrored[axis, 2]
    assert distance(rasterize(**scene | {"Ks": mirrored}).image, rasterize(**scene).image.flip(1 - axis)) < 1e-12


@settings(max_examples=10)
@given(seed=SEEDS)
def test_moving_the_world_and_the_camera_together_changes_nothing(seed: int) -> None:
    scene = make_scene(seed=seed, dtype=double)
    random = torch.Generator().manual_seed(seed)
    turn, motion = torch.randn(4, generator=random).double(), torch.eye(4).double()
    motion[:3, :3], motion[:3, 3] = rotations(turn), torch.randn(3, generator=random)
    moved = scene | {
        "means": scene["means"] @ motion[:3, :3].T + motion[:3, 3],
        "quats": quaternion_product(turn, scene["quats"]),
        "viewmats": scene["viewmats"] @ torch.linalg.inv(motion),
    }
    assert same_images(moved, scene, 1e-9, depth="expected")


def quaternion_product(a: Tensor, b: Tensor) -> Tensor:
    """(w, x, y, z), a [4] times b [N,4]."""
    along = a[:1] * b[:, 1:] + b[:, :1] * a[1:] + torch.linalg.cross(a[1:].expand(len(b), 3), b[:, 1:])
    return torch.cat([a[:1] * b[:, :1] - (a[1:] * b[:, 1:]).sum(-1, keepdim=True), along], -1)


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_larger_world_looks_the_same_from_further_away(factor: float) -> None:
    scene = make_scene(dtype=double)
    larger = scene | {name: scene[name] * factor for name in ("means", "scales")}
    larger["viewmats"] = torch.cat([scene["viewmats"][:, :3], scene["viewmats"][:, 3:] * factor], 1)
    small, large = rasterize(**scene, depth="expected"), rasterize(**larger, depth="expected")
    assert distance(large.image, small.image) < 1e-12
    assert distance(large.depth, small.depth * factor) < 1e-12


def test_length_and_sign_of_quaternions_do_not_matter() -> None:
    scene = make_scene(dtype=double)
    assert same_images(scene | {"quats": scene["quats"] * -3.7}, scene)


def test_the_background_shows_through_by_the_transmittance() -> None:
    scene = make_scene(dtype=double)
    made, black = rasterize(**scene), rasterize(**scene | {"background": None})
    assert distance(made.image, black.image + (1 - black.alpha) * scene["background"]) < 1e-12


def test_depth_is_blended_as_a_feature() -> None:
    scene = make_scene(dtype=double)
    made = rasterize(**scene, depth="accumulated")
    blended = rasterize(**scene, features=made.info.depths[:, None]).features
    assert distance(made.depth, blended) < 1e-12
    assert distance(rasterize(**scene, depth="expected").depth, made.depth / made.alpha.clamp(min=1e-10)) < 1e-12


def test_normals_are_blended_over_nothing() -> None:
    scene = make_scene(dtype=double)
    made = rasterize(**scene, normals=True)
    assert (made.info.normals.norm(dim=-1, keepdim=True) <= made.alpha + 1e-12).all()


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_normals_point_from_a_disc_to_the_camera(side: float) -> None:
    scene = make_scene(1)
    scene |= {"means": torch.zeros(1, 3), "quats": torch.tensor([[side, 0, 0, 0]]), "scales": torch.tensor([[0.5, 0.5, 0.01]])}
    normals = rasterize(
        **scene | {"viewmats": torch.diag(torch.tensor([side, 1, side, 1])) + away(3.0)}, normals=True
    ).info.normals
    assert distance(normals[14, 18] / normals[14, 18].norm(), torch.tensor([0, 0, -side])) < 1e-6


def away(distance: float) -> Tensor:
    """What moves a camera back."""
    return torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, distance], [0, 0, 0, 0]])
