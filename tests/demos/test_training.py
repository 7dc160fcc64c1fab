"""The training page: runs are shown by stage, source and curve; the form writes what the core takes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from mixtura.config import dump, load, loads
from mixtura.plugins import registry
from mixtura_demos.shared.errors import Refused
from mixtura_demos.training import runs, starts, views, writing, writing_form
from mixtura_demos.training.document import Document
from mixtura_demos.training.fields import NOTHING, Field, fitting, group_of, parse, show
from mixtura_demos.training.form_page import form
from mixtura_demos.training.layout import layout
from mixtura_demos.training.starts import Start, start
from tests.demos import browser, training_run
from tests.demos.conftest import Server

REPOSITORY = Path(__file__).parents[2]
READY = sorted((REPOSITORY / "configs").glob("*/*.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with two runs and the repository's configurations."""
    root = tmp_path_factory.mktemp("training")
    training_run.make(root, "first", seed=3)
    training_run.make(root, "second", seed=4)
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    return root


@pytest.fixture(scope="module")
def logs(folder: Path) -> list[Any]:
    return runs.read([folder / "runs" / "first", folder / "runs" / "second"])


@pytest.fixture
def toy() -> Document:
    return Document.begin(Start(starts.BARE, "toy"))


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def setting(document: Document, *path: str | int) -> Field:
    return layout(document).fields()[path]


def told(document: Document) -> list[str]:
    return [f"{problem.key}: {problem.text}" for problem in document.problems()]


# -- runs ----------------------------------------------------------------------------------------------------
def test_runs_are_listed_newest_first_with_those_of_ablations_and_the_named_one_before_all(tmp_path: Path) -> None:
    for k, name in enumerate(("old", "ablation/a-seed1", "new")):
        place = tmp_path / "runs" / name
        place.mkdir(parents=True)
        log = place / "log.jsonl"
        log.write_text("")
        os.utime(log, (k, k))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.yaml").write_text("{}")
    labels = [choice.label for choice in runs.found(tmp_path / "elsewhere", tmp_path)]
    assert labels == ["elsewhere", "new", "ablation/a-seed1", "old"]


def test_checkpoints_links_and_other_folders_are_no_runs(folder: Path, tmp_path: Path) -> None:
    step = tmp_path / "runs" / "one" / "step-000001"
    step.mkdir(parents=True)
    for place in (step, step.parent):
        (place / "config.yaml").write_text("{}")
    (tmp_path / "runs" / "link").symlink_to(folder / "runs" / "first")
    (tmp_path / "runs" / "empty").mkdir()
    assert [choice.label for choice in runs.found(root=tmp_path)] == ["one"]


@pytest.mark.parametrize("ids", [["../../etc"], ["/etc"], ["0" * 16], [None], [3]])
def test_a_run_that_was_not_offered_is_refused(folder: Path, ids: list[Any]) -> None:
    with pytest.raises(Refused, match="press 'Look again'"):
        runs.chosen(ids, None, folder)


def test_no_run_and_too_many_are_refused(folder: Path) -> None:
    with pytest.raises(Refused, match="mixtura train CONFIG"):
        runs.chosen([], None, folder)
    with pytest.raises(Refused, match="at most 12"):
        runs.chosen(["0"] * 13, None, folder)


@pytest.mark.parametrize("view", [*views.VIEWS, views.ONE_CURVE])
@pytest.mark.parametrize("stage", [views.ALL_STAGES, "begin"])
@pytest.mark.parametrize("source", [views.ALL_SOURCES, "fast"])
@pytest.mark.parametrize("count", [1, 2])
def test_every_view_has_something_to_show_or_says_so(logs: list[Any], view: str, stage: str, source: str, count: int) -> None:
    html = views.render(logs[:count], view, stage, source, "loss")
    assert words(html)
    assert html.count("<div") == html.count("</div>")


def hovered(html: str) -> list[Any]:
    """What the charts tell under the pointer."""
    return [json.loads(found.replace("&quot;", '"')) for found in re.findall(r'data-hover="([^"]+)"', html)]


