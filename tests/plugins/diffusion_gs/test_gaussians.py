"""From channels to Gaussians and pictures: orders, ranges, mirrors, and memory saved without other gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mixtura_diffusion_gs.cameras import mirrored, orbit, rays
from mixtura_diffusion_gs.gaussians import DepthRule, RawGaussians, assemble, from_patches, into_order, split
from mixtura_diffusion_gs.nets.denoiser import Sizes
from mixtura_splat.reference import rotations

SIZES = Sizes(width=16, layers=1, head_dim=16, patch=4, free=2, sh_degree=0)


def some_gaussians(count: int = 60, harmonics: int = 1, seed: int = 0) -> RawGaussians:
    """Random Gaussians around the origin, one item."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(1, count, *shape, generator=generator)

    return RawGaussians(0.4 * normal(3), normal(harmonics, 3), 0.4 * normal(3) - 1.8, normal(4), normal(1))


def cameras(views: int = 3, size: int = 24) -> tuple[Tensor, Tensor]:
    """c2w (1, V, 4, 4) and intrinsics (1, V, 4) around the origin."""
    c2w, intrinsics = orbit([10.0 + 360 / views * i for i in range(views)], [10, -20, 40][:views], 3.0, 40.0, size)
    return c2w[None], intrinsics[None]


def covariances(raw: RawGaussians) -> Tensor:
    """World covariances (1, G, 3, 3)."""
    root = rotations(raw.rotation) * raw.scaling.exp()[..., None, :]
    return root @ root.mT


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_order_of_pixels_and_pictures_are_inverses(patch: int) -> None:
    pictures = torch.arange(2 * 3 * 5 * 8 * 12, dtype=torch.float32).view(2, 3, 5, 8, 12)
    there = into_order(pictures, patch)
    assert there.shape == (2, 3 * 8 * 12, 5)
    assert torch.equal(from_patches(there, 3, 8, 12, patch), pictures)


def test_pixels_come_by_view_then_patch_then_place_in_the_patch() -> None:
    row, column = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    picture = torch.stack([row, column])[None, None]
    assert into_order(picture, 2)[0, :6].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3]]


def test_depth_rules_span_what_they_say() -> None:
    w, k = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([2.0, 3.0, 4.0])
    assert DepthRule("centred", reach=1.8).distance(w, k).tolist() == pytest.approx([0.2, 3.0, 5.8])
    assert DepthRule("range", near=0.5, far=4.5).distance(w, k).tolist() == pytest.approx([0.5, 2.5, 4.5])


def test_channels_become_quantities_with_offsets_and_a_limit() -> None:
    channels = torch.tensor([[[0.1, 0.2, 0.3, 1, 2, 3, 0.0, 1.0, 5.0, 1, 0, 0, 0, 0.0]]])
    raw = split(channels, 0)
    assert raw.features.tolist() == [[[[1, 2, 3]]]]
    assert raw.scaling[0, 0].tolist() == pytest.approx([-2.3, -1.3, -1.2])
    assert raw.activated()["opacities"].item() == pytest.approx(0.1192, abs=1e-4)
    assert raw.activated()["scales"].max() == pytest.approx(0.3012, abs=1e-4)


def assembled(rules: list[DepthRule]) -> tuple[RawGaussians, Tensor, Tensor, Tensor]:
    """Gaussians of random channels, the pictures of centres, and the rays."""
    torch.manual_seed(0)
    c2w, intrinsics = (value.expand(len(rules), *value.shape[1:]) for value in cameras(3, 8))
    origins, directions = rays(c2w, intrinsics, 8, 8)
    free, pixels = torch.randn(len(rules), 2, 14), 3 * torch.randn(len(rules), 3 * 64, 14)
    return *assemble(free, pixels, origins, directions, rules, SIZES), origins, directions


def test_pixels_lie_on_their_rays_and_free_gaussians_anywhere() -> None:
    raw, points, origins, directions = assembled([DepthRule("centred")])
    along = ((points - origins) * directions).sum(2, keepdim=True)
    torch.testing.assert_close(origins + along * directions, points, atol=1e-5, rtol=0)
    assert torch.equal(raw.xyz[:, 2:], into_order(points, 4))
    assert raw.xyz.shape == (1, 2 + 3 * 64, 3)


