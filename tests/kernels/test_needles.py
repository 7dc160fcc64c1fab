"""Splats a thousand times longer than wide: where a x^2 + 2 b x y + c y^2 cancels in float32, the factored form does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixtura_splat import ops, rasterize
from tests.kernels.sample_scenes import Scene, distance, make_scene

SIZE = (320, 320)


def needles(dtype: torch.dtype = torch.float32) -> Scene:
    """Thin diagonal lines through the image, each across the whole of it."""
    scene = make_scene(12, size=SIZE, seed=2)
    scene |= {"means": scene["means"] * 0.6, "scales": torch.tensor([1.5, 1e-5, 1e-5]).expand(12, 3)}
    return {name: value.to(dtype) if isinstance(value, Tensor) else value for name, value in scene.items()}


def splats_of(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """[1,1,N,8], extents and tiles."""
    info = rasterize(**scene).info
    return info.splats[None, None], info.extents[None, None], info.tiles[None, None]


def alpha(splats: Tensor, extents: Tensor, tiles: Tensor, index: int) -> Tensor:
    """What one splat alone covers."""
    parts = [tensor[:, :, index : index + 1] for tensor in (splats, extents, tiles)]
    return 1 - ops.composite(parts[0], parts[0][..., :1], None, parts[1], parts[2], None, *SIZE, 0.99, 0)[2][0, 0]


def alpha_by_conic(splats: Tensor, index: int) -> Tensor:
    """The same in the usual form, from the exact conic rounded to float32."""
    x, y, u11, u12, u22, opacity = splats[0, 0, index, :6].double()
    a, b, c = (value.float() for value in (u11 * u11, u11 * u12, u12 * u12 + u22 * u22))
    rows, columns = torch.meshgrid(torch.arange(SIZE[1]), torch.arange(SIZE[0]), indexing="ij")
    dx, dy = x.float() - (columns + 0.5), y.float() - (rows + 0.5)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    value = (opacity.float() * (-sigma).exp()).clamp(max=0.99)
    return torch.where((sigma >= 0) & (value >= 1 / 255), value, 0.0)


def test_blending_a_needle_is_far_more_exact_than_the_conic_form() -> None:
    splats, extents, tiles = splats_of(needles())
    ours = plain = 0.0
    for index in range(12):
        exact = alpha(splats.double(), extents.double(), tiles, index)
        smooth = exact > 0.05  # away from the rim, where one rounding decides between 1/255 and 0
        ours = max(ours, float((alpha(splats, extents, tiles, index) - exact)[smooth].abs().max()))
        plain = max(plain, float((alpha_by_conic(splats, index) - exact)[smooth].abs().max()))
    assert ours < 2e-4
    assert plain > 20 * ours


def test_needles_in_float32_are_those_in_float64() -> None:
    made, exact = rasterize(**needles()), rasterize(**needles(torch.float64))
    assert distance(made.image, exact.image) < 1e-4
    assert distance(made.info.conics, exact.info.conics) < 1e-4


@pytest.mark.parametrize("thickness", [1e-3, 1e-4])
def test_the_compensation_of_needles_does_not_cancel(thickness: float) -> None:
    scene = needles() | {"scales": torch.tensor([1.5, thickness, thickness]).expand(12, 3)}
    exact = {name: value.double() if isinstance(value, Tensor) else value for name, value in scene.items()}
    made, wanted = (rasterize(**each, mode="antialiased").info.splats[:, 5] for each in (scene, exact))
    assert distance(made, wanted) < 1e-5


def test_a_diagonal_needle_lists_a_line_of_tiles_and_not_a_square() -> None:
    info = rasterize(**needles()).info
    across = SIZE[0] // 16
    assert info.tiles.max() <= 4 * across  # its box may hold across^2 = 400


def test_no_pixel_of_a_needle_is_lost_to_its_list() -> None:
    scene = needles(torch.float64)
    assert distance(rasterize(**scene).image, rasterize(**scene, kernels=False).image) < 1e-10
