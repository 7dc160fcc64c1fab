"""Intervals against tables and coverage, action errors and image measures against direct formulas."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from mixtura.metrics.control import action_errors, mean_interval, student_quantile, wilson
from mixtura.metrics.image import gmsd, psnr, ssim


def test_wilson_gives_the_known_values():
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-5)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-5)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("trials", [1, 7, 50])
def test_wilson_holds_the_rate_and_solves_its_equation(trials):
    for successes in range(trials + 1):
        low, high = wilson(successes, trials)
        rate = successes / trials
        assert 0 <= low <= rate <= high <= 1
        for bound in (low, high):
            if 0 < bound < 1:
                assert (rate - bound) ** 2 == pytest.approx(1.96**2 * bound * (1 - bound) / trials)


def test_wilson_is_the_mirror_of_the_failures():
    low, high = wilson(3, 20)
    assert wilson(17, 20) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "trials"), [(3, 2), (-1, 2)])
def test_wilson_refuses_impossible_counts(successes, trials):
    with pytest.raises(ValueError, match="between 0 and trials"):
        wilson(successes, trials)


@pytest.mark.parametrize(
    ("df", "value"), [(1, 12.706205), (2, 4.302653), (3, 3.182446), (4, 2.776445), (9, 2.262157), (30, 2.042272)]
)
def test_student_quantile_agrees_with_the_printed_table(df, value):
    assert student_quantile(0.975, df) == pytest.approx(value, abs=1e-6)
    assert student_quantile(0.025, df) == pytest.approx(-value, abs=1e-6)


def test_student_quantile_goes_over_smoothly_to_the_expansion():
    values = [student_quantile(0.995, df) for df in (199, 200, 201, 202)]
    steps = np.diff(values)
    assert (steps < 0).all()
    assert np.ptp(steps) < 5e-6
    assert student_quantile(0.975, 10**6) == pytest.approx(1.9599664, abs=1e-5)


def test_mean_interval_is_the_mean_with_the_t_interval():
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert high - mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert mean - low == pytest.approx(high - mean)


def test_mean_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    rows = rng.normal(5, 2, (2000, 4))
    held = sum(low <= 5 <= high for _, low, high in map(mean_interval, rows))
    assert 0.93 < held / 2000 < 0.97


def test_one_value_has_a_mean_but_no_bounds():
    assert mean_interval([3.0]) == (3.0, -math.inf, math.inf)


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_mean_interval_refuses_what_has_no_mean(values):
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values)


def test_action_errors_count_valid_steps_only():
    rng = np.random.default_rng(1)
    target, valid = (
        rng.normal(size=(3, 5, 2)),
        np.array([[True] * 5, [True, True, False, False, False], [True, False, False, False, False]]),
    )
    predicted = target + rng.normal(size=target.shape)
    difference = (predicted - target)[valid]
    predicted[~valid] = np.nan
    errors = action_errors(predicted, target, valid)
    assert errors.count == 8
    assert errors.mse == pytest.approx((difference**2).mean())
    assert errors.l1 == pytest.approx(np.abs(difference).mean())
    assert errors.per_dim == pytest.approx(np.abs(difference).mean(0))
    assert errors.per_step[0] == pytest.approx(np.abs(predicted[:, 0] - target[:, 0]).mean())


def test_action_errors_of_a_step_that_is_never_valid_are_nan():
    errors = action_errors(np.zeros((1, 2, 3)), np.ones((1, 2, 3)), np.array([[True, False]]))
    assert errors.per_step[0] == 1
    assert math.isnan(errors.per_step[1])


def test_action_errors_refuse_shapes_that_do_not_match():
    with pytest.raises(ValueError, match=r"\(\.\.\., T, A\)"):
        action_errors(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="valid must be"):
        action_errors(np.zeros((2, 3)), np.zeros((2, 3)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="no valid action"):
        action_errors(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros(2))


def test_psnr_is_the_formula_per_image():
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 3, 8, 9)), rng.random((2, 3, 8, 9))
    expected = [-10 * math.log10(((x - y) ** 2).mean()) for x, y in zip(a, b, strict=True)]
    assert psnr(torch.tensor(a), torch.tensor(b)).tolist() == pytest.approx(expected)
    assert psnr(torch.full((1, 4, 4), 0.5), torch.full((1, 4, 4), 0.6)).item() == pytest.approx(20, abs=1e-4)
    assert psnr(torch.tensor(a[0]), torch.tensor(a[0])).item() == math.inf


def test_uint8_images_have_a_peak_of_255():
    a, b = torch.zeros(1, 16, 16, dtype=torch.uint8), torch.full((1, 16, 16), 51, dtype=torch.uint8)
    assert psnr(a, b).item() == pytest.approx(20 * math.log10(5))
    assert ssim(a, b).item() == pytest.approx(ssim(a / 255, b / 255).item(), abs=1e-6)


def direct_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of (H, W) images in [0, 1], window by window, straight from the definition."""
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = a[top : top + 11, left : left + 11], b[top : top + 11, left : left + 11]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy, c = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum(), (window * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + 1e-4) * (2 * c + 9e-4) / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4)))
    return float(np.mean(values))


