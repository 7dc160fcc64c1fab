"""Two other latent action models of the published code (sheet sections 4.5 and 4.6).

    LatentActionModelFSQ(dim, image, patch, ..., levels=(5, 3), codes=4)       # rounding to a fixed grid, no codebook
    ActionSupervision(codes=4, code_dim=32, action_dim=7)                      # predicts the action at the second frame
        head(codes (B * codes, code_dim), first_action (B, action_dim)) -> (B, action_dim);  add its squared error to the loss

`LatentActionModelFSQ` has the methods of `LatentActionModel`. `ActionSupervision` stands beside a `LatentActionModel` with 4
codes of a codebook of 8 and reads `Quantised.codes` (or what was passed on in training).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from mixtura.errors import MixturaError
from mixtura_iflybot_vla.nets.lam import CODE_GRIDS, LatentActionModel, Quantised

SHRINK = 1e-3
"""Keeps the bounded value off the edges of the grid."""


class FiniteScalar(nn.Module):
    """Finite scalar quantisation: every channel is bounded and rounded to one of its levels; no codebook can collapse."""

    def __init__(self, dim: int, levels: tuple[int, ...], codes: int, width: int = 32) -> None:
        super().__init__()
        rows, columns = CODE_GRIDS[codes]
        self.codes, self.codes_shape = codes, (rows, columns)
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32), persistent=False)
        steps = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("steps", torch.tensor(steps, dtype=torch.float32), persistent=False)
        self.project_in = nn.Linear(dim, width)
        self.cnn_encoder = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(width // 2, len(levels), 3, 1, 1),
            nn.AdaptiveAvgPool2d(self.codes_shape),
            nn.LayerNorm([len(levels), rows, columns]),
        )
        self.project_out = nn.Sequential(nn.Linear(len(levels), width), nn.GELU(), nn.Linear(width, dim))

    def summary(self, tokens: Tensor) -> Tensor:
        """One frame's tokens (B, 1, h, w, dim) to (B * codes, channels)."""
        grid = self.cnn_encoder(self.project_in(tokens[:, 0]).permute(0, 3, 1, 2))
        return grid.flatten(2).transpose(1, 2).flatten(0, 1)

    def bound(self, z: Tensor) -> Tensor:
        """tanh(z + shift) * half - offset with half = (levels - 1) * (1 - 1e-3) / 2 (Mentzer et al. 2023, section 3)."""
        half = (self.levels - 1) * (1 - SHRINK) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset

    def forward(self, first: Tensor, last: Tensor, noise: Tensor | None = None) -> Quantised:
        """Quantise what changes; the gradient goes straight through the rounding. `noise` isn't needed."""
        z = self.summary(last) - self.summary(first)
        bounded = self.bound(z)
        levels = bounded + (bounded.round() - bounded).detach()
        half_width = torch.div(self.levels, 2, rounding_mode="floor")
        indices = ((levels.detach() + half_width) * self.steps).sum(-1).round().long()
        codes = levels / half_width
        tokens = self.project_out(codes).view(-1, self.codes, self.project_out[2].out_features)
        return Quantised(tokens, indices.view(-1, self.codes), z, codes)


class LatentActionModelFSQ(LatentActionModel):
    """The latent action model with finite scalar quantisation: 5 x 3 levels are 15 codes."""

    def __init__(
        self,
        dim: int,
        image: int,
        patch: int,
        spatial_layers: int,
        temporal_layers: int,
        heads: int,
        dim_head: int,
        levels: tuple[int, ...] = (5, 3),
        codes: int = 4,
    ) -> None:
        super().__init__(dim, image, patch, spatial_layers, temporal_layers, heads, dim_head, codes=codes)
        self.vq = FiniteScalar(dim, levels, codes)


class ActionSupervision(nn.Module):
    """Predicts the action at the second frame from the codes and the action at the first, so that codes mean actions."""

    def __init__(self, codes: int = 4, code_dim: int = 32, action_dim: int = 7, width: int = 1024, dropout: float = 0.1) -> None:
        super().__init__()
        self.wide, self.dropout = codes * code_dim, dropout
        sizes = (self.wide + action_dim, width, width, self.wide)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.out = nn.Linear(self.wide, action_dim)

    def forward(self, codes: Tensor, first_action: Tensor, drop: Tensor | None = None) -> Tensor:
        """codes (B * codes, code_dim), first_action (B, action_dim) -> action (B, action_dim).

        `drop` (B, 2, width) uniforms in [0, 1) switch dropout on between the layers.
        """
        if codes.numel() != len(first_action) * self.wide:
            raise MixturaError(
                f"codes of shape {tuple(codes.shape)} given for {len(first_action)} actions; {self.wide} values each expected"
            )
        x = torch.cat([codes.reshape(len(first_action), self.wide), first_action], -1)
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i + 1 < len(self.layers):
                x = nn.functional.gelu(x)
                if drop is not None:
                    x = x * ((drop[:, i] >= self.dropout).to(x.dtype) / (1 - self.dropout))
        return self.out(x)
