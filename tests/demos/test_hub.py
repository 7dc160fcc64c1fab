"""The hub in a real browser: named tabs, broken demos apart, keyboard and labels, users that don't mix, the line of jobs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixtura.errors import MixturaError
from mixtura.plugins import Registry, registry
from mixtura_demos import hub
from mixtura_demos import serve as serving
from tests.demos import browser
from tests.demos.client import Client
from tests.demos.conftest import ODD, Server

FOCUSED = "(document.activeElement.labels?.[0] || document.activeElement).innerText?.trim().split('\\n')[0]"
NAMES = ["training", "diffusion_gs", "iflybot_vla", "live_portrait"]


def expect(locator: Any) -> Any:
    """Playwright's assertions, which wait."""
    from playwright.sync_api import expect as asserting

    return asserting(locator)


def start(page: Any, word: str, rounds: int) -> None:
    """Begin a job of the plain demo."""
    page.get_by_label("Word").fill(word)
    page.get_by_label("Rounds").fill(str(rounds))
    page.get_by_role("button", name="Start").click()


def until(holds: Callable[[], bool]) -> None:
    """Wait for what the server does by itself."""
    deadline = time.monotonic() + browser.WAIT / 1000
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def colour(page: Any) -> list[int]:
    """The colour of the picture that a job drew."""
    picture = page.locator("img[src*='session-']")
    picture.wait_for()
    return picture.evaluate(
        """async (img) => { await img.decode(); const c = document.createElement("canvas"); c.width = c.height = 1;
        const d = c.getContext("2d"); d.drawImage(img, 0, 0, 1, 1); return [...d.getImageData(0, 0, 1, 1).data]; }"""
    )


def test_the_page_names_every_demo_without_importing_one() -> None:
    before = set(sys.modules)
    entries = hub.entries()
    text = hub.page(entries)
    assert [entry.name for entry in entries][: len(NAMES)] == NAMES
    assert all(f">{entry.title}</button>" in text for entry in entries)
    assert not [name for name in set(sys.modules) - before if name.startswith(("gradio", "torch", "mixtura_demos."))]


def test_what_comes_later_needs_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXTURA_PLUGINS", ODD["MIXTURA_PLUGINS"])
    registry.cache_clear()
    entries = {entry.name: entry for entry in hub.entries()}
    registry.cache_clear()
    assert entries["plain"].title == "Plain"
    assert entries["unimportable"].title == "Unimportable"
    assert re.fullmatch("[A-Za-z0-9_-]+", entries['odd "<name>"/..'].slug)


def test_a_hub_without_demos_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "registry", lambda: Registry([]))
    assert "No demo is installed" in hub.page(hub.entries())


def test_each_of_our_demos_opens_in_the_hub(served: Server, page: Any) -> None:
    page.goto(served.url, wait_until="commit")
    page.get_by_role("tab").first.wait_for()
    browser.screenshot(page, "hub")
    for name in NAMES:
        page.locator(f"#tab-{name}").click()
        expect(page.frame_locator(f"#panel-{name} iframe").locator(".gradio-container .block").first).to_be_visible()
    assert page.locator("[role=tab].failed").count() == 0


def test_every_tab_opens_and_a_broken_one_tells_why(odd: Server, page: Any) -> None:
    page.goto(odd.url, wait_until="commit")
    tabs = page.get_by_role("tab")
    assert tabs.all_inner_texts()[:2] == ["Overview", "Training"]
    told = {"unbuildable": "RuntimeError: the <b>half</b>", "unimportable": "no_such_demo", "leaving": "SystemExit: 3"}
    for slug, reason in told.items():
        page.locator(f"#tab-{slug}").click()
        alert = page.frame_locator(f"#panel-{slug} iframe").get_by_role("alert")
        expect(alert).to_contain_text(reason)
        expect(page.locator(f"#tab-{slug}")).to_have_class("failed")
    page.get_by_role("tab", name="Odd").click()
    expect(page.frame_locator("iframe:visible").get_by_role("alert")).to_contain_text("must return a gradio.Blocks")
    page.get_by_role("tab", name="Plain").click()
    expect(page.frame_locator("#panel-plain iframe").get_by_role("button", name="Start")).to_be_visible()


