"""Cameras: rays go through pixels, orbits look at the origin, the mirror leads to the published frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mixtura_diffusion_gs.cameras import matrices, mirrored, nearest, orbit, pinhole, rays, viewmats

GOLDEN = Path(__file__).parents[2] / "parity" / "diffusion_gs" / "cameras" / "golden.npz"


def some_cameras() -> tuple[Tensor, Tensor]:
    """Three cameras with unequal focal lengths and principal points off the centre."""
    c2w, intrinsics = orbit([10, 130, 250], [5, -30, 60], 2.5, 50.0, 16)
    return c2w, intrinsics * torch.tensor([1.0, 1.2, 0.9, 1.1])


def test_rays_go_through_the_centres_of_their_pixels() -> None:
    c2w, intrinsics = some_cameras()
    origins, directions = rays(c2w, intrinsics, 12, 16)
    assert origins.shape == directions.shape == (3, 3, 12, 16)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(3, 12, 16))
    points = (origins + 1.7 * directions).flatten(2)
    view = viewmats(c2w)
    shown = matrices(intrinsics) @ (view[:, :3, :3] @ points + view[:, :3, 3:])
    row, column = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(16) + 0.5, indexing="ij")
    expected = torch.stack([column.flatten(), row.flatten()]).expand(3, -1, -1)
    torch.testing.assert_close(shown[:, :2] / shown[:, 2:], expected, rtol=1e-4, atol=1e-3)


def test_the_nearest_point_of_a_ray_is_where_it_meets_a_right_angle() -> None:
    origins, directions = rays(*some_cameras(), 12, 16)
    k = nearest(origins, directions)
    point = origins + k * directions
    torch.testing.assert_close((point * directions).sum(1), torch.zeros(3, 12, 16), atol=1e-5, rtol=0)
    for step in (-0.1, 0.1):
        assert ((origins + (k + step) * directions).norm(dim=1) > point.norm(dim=1)).all()


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_viewmats_are_inverses(is_mirrored: bool) -> None:
    c2w, _ = some_cameras()
    c2w = mirrored(c2w) if is_mirrored else c2w
    torch.testing.assert_close(viewmats(c2w) @ c2w, torch.eye(4).expand(3, 4, 4), atol=1e-6, rtol=0)


def test_an_orbit_looks_at_the_origin_from_where_its_angles_say() -> None:
    c2w, intrinsics = orbit([0, 90, 0], [0, 0, 30], 2.0, 90.0, 64)
    torch.testing.assert_close(c2w[0, :3, 3], torch.tensor([0.0, -2.0, 0.0]))
    torch.testing.assert_close(c2w[1, :3, 3], torch.tensor([2.0, 0.0, 0.0]))  # counter-clockwise seen from above
    assert c2w[2, 2, 3] == pytest.approx(1.0)
    torch.testing.assert_close(c2w[:, :3, 2], -c2w[:, :3, 3] / 2)
    torch.testing.assert_close(c2w[:, 2, 0], torch.zeros(3))  # right is level
    assert (c2w[:, 2, 1] < 0).all()  # down points down
    torch.testing.assert_close(torch.linalg.det(c2w[:, :3, :3]), torch.ones(3))
    torch.testing.assert_close(intrinsics[0], torch.tensor([32.0, 32.0, 32.0, 32.0]))
    torch.testing.assert_close(pinhole(90.0, 64), intrinsics[0])


def test_leading_axes_are_free() -> None:
    c2w, intrinsics = some_cameras()
    _, alone = rays(c2w[1], intrinsics[1], 4, 6)
    _, batched = rays(c2w.expand(2, 3, 4, 4), intrinsics.expand(2, 3, 4), 4, 6)
    torch.testing.assert_close(batched[1, 1], alone)


def test_cameras_keep_their_precision_under_autocast() -> None:
    c2w, intrinsics = some_cameras()
    expected = (*rays(c2w, intrinsics, 12, 16), viewmats(c2w))
    with torch.autocast("cpu", torch.bfloat16):
        found = (*rays(c2w, intrinsics, 12, 16), viewmats(c2w))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_the_mirror_undoes_itself_and_turns_hands() -> None:
    c2w, _ = some_cameras()
    assert torch.equal(mirrored(mirrored(c2w)), c2w)
    torch.testing.assert_close(torch.linalg.det(mirrored(c2w)[:, :3, :3]), -torch.ones(3))


def test_our_orbit_in_the_mirror_is_the_published_object_frame() -> None:
    """Recorded cameras of the published loader against orbits at their azimuths, elevations and distances."""
    with np.load(GOLDEN) as arrays:
        eyes, published = arrays["json_c2w"][arrays["view_ids"], :3, 3], torch.from_numpy(arrays["object_c2w"])
    distances = np.linalg.norm(eyes, axis=1)
    azimuths = np.degrees(np.arctan2(eyes[:, 0], -eyes[:, 1]))
    elevations = np.degrees(np.arcsin(eyes[:, 2] / distances))
    ours, _ = orbit((azimuths - azimuths[0]).tolist(), elevations.tolist(), 3.0, 39.6, 16)
    ours[:, :3, 3] *= torch.from_numpy(distances / distances[-1])[:, None].float()  # the last camera has the radius there
    torch.testing.assert_close(mirrored(ours), published, atol=1e-6, rtol=0)
