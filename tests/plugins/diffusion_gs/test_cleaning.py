"""What is kept of a network's Gaussians, and mirrored worlds put right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixtura.errors import DataError
from mixtura_diffusion_gs.cameras import matrices, mirrored, orbit, viewmats
from mixtura_diffusion_gs.gaussians import RawGaussians
from mixtura_diffusion_gs.use.cleaning import cleaned, y_up
from mixtura_splat import Gaussians


def some(n: int = 12, k: int = 1) -> Gaussians:
    """Opaque Gaussians of all shapes near the origin."""
    draw = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.rand(n, 3, generator=draw) - 0.5,
        quats=torch.randn(n, 4, generator=draw),
        scales=torch.rand(n, 3, generator=draw) * 0.2 + 0.02,
        opacities=torch.full((n,), 0.9),
        sh=torch.randn(n, k, 3, generator=draw) * 0.3,
    )


def unmirrored(scene: Gaussians) -> Gaussians:
    """The scene in the world whose y points the other way."""
    raw = RawGaussians(scene.means, scene.sh, scene.scales.log(), scene.quats, scene.opacities.logit()[:, None])
    return RawGaussians(*(value[None] for value in raw)).mirrored(torch.tensor([True])).scene(0)


def covariances(scene: Gaussians) -> Tensor:
    """R diag(s)^2 R' (N, 3, 3)."""
    w, x, y, z = (scene.quats / scene.quats.norm(dim=-1, keepdim=True)).double().unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    turn = torch.stack([torch.stack(row, -1) for row in rows], -2)
    return turn @ torch.diag_embed(scene.scales.double() ** 2) @ turn.mT


def test_faint_stray_and_broken_gaussians_are_dropped() -> None:
    scene = some(6)
    scene.opacities[:2] = torch.tensor([0.02, 0.021])
    scene.means[2, 1], scene.means[3, 0] = -0.92, 0.9
    scene.scales[4, 2] = float("nan")
    assert (cleaned(scene, "object").opacities == scene.opacities[[1, 3, 5]]).all()


def test_scenes_have_no_box_but_ask_for_more_opacity() -> None:
    scene = some(3)
    scene.opacities[0], scene.means[1] = 0.05, 100.0
    assert len(cleaned(scene, "scene")) == 2


def test_nothing_left_is_an_error_with_remedies() -> None:
    scene = some()
    with pytest.raises(DataError, match="none of 12 Gaussians.*train longer"):
        cleaned(Gaussians(scene.means + 5, scene.quats, scene.scales, scene.opacities, scene.sh), "object")


def test_unmirroring_mirrors_every_covariance_and_is_its_own_inverse() -> None:
    scene, mirror = some(), torch.diag(torch.tensor([1.0, -1, 1], dtype=torch.float64))
    right = unmirrored(scene)
    assert torch.allclose(covariances(right), mirror @ covariances(scene) @ mirror, atol=1e-9)
    assert torch.equal(right.means.double(), scene.means.double() @ mirror)
    again = unmirrored(right)
    assert torch.equal(again.quats, scene.quats)


def test_it_is_the_published_swap_of_y_and_z_turned_upright() -> None:
    scene = some()
    swapped = Gaussians(
        scene.means[:, [0, 2, 1]],
        scene.quats[:, [0, 1, 3, 2]] * torch.tensor([1, -1, -1, -1]),
        scene.scales[:, [0, 2, 1]],
        scene.opacities,
        scene.sh,
    )
    upright, right = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]).double(), unmirrored(scene)
    assert torch.allclose(swapped.means.double() @ upright.T, right.means.double())
    assert torch.allclose(upright @ covariances(swapped) @ upright.T, covariances(right), atol=1e-9)
    assert torch.equal(y_up(right.means), swapped.means)


@pytest.mark.parametrize("k", [1, 16])
def test_a_mirrored_camera_sees_the_mirrored_world_as_a_camera_sees_the_true_one(k: int) -> None:
    scene = some(k=k)
    c2w, intrinsics = orbit([0, 70], [20, 50], 3.0, 40.0, 32)
    views = [
        world.render(viewmats(poses), matrices(intrinsics), 32, 32).image
        for world, poses in ((scene, c2w), (unmirrored(scene), mirrored(c2w)))
    ]
    assert torch.allclose(*views, atol=1e-5)
    assert float(views[0].max()) > 0.1
