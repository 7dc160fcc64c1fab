"""G with less arithmetic: SPADE's maps from the small guide, its convolutions by tiles, channels last.

Shapes: b batch, h w height and width, c channels; maps are (b, 1, h, w, c), for they are volumes of depth 1 to `lean.tiled`. What
is computed is exactly `nets.generator.Generator`:

- scale and shift of a SPADE come from one convolution with both filters;
- the hidden maps of all middle blocks, which see the same guide, come from one convolution, those of the larger blocks from the
  guide before it is enlarged (`lean.enlarged`);
- the shift of a shortcut's norm goes through the shortcut's 1 x 1 filters beforehand;
- instance norm looks at maps before they are enlarged; a bias before a norm, which takes it away, is dropped.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura_live_portrait.lean.enlarged import Enlarged
from mixtura_live_portrait.lean.tiled import Tiled, as_tiles, tile_side
from mixtura_live_portrait.lean.workspace import Workspace, inside
from mixtura_live_portrait.nets.blocks import SLOPE, Spade, SpadeBlock
from mixtura_live_portrait.nets.generator import Generator

EPSILON = 1e-5
"""Of the instance norm."""


def normalised(space: Workspace, x: Tensor) -> Tensor:
    """Instance norm of maps (b, 1, h, w, c)."""
    b, _, h, w, c = x.shape
    flat = x.view(b, h * w, c)
    centred = torch.sub(flat, flat.mean(1, keepdim=True), out=space.take("normal", flat.shape))
    squares = torch.mul(centred, centred, out=space.take("squares", flat.shape))
    return centred.mul_(squares.mean(1, keepdim=True).add_(EPSILON).rsqrt_()).view(x.shape)


class Modulation(nn.Module):
    """Scale and shift of one SPADE from its hidden map; `after` (o, c) are 1 x 1 filters through which the shift goes at once."""

    bias: Tensor

    def __init__(self, spade: Spade, side: int, half: bool, after: Tensor | None = None) -> None:
        super().__init__()
        gamma, beta = spade.mlp_gamma, spade.mlp_beta
        self.c = gamma.out_channels
        shift, offset = beta.weight, cast(Tensor, beta.bias)
        if after is not None:
            shift, offset = torch.einsum("oc,cdij->odij", after, shift), after @ offset
        self.filters = Tiled(torch.cat([gamma.weight, shift]), tile_side(side), half)
        self.register_buffer("bias", torch.cat([cast(Tensor, gamma.bias) + 1, offset]), persistent=False)

    def lit(self, space: Workspace, hidden: Tensor, normal: Tensor, target: Tensor) -> None:
        """Leaky ReLU of the modulated `normal` (b, 1, h, w, c), which may be smaller by a whole factor, into `target`."""
        m, scale = self.filters.m, target.shape[-2] // normal.shape[-2]
        for rows, values in self.filters.tiles(space, hidden):
            values = _repeats(values.add_(self.bias), scale)
            place = _repeats(as_tiles(target, m, rows), scale)
            gamma, beta = values[..., : self.c], values[..., self.c :]
            torch.addcmul(beta, as_tiles(normal, m, rows, scale), gamma, out=place)
            F.leaky_relu_(place, SLOPE)

    def shortcut(self, space: Workspace, hidden: Tensor, normal: Tensor, after: Tensor, target: Tensor) -> None:
        """The modulated `normal` times `after` (c, o) into `target` (b, 1, h, w, o)."""
        m, scale = self.filters.m, target.shape[-2] // normal.shape[-2]
        for rows, values in self.filters.tiles(space, hidden):
            values.add_(self.bias)
            scaled = space.take("ready", (*values.shape[:-1], self.c))
            seen = as_tiles(normal, m, rows, scale)
            torch.mul(seen, _repeats(values[..., : self.c], scale), out=_repeats(scaled, scale))
            place = as_tiles(target, m, rows)
            product = torch.mm(
                scaled.view(-1, self.c), after, out=space.take("middle", (scaled.numel() // self.c, after.shape[1]))
            )
            torch.add(product.view(place.shape), values[..., self.c :], out=place)


def _repeats(tiles: Tensor, scale: int) -> Tensor:
    """Tiles (m, m, …) as (m/scale, scale, m/scale, scale, …), the shape that `as_tiles` gives for enlarged maps."""
    if scale == 1:
        return tiles
    return tiles.unflatten(1, (-1, scale)).unflatten(0, (-1, scale))


class LeanBlock(nn.Module):
    """A residual block whose hidden maps are made elsewhere."""

    after: Tensor
    bias: Tensor

    def __init__(self, block: SpadeBlock, side: int, half: bool) -> None:
        super().__init__()
        tile = tile_side(side)
        self.has_shortcut = block.has_shortcut
        self.norm_0 = Modulation(block.norm_0, side, half)
        self.norm_1 = Modulation(block.norm_1, side, half)
        self.conv_0 = Tiled(block.conv_0.weight(), tile, half)
        self.conv_1 = Tiled(block.conv_1.weight(), tile, half)
        self.register_buffer("bias", cast(Tensor, block.conv_1.bias), persistent=False)
        if self.has_shortcut:
            after = block.conv_s.weight()[:, :, 0, 0]
            self.norm_s = Modulation(block.norm_s, side, half, after)
            self.register_buffer("after", after.T.contiguous(), persistent=False)

    def forward(self, space: Workspace, x: Tensor, hidden: list[Tensor], side: int, name: str) -> Tensor:
        """Maps (b, 1, side, side, o) from x (b, 1, h, w, c); without a shortcut x itself, changed in place."""
        b = x.shape[0]
        normal = normalised(space, x)
        short = x
        if self.has_shortcut:
            short = space.take(name, (b, 1, side, side, self.after.shape[1]))
            self.norm_s.shortcut(space, hidden[2], normal, self.after, short)
        lit = space.bordered("lit", (b, 1, side, side, normal.shape[-1]))
        self.norm_0.lit(space, hidden[0], normal, inside(lit))
        inner = space.take("inner", (b, 1, side, side, self.conv_0.k))
        for rows, values in self.conv_0.tiles(space, lit):
            as_tiles(inner, self.conv_0.m, rows).copy_(values)
        lit = space.bordered("lit", inner.shape)
        self.norm_1.lit(space, hidden[1], normalised(space, inner), inside(lit))
        for rows, values in self.conv_1.tiles(space, lit):
            as_tiles(short, self.conv_1.m, rows).add_(values.add_(self.bias))
        return short


class Hidden(nn.Module):
    """The hidden maps of several SPADEs at `factor` times the guide's size: guide -> list of (b, 1, h + 2, w + 2, hidden)."""

    bias: Tensor

    def __init__(self, spades: list[Spade], factor: int, side: int, half: bool) -> None:
        super().__init__()
        convs = [cast(nn.Conv2d, spade.mlp_shared[0]) for spade in spades]
        weight = torch.cat([conv.weight for conv in convs])
        self.factor, self.count, self.width = factor, len(spades), convs[0].out_channels
        self.filters = Enlarged(weight, factor, half) if factor > 1 else Tiled(weight, tile_side(side), half)
        self.register_buffer("bias", torch.cat([cast(Tensor, conv.bias) for conv in convs]), persistent=False)

    def forward(self, space: Workspace, guide: Tensor, name: str) -> list[Tensor]:
        b, side = guide.shape[0], (guide.shape[2] - 2) * self.factor
        whole = space.bordered(name, (self.count, b, 1, side, side, self.width))
        target = inside(whole)
        if isinstance(self.filters, Enlarged):
            merged = target.permute(1, 2, 3, 4, 0, 5)
            self.filters.into(space, guide, self.bias, merged)
        else:
            for rows, values in self.filters.tiles(space, guide):
                parts = values.add_(self.bias).clamp_(min=0).unflatten(-1, (self.count, self.width))
                for i in range(self.count):
                    as_tiles(target[i], self.filters.m, rows).copy_(parts[..., i, :])
        return list(whole)


