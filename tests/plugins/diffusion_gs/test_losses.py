"""Terms of the objective one by one, and the ramps of their weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixtura_diffusion_gs import losses


def points_at(distances: Tensor, origins: Tensor) -> Tensor:
    """Points (B, V, 3, H, W) at these distances (B, V, H, W) from cameras, all to the same side."""
    return origins + torch.stack([torch.zeros_like(distances), distances, torch.zeros_like(distances)], 2)


def test_the_image_error_is_a_mean_per_item_over_all_views() -> None:
    target = torch.rand(2, 4, 3, 5, 6)
    rendered = target.clone()
    rendered[1, 2] += 0.5
    assert losses.image_error(rendered, target).tolist() == pytest.approx([0, 0.25 / 4])


def test_dissimilarity_is_zero_for_equal_pictures_and_blind_to_the_border() -> None:
    target = torch.rand(2, 3, 3, 16, 20)
    assert losses.dissimilarity(target, target).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert (losses.dissimilarity(torch.rand_like(target), target) > 0.5).all()
    flat, other = torch.full((1, 1, 3, 16, 16), 0.2), torch.full((1, 1, 3, 16, 16), 0.6)
    luminance = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)  # edges of zeros would add contrast
    assert losses.dissimilarity(flat, other).item() == pytest.approx(1 - luminance, abs=1e-5)


def test_point_errors_count_masked_pixels_and_not_channels() -> None:
    points, true = torch.zeros(1, 2, 3, 4, 4), torch.full((1, 2, 3, 4, 4), 2.0)
    mask = torch.zeros(1, 2, 1, 4, 4, dtype=torch.bool)
    mask[0, 1, 0, :2] = True
    total, count = losses.point_error(points, true, mask)
    assert (total.item(), count.item()) == (8 * 3 * 4.0, 8)


def test_points_with_the_wanted_spread_cost_nothing() -> None:
    origins = torch.zeros(1, 2, 3, 8, 8)
    origins[:, :, 1] = -3.0
    raw = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    standard = (raw - raw.mean((2, 3), keepdim=True)) / raw.flatten(2).std(2)[..., None, None]
    wanted = points_at(losses.SPREAD * standard + 3.0, origins.double())
    assert losses.point_spread(wanted, origins.double()).item() == pytest.approx(0, abs=1e-12)
    shell = points_at(torch.full((1, 2, 8, 8), 2.0) + 0.01 * raw.float(), origins)
    assert losses.point_spread(shell, origins).item() > 0.5


def test_a_shell_is_spread_by_the_gradient_and_its_order_is_kept() -> None:
    origins = torch.zeros(1, 1, 3, 1, 4)
    distances = torch.tensor([2.9, 2.99, 3.01, 3.1]).view(1, 1, 1, 4).requires_grad_()
    losses.point_spread(points_at(distances, origins), origins + 3.0 / 3**0.5).sum().backward()
    assert distances.grad is not None
    steps = -distances.grad.flatten()
    assert (steps.diff() > 0).all()


@pytest.mark.parametrize(
    ("rule", "step", "value"),
    [
        ([150, 0, 1, 151], 150, 0), ([150, 0, 1, 151], 151, 1), ([0, 2, 4, 10], 5, 3), ([0, 2, 4, 10], 99, 4),
        ([0.2, 1.2, 100], 50, 0.7), ([5, 1, 0, 7], 6, 0.5),
    ],
)  # fmt: skip
def test_a_ramp_is_linear_between_its_ends_and_constant_outside(rule: list[float], step: int, value: float) -> None:
    assert losses.ramp(rule, step) == pytest.approx(value)


def test_an_end_that_is_a_float_counts_epochs() -> None:
    assert losses.ramp([2, 0, 1, 6.0], step=1000, epoch=3) == pytest.approx(0.25)
    assert losses.ramp([2, 0, 1, 6], step=3, epoch=1000) == pytest.approx(0.25)


def test_psnr_clamps_first() -> None:
    target = torch.full((2, 3, 4, 4), 1.0)
    assert losses.psnr(torch.stack([target[0] + 5, target[1] - 0.1]), target)[1].item() == pytest.approx(20, abs=1e-4)
    assert losses.psnr(target + 5, target)[0].item() == float("inf")
