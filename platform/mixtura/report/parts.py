"""The small pieces of HTML and the summaries that all sections of the report share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from mixtura.report.charts import Series, line_chart, style
from mixtura.report.data import Rate, RunLog, finite


def figure(title: str, svg: str, legend: Sequence[tuple[str, int]] = (), sub: str = "") -> str:
    """A card with a chart; "" without one. Legend entries (name, colour) switch series on and off."""
    if not svg:
        return ""
    keys = "".join(
        f'<button type="button" class="{style(color)}" data-k="{k}" aria-pressed="true"><i></i>{escape(name)}</button>'
        for k, (name, color) in enumerate(legend)
    )
    small = f"<small>{escape(sub)}</small>" if sub else ""
    shown = f'<div class="legend">{keys}</div>' if len(legend) > 1 else ""
    return f'<figure class="card chart"><figcaption>{escape(title)}{small}</figcaption>{svg}{shown}</figure>'


def chart(title: str, series: Sequence[Series], runs: Sequence[RunLog], sub: str = "", **options: Any) -> str:
    """A card with lines over steps; stages are marked where all runs have the same."""
    series = [s for s in series if len(s.x)]
    bands = marks(runs[0]) if all(run.stages == runs[0].stages for run in runs) else []
    options.setdefault("last", max(run.steps for run in runs))
    options.setdefault("first", min(run.first for run in runs))
    return figure(title, line_chart(series, title, bands=bands, **options), [(s.name, s.color) for s in series], sub)


def marks(run: RunLog) -> list[tuple[int, str]]:
    """The stages to mark in charts: none where there is only one."""
    return run.stages if len(run.stages) > 1 else []


def grid(cards: Sequence[str]) -> str:
    """Cards side by side; "" without any."""
    inside = "".join(cards)
    return f'<div class="grid2">{inside}</div>' if inside else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = (), kind: str = "") -> str:
    """A table of cells that are HTML already; columns in `numeric` are right-aligned."""

    def cell(tag: str, k: int, text: str) -> str:
        return f"<{tag}{' class=n' if k in numeric else ''}>{text}</{tag}>"

    top = "".join(cell("th", k, text) for k, text in enumerate(head))
    body = "".join(f"<tr>{''.join(cell('td' if k else 'th', k, text) for k, text in enumerate(row))}</tr>" for row in rows)
    return f'<div class="card scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def duration(seconds: float | None) -> str:
    """A time for people."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes < 10 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def share(value: float) -> str:
    """A share in %, with a decimal where it is small."""
    return f"{value * 100:.1f} %" if value < 0.1 else f"{value * 100:.0f} %"


def bar(rate: Rate) -> str:
    """The interval of a rate as a strip."""
    low, high = rate.interval
    return (
        f'<span class="track"><i class="iv" style="left:{low * 100:.1f}%;width:{(high - low) * 100:.1f}%"></i>'
        f'<i class="dot" style="left:{rate.value * 100:.1f}%"></i></span>'
    )


def rate_text(rate: Rate) -> str:
    """Counts and interval of a rate."""
    low, high = rate.interval
    return f"{rate.successes} of {rate.trials}, 95 % interval {low * 100:.0f}–{high * 100:.0f} %"


def ends(values: Sequence[float]) -> tuple[float, float]:
    """Mean of the first and of the last twentieth of a curve; of up to five values where that is fewer."""
    size = max(1, len(values) // 20, min(5, len(values) // 4))
    return float(np.mean(values[:size])), float(np.mean(values[-size:]))


def mean_of(run: RunLog, key: str) -> float | None:
    """Mean of a figure over steps, log lines weighted by the steps they stand for."""
    total, steps, before = 0.0, 0, run.first
    for line in run.train:
        if finite(line.get(key)):
            total += line[key] * (line["step"] - before)
            steps += line["step"] - before
        before = line["step"]
    return total / steps if steps else None


def epochs_of(run: RunLog, source: str) -> float | None:
    """How often a source was used over all stages: each stage counts from 0."""
    values = run.series(f"epoch/{source}")[1]
    return sum(a for a, b in itertools.pairwise([*values, 0.0]) if b < a) if values else None


def bad_count(run: RunLog) -> int:
    """Samples that were replaced: as summed in the log lines, or as named one by one where that is more."""
    return max(int(sum(run.series("bad_samples")[1])), len(run.bad))