def test_ssim_is_the_formula_window_by_window():
    rng = np.random.default_rng(3)
    a = rng.random((2, 3, 14, 17))
    b = np.clip(a + 0.2 * rng.normal(size=a.shape), 0, 1)
    expected = [np.mean([direct_ssim(x, y) for x, y in zip(i, j, strict=True)]) for i, j in zip(a, b, strict=True)]
    assert ssim(torch.tensor(a), torch.tensor(b)).tolist() == pytest.approx(expected, abs=1e-12)


def test_ssim_of_flat_images_is_the_luminance_term_alone():
    a, b = torch.full((1, 12, 12), 0.4), torch.full((1, 12, 12), 0.5)
    assert ssim(a, b).item() == pytest.approx((2 * 0.2 + 1e-4) / (0.41 + 1e-4), abs=1e-6)
    assert ssim(a, a).item() == pytest.approx(1)


def test_gmsd_is_the_formula_pixel_by_pixel():
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.rand(2, 3, 8, 12, generator=generator, dtype=torch.float64)

    def magnitudes(image):
        small = image.mean(0).view(4, 2, 6, 2).mean((1, 3))
        found = torch.zeros(4, 6, dtype=torch.float64)
        for i in range(4):
            for j in range(6):
                rows, columns = ([min(max(at + step, 0), size - 1) for step in (-1, 0, 1)] for at, size in ((i, 4), (j, 6)))
                around = small[rows][:, columns]
                across, down = around[:, 0] - around[:, 2], around[0] - around[2]
                found[i, j] = ((across.sum() / 3) ** 2 + (down.sum() / 3) ** 2) ** 0.5
        return found

    a, b, c = magnitudes(predicted), magnitudes(target), 170 / 255**2
    similarity = (2 * a * b + c) / (a**2 + b**2 + c)
    assert gmsd(predicted, target).item() == pytest.approx(similarity.std(correction=0).item())


def test_gmsd_is_zero_for_equal_images_symmetric_and_grows_with_noise():
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.rand(2, 4, 3, 16, 16, generator=generator)
    assert gmsd(image, image).tolist() == [0, 0, 0, 0]
    near, far = (gmsd(image + amount * noise, image) for amount in (0.1, 0.5))
    assert (near > 0).all()
    assert (near < far).all()
    torch.testing.assert_close(gmsd(image, noise), gmsd(noise, image))


def test_gmsd_sees_neither_brightness_nor_the_range_of_the_numbers():
    image, other = torch.randint(20, 200, (2, 3, 10, 14), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert gmsd(image + 30, image).item() == pytest.approx(0, abs=1e-9)
    assert gmsd(image, other).item() == pytest.approx(gmsd(image / 255, other / 255).item(), abs=1e-6)


def test_image_measures_refuse_what_they_cannot_compare():
    with pytest.raises(ValueError, match="both images"):
        psnr(torch.zeros(3, 4, 4), torch.zeros(3, 4, 5))
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(torch.zeros(3, 10, 20), torch.zeros(3, 10, 20))
    with pytest.raises(ValueError, match="4 x 4"):
        gmsd(torch.zeros(3, 3, 20), torch.zeros(3, 3, 20))
    with pytest.raises(ValueError, match="one range"):
        psnr(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.uint8))


def test_control_measures_do_not_import_torch():
    code = "import sys, mixtura.metrics.control; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
