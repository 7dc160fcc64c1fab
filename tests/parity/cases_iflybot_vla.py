"""Parity runners of iFlyBot-VLA; each folder's README.md says what its arrays are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

from mixtura_iflybot_vla import action_space as space
from mixtura_iflybot_vla import timesteps as times
from mixtura_iflybot_vla.config import IFlyBotConfig
from mixtura_iflybot_vla.fast import SCALE, FastTokenizer, quantise, restore, transform
from mixtura_iflybot_vla.nets.action_expert import ActionExpert, time_sinusoid
from mixtura_iflybot_vla.nets.lam import LatentActionModel
from mixtura_iflybot_vla.nets.vlm import StateVLM, TokenIds, position_ids
from mixtura_iflybot_vla.published import vlm_from_published, vlm_to_published
from tests.parity.fill import fill_module, keys_of, make_input, param_value, rng_for

Outputs = Iterator[tuple[str, Any, Any]]


def tensor(name: str, *shape: int, low: float | None = None, high: float | None = None) -> torch.Tensor:
    """The input called `name` as a float32 tensor."""
    return torch.from_numpy(make_input(name, shape, low, high))


def golden(folder: Path) -> dict[str, np.ndarray]:
    """All recorded arrays of a case."""
    with np.load(folder / "golden.npz") as arrays:
        return dict(arrays)


def layout(name: str, module: torch.nn.Module, expected: dict[str, list[int]]) -> tuple[str, Any, Any]:
    """Names and shapes as one comparable output: 1 when they agree."""
    return f"{name}/layout", [float(keys_of(module) == expected)], [1.0]


EXPERT_CASES: dict[str, dict[str, Any]] = {
    "plain": {"layers": 3, "kv": 32, "B": 2, "S": 11, "H": 7, "P": 1},
    "plain2d": {"layers": 3, "kv": 32, "B": 2, "S": 9, "H": 30, "P": 0},
    "gated": {"layers": 2, "kv": 48, "B": 2, "S": 13, "H": 10, "P": 2, "gated": True},
    "domain": {"layers": 2, "kv": 32, "B": 3, "S": 6, "H": 7, "P": 1, "domain": [3, 8, 1]},
}


@torch.no_grad()
def action_expert(folder: Path) -> Outputs:
    """The action expert with the published arithmetic, all four variants and the full-size layout."""
    want, keys = golden(folder), json.loads((folder / "keys.json").read_text())
    for case, c in EXPERT_CASES.items():
        domain = torch.tensor(c["domain"]) if "domain" in c else None
        expert = ActionExpert(
            64, 4, c["layers"], c["kv"], gated=c.get("gated", False), compat="official", domains=0 if domain is None else 30
        ).eval()
        yield layout(case, expert, keys[case])
        fill_module(expert)
        batch, seen, horizon, states = c["B"], c["S"], c["H"], c["P"]
        key, value = (tensor(f"{case}/llm_{n}", c["layers"], batch, seen, c["kv"]) for n in ("key", "value"))
        proprio = tensor(f"{case}/proprio", *((batch, states, 20) if states else (batch, 20)))
        noisy, t = tensor(f"{case}/noisy_actions", batch, horizon, 20), tensor(f"{case}/t", batch, low=0, high=1)
        blocks: list[torch.Tensor] = []
        hook = expert.blocks[0].register_forward_hook(lambda m, i, o, blocks=blocks: blocks.append(o))
        yield f"{case}/velocity", expert(noisy, t, proprio, key, value, domain=domain), want[f"{case}/velocity"]
        hook.remove()
        yield f"{case}/time_sinusoid", time_sinusoid(t, 64), want[f"{case}/time_sinusoid"]
        for name, part in zip(("time", "proprio", "action"), blocks[0].split([1, max(states, 1), horizon], 1), strict=True):
            yield f"{case}/block0_{name}", part, want[f"{case}/block0_{name}"]
        yield f"{case}/sampled", expert.sample(noisy, proprio, key, value, domain=domain), want[f"{case}/sampled"]
        actions, noise = (
            tensor(f"{case}/actions", batch, horizon, 20, low=-1, high=1),
            tensor(f"{case}/noise", batch, horizon, 20),
        )
        x_t = t[:, None, None] * noise + (1 - t[:, None, None]) * actions
        square = (expert(x_t, t, proprio, key, value, domain=domain) - (noise - actions)).square()
        yield f"{case}/fm_loss", square.mean(), want[f"{case}/fm_loss"]
        yield f"{case}/fm_loss_masked_first8", square[..., :8].mean(), want[f"{case}/fm_loss_masked_first8"]
    with torch.device("meta"):
        full = ActionExpert(1024, 16, 36, 256)
    yield layout("full_size", full, keys["full_size_qwen2.5-vl-3b"])


LAM_CASES: dict[str, dict[str, int]] = {
    "lapa8": {"dim": 64, "code_dim": 32, "codebook": 32, "layers": 2, "dim_head": 16, "codes": 8, "B": 2},
    "lapa4": {"dim": 48, "code_dim": 16, "codebook": 8, "layers": 1, "dim_head": 12, "codes": 4, "B": 3},
}


@torch.no_grad()
def lam(folder: Path) -> Outputs:
    """The latent action model, 8 and 4 codes, and the full-size layout."""
    want, keys = golden(folder), json.loads((folder / "keys.json").read_text())
    for case, c in LAM_CASES.items():
        net = LatentActionModel(
            c["dim"], 56, 8, c["layers"], c["layers"], 4, c["dim_head"], c["codebook"], c["code_dim"], c["codes"]
        ).eval()
        yield layout(case, net, keys[case])
        fill_module(net)
        video = tensor(f"{case}/video", c["B"], 3, 2, 56, 56, low=0, high=1)
        first, last = net.encode(video)
        made = net.quantise(first, last)
        shown = net.decode(video, made.tokens)
        ours = {
            "patch_tokens": net.to_patch_emb_first_frame(video[:, :, :1]), "spatial_bias": net.spatial_rel_pos_bias(7, 7),
            "enc_first": first, "enc_last": last, "z_diff": made.z, "indices": made.indices, "codes": made.codes,
            "quantized_tokens": made.tokens, "recon": shown, "recon_mse": (shown - video[:, :, 1]).square().mean(),
        }  # fmt: skip
        for name, value in ours.items():
            yield f"{case}/{name}", value, want[f"{case}/{name}"]
    with torch.device("meta"):
        full = LatentActionModel(1024, 224, 32, 8, 8, 16, 64)
    yield layout("full_size", full, keys["full_size"])


@torch.no_grad()
def vlm_state(folder: Path) -> Outputs:
    """The language model with a state token; rows of hidden positions are not compared."""
    want, keys = golden(folder), json.loads((folder / "keys.json").read_text())
    sizes = {"hidden": 64, "layers": 3, "heads": 4, "kv_heads": 2, "mlp": 128, "vision_hidden": 32, "vision_layers": 2,
             "vision_heads": 2, "vision_mlp": 64, "patch": 14, "stem": "patch"}  # fmt: skip
    config = IFlyBotConfig(type="iflybot_vla", image_size=56, compat="official", vlm=sizes)
    vlm = StateVLM(config, TokenIds(size=512, image=500, state=504)).eval()
    weights = {name: torch.from_numpy(param_value(name, tuple(shape))) for name, shape in keys.items()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    yield "layout", [float({k: list(v.shape) for k, v in vlm_to_published(vlm.state_dict()).items()} == keys)], [1.0]
    vlm.load_state_dict(vlm_from_published(weights))
    ids, mask = torch.from_numpy(want["input_ids"]), torch.from_numpy(want["attention_mask"]).bool()
    yield "position_ids", position_ids(ids, 500, 2)[0], want["position_ids"]
    pixels, state = tensor("vlm/pixel_values", 48, 1176), tensor("vlm/proprios", 1, 1, 20)
    yield "image_features", vlm.image_features(pixels).flatten(0, 1), want["image_features"]
    yield "inputs_embeds", vlm.embed(ids, pixels, state), want["inputs_embeds"]
    out, seen, cut = vlm(ids, mask, pixels, state), mask[0], int(want["cut"])
    yield "last_hidden", out.hidden[0, seen], want["last_hidden"][0, seen]
    every = seen[::8]
    logits = vlm.logits(out.hidden)
    yield "logits_stride8", logits[0, ::8][every], want["logits_stride8"][0, every]
    labels = torch.from_numpy(want["labels"])
    yield "loss", F.cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=-100), want["loss"]
    for name, ours in (("expert_keys", out.keys), ("expert_values", out.values)):
        yield name, ours[:, 0, :cut][:, seen[:cut]], want[name][:, 0][:, seen[:cut]]


def smooth(name: str, steps: int, channels: int) -> np.ndarray:
    """A smooth chunk made by the rule of the folder's README."""
    a = make_input(f"{name}/amp", (4, channels)).astype(np.float64)
    p = make_input(f"{name}/phase", (4, channels), 0, 6.2831853).astype(np.float64)
    t, f = np.arange(steps)[:, None, None] / steps, np.arange(1, 5)[:, None]
    return np.clip((a / f * np.cos(np.pi * f * t + p) / 2).sum(1), -1, 1)


