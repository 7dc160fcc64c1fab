"""Helpers of the core's tests: small configurations and runs of them in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixtura.config import RunConfig, load
from mixtura.plugins import registry
from tests.core.config_tools import MINI

TOY: dict[str, Any] = {
    "system": {"type": "toy", "hidden": 16, "dropout": 0.1, "noise": 0.1},
    "run": {"name": "toy", "seed": 3},
    "sources": {
        "curves": {"type": "toy", "size": 50},
        "others": {"type": "toy", "size": 30, "frequency": 2.0, "signed": False},
    },
    "data": {"global_batch": 16, "workers": 0},
    "optim": {"lr": 0.01},
    "log": {"every": 5, "to": ["jsonl"]},
    "stages": [{"name": "only", "steps": 12, "mixture": {"curves": 3, "others": 1}}],
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Changes on top of a nested mapping; lists are replaced."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict) and "type" not in value
        result[key] = merged(result[key], value) if both else value
    return result


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., RunConfig]:
    """Writes a toy configuration with changes to `tmp_path`/toy.yaml and loads it."""

    def make(**changes: Any) -> RunConfig:
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump(merged(TOY, changes)))
        return load(path).config

    return make


def in_process(code: str, cwd: Path, *args: str, wait: bool = True, **env: str) -> Any:
    """Run Python code in a process of its own; fails with its output unless it ends well."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **env}
    command = [sys.executable, "-c", code, *args]
    if not wait:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=cwd, env=settings, process_group=0, **quiet)  # a test may signal the whole group
    done = subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def process() -> Callable[..., Any]:
    """`in_process` as a fixture."""
    return in_process


@pytest.fixture(scope="module")
def mini_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The plugin of `config_tools` can be found."""
    folder = tmp_path_factory.mktemp("mini")
    (folder / "mini_config_plugin.py").write_text(MINI)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("MIXTURA_PLUGINS", "mini_config_plugin:plugin")
        registry.cache_clear()
        yield
    registry.cache_clear()


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in a folder of its own."""
    monkeypatch.chdir(tmp_path)
