"""The registry: broken plugins are set aside, clashes and unknown names are explained, listing is cheap."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mixtura.plugins import AmbiguousName, Plugin, PluginError, Registry, UnknownName, _Entry, near, registry

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module and returns "module:plugin"."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text("from mixtura.plugins import Plugin\n" + textwrap.dedent(text))
        return f"{name}:plugin"

    return put


def use(monkeypatch: pytest.MonkeyPatch, *places: str) -> Registry:
    monkeypatch.setenv("MIXTURA_PLUGINS", ",".join(places))
    registry.cache_clear()
    return registry()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    registry.cache_clear()


BROKEN = {
    "raises at import": "raise RuntimeError('no good')",
    "ends the program": "raise SystemExit(3)",
    "syntax": "plugin = (",
    "no object": "other = 1",
    "wrong type": "plugin = {'name': 'x'}",
    "wrong api": "plugin = Plugin(name='x', api=99)",
    "wrong name": "plugin = Plugin(name='a b')",
    "wrong mapping": "plugin = Plugin(name='x', systems=['a'])",
    "wrong value": "plugin = Plugin(name='x', systems={'a': 3})",
    "value without attribute": "plugin = Plugin(name='x', systems={'a': 'module'})",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plugin_breaks_no_other(text: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = write("bad_" + str(abs(hash(text))), text)
    good = write("good_one", "plugin = Plugin(name='good', systems={'fine': 'json:JSONDecoder'})")
    found = use(monkeypatch, bad, good)
    assert found.get("system", "fine").__name__ == "JSONDecoder"
    assert [broken.name for broken in found.broken()] == [bad.partition(":")[0]]
    assert found.broken()[0].error
    assert found.broken()[0].traceback


def test_another_api_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    found = use(monkeypatch, write("future", "plugin = Plugin(name='x', api=99)"))
    assert "API 99, this mixtura has 1" in found.broken()[0].error


def test_a_clash_is_told_on_use_and_a_prefix_chooses(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write("first_p", "plugin = Plugin(name='first', systems={'same': 'json:JSONDecoder', 'own': 'json:JSONEncoder'})")
    second = write("second_p", "plugin = Plugin(name='second', systems={'same': 'json:JSONEncoder'})")
    found = use(monkeypatch, first, second)
    assert found.get("system", "own").__name__ == "JSONEncoder"
    with pytest.raises(AmbiguousName, match="'first' of .* and plugin 'second' of .*write 'first:same' or 'second:same'"):
        found.get("system", "same")
    assert found.get("system", "second:same").__name__ == "JSONEncoder"
    assert {"first:same", "second:same", "own"} <= set(found.names("system"))


def test_plugins_called_alike_are_told_apart_by_distribution(write: Write) -> None:
    place = write("alike", "plugin = Plugin(name='alike', systems={'same': 'json:JSONDecoder'})")
    found = Registry([_Entry("alike", place, "dist-one", "1"), _Entry("alike", place, "dist-two", "2")])
    with pytest.raises(AmbiguousName, match="dist-one 1 and .*dist-two 2; write 'dist-one:same'"):
        found.get("system", "same")
    assert found.get("system", "dist-two:same")


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UnknownName) as caught:
        registry().get("source", "lerobt")
    assert caught.value.suggestions[0] == "lerobot"
    assert "webdataset" in caught.value.known


@pytest.mark.parametrize(
    ("name", "distribution"), [("liveportrait", "mixtura-live-portrait"), ("diffusion_gs", "mixtura-diffusion-gs")]
)
def test_a_name_of_ours_tells_which_distribution_has_it(name: str, distribution: str) -> None:
    with pytest.raises(UnknownName, match=f"comes with {distribution}: pip install {distribution}"):
        Registry([]).get("system", name)


def test_a_class_that_cannot_be_imported_names_its_plugin(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "plugin = Plugin(name='late', systems={'late': 'no_such_module_here:Thing'}, requires={'no_such_module_here': 'extra'})"
    )
    found = use(monkeypatch, write("late_p", text))
    with pytest.raises(PluginError, match=r"plugin 'late' .*No module named.*\[extra\]"):
        found.get("system", "late")


def test_a_plugin_named_twice_counts_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write("twice", "plugin = Plugin(name='twice', systems={'twice': 'json:JSONDecoder'})")
    assert use(monkeypatch, place, place).get("system", "twice")


def test_near_ignores_dashes_and_case() -> None:
    assert near("IFlyBot-VLA", ["iflybot_vla", "other"])[0] == "iflybot_vla"


def test_every_builtin_is_well_formed() -> None:
    assert isinstance(registry().plugins()[0].plugin, Plugin)
    assert not [broken for broken in registry().broken() if broken.distribution == "mixtura"]


def test_listing_imports_neither_torch_nor_numpy_and_is_quick() -> None:
    code = "import sys; from mixtura.cli import main; main(['plugins']); print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
        seconds.append(time.perf_counter() - began)
    assert done.stdout.splitlines()[-1] == "[]"
    assert min(seconds) < 0.5
