"""Smoothing over frames, by Kalman's filter for values that wander: x_i = x_(i-1) + w, seen as y_i = x_i + v.

`smoothed` looks at all frames, before and after (Rauch, Tung and Striebel 1965), so nothing lags; `Filter` is its forward half
for streams, which can't look ahead. v has the variance `observation` (3e-7 in the official code), w has `process`, and the
first frame is believed (variance START around what is seen there). All components are alike and independent, so one gain serves
for all. With these variances the gain is 0.97: jitter is damped, movement stays. Rotations are smoothed as matrices and made
rotations again by the nearest one; the official code leaves them as they come.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mixtura.errors import ConfigError

OBSERVATION = 3e-7
PROCESS = 1e-5
START = 1.0


def check_variances(observation: float, process: float) -> None:
    """Raises ConfigError unless observation >= 0 and process > 0."""
    if not (observation >= 0 and process > 0):
        raise ConfigError(f"smoothing: variances {observation} of observation, {process} of process; expected >= 0 and > 0")


def smoothed(values: Tensor, observation: float = OBSERVATION, process: float = PROCESS) -> Tensor:
    """(n, ...) -> the same shape: each frame as all frames together make it likely."""
    check_variances(observation, process)
    if len(values) < 2:
        return values
    seen = values.cpu().double()  # one short frame after the other; and not every device has doubles
    means, variances = [seen[0]], [START * observation / (START + observation)]
    for value in seen[1:]:
        before = variances[-1] + process
        gain = before / (before + observation)
        means.append(means[-1] + gain * (value - means[-1]))
        variances.append((1 - gain) * before)
    for index in range(len(means) - 2, -1, -1):
        share = variances[index] / (variances[index] + process)
        means[index] = means[index] + share * (means[index + 1] - means[index])
    return torch.stack(means).to(values)


def orthonormal(matrices: Tensor) -> Tensor:
    """The rotations nearest to matrices (..., 3, 3)."""
    u, _, vt = torch.linalg.svd(matrices.cpu().double())
    signs = torch.ones_like(u[..., 0])
    signs[..., 2] = torch.linalg.det(u @ vt)
    return ((u * signs[..., None, :]) @ vt).to(matrices)


def smoothed_rotations(rotations: Tensor, observation: float = OBSERVATION, process: float = PROCESS) -> Tensor:
    """Rotations (n, 3, 3) -> rotations."""
    return orthonormal(smoothed(rotations, observation, process)) if len(rotations) > 1 else rotations


class Filter:
    """The forward half, one frame after the other. Lags a little, the more the larger `observation` is."""

    def __init__(self, observation: float = OBSERVATION, process: float = PROCESS) -> None:
        check_variances(observation, process)
        self.observation, self.process = observation, process
        self.mean: Tensor | None = None
        self.variance = 0.0

    def step(self, value: Tensor) -> Tensor:
        """The frame as it and those before make it likely."""
        if self.mean is None:
            self.mean, self.variance = value, START * self.observation / (START + self.observation)
            return value
        before = self.variance + self.process
        gain = before / (before + self.observation)
        self.mean, self.variance = self.mean + gain * (value - self.mean), (1 - gain) * before
        return self.mean
