"""Run the parity cases: `python -m tests.parity [CASES]`.

CASES is the folder that holds `<plugin>/<case>/` (this one by default), or one `<plugin>/<case>` of it. Prints case,
output, relative error and verdict, and ends with 1 when an error exceeds 1e-4, an output is not finite, or a case has
no runner. Runners are the functions in `CASES` of `tests/parity/cases_<plugin>.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.parity.fill import compare

LIMIT = 1e-4
"""Largest relative error in float32 that still counts as equal."""

HERE = Path(__file__).parent
Outputs = Iterator[tuple[str, Any, Any]]
"""Name, our output, recorded output."""
Runner = Callable[[Path], Outputs]


def runner_of(plugin: str, case: str) -> Runner | None:
    """The function that runs a case, None when nobody registered one."""
    name = f"tests.parity.cases_{plugin}"
    if find_spec(name) is None:
        return None
    runner: Runner | None = import_module(name).CASES.get(case)
    return runner


def find_cases(folder: Path) -> list[Path]:
    """All `<plugin>/<case>` folders with a golden.npz below `folder`, or `folder` itself when it is one."""
    if (folder / "golden.npz").is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/*/golden.npz"))


def run_case(folder: Path) -> Iterator[tuple[str, float, str]]:
    """(output, relative error, what is wrong: "" when nothing) for one case."""
    runner = runner_of(folder.parent.name, folder.name)
    if runner is None:
        yield "-", float("inf"), "no runner"
        return
    for name, actual, expected in runner(folder):
        try:
            error = compare(actual, expected, name)
        except ValueError as problem:
            yield name, float("inf"), str(problem)
            continue
        yield name, error, "" if error <= LIMIT else "too far"


def main(arguments: list[str]) -> int:
    """Print the table; 0 when everything holds."""
    folder = Path(arguments[0]) if arguments else HERE
    cases = find_cases(folder)
    if not cases:
        print(f"{folder}: no <plugin>/<case>/golden.npz below it", file=sys.stderr)
        return 1
    bad = total = 0
    print(f"{'case':<28} {'output':<34} {'rel. error':>11}  ok")
    for case in cases:
        for name, error, problem in run_case(case):
            total += 1
            bad += bool(problem)
            print(f"{case.parent.name + '/' + case.name:<28} {name:<34} {error:>11.2e}  {problem or 'yes'}")
    print(f"{total - bad} of {total} outputs agree within {LIMIT:g}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