def fast(folder: Path) -> Outputs:
    """FAST: transform, rounding, the recorded tokenizer, and a fit of our own in the published way."""
    want = golden(folder)
    for case in ("c7x7", "c30x20", "c50x14", "u16x6"):
        x, q = want[f"{case}/x"], quantise(transform(want[f"{case}/x"]))
        ours = {"dct": transform(x), "q": q, "flat": q.ravel(), "decoded": restore(q), "max_err": np.abs(restore(q) - x).max()}
        for name, value in ours.items():
            yield f"{case}/{name}", value, want[f"{case}/{name}"]
    yield "ties_out", quantise(want["ties_in"]).astype(float), want["ties_out"]
    low = int(want["bpe/min_token"])
    recorded = FastTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), low)
    train = [smooth(f"fast/train/{i}", 16, 7) for i in range(256)]
    fitted = FastTokenizer.fit(train, 512, compat="official")
    yield "bpe/fit", [fitted.low, fitted.size, SCALE], [low, int(want["bpe/vocab_len"]), 10.0]
    for name, tokenizer in (("recorded", recorded), ("fitted", fitted)):
        chunks = [smooth(f"fast/test/{i}", 16, 7) for i in range(8)]
        ids = [tokenizer.encode(chunk) for chunk in chunks]
        padded = np.array([row + [-1] * (want["bpe/test_ids"].shape[1] - len(row)) for row in ids])
        yield f"bpe/{name}/test_ids", padded, want["bpe/test_ids"]
        yield f"bpe/{name}/codepoints", [tokenizer.code_points(chunk) for chunk in chunks], want["bpe/test_codepoints"]
        yield f"bpe/{name}/decoded", [tokenizer.decode(row, 16, 7) for row in ids], want["bpe/test_decoded"]


