"""What all measurements share: robust summaries, the machine, one JSON file a measurement."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mixtura.run import environment

RESULTS = Path(__file__).parent / "results"


def middle(values: Sequence[float]) -> float:
    """Mean of the middle half: neither a stalled machine nor a lucky moment counts."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return statistics.fmean(ordered[cut : len(ordered) - cut] or ordered)


def say(text: str) -> None:
    """A line of output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def keep(name: str, figures: dict[str, Any]) -> None:
    """Write `results/NAME.json` with the machine it was measured on."""
    RESULTS.mkdir(exist_ok=True)
    environ = environment()
    environ.pop("command")
    (RESULTS / f"{name}.json").write_text(json.dumps({"figures": figures, "environment": environ}, indent=1) + "\n")
    say(f"written: {RESULTS / name}.json")
