"""The denoiser: views with their rays in, parameters of Gaussians out, time-modulated transformer between.

Shapes: b batch, v views, h w pixels, n tokens, d channels, p patch, g channels of a Gaussian (xyz 3, harmonics 3 (D + 1)^2,
scale 3, rotation 4, opacity 1). Names of tensors are those of the published checkpoints; where a network has decoders for several
kinds (objects and scenes), each lies below `decoders.KIND`. Paper: arXiv 2411.14384, section 3; numbers as in the published code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura_diffusion_gs.cameras import nearest

FREQUENCIES = 256
"""Channels of the sinusoidal embedding of time."""


@dataclass(frozen=True)
class Sizes:
    """Everything the shapes of a denoiser depend on."""

    width: int
    layers: int
    head_dim: int
    patch: int
    free: int
    sh_degree: int
    in_channels: int = 9

    @property
    def channels(self) -> int:
        """Channels of one Gaussian."""
        return 3 + 3 * (self.sh_degree + 1) ** 2 + 3 + 4 + 1


class TimeEmbedder(nn.Module):
    """Integer times (b,) -> (b, d): sinusoids, cosine half first, then two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
        angles = t[:, None].float() * frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1).to(next(self.mlp.parameters()).dtype))


class Attention(nn.Module):
    """Self-attention over all tokens (b, n, d)."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = width // head_dim, head_dim
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    """Two linear layers with the tanh form of GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def modulation(width: int, count: int) -> nn.Sequential:
    """SiLU and a linear layer: the time embedding (b, d) -> `count` vectors in one (b, count d)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, count * width))


class Block(nn.Module):
    """A transformer block whose norms and residuals are modulated by time."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.attn = Attention(width, head_dim)
        self.mlp = Mlp(width)
        self.adaLN_modulation = modulation(width, 6)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(b, n, d), (b, d) -> (b, n, d)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(time)[:, None].chunk(6, -1)
        x = x + gate1 * self.attn(_norm(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(_norm(x) * (1 + scale2) + shift2)


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Head(nn.Module):
    """Tokens (b, n, d) -> (b, n, out), modulated by time."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(width, eps=1e-5, bias=False)
        self.linear = nn.Linear(width, out, bias=False)
        self.adaLN_modulation = modulation(width, 2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(time)[:, None].chunk(2, -1)
        return self.linear(self.layernorm(x) * (1 + scale) + shift)


class Decoder(nn.Module):
    """The two heads of one kind: of the free tokens (`upsampler`) and of the image tokens."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.upsampler = Head(sizes.width, sizes.channels)
        self.image_token_decoder = Head(sizes.width, sizes.patch**2 * sizes.channels)

    def forward(self, free: Tensor, tokens: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """(b, free, d), (b, n, d) -> (b, free, g), (b, n, p p g)."""
        return self.upsampler(free, time), self.image_token_decoder(tokens, time)


class Denoiser(nn.Module):
    """(b, v, 9, h, w) and times (b,) -> channels of all Gaussians, the free ones and those of the pixels.

    Pixels come in the order view, patch row, patch column, row in the patch, column in the patch.
    """

    def __init__(self, sizes: Sizes, kinds: Sequence[str]) -> None:
        super().__init__()
        self.sizes, self.kinds = sizes, tuple(kinds)
        width = sizes.width
        self.gaussians_pos_embedding = nn.Parameter(torch.empty(sizes.free, width))
        self.t_embedder = TimeEmbedder(width)
        self.image_tokenizer = nn.Sequential(nn.Identity(), nn.Linear(sizes.in_channels * sizes.patch**2, width, bias=False))
        self.transformer_input_layernorm = nn.LayerNorm(width, eps=1e-5, bias=False)
        self.transformer = nn.ModuleList(Block(width, sizes.head_dim) for _ in range(sizes.layers))
        self.decoders = nn.ModuleDict({kind: Decoder(sizes) for kind in self.kinds})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights N(0, 0.02), biases 0, norms 1, free tokens truncated N(0, 0.02): as the published code begins."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.gaussians_pos_embedding, std=0.02)

    def tokens(self, views: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The transformer's tokens (b, free + n, d) after its input norm, and the embedding of time (b, d)."""
        patches = self.image_tokenizer(into_patches(views, self.sizes.patch))
        free = self.gaussians_pos_embedding.expand(len(views), -1, -1)
        return self.transformer_input_layernorm(torch.cat([free, patches], 1)), self.t_embedder(t)

    def forward(self, views: Tensor, t: Tensor, kinds: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(b, free, g) and (b, v h w, g).

        `kinds` (b,) int64 numbers each item's kind among `self.kinds`; None when there is one decoder only.
        """
        x, time = self.tokens(views, t)
        for block in self.transformer:
            x = block(x, time)
        free, pixels = self.decode(x, time, kinds)
        return free, pixels.unflatten(-1, (-1, self.sizes.channels)).flatten(1, 2)

    def decode(self, x: Tensor, time: Tensor, kinds: Tensor | None) -> tuple[Tensor, Tensor]:
        """Every item through the decoder of its kind: (b, free, g), (b, n, p p g)."""
        free, tokens = x[:, : self.sizes.free], x[:, self.sizes.free :]
        if kinds is None or len(self.kinds) == 1:
            return self.decoders[self.kinds[0]](free, tokens, time)
        parts, places = [], []
        for number, kind in enumerate(self.kinds):
            mine = (kinds == number).nonzero(as_tuple=True)[0]
            if len(mine):
                parts.append(self.decoders[kind](free[mine], tokens[mine], time[mine]))
                places.append(mine)
        order = torch.cat(places).argsort()
        return torch.cat([part[0] for part in parts])[order], torch.cat([part[1] for part in parts])[order]


def network_input(images: Tensor, origins: Tensor, directions: Tensor, encoding: str) -> Tensor:
    """What the denoiser sees (b, v, 9, h, w): 2 rgb - 1 and each pixel's ray.

    `images` (b, v, 3, h, w) in the [0, 1] scale, noised or not; `origins` and unit `directions` alike. `encoding`: "reference"
    gives (d, p) with p the ray's point nearest to the origin (paper, section 3.2: reference-point Pluecker coordinates),
    "pluecker" gives (o x d, d).
    """
    if encoding == "reference":
        ray = [directions, origins + nearest(origins, directions) * directions]
    else:
        ray = [torch.linalg.cross(origins, directions, dim=2), directions]
    return torch.cat([2 * images - 1, *ray], 2)


def into_patches(views: Tensor, patch: int) -> Tensor:
    """(b, v, c, h, w) -> (b, v h/p w/p, p p c): a token's numbers in the order row, column, channel."""
    b, v, c, h, w = views.shape
    cut = views.view(b, v, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 1, 3, 5, 4, 6, 2).reshape(b, v * (h // patch) * (w // patch), patch * patch * c)
