"""The action expert: a flow-matching transformer that reads the language model's keys and values (sheet section 6).

    expert = ActionExpert(hidden, heads, layers, kv_width, action_dim=20, proprio_dim=20, gated=False, dropout=0.0,
                          compat="fixed", domains=0)
    expert(noisy_actions (B*N, H, 20), time (B*N,), proprio (B, P, 20), keys, values, key_mask=None) -> (B*N, H, 20)
    expert.sample(noise (B*N, H, 20), proprio, keys, values, key_mask=None, steps=5)                 -> (B*N, H, 20)

`keys` and `values` are a tensor (L, B, S, kv_width) or a list of L tensors (B, S, kv_width); `key_mask` (B, S) bool says
which of the S positions may be seen. N noise draws of one sample lie next to each other (row b*N + n); they share one
pass over the keys and values. Token order of a draw: time, P states, H actions.

`compat="fixed"`: one rotation convention, own tokens stand right behind the last visible position, `key_mask` hides.
`compat="official"`: the published arithmetic. Queries restart at position 0, two conventions of rotation are mixed,
positions outside `key_mask` are zeroed and still seen (through the bias of the projection).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura.errors import MixturaError

Compat = Literal["fixed", "official"]
KeyValues = Tensor | Sequence[Tensor]
PREFIX_TOKENS = 1
"""The time token comes first."""


class OffsetRMSNorm(nn.Module):
    """RMSNorm in float32 whose stored weight is the offset from one."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape and dtype."""
        return F.rms_norm(x.float(), x.shape[-1:], 1.0 + self.weight.float(), self.eps).to(x.dtype)


class DomainLinear(nn.Module):
    """A linear map of its own for each of `domains` robots: `fc` rows hold (in, out) weights, `bias` rows the offsets."""

    def __init__(self, wide_in: int, wide_out: int, domains: int) -> None:
        super().__init__()
        self.shape = (wide_in, wide_out)
        self.fc, self.bias = nn.Embedding(domains, wide_in * wide_out), nn.Embedding(domains, wide_out)
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """x (B, ..., in), domain (B,) int64 -> (B, ..., out)."""
        flat = x.flatten(1, -2)
        out = torch.baddbmm(self.bias(domain)[:, None], flat, self.fc(domain).view(-1, *self.shape))
        return out.view(*x.shape[:-1], self.shape[1])


def time_sinusoid(time: Tensor, width: int) -> Tensor:
    """(..., ) times in [0, 1] to (..., width): cosines, then sines, of t * 10000^(-i / half); t is not scaled."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=time.device, dtype=torch.float32) * (-math.log(10_000.0) / half))
    angles = time.float()[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


def rotation(positions: Tensor, head_dim: int, compat: Compat) -> tuple[Tensor, Tensor]:
    """Cosines and sines (..., head_dim) of positions (...,): angles pos / 10000^(2i/d), repeated as `compat` pairs them."""
    rates = 10_000.0 ** (-torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim)
    angles = positions.float()[..., None] * rates
    doubled = angles.repeat_interleave(2, -1) if compat == "official" else torch.cat([angles, angles], -1)
    return doubled.cos(), doubled.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor], compat: Compat) -> Tensor:
    """Rotate x (..., T, head_dim). The published code pairs odd with even channels but joins them as halves."""
    if compat == "official":
        turned = torch.cat([-x[..., 1::2], x[..., 0::2]], -1)
    else:
        first, second = x.chunk(2, -1)
        turned = torch.cat([-second, first], -1)
    cos, sin = table
    return x * cos.to(x.dtype) + turned * sin.to(x.dtype)


class ExpertBlock(nn.Module):
    """One block: attention of the expert's tokens over the language model's layer and themselves, then a feed-forward."""

    def __init__(self, hidden: int, heads: int, kv_width: int, gated: bool, dropout: float, compat: Compat) -> None:
        super().__init__()
        self.heads, self.dropout, self.compat = heads, dropout, compat
        self.to_state_kv = nn.Linear(kv_width, hidden)
        self.to_action_qkv = nn.Linear(hidden, 3 * hidden)
        self.to_action_gate = nn.Linear(hidden, hidden) if gated else None
        self.to_out = nn.Linear(hidden, hidden)
        self.ffn = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.norm1, self.norm2 = OffsetRMSNorm(hidden), OffsetRMSNorm(hidden)

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, hidden) to (B, heads, T, head_dim)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def project(self, key: Tensor, value: Tensor, table: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """A layer's keys and values (B, S, kv_width) to rotated keys and values (B, heads, S, head_dim)."""
        rotated = rotate(self._split(self.to_state_kv(key)), table, self.compat)
        return rotated, self._split(self.to_state_kv(value))

    def forward(
        self,
        tokens: Tensor,
        key: Tensor,
        value: Tensor,
        tables: Sequence[tuple[Tensor, Tensor]],
        mask: Tensor,
        projected: bool = False,
        drop: Tensor | None = None,
    ) -> Tensor:
        """tokens (B, T, hidden) -> (B, T, hidden).

        `key`, `value` are the language model's, or, with `projected`, what `project` made of them. `tables` are the
        rotations of the language model's positions, of the queries and of the own keys; `mask` (B | 1, 1, T, S + T)
        bool. `drop` (B, 2, T, hidden) holds uniforms for dropout.
        """
        if not projected:
            key, value = self.project(key, value, tables[0])
        q, k, v = (self._split(part) for part in self.to_action_qkv(self.norm1(tokens)).chunk(3, -1))
        q, k = rotate(q, tables[1], self.compat), rotate(k, tables[2], self.compat)
        out = F.scaled_dot_product_attention(q, torch.cat([key, k], 2), torch.cat([value, v], 2), attn_mask=mask)
        out = out.transpose(1, 2).flatten(2)
        if self.to_action_gate is not None:
            out = out * torch.sigmoid(self.to_action_gate(out))
        tokens = tokens + self._drop(self.to_out(out), drop, 0)
        return tokens + self._drop(self.ffn(self.norm2(tokens)), drop, 1)

    def _drop(self, x: Tensor, uniforms: Tensor | None, which: int) -> Tensor:
        """Dropout from given uniforms, so that no global random state is touched."""
        if uniforms is None or self.dropout == 0.0 or not self.training:
            return x
        return x * ((uniforms[:, which] >= self.dropout).to(x.dtype) / (1.0 - self.dropout))


