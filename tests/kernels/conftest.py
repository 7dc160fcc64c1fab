"""What the tests of the splatting kernels share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch

with suppress(ImportError):  # torch's compiler needs it, and it refuses to come after the standard library's distutils
    import setuptools  # noqa: F401

from mixtura_splat import backend


@pytest.fixture
def fresh_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A monkeypatch under which libraries are looked up anew, as at the start of a process."""
    backend.load.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    backend.load.cache_clear()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Scenes are tiny: on a busy machine, threads that wait for each other take longer than one alone."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