def test_tabs_work_by_keyboard_and_keep_what_was_written(odd: Server, page: Any) -> None:
    frame = browser.open_tab(page, odd.url, "plain")
    frame.get_by_label("Word").fill("kept")
    tab = page.locator("#tab-plain")
    tab.focus()
    page.keyboard.press("Home")
    expect(page.locator("#tab-overview")).to_be_focused()
    expect(page.locator("#panel-plain")).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("[role=tab]").last).to_be_focused()
    tab.click()
    expect(frame.get_by_label("Word")).to_have_value("kept")


def test_every_field_has_a_name_and_is_reached_by_tab(odd: Server, page: Any) -> None:
    browser.open_demo(page, odd.url, "plain")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, select, button")].filter((e) => e.offsetParent && !(
        e.labels?.length || e.ariaLabel || e.getAttribute("aria-labelledby") || e.title || e.innerText?.trim()))
        .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("(document.activeElement.labels?.[0] || document.activeElement).innerText?.trim().split('\\n')[0]")
        )
    assert {"Tell", "Measure", "Check", "Word", "Rounds", "Start", "Cancel", "Fail"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_follow_the_browsers_preference(scheme: str, odd: Server, new_page: Callable[..., Any]) -> None:
    page = new_page(color_scheme=scheme)
    frame = browser.open_tab(page, odd.url, "plain")
    grey = "e => getComputedStyle(e).backgroundColor.match(/[0-9.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 3"
    hub_page = page.locator("body").evaluate(grey)
    demo_page = frame.locator("body").evaluate(grey)
    ink = frame.locator(".mx-note p").first.evaluate(grey.replace("backgroundColor", "color"))
    assert (hub_page > 200, demo_page > 200) == ((True, True) if scheme == "light" else (False, False))
    assert abs(ink - demo_page) > 70


def test_two_users_get_their_own_results(odd: Server, new_page: Callable[..., Any]) -> None:
    users = {word: browser.open_demo(new_page(), odd.url, "plain") for word in ("ab", "cd")}
    for word, page in users.items():
        start(page, word, 3)
    for word, page in users.items():
        expect(page.get_by_label("Said")).to_have_value(f"{word} 3")
        assert colour(page)[0] == sum(word.encode()) % 256


def test_a_cancelled_job_lets_the_next_one_in(odd: Server, new_page: Callable[..., Any]) -> None:
    first, second = (browser.open_demo(new_page(), odd.url, "plain") for _ in range(2))
    start(first, "long", 100_000)
    expect(first.get_by_label("Said")).to_have_value(re.compile("long [1-9]"))
    start(second, "short", 2)
    first.get_by_role("button", name="Cancel").click()
    expect(second.get_by_label("Said")).to_have_value("short 2")
    assert re.fullmatch(r"long \d+", first.get_by_label("Said").input_value())
    start(first, "again", 1)
    expect(first.get_by_label("Said")).to_have_value("again 1")


def test_a_closed_page_ends_its_job_and_its_files_go(odd: Server, new_page: Callable[..., Any], page: Any) -> None:
    leaving = browser.open_demo(new_page(), odd.url, "plain")
    start(leaving, "long", 100_000)
    colour(leaving)
    source = leaving.locator("img[src*='session-']").get_attribute("src")
    folder = Path(source.partition("file=")[2]).parent
    assert folder.is_dir()
    leaving.close()
    browser.open_demo(page, odd.url, "plain")
    start(page, "next", 1)
    expect(page.get_by_label("Said")).to_have_value("next 1")
    until(lambda: not folder.exists())


def test_an_uploaded_picture_goes_with_its_page(odd: Server, new_page: Callable[..., Any], tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (7, 5)).save(tmp_path / "mine.png")
    page = browser.open_demo(new_page(), odd.url, "plain")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "mine.png")
    page.locator("img[src*='mine.png']").wait_for()
    page.get_by_role("button", name="Measure").click()
    expect(page.get_by_label("Size")).to_have_value("5 x 7 x 3")
    stored = list(odd.temporary.rglob("mine.png"))
    assert len(stored) == 1
    page.close()
    until(lambda: not stored[0].exists())


def test_errors_are_named_in_the_page_without_places_of_the_server(odd: Server, page: Any) -> None:
    browser.open_demo(page, odd.url, "plain")
    page.get_by_label("Word").fill("refuse")
    page.get_by_role("button", name="Fail").click()
    assert "the word 'refuse' is refused; write another one" in browser.error_in(page)
    page.get_by_label("Word").fill("<i>other</i>")
    page.get_by_role("button", name="Fail").click()
    text = browser.error_in(page)
    assert "something went wrong: RuntimeError: secret things" in text
    assert "/home" not in text


