"""iFlyBot-VLA as a system: mixed batches, two stages, exact resume, inference, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from mixtura.checkpoint import load_system
from mixtura.config import RunConfig, load
from mixtura.data.formats.lerobot_write import LeRobotWriter
from mixtura.data.sources import open_sources
from mixtura.errors import BadSample, ConfigError, DataError
from mixtura.rng import KeyedRng, SampleNoise
from mixtura.system import StepContext
from mixtura.trainer import Trainer, train
from mixtura_iflybot_vla.system import IFlyBotVLA

SIDE = 32
SYSTEM = {
    "type": "iflybot_vla",
    "cameras": ["observation.images.top", "observation.images.side"],
    "image_size": SIDE,
    "chunk": 4,
    "latent_span": 2,
    "noise_samples": 2,
    "flow_steps": 2,
    "vlm": {"hidden": 32, "mlp": 48, "vision_hidden": 16, "vision_mlp": 24, "layers": 2},
    "expert": {"hidden": 32},
    "lam": {"dim": 16, "image": 16, "patch": 4, "spatial_layers": 1, "heads": 2, "dim_head": 8},
}
STAGES = [
    {"name": "codes", "steps": 6, "train": ["lam"], "mixture": {"robot": 1}},
    {"name": "policy", "steps": 6, "train": ["vlm", "expert"], "mixture": {"robot": 0.75, "qa": 0.25}},
]


def write_data(folder: Path, nan_row: int | None = None, scale: float = 1.0) -> None:
    """Two short episodes with two cameras, and four questions."""
    video = {"dtype": "image", "shape": (SIDE, SIDE, 3), "names": ["height", "width", "channels"]}
    features: dict[str, Any] = dict.fromkeys(SYSTEM["cameras"], video)  # type: ignore[attr-defined]
    features["observation.state"] = {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]}
    features["action"] = {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]}
    numbers, row = np.random.default_rng(0), 0
    writer = LeRobotWriter(folder / "robot", 10, features)
    for episode in range(2):
        for _ in range(10):
            action = (numbers.normal(size=3) * scale).astype(np.float32)
            action[2] = np.nan if row == nan_row else action[2]
            frame: dict[str, Any] = {name: numbers.integers(0, 255, (SIDE, SIDE, 3), np.uint8) for name in SYSTEM["cameras"]}  # type: ignore[attr-defined]
            writer.add_frame(
                {**frame, "observation.state": numbers.normal(size=3).astype(np.float32), "action": action},
                task=f"push block {episode}",
            )
            row += 1
        writer.save_episode()
    writer.finalize()
    (folder / "images").mkdir()
    with (folder / "qa.jsonl").open("w") as file:
        for i in range(4):
            Image.fromarray(numbers.integers(0, 255, (SIDE, SIDE, 3), np.uint8)).save(folder / "images" / f"{i}.png")
            turns = [{"from": "human", "value": "<image>\nWhere is the block?"}, {"from": "gpt", "value": f"at ({i}, 2)"}]
            file.write(json.dumps({"id": str(i), "image": f"{i}.png", "conversations": turns}) + "\n")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., RunConfig]:
    """Writes data and a configuration with changes."""
    write_data(tmp_path / "data")

    def config(**changes: Any) -> RunConfig:
        sources = {
            "robot": {
                "type": "lerobot",
                "path": "data/robot",
                "windows": {"action": [0, 1, 2, 3], "observation.images.top": [0, 2]},
            },
            "qa": {"type": "qa", "path": "data/qa.jsonl", "images": "data/images"},
        }
        base = {
            "system": SYSTEM,
            "run": {"name": "r", "seed": 1},
            "sources": sources,
            "data": {"global_batch": 8, "workers": 0},
            "log": {"every": 3, "to": ["jsonl"]},
            "train": {"ema": {"decay": 0.9}},
            "checkpoint": {"every": 4},
            "stages": STAGES,
        }
        for key, value in changes.items():
            base[key] = {**base[key], **value} if isinstance(value, dict) else value  # type: ignore[dict-item]
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(base))
        return load(tmp_path / "c.yaml").config

    return config


@pytest.fixture
def ready(make: Callable[..., RunConfig], tmp_path: Path) -> tuple[IFlyBotVLA, dict[str, Any]]:
    """A system with assets and codes, ready for its policy stage, and its sources."""
    return prepared(make(), tmp_path)


def prepared(config: RunConfig, folder: Path) -> tuple[IFlyBotVLA, dict[str, Any]]:
    """Assets made, latent codes computed."""
    torch.manual_seed(0)
    system, sources = IFlyBotVLA(config.system), open_sources(config.sources, folder)
    (folder / "assets").mkdir(exist_ok=True)
    system.prepare(sources, folder / "assets")
    system.load_assets(folder / "assets")
    system.lam.requires_grad_(False)
    system.start_stage("policy", sources, folder)
    return system, sources


def samples(sources: dict[str, Any], robot: tuple[int, ...], qa: tuple[int, ...]) -> list[Any]:
    """Samples as the loader gives them."""
    chosen = []
    for name, items in (("robot", robot), ("qa", qa)):
        for item in items:
            sample = sources[name].read(item, KeyedRng(0))
            sample.source, sample.index = name, item
            chosen.append(sample)
    return chosen


def losses(system: IFlyBotVLA, chosen: list[Any], places: list[int]) -> dict[str, Any]:
    """Terms of one batch."""
    context = StepContext(
        0, "policy", 0, 10, KeyedRng(1), SampleNoise(KeyedRng(2), places), torch.zeros(len(chosen), dtype=torch.long), ("a",)
    )
    return system.losses(system.collate(chosen), context)


def test_a_batch_holds_robots_and_questions(ready: Any) -> None:
    system, sources = ready
    chosen = samples(sources, (0, 9), (1,))
    batch, terms = system.collate(chosen), losses(system, chosen, [0, 1, 2])
    counts = system.counts(batch)
    assert set(terms) == {"latent", "fast", "qa", "flow"}
    assert all(float(terms[name].count) == float(counts[name]) > 0 for name in terms)
    assert float(counts["flow"]) == 2 * 3 * (4 + 1)  # draws x channels x valid steps: four, and one at the episode's end
    assert terms["flow"].per_sample[1].tolist() == [24.0, 6.0, 0.0]


def test_splitting_a_mixed_batch_changes_no_loss(ready: Any) -> None:
    system, sources = ready
    whole = losses(system, samples(sources, (0, 9, 13), (1, 2)), [4, 7, 1, 0, 3])
    parts = [losses(system, samples(sources, (0, 9), ()), [4, 7]), losses(system, samples(sources, (13,), (1, 2)), [1, 0, 3])]
    for name, term in whole.items():
        split = sum(float(part[name].total.detach()) for part in parts if name in part)
        assert split == pytest.approx(float(term.total.detach()), rel=1e-5)


def test_insulation_keeps_the_flow_loss_from_the_language_model(make: Any, tmp_path: Path) -> None:
    for insulate in (True, False):
        system, sources = prepared(make(system={"insulate": insulate}), tmp_path)
        losses(system, samples(sources, (0, 3), ()), [0, 1])["flow"].total.backward()
        touched = any(p.grad is not None and p.grad.abs().sum() > 0 for p in system.vlm.parameters())
        assert touched is not insulate


@pytest.mark.parametrize("off", ["latent", "fast"])
def test_heads_can_be_left_out(off: str, make: Any, tmp_path: Path) -> None:
    system, sources = prepared(make(system={off: False}), tmp_path)
    assert off not in losses(system, samples(sources, (0,), (0,)), [0, 1])


def test_two_stages_train_and_a_stopped_run_goes_on_exactly(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(make(run={"name": "whole"}), root=tmp_path) == 0
    real = Trainer.step

    def step(self: Any, data: Any) -> None:
        if self.step_now == int(stop_at[0]):
            raise KeyboardInterrupt
        real(self, data)

    monkeypatch.setattr(Trainer, "step", step)
    for number, at in enumerate((5, 10, 99)):
        stop_at = [at]
        config = make(run={"name": "parts"})
        if at < 99:
            with pytest.raises(KeyboardInterrupt):
                train(config, resume=number > 0, root=tmp_path)
        else:
            assert train(config, resume=True, root=tmp_path) == 0
    whole, parts = (tmp_path / "runs" / name / "latest" for name in ("whole", "parts"))
    for name in ("model", "ema", "optim"):
        a, b = load_file(whole / f"{name}.safetensors"), load_file(parts / f"{name}.safetensors")
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert (tmp_path / "runs/whole/samples.jsonl").read_text() == (tmp_path / "runs/parts/samples.jsonl").read_text()


def test_a_trained_run_acts_and_answers(make: Any, tmp_path: Path) -> None:
    train(make(), root=tmp_path)
    system, _ = load_system(tmp_path / "runs/r")
    images = np.zeros((2, 2, 48, 48, 3), np.uint8)
    state, words = np.zeros((2, 3), np.float32), ["push block 0", "push block 1"]
    first, again = (system.infer(images=images, state=state, instruction=words) for _ in range(2))
    assert first["actions"].shape == (2, 4, 3)
    assert first["codes"].shape == (2, 8)
    assert torch.equal(first["actions"], again["actions"])
    alone = system.infer(images=images[1:], state=state[1:], instruction=words[1:])
    torch.testing.assert_close(alone["actions"], first["actions"][1:], atol=1e-5, rtol=1e-4)
    answers = system.infer(images=images[:, :1], question=["Where is the block?"] * 2)["text"]
    assert [type(answer) for answer in answers] == [str, str]


def inputs(batch: int = 2) -> dict[str, Any]:
    """What a robot sees, feels and is told; instructions of different lengths."""
    images = np.random.default_rng(0).integers(0, 255, (batch, 2, 48, 48, 3), np.uint8)
    return {"images": images, "state": np.zeros((batch, 3), np.float32), "instruction": ["push block 0", "push"][:batch]}


def test_acting_under_the_codes_it_would_write_itself_changes_nothing(ready: Any) -> None:
    system = ready[0].eval()
    free = system.infer(**inputs())
    told = system.infer(**inputs(), codes=free["codes"])
    torch.testing.assert_close(told["actions"], free["actions"], atol=1e-5, rtol=1e-4)
    other = system.infer(**inputs(), codes=(free["codes"] + 1) % system.config.lam.codebook)
    assert not torch.allclose(other["actions"], free["actions"], atol=1e-4)


def test_the_language_model_writes_discrete_tokens_when_asked(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    system = ready[0].eval()
    assert "fast" not in system.infer(**inputs())
    assert len(system.infer(**inputs(), discrete=True)["fast"]) == 2
    base, end = system.assets.vocabulary.fast_base, system.assets.vocabulary.mark("<|FASTend|>")[0]
    chunk = np.float32(np.sin(np.arange(12)).reshape(4, 3) / 2)
    ids = system.assets.fast.encode(chunk)
    written = [[base + token for token in ids] + [end], [base, 3] + [base] * (len(ids) - 1)]
    real = system.vlm.generate

    def generate(*given: Any, stop: Any = (), **more: Any) -> Any:
        made = real(*given, stop=stop, **more)
        return type(made)(torch.tensor(written), made.keys, made.values, made.key_mask) if end in stop else made

    monkeypatch.setattr(system.vlm, "generate", generate)
    result = system.infer(**inputs(), discrete=True)
    assert result["fast"] == [ids, [0]]
    expected = system.assets.normaliser().decode("action", system.assets.fast.decode(ids, 4, 3))
    assert np.array_equal(result["fast_actions"][0], expected)
    assert torch.isnan(result["fast_actions"][1]).all()


def test_codes_alone_ask_what_the_picture_becomes(ready: Any) -> None:
    system = ready[0].eval()
    images = inputs(1)["images"]
    seen = system.infer(images=images, codes=np.zeros((1, 8), int))
    other = system.infer(images=images, codes=np.arange(8)[None])
    assert seen["before"].shape == seen["predicted"].shape == (1, 16, 16, 3)
    assert torch.equal(seen["before"], other["before"])
    assert not torch.equal(seen["predicted"], other["predicted"])


@pytest.mark.parametrize("codes", [[[0] * 7], [[0] * 7 + [32]], [[-1] * 8], [[0] * 8] * 2])
def test_codes_that_are_none_are_refused(codes: Any, ready: Any) -> None:
    with pytest.raises(DataError, match="expected 1 rows of 8 numbers from 0 to 31"):
        ready[0].infer(images=inputs(1)["images"], codes=codes)


@pytest.mark.parametrize("off", ["latent", "fast"])
def test_a_system_without_a_head_acts_and_says_nothing_of_it(off: str, make: Any, tmp_path: Path) -> None:
    system, _ = prepared(make(system={off: False}), tmp_path)
    result = system.eval().infer(**inputs(), discrete=True)
    assert set(result) == {"actions", "codes", "fast", "fast_actions"} - (
        {"codes"} if off == "latent" else {"fast", "fast_actions"}
    )
    if off == "latent":
        with pytest.raises(DataError, match="without latent actions"):
            system.infer(**inputs(), codes=np.zeros((2, 8)))


def test_nan_actions_make_bad_samples(make: Any, tmp_path: Path) -> None:
    import shutil

    shutil.rmtree(tmp_path / "data")
    write_data(tmp_path / "data", nan_row=4)
    system, sources = prepared(make(), tmp_path)
    with pytest.raises(BadSample, match="NaN"):
        system.check(samples(sources, (3,), ())[0])


def test_other_statistics_are_refused(ready: Any, tmp_path: Path, make: Any) -> None:
    import shutil

    system, _ = ready
    shutil.rmtree(tmp_path / "data")
    write_data(tmp_path / "data", scale=2.0)
    with pytest.raises(DataError, match="another data set"):
        system.start_stage("policy", open_sources(make().sources, tmp_path), tmp_path)


def test_the_latent_action_model_trains_alone(make: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stage of its own"):
        train(make(stages=[{**STAGES[1], "train": ["vlm", "lam"]}]), root=tmp_path)


def test_published_files_make_the_round_trip(ready: Any, tmp_path: Path, make: Any) -> None:
    system, _ = ready
    system.save_published(tmp_path / "out" / "policy.pt")
    other = IFlyBotVLA(make().system)
    assert other.load_published(tmp_path / "out" / "policy.pt") == {"missing": [], "unexpected": [], "mismatched": []}
    other.load_published(tmp_path / "out" / "policy-lam.pt")
    ours, theirs = system.state_dict(), other.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if "usage" not in name)


def test_a_window_of_another_length_names_the_remedy(make: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"system\.chunk is 5"):
        prepared(make(system={"chunk": 5}), tmp_path)


def test_the_published_size_builds_on_the_meta_device() -> None:
    with torch.device("meta"):
        system = IFlyBotVLA(IFlyBotVLA.Config(type="iflybot_vla", size="full", image_size=448))
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in system.parts().items()}
    assert sizes["expert"] == 238_424_084
