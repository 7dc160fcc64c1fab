"""Configurations: strict YAML, base files, the command line, references, plugin sections, all errors at once."""

from __future__ import annotations

import pytest

from mixtura.config import load, loads, merged
from mixtura.errors import ConfigError
from tests.core.config_tools import GOOD, good, put

pytestmark = pytest.mark.usefixtures("mini_plugin", "empty_folder")


def errors(text: str, *tokens: str) -> list[str]:
    """The lines of the one ConfigError."""
    with pytest.raises(ConfigError) as caught:
        load(put("c.yaml", text), tokens)
    return str(caught.value).splitlines()


def changed(old: str, new: str, *tokens: str) -> list[str]:
    """Errors of the good configuration with one change."""
    assert old in GOOD
    return errors(GOOD.replace(old, new), *tokens)


# -- YAML ----------------------------------------------------------------------------------------------------


def test_a_key_given_twice_is_an_error_with_both_lines() -> None:
    assert errors(GOOD + "\nrun: {name: again}\n")[0] == "c.yaml:13: run: given twice, first in line 3; keep one"


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "\ta: 1", "a: 'x", "---\na: 1\n---\nb: 2"])
def test_unreadable_yaml_tells_its_line(text: str) -> None:
    assert errors(text)[0].startswith("c.yaml:")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_without_sections_is_refused(text: str) -> None:
    assert "expected sections" in errors(text)[0]


def test_a_deeply_nested_file_is_an_error_not_a_crash() -> None:
    assert "nested too deeply" in errors("a: " + "[" * 20000)[0]


# -- what was given, what was expected -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("width: 16", "widht: 16", "c.yaml:2: system.widht: no such setting. Did you mean 'width'? Settings here: dims, inn"),
        ("width: 16", "size: tinny", "system.size: must be 'tiny' or 'full', not 'tinny'. Did you mean 'tiny'?"),
        ("width: 16", "width: sixteen", "system.width: must be a whole number, not 'sixteen'"),
        ("width: 16", "width: 0", "system.width: must be at least 1, not 0"),
        ("width: 16", "width: 13", "c.yaml:2: system: width 13 brings bad luck"),
        ("width: 16", "label: boom", "c.yaml:2: system: the model Net can't check this section (KeyError: 'boom')"),
        ("width: 16", "label: 5", "must be text, not 5; put it in quotes"),
        ("width: 16", "dims: [1]", "system.dims[1]: missing"),
        ("width: 16", "inner: {haeds: 3}", "system.inner.haeds: no such setting. Did you mean 'heads'? Settings here: heads"),
        ("type: net", "type: nett", "system.type: no system is called 'nett'; did you mean 'net'?"),
        ("type: net", "type: bare", "has no pydantic model `Config`"),
        ("type: net, ", "", "system.type: missing; say which system it is. Known: "),
        ("{type: net, width: 16}", "net", "system: must be a section with a `type`, not 'net'"),
        ("seed: 17", "seed: true", "c.yaml:3: run.seed: must be a whole number, not true"),
        ("seed: 17", "seed: '17'", "run.seed: must be a whole number, not '17'"),
        ("seed: 17", "lr: 1", "run.lr: no such setting; 'lr' lives in 'optim'"),
        ("name: first", "name: a/b", "run.name: must be a word of letters, digits, . _ and -"),
        ("name: first, ", "", "c.yaml:3: run.name: missing: name of the run"),
        ("lr: 1e-4", "lr: .inf", "optim.lr: must be a finite number"),
        ("betas: [0.9, 0.99]", "betas: [0.9, 0.99, 1]", "optim.betas: must have at most 2 entries"),
        ("lr_scale", "lr_scael", "optim.groups[0].lr_scael: no such setting. Did you mean 'lr_scale'?"),
        ("name: main, steps: 300", "name: main, step: 300", "stages[1].step: no such setting. Did you mean 'steps'?"),
        ("mixture: {robot: 1}", "mixture: {robto: 1}", "mixture.robto: no source is called so. Did you mean 'robot'? Sources"),
        ("mixture: {robot: 1}", "mixture: {robot: -1}", "stages[0].mixture.robot: must be at least 0"),
        ("mixture: {robot: 1}", "mixture: {robot: .nan}", "stages[0].mixture.robot: must be a finite number"),
        ("mixture: {robot: 1}", "mixture: {robot: 0}", "stages[0].mixture: all weights are 0"),
        ("mixture: {robot: 1}", "mixture: {}", "stages[0].mixture: needs at least 1 entries"),
        ("name: main", "name: warm", "stages[1].name: 'warm' is the name of stages[0] already"),
        ("sources:\n", "sources:\n  a b: {type: files, path: x}\n", "the name must be a word of letters, digits, _ and -"),
        ("path: data/qa", "pth: data/qa", "sources.qa.pth: no such setting. Did you mean 'path'?"),
        ("every: 50}", "every: 50}, {type: score}", "evaluate[1]: results of 'score' would be those of evaluate[0]; give"),
        ("evaluate: [{type: score, every: 50}]", "evaluate: {type: score}", "evaluate: must be a list of sections"),
        ("run:", "runn: {}\nrun:", "runn: no such setting. Did you mean 'run'?"),
    ],
)  # fmt: skip
def test_a_mistake_names_place_value_expectation_and_guess(old: str, new: str, expected: str) -> None:
    found = changed(old, new)
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (
            ["data.micro_batch=5"],
            "command line 'data.micro_batch=5': data.micro_batch: data.global_batch 16 must be a multiple of it",
        ),
        (
            ["schedule={type: wsd, warmup: 90, decay: 0.2}"],
            "stages[0].steps: warm-up (90) and decay (20) take more steps than the stage has (100)",
        ),
        (["stages[main].mixer={type: static, lag: 1}"], "stages[1].mixer.lag: must be at least data.prefetch (2), not 1"),
        (["checkpoint.keep_every=10"], "checkpoint.keep_every: needs checkpoint.every"),
        (["checkpoint={every: 20, keep_every: 50}"], "must be a multiple of checkpoint.every (20), not 50"),
        (["train.device=gpu"], "train.device: must be"),
        (["log.to=[screen]"], "log.to[0]: must be 'console', 'jsonl' or 'tensorboard', not 'screen'"),
        (["ablation={variants: {a: {}}, mesure: [x]}"], "ablation.mesure: no such setting. Did you mean 'measure'?"),
        (["init_from=3"], "init_from: must be text, not 3"),
        (["stages=[]"], "stages: must be a list of sections, not empty"),
        (["synth=[{type: mad}]"], "synth[0].type: no generator is called 'mad'; did you mean 'made'?"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tokens: list[str], expected: str) -> None:
    found = errors(GOOD, *tokens)
    assert any(expected in line for line in found), found


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    put("base.yaml", "data: {workers: -1}\n")
    text = "base: base.yaml\n" + GOOD.replace("seed: 17", "sede: 1").replace("path: data/qa", "path: 3").replace(
        "lr: 1e-4", "lr: '1'"
    ).replace("qa: 1", "aq: 1")
    found = errors(text, "log.every=0", "nonsense")
    places = [line.split(": ")[0] for line in found]
    assert places == [
        "base.yaml:1",
        "c.yaml:4",
        "c.yaml:7",
        "c.yaml:8",
        "c.yaml:11",
        "command line 'log.every=0'",
        "command line 'nonsense'",
    ]


