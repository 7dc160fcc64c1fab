"""Every recorded output of the published networks is reproduced."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.parity.__main__ import find_cases, run_case  # noqa: E402

CASES = find_cases(Path(__file__).parent)


@pytest.mark.parametrize("folder", CASES, ids=[f"{c.parent.name}/{c.name}" for c in CASES])
def test_outputs_agree_with_the_published_ones(folder: Path) -> None:
    """The table of `python -m tests.parity` for one case has no failure."""
    wrong = {name: problem or error for name, error, problem in run_case(folder) if problem}
    assert not wrong


def test_there_are_cases() -> None:
    """An empty folder is no success."""
    assert CASES