def test_a_file_of_half_a_gigabyte_is_refused_in_the_page(odd: Server, page: Any, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(500 * 2**20)
    browser.open_demo(page, odd.url, "plain")
    page.locator("input[type=file]").first.set_input_files(large)
    assert re.search("larger than|exceed|too large|maximum", browser.error_in(page), re.IGNORECASE)


def test_a_hostile_name_is_refused_in_the_page(odd: Server, page: Any, tmp_path: Path) -> None:
    file = tmp_path / "a;touch $HOME.png"
    file.write_bytes(b"nothing")
    browser.open_demo(page, odd.url, "plain")
    page.locator("input[type=file]").first.set_input_files(file)
    assert "rename the file" in browser.error_in(page)


def test_a_broken_picture_is_refused_in_the_page(odd: Server, page: Any, tmp_path: Path) -> None:
    from PIL import Image

    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    assert bomb.stat().st_size < 200_000
    browser.open_demo(page, odd.url, "plain")
    page.locator("input[type=file]").first.set_input_files(bomb)
    page.locator("img[src*='bomb.png']").wait_for()
    page.get_by_role("button", name="Measure").click()
    assert "exceeds limit of 40000000 pixels" in browser.error_in(page)


def test_no_network_library_is_loaded_before_a_demo_is_used(serve: Callable[..., Server], odd_folder: Path, page: Any) -> None:
    server = serve(odd_folder, **ODD)
    browser.open_tab(page, server.url, "plain")
    mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch" not in mapped
    assert "numpy" in mapped  # the list can be read


def test_one_demo_alone_has_no_other_tabs(serve: Callable[..., Server], odd_folder: Path, page: Any) -> None:
    server = serve(odd_folder, "plain", **ODD)
    page.goto(server.url, wait_until="commit")
    expect(page.frame_locator("iframe").get_by_role("button", name="Start")).to_be_visible()
    assert page.get_by_role("tab").all_inner_texts() == ["Plain"]


def test_a_new_plugins_demo_shows_up_and_works(serve: Callable[..., Server], odd_folder: Path, page: Any) -> None:
    from mixtura.scaffold import write_plugin

    folder = write_plugin("wave_maker", odd_folder)
    env = {"MIXTURA_PLUGINS": "mixtura_wave_maker:plugin", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "mixtura.cli", "train", str(folder / "configs/quickstart.yaml"), "stages.0.steps=20"]
    subprocess.run(command, cwd=odd_folder, env={**os.environ, **env, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True)
    server = serve(odd_folder, **env)
    frame = browser.open_tab(page, server.url, "wave_maker")
    frame.get_by_role("button", name="Continue the wave").click()
    expect(frame.get_by_label("Result")).to_have_value(re.compile(r"predicted .* seed 0"))
    frame.get_by_label("Noise").fill("-1")
    frame.get_by_role("button", name="Continue the wave").click()
    assert "noise must be" in browser.error_in(frame)


def test_a_host_that_others_reach_is_warned_of(serve: Callable[..., Server], odd_folder: Path) -> None:
    server = serve(odd_folder, "--host", "0.0.0.0", **ODD)
    assert "lets other machines in" in "".join(server.lines)
    assert Client(server.url.replace("0.0.0.0", "127.0.0.1"), "plain").request("GET", "//", Host="machine.example")[0] == 200


def test_a_taken_port_is_told() -> None:
    taken = serving.bind("127.0.0.1", 0)
    with pytest.raises(MixturaError, match="can't listen on 127.0.0.1, port"):
        serving.bind("127.0.0.1", taken.getsockname()[1])
    taken.close()


def test_files_have_addresses_below_the_demos_path(odd: Server) -> None:
    client = Client(odd.url, "plain")
    waited, at_once = client.press("Start", ["w", 1])["output"]["data"][1], client.press_at_once("Paint", ["w"])[0]
    for drawn in (waited, at_once):
        assert drawn["url"].startswith(f"{odd.url.rstrip('/')}/demo/plain/"), drawn["url"]
        assert client.request("GET", f"/{drawn['url'].partition('/demo/plain/')[2]}")[0] == 200
