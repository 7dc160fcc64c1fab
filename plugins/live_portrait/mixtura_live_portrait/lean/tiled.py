"""3 x 3 (x 3) convolutions tile by tile, with minimal filtering: `Tiled`.

Shapes: b batch, d depth, h w height and width, c channels in, k channels out, q tiles along w, r rows of tiles; maps (b, h, w, c)
and volumes (b, d, h, w, c) are contiguous with channels last. A tile has m x m outputs and n x n = (m + 2)^2 inputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mixtura_live_portrait.lean.filtering import along_two_axes, filtering
from mixtura_live_portrait.lean.workspace import GAP, Workspace

CHUNK = 24 * 2**20
"""Bytes of intermediate values that are worked on at once: about what stays in a processor's last cache."""


def tile_side(side: int) -> int:
    """Outputs along a side of a tile for maps with this height and width; a map's only tile would waste its large filters."""
    return 4 if side % 4 == 0 and side > 4 else 2


class Tiled(nn.Module):
    """A convolution with 3 x 3 taps, over volumes 3 x 3 x 3, stride 1, padding 1. The bias is left to whoever uses the values.

    `weight` (k, c, [3,] 3, 3). With `half` the products are bfloat16 and all around them float32.
    """

    spectrum: Tensor
    into: Tensor
    back: Tensor

    def __init__(self, weight: Tensor, tile: int, half: bool = False) -> None:
        super().__init__()
        self.m, self.n = tile, tile + 2
        a, g, b = filtering(tile)
        taps = weight.double() if weight.ndim == 5 else weight.double()[:, :, None]
        spectrum = torch.einsum("ia,jb,kczab->zijck", g, g, taps).flatten(1, 2)
        self.dtype = torch.bfloat16 if half else torch.float32
        self.depth, _, self.c, self.k = spectrum.shape
        self.register_buffer("spectrum", spectrum.to(self.dtype).contiguous(), persistent=False)
        self.register_buffer("into", b.float(), persistent=False)
        self.register_buffer("back", a.float(), persistent=False)

    def tiles(self, space: Workspace, padded: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Outputs, a few rows of tiles at a time: which rows of tiles, and values (m, m, d, b, r, q, k), soon overwritten.

        `padded` (b, d, h + 2, w + 2, c) has a border of zeros (`Workspace.bordered`); volumes need none along d.
        """
        m, n, (b, d, h, w, c) = self.m, self.n, padded.shape
        rows, columns = (h - 2) // m, (w - 2) // m
        step = rows_at_once(rows, b * d * columns * n**2 * (c + self.k) * 4, 4 * self.spectrum.numel())
        sb, sd, sh, sw, _ = padded.stride()
        for first in range(0, rows, step):
            r = min(step, rows - first)
            shape, strides = (n, n, d, b, r, columns, c), (sh, sw, sd, sb, m * sh, m * sw, 1)
            count = d * b * r * columns
            seen = space.lines("gathered", (n, n, count * c))
            whole = padded.as_strided(shape, strides, padded.storage_offset() + first * m * sh)
            seen[..., :-GAP].view(shape).copy_(whole)
            values = self.outputs(space, seen, count, count // d)
            yield slice(first, first + r), values.view(m, m, d, b, r, columns, self.k)

    def outputs(self, space: Workspace, seen: Tensor, count: int, slab: int) -> Tensor:
        """From gathered inputs (n, n, count c + gap) of tiles to (m, m, count k); `slab` tiles lie equally deep."""
        m, n, inputs, outputs = self.m, self.n, count * self.c, count * self.k
        ready = along_two_axes(space, self.into, seen, space.lines("ready", (n, n, inputs)))[..., :-GAP]
        if self.dtype != torch.float32:
            ready = space.lines("ready", ready.shape, self.dtype)[..., :-GAP].copy_(ready)
        products = space.lines("products", (n, n, outputs), self.dtype)
        flat = products[..., :-GAP].flatten(0, 1)
        multiply(ready.flatten(0, 1).unflatten(-1, (count, self.c)), self.spectrum, slab, flat.unflatten(-1, (count, self.k)))
        if self.dtype != torch.float32:
            products = space.take("products", products.shape).copy_(products)
        return along_two_axes(space, self.back, products, space.lines("tiles", (m, m, outputs)))[..., :-GAP]


def rows_at_once(rows: int, bytes_each: int, bytes_filters: int = 0) -> int:
    """How many rows of tiles are worked on together: about as many as fit, all about equally many, more for large filters."""
    return -(-rows // max(1, round(rows * bytes_each / max(CHUNK, bytes_filters))))


def multiply(values: Tensor, filters: Tensor, slab: int, out: Tensor) -> Tensor:
    """Sums over channels and depth: values (n, tiles, c), filters (1 or 3, n, c, k) -> out (n, tiles, k).

    Tiles are ordered by depth; `slab` of them lie equally deep.
    """
    here = filters[len(filters) // 2]
    torch.bmm(values, here, out=out)
    if len(filters) == 3 and values.shape[1] > slab:
        out[:, slab:].baddbmm_(values[:, :-slab], filters[0])
        out[:, :-slab].baddbmm_(values[:, slab:], filters[2])
    return out


def as_tiles(whole: Tensor, m: int, rows: slice, scale: int = 1) -> Tensor:
    """The view (m, m, d, b, r, q, c) of rows of tiles in a volume (b, d, h, w, c).

    With a `scale`, as if height and width were repeated so often: (m/scale, scale, m/scale, scale, d, b, r, q, c).
    """
    side = m // scale
    cut = whole[:, :, rows.start * side : rows.stop * side].unflatten(2, (-1, side)).unflatten(4, (-1, side))
    cut = cut.permute(3, 5, 1, 0, 2, 4, 6)  # b d r m q m c -> m m d b r q c
    if scale == 1:
        return cut
    return cut[:, None, :, None].expand(-1, scale, -1, scale, -1, -1, -1, -1, -1)
