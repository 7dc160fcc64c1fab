"""Fixtures of the demos' tests: tiny trained runs, a hub in a process of its own, pages of Chromium."""

from __future__ import annotations

import importlib
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demos import browser

PARTS = ("iflybot_vla", "diffusion_gs", "live_portrait")
ODD = {"MIXTURA_PLUGINS": "tests.demos.odd_demos:plugin", "PYTHONPATH": str(Path(__file__).parents[2])}
"""Settings of a server that finds the tests' own demos."""


class Runs:
    """Tiny runs; `runs / "live_portrait"` is one, trained when first asked for in `root`/runs, where a hub finds it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: dict[str, Path] = {}

    def __truediv__(self, part: str) -> Path:
        if part not in self._made:
            run: Path = importlib.import_module(f"tests.demos.{part}_run").make(self.root)
            listed = self.root / "runs" / run.name
            if run != listed:
                listed.parent.mkdir(parents=True, exist_ok=True)
                listed.symlink_to(run)
            self._made[part] = listed
        return self._made[part]


class Server:
    """`mixtura demo` in a process of its own."""

    def __init__(self, folder: Path, *words: str, **env: str) -> None:
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp"), **env}
        self.root = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-u", "-m", "mixtura.cli", "demo", *words, "--port", "0"]
        self.process = subprocess.Popen(
            command, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self.lines: list[str] = []
        self._fresh: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = self._address()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line)
            self._fresh.put(line)
        self._fresh.put(None)

    def _address(self) -> str:
        """The address that the server prints."""
        while (line := self._fresh.get(timeout=120)) is not None:
            if found := re.search(r"http://\S+?(?=/ )", line):
                return found[0]
        raise AssertionError("the server ended:\n" + "".join(self.lines))

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Runs:
    """Tiny runs of the parts whose tests are collected."""
    made = Runs(tmp_path_factory.mktemp("demos"))
    files = {item.path.name for item in request.session.items}
    for part in PARTS:
        if any(name.startswith(f"test_{part}") for name in files):
            made / part
    return made


@pytest.fixture(scope="session")
def served(runs: Runs) -> Iterator[Server]:
    """A hub with all demos, started where the tiny runs lie."""
    server = Server(runs.root)
    yield server
    server.stop()


def plain_run(root: Path, name: str) -> Path:
    """What looks like a run of the odd demos' system."""
    step = root / "runs" / name / "step-000001"
    step.mkdir(parents=True)
    (step / "DONE").write_text("{}")
    (step.parent / "config.yaml").write_text("system: {type: plain_system}\n")
    return step.parent


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """A working folder with a run for the odd demos."""
    plain_run(tmp_path, "alpha")
    return tmp_path


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A hub with the tests' own demos besides ours, good ones and broken ones."""
    folder = tmp_path_factory.mktemp("odd")
    plain_run(folder, "alpha")
    server = Server(folder, **ODD)
    yield server
    server.stop()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers of a test's own: `serve(folder, "plain", **ODD)`; they end with it."""
    started: list[Server] = []

    def start(folder: Path, *words: str, **env: str) -> Server:
        started.append(Server(folder, *words, **env))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser; its tests are skipped without one, or fail when MIXTURA_NEED_BROWSER is set."""
    with browser.chromium() as started:
        yield started


@pytest.fixture
def new_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Makes pages of separate users; afterwards none may have asked another host for anything, or have failed scripts."""
    visits: list[browser.Visit] = []

    def make(**settings: Any) -> Any:
        visits.append(browser.visit(chromium, **settings))
        return visits[-1].page

    yield make
    for visit in visits:
        visit.page.context.close()
    assert [url for visit in visits for url in visit.foreign] == []
    assert [text for visit in visits for text in visit.complaints] == []


@pytest.fixture
def page(new_page: Callable[..., Any]) -> Any:
    """One user's page."""
    return new_page()