def test_losses_of_a_stage_begin_where_it_begins(logs: list[Any]) -> None:
    whole, part = (views.render(logs[:1], "Losses", stage, views.ALL_SOURCES, None) for stage in (views.ALL_STAGES, "both"))
    assert [hovered(html)[0]["x"] for html in (whole, part)] == [[0.0, 28.0], [12.0, 28.0]]


def test_losses_of_a_source_leave_the_other_one_out(logs: list[Any]) -> None:
    assert "slow" in words(views.render(logs[:1], "Losses", "both", views.ALL_SOURCES, None))
    assert "slow" not in words(views.render(logs[:1], "Losses", "both", "fast", None))


def test_one_curve_has_a_line_for_each_run(logs: list[Any]) -> None:
    for curve in ("loss", "loss/value/slow", "heldout_loss: value/slow", "drawing: success rate", "drawing: error", "lr"):
        assert curve in views.curve_names(logs)
        html = views.render(logs, views.ONE_CURVE, views.ALL_STAGES, views.ALL_SOURCES, curve)
        names = [entry[0] for entry in hovered(html)[0]["series"]]
        assert names == ["first", "second"]


def test_the_realised_mixture_stands_beside_the_planned_one(logs: list[Any]) -> None:
    text = words(views.render(logs[:1], "Mixture", "both", views.ALL_SOURCES, None))
    assert "fast 75.00 % 75.00 % 96" in text
    assert "slow 25.00 % 25.00 % 32" in text


def test_problems_name_the_bad_samples(logs: list[Any]) -> None:
    text = words(views.render(logs[:1], "Problems", views.ALL_STAGES, views.ALL_SOURCES, None))
    assert "1 slow 3 slow:3 is marked as bad" in text


def test_every_setting_tells_its_origin(logs: list[Any]) -> None:
    text = words(views.render(logs[:1], "Settings", views.ALL_STAGES, views.ALL_SOURCES, None))
    assert "run.seed 3 command line 'run.seed=3'" in text
    assert "data.prefetch 2 default" in text
    assert re.search(r"stages\[0\].steps 12 toy.yaml:\d+", text)


def test_a_run_without_origins_shows_its_settings_all_the_same(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs" / "first", tmp_path / "old")
    config = load(tmp_path / "old").config
    (tmp_path / "old" / "config.yaml").write_text(dump(config))
    text = words(views.render(runs.read([tmp_path / "old"]), "Settings", views.ALL_STAGES, views.ALL_SOURCES, None))
    assert "before origins were kept" in text
    assert "name: first" in text


def test_evaluations_have_tables_intervals_and_pictures(logs: list[Any]) -> None:
    html = views.render(logs[:1], "Evaluations", views.ALL_STAGES, views.ALL_SOURCES, None)
    assert "circle 75 % 3/4" in words(html)
    assert "data:image/png;base64," in html


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


# -- writing -------------------------------------------------------------------------------------------------
def test_a_file_is_written_once_and_replaced_only_when_told(tmp_path: Path) -> None:
    assert writing.write("configs", "mine", "a: 1\n", False, tmp_path) == Path("configs/mine.yaml")
    with pytest.raises(Refused, match="tick 'Replace"):
        writing.write("configs", "mine", "a: 2\n", False, tmp_path)
    assert (tmp_path / "configs" / "mine.yaml").read_text() == "a: 1\n"
    writing.write("configs", "mine", "a: 2\n", True, tmp_path)
    assert (tmp_path / "configs" / "mine.yaml").read_text() == "a: 2\n"
    assert [file.name for file in (tmp_path / "configs").iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".hidden", "-rf", "x" * 65, "a;rm", "A", None])
def test_a_file_name_that_is_no_plain_word_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(Refused, match="plain word"):
        writing.write("configs", name, "", False, tmp_path)


