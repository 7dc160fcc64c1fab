"""The latent action model: what changes between two frames, as 8 (4, 1) codes of a small codebook (sheet section 4).

    lam = LatentActionModel(dim, image, patch, spatial_layers, temporal_layers, heads, dim_head, codebook=32, code_dim=32,
                            codes=8)
    lam.encode(video) -> (first, last) (B, 1, h, w, dim)      lam.quantise(first, last, noise=None) -> Quantised
    lam.decode(video, tokens) -> (B, 3, H, W)                 lam.indices(video) -> (B, codes) int64

    latent = LatentActions(config.lam, compat="fixed")        # what a trainer holds: `.lam` and the codebook's counters
    out = latent(video, noise (B, codes, code_dim))           # -> LatentOutput: loss (B,), reconstruction, indices, ...
    latent.remedy(step, generator)                            # once per step, before the step's first forward
    latent.perplexity(indices)                                # () float, 1..codebook

`video` is either uint8 (B, 2, H, W, 3), as frame pairs are stored, or float (B, 3, 2, H, W) in [0, 1], as the published
network takes it; the time axis holds frame t and frame t + k. No random number is drawn in a forward: `noise` is passed in
(standard normal; None quantises hard). The state dict of `LatentActions` has the network below `lam.`, as published
checkpoints do, and below `usage.` the counters, which published checkpoints lack.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixtura.errors import MixturaError
from mixtura_iflybot_vla.config import LatentConfig
from mixtura_iflybot_vla.nets.codebook import CodebookUsage, Compat
from mixtura_iflybot_vla.nets.lam_blocks import LatentTransformer, RelativeBias

CODE_GRIDS = {1: (1, 1), 4: (2, 2), 8: (4, 2)}
"""Number of codes -> rows and columns of the map they come from."""


@dataclass
class Quantised:
    """tokens (B, codes, dim) for the decoder, indices (B, codes), z and codes (B * codes, code_dim)."""

    tokens: Tensor
    indices: Tensor
    z: Tensor
    codes: Tensor


@dataclass
class LatentOutput:
    """loss (B,) mean squared pixel error per sample, reconstruction (B, 3, H, W), indices (B, codes), perplexity ()."""

    loss: Tensor
    reconstruction: Tensor
    indices: Tensor
    perplexity: Tensor


def as_video(frames: Tensor) -> Tensor:
    """uint8 (B, 2, H, W, 3) or float (B, 3, 2, H, W) to float (B, 3, 2, H, W) in [0, 1]."""
    if frames.dtype == torch.uint8 and frames.ndim == 5 and frames.shape[1] == 2 and frames.shape[-1] == 3:
        return frames.permute(0, 4, 1, 2, 3).float() / 255
    if frames.is_floating_point() and frames.ndim == 5 and frames.shape[1:3] == (3, 2):
        return frames
    raise MixturaError(
        f"frame pairs of shape {tuple(frames.shape)} and type {frames.dtype} given; "
        "expected uint8 (B, 2, H, W, 3) or float (B, 3, 2, H, W)"
    )


class Patches(nn.Module):
    """(B, 3, 1, H, W) to (B, 1, h, w, 3 * patch^2); the network's name for it is 0, it has no parameters."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, frame: Tensor) -> Tensor:
        """Channels first within a patch: (c p1 p2)."""
        cut = frame[:, :, 0].unflatten(2, (-1, self.patch)).unflatten(4, (-1, self.patch))
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(3)[:, None]


