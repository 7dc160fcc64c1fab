"""The command: verbs, exit codes, messages without tracebacks, settings anywhere among the options."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from mixtura.cli import build_parser, main
from mixtura.config import load
from mixtura.plugins import registry

TOY = """
system: {type: toy, hidden: 8}
run: {name: toy-run, seed: 3}
sources:
  slow: {type: toy, size: 40}
  fast: {type: toy, size: 40, frequency: 3.0}
data: {global_batch: 8, workers: 0}
log: {every: 2, to: [jsonl]}
train: {threads: 1}
stages:
  - {name: only, steps: 4, mixture: {slow: 1, fast: 1}}
"""
MAKER = """
from pathlib import Path
from pydantic import BaseModel, ConfigDict
from mixtura.plugins import Plugin

class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str
    path: str = "made.txt"

class Maker:
    Config = Config
    def __init__(self, config, root, seed):
        self.file, self.seed = root / config.path, seed
    def done(self):
        return self.file.exists()
    def run(self, say):
        say("making")
        self.file.write_text(str(self.seed))
        return [self.file]

demos = {"page": "mini_maker:build"}
plugin = Plugin(name="maker", generators={"maker": "mini_maker:Maker"}, demos=demos)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a toy configuration and a plugin with a generator and a demo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MIXTURA_PLUGINS", "mini_maker:plugin")
    monkeypatch.delitem(sys.modules, "mini_maker", raising=False)
    (tmp_path / "mini_maker.py").write_text(MAKER)
    (tmp_path / "toy.yaml").write_text(TOY)
    (tmp_path / "toy.json").write_text("{}")
    registry.cache_clear()


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, output, messages."""
    try:
        code = main(list(words))
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = ["train", "eval", "infer", "demo", "export", "report", "data", "config", "plugins", "new", "bench", "doctor"]
    verbs += [f"data {a}" for a in ("check", "preview", "convert", "index", "synth")] + [
        f"config {a}" for a in ("show", "schema", "diff", "new")
    ]
    for verb in verbs:
        code, out, _ = call(capsys, *verb.split(), "--help")
        assert code == 0
        assert f"mixtura {verb}" in out


def test_every_verb_leads_to_a_function() -> None:
    import importlib

    parser = build_parser()
    lines = [
        "train c",
        "eval c",
        "infer r --input a --output b",
        "demo",
        "export r o",
        "report r",
        "data check c",
        "data preview c",
    ]
    lines += [
        "data convert a b --to webdataset",
        "data index a",
        "data synth c",
        "config show c",
        "config schema",
        "config diff a b",
    ]
    lines += ["config new toy", "plugins", "new plugin x", "bench", "doctor"]
    for line in lines:
        module, _, function = parser.parse_args(line.split()).run.partition(":")
        assert callable(getattr(importlib.import_module(f"mixtura.verbs.{module}"), function))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian toy.yaml", "no verb 'trian'. Did you mean 'train'?"),
        ("train", "the following arguments are required: CONFIG"),
        ("train nothing.yaml", "nothing.yaml: can't read the configuration"),
        ("train toy.yaml stray", "'stray' is not understood by this verb; settings are written a.b=v"),
        ("train toy.yaml --ovrfit 3", "'--ovrfit' is not understood"),
        ("doctor a.b=3", "'a.b=3' is not understood by this verb"),
        ("train toy.yaml --overfit=-1", "--overfit must be at least 1"),
        ("train toy.yaml --root nowhere", "--root nowhere is not a folder"),
        ("config show toy.yaml optim.lrr=3", "command line 'optim.lrr=3': optim.lrr: no such setting. Did you mean 'lr'?"),
        ("config schema toyy", "nothing is called 'toyy'"),
        ("plugins nobody", "no plugin is called 'nobody'"),
        ("infer nowhere --input a.json --output b.json", "RUN: 'nowhere' does not exist"),
        ("infer toy.yaml --input toy.yaml --output out", "toy.yaml: neither a checkpoint"),
        ("infer toy.yaml --input toy.yaml --output toy.yaml", "--output toy.yaml is a file"),
        ("infer toy.yaml --input a.json --input toy.yaml --output b.json", "--input: 'a.json' does not exist"),
        ("infer toy.yaml --input toy.json --input toy.yaml --output b.json", "must be the only one"),
        ("infer toy.yaml --input toy.json --output out", "--output out: expected a .json or .npz file"),
        ("infer toy.yaml --input toy.json --output b.json steps=3", "'steps=3': with a .json or .npz file settings are inputs"),
        ("infer toy.yaml --input toy.yaml --output out a=1 a.b=2", "'a' is a value already"),
        ("report nowhere", "RUN: 'nowhere' does not exist"),
        ("new plugin Bad-Name", "a plugin can't be called 'Bad-Name'"),
        ("new plugin maker", "'maker' is taken by plugin 'maker'"),
    ],
)
def test_a_user_error_is_one_message_and_exit_code_2(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, message = call(capsys, *words.split())
    assert code == 2
    assert expected in message
    assert "Traceback" not in message


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, message = call(capsys, "config", "show", "nothing.yaml", "--debug")
    assert code == 2
    assert "Traceback" in message


@pytest.fixture
def demos_served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Stands for mixtura-demos: notes what it is asked to serve."""
    asked: list[tuple[object, ...]] = []
    package, server = types.ModuleType("mixtura_demos"), types.ModuleType("mixtura_demos.serve")
    server.serve = lambda *words: asked.append(words[:4])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mixtura_demos", package)
    monkeypatch.setitem(sys.modules, "mixtura_demos.serve", server)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return asked


