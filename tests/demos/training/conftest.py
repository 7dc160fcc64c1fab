"""The training page served over a working folder with two runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demos import browser
from tests.demos.conftest import Server
from tests.demos.training import toy_runs

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with two runs and the repository's configurations."""
    root = tmp_path_factory.mktemp("training")
    toy_runs.make(root, "first", seed=3)
    toy_runs.make(root, "second", seed=4)
    shutil.copytree(REPOSITORY / "configs", root / "configs")
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    served = Server(folder, "training")
    yield served
    served.stop()


@pytest.fixture
def opened(page: Any, server: Server) -> Any:
    return browser.open_demo(page, server.url, "training")
