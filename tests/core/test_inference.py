"""Using a run: measure again, infer from files, export, compare variants; every shipped configuration loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ConfigDict

from mixtura.ablation import ablate
from mixtura.checkpoint import load_system
from mixtura.cli import main
from mixtura.config import load
from mixtura.errors import CheckpointError, ConfigError, DataError, MixturaError
from mixtura.inference import evaluate_run, export_run, infer_files_run, infer_run, read_settings, settings_of
from mixtura.testing import ToySystem
from mixtura.trainer import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(toy: Callable[..., Any], tmp_path: Path) -> Path:
    """A finished toy run."""
    train(toy(train={"ema": {"decay": 0.9}}, evaluate=[{"type": "heldout_loss", "samples": 8}]), root=tmp_path)
    return tmp_path / "runs/toy"


def quiet(text: str = "") -> None:
    """Say nothing."""


def test_measuring_a_run_again_gives_the_same_figures(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    logged = next(line for line in lines if line["kind"] == "eval")
    assert evaluate_run(run, [], quiet)[0]["scalars"] == logged["scalars"]


@pytest.mark.parametrize("kind", ["npz", "json"])
def test_inputs_come_from_a_file_and_go_to_one(kind: str, run: Path, tmp_path: Path) -> None:
    x = np.zeros((3, 4), np.float32)
    if kind == "npz":
        np.savez(tmp_path / "in.npz", x=x)
    else:
        (tmp_path / "in.json").write_text(json.dumps({"x": x.tolist()}))
    infer_run(run, tmp_path / f"in.{kind}", tmp_path / f"out.{kind}", quiet)
    out = np.load(tmp_path / "out.npz") if kind == "npz" else json.loads((tmp_path / "out.json").read_text())
    assert np.asarray(out["y"]).shape == (3,)


def test_wrong_inputs_are_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps({"z": 1}))
    with pytest.raises(DataError, match="toy can't use these inputs"):
        infer_run(run, tmp_path / "in.json", tmp_path / "out.json", quiet)


class Mesh(BaseModel):
    """A section of the settings below."""

    model_config = ConfigDict(extra="forbid")
    size: int = 4


class Options(BaseModel):
    """Settings of an inference."""

    model_config = ConfigDict(extra="forbid")
    steps: int = 30
    mesh: Mesh = Mesh()


def test_a_system_without_a_way_for_pictures_says_so(run: Path, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"")
    with pytest.raises(MixturaError, match="cat.png: toy takes no such files"):
        infer_files_run(run, [tmp_path / "cat.png"], tmp_path / "out", {}, quiet)
    assert not (tmp_path / "out").exists()


def test_a_system_gets_the_files_the_folder_and_the_settings(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def infer_files(system: Any, inputs: Any, out: Path, settings: Any, say: Any) -> list[Path]:
        say(f"{system.config.type} {[file.name for file in inputs]} {out.name} {settings}")
        return list(inputs)

    monkeypatch.setattr(ToySystem, "infer_files", infer_files)
    for name in ("cat.png", "dog.txt"):
        (tmp_path / name).write_text("")
    words = ["--input", str(tmp_path / "cat.png"), "--input", str(tmp_path / "dog.txt"), "--output", str(tmp_path / "out")]
    assert main(["infer", str(run), *words, "mesh.size=3", "seeds=[1, 2]", "steps=4", "steps=5"]) == 0
    told = capsys.readouterr().out
    assert "toy ['cat.png', 'dog.txt'] out {'mesh': {'size': 3}, 'seeds': [1, 2], 'steps': 5}" in told
    assert "written: 2 files" in told


def test_settings_of_an_inference_are_checked_all_at_once() -> None:
    assert settings_of(Options, read_settings(["mesh.size=8"])).mesh.size == 8
    with pytest.raises(ConfigError) as told:
        settings_of(Options, read_settings(["stepps=2", "mesh.sizes=3", "steps=many"]))
    lines = str(told.value).splitlines()
    assert "steps: must be a whole number, not 'many'" in lines
    assert "stepps: no such setting. Did you mean 'steps'? Settings here: mesh, steps" in lines
    assert "mesh.sizes: no such setting. Did you mean 'size'? Settings here: size" in lines


@pytest.mark.parametrize(("word", "reason"), [("a=[1", "not readable as YAML"), ("a.=1", "expected setting=value")])
def test_a_setting_that_cannot_be_read_is_told(word: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        read_settings([word])


def test_an_export_opens_like_a_run_and_holds_the_averaged_weights(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out", False, quiet)
    exported, _ = load_system(tmp_path / "out")
    averaged, _ = load_system(run)
    trained, _ = load_system(run, ema=False)
    ours, theirs, raw = (s.state_dict()["head.weight"] for s in (exported, averaged, trained))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, raw)
    with pytest.raises(MixturaError, match="exists already"):
        export_run(run, tmp_path / "out", False, quiet)


def test_a_changed_checkpoint_is_refused(run: Path) -> None:
    weights = run / "step-000012" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="content has changed"):
        load_system(run)


def test_a_folder_without_a_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a checkpoint"):
        load_system(tmp_path)


def test_variants_are_trained_once_and_compared(toy: Callable[..., Any], tmp_path: Path) -> None:
    toy(
        evaluate=[{"type": "heldout_loss", "samples": 8}],
        ablation={"seeds": [1, 2], "measure": ["value/curves"], "variants": {"full": {}, "narrow": {"system.hidden": 2}}},
    )
    page = ablate(tmp_path / "toy.yaml", [], tmp_path, 2, None, quiet)
    assert "| narrow |" in page.read_text()
    assert len(list((tmp_path / "runs").glob("toy-*-*/report.html"))) == 4
    told: list[str] = []
    ablate(tmp_path / "toy.yaml", [], tmp_path, 2, None, told.append)
    assert told[0] == "4 runs, 4 of them finished"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_configuration_is_valid(path: Path) -> None:
    config = load(path).config
    assert config.steps > 0


def test_every_shipped_configuration_is_told_by_a_dry_run(tmp_path: Path) -> None:
    from mixtura.dry_run import dry_run

    told: list[str] = []
    dry_run(load(ROOT / "configs/full/iflybot_vla.yaml").config, tmp_path, told.append)
    assert any("238,424,084" in line for line in told)


def test_a_dry_run_shows_the_first_batches(toy: Callable[..., Any], tmp_path: Path) -> None:
    from mixtura.dry_run import dry_run

    told: list[str] = []
    dry_run(toy(), tmp_path, told.append)
    assert any("a micro-batch of 16 samples" in line for line in told)