@pytest.mark.parametrize("folder", ["..", "/tmp", "runs", "configs/../..", "outside", ".git", "", None])
def test_a_folder_that_was_not_offered_is_refused(tmp_path: Path, folder: Any) -> None:
    for name in ("runs", ".git", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text("")
    (tmp_path / "outside").symlink_to("/tmp")
    assert writing.folders(tmp_path) == ["configs", "plain"]
    with pytest.raises(Refused, match="choose one from the list"):
        writing.write(folder, "mine", "", False, tmp_path)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "configs" / "mine.yaml").symlink_to(tmp_path / "victim")
    with pytest.raises(Refused, match="no plain file"):
        writing.write("configs", "mine", "lost", True, tmp_path)
    assert (tmp_path / "victim").read_text() == "kept"


def test_the_command_is_quoted_for_the_shell() -> None:
    assert shlex.split(writing.command(Path("a b/it's.yaml"))) == ["mixtura", "train", "a b/it's.yaml"]


@pytest.mark.parametrize(
    ("client", "server", "headers", "local"),
    [
        ("127.0.0.1", "127.0.0.1", {"host": "localhost:7860"}, True),
        ("::1", "::1", {"host": "[::1]:7860"}, True),
        ("10.0.0.2", "10.0.0.1", {"host": "10.0.0.1:7860"}, False),
        ("127.0.0.1", "127.0.0.1", {"host": "evil.example"}, False),
        ("127.0.0.1", "127.0.0.1", {"host": "localhost", "X-Forwarded-For": "10.0.0.9"}, False),
        ("127.0.0.1", "127.0.0.1", {}, False),
    ],
)
def test_files_are_written_only_for_the_machine_itself(client: str, server: str, headers: dict[str, str], local: bool) -> None:
    class Inner:
        scope = {"client": (client, 1), "server": (server, 2)}  # noqa: RUF012

    Inner.headers = headers  # type: ignore[attr-defined]
    assert writing.is_local(gr.Request(Inner())) is local  # type: ignore[arg-type]


# -- in the browser ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    served = Server(folder, "training")
    yield served
    served.stop()


@pytest.fixture
def opened(page: Any, server: Server) -> Any:
    return browser.open_demo(page, server.url, "training")


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def chart(page: Any, title: str) -> Any:
    return page.locator("#run-view figure", has=page.get_by_text(title, exact=True)).first


def test_runs_are_read_by_stage_source_and_over_each_other(opened: Any) -> None:
    from playwright.sync_api import expect

    page = opened
    expect(page.locator("#run-view")).to_contain_text("Steps")
    page.get_by_label("Losses", exact=True).check()
    whole = chart(page, "loss: value")
    expect(whole.locator(".legend")).to_contain_text("slow")
    choose(page, "Stage", "both")
    expect(chart(page, "loss: value").locator("text.tick", has_text=re.compile(r"^0$"))).to_have_count(0)
    choose(page, "Source", "fast")
    expect(page.locator("#run-view")).not_to_contain_text("slow")
    choose(page, "Stage", "begin")
    expect(page.locator("#run-view")).to_contain_text("nothing was logged for begin and fast")
    choose(page, "Stage", "all stages")
    choose(page, "Source", "all sources")
    page.get_by_label("Runs", exact=True).click()
    page.get_by_role("option", name="first", exact=True).click()
    page.keyboard.press("Escape")
    choose(page, "Curve of all the runs", "loss")
    expect(page.get_by_label("One curve")).to_be_checked()
    expect(chart(page, "loss").locator("path.line")).to_have_count(4)  # two runs, broken where the second stage begins
    chart(page, "loss").locator("svg").first.hover()
    expect(page.locator("#run-view .tip")).to_contain_text("first")
    browser.screenshot(page, "training")


def test_a_run_that_goes_on_is_followed(opened: Any, folder: Path) -> None:
    from playwright.sync_api import expect

    page = opened
    newest = runs.found(root=folder)[0].path
    log = newest / "log.jsonl"
    text = log.read_text()
    page.get_by_label("Problems").check()
    expect(page.locator("#run-view")).to_contain_text("Bad samples")
    page.get_by_label("Follow what is still running").check()
    try:
        with log.open("a") as file:
            file.write(json.dumps({"kind": "bad", "step": 28, "source": "fast", "item": 7, "reason": "came just now"}) + "\n")
        expect(page.locator("#run-view")).to_contain_text("came just now")
    finally:
        log.write_text(text)


