"""Chromium for the demos' tests: how it is started, what a page may ask for, screenshots for the docs."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

EXECUTABLE = os.environ.get("MIXTURA_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT = int(float(os.environ.get("MIXTURA_BROWSER_WAIT", "120")) * 1000)
"""Milliseconds until what should appear counts as missing; a busy machine takes its time."""
IMAGES = Path(__file__).parents[2] / "docs" / "images"


def missing() -> str | None:
    """Why no browser can be had, or None."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install -e 'demos[test]'"
    return None if EXECUTABLE else "chromium is not installed: apt-get install chromium fonts-dejavu-core"


def skip(reason: str) -> None:
    """Skip a test, or fail it where a browser must be there (MIXTURA_NEED_BROWSER=1)."""
    if os.environ.get("MIXTURA_NEED_BROWSER", "") not in ("", "0"):
        pytest.fail(f"MIXTURA_NEED_BROWSER is set, but {reason}")
    pytest.skip(reason)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser."""
    reason = missing()
    if reason:
        skip(reason)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=list(FLAGS))
        yield browser
        browser.close()


@dataclass
class Visit:
    """One user's page, with what it asked other hosts for and what its scripts complained of."""

    page: Any
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def visit(browser: Any, **settings: Any) -> Visit:
    """A page in a context of its own (cookies, storage, session), 1200 pixels wide."""
    settings.setdefault("viewport", {"width": 1200, "height": 900})
    page = browser.new_context(**settings).new_page()
    page.set_default_timeout(WAIT)
    seen = Visit(page)
    page.on("request", lambda request: _is_foreign(request.url) and seen.foreign.append(request.url))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    return seen


def _is_foreign(url: str) -> bool:
    return not re.match(r"(data|blob|about):|https?://(127\.0\.0\.1|localhost)(:\d+)?(/|$)", url)


def open_demo(page: Any, url: str, slug: str) -> Any:
    """Open a demo's own page (not the hub around it) and wait until it is drawn; returns the page."""
    page.goto(f"{url}/demo/{slug}/", wait_until="commit")
    page.locator(".gradio-container .block").first.wait_for()
    return page


def open_tab(page: Any, url: str, slug: str) -> Any:
    """Open the hub and a demo's tab in it; returns the frame, which finds things as a page does."""
    page.goto(f"{url}/#{slug}", wait_until="commit")
    frame = page.frame_locator(f"#panel-{slug} iframe")
    frame.locator(".gradio-container .block").first.wait_for()
    return frame


def error_in(page: Any) -> str:
    """The text of the error that the page shows; waits for it, then closes it."""
    toast = page.locator(".toast-body.error").first
    toast.wait_for()
    text: str = toast.inner_text()
    toast.locator("button").first.click()
    toast.wait_for(state="detached")
    return text


def screenshot(page: Any, part: str) -> None:
    """Write docs/images/demo-PART.png when MIXTURA_SCREENSHOTS is set: 1200 pixels wide, few colours."""
    if not os.environ.get("MIXTURA_SCREENSHOTS"):
        return
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    if picture.width != 1200:
        picture = picture.resize((1200, round(picture.height * 1200 / picture.width)))
    IMAGES.mkdir(parents=True, exist_ok=True)
    picture.quantize(colors=128, dither=Image.Dither.NONE).save(IMAGES / f"demo-{part}.png", optimize=True)