class ActionExpert(nn.Module):
    """Predicts the velocity noise - actions of noisy action chunks (sheet section 6); see the module's docstring."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        layers: int,
        kv_width: int,
        action_dim: int = 20,
        proprio_dim: int = 20,
        gated: bool = False,
        dropout: float = 0.0,
        compat: Compat = "fixed",
        domains: int = 0,
    ) -> None:
        super().__init__()
        if hidden % heads or hidden // heads % 2:
            raise MixturaError(f"expert.hidden {hidden} must be an even multiple of expert.heads {heads}")
        self.hidden, self.heads, self.compat, self.dropout = hidden, heads, compat, dropout

        def linear(wide_in: int, wide_out: int) -> nn.Module:
            return DomainLinear(wide_in, wide_out, domains) if domains else nn.Linear(wide_in, wide_out)

        self.action_embed = linear(action_dim, hidden)
        self.action_out_proj = linear(hidden, action_dim)
        self.proprio_embed = linear(proprio_dim, hidden)
        self.time_mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        blocks = (ExpertBlock(hidden, heads, kv_width, gated, dropout, compat) for _ in range(layers))
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self,
        noisy_actions: Tensor,
        time: Tensor,
        proprio: Tensor,
        keys: KeyValues,
        values: KeyValues,
        key_mask: Tensor | None = None,
        domain: Tensor | None = None,
        drop: Tensor | None = None,
    ) -> Tensor:
        """Velocity (B*N, H, action_dim) of noisy_actions (B*N, H, action_dim) at time (B*N,) in [0, 1].

        proprio (B, P, proprio_dim) or (B, proprio_dim); domain (B,) int64 where the expert has domains. `drop` (B, 2 *
        layers, N * (1 + P + H), hidden) uniforms in [0, 1) are needed while training with dropout.
        """
        keys, values = self._masked(keys, key_mask), self._masked(values, key_mask)
        tokens, tables, mask = self._prepare(noisy_actions, time, proprio, keys[0], key_mask, domain)
        return self._run(tokens, keys, values, tables, mask, noisy_actions.shape, domain, drop, projected=False)

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        proprio: Tensor,
        keys: KeyValues,
        values: KeyValues,
        key_mask: Tensor | None = None,
        steps: int = 5,
        domain: Tensor | None = None,
        channels: Tensor | None = None,
    ) -> Tensor:
        """Integrate from noise (B*N, H, action_dim) at time 1 to actions at time 0 in `steps` Euler steps (section 10).

        The language model's keys and values are projected once for all steps. `channels` (action_dim,) bool keeps padded
        channels at zero, as they are in training.
        """
        keys, values = self._masked(keys, key_mask), self._masked(values, key_mask)
        table = rotation(torch.arange(keys[0].shape[1], device=noise.device), self.hidden // self.heads, self.compat)
        pairs = [block.project(k, v, table) for block, k, v in zip(self.blocks, keys, values, strict=True)]
        ready = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        actions = noise
        for step in range(steps):
            time = torch.full((len(noise),), 1.0 - step / steps, device=noise.device, dtype=torch.float32)
            tokens, tables, mask = self._prepare(actions, time, proprio, keys[0], key_mask, domain)
            velocity = self._run(tokens, *ready, tables, mask, actions.shape, domain, None, projected=True)
            actions = actions - velocity / steps
            actions = actions if channels is None else actions * channels
        return actions

    # -- pieces of a pass ----------------------------------------------------------------------------------
    def _masked(self, layers: KeyValues, key_mask: Tensor | None) -> Sequence[Tensor]:
        """The layers as a list; the published code zeroes what lies behind the cut (and still attends to it)."""
        if len(layers) != len(self.blocks):
            raise MixturaError(f"the action expert has {len(self.blocks)} blocks, the language model gave {len(layers)} layers")
        layers = list(layers)
        if self.compat == "official" and key_mask is not None:
            layers = [layer * key_mask[..., None].to(layer.dtype) for layer in layers]
        return layers

    def embed(self, noisy_actions: Tensor, time: Tensor, proprio: Tensor, batch: int, domain: Tensor | None) -> Tensor:
        """Tokens (B, N, 1 + P + H, hidden) of all draws."""
        extra = () if domain is None else (domain,)
        proprio = proprio[:, None] if proprio.ndim == 2 else proprio
        actions = self.action_embed(noisy_actions.unflatten(0, (batch, -1)), *extra)
        draws = actions.shape[1]
        clock = time_sinusoid(time, self.hidden).to(self.time_mlp[0].weight.dtype)
        clock = self.time_mlp(clock).view(batch, draws, 1, self.hidden)
        state = self.proprio_embed(proprio, *extra)[:, None].expand(-1, draws, -1, -1)
        return torch.cat([clock.to(actions.dtype), state, actions], 2)

    def _prepare(
        self, noisy: Tensor, time: Tensor, proprio: Tensor, key: Tensor, key_mask: Tensor | None, domain: Tensor | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]], Tensor]:
        """Tokens (B, N*T, hidden), rotations of (positions seen, queries, own keys), mask (B | 1, 1, N*T, S + N*T)."""
        batch, seen = key.shape[:2]
        tokens = self.embed(noisy, time, proprio, batch, domain)
        draws, count, horizon = tokens.shape[1], tokens.shape[2], noisy.shape[1]
        own = torch.arange(count, device=key.device).repeat(draws)
        places = torch.arange(seen, device=key.device)
        fixed = self.compat == "fixed"
        start = torch.full((1, 1), seen, device=key.device)
        if fixed and key_mask is not None:
            # Padding must not move the tokens away from what they look at.
            start = ((places + 1) * key_mask).amax(1, keepdim=True)
        own_keys = (start + own)[:, None]
        queries = own_keys if fixed else own
        tables = [rotation(p, self.hidden // self.heads, self.compat) for p in (places, queries, own_keys)]
        among = self._among(draws, count, horizon, key.device)
        visible = key_mask if fixed and key_mask is not None else torch.ones(1, seen, dtype=torch.bool, device=key.device)
        wide = visible[:, None, None, :].expand(-1, 1, len(own), -1)
        mask = torch.cat([wide, among.expand(len(wide), 1, -1, -1)], -1)
        return tokens.flatten(1, 2), tables, mask

    @staticmethod
    def _among(draws: int, count: int, horizon: int, device: torch.device) -> Tensor:
        """Who sees whom among the own tokens (N*T, N*T): kinds see their own and earlier kinds; draws never each other."""
        kind = torch.ones(count, dtype=torch.long, device=device)
        kind[:PREFIX_TOKENS], kind[count - horizon :] = 0, 2
        draw = torch.arange(draws, device=device).repeat_interleave(count)
        kind = kind.repeat(draws)
        return (draw[:, None] == draw) & (kind[:, None] >= kind)

    def _run(
        self,
        tokens: Tensor,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        tables: Sequence[tuple[Tensor, Tensor]],
        mask: Tensor,
        shape: torch.Size,
        domain: Tensor | None,
        drop: Tensor | None,
        projected: bool,
    ) -> Tensor:
        """All blocks, then the output projection of the action tokens (no final norm)."""
        if drop is None and self.dropout and self.training:
            raise MixturaError("expert.dropout is on: training passes need `drop`, uniforms for the dropout masks")
        for i, block in enumerate(self.blocks):
            uniforms = None if drop is None else drop[:, 2 * i : 2 * i + 2]
            tokens = block(tokens, keys[i], values[i], tables, mask, projected, uniforms)
        draws = shape[0] // tokens.shape[0]
        actions = tokens.unflatten(1, (draws, -1))[:, :, -shape[1] :]
        return self.action_out_proj(actions, *(() if domain is None else (domain,))).view(shape)
