"""The emulated kernels touch no memory that is not theirs: all their tests again, under the address sanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def runtime(name: str) -> str | None:
    """Path of a sanitizer's runtime, which Python has to load first."""
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    return found if Path(found).is_absolute() else None


@pytest.mark.slow
def test_the_address_sanitizer_finds_nothing() -> None:
    runtimes = [runtime("libasan.so"), runtime("libubsan.so")]
    if None in runtimes:
        pytest.skip("g++ has no sanitizer runtime here")
    # Fibers have stacks of their own, which the sanitizer's fake ones would not survive.
    settings = {"LD_PRELOAD": ":".join(map(str, runtimes)), "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0"}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(HERE / "cuda")]
    environment = {**os.environ, **settings, "MIXTURA_EMULATION_SANITIZE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HERE.parents[1], check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
