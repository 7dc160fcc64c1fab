"""A run that was killed and resumed is bit for bit the run that was never stopped."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mixtura.errors import CheckpointError, RunError
from mixtura.trainer import train

TIMES = ("time", "samples_per_s", "step_s", "wait_share", "memory_mb", "seconds")
STAGES = [
    {"name": "one", "steps": 60, "mixture": {"curves": 3, "others": 1}},
    {
        "name": "two",
        "steps": 60,
        "train": ["head"],
        "mixture": {"curves": 1, "others": 1},
        "schedule": {"type": "cosine", "warmup": 3},
    },
]
WORKER = """
import sys
from pathlib import Path
from mixtura.config import load
from mixtura.trainer import train
config = load("toy.yaml", sys.argv[2:]).config
resume = sys.argv[1] == "resume" and Path(config.run.dir, "config.yaml").exists()
sys.exit(train(config, resume=resume, root=Path.cwd()))
"""


def records(run: Path) -> list[dict[str, Any]]:
    """Log lines without anything that depends on the clock."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def assert_equal_runs(a: Path, b: Path) -> None:
    """Final weights, averages, optimizer state, logged losses and sample ids are the same."""
    for name in ("model", "ema", "optim"):
        left, right = load_file(a / "latest" / f"{name}.safetensors"), load_file(b / "latest" / f"{name}.safetensors")
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left), name
    assert records(a) == records(b)
    assert (a / "samples.jsonl").read_text() == (b / "samples.jsonl").read_text()


def test_a_run_killed_ten_times_equals_one_never_stopped(
    toy: Callable[..., Any], process: Callable[..., Any], tmp_path: Path
) -> None:
    toy(
        stages=STAGES,
        train={"ema": {"decay": 0.99}},
        data={"workers": 2},
        checkpoint={"every": 7},
        evaluate=[{"type": "heldout_loss", "every": 25}],
    )
    process(WORKER, tmp_path, "new", "run.name=whole")
    chance, kills = random.Random(5), 0
    progress = tmp_path / "runs/killed/samples.jsonl"
    for target in [6 + 11 * kill + chance.randrange(6) for kill in range(10)]:
        before = progress.stat().st_mtime_ns if progress.exists() else None
        child = process(WORKER, tmp_path, "resume", "run.name=killed", wait=False)
        while child.poll() is None:
            moved = progress.exists() and progress.stat().st_mtime_ns != before
            if moved and progress.read_bytes().count(b"\n") >= target:
                time.sleep(chance.uniform(0, 0.02))
                os.kill(child.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        kills += child.wait() == -signal.SIGKILL
    assert kills == 10
    process(WORKER, tmp_path, "resume", "run.name=killed")
    assert_equal_runs(tmp_path / "runs/whole", tmp_path / "runs/killed")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_exactly(
    signum: int, toy: Callable[..., Any], process: Callable[..., Any], tmp_path: Path
) -> None:
    toy(stages=[{**STAGES[0], "steps": 400}], train={"ema": {"decay": 0.99}})
    process(WORKER, tmp_path, "new", "run.name=whole")
    child = process(WORKER, tmp_path, "resume", "run.name=stopped", wait=False)
    progress = tmp_path / "runs/stopped/samples.jsonl"
    while not (progress.exists() and progress.read_text().count("\n") > 5):
        time.sleep(0.01)
    child.send_signal(signum)
    assert child.wait(60) == 128 + signum
    process(WORKER, tmp_path, "resume", "run.name=stopped")
    assert_equal_runs(tmp_path / "runs/whole", tmp_path / "runs/stopped")


def test_a_signal_to_all_processes_of_a_run_saves_too(
    toy: Callable[..., Any], process: Callable[..., Any], tmp_path: Path
) -> None:
    toy(stages=[{**STAGES[0], "steps": 400}], data={"workers": 2}, train={"ema": {"decay": 0.99}})
    process(WORKER, tmp_path, "new", "run.name=whole")
    child = process(WORKER, tmp_path, "resume", "run.name=stopped", wait=False)
    progress = tmp_path / "runs/stopped/samples.jsonl"
    while not (progress.exists() and progress.read_text().count("\n") > 5):
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGTERM)
    assert child.wait(60) == 128 + signal.SIGTERM
    process(WORKER, tmp_path, "resume", "run.name=stopped")
    assert_equal_runs(tmp_path / "runs/whole", tmp_path / "runs/stopped")


