"""Convolutions with large kernels over volumes, by Fourier transforms of tiles: `Fourier`. Shapes as in `lean.tiled`.

Along height and width each tile is transformed, multiplied with the filters' transform and brought back; along depth the taps are
added up. 7 x 7 x 7 filters so take a twelfth of the multiplications, and no more rounding than the direct sum has.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mixtura_live_portrait.lean.tiled import rows_at_once
from mixtura_live_portrait.lean.workspace import GAP, Workspace

TILE = 16
"""Outputs along a side of a tile, at most."""


class Fourier(nn.Module):
    """The convolution `weight` (k, c, t, t, t), t odd, stride 1, padding t // 2. The bias is left to whoever uses the values.

    With `half` the products are bfloat16, of real and imaginary parts side by side; the transforms stay in float32.
    """

    spectrum: Tensor

    def __init__(self, weight: Tensor, side: int, half: bool = False) -> None:
        super().__init__()
        self.k, self.c, self.taps = weight.shape[:3]
        self.m = next(m for m in range(min(TILE, side), 0, -1) if side % m == 0)
        self.n = self.m + self.taps - 1
        filters = torch.fft.rfft2(weight.double(), s=(self.n, self.n)).conj()
        spectrum = filters.permute(3, 4, 1, 2, 0).flatten(0, 1).flatten(2)  # frequencies, c, taps along depth and k
        if half:
            of_real = torch.stack([spectrum.real, spectrum.imag], -1)
            of_imaginary = torch.stack([-spectrum.imag, spectrum.real], -1)
            spectrum = torch.stack([of_real, of_imaginary], 2).flatten(1, 2).flatten(2)
        self.dtype = torch.bfloat16 if half else torch.complex64
        self.register_buffer("spectrum", spectrum.to(self.dtype).contiguous(), persistent=False)

    def tiles(self, space: Workspace, padded: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """As `Tiled.tiles`; the border of zeros of `padded` is t // 2 wide."""
        m, n, (b, d, h, w, c) = self.m, self.n, padded.shape
        rows, columns = (h - self.taps + 1) // m, (w - self.taps + 1) // m
        step = rows_at_once(rows, b * d * columns * n**2 * 2 * c * 4)
        sb, sd, sh, sw, _ = padded.stride()
        for first in range(0, rows, step):
            r = min(step, rows - first)
            shape, strides = (n, n, d, b, r, columns, c), (sh, sw, sd, sb, m * sh, m * sw, 1)
            count = d * b * r * columns * c
            seen = space.lines("gathered", (n, n, count))[..., :-GAP]
            seen.view(shape).copy_(padded.as_strided(shape, strides, padded.storage_offset() + first * m * sh))
            waves = torch.fft.rfft2(seen, dim=(0, 1)).reshape(len(self.spectrum), -1, c)
            products = self._products(space, waves).view(len(waves), d, -1, self.taps, 2 * self.k)
            total = torch.view_as_complex(self._along_depth(space, products).unflatten(-1, (self.k, 2)))
            values = torch.fft.irfft2(total.view(n, n // 2 + 1, -1), s=(n, n), dim=(0, 1))[:m, :m]
            yield slice(first, first + r), values.view(m, m, d, b, r, columns, self.k)

    def _products(self, space: Workspace, waves: Tensor) -> Tensor:
        """Sums over channels: waves (f, tiles, c) -> (f, tiles, taps k 2), real and imaginary parts side by side."""
        if self.dtype == torch.complex64:
            products = space.take("waves", (*waves.shape[:2], self.taps * self.k), torch.complex64)
            return torch.view_as_real(torch.bmm(waves, self.spectrum, out=products)).flatten(2)
        parts = torch.view_as_real(waves).flatten(2)
        values = space.take("parts", parts.shape, self.dtype).copy_(parts)
        products = space.take("waves", (*parts.shape[:2], self.spectrum.shape[2]), self.dtype)
        return torch.bmm(values, self.spectrum, out=products)

    def _along_depth(self, space: Workspace, products: Tensor) -> Tensor:
        """Sums (f, d, tiles, k) in float32 over the taps of products (f, d, tiles, taps, k)."""
        f, d, tiles, taps, k = products.shape
        total = space.take("total waves", (f, d, tiles, k))
        total.copy_(products[:, :, :, taps // 2])
        for tap in range(taps):
            away = tap - taps // 2
            if 0 < away < d:
                total[:, :-away].add_(products[:, away:, :, tap])
            elif -d < away < 0:
                total[:, -away:].add_(products[:, :away, :, tap])
        return total