def test_mistakes_are_there_for_programs_too() -> None:
    with pytest.raises(ConfigError) as caught:
        loads("\n" + GOOD, ["stages.0.steps=0"])
    assert [(path, text) for _, path, text in caught.value.findings] == [(("stages", 0, "steps"), "must be at least 1, not 0")]
    with pytest.raises(ConfigError) as caught:
        loads("run: {name: 5}\n" + GOOD[GOOD.index("sources") :])
    assert (1, ("run", "name"), "must be text, not 5; put it in quotes") in caught.value.findings


def test_a_missing_file_is_told() -> None:
    with pytest.raises(ConfigError, match="nothing.yaml: can't read the configuration"):
        load("nothing.yaml")


# -- base files ------------------------------------------------------------------------------------------------


def test_base_files_merge_per_key_lists_are_replaced_and_later_ones_win() -> None:
    put("base/one.yaml", "optim: {lr: 1.0, clip: 5.0, betas: [0, 0]}\ndata: {workers: 3}\n")
    put("base/two.yaml", "base: one.yaml\noptim: {lr: 2.0, eps: 1e-3}\n")
    config = load(put("c.yaml", "base: [base/one.yaml, base/two.yaml]\n" + GOOD.replace("lr: 1e-4, ", ""))).config
    assert (config.optim.lr, config.optim.clip, config.optim.eps, config.data.workers) == (2.0, 5.0, 1e-3, 3)
    assert config.optim.betas == (0.9, 0.99)


