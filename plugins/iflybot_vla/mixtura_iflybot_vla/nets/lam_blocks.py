"""Transformer blocks of the latent action model (sheet section 4.1); parameter names are the published ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOGIT_SCALE = 8.0
"""Queries and keys are L2-normalised, so the logits need a fixed gain."""
NULL_PAIRS = 2
"""Null key-value pairs of a cross-attention."""


class GammaNorm(nn.Module):
    """LayerNorm whose scale is called gamma and whose offset is a buffer of zeros."""

    def __init__(self, dim: int, used: bool = True) -> None:
        super().__init__()
        # Self-attention never uses its context norm; as a buffer it is stored without looking trainable.
        self.gamma = nn.Parameter(torch.ones(dim)) if used else nn.Buffer(torch.ones(dim))
        self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to the same shape."""
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)


class PositionConv(nn.Module):
    """Depth-wise 3x3x3 convolution over (frames, height, width), causal in time: the position encoding of a block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dsconv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, x: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        """x of any (rows, tokens, dim), viewed as (b, t, h, w, dim) = `shape`.

        The temporal stack's rows are (b h w, t): viewing them as `shape` scrambles their order. The weights were trained
        so, hence it stays.
        """
        video = x.reshape(*shape, -1).permute(0, 4, 1, 2, 3)
        if shape[1] <= 2:
            return self._frames(video).reshape(x.shape)
        out = self.dsconv(F.pad(video, (1, 1, 1, 1, 2, 0)))
        return out.permute(0, 2, 3, 4, 1).reshape(x.shape)

    def _frames(self, video: Tensor) -> Tensor:
        """The same for one or two frames, as plain 2-D convolutions (several times faster on a CPU): (b, t, h, w, dim)."""
        weight, dim = self.dsconv.weight, video.shape[1]
        frames = video.unbind(2)
        outs = [F.conv2d(frame, weight[:, :, 2], self.dsconv.bias, padding=1, groups=dim) for frame in frames]
        if len(frames) == 2:
            outs[1] = outs[1] + F.conv2d(frames[0], weight[:, :, 1], padding=1, groups=dim)
        return torch.stack(outs, 1).permute(0, 1, 3, 4, 2)


class CosineAttention(nn.Module):
    """Attention with normalised queries and keys. The pre-norm acts on the queries only; a context has a norm of its own."""

    def __init__(self, dim: int, heads: int, dim_head: int, cross: bool) -> None:
        super().__init__()
        inner, nulls = heads * dim_head, NULL_PAIRS if cross else 0
        self.heads = heads
        null = torch.randn(heads, 2 * nulls, dim_head)
        self.null_kv = nn.Parameter(null) if cross else nn.Buffer(null)
        self.q_scale, self.k_scale = nn.Parameter(torch.ones(dim_head)), nn.Parameter(torch.ones(dim_head))
        self.norm, self.context_norm = GammaNorm(dim), GammaNorm(dim, used=cross)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, bias: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """x (B, T, dim) over itself, or over context (B, C, dim); bias (heads, T, T) is added to the logits."""
        source = x if context is None else self.context_norm(context)
        q = self._split(self.to_q(self.norm(x)))
        k, v = (self._split(part) for part in self.to_kv(source).chunk(2, -1))
        if self.null_kv.shape[1]:
            pairs = self.null_kv.unflatten(1, (-1, 2)).to(k.dtype)
            k = torch.cat([pairs[None, :, :, 0].expand(len(k), -1, -1, -1), k], 2)
            v = torch.cat([pairs[None, :, :, 1].expand(len(v), -1, -1, -1), v], 2)
        q, k = F.normalize(q, dim=-1) * self.q_scale, F.normalize(k, dim=-1) * self.k_scale
        out = F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=None if bias is None else bias[None].to(q.dtype),
                                             scale=LOGIT_SCALE)  # fmt: skip
        return self.to_out(out.transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    """x * gelu(gate); the first half of the channels is x."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2n) -> (..., n)."""
        value, gate = x.chunk(2, -1)
        return value * F.gelu(gate)


def feed_forward(dim: int) -> nn.Sequential:
    """LayerNorm and a gated feed-forward of width 8/3 dim."""
    inner = int(8 / 3 * dim)
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 2 * inner, bias=False), GEGLU(), nn.Identity(), nn.Linear(inner, dim, bias=False)
    )


class LatentBlock(nn.Module):
    """One block; its parts are called 0 (position), 1 (self-attention), 2 (cross-attention), 3 (feed-forward)."""

    def __init__(self, dim: int, heads: int, dim_head: int, cross: bool) -> None:
        super().__init__()
        self.add_module("0", PositionConv(dim))
        self.add_module("1", CosineAttention(dim, heads, dim_head, cross=False))
        if cross:
            self.add_module("2", CosineAttention(dim, heads, dim_head, cross=True))
        self.add_module("3", feed_forward(dim))

    def forward(
        self, x: Tensor, shape: tuple[int, int, int, int], bias: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """x (rows, tokens, dim) to the same; every part is a residual."""
        part = self._modules
        x = x + part["0"](x, shape)
        x = x + part["1"](x, bias)
        if context is not None:
            x = x + part["2"](x, None, context)
        return x + part["3"](x)


class LatentTransformer(nn.Module):
    """A stack of blocks and a last norm."""

    def __init__(self, dim: int, depth: int, heads: int, dim_head: int, cross: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(LatentBlock(dim, heads, dim_head, cross) for _ in range(depth))
        self.norm_out = GammaNorm(dim)

    def forward(
        self, x: Tensor, shape: tuple[int, int, int, int], bias: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """x (rows, tokens, dim) to the same; `shape` (b, t, h, w) is what the position convolutions see."""
        for layer in self.layers:
            x = layer(x, shape, bias, context)
        return self.norm_out(x)


class RelativeBias(nn.Module):
    """Additive attention bias from the relative offsets of two grid cells, sign(d) * log(1 + |d|) on each axis."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [
                nn.Sequential(nn.Linear(2, dim), nn.LeakyReLU(0.1)),
                nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(0.1)),
                nn.Linear(dim, heads),
            ]
        )

    def forward(self, height: int, width: int) -> Tensor:
        """(heads, height * width, height * width)."""
        weight = self.net[2].weight
        rows, columns = torch.arange(height, device=weight.device), torch.arange(width, device=weight.device)
        cells = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        offset = (cells[:, None] - cells[None]).to(weight.dtype)
        x = offset.sign() * torch.log1p(offset.abs())
        for layer in self.net:
            x = layer(x)
        return x.permute(2, 0, 1)
