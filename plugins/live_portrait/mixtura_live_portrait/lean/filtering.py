"""Minimal filtering (Toom-Cook, Winograd 1980): m outputs of a filter of r taps by m + r - 1 multiplications instead of m r.

y = A ((G g) * (B d)) for a filter g (r,) and m + r - 1 inputs d. Along two axes each matrix is applied twice; of 3 x 3 filters,
tiles of 4 x 4 outputs take a quarter of the multiplications (Lavin & Gray 2016, arXiv 1509.09308).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mixtura_live_portrait.lean.workspace import Workspace

POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.75, -0.75, 1.5, -1.5)}
"""Where the polynomials are evaluated, by the outputs of a tile, besides at infinity. These keep errors in float32 at about
1e-6, a third of what the usual points (0, 1, -1, 2, -2) give."""


class Filtering(NamedTuple):
    """`outputs` (m, n), `filters` (n, r) and `inputs` (n, n), with n = m + r - 1; float64."""

    outputs: Tensor
    filters: Tensor
    inputs: Tensor


def filtering(outputs: int, taps: int = 3) -> Filtering:
    """The matrices A, G, B for tiles of so many outputs; rows are scaled so that rounding hurts all three alike."""
    count = outputs + taps - 1
    points = torch.tensor(POINTS[outputs], dtype=torch.float64)
    powers = points[:, None] ** torch.arange(count)
    infinity = torch.zeros(1, count, dtype=torch.float64)

    def evaluated(degree: int) -> Tensor:
        last = infinity[:, :degree].clone()
        last[0, -1] = 1
        return torch.cat([powers[:, :degree], last])

    a, g, b = evaluated(outputs), evaluated(taps), torch.linalg.inv(evaluated(count)).T
    norms = [matrix.norm(dim=1, keepdim=True) for matrix in (a, g, b)]
    common = (norms[0] * norms[1] * norms[2]) ** (1 / 3)
    a, g, b = (matrix * common / norm for matrix, norm in zip((a, g, b), norms, strict=True))
    return Filtering(a.T.contiguous(), g, b)


def along_two_axes(space: Workspace, matrix: Tensor, values: Tensor, out: Tensor) -> Tensor:
    """(i, i) -> (p, p) by `matrix` (p, i) along both axes, for each of the rest: values (i, i, rest) -> out (p, p, rest)."""
    (p, i), rest = matrix.shape, values.shape[-1]
    # As batches, which several threads share; one product with a wide matrix would be one thread's work.
    middle = torch.bmm(matrix.expand(i, p, i), values.transpose(0, 1), out=space.take("middle", (i, p, rest)))
    return torch.bmm(matrix.expand(p, p, i), middle.transpose(0, 1), out=out)