def test_demos_without_their_package_tell_the_remedy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for words in (["demo"], ["demo", "page"]):
        code, _, message = call(capsys, *words)
        assert code == 2
        assert "pip install mixtura-demos" in message


def test_demos_listen_to_this_machine_only(
    capsys: pytest.CaptureFixture[str], demos_served: list[tuple[object, ...]], tmp_path: Path
) -> None:
    assert call(capsys, "demo")[0] == 0
    assert call(capsys, "demo", "page", "--run", str(tmp_path), "--port", "0")[0] == 0
    assert demos_served == [(None, None, "127.0.0.1", None), ("page", tmp_path, "127.0.0.1", 0)]


def test_demos_are_listed_without_being_opened(
    capsys: pytest.CaptureFixture[str], demos_served: list[tuple[object, ...]]
) -> None:
    code, out, _ = call(capsys, "demo", "--list")
    assert (code, demos_served) == (0, [])
    assert "page" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [("demo page --run nowhere", "--run nowhere is no folder"), ("demo pag", "did you mean 'page'")],
)
def test_a_wrong_demo_or_run_is_told(
    words: str, expected: str, capsys: pytest.CaptureFixture[str], demos_served: list[tuple[object, ...]]
) -> None:
    code, _, message = call(capsys, *words.split())
    assert (code, demos_served) == (2, [])
    assert expected in message


def test_synth_makes_what_is_missing_and_leaves_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("data", "synth", "toy.yaml", "synth=[{type: maker}]", "run.seed=9")
    code, out, _ = call(capsys, *words)
    assert code == 0
    assert "making" in out
    assert Path("made.txt").read_text() == "9"
    assert "maker: there already" in call(capsys, *words)[1]
    assert "nothing to make" in call(capsys, "data", "synth", "toy.yaml")[1]


def test_show_prints_a_configuration_that_loads_back_equal(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "config", "show", "toy.yaml", "--debug", "optim.lr=1e-5")
    assert code == 0
    assert "# command line 'optim.lr=1e-5'" in out
    Path("shown.yaml").write_text(out)
    assert load("shown.yaml").config == load("toy.yaml", ["optim.lr=1e-5"]).config


def test_diff_and_schema_and_new(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.yaml").write_text("base: toy.yaml\noptim: {lr: 1.0}\n")
    assert call(capsys, "config", "diff", "toy.yaml", "other.yaml")[1] == "optim.lr: 0.0003 -> 1.0\n"
    assert "no setting differs" in call(capsys, "config", "diff", "toy.yaml", "toy.yaml")[1]
    assert "hidden" in json.loads(call(capsys, "config", "schema", "toy")[1])["properties"]
    assert "stages" in json.loads(call(capsys, "config", "schema")[1])["properties"]
    assert call(capsys, "config", "new", "toy", "--out", "new.yaml")[0] == 0
    assert load("new.yaml").config.system.type == "toy"
    assert call(capsys, "config", "new", "toy", "--out", "new.yaml")[0] == 2


def test_plugins_tells_what_is_offered_and_what_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("bad_for_cli.py").write_text("raise RuntimeError('broken on purpose')")
    monkeypatch.setenv("MIXTURA_PLUGINS", "mini_maker:plugin,bad_for_cli:plugin")
    registry.cache_clear()
    code, out, _ = call(capsys, "plugins")
    assert code == 0
    assert "generators: maker" in out
    assert "BROKEN: RuntimeError: broken on purpose" in out
    assert "Traceback" in call(capsys, "plugins", "bad_for_cli")[1]
    assert "mini_maker:Maker" in call(capsys, "plugins", "maker")[1]
    code, out, _ = call(capsys, "doctor")
    assert code == 1
    assert "broken plugin 'bad_for_cli'" in out
    assert "RuntimeError: broken on purpose" in out


def test_threads_wait_without_spinning_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert main(["plugins"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert main(["plugins"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_an_interrupt_gives_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mixtura.verbs.house.plugins", stop)
    assert call(capsys, "plugins")[0] == 130


def test_a_termination_gives_143() -> None:
    stop = "house.plugins = lambda *_: os.kill(os.getpid(), signal.SIGTERM)"
    code = f"import os, signal; from mixtura import cli; from mixtura.verbs import house; {stop}; cli.main(['plugins'])"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 143


def test_a_mistake_of_ours_is_told_as_such(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixtura.verbs.house.plugins", lambda *_: {}["x"])
    code, _, message = call(capsys, "plugins")
    assert code == 1
    assert "not of yours" in message


def test_train_writes_a_run_and_refuses_to_overwrite_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train", "toy.yaml", "stages[only].steps=3", "--overfit", "1", "run.name=again")
    assert call(capsys, *words)[0] == 0
    lines = [json.loads(line) for line in Path("runs/again/log.jsonl").read_text().splitlines()]
    assert lines[-1]["kind"] == "done"
    assert yaml.safe_load(Path("runs/again/config.yaml").read_text())["stages"][0]["steps"] == 3
    code, _, message = call(capsys, *words)
    assert code == 1
    assert "--resume" in message


def test_a_run_keeps_the_origin_of_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "train", "toy.yaml", "stages[only].steps=1", "run.name=kept")[0] == 0
    text = Path("runs/kept/config.yaml").read_text()
    origins = dict(line.split("  # ") for line in text.splitlines() if "  # " in line)
    told = {key.strip(): origin for key, origin in origins.items()}
    assert told["hidden: 8"] == "toy.yaml:2"
    assert told["steps: 1"] == "command line 'stages[only].steps=1'"
    assert told["prefetch: 2"] == "default"
    assert load("runs/kept").config == load("toy.yaml", ["stages[only].steps=1", "run.name=kept"]).config
