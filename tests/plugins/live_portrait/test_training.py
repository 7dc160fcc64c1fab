"""Both stages train from a configuration; a stopped run goes on exactly; splitting a step changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mixtura.checkpoint import load_system
from mixtura.config import RunConfig, loads
from mixtura.errors import ConfigError
from mixtura.trainer import Trainer, train
from tests.plugins.live_portrait.training_tools import ALL_OF_ONE, SMALL

FACES = {"type": "faces", "identities": 4, "clips": 1, "frames": 20, "size": 16, "cross": True}
CONFIG: dict[str, Any] = {
    "system": {"type": "live_portrait", **SMALL},
    "run": {"name": "r", "seed": 5},
    "sources": {"clips": FACES, "stills": {**FACES, "still": True, "style": "painted", "first_identity": 9}},
    "data": {"global_batch": 4, "workers": 0},
    "optim": {"lr": 1e-3, "players": {"discriminator": {"lr": 2e-3}}},
    "train": {"ema": {"decay": 0.9}},
    "checkpoint": {"every": 2, "keep": 9},
    "log": {"every": 1, "to": ["jsonl"]},
    "stages": [
        {"name": "paint", "steps": 4, "train": list(ALL_OF_ONE), "mixture": {"clips": 0.5, "stills": 0.5}},
        {"name": "adjust", "steps": 3, "train": ["stitching", "eyes", "lips"], "mixture": {"clips": 1}},
    ],
}


def config_of(**changes: Any) -> RunConfig:
    """The configuration with changes to its sections."""
    given = {**CONFIG, **{name: {**CONFIG[name], **value} for name, value in changes.items()}}
    return loads(yaml.safe_dump(given)).config


def stopping_at(step: int) -> Callable[[Any, Any], None]:
    """A trainer's step that is interrupted before the given one."""
    real = Trainer.step

    def stop(self: Any, data: Any) -> None:
        if self.step_now == step:
            raise KeyboardInterrupt
        real(self, data)

    return stop


@pytest.mark.slow
def test_a_run_stopped_in_either_stage_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(config_of(run={"name": "whole"}), root=tmp_path) == 0
    config = config_of(run={"name": "parts"})
    for number, step in enumerate((3, 6)):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", stopping_at(step))
            with pytest.raises(KeyboardInterrupt):
                train(config, resume=number > 0, root=tmp_path)
    assert train(config, resume=True, root=tmp_path) == 0
    for checkpoint in ("step-000004", "latest"):
        for name in ("model", "ema", "optim"):
            a, b = (load_file(tmp_path / "runs" / run / checkpoint / f"{name}.safetensors") for run in ("whole", "parts"))
            assert a.keys() == b.keys()
            assert all(torch.equal(a[key], b[key]) for key in a)
    saved = load_file(tmp_path / "runs/whole/step-000004/optim.safetensors")
    assert {key.split(":")[0] for key in saved} == {"generator", "discriminator"}


def gradients(root: Path, name: str, micro_batch: int) -> dict[str, torch.Tensor]:
    """What every player gets in the first step of a run."""
    found: dict[str, torch.Tensor] = {}
    real = Trainer._apply

    def keep(self: Any, player: str, data: Any) -> float:
        found.update({n: p.grad.clone() for n, p in self.system.named_parameters() if p.grad is not None})
        return real(self, player, data)

    stages = [{**CONFIG["stages"][0], "steps": 1}]
    given = {**CONFIG, "run": {"name": name}, "data": {**CONFIG["data"], "micro_batch": micro_batch}, "stages": stages}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_apply", keep)
        train(loads(yaml.safe_dump(given)).config, root=root)
    return found


def test_splitting_a_step_changes_no_gradient(tmp_path: Path) -> None:
    whole, split = gradients(tmp_path, "whole", 4), gradients(tmp_path, "split", 1)
    assert whole.keys() == split.keys()
    assert {name.split(".")[0] for name in whole} == set(ALL_OF_ONE)
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, atol=1e-5, rtol=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    root = tmp_path_factory.mktemp("run")
    train(config_of(), root=root)
    return root / "runs/r"


def test_each_stage_trains_its_parts_alone_and_tells_its_terms(run: Path) -> None:
    before, middle, after = (
        load_file(run / step / "model.safetensors") for step in ("step-000002", "step-000004", "step-000007")
    )

    def changed(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
        return {name.split(".")[0] for name in one if not torch.equal(one[name], other[name])}

    assert changed(before, middle) == set(ALL_OF_ONE)
    assert changed(middle, after) == {"stitching", "eyes", "lips"}
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    first, second = (next(r for r in records if r["kind"] == "train" and r["stage"] == name) for name in ("paint", "adjust"))
    assert {"loss/image", "loss/critic_face", "loss/ratios"} <= first.keys()
    assert {"loss/stitching", "loss/eyes_ratio", "loss/lips_size"} <= second.keys()
    assert not {"loss/image", "loss/critic"} & second.keys()


def test_a_trained_run_animates(run: Path) -> None:
    system, _ = load_system(run)
    made = system.infer(source=torch.rand(3, 16, 16), driving=torch.rand(2, 3, 16, 16), stitching=True)
    assert torch.isfinite(made["frames"]).all()


def test_a_stage_of_all_parts_is_refused_with_what_to_write(tmp_path: Path) -> None:
    given = {**CONFIG, "stages": [{"name": "all", "steps": 1, "mixture": {"clips": 1}}]}
    with pytest.raises(ConfigError, match=r"stage 'all': .*name the parts with `train:`"):
        train(loads(yaml.safe_dump(given)).config, root=tmp_path)
