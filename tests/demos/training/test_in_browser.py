"""The training page in a browser: runs are read and followed, a form is filled and written."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from mixtura.config import load
from mixtura_demos.training import runs
from mixtura_demos.training.watching import FOLLOW_SECONDS
from tests.demos import browser
from tests.demos.training.pages import choose


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
    tip = page.locator("#run-view .tip")
    for _ in range(20):  # a late drawing takes the tip along, until the pointer moves again
        page.mouse.move(0, 0)
        chart(page, "loss").locator("svg").first.hover()
        page.wait_for_timeout(300)
        if tip.count():
            break
    expect(tip).to_contain_text("first")
    browser.screenshot(page, "training")


@pytest.mark.parametrize("refused", [False, True], ids=["drawn at once", "drawn at the second try"])
def test_a_run_that_goes_on_is_followed(opened: Any, folder: Path, refused: bool) -> None:
    from playwright.sync_api import expect

    page = opened
    newest = runs.found(root=folder)[0].path
    log = newest / "log.jsonl"
    text = log.read_text()
    page.get_by_label("Problems").check()
    expect(page.locator("#run-view")).to_contain_text("Bad samples")
    page.get_by_label("Follow what is still running").check()
    turned_away: list[float] = []

    def refuse(route: Any) -> None:
        """The drawings of one look at the run are turned away, all else goes through."""
        drawing = "Problems" in json.loads(route.request.post_data)["data"]
        if drawing and (not turned_away or time.monotonic() - turned_away[0] < FOLLOW_SECONDS / 2):
            turned_away.append(time.monotonic())
            route.fulfill(status=503, content_type="application/json", body='{"detail": "Queue is full."}')
        else:
            route.continue_()

    if refused:
        page.route("**/queue/join*", refuse)
    try:
        with log.open("a") as file:
            file.write(json.dumps({"kind": "bad", "step": 28, "source": "fast", "item": 7, "reason": "came just now"}) + "\n")
        expect(page.locator("#run-view")).to_contain_text("came just now")
        assert bool(turned_away) == refused
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