class Quantiser(nn.Module):
    """NSVQ: the difference of two frames' maps, snapped to codebook rows; noise of equal length carries the gradient."""

    def __init__(self, dim: int, code_dim: int, codebook: int, codes: int, grid: int) -> None:
        super().__init__()
        self.codes_shape, self.codes = CODE_GRIDS[codes], codes
        self.codebooks = nn.Parameter(torch.randn(codebook, code_dim))
        self.project_in, self.project_out = nn.Linear(dim, code_dim), nn.Linear(code_dim, dim)
        half = (grid + 1) // 2
        layers: list[nn.Module] = [nn.Conv2d(code_dim, code_dim, 3, 2, 1), nn.ReLU()]
        if codes != 8:
            size = min(3 if codes == 4 else 4, half)
            # On maps of less than 4x4 a convolution without padding leaves too few cells.
            layers.append(nn.Conv2d(code_dim, code_dim, size, 1, 1 if codes == 4 and half < 4 else 0))
        self.cnn_encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(self.codes_shape))

    def summary(self, tokens: Tensor) -> Tensor:
        """One frame's tokens (B, 1, h, w, dim) to (B * codes, code_dim)."""
        grid = self.project_in(tokens[:, 0]).permute(0, 3, 1, 2)
        return self.cnn_encoder(grid).flatten(2).transpose(1, 2).reshape(-1, self.codebooks.shape[1])

    def forward(self, first: Tensor, last: Tensor, noise: Tensor | None = None) -> Quantised:
        """Quantise what changes from `first` to `last`; noise (B, codes, code_dim) while training, None for the codes."""
        z = self.summary(last) - self.summary(first)
        indices = torch.cdist(z.detach().float(), self.codebooks.detach().float()).argmin(-1)
        codes = self.codebooks[indices]
        snapped = codes
        if noise is not None:
            direction = noise.reshape(z.shape).to(z.dtype)
            distance = (z - codes).square().sum(-1, keepdim=True).clamp_min(1e-12).sqrt()
            snapped = z + direction * (distance / direction.norm(dim=-1, keepdim=True).clamp_min(1e-12))
        return Quantised(self.tokens(snapped), indices.view(-1, self.codes), z, codes)

    def tokens(self, codes: Tensor) -> Tensor:
        """Codes (B * codes, code_dim) to decoder tokens (B, codes, dim).

        The published network *reshapes* to (B, code_dim, codes) where a transpose was meant; weights depend on it.
        """
        return self.project_out(codes.reshape(-1, self.codebooks.shape[1], self.codes).transpose(1, 2))


