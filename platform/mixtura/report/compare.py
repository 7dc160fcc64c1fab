"""Sections of a report on several runs: their figures in one table, and the settings that differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from mixtura.report.charts import number, rate_bar
from mixtura.report.data import Rate, RunLog
from mixtura.report.parts import bad_count, duration, ends, mean_of, share, table

PRIVATE = ("run.name", "run.dir")
"""Settings that always differ."""
ABSENT = "–"


def comparison(runs: Sequence[RunLog]) -> str:
    """One row a run: success with interval, loss, time, samples, speed."""
    evaluators = list(dict.fromkeys(name for run in runs for name in run.rates()))
    head = ["Run", "Steps"]
    for name in evaluators:
        head += [f"{escape(name)}: untrained", f"{escape(name)}: last", f"{escape(name)}: best"]
    head += ["Loss at the end", "Run time", "Samples seen", "Samples/s", "Waiting", "Bad"]
    rows = []
    for k, run in enumerate(runs):
        mark = f'<span class="c{k % 8}" style="color:var(--k)">●</span> {escape(run.label)}'
        steps = f"{run.steps:,}" + ("" if run.done else " (not ended)")
        rates = [cell for name in evaluators for cell in _rates(run.rates().get(name, []))]
        rows.append([mark, steps, *rates, *_figures(run)])
    return table(head, rows, range(len(head) - 6, len(head)), "differs")


def _rates(rates: Sequence[Rate]) -> list[str]:
    """Cells for the untrained, the last and the best measurement."""
    if not rates:
        return [ABSENT] * 3
    first, last, best = rates[0], rates[-1], max(rates, key=lambda rate: rate.value)
    untrained = _bar(first) if first.step == 0 else ABSENT
    return [f'<span class="base0">{untrained}</span>', _bar(last), f"{share(best.value)} at step {best.step:,}"]


def _bar(rate: Rate) -> str:
    return rate_bar(rate.successes, rate.trials, rate.value, *rate.interval)


def _figures(run: RunLog) -> list[str]:
    losses = run.series("loss")[1]
    speed, waits = mean_of(run, "samples_per_s"), mean_of(run, "wait_share")
    return [
        number(ends(losses)[1]) if losses else ABSENT,
        duration(run.seconds),
        f"{run.samples_seen:,}" if run.samples_seen else ABSENT,
        number(speed) if speed is not None else ABSENT,
        share(waits) if waits is not None else ABSENT,
        f"{bad_count(run):,}",
    ]


def flat(value: Any, path: str = "") -> dict[str, str]:
    """Settings by dotted path; items of a list go by their `name`, `type` or number."""
    if isinstance(value, dict) and value:
        parts = [flat(inner, f"{path}.{key}" if path else str(key)) for key, inner in value.items()]
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        names = [str(item.get("name") or item.get("type") or k) for k, item in enumerate(value)]
        marks = [name if names.count(name) == 1 else f"{name}#{k}" for k, name in enumerate(names)]
        parts = [flat(item, f"{path}[{mark}]") for mark, item in zip(marks, value, strict=True)]
    else:
        return {path: value if isinstance(value, str) else json.dumps(value, default=str)}
    return {key: text for part in parts for key, text in part.items()}


def config_differences(runs: Sequence[RunLog]) -> str:
    """Settings that aren't the same in all runs."""
    known = [run for run in runs if run.config]
    if len(known) < 2:
        return ""
    settings = [flat(run.config) for run in known]
    keys = [key for key in dict.fromkeys(k for s in settings for k in s) if key not in PRIVATE]
    differing = [key for key in keys if len({s.get(key) for s in settings}) > 1]
    if not differing:
        return '<div class="card empty">All settings are the same.</div>'
    rows = [[f"<code>{escape(key)}</code>", *(escape(s.get(key, ABSENT)) for s in settings)] for key in differing]
    return table(["Setting", *(escape(run.label) for run in known)], rows, kind="differs")
