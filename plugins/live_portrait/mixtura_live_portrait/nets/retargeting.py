"""The three small networks that adjust keypoints: stitching, eyes, lips."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mixtura_live_portrait.nets.sizes import Sizes


class Retargeting(nn.Module):
    """Linear layers with ReLU between: (b, inputs) -> (b, outputs). Before it has learnt anything it adjusts nothing: all 0."""

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in zip((inputs, *hidden), hidden, strict=False):
            layers += [nn.Linear(a, b), nn.ReLU()]
        last = nn.Linear(hidden[-1] if hidden else inputs, outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(*layers, last)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


def stitching(sizes: Sizes) -> Retargeting:
    """x_s and x_d, flattened -> offsets of x_d and one shift (x, y) of all: (b, 6 K) -> (b, 3 K + 2)."""
    return Retargeting(6 * sizes.keypoints, 3 * sizes.keypoints + 2, sizes.stitching)


def eyes(sizes: Sizes) -> Retargeting:
    """x_s, the source's left and right opening, the wanted one -> offsets: (b, 3 K + 3) -> (b, 3 K)."""
    return Retargeting(3 * sizes.keypoints + 3, 3 * sizes.keypoints, sizes.eyes)


def lips(sizes: Sizes) -> Retargeting:
    """x_s, the source's opening, the wanted one -> offsets: (b, 3 K + 2) -> (b, 3 K)."""
    return Retargeting(3 * sizes.keypoints + 2, 3 * sizes.keypoints, sizes.lips)
