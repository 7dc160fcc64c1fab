"""The vision-language model: Qwen2.5-VL with a state token, whose keys and values feed the action expert (sheet section 2).

    vlm = StateVLM(config, tokens=None)         # config: IFlyBotConfig; tokens: TokenIds, by default from the configuration
    vlm.kv_width, vlm.layers                    # what ActionExpert(kv_width=..., layers=...) needs
    out = vlm(ids (B, S), mask (B, S), images, state)          # -> Read(hidden (B, S, D), keys, values (L, B, S, kv_width))
    vlm.logits(out.hidden[rows, columns])                      # (n, D) -> (n, vocabulary), embeddings are tied
    done = vlm.generate(ids, mask, images, state, limit=10, stop=(...), allowed=None)
                                                # -> Written(tokens (B, n), keys, values (L, B, S', kv_width), key_mask (B, S'))

`images` are normalised floats (N, 3, h, w) or (B, V, 3, h, w), one for every run of image-pad tokens in row-major order, or
flat Qwen patches (N * grid^2, 6 * patch^2), or None; `state` (B, P, 20) fills the state-pad tokens, or None; `mask` bool is
False for padding and for views that are missing. `normalise_images` turns uint8 (…, h, w, 3) into such floats.
Keys carry M-RoPE and gradient. Position ids count all tokens, hidden views too, in training and in generation alike; with
`compat: official` generation leaves hidden views out, as the published code does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

from mixtura.errors import MixturaError
from mixtura_iflybot_vla.config import IFlyBotConfig
from mixtura_iflybot_vla.nets.vision import VisionTower
from mixtura_iflybot_vla.vocabulary import MARKERS, PUBLISHED_IDS, PUBLISHED_SIZE, vocabulary_size

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
MERGE = 2
WINDOW = 112
"""Pixels of an attention window of the vision tower."""
FULL_EVERY = 8
"""Every eighth vision block looks at the whole image."""


@dataclass(frozen=True)
class TokenIds:
    """Ids that the network itself must know: embedding rows, image pad, state pad."""

    size: int
    image: int
    state: int

    @staticmethod
    def of(config: IFlyBotConfig) -> TokenIds:
        """From the configuration alone: the vocabulary's layout, or the published ids when a tokenizer is named."""
        vlm = config.vlm
        if vlm.tokenizer:
            return TokenIds(PUBLISHED_SIZE, PUBLISHED_IDS["<|image_pad|>"], PUBLISHED_IDS["<|StatePad|>"])
        base = vlm.text_vocab + vlm.fast_vocab
        size = vocabulary_size(vlm.text_vocab, vlm.fast_vocab, config.lam.codebook)
        return TokenIds(size, base + MARKERS.index("<|image_pad|>"), base + MARKERS.index("<|StatePad|>"))


@dataclass
class Read:
    """What reading a sequence gives: hidden states (B, S, D) after the last norm, keys and values (L, B, S, kv_width)."""

    hidden: Tensor
    keys: Tensor
    values: Tensor


@dataclass
class Written:
    """What generation gives.

    `tokens` (B, n) int64, -1 behind the stop token, which itself is included. Keys and values (L, B, S', kv_width) are
    those of prompt and written tokens without the stop token, compact on the left; `key_mask` (B, S') tells which count.
    """

    tokens: Tensor
    keys: Tensor
    values: Tensor
    key_mask: Tensor


