"""The trainer: splitting, ranks, players, guards, signals for mixers, averages."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mixtura.errors import ConfigError, RunError
from mixtura.trainer import Trainer, train

CAPTURE = """
import os, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from mixtura.config import load
from mixtura import trainer as t, sharding
config = load("toy.yaml", sys.argv[2:]).config
step = t.Trainer._apply
def keep(self, player, data):
    if self.step_now == 0 and self.rank == 0:
        grads = {n: p.grad.clone() for n, p in self.system.named_parameters() if p.grad is not None}
        save_file(grads, sys.argv[1])
    return step(self, player, data)
t.Trainer._apply = keep
code = t.train(config, root=Path.cwd())
sys.exit(code)
"""
RAGGED = {
    "system": {"type": "toy", "hidden": 16, "noise": 0.1},
    "stages": [{"name": "only", "steps": 2, "mixture": {"curves": 1, "others": 1}}],
}


def gradients(process: Callable[..., Any], folder: Path, name: str, *settings: str, ranks: int = 1) -> dict[str, torch.Tensor]:
    """Gradients of the first step."""
    out = folder / f"{name}.safetensors"
    if ranks == 1:
        process(CAPTURE, folder, str(out), f"run.name={name}", *settings)
    else:
        spawn(process, folder, CAPTURE, ranks, str(out), f"run.name={name}", *settings)
    return load_file(out)


def spawn(process: Callable[..., Any], folder: Path, code: str, ranks: int, *args: str) -> None:
    """Run code in several processes that train together over gloo."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks), "ACCELERATE_USE_CPU": "true"}
    children = [process(code, folder, *args, wait=False, RANK=str(r), LOCAL_RANK=str(r), **shared) for r in range(ranks)]
    assert [child.wait(200) for child in children] == [0] * ranks


def test_splitting_a_step_changes_no_gradient(toy: Callable[..., Any], process: Callable[..., Any], tmp_path: Path) -> None:
    toy(**RAGGED)
    whole = gradients(process, tmp_path, "whole")
    split = gradients(process, tmp_path, "split", "data.micro_batch=4")
    apart = gradients(process, tmp_path, "apart", "data.micro_batch=4", "data.batching=by_source")
    ranks = gradients(process, tmp_path, "ranks", ranks=2)
    both = gradients(process, tmp_path, "both", "data.batching=by_source", "data.micro_batch=4", ranks=2)
    for other in (split, apart, ranks, both):
        assert whole.keys() == other.keys()
        for name in whole:
            torch.testing.assert_close(other[name], whole[name], atol=1e-6, rtol=1e-5)


def test_sample_ids_are_the_same_for_any_workers_and_ranks(
    toy: Callable[..., Any], process: Callable[..., Any], tmp_path: Path
) -> None:
    toy(**RAGGED)
    for workers in (0, 1, 2):
        process(CAPTURE, tmp_path, "x.safetensors", f"run.name=w{workers}", f"data.workers={workers}")
    spawn(process, tmp_path, CAPTURE, 2, "x.safetensors", "run.name=r2", "data.workers=1")
    ids = [(tmp_path / "runs" / name / "samples.jsonl").read_text() for name in ("w0", "w1", "w2", "r2")]
    assert len(set(ids)) == 1