def test_what_was_measured_where_settings_come_from_and_the_machine_are_shown(opened: Any) -> None:
    from playwright.sync_api import expect

    page, view = opened, opened.locator("#run-view")
    page.get_by_label("Evaluations").check()
    expect(view.locator("img")).to_have_count(1)
    page.get_by_label("Settings").check()
    expect(view).to_contain_text("command line 'run.seed=")
    page.get_by_label("Environment").check()
    expect(view).to_contain_text("torch")
    page.get_by_label("Mixture").check()
    expect(view).to_contain_text("57.14 %")


@pytest.fixture
def filled(opened: Any) -> Any:
    """The form with the quickstart of a system."""
    from playwright.sync_api import expect

    page = opened
    page.get_by_role("tab", name="New run").click()
    choose(page, "System", "iflybot_vla")
    expect(page.get_by_label("Start from")).to_have_value("configs/quickstart/iflybot_vla.yaml")
    page.get_by_role("button", name="Load into the form").click()
    expect(page.locator("#form-problems")).to_contain_text("Valid", timeout=3 * browser.WAIT)  # the first check imports torch
    return page


def field(page: Any, *path: str | int) -> Any:
    return page.locator(f"[data-path='{json.dumps(path)}']")


def test_the_form_writes_a_valid_file_and_shows_the_command(filled: Any, folder: Path) -> None:
    from playwright.sync_api import expect

    page = filled
    field(page, "run", "name").fill("mine")
    expect(page.locator("#form-yaml")).to_contain_text("name: mine")
    field(page, "stages", 0, "steps").fill("0")
    expect(page.locator("#form-problems")).to_contain_text("stages[0].steps: must be at least 1, not 0")
    expect(field(page, "stages", 0, "steps")).to_have_attribute("aria-invalid", "true")
    browser.screenshot(page, "training-form")
    page.get_by_label("File name").fill("mine")
    page.get_by_role("button", name="Write the file").click()
    assert "stages[0].steps: must be at least 1, not 0" in browser.error_in(page)
    field(page, "stages", 0, "steps").fill("77")
    expect(page.locator("#form-problems")).to_contain_text("Valid")
    choose(page, "Folder", "configs/quickstart")
    page.get_by_role("button", name="Write the file").click()
    expect(page.locator("#form-command")).to_contain_text("mixtura train configs/quickstart/mine.yaml")
    config = load(folder / "configs/quickstart/mine.yaml").config
    assert (config.run.name, config.stages[0].steps) == ("mine", 77)
    page.get_by_label("File name").fill("../../escape")
    page.get_by_role("button", name="Write the file").click()
    assert "plain word" in browser.error_in(page)


def test_an_unknown_source_is_named_and_the_file_can_be_downloaded(filled: Any, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    page = filled
    page.locator("details[data-key='sources.qa'] > summary").click()
    page.get_by_role("button", name="Remove source qa").click()
    problems = page.locator("#form-problems")
    expect(problems).to_contain_text("stages[1].mixture.qa: no source is called so. Sources: robot")
    page.get_by_label("Name of a new source").fill("qa")
    page.locator("select[data-type='sources']").select_option("qa")
    page.get_by_role("button", name="Add source").click()
    expect(problems).to_contain_text("sources.qa.path: missing")
    problems.get_by_role("button", name="sources.qa.path").click()
    expect(field(page, "sources", "qa", "path")).to_be_focused()
    page.keyboard.type("data/other.jsonl")
    expect(problems).to_contain_text("Valid")
    page.get_by_role("button", name="Make a file to download").click()
    with page.expect_download() as download:
        page.locator(".file-preview a, a[download]").first.click()
    download.value.save_as(tmp_path / "got.yaml")
    assert load(tmp_path / "got.yaml").config.sources["qa"].path == "data/other.jsonl"
