"""3 x 3 (x 3) convolutions of maps that were enlarged by repetition, computed on the small maps: `Enlarged`.

Along one axis, of f equal neighbours d the first sees S d[i] - w0 e[i], the last S d[i] + w2 e[i + 1] and all between S d[i],
where S = w0 + w1 + w2 and e[i] = d[i] - d[i - 1]. So three products serve all f places; along two axes nine serve f^2.
Shapes as in `lean.tiled`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mixtura_live_portrait.lean.tiled import multiply
from mixtura_live_portrait.lean.workspace import Workspace

FIRST, BETWEEN, LAST = range(3)


class Enlarged(nn.Module):
    """The convolution `weight` (k, c, [3,] 3, 3), stride 1, padding 1, of maps repeated `factor` times in height and width."""

    whole: Tensor
    down: Tensor
    across: Tensor
    both: Tensor

    def __init__(self, weight: Tensor, factor: int = 2, half: bool = False) -> None:
        super().__init__()
        self.factor, self.k = factor, weight.shape[0]
        taps = weight.double() if weight.ndim == 5 else weight.double()[:, :, None]
        axis = torch.tensor([[1, 1, 1], [-1, 0, 0], [0, 0, 1]], dtype=torch.float64)  # S, what the first adds, what the last adds
        parts = torch.einsum("pi,qj,kczij->pqzck", axis, axis, taps)
        self.dtype = torch.bfloat16 if half else torch.float32
        for name, chosen in (
            ("whole", [parts[0, 0]]),
            ("down", [parts[1, 0], parts[2, 0]]),
            ("across", [parts[0, 1], parts[0, 2]]),
            ("both", [parts[1, 1], parts[1, 2], parts[2, 1], parts[2, 2]]),
        ):
            self.register_buffer(name, torch.cat(chosen, -1)[:, None].to(self.dtype).contiguous(), persistent=False)

    def into(self, space: Workspace, padded: Tensor, bias: Tensor, target: Tensor) -> None:
        """ReLU of the convolution plus `bias`, from `padded` (b, d, h + 2, w + 2, c), whose border is 0, into `target`.

        `target` is (b, d, h f, w f, k), of which the last axis may be cut into several.
        """
        b, d, h, w = (padded.shape[0], padded.shape[1], padded.shape[2] - 2, padded.shape[3] - 2)
        seen = padded.transpose(0, 1)
        down = torch.sub(seen[:, :, 1:], seen[:, :, :-1], out=space.take("down", (d, b, h + 1, w + 2, padded.shape[-1])))
        inner, k = seen[:, :, 1:-1, 1:-1], self.k
        base = self._times(space, "whole", inner).add_(bias)
        rows = self._times(space, "down", down[..., 1:-1, :])
        columns = self._times(space, "across", seen[:, :, 1:-1, 1:] - seen[:, :, 1:-1, :-1])
        corners = self._times(space, "both", down[..., 1:, :] - down[..., :-1, :])
        cut = target.transpose(0, 1).unflatten(2, (h, self.factor)).unflatten(4, (w, self.factor))
        value, line = space.take("value", base.shape), space.take("line", base.shape)
        for p in range(3):
            up = slice(1, None) if p == LAST else slice(None, -1)
            this = base if p == BETWEEN else torch.add(base, rows[:, :, up, :, _part(p, k)], out=line)
            for q in range(3):
                left = slice(1, None) if q == LAST else slice(None, -1)
                place = cut[:, :, :, self._places(p), :, self._places(q)]
                if place.numel() == 0:
                    continue
                there = this if q == BETWEEN else torch.add(this, columns[..., left, _part(q, k)], out=value)
                if BETWEEN not in (p, q):
                    there.add_(corners[:, :, up, left, _part(p, 2 * k)][..., _part(q, k)])
                place.copy_(there.unflatten(-1, target.shape[4:])[:, :, :, None, :, None])
                place.clamp_(min=0)

    def _places(self, kind: int) -> slice:
        """Which of the repeated rows or columns are of a kind."""
        return (slice(0, 1), slice(1, self.factor - 1), slice(self.factor - 1, self.factor))[kind]

    def _times(self, space: Workspace, name: str, values: Tensor) -> Tensor:
        """Values (d, b, h', w', c) times the filters of that name, in float32."""
        filters: Tensor = getattr(self, name)
        d, b, h, w, c = values.shape
        flat = space.take("values", (1, d * b * h * w, c), self.dtype)
        flat.view(values.shape).copy_(values)
        out = multiply(flat, filters, b * h * w, space.take(f"{name} product", (1, flat.shape[1], filters.shape[-1]), self.dtype))
        return space.take(f"{name} product", out.shape).copy_(out).view(d, b, h, w, -1)


def _part(kind: int, width: int) -> slice:
    """The channels of a product that belong to the first or the last place."""
    return slice(0, width) if kind == FIRST else slice(width, 2 * width)