class Tape:
    """Stands in for a transformers cache: keeps every layer's keys and values (B, kv_heads, S, head_dim) with gradient."""

    is_compileable = False

    def __init__(self, layers: int) -> None:
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers
        self.growing = False

    def update(self, key: Tensor, value: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Record a layer (behind what is there while `growing`); overwrites otherwise, so recomputation is harmless."""
        before_k, before_v = self.keys[layer], self.values[layer]
        if self.growing and before_k is not None and before_v is not None:
            key, value = torch.cat([before_k, key], 2), torch.cat([before_v, value], 2)
        self.keys[layer], self.values[layer] = key, value
        return key, value

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Keys and values as (L, B, S, kv_heads * head_dim), heads one after the other."""
        keys = torch.stack([k.transpose(1, 2).flatten(2) for k in self.keys if k is not None])
        return keys, torch.stack([v.transpose(1, 2).flatten(2) for v in self.values if v is not None])


def qwen_config(config: IFlyBotConfig, size: int) -> Qwen2_5_VLConfig:
    """transformers' configuration of our sizes; `size` embedding rows. Weights start at 0.02 for the published widths."""
    v = config.vlm
    half = v.hidden // v.heads // 2
    across = half * 3 // 8
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [half - 2 * across, across, across]}
    text = {
        "vocab_size": size, "hidden_size": v.hidden, "intermediate_size": v.mlp, "num_hidden_layers": v.layers,
        "num_attention_heads": v.heads, "num_key_value_heads": v.kv_heads, "rms_norm_eps": 1e-6, "rope_parameters": rope,
        "initializer_range": 0.02 * max(1.0, 2048 / v.hidden) ** 0.5, "tie_word_embeddings": True, "pad_token_id": None,
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    full = [i for i in range(v.vision_layers) if v.vision_layers < FULL_EVERY or (i + 1) % FULL_EVERY == 0]
    vision = {
        "depth": v.vision_layers, "hidden_size": v.vision_hidden, "intermediate_size": v.vision_mlp, "num_heads": v.vision_heads,
        "patch_size": v.patch, "spatial_merge_size": MERGE, "temporal_patch_size": 2, "window_size": max(WINDOW, MERGE * v.patch),
        "out_hidden_size": v.hidden, "fullatt_block_indexes": full,
        "initializer_range": 0.02 * max(1.0, 1280 / v.vision_hidden) ** 0.5,
    }  # fmt: skip
    made = Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    for part in (made, made.text_config, made.vision_config):
        part._attn_implementation = "sdpa"
    return made


def normalise_images(images: Tensor) -> Tensor:
    """uint8 (..., h, w, 3) to float32 (..., 3, h, w) with the mean and deviation that Qwen's images have."""
    mean, std = (torch.tensor(v, device=images.device) for v in (CLIP_MEAN, CLIP_STD))
    return ((images.float() / 255 - mean) / std).movedim(-1, -3)


def position_ids(ids: Tensor, image: int, side: int, visible: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """M-RoPE positions (3, B, S) of ids (B, S) and the next free position (B,) behind every token (B, S).

    An image of side x side tokens starts at one temporal position and advances text by `side`. With `visible` (B, S) the
    hidden tokens take no place (the published generation).
    """
    pad, counted = ids == image, torch.ones_like(ids, dtype=torch.bool) if visible is None else visible
    text = (~pad & counted).long()
    shown = (pad & counted).long()
    seen = shown.cumsum(1) - shown
    start = text.cumsum(1) - text + seen.div(side * side, rounding_mode="floor") * side
    within = seen % (side * side) * shown
    rows, columns = within.div(side, rounding_mode="floor"), within % side
    zero = torch.zeros_like(rows)
    following = text.cumsum(1) + shown.cumsum(1).div(side * side, rounding_mode="floor") * side
    return start + torch.stack([zero, rows, columns]), following


class StateVLM(nn.Module):
    """Qwen2.5-VL layout, state projector, keys and values for the action expert; see the module's docstring."""

    def __init__(self, config: IFlyBotConfig, tokens: TokenIds | None = None) -> None:
        super().__init__()
        self.tokens = tokens or TokenIds.of(config)
        made = qwen_config(config, self.tokens.size)
        self.grid, self.side = config.image_size // config.vlm.patch, config.image_size // config.vlm.patch // MERGE
        self.layers, self.kv_width = config.vlm.layers, config.vlm.hidden // config.vlm.heads * config.vlm.kv_heads
        self.official = config.compat == "official"
        self.model = nn.ModuleDict(
            {
                "visual": VisionTower(made.vision_config, config.vlm.stem),
                "language_model": Qwen2_5_VLTextModel(made.text_config),
            }
        )
        self.proprios_embed = nn.Linear(config.width, config.vlm.hidden)

    @property
    def visual(self) -> VisionTower:
        """The vision tower."""
        return self.model["visual"]

    @property
    def language(self) -> Qwen2_5_VLTextModel:
        """The language model."""
        return self.model["language_model"]

    def forward(self, ids: Tensor, mask: Tensor, images: Tensor | None = None, state: Tensor | None = None) -> Read:
        """Read token ids (B, S) with mask (B, S) bool; hidden states, keys and values with gradient."""
        places, _ = position_ids(ids, self.tokens.image, self.side)
        tape = Tape(self.layers)
        hidden = self._run(self.embed(ids, images, state), self._causal(mask), places, tape)
        return Read(hidden, *tape.stacked())

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., vocabulary) of hidden states (..., D); the embeddings are the output layer too."""
        return nn.functional.linear(hidden, self.language.embed_tokens.weight)

    def image_features(self, images: Tensor) -> Tensor:
        """Tokens (N, side^2, D) of images (N, 3, h, w) or (B, V, 3, h, w), or of flat patches."""
        return self.visual.features(images.flatten(0, 1) if images.ndim == 5 else images, self.grid)

    def embed(self, ids: Tensor, images: Tensor | None, state: Tensor | None) -> Tensor:
        """Embeddings (B, S, D): text, then images on image pads, then states on state pads, both row by row."""
        embeds = self.language.embed_tokens(ids)
        if images is not None:
            embeds = self._scatter(embeds, ids == self.tokens.image, self.image_features(images), "image")
        if state is not None:
            given = state[:, None] if state.ndim == 2 else state
            given = self.proprios_embed(given.to(self.proprios_embed.weight.dtype))
            embeds = self._scatter(embeds, ids == self.tokens.state, given, "state")
        return embeds

    @staticmethod
    def _scatter(embeds: Tensor, where: Tensor, features: Tensor, what: str) -> Tensor:
        features = features.reshape(-1, embeds.shape[-1]).to(embeds.dtype)
        # Counting on an accelerator would stall it; masked_scatter fails there by itself when features are too few.
        if where.device.type == "cpu" and int(where.sum()) != len(features):
            raise MixturaError(
                f"the sequences hold {int(where.sum())} {what}-pad tokens, {len(features)} {what} tokens are given"
            )
        return embeds.masked_scatter(where[..., None], features)

    @staticmethod
    def _causal(mask: Tensor) -> Tensor:
        """(B, 1, S, S) bool: earlier visible tokens, and oneself (so that hidden rows stay finite)."""
        length = mask.shape[1]
        places = torch.arange(length, device=mask.device)
        earlier, itself = places[:, None] >= places, places[:, None] == places
        return ((earlier & mask[:, None]) | itself)[:, None]

    def _run(self, embeds: Tensor, mask: Tensor, places: Tensor, tape: Tape) -> Tensor:
        """Through the language model with a ready mask (B, 1, q, k) and positions (3, B, q)."""
        out = self.language(
            inputs_embeds=embeds,
            attention_mask={"full_attention": mask},
            position_ids=places,
            past_key_values=tape,
            use_cache=True,
        )
        return out.last_hidden_state

    @torch.no_grad()
    def generate(
        self,
        ids: Tensor,
        mask: Tensor,
        images: Tensor | None = None,
        state: Tensor | None = None,
        limit: int = 10,
        stop: Sequence[int] = (),
        allowed: tuple[int, int] | None = None,
    ) -> Written:
        """Write at most `limit` tokens greedily behind prompts (B, S) that may be padded on the right (section 10).

        A row ends at a token of `stop`. `allowed` (low, high) keeps to ids low..high-1, so that exactly `limit` codes come.
        """
        places, following = position_ids(ids, self.tokens.image, self.side, mask if self.official else None)
        tape = Tape(self.layers)
        hidden = self._run(self.embed(ids, images, state), self._causal(mask), places, tape)
        batch, rows = len(ids), torch.arange(len(ids), device=ids.device)
        last = self._lengths(mask) - 1
        hidden, place, tape.growing = hidden[rows, last], following[rows, last], True
        ends = torch.tensor(list(stop), device=ids.device, dtype=torch.long)
        tokens, visible = [], mask
        alive = torch.ones(batch, dtype=torch.bool, device=ids.device)
        for _ in range(limit):
            token = self._greedy(hidden, allowed)
            tokens.append(torch.where(alive, token, -1))
            alive = alive & ~torch.isin(token, ends)
            if not alive.any():
                break
            visible = torch.cat([visible, alive[:, None]], 1)
            embeds, here = self.language.embed_tokens(token)[:, None], place[None, :, None].expand(3, -1, -1)
            step_mask = visible.clone()
            step_mask[:, -1] = True
            hidden = self._run(embeds, step_mask[:, None, None], here, tape)[:, 0]
            place = place + 1
        return self._compact(torch.stack(tokens, 1), tape, visible, ids.shape[1], last + 1)

    @staticmethod
    def _lengths(mask: Tensor) -> Tensor:
        """Tokens of each row up to its last visible one (B,)."""
        return ((torch.arange(mask.shape[1], device=mask.device) + 1) * mask).amax(1)

    def _greedy(self, hidden: Tensor, allowed: tuple[int, int] | None) -> Tensor:
        """The likeliest next token (B,) among the allowed ids."""
        if allowed is None:
            return self.logits(hidden).argmax(-1)
        weight = self.language.embed_tokens.weight[allowed[0] : allowed[1]]
        return nn.functional.linear(hidden, weight).argmax(-1) + allowed[0]

    def _compact(self, tokens: Tensor, tape: Tape, visible: Tensor, prompt: int, lengths: Tensor) -> Written:
        """Close the gap between a row's prompt and what it wrote, so that the layout is that of a training sequence."""
        keys, values = tape.stacked()
        new = keys.shape[2] - prompt
        target = torch.arange(int(lengths.max()) + new, device=visible.device)[None]
        source = torch.where(target < lengths[:, None], target, prompt + target - lengths[:, None])
        inside = source < visible.shape[1]
        source = source.clamp_max(visible.shape[1] - 1)
        key_mask = visible.gather(1, source) & inside
        index = source[None, :, :, None].expand(len(keys), -1, -1, keys.shape[-1])
        return Written(tokens, keys.gather(2, index), values.gather(2, index), key_mask)
