"""Published checkpoints: names, reports, sizes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from mixtura.errors import CheckpointError
from mixtura_iflybot_vla import published
from mixtura_iflybot_vla.config import IFlyBotConfig
from mixtura_iflybot_vla.nets.action_expert import ActionExpert
from mixtura_iflybot_vla.nets.lam import LatentActionModel, LatentActions
from mixtura_iflybot_vla.nets.vlm import StateVLM

VLM = {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 1, "mlp": 48, "vision_hidden": 32, "vision_layers": 1,
       "vision_heads": 2, "vision_mlp": 32, "patch": 8, "stem": "patch", "text_vocab": 300, "fast_vocab": 64}  # fmt: skip
CONFIG = IFlyBotConfig(type="iflybot_vla", image_size=32, vlm=VLM)


def networks(seed: int) -> tuple[StateVLM, ActionExpert]:
    """A small language model and expert."""
    torch.manual_seed(seed)
    vlm = StateVLM(CONFIG)
    return vlm, ActionExpert(32, 2, 2, vlm.kv_width)


def test_a_checkpoint_round_trips_through_the_published_layout(tmp_path: Path) -> None:
    vlm, expert = networks(0)
    path = tmp_path / "step-000001.pt"
    published.write_checkpoint(path, vlm.state_dict(), expert.state_dict())
    raw = torch.load(path, weights_only=True)
    assert set(raw) == {"model"}
    assert set(raw["model"]) == {"vlm", "action_head"}
    assert {"visual.patch_embed.proj.weight", "model.norm.weight", "lm_head.weight", "proprios_embed.bias"} <= set(
        raw["model"]["vlm"]
    )
    other, other_expert = networks(1)
    language, head = published.read_checkpoint(path)
    assert published.load_into(other, language).fits
    assert published.load_into(other_expert, head).fits
    assert all(torch.equal(a, b) for a, b in zip(vlm.state_dict().values(), other.state_dict().values(), strict=True))


def test_names_of_older_and_newer_checkpoints_are_understood() -> None:
    vlm, expert = networks(0)
    ours = vlm.state_dict()
    old = {k.replace("proprios_embed.", "proprios."): v for k, v in published.vlm_to_published(ours).items()}
    assert set(published.vlm_from_published(old)) == set(ours)
    assert set(published.vlm_from_published(ours)) == set(ours)
    names = {"action_embed": "action_encoder", "action_out_proj": "action_decoder", "proprio_embed": "proprio_encoder",
             "time_mlp": "time_encoder", "blocks": "net"}  # fmt: skip
    head = {".".join([names[k.split(".")[0]], *k.split(".")[1:]]): v for k, v in expert.state_dict().items()}
    assert set(published.head_from_published(head)) == set(expert.state_dict())


def test_a_dry_run_reports_and_changes_nothing() -> None:
    _, expert = networks(0)
    before = {k: v.clone() for k, v in expert.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()}
    state["extra"] = state.pop("blocks.1.to_out.bias")
    state["time_mlp.0.bias"] = torch.zeros(3)
    report = published.load_into(expert, state, dry_run=True)
    assert report.missing == ["blocks.1.to_out.bias"]
    assert report.unexpected == ["extra"]
    assert report.mismatched == ["time_mlp.0.bias: (3,), expected (32,)"]
    with pytest.raises(CheckpointError, match=r"1 missing.*1 unexpected.*1 mismatched"):
        published.load_into(expert, state)
    assert all(torch.equal(before[k], v) for k, v in expert.state_dict().items())


def test_an_untied_output_layer_is_reported() -> None:
    vlm, _ = networks(0)
    state = published.vlm_to_published(vlm.state_dict())
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    assert published.load_into(vlm, published.vlm_from_published(state), dry_run=True).unexpected == ["lm_head.weight"]


def test_files_that_run_code_or_lack_the_layout_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(pickle.dumps(print))
    for path, text in ((bad, "plain tensors"), (tmp_path / "none.pt", "no such file")):
        with pytest.raises(CheckpointError, match=text):
            published.read_checkpoint(path)
    torch.save({"state": 1}, bad)
    with pytest.raises(CheckpointError, match="published layout"):
        published.read_checkpoint(bad)


def test_the_latent_model_round_trips_without_its_counters(tmp_path: Path) -> None:
    latent = LatentActions(CONFIG.lam)
    path = tmp_path / "lam.pt"
    published.write_latent(path, latent.state_dict())
    assert all(k.startswith("lam.") for k in torch.load(path, weights_only=True)["state_dict"])
    assert published.load_into(LatentActions(CONFIG.lam).lam, published.read_latent(path)).fits


def test_the_full_size_has_the_published_parameter_counts() -> None:
    config = IFlyBotConfig(type="iflybot_vla", size="full", image_size=448, vlm={"tokenizer": "published"})
    with torch.device("meta"):
        vlm = StateVLM(config)
        expert = ActionExpert(config.expert.hidden, config.expert.heads, vlm.layers, vlm.kv_width)
        lam = LatentActionModel(1024, 224, 32, 8, 8, 16, 64)
    assert sum(p.numel() for p in expert.parameters()) == 238_424_084
    # The published count has the unused context norms, and not the zero offsets.
    assert sum(v.numel() for name, v in lam.state_dict().items() if not name.endswith(".beta")) == 343_787_600
    assert sum(p.numel() for p in vlm.parameters()) == 3_754_622_976 + 20 * 2048 + 2048
