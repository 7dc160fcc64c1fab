"""The vision tower of Qwen2.5-VL for images of one size, in one batch, and a convolution stem for training from nothing.

transformers' own forward cuts every image into windows and attends window by window in a Python loop. Images of one size
share one layout, so here a whole batch of images (or of equal windows) is one attention call. Parameter names stay.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from mixtura.errors import MixturaError

STEM_WIDTHS = (32, 64, 64)
"""Channels of the stem before its last convolution."""


class BatchedAttention(Qwen2_5_VLVisionAttention):
    """Attention over equal groups of tokens, all groups in one call."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        group: int = 1,
        group_mask: Tensor | None = None,
        **kwargs: object,
    ) -> Tensor:
        """hidden_states (N, width) in groups of `group` tokens; group_mask (group, group) bool says who sees whom."""
        count = hidden_states.shape[0]
        q, k, v = self.qkv(hidden_states).reshape(count, 3, self.num_heads, -1).unbind(1)
        if position_embeddings is not None:
            q, k = apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        q, k, v = (part.unflatten(0, (-1, group)).transpose(1, 2) for part in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=group_mask, scale=self.scaling)
        return self.proj(out.transpose(1, 2).reshape(count, -1))


class ConvStem(nn.Module):
    """Images to patch features by four convolutions; two channels of coordinates say where a pixel is.

    A linear patch embedding learns slowly from little data; convolutions start with the right prior. The output grid is
    image_size / patch.
    """

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        widths, layers = (5, *STEM_WIDTHS, width), []
        for i, stride in enumerate(stem_strides(patch)):
            kernel, padding = (3, 1) if stride <= 2 else (stride, 0)
            layers.append(nn.Conv2d(widths[i], widths[i + 1], kernel, stride, padding))
            if i < len(STEM_WIDTHS):
                layers += [nn.GroupNorm(8, widths[i + 1]), nn.SiLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, h/patch, w/patch, width)."""
        count, _, height, width = images.shape
        rows = torch.linspace(-1, 1, height, device=images.device, dtype=images.dtype)
        columns = torch.linspace(-1, 1, width, device=images.device, dtype=images.dtype)
        where = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(count, -1, -1, -1)
        return self.layers(torch.cat([images, where], 1)).permute(0, 2, 3, 1)


def stem_strides(patch: int) -> list[int]:
    """Four strides whose product is `patch`, the smaller ones first."""
    factors, rest = [], patch
    for prime in range(2, patch + 1):
        while rest % prime == 0:
            factors.append(prime)
            rest //= prime
    head, tail = factors[:3], factors[3:]
    return [*head, math.prod(tail)] if tail else [*head, *[1] * (4 - len(head))]


class VisionTower(Qwen2_5_VisionTransformerPretrainedModel):
    """Qwen2.5-VL's vision transformer on square images of one size; names as transformers has them."""

    def __init__(self, config: object, stem: str = "patch") -> None:
        super().__init__(config)
        for block in self.blocks:
            attention = BatchedAttention(config)
            attention.load_state_dict(block.attn.state_dict())
            block.attn = attention
        if stem == "conv":
            self.patch_embed = ConvStem(config.patch_size, config.hidden_size)
        self.stem = stem

    def features(self, images: Tensor, grid: int) -> Tensor:
        """Merged features (N, (grid/2)^2, out_hidden) of images (N, 3, h, w), or of flat patches (N * grid^2, 6 * patch^2).

        `grid` is the number of patches along a side.
        """
        tokens = self._embed(images, grid)
        count, merge = len(tokens) // grid**2, self.spatial_merge_unit
        order, back, table, group, mask = self._layout(grid, tokens.device)
        tokens = tokens.view(count, -1, merge, tokens.shape[-1])[:, order].flatten(0, 2)
        table = tuple(part.repeat(count, 1) for part in table)
        for i, block in enumerate(self.blocks):
            whole = i in self.fullatt_block_indexes
            tokens = block(
                tokens, None, position_embeddings=table, group=grid**2 if whole else group, group_mask=None if whole else mask
            )
        return self.merger(tokens).view(count, grid**2 // merge, -1)[:, back]

    def _embed(self, images: Tensor, grid: int) -> Tensor:
        """Patch features (N * grid^2, width), the four patches of a merged token side by side."""
        if self.stem == "conv":
            grid_features = self.patch_embed(images.to(self.patch_embed.layers[0].weight.dtype))
            return self._merge_order(grid_features)
        weight = self.patch_embed.proj.weight
        if images.ndim == 2:
            return self.patch_embed(images)
        if images.shape[-1] != grid * self.patch_size or images.shape[-2] != images.shape[-1]:
            raise MixturaError(
                f"images of {tuple(images.shape[-2:])} pixels given; {grid * self.patch_size} on each side expected"
            )
        # A still image is the same frame twice, so the two temporal halves of the kernel add up.
        still = F.conv2d(images.to(weight.dtype), weight.sum(2), stride=self.patch_size)
        return self._merge_order(still.permute(0, 2, 3, 1))

    def _merge_order(self, features: Tensor) -> Tensor:
        """(N, gh, gw, width) -> (N * gh * gw, width), block of 2 x 2 patches by block."""
        count, height, across, width = features.shape
        side = self.spatial_merge_size
        blocks = features.reshape(count, height // side, side, across // side, side, width)
        return blocks.transpose(2, 3).reshape(-1, width)

    def _layout(self, grid: int, device: torch.device) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], int, Tensor | None]:
        """Window order, its inverse, rotations (grid^2, head_dim) in that order, and the groups of windowed blocks."""
        order, places, bounds = _windows(grid, self.spatial_merge_size, self.window_size, self.patch_size)
        order, places = order.to(device), places.to(device)
        cos, sin = self.rotary_pos_emb(places, places)
        arranged = tuple(part.view(len(order), -1, part.shape[-1])[order].flatten(0, 1) for part in (cos, sin))
        sizes = [after - before for before, after in itertools.pairwise(bounds)]
        if len(set(sizes)) == 1:
            return order, order.argsort(), arranged, sizes[0], None
        window = torch.repeat_interleave(torch.arange(len(sizes), device=device), torch.tensor(sizes, device=device))
        return order, order.argsort(), arranged, grid**2, window[:, None] == window


@lru_cache(maxsize=32)
def _windows(grid: int, merge: int, window: int, patch: int) -> tuple[Tensor, Tensor, list[int]]:
    """Order of merged tokens by window, (row, column) of every patch, and where windows begin; for one square image."""
    shape = torch.tensor([[1, grid, grid]])
    order, bounds = get_vision_window_index(shape, spatial_merge_size=merge, window_size=window, patch_size=patch)
    starts = sorted({int(b) for b in bounds})
    return order.cpu(), get_vision_position_ids(shape, merge).cpu(), starts