def test_two_players_train_on_the_same_batches(toy: Callable[..., Any], tmp_path: Path) -> None:
    config = toy(system={"type": "toy", "hidden": 16, "adversarial": True}, optim={"players": {"discriminator": {"lr": 0.001}}})
    assert train(config, root=tmp_path) == 0
    lines = [json.loads(line) for line in (tmp_path / "runs/toy/log.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "train"][-1]
    assert {"loss/value", "loss/fool", "loss/judge"} <= last.keys()


def test_only_the_named_parts_change(toy: Callable[..., Any], tmp_path: Path) -> None:
    config = toy(
        stages=[
            {"name": "a", "steps": 3, "mixture": {"curves": 1}},
            {"name": "b", "steps": 3, "train": ["head"], "mixture": {"curves": 1}},
        ],
        checkpoint={"keep": 5},
    )
    train(config, root=tmp_path)
    before, after = (load_file(tmp_path / "runs/toy" / step / "model.safetensors") for step in ("step-000003", "step-000006"))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head"}


ADVERSARIAL = {"type": "toy", "hidden": 16, "adversarial": True}


def test_players_share_what_they_keep_of_a_micro_batch_for_one_step(
    toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixtura.testing import ToySystem

    real, seen = ToySystem.losses, []

    def losses(self: Any, batch: Any, ctx: Any) -> Any:
        seen.append((ctx.step, ctx.player, ctx.noise.places[0], dict(ctx.kept)))
        ctx.kept[ctx.player] = (ctx.step, ctx.noise.places[0])
        return real(self, batch, ctx)

    monkeypatch.setattr(ToySystem, "losses", losses)
    train(toy(system=ADVERSARIAL, data={"micro_batch": 8}), root=tmp_path)
    assert len(seen) == 12 * 2 * 2
    for step, player, place, kept in seen:
        assert kept == ({} if player == "generator" else {"generator": (step, place)})


def test_a_system_learns_which_terms_weigh_nothing(
    toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixtura.testing import ToySystem

    real, seen = ToySystem.losses, []

    def losses(self: Any, batch: Any, ctx: Any) -> Any:
        wanted = {term for term in ("value", "sign") if ctx.wants(term)}
        seen.append((ctx.stage, wanted, ctx.wants("value", "another player")))
        return {name: term for name, term in real(self, batch, ctx).items() if name in wanted}

    monkeypatch.setattr(ToySystem, "losses", losses)
    weights = {"both": {"value": 2.0}, "one": {"sign": 0.0}}
    stages = [{"name": name, "steps": 2, "mixture": {"curves": 1}, "loss": loss} for name, loss in weights.items()]
    train(toy(stages=stages), root=tmp_path)
    assert seen == [("both", {"value", "sign"}, False)] * 2 + [("one", {"value"}, False)] * 2


def test_a_step_starts_once_however_it_is_split(toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mixtura.testing import ToySystem

    started: list[int] = []
    monkeypatch.setattr(ToySystem, "start_step", lambda self, step: started.append(step))
    train(toy(system=ADVERSARIAL, data={"micro_batch": 4}), root=tmp_path)
    assert started == list(range(12))


def test_groups_of_parameters_may_belong_to_one_player_or_stage(toy: Callable[..., Any], tmp_path: Path) -> None:
    stages = [{"name": name, "steps": 2, "mixture": {"curves": 1}} for name in ("both", "judge")]
    stages[1]["train"] = ["critic"]
    groups = [{"match": "critic.*", "lr_scale": 0.0}, {"match": "body.*", "weight_decay": 0.1}]
    assert train(toy(system=ADVERSARIAL, stages=stages, optim={"groups": groups}, checkpoint={"keep": 5}), root=tmp_path) == 0
    before, after = (load_file(tmp_path / "runs/toy" / step / "model.safetensors") for step in ("step-000002", "step-000004"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    wrong = toy(run={"name": "wrong"}, system=ADVERSARIAL, optim={"groups": [{"match": "hat.*"}]})
    with pytest.raises(ConfigError, match="no trained parameter matches 'hat"):
        train(wrong, root=tmp_path)


def test_a_stage_may_leave_a_player_without_anything_to_train(toy: Callable[..., Any], tmp_path: Path) -> None:
    stages = [
        {"name": "warm", "steps": 3, "train": ["body", "head"], "mixture": {"curves": 1}},
        {"name": "both", "steps": 3, "mixture": {"curves": 1}},
        {"name": "judge", "steps": 3, "train": ["critic"], "mixture": {"curves": 1}},
    ]
    optim = {"lr": 0.01, "players": {"discriminator": {"lr": 0.001}}}
    assert train(toy(system=ADVERSARIAL, stages=stages, optim=optim, checkpoint={"keep": 5}), root=tmp_path) == 0
    states = [load_file(tmp_path / "runs/toy" / f"step-{step:06d}" / "model.safetensors") for step in (3, 6, 9)]
    changed = [
        {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        for before, after in pairwise(states)
    ]
    assert changed == [{"body", "head", "critic"}, {"critic"}]


def test_unknown_parts_and_losses_are_named(toy: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="parts of toy are body, head"):
        train(toy(stages=[{"name": "a", "steps": 3, "train": ["hat"], "mixture": {"curves": 1}}]), root=tmp_path)
    with pytest.raises(ConfigError, match="loss names 'vallue'"):
        train(
            toy(run={"name": "other"}, stages=[{"name": "a", "steps": 3, "loss": {"vallue": 1}, "mixture": {"curves": 1}}]),
            root=tmp_path,
        )
    off = toy(run={"name": "off"}, stages=[{"name": "a", "steps": 3, "loss": {"vallue": 0}, "mixture": {"curves": 1}}])
    assert train(off, root=tmp_path) == 0


def test_a_gradient_that_is_not_finite_stops_or_is_left_out(
    toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixtura.testing import ToySystem

    real = ToySystem.losses

    def broken(self: Any, batch: Any, ctx: Any) -> Any:
        terms = real(self, batch, ctx)
        if ctx.step == 3:
            value = terms["value"]
            terms["value"] = type(value)(value.total * float("nan"), value.count, value.weight, value.player, value.per_sample)
        return terms

    monkeypatch.setattr(ToySystem, "losses", broken)
    with pytest.raises(RunError, match="step 4.*not finite.*curves/"):
        train(toy(), root=tmp_path)
    assert train(toy(run={"name": "skips"}, train={"on_nonfinite": "skip"}), root=tmp_path) == 0
    weights = load_file(tmp_path / "runs/skips/latest/model.safetensors")
    assert all(torch.isfinite(w).all() for w in weights.values())


def test_bad_samples_are_replaced_counted_and_stop_the_run_past_the_share(toy: Callable[..., Any], tmp_path: Path) -> None:
    bad = {"curves": {"type": "toy", "size": 50, "bad": [3]}}
    assert train(toy(sources=bad, data={"max_bad": 0.1}), root=tmp_path) == 0
    lines = [json.loads(line) for line in (tmp_path / "runs/toy/log.jsonl").read_text().splitlines()]
    assert any(line["kind"] == "bad" and line["item"] == 3 for line in lines)
    with pytest.raises(RunError, match="max_bad allows a share of 0.001"):
        train(toy(run={"name": "strict"}, sources={"curves": {"type": "toy", "size": 50, "bad": list(range(20))}}), root=tmp_path)


def test_a_source_without_any_readable_sample_is_named(toy: Callable[..., Any], tmp_path: Path) -> None:
    from mixtura.errors import DataError

    with pytest.raises(DataError, match="source 'curves': .* samples in a row"):
        train(toy(sources={"curves": {"type": "toy", "size": 50, "bad": list(range(50))}}), root=tmp_path)


def test_overfitting_uses_the_same_samples_again(toy: Callable[..., Any], tmp_path: Path) -> None:
    first = toy(
        stages=[{"name": "a", "steps": 150, "mixture": {"curves": 1}}], system={"type": "toy", "hidden": 64}, optim={"lr": 0.01}
    )
    train(first, root=tmp_path, overfit=1)
    losses = [json.loads(x)["loss"] for x in (tmp_path / "runs/toy/log.jsonl").read_text().splitlines() if '"train"' in x]
    assert losses[-1] < 0.4 * losses[0]


def test_initial_weights_come_from_another_run(toy: Callable[..., Any], tmp_path: Path) -> None:
    train(toy(), root=tmp_path)
    second = toy(run={"name": "second"}, init_from="runs/toy", optim={"lr": 1e-12})
    train(second, root=tmp_path)
    a, b = (load_file(tmp_path / "runs" / name / "latest/model.safetensors") for name in ("toy", "second"))
    assert all(torch.allclose(a[n], b[n], atol=1e-6) for n in a)


def test_the_average_follows_its_formula(toy: Callable[..., Any], tmp_path: Path) -> None:
    from mixtura.ema import Ema
    from mixtura.testing import ToyConfig, ToySystem

    system = ToySystem(ToyConfig(type="toy"))
    ema, name = Ema(system, 0.9), "head.weight"
    expected = system.head.weight.detach().clone()
    for n in range(1, 6):
        with torch.no_grad():
            system.head.weight += 1
        ema.update(system, n - 1)
        d = min(0.9, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * system.head.weight.detach()
    torch.testing.assert_close(ema.shadow[name], expected)
    with ema.applied(system):
        torch.testing.assert_close(system.head.weight.detach(), expected)
    assert not torch.allclose(system.head.weight, expected)


RECORDING = """
import numpy as np
from mixtura.data.mixers.base import *
from mixtura.plugins import Plugin
seen = []
class Recording(Mixer):
    needs = Needs.TRAIN_LOSS | Needs.HELDOUT_LOSS | Needs.GRAD_SKETCH | Needs.TARGET_GRAD | Needs.PROBE_BURST
    def plan(self, step):
        burst = step in (4, 5)
        weights = np.array([1.0, 0.0]) if burst else self.prior
        kinds = Needs.HELDOUT_LOSS if step == 5 else Needs.HELDOUT_LOSS | Needs.GRAD_SKETCH | Needs.TARGET_GRAD
        probe = ProbeRequest(kinds, n_batches=2, batch_size=4) if step in (2, 5) else None
        return MixPlan(weights, np.array([1.0, 2.0]), probe)
    def observe(self, observation):
        seen.append(observation)
    def log(self):
        return {"observed": float(len(seen))}
plugin = Plugin(name="recording", mixers={"recording": "recording_plugin:Recording"})
"""


def test_a_recording_mixer_gets_every_signal(toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from mixtura import plugins

    (tmp_path / "recording_plugin.py").write_text(RECORDING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MIXTURA_PLUGINS", "recording_plugin:plugin")
    plugins.registry.cache_clear()
    stage = {"name": "only", "steps": 12, "mixture": {"curves": 3, "others": 1}, "mixer": {"type": "recording", "lag": 2}}
    assert train(toy(stages=[stage], data={"heldout": 0.2}), root=tmp_path) == 0
    seen = sys.modules["recording_plugin"].seen
    plugins.registry.cache_clear()
    assert [o.step for o in seen] == list(range(9))
    assert all(np.isfinite(o.train_loss[0]) and o.count.sum() == 16 for o in seen)
    assert seen[2].heldout.shape == (2,)
    assert seen[2].sketch.shape == (2, 4096)
    assert seen[2].target_sketch.shape == (2, 4096)
    assert seen[5].heldout is not None
    assert seen[5].sketch is None
    assert seen[4].count.tolist() == [16, 0]
    last = [json.loads(x) for x in (tmp_path / "runs/toy/log.jsonl").read_text().splitlines() if '"train"' in x][-1]
    # Held out are 10 and 6 items, of which a probe takes up to 8; asked for three times, and 2 × 8 training samples once.
    assert last["extra_samples"] == 3 * (8 + 6) + 2 * 8
    assert last["mixer/observed"] == 9


def test_a_mixer_that_needs_what_nobody_measures_is_refused(toy: Callable[..., Any], tmp_path: Path) -> None:
    from mixtura.data.mixers.base import Needs
    from mixtura.probes import check_needs

    with pytest.raises(ConfigError, match=r"data\.heldout"):
        check_needs(Needs.HELDOUT_LOSS, "x", heldout=False)
    with pytest.raises(ConfigError, match="REF_LOSS"):
        check_needs(Needs.REF_LOSS, "x", heldout=True)


def test_sketches_keep_inner_products() -> None:
    from mixtura.probes import sketch

    numbers = torch.Generator().manual_seed(0)
    a = [(f"w{i}", torch.randn(300, generator=numbers)) for i in range(5)]
    b = [(n, t + 0.3 * torch.randn(300, generator=numbers)) for n, t in a]
    exact = sum(float(x @ y) for (_, x), (_, y) in zip(a, b, strict=True))
    assert float(sketch(a) @ sketch(b)) == pytest.approx(exact, rel=0.05)


def test_probes_leave_training_as_it_was(toy: Callable[..., Any], tmp_path: Path) -> None:
    """The evaluator runs between steps and changes no weight."""
    train(toy(run={"name": "plain"}), root=tmp_path)
    train(toy(run={"name": "measured"}, evaluate=[{"type": "heldout_loss", "every": 3, "at_start": True}]), root=tmp_path)
    a, b = (load_file(tmp_path / "runs" / name / "latest/model.safetensors") for name in ("plain", "measured"))
    assert all(torch.equal(a[n], b[n]) for n in a)


def test_gradient_checkpointing_and_compile_free_runs_agree(toy: Callable[..., Any], tmp_path: Path) -> None:
    assert train(toy(train={"gradient_checkpointing": True}), root=tmp_path) == 0
    assert Trainer.step.__doc__
