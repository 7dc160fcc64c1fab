"""A form from a system's schema: what is typed becomes a configuration that the core takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from mixtura.config import dump, load, loads
from mixtura.plugins import registry
from mixtura_demos.shared.errors import Refused
from mixtura_demos.training import starts, writing_form
from mixtura_demos.training.document import Document
from mixtura_demos.training.fields import NOTHING, Field, fitting, group_of, parse, show
from mixtura_demos.training.form_page import form
from mixtura_demos.training.layout import layout
from mixtura_demos.training.starts import Start, start

REPOSITORY = Path(__file__).parents[3]
READY = sorted((REPOSITORY / "configs").glob("*/*.yaml"))


@pytest.fixture
def toy() -> Document:
    return Document.begin(Start(starts.BARE, "toy"))


def setting(document: Document, *path: str | int) -> Field:
    return layout(document).fields()[path]


def told(document: Document) -> list[str]:
    return [f"{problem.key}: {problem.text}" for problem in document.problems()]


# -- fields --------------------------------------------------------------------------------------------------
SCHEMA = {
    "properties": {
        "count": {"type": "integer", "minimum": 1, "exclusiveMaximum": 9, "default": 3, "description": "how many"},
        "rate": {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}], "default": None},
        "flag": {"type": "boolean", "default": True},
        "maybe": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None},
        "size": {"enum": ["tiny", "full"], "default": "tiny"},
        "terms": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "default": ["a"]},
        "betas": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}]},
        "path": {"type": "string"},
        "free": {"anyOf": [{"type": "integer"}, {"type": "object"}]},
        "part": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}], "default": None},
    },
    "required": ["path"],
    "$defs": {"Part": {"description": "a part", "properties": {"deep": {"type": "integer"}}}},
}


@pytest.fixture
def made() -> dict[str, Any]:
    return {part.name: part for part in group_of(SCHEMA, ("x",)).parts}


def test_a_schema_becomes_fields_by_type_with_bounds_choices_and_help(made: dict[str, Any]) -> None:
    kinds = {name: part.kind for name, part in made.items() if isinstance(part, Field)}
    assert kinds == {
        "count": "integer", "rate": "number", "flag": "flag", "maybe": "choice", "size": "choice", "terms": "choices",
        "betas": "list", "path": "text", "free": "yaml",
    }  # fmt: skip
    assert made["count"].hint == "how many; at least 1 and less than 9; default 3"
    assert made["path"].hint == "needed"
    assert made["size"].choices == ("tiny", "full")
    assert (made["part"].optional, [field.path for field in made["part"].fields()]) == (True, [("x", "part", "deep")])


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("count", "5", 5), ("count", "2.5", 2.5), ("count", "", NOTHING), ("count", "no number", "no number"),
        ("count", "9223372036854775807", 2**63 - 1), ("rate", "3e-4", 3e-4), ("flag", False, False),
        ("maybe", "", NOTHING), ("maybe", "true", True), ("size", "full", "full"),
        ("size", "", NOTHING), ("terms", ["c", "a"], ["a", "c"]), ("terms", [], []), ("betas", "0.9, 0.95", [0.9, 0.95]),
        ("betas", "[1, 2]", [1, 2]),
        ("path", "5", "5"), ("path", "null", "null"), ("free", "a: [1]", {"a": [1]}), ("free", "7", 7),
    ],
)  # fmt: skip
def test_what_is_typed_becomes_the_value_it_says(made: dict[str, Any], name: str, typed: Any, value: Any) -> None:
    assert parse(made[name], typed, 1) == value


def test_choices_keep_the_order_that_the_file_gave_them(made: dict[str, Any]) -> None:
    assert parse(made["terms"], ["a", "b", "c"], ["c", "a"]) == ["c", "a", "b"]


def test_what_is_not_yaml_is_refused_with_the_reason(made: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="not readable as YAML"):
        parse(made["free"], "a: [1", NOTHING)
    with pytest.raises(Refused, match="too many for one setting"):
        parse(made["path"], "x" * 20_001, NOTHING)


@pytest.mark.parametrize("value", ["${run.seed}", [1], {"a": 1}, True, None])
def test_a_value_that_does_not_fit_its_field_is_shown_as_yaml_and_stays(made: dict[str, Any], value: Any) -> None:
    field = fitting(made["count"], value)
    assert field.kind == "yaml"
    assert parse(field, show(field, value), value) == value


# -- the document --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_configuration_passes_through_the_form_unchanged(path: Path, tmp_path: Path) -> None:
    before = load(path)
    document = Document.begin(Start(path.name, before.config.system.type, path))
    (tmp_path / "written.yaml").write_text(document.text())
    assert dump(load(tmp_path / "written.yaml").config) == dump(before.config)
    assert document.problems() == []


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_no_field_changes_what_it_shows(path: Path) -> None:
    want = dump(load(path).config)
    document = Document.begin(Start(path.name, load(path).config.system.type, path))
    for field in layout(document).fields().values():
        value = document.value(field.path)
        document = document.put(field, show(fitting(field, value), value))
    assert not document.unread
    assert dump(loads(document.text()).config) == want


@pytest.mark.parametrize("system", starts.systems())
def test_every_system_has_a_form_from_its_schema(system: str) -> None:
    document = Document.begin(start(system, starts.BARE))
    parts = layout(document)
    assert set(registry().get("system", system).Config.model_fields) - {"type"} <= {
        part.name for part in parts.system.group.parts
    }
    assert all("missing" in text for text in told(document))
    html = form(document, parts, 1)
    assert html.count("<details") == html.count("</details>")
    assert len(set(re.findall(r' id="([^"]+)"', html))) == len(re.findall(r' id="([^"]+)"', html))


def test_every_input_has_a_label(toy: Document) -> None:
    html = form(toy, layout(toy), 1)
    labelled = set(re.findall(r'<label for="([^"]+)"', html))
    inputs = re.findall(r'<(?:input|select|textarea)[^>]* id="([^"]+)"', html)
    assert inputs
    assert set(inputs) <= labelled


def test_the_core_names_what_is_wrong_with_place_and_expectation(toy: Document) -> None:
    wrong = toy.put(setting(toy, "stages", 0, "steps"), "0").put(setting(toy, "optim", "lr"), "-1")
    assert told(wrong) == ["optim.lr: must be more than 0.0, not -1", "stages[0].steps: must be at least 1, not 0"]
    line = wrong.problems()[1].line
    assert "steps: 0" in wrong.text().splitlines()[line - 1]


def test_a_stage_that_mixes_a_removed_source_is_told(toy: Document) -> None:
    assert told(toy.without(("sources", "first")))[0].startswith("stages[0].mixture.first: no source is called so.")


def test_sources_stages_and_evaluators_come_and_go(toy: Document) -> None:
    changed = toy.with_source("more", "toy").put(setting(toy.with_source("more", "toy"), "stages", 0, "mixture", "more"), "2")
    changed = changed.with_stage().with_entry("evaluate", "heldout_loss").put(setting(toy, "data", "heldout"), "0.1")
    config = loads(changed.text()).config
    assert [stage.name for stage in config.stages] == ["main", "stage-2"]
    assert config.stages[1].mixture == {"first": 1, "more": 2}
    assert config.evaluate[0].type == "heldout_loss"
    moved = loads(changed.earlier(("stages", 1)).without(("evaluate", 0)).text()).config
    assert ([stage.name for stage in moved.stages], moved.evaluate) == (["stage-2", "main"], ())


@pytest.mark.parametrize("name", ["", "a b", "../x", "first", "é"])
def test_a_new_source_needs_a_free_word_for_a_name(toy: Document, name: str) -> None:
    with pytest.raises(Refused, match="word|already"):
        toy.with_source(name, "toy")


def test_an_optional_section_is_switched_on_and_off(toy: Document) -> None:
    on = toy.switched(("train", "ema"), True)
    assert loads(on.text()).config.train.ema.decay == 0.999
    assert loads(on.switched(("train", "ema"), False).text()).config.train.ema is None


def test_what_a_field_holds_that_is_no_yaml_is_a_problem_until_it_is_mended(toy: Document) -> None:
    groups = setting(toy, "optim", "groups")
    broken = toy.put(groups, "[{match: ")
    assert told(broken)[0].startswith("optim.groups: not readable as YAML")
    assert told(broken.put(groups, "[{match: 'a.*'}]")) == []


def test_a_broken_plugin_costs_its_own_section_only(toy: Document) -> None:
    document = toy.retyped(("sources", "first"), "no_such_source")
    assert "nothing is called 'source/no_such_source'" in layout(document).sources[0].problem
    assert "nothing is called" in form(document, layout(document), 1)


def test_markup_in_a_configuration_is_shown_as_text(toy: Document) -> None:
    document = toy.put(setting(toy, "run", "name"), '"><script>alert(1)</script>')
    assert "<script" not in form(document, layout(document), 1)


def test_ready_configurations_of_a_plugin_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "ready_plugin"
    (package / "configs").mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from mixtura.plugins import Plugin\n"
        "plugin = Plugin(name='ready', systems={'ready_toy': 'mixtura.testing:ToySystem'}, configs='ready_plugin.configs')\n"
    )
    (package / "configs" / "small.yaml").write_text("system: {type: ready_toy}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MIXTURA_PLUGINS", "ready_plugin:plugin")
    registry.cache_clear()
    try:
        assert [found.label for found in starts.starts("ready_toy", tmp_path)] == ["ready: small.yaml", starts.BARE]
        assert start("ready_toy", "ready: small.yaml", tmp_path).data() == {"system": {"type": "ready_toy"}}
    finally:
        monkeypatch.undo()
        registry.cache_clear()


@pytest.mark.parametrize(
    "data",
    [
        {}, {"path": "run.name", "value": "x"}, {"path": ["run", "no"], "value": "x"}, {"path": [["run"]], "value": "x"},
        {"path": ["stages", True, "steps"], "value": 1}, {"path": ["run"] * 21, "value": 1},
        {"path": ["system", "type"], "value": "x"},
    ],
)  # fmt: skip
def test_a_field_that_the_form_does_not_have_is_refused(toy: Document, data: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="load the (page|configuration) again"):
        writing_form._edit(toy, gr.EventData(None, data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"action": "format", "at": ["run"]}, "no such button"),
        ({"action": "remove", "at": ["run", "name", "x"]}, "there is no"),
        ({"action": "remove", "at": ["stages", 7]}, "there is no"),
        ({"action": "earlier", "at": ["stages", 0]}, "one before it"),
        ({"action": "add", "at": ["run"]}, "nothing can be added"),
        ({"action": "retype", "at": ["sources", "first"], "type": "../x"}, "choose one from the list"),
        ({"action": "switch", "at": ["run"], "on": True}, "can't be switched"),
        ({"action": "add"}, "load the page again"),
    ],
)
def test_a_button_that_the_form_does_not_have_is_refused(toy: Document, data: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        writing_form._act(toy, 0, gr.EventData(None, data))


def test_nothing_is_written_before_something_is_loaded_or_while_it_is_wrong(toy: Document) -> None:
    with pytest.raises(Refused, match="nothing is loaded"):
        writing_form._valid(None)
    with pytest.raises(Refused, match=r"isn't valid yet: stages\[0\].steps: must be at least 1"):
        writing_form._valid(toy.put(setting(toy, "stages", 0, "steps"), "0"))