class LeanGenerator(nn.Module):
    """Maps (b, h, w, c) from W, channels last -> image (b, 3, S', S') in 0..1."""

    begin_bias: Tensor

    def __init__(self, generator: Generator, side: int, half: bool = False, space: Workspace | None = None) -> None:
        super().__init__()
        tile = tile_side(side)
        self.begin = Tiled(generator.fc.weight, tile, half)
        self.register_buffer("begin_bias", cast(Tensor, generator.fc.bias), persistent=False)
        middle = [cast(SpadeBlock, generator.get_submodule(name)) for name in generator.middle]
        ups = [cast(SpadeBlock, generator.get_submodule(name)) for name in generator.ups]
        self.hidden_middle = Hidden([norm for block in middle for norm in (block.norm_0, block.norm_1)], 1, side, half)
        self.hidden_ups = nn.ModuleList(
            Hidden([up.norm_0, up.norm_1, up.norm_s], 2 << i, side << (i + 1), half) for i, up in enumerate(ups)
        )
        self.middle = nn.ModuleList(LeanBlock(block, side, half) for block in middle)
        self.ups = nn.ModuleList(LeanBlock(up, side << (i + 1), half) for i, up in enumerate(ups))
        self.end = generator.conv_img
        self.space = space or Workspace()

    def forward(self, warped: Tensor) -> Tensor:
        space, (b, side, _, c) = self.space, warped.shape
        guide = space.bordered("guide", (b, 1, side, side, c))
        inside(guide).copy_(warped[:, None])
        x = space.take("middle map", (b, 1, side, side, self.begin.k))
        for rows, values in self.begin.tiles(space, guide):
            torch.add(values, self.begin_bias, out=as_tiles(x, self.begin.m, rows))
        hidden = self.hidden_middle(space, guide, "hidden")
        for i, block in enumerate(self.middle):
            x = block(space, x, hidden[2 * i : 2 * i + 2], side, "")
        for i, block in enumerate(self.ups):
            side *= 2
            x = block(space, x, self.hidden_ups[i](space, guide, "hidden"), side, f"map {i}")
        picture = self.end(F.leaky_relu_(x, SLOPE)[:, 0].permute(0, 3, 1, 2))
        return picture.sigmoid_()