def test_a_changed_type_drops_what_the_old_type_had() -> None:
    put("b.yaml", GOOD)
    config = load(put("c.yaml", "base: b.yaml\nsystem: {type: other, depth: 4}\nsources: {qa: {type: made, depth: 2}}\n")).config
    assert (config.system.depth, config.sources["qa"].depth, config.sources["robot"].path) == (4, 2, "data/robot")


def test_a_source_of_a_base_file_can_be_taken_away() -> None:
    put("b.yaml", GOOD)
    text = "base: b.yaml\nsources: {qa: null}\nstages: [{name: main, steps: 1, mixture: {robot: 1}}]\n"
    assert set(load(put("c.yaml", text)).config.sources) == {"robot"}


def test_a_file_and_its_bases_merge_with_their_references_as_written() -> None:
    put("b.yaml", GOOD)
    data = merged(put("c.yaml", "base: b.yaml\nrun: {name: other, dir: 'x/${run.name}'}\nsystem: {widht: wrong}\n"))
    assert data["run"]["dir"] == "x/${run.name}"
    assert data["system"]["widht"] == "wrong"
    assert "base" not in data
    with pytest.raises(ConfigError, match="d.yaml:1: base: can't read 'gone.yaml'"):
        merged(put("d.yaml", "base: gone.yaml\n"))


def test_files_that_include_each_other_are_refused() -> None:
    put("a.yaml", "base: b.yaml\n")
    put("b.yaml", "base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"b.yaml:1: base: files include each other in a circle: a.yaml -> b.yaml -> a.yaml"):
        load("a.yaml")


def test_a_base_file_that_is_missing_is_told_with_the_line_that_names_it() -> None:
    assert errors("\nbase: no.yaml\n" + GOOD)[0].startswith("c.yaml:2: base: can't read 'no.yaml'")


# -- command line ----------------------------------------------------------------------------------------------


def test_settings_keep_their_siblings_and_reach_list_items() -> None:
    config = good(
        "optim.eps=1e-6",
        "stages.0.steps=7",
        "stages[main].mixture.qa=5",
        "evaluate[score].every=9",
        "optim={clip: 3.0}",
        "log.to=[jsonl]",
    )
    assert (config.optim.eps, config.optim.lr, config.optim.clip) == (1e-6, 1e-4, 3.0)
    assert (config.stages[0].steps, config.stages[1].mixture, config.evaluate[0].every) == (7, {"robot": 3.0, "qa": 5.0}, 9)
    assert config.log.to == ("jsonl",)


def test_a_type_set_on_the_command_line_comes_first() -> None:
    assert good("system.depth=3", "system.type=other").system.depth == 3


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("stages.7.steps=1", "stages has 2 entries, numbered from 0; there is no 7"),
        ("stages[mian].steps=1", "stages has no entry called 'mian'. Did you mean 'main'? Entries: warm, main"),
        ("run.name.x=1", "run.name is a value ('first'), not a section; it has no 'x'"),
        ("run..name=1", "is not a setting"),
        ("run.name=[1", "not readable as YAML"),
        ("optim.nme=muon", "command line 'optim.nme=muon': optim.nme: no such setting"),
        ("run={name: a, name: b}", "given twice"),
    ],
)
def test_a_wrong_word_of_the_command_line_is_quoted(token: str, expected: str) -> None:
    found = errors(GOOD, token)
    assert len(found) == 1
    assert expected in found[0]
    assert f"command line '{token}'" in found[0]


# -- references ------------------------------------------------------------------------------------------------


def test_references_fill_in_settings_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIX_N", "3")
    config = good(
        "run.dir=out/${run.name}-${env:MIX_N}-$${x}",
        "data.workers=${env:MIX_N}",
        "checkpoint.every=${log.every}",
        "system.rate=${optim.lr}",
    )
    assert config.run.dir == "out/first-3-${x}"
    assert (config.data.workers, config.checkpoint.every, config.system.rate) == (3, 10, 1e-4)
    assert good().run.dir == "runs/first"


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("run.dir=${env:MIX_NOT_SET}", "the environment variable 'MIX_NOT_SET' is not set"),
        ("run.dir=${run.nme}", "there is no setting 'run.nme'. Did you mean 'run.name'?"),
        ("run.dir=x${run.dir}", "references go in a circle: run.dir -> run.dir"),
        ("run.dir=${optim}", "is a section; only single values can be referred to"),
        ("run.dir=${run.name", "'${' without '}'"),
        ("data.workers=${run.nme}", "there is no setting"),
    ],
)
def test_a_reference_that_leads_nowhere_is_told_once(token: str, expected: str) -> None:
    found = errors(GOOD, token)
    assert len(found) == 1
    assert expected in found[0]