def test_every_item_has_the_depth_rule_of_its_kind() -> None:
    near, far = DepthRule("centred"), DepthRule("range", near=5, far=9)
    both, alone, other = assembled([near, far]), assembled([near, near]), assembled([far, far])
    assert torch.equal(both[1][0], alone[1][0])
    assert torch.equal(both[1][1], other[1][1])
    distance = (other[1] - other[2]).norm(dim=2)
    assert distance.min() > 5
    assert distance.max() < 9


@pytest.mark.parametrize("compat", ["fixed", "official"])
@pytest.mark.parametrize("harmonics", [1, 4, 9, 16])
def test_mirrored_gaussians_look_the_same_from_mirrored_cameras(harmonics: int, compat: str) -> None:
    raw, (c2w, intrinsics) = some_gaussians(harmonics=harmonics), cameras()
    pictures = raw.render(c2w, intrinsics, 24, 24, compat)
    seen = raw.mirrored(torch.tensor([True])).render(mirrored(c2w), intrinsics, 24, 24, compat)
    torch.testing.assert_close(seen, pictures, atol=1e-6, rtol=0)
    assert pictures.std() > 0.05


def test_the_mirror_of_gaussians_undoes_itself_and_mirrors_covariances() -> None:
    raw = some_gaussians(harmonics=4)
    there = raw.mirrored(torch.tensor([True]))
    assert all(torch.equal(a, b) for a, b in zip(there.mirrored(torch.tensor([True])), raw, strict=True))
    mirror = torch.diag(torch.tensor([1.0, -1.0, 1.0]))
    torch.testing.assert_close(covariances(there), mirror @ covariances(raw) @ mirror, atol=1e-7, rtol=1e-5)
    assert (torch.linalg.det(rotations(there.rotation)) > 0).all()


def test_only_the_items_that_are_meant_are_mirrored() -> None:
    one = some_gaussians()
    raw = RawGaussians(*(value.repeat(2, *[1] * (value.ndim - 1)) for value in one))
    there = raw.mirrored(torch.tensor([False, True]))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(there, raw, strict=True))
    assert not torch.equal(there.xyz[1], raw.xyz[1])


def gradients(raw: RawGaussians, render: Callable[[RawGaussians], Tensor]) -> list[Tensor]:
    """Gradients of all quantities of a random sum over the pictures."""
    leaves = RawGaussians(*(value.detach().clone().requires_grad_() for value in raw))
    pictures = render(leaves)
    weight = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(5))
    return list(torch.autograd.grad((pictures * weight).sum(), leaves))


@pytest.mark.parametrize("compat", ["fixed", "official"])
def test_deferred_drawing_gives_the_same_pictures_and_gradients(compat: str) -> None:
    raw, (c2w, intrinsics) = some_gaussians(), cameras()
    straight = gradients(raw, lambda leaves: leaves.render(c2w, intrinsics, 24, 24, compat))
    deferred = gradients(raw, lambda leaves: leaves.render(c2w, intrinsics, 24, 24, compat, deferred=True))
    for one, other in zip(straight, deferred, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_views_are_drawn_one_by_one_or_together_alike() -> None:
    raw, (c2w, intrinsics) = some_gaussians(), cameras()
    together = raw.render(c2w, intrinsics, 24, 24)
    for view in range(3):
        alone = raw.render(c2w[:, view : view + 1], intrinsics[:, view : view + 1], 24, 24)
        torch.testing.assert_close(together[:, view : view + 1], alone)


def test_nothing_is_drawn_white() -> None:
    raw, (c2w, intrinsics) = some_gaussians(count=1), cameras()
    hidden = raw._replace(opacity=torch.full_like(raw.opacity, -20.0))
    assert torch.equal(hidden.render(c2w, intrinsics, 24, 24), torch.ones(1, 3, 3, 24, 24))


def test_drawing_stays_in_float32_under_autocast() -> None:
    raw, (c2w, intrinsics) = some_gaussians(), cameras()
    expected = raw.render(c2w, intrinsics, 24, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(raw.render(c2w, intrinsics, 24, 24), expected)


def test_a_scene_is_one_item_ready_to_draw() -> None:
    raw, (c2w, intrinsics) = some_gaussians(), cameras()
    scene = raw.scene(0)
    assert len(scene) == 60
    assert not scene.means.requires_grad
    from mixtura_diffusion_gs.cameras import matrices, viewmats

    image = scene.render(viewmats(c2w[0]), matrices(intrinsics[0]), 24, 24, background=torch.ones(3)).image
    torch.testing.assert_close(image.movedim(-1, -3), raw.render(c2w, intrinsics, 24, 24)[0])
