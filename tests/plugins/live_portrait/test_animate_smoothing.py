"""Smoothing over frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mixtura.errors import ConfigError
from mixtura_live_portrait.animate.smoothing import Filter, orthonormal, smoothed, smoothed_rotations
from mixtura_live_portrait.keypoints import rotation

WALK = torch.cumsum(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), 0)


def most_likely(seen: Tensor, observation: float, process: float, start: float = 1.0) -> Tensor:
    """The same by solving for all frames at once: least squares of the three kinds of surprise."""
    n = len(seen)
    steps = np.diff(np.eye(n), axis=0)
    normal = np.eye(n) / observation + steps.T @ steps / process
    right = seen.double().numpy() / observation
    normal[0, 0] += 1 / start
    right[0] += seen[0].double().numpy() / start
    return torch.from_numpy(np.linalg.solve(normal, right))


@pytest.mark.parametrize(("observation", "process"), [(3e-7, 1e-5), (0.5, 0.1), (10.0, 1e-3)])
def test_smoothed_values_are_the_most_likely_ones(observation: float, process: float) -> None:
    found = smoothed(WALK, observation, process)
    assert found.dtype == WALK.dtype
    torch.testing.assert_close(found.double(), most_likely(WALK, observation, process), atol=1e-5, rtol=1e-5)


def test_jitter_is_damped_and_a_still_value_stays() -> None:
    jitter = torch.tensor([1.0, -1] * 20)[:, None]
    assert smoothed(jitter, 1.0, 0.01)[5:-5].abs().max() < 0.2
    torch.testing.assert_close(smoothed(torch.ones(6, 2), 1.0, 0.1), torch.ones(6, 2))
    torch.testing.assert_close(smoothed(WALK[:1]), WALK[:1])


def test_the_official_variances_hardly_change_anything() -> None:
    assert 0 < (smoothed(WALK) - WALK).abs().max() < 0.1


def test_smoothed_rotations_are_rotations() -> None:
    angles = torch.randn(3, 10, generator=torch.Generator().manual_seed(1)) * 30
    turns = smoothed_rotations(rotation(*angles), 1.0, 0.1)
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(10, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(10))
    still = rotation(*angles[:, :1]).expand(4, 3, 3)
    torch.testing.assert_close(smoothed_rotations(still, 1.0, 0.1), still)


def test_the_nearest_rotation_never_mirrors() -> None:
    mirrored = torch.diag(torch.tensor([1.0, 1, -0.1]))
    torch.testing.assert_close(orthonormal(mirrored), torch.eye(3))


def test_the_filter_of_a_stream_ends_where_smoothing_does() -> None:
    """The last frame has nothing after it, so looking ahead adds nothing there."""
    kept = Filter(0.5, 0.1)
    values = torch.stack([kept.step(value) for value in WALK])
    torch.testing.assert_close(values[-1], smoothed(WALK, 0.5, 0.1)[-1])
    torch.testing.assert_close(values[0], WALK[0])
    assert not torch.allclose(values[5], smoothed(WALK, 0.5, 0.1)[5])


@pytest.mark.parametrize(("observation", "process"), [(-1.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)])
def test_impossible_variances_are_told(observation: float, process: float) -> None:
    with pytest.raises(ConfigError, match="variances"):
        smoothed(WALK, observation, process)