def test_two_resumes_in_one_epoch(toy: Callable[..., Any], process: Callable[..., Any], tmp_path: Path) -> None:
    toy(
        sources={"curves": {"type": "toy", "size": 5000}, "others": {"type": "toy", "size": 5000}},
        train={"ema": {"decay": 0.99}},
        checkpoint={"every": 5},
    )
    stop = WORKER.replace(
        "sys.exit(train",
        "import os, mixtura.trainer as t\nlimit = int(os.environ['LIMIT'])\nstep = t.Trainer.step\n"
        "def counted(self, data):\n    step(self, data)\n    if self.step_now == limit: os._exit(9)\n"
        "t.Trainer.step = counted\nsys.exit(train",
    )
    process(WORKER, tmp_path, "new", "run.name=whole", "stages.0.steps=20")
    for limit in ("8", "13"):
        assert process(stop, tmp_path, "resume", "run.name=parts", "stages.0.steps=20", wait=False, LIMIT=limit).wait() == 9
    process(WORKER, tmp_path, "resume", "run.name=parts", "stages.0.steps=20")
    assert_equal_runs(tmp_path / "runs/whole", tmp_path / "runs/parts")


def test_a_second_run_in_the_same_folder_is_refused(toy: Callable[..., Any], tmp_path: Path) -> None:
    train(toy(), root=tmp_path)
    with pytest.raises(RunError, match="--resume"):
        train(toy(), root=tmp_path)


def test_a_run_in_use_is_refused(toy: Callable[..., Any], process: Callable[..., Any], tmp_path: Path) -> None:
    toy(stages=[{**STAGES[0], "steps": 100000}])
    child = process(WORKER, tmp_path, "new", wait=False)
    while not (tmp_path / "runs/toy/samples.jsonl").exists():
        time.sleep(0.02)
    with pytest.raises(RunError, match="in use by another process"):
        train(toy(stages=[{**STAGES[0], "steps": 100000}]), resume=True, root=tmp_path)
    child.kill()


def test_an_interrupted_or_damaged_save_is_ignored(toy: Callable[..., Any], tmp_path: Path) -> None:
    config = toy(checkpoint={"every": 5})
    train(config, root=tmp_path)
    run = tmp_path / "runs/toy"
    (run / "step-000012" / "model.safetensors").write_bytes(b"cut")
    (run / "step-000099.tmp").mkdir()
    train(config, resume=True, root=tmp_path)
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["kind"] == "done"


def test_changed_sources_are_refused_by_name(toy: Callable[..., Any], tmp_path: Path) -> None:
    train(toy(checkpoint={"every": 5}), root=tmp_path)
    changed = toy(sources={"curves": {"type": "toy", "size": 51}})
    with pytest.raises(CheckpointError, match="curves: its content changed"):
        train(changed, resume=True, root=tmp_path)


def test_finished_stages_keep_their_length_and_later_ones_may_change(toy: Callable[..., Any], tmp_path: Path) -> None:
    one, two = ({**stage, "steps": 6} for stage in STAGES)
    train(toy(stages=[one, two]), root=tmp_path)
    for stages, found in (([{**one, "steps": 5}, two], "'one' with 5"), ([{**one, "name": "1"}, two], "'1' with 6")):
        with pytest.raises(CheckpointError, match=f"stages.0 is done as 'one' with 6 steps, and now it is {found}; give it back"):
            train(toy(stages=stages), resume=True, root=tmp_path)
    assert train(toy(stages=[one, {**two, "steps": 8}]), resume=True, root=tmp_path) == 0
    assert (tmp_path / "runs/toy/step-000014").exists()


def test_a_full_disk_leaves_the_last_checkpoint(toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from mixtura import checkpoint

    real, calls = checkpoint.save_file, []

    def full(*args: Any) -> None:
        calls.append(1)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args)

    monkeypatch.setattr(checkpoint, "save_file", full)
    config = toy(checkpoint={"every": 4})
    with pytest.raises(CheckpointError, match="the disk is full.*step-000004"):
        train(config, root=tmp_path)
    monkeypatch.undo()
    assert not list((tmp_path / "runs/toy").glob("*.tmp"))
    assert train(config, resume=True, root=tmp_path) == 0
