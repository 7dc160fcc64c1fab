"""Runs are read, and shown by stage, source and curve."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from mixtura.config import dump, load
from mixtura_demos.shared.errors import Refused
from mixtura_demos.training import runs, views
from tests.demos.training.pages import words


@pytest.fixture(scope="module")
def logs(folder: Path) -> list[Any]:
    return runs.read([folder / "runs" / "first", folder / "runs" / "second"])


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
