"""compat="graphdeco" against a plain loop over pixels that follows the rules of the original implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mixtura_splat import rasterize
from mixtura_splat.reference import rotations
from tests.kernels.sample_scenes import Scene, make_scene

TILE = 16


def preprocess(scene: Scene) -> list[dict[str, np.ndarray]]:
    """Splats front to back. Pixel coordinates have the first pixel's centre at 0."""
    view, k = scene["viewmats"].numpy(), scene["Ks"].numpy()
    width, height, (fx, fy) = scene["width"], scene["height"], k[[0, 1], [0, 1]]
    limit = 1.3 * np.array([width / (2 * fx), height / (2 * fy)])
    splats = []
    for n, (mean, turn) in enumerate(zip(scene["means"].numpy(), rotations(scene["quats"]).numpy(), strict=True)):
        x, y, z = view[:3, :3] @ mean + view[:3, 3]
        if z <= 0.2:
            continue
        tx, ty = np.clip([x / z, y / z], -limit, limit) * z
        jacobian = np.array([[fx / z, 0, -fx * tx / z**2], [0, fy / z, -fy * ty / z**2]])
        root = jacobian @ view[:3, :3] @ turn @ np.diag(scene["scales"][n].numpy())
        covariance = root @ root.T + 0.3 * np.eye(2)
        determinant, middle = np.linalg.det(covariance), np.trace(covariance) / 2
        radius = math.ceil(3 * math.sqrt(middle + math.sqrt(max(0.1, middle**2 - determinant))))
        centre = np.array([fx * x / z + k[0, 2], fy * y / z + k[1, 2]]) - 0.5
        splats.append({"index": n, "depth": z, "centre": centre, "radius": radius, "conic": np.linalg.inv(covariance)})
    return sorted(splats, key=lambda splat: splat["depth"])


def covers(splat: dict[str, np.ndarray], row: int, column: int) -> bool:
    """Whether the pixel's tile is in the square of the splat, rounded outwards to tiles (int() cuts towards 0)."""
    low = [int((c - splat["radius"]) / TILE) for c in splat["centre"]]
    high = [int((c + splat["radius"] + TILE - 1) / TILE) for c in splat["centre"]]
    return all(max(0, a) <= place // TILE < max(0, b) for place, a, b in zip((column, row), low, high, strict=True))


def render(scene: Scene) -> np.ndarray:
    """[H,W,3]."""
    splats, colors, background = preprocess(scene), scene["colors"].numpy(), scene["background"].numpy()
    image = np.zeros((scene["height"], scene["width"], 3))
    for row, column in np.ndindex(image.shape[:2]):
        left = 1.0
        for splat in splats:
            if not covers(splat, row, column):
                continue
            offset = splat["centre"] - (column, row)
            power = -0.5 * offset @ splat["conic"] @ offset
            alpha = min(0.99, scene["opacities"][splat["index"]].item() * math.exp(power))
            if alpha < 1 / 255:
                continue
            if left * (1 - alpha) < 1e-4:
                break
            image[row, column] += left * alpha * colors[splat["index"]]
            left *= 1 - alpha
        image[row, column] += left * background
    return image


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "reference"])
@pytest.mark.parametrize("scale", [0.02, 0.15, 0.6])
def test_the_original_rules_give_the_same_pixels(scale: float, kernels: bool) -> None:
    scene = make_scene(40, seed=4, size=(50, 37), scale=scale, dtype=torch.float64)
    scene["means"] *= torch.tensor([2.0, 1.5, 2.9])  # some behind 0.2, some where the Jacobian is clamped
    scene["opacities"][:10] = 0.995
    made = rasterize(**scene, compat="graphdeco", kernels=kernels)
    assert np.abs(made.image.numpy() - render(scene)).max() < 1e-12


def test_the_rules_differ_from_the_default_ones() -> None:
    scene = make_scene(40, seed=4, size=(50, 37), scale=0.15)
    difference = (rasterize(**scene, compat="graphdeco").image - rasterize(**scene).image).abs()
    assert 0 < difference.max() < 0.05


def test_the_near_plane_is_at_a_fifth() -> None:
    scene = make_scene(1)
    scene |= {"means": torch.tensor([[0, 0, 0.15]]), "viewmats": torch.eye(4), "scales": torch.full((1, 3), 0.05)}
    assert not rasterize(**scene, compat="graphdeco").info.seen.any()
    assert rasterize(**scene, compat="graphdeco", near=0.1).info.seen.all()
