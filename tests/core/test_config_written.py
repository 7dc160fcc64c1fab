"""Configurations as they leave: dumped and read back, annotated with origins, compared, resolved for a stage."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtura.config import Loaded, dump, load, loads
from mixtura.config.show import annotated, difference, origins_in
from tests.core.config_tools import GOOD, good, put
from tests.core.strategies import SCALARS, WORDS

pytestmark = pytest.mark.usefixtures("mini_plugin", "empty_folder")


# -- written and read back ---------------------------------------------------------------------------------------


def test_a_dumped_configuration_loads_back_equal() -> None:
    config = good("run.dir=$${x}", "system.label='on'", "train.ema={decay: 0.9}")
    assert load(put("saved.yaml", dump(config))).config == config


def test_infinity_in_a_free_setting_is_not_lost() -> None:
    config = good("system.options={limits: [.inf, -.inf, {top: .inf}], none: null}")
    assert loads(dump(config)).config == config


def test_a_run_folder_stands_for_its_configuration() -> None:
    put("runs/r/config.yaml", GOOD)
    assert load("runs/r").config.run.name == "first"


@given(
    label=WORDS,
    rate=st.floats(allow_nan=False),
    options=st.dictionaries(WORDS, SCALARS | st.lists(SCALARS, max_size=3), max_size=3),
    lr=st.floats(1e-300, 1e300),
    seed=st.integers(0, 2**62),
    weights=st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_any_configuration_survives_dump_and_load(
    label: str, rate: float, options: dict[str, Any], lr: float, seed: int, weights: list[float]
) -> None:
    first = good()
    stage = first.stages[0].model_copy(update={"mixture": dict(zip(("robot", "qa"), weights, strict=True))})
    updates: dict[str, Any] = {"system": first.system.model_copy(update={"label": label, "rate": rate, "options": options})}
    updates["run"] = first.run.model_copy(update={"seed": seed})
    updates["optim"] = first.optim.model_copy(update={"lr": lr})
    config = first.model_copy(update={**updates, "stages": (stage, *first.stages[1:])})
    assert loads(dump(config)).config == config


# -- shown to people ---------------------------------------------------------------------------------------------


def shown() -> Loaded:
    put("b.yaml", "log: {every: 5}\n")
    return load(put("c.yaml", "base: b.yaml\n" + GOOD), ["run.seed=4", "log.to=[jsonl]", "system.label='a\n\n  b'"])


def test_the_annotated_configuration_tells_origins_and_loads_back_equal() -> None:
    loaded = shown()
    text = annotated(loaded)
    comments = {line.split(":")[0].strip("- "): line.partition("  # ")[2] for line in text.splitlines() if "  # " in line}
    assert comments["seed"] == "command line 'run.seed=4'"
    assert comments["eps"] == "default"
    assert "every: 5" in text
    assert "# b.yaml:1" in text
    assert loads(text).config == loaded.config


def test_origins_are_read_back_from_an_annotated_configuration() -> None:
    found = origins_in(annotated(loads(GOOD, ["run.seed=4", "system.options={a: [[1], [2]], b: 'x  # y'}"], name="c.yaml")))
    assert found[("run", "seed")] == (4, "command line 'run.seed=4'")
    assert found[("optim", "lr")] == (1e-4, "c.yaml:" + str(1 + GOOD[: GOOD.index("lr:")].count("\n")))
    assert found[("optim", "eps")] == (1e-8, "default")
    assert found[("system", "options", "a")][0] == [[1], [2]]
    assert found[("system", "options", "b")][0] == "x  # y"
    assert ("stages", 0, "steps") in found


def test_a_configuration_without_comments_tells_no_origins() -> None:
    assert origins_in(dump(good())) == {}


def test_a_difference_names_paths_and_both_values() -> None:
    assert difference(good(), good("optim.lr=1", "stages[warm].mixture.qa=2")) == [
        "optim.lr: 0.0001 -> 1.0",
        "stages[0].mixture.qa: (absent) -> 2.0",
    ]


def test_stage_and_player_settings_go_over_those_of_the_run() -> None:
    config = good("optim.players={critic: {lr: 5e-4, clip: 0}}", "stages[warm].schedule={warmup: 3}")
    assert config.optim_for(config.stages[0], "critic").lr == 5e-4
    assert config.optim_for(config.stages[1], "critic").lr == 2e-4
    assert config.optim_for(config.stages[1], "critic").clip == 0
    assert config.schedule_for(config.stages[0]).warmup == 3
    assert config.steps == 400
