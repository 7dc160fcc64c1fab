"""Objects and scenes train together from a configuration; a stopped run goes on exactly; a run makes Gaussians."""

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
from mixtura.errors import DataError
from mixtura.trainer import Trainer, train
from tests.plugins.diffusion_gs.posed_folders import ring, write_folder

CONFIG = """
system: {type: diffusion_gs, width: 32, layers: 2, head_dim: 16, patch: 4, image_size: 16, steps: 2,
         depth: {scene: {rule: range, far: 4}}, ramps: {spread: [0, 1, 0, 3]}}
run: {name: r, seed: 5}
sources:
  objects: {type: views, path: objects, kind: object, size: 16, views: {rule: around, novel: 2}}
  rooms: {type: views, path: rooms, kind: scene, size: 16, views: {rule: random, novel: 2}, frame: {type: scene, scale: 0.5}}
data: {global_batch: 4, workers: 0}
train: {ema: {decay: 0.9}}
checkpoint: {every: 2, keep: 2}
log: {every: 1, to: [jsonl]}
stages: [{name: mixed, steps: 6, mixture: {objects: 0.5, rooms: 0.5}, loss: {points: 0.025}}]
"""
EVALUATE = """
evaluate:
  - {type: novel_views, items: 2, sources: {held: {path: objects, size: 16, views: {rule: around, novel: 2, fixed: true}}}}
"""
Make = Callable[..., RunConfig]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    for number in range(2):
        write_folder(tmp_path / "objects" / str(number), ring(12, 10.0 + number))
        write_folder(tmp_path / "rooms" / str(number), ring(12, 20.0 + number))

    def build(more: str = "", **changes: Any) -> RunConfig:
        given = yaml.safe_load(CONFIG + more)
        for name, values in changes.items():
            given[name] = {**given[name], **values}
        return loads(yaml.safe_dump(given)).config

    return build


def test_a_stopped_run_goes_on_exactly(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(make(run={"name": "whole"}), root=tmp_path) == 0
    real = Trainer.step

    def step(self: Any, data: Any) -> None:
        if self.step_now == 3:
            raise KeyboardInterrupt
        real(self, data)

    config = make(run={"name": "parts"})
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train(config, root=tmp_path)
    assert train(config, resume=True, root=tmp_path) == 0
    for name in ("model", "ema", "optim"):
        a, b = (load_file(tmp_path / "runs" / run / "latest" / f"{name}.safetensors") for run in ("whole", "parts"))
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_tells_the_loss_of_each_kind_and_is_measured(make: Make, tmp_path: Path) -> None:
    train(make(EVALUATE), root=tmp_path)
    records = [json.loads(line) for line in (tmp_path / "runs/r/log.jsonl").read_text().splitlines()]
    logged = set().union(*(record for record in records if record["kind"] == "train"))
    assert {name for name in logged if "objects" in name}
    assert {name for name in logged if "rooms" in name}
    assert [record["name"] for record in records if record["kind"] == "eval"] == ["novel_views"]


def test_a_trained_run_makes_gaussians(make: Make, tmp_path: Path, inputs_of: Callable[..., dict[str, Any]]) -> None:
    train(make(), root=tmp_path)
    system, _ = load_system(tmp_path / "runs/r")
    made = system.infer(**inputs_of())
    assert torch.isfinite(made["means"]).all()


def test_a_source_of_an_unknown_kind_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="source 'rooms' holds views of kind 'scene'"):
        train(make(system={"kinds": ["object"], "depth": {}}), root=tmp_path)
