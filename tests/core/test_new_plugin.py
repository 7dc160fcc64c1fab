"""`mixtura new plugin`: what it writes is found, trains, passes its own test, and breaks nothing when it breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixtura.config import load
from mixtura.errors import MixturaError
from mixtura.plugins import registry
from mixtura.scaffold import FILES, write_plugin

CORE = Path(__file__).parents[2] / "platform"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh plugin `wave_maker`, named by the environment variable."""
    registry.cache_clear()
    folder = write_plugin("wave_maker", tmp_path)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("MIXTURA_PLUGINS", "mixtura_wave_maker:plugin")
    for name in [name for name in sys.modules if name.startswith("mixtura_wave_maker")]:
        monkeypatch.delitem(sys.modules, name)
    registry.cache_clear()
    return folder


def python(plugin: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own that knows the core and the plugin."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CORE), str(plugin)]), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, cwd=plugin, check=False)


def test_every_mark_is_filled_in(plugin: Path) -> None:
    files = [file for file in plugin.rglob("*") if file.is_file()]
    assert len(files) == len(FILES)
    assert not [
        file for file in files if "@" in file.read_text().replace("@pytest", "").replace("@torch", "").replace("@property", "")
    ]


def test_a_new_plugin_is_found(plugin: Path) -> None:
    assert registry().broken() == []
    assert registry().get("system", "wave_maker").__name__ == "WaveMaker"
    assert load(plugin / "configs" / "quickstart.yaml").config.system.window == 16


def test_a_new_plugin_trains_on_both_sources(plugin: Path, tmp_path: Path) -> None:
    from mixtura.trainer import train

    config = load(
        plugin / "configs" / "quickstart.yaml", ["stages.0.steps=30", "schedule.warmup=3", "log={every: 5, to: [jsonl]}"]
    ).config
    assert train(config, root=tmp_path) == 0
    lines = [json.loads(line) for line in (tmp_path / config.run.dir / "log.jsonl").read_text().splitlines()]
    losses = [line for line in lines if line["kind"] == "train"]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert {"loss/next/smooth", "loss/next/square"} <= set(losses[-1])


def test_a_new_plugin_passes_its_own_test(plugin: Path) -> None:
    done = python(plugin, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 passed" in done.stdout or "3 passed, 1 skipped" in done.stdout  # the demo needs mixtura-demos


def test_listing_it_is_quick_and_light(plugin: Path) -> None:
    code = "import sys; from mixtura.cli import main; main(['plugins']); print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = python(plugin, "-c", code)
        seconds.append(time.perf_counter() - began)
    assert "wave_maker" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    ("file", "text"),
    [("__init__.py", "import nothing_of_this_name"), ("__init__.py", "plugin = 3"), ("__init__.py", "raise SystemExit(1)")],
)
def test_breaking_it_sets_only_it_aside(plugin: Path, file: str, text: str) -> None:
    (plugin / "mixtura_wave_maker" / file).write_text(text + "\n")
    done = python(plugin, "-m", "mixtura", "plugins")
    assert done.returncode == 0
    assert "BROKEN" in done.stdout
    assert "systems: toy" in done.stdout
    shown = python(plugin, "-m", "mixtura", "config", "show", "configs/quickstart.yaml")
    assert shown.returncode == 2
    assert "Traceback" not in shown.stderr
    assert "no system is called 'wave_maker'" in shown.stderr


def test_a_system_that_cannot_be_imported_is_told_with_its_place(plugin: Path) -> None:
    (plugin / "mixtura_wave_maker" / "system.py").write_text("import nothing_of_this_name\n")
    done = python(plugin, "-m", "mixtura", "config", "show", "configs/quickstart.yaml")
    assert done.returncode == 2
    assert "configs/quickstart.yaml:2: system.type:" in done.stderr
    assert "No module named 'nothing_of_this_name'" in done.stderr


def test_nothing_is_overwritten(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIXTURA_PLUGINS")
    registry.cache_clear()
    with pytest.raises(MixturaError, match="exists already"):
        write_plugin("wave_maker", tmp_path)


@pytest.mark.parametrize("name", ["Bad", "a-b", "1a", "class", "a__b", "../x", ""])
def test_a_name_that_is_no_module_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MixturaError, match="can't be called"):
        write_plugin(name, tmp_path)