def moments(values: np.ndarray, count: int) -> list[float]:
    """Mean, variance and third central moment, the first `count` of them."""
    centred = values - values.mean()
    return [values.mean(), values.var(), (centred**3).mean()][:count]


def timesteps(folder: Path) -> Outputs:
    """The published sampler on recorded uniforms; the others against their distribution on a fine grid."""
    want, rng = golden(folder), rng_for("input:timesteps/u")
    u1, u2 = (torch.from_numpy(rng.uniform(size=200_000)) for _ in range(2))
    normal, levels = torch.from_numpy(rng.standard_normal(200_000)), want["quantile_levels"]
    yield "uniforms", torch.stack([u1[:64], u2[:64]]), [want["first_u1"], want["first_u2"]]
    drawn = times.flow_times("iflybot", torch.stack([u1, u2], -1)).numpy()
    yield "iflybot_first", drawn[:64], want["iflybot_first"]
    yield "iflybot_moments", moments(drawn, 3), want["iflybot_moments"]
    yield "iflybot_quantiles", np.quantile(drawn, levels), want["iflybot_quantiles"]
    even = torch.from_numpy((np.arange(200_000) + 0.5) / 200_000)
    exact = times.flow_times("beta", torch.stack([even, even], -1)).numpy()
    yield "beta_moments", moments(exact, 2), want["beta_moments"]
    at_levels = times.beta_times(torch.from_numpy(levels))
    yield "beta_quantiles", at_levels, want["beta_quantiles"]
    skewed = times.skewed_times(normal).numpy()
    yield "skewed_moments", moments(skewed, 2), want["skewed_moments"]
    yield "skewed_quantiles", np.quantile(skewed, levels), want["skewed_quantiles"]


def action_space(folder: Path) -> Outputs:
    """Normalisation, poses, joints and LIBERO in float64."""
    want = golden(folder)

    def ends(group: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        return want[f"stats/{group}/{kind}/q01"], want[f"stats/{group}/{kind}/q99"]

    state, raw = want["pose_state"], want["raw20"]
    yield "pose_state_norm20", space.pose_state(state, *ends("pose", "proprio")), want["pose_state_norm20"]
    yield "bi_state_norm20", space.pose_state(want["bi_state"], *ends("bi", "proprio"), arms=2), want["bi_state_norm20"]
    yield "pose_actions", space.pose_command(raw, *ends("pose", "action"), state[0]), want["pose_actions"]
    yield "joint_actions", space.joint_command(raw, *ends("joint", "action"), want["joint_cur"]), want["joint_actions"]
    yield "libero_actions", space.libero_command(raw, *ends("libero", "action")), want["libero_actions"]
    yield "libero_state_norm20", space.libero_state(want["libero_state"], *ends("libero", "proprio")), want["libero_state_norm20"]
    yield "make_relative", space.relative_pose(state, np.broadcast_to(state[1], state.shape)), want["make_relative"]
    yield "resample_out", space.resample(want["resample_in"], 30, floor=(3,)), want["resample_out"]


CASES = {
    "action_expert": action_expert,
    "action_space": action_space,
    "fast": fast,
    "lam": lam,
    "timesteps": timesteps,
    "vlm_state": vlm_state,
}