class LatentActionModel(nn.Module):
    """The published network (sheet section 4.1); see the module's docstring."""

    def __init__(
        self,
        dim: int,
        image: int,
        patch: int,
        spatial_layers: int,
        temporal_layers: int,
        heads: int,
        dim_head: int,
        codebook: int = 32,
        code_dim: int = 32,
        codes: int = 8,
    ) -> None:
        super().__init__()
        self.patch, self.image, values = patch, image, 3 * patch * patch
        self.spatial_rel_pos_bias = RelativeBias(dim, heads)
        self.to_patch_emb_first_frame = nn.Sequential(
            Patches(patch), nn.LayerNorm(values), nn.Linear(values, dim), nn.LayerNorm(dim)
        )
        self.enc_spatial_transformer = LatentTransformer(dim, spatial_layers, heads, dim_head)
        self.enc_temporal_transformer = LatentTransformer(dim, temporal_layers, heads, dim_head)
        self.vq = Quantiser(dim, code_dim, codebook, codes, image // patch)
        self.dec_spatial_transformer = LatentTransformer(dim, spatial_layers, heads, dim_head, cross=True)
        self.to_pixels_first_frame = nn.Sequential(nn.Linear(dim, values))

    def encode(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Both frames' tokens, (B, 1, h, w, dim) each: space within a frame, then time within a cell."""
        video = self._check(as_video(video))
        first, last = (self.to_patch_emb_first_frame(video[:, :, t : t + 1]) for t in (0, 1))
        tokens = torch.cat([first, last], 1)
        shape = (len(tokens), 2, *tokens.shape[2:4])
        bias = self.spatial_rel_pos_bias(*shape[2:])
        tokens = self.enc_spatial_transformer(tokens.flatten(2, 3).flatten(0, 1), shape, bias)
        tokens = tokens.view(*shape, -1).permute(0, 2, 3, 1, 4).flatten(0, 2)
        tokens = self.enc_temporal_transformer(tokens, shape)
        tokens = tokens.view(shape[0], *shape[2:], 2, -1).permute(0, 3, 1, 2, 4)
        return tokens[:, :1], tokens[:, 1:]

    def quantise(self, first: Tensor, last: Tensor, noise: Tensor | None = None) -> Quantised:
        """Codes of what changes between the tokens of two frames."""
        out: Quantised = self.vq(first, last, noise)
        return out

    def decode(self, video: Tensor, tokens: Tensor) -> Tensor:
        """The second frame (B, 3, H, W) from the first one's patches (detached) and code tokens (B, codes, dim)."""
        first = self._check(as_video(video))[:, :, :1]
        queries = self.to_patch_emb_first_frame(first).detach()
        shape = (len(queries), 1, *queries.shape[2:4])
        bias = self.spatial_rel_pos_bias(*shape[2:])
        cells = self.dec_spatial_transformer(queries.flatten(1, 3), shape, bias, tokens)
        pixels = self.to_pixels_first_frame(cells).view(shape[0], *shape[2:], 3, self.patch, self.patch)
        return pixels.permute(0, 3, 1, 4, 2, 5).reshape(shape[0], 3, self.image, self.image)

    def forward(self, video: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Quantised]:
        """Loss per sample (B,), reconstruction (B, 3, H, W) and what was quantised."""
        video = self._check(as_video(video))
        made = self.quantise(*self.encode(video), noise)
        shown = self.decode(video, made.tokens)
        return (shown - video[:, :, 1]).square().mean((1, 2, 3)), shown, made

    @torch.no_grad()
    def indices(self, video: Tensor) -> Tensor:
        """Codes (B, codes) int64 of frame pairs."""
        return self.quantise(*self.encode(video)).indices

    @torch.no_grad()
    def predict(self, frames: Tensor, indices: Tensor) -> Tensor:
        """What frames uint8 (B, H, W, 3) become under codes (B, codes): (B, 3, H, W) in about [0, 1]."""
        pair = torch.stack([frames, frames], 1)  # the second one is never looked at
        return self.decode(pair, self.vq.tokens(self.vq.codebooks[indices.flatten()]))

    def _check(self, video: Tensor) -> Tensor:
        if video.shape[-1] != self.image or video.shape[-2] != self.image:
            raise MixturaError(
                f"frames of {tuple(video.shape[-2:])} pixels given; the latent action model takes {self.image} x {self.image}"
            )
        return video


class LatentActions(nn.Module):
    """A latent action model with the counters that keep its codebook alive (sheet section 4.2)."""

    def __init__(self, config: LatentConfig, compat: Compat = "fixed") -> None:
        super().__init__()
        self.lam = LatentActionModel(
            config.dim, config.image, config.patch, config.spatial_layers, config.temporal_layers, config.heads, config.dim_head,
            config.codebook, config.code_dim, config.codes,
        )  # fmt: skip
        self.usage = CodebookUsage(config.codebook, config.code_dim, compat)

    def forward(self, video: Tensor, noise: Tensor | None = None) -> LatentOutput:
        """Loss per sample and codes; counts which codes were used while training. noise (B, codes, code_dim)."""
        loss, shown, made = self.lam(video, noise)
        if self.training and torch.is_grad_enabled():
            self.usage.count(made.indices, made.z.detach(), made.codes.detach())
        return LatentOutput(loss, shown, made.indices, self.perplexity(made.indices))

    def indices(self, video: Tensor) -> Tensor:
        """Codes (B, codes) int64 of frame pairs."""
        return self.lam.indices(video)

    def remedy(self, step: int, generator: torch.Generator) -> int:
        """Overwrite unused codebook entries when `step` is due; returns how many. `generator` is a CPU generator."""
        return self.usage.remedy(self.lam.vq.codebooks, step, generator)

    def perplexity(self, indices: Tensor) -> Tensor:
        """exp of the entropy of code use: 1 when one code serves all, the codebook's size when all serve alike."""
        share = torch.bincount(indices.flatten(), minlength=len(self.lam.vq.codebooks)).float()
        share = share / share.sum().clamp_min(1)
        return torch.exp(-(share * share.clamp_min(1e-12).log()).sum())
