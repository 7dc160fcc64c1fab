"""Sections of the report that come from evaluations: curves, tables with the steps side by side, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from mixtura.report.charts import Series, number, rate_bar
from mixtura.report.data import TOTALS, Rate, RunLog, finite, is_rate, mapping, pooled, tables_of
from mixtura.report.media import Budget
from mixtura.report.parts import chart, grid

COUNTS = ("successes", "trials", "rate", "success_rate", "low", "high")
"""Columns that a rate with its interval says already."""
MOST_LINES = 6
MOST_PICTURES = 6


@dataclass(frozen=True)
class Column:
    """One evaluation of one run."""

    run: RunLog
    record: Mapping[str, Any]
    many: bool

    @property
    def step(self) -> int:
        """Step of the run at which it was measured."""
        return int(self.record["step"])

    @property
    def label(self) -> str:
        """What the column is called."""
        when = f"step {self.step:,}" + (" (untrained)" if self.step == 0 else "")
        return f"{self.run.label} · {when}" if self.many else when


def evaluations(runs: Sequence[RunLog]) -> str:
    """Everything that evaluators measured, one part for each of them."""
    parts = []
    for name in dict.fromkeys(record["name"] for run in runs for record in run.evals):
        columns = _columns(runs, name)
        rates = _rate_chart(runs, name)
        cards = grid([rates, *_scalar_charts(runs, name, _said(runs, name) if rates else set())])
        titles = dict.fromkeys(title for column in columns for title in tables_of(column.record))
        tables = "".join(_table(title, columns) for title in titles)
        where = "first and last evaluation of each run" if len(runs) > 1 else ""
        parts.append(f"<h3>{escape(name)}<small>{where}</small></h3>{cards}{tables}{_scalar_table(columns)}")
    return "".join(parts)


def _columns(runs: Sequence[RunLog], name: str) -> list[Column]:
    """All evaluations of one run; the first and the last one of each where there are several runs."""
    columns = []
    for run in runs:
        records = [record for record in run.evals if record["name"] == name]
        shown = records if len(runs) == 1 or len(records) < 3 else [records[0], records[-1]]
        columns += [Column(run, record, len(runs) > 1) for record in shown]
    return columns


# -- curves ------------------------------------------------------------------------------------------------------
def _rate_line(name: str, rates: Sequence[Rate], color: int, whiskers: bool = True) -> Series:
    sides = [rate.interval for rate in rates]
    bounds = ([low for low, _ in sides], [high for _, high in sides]) if whiskers else None
    return Series(name, [r.step for r in rates], [r.value for r in rates], color, smooth=False, dots=True, bounds=bounds)


def _rate_chart(runs: Sequence[RunLog], name: str) -> str:
    """Success over steps, with intervals; for one run also by row, where there are few."""
    found = [(run, run.rates().get(name, [])) for run in runs]
    if max((len(rates) for _, rates in found), default=0) < 2:
        return ""
    if len(runs) > 1:
        return chart(
            "Success rate",
            [_rate_line(r.label, rates, k) for k, (r, rates) in enumerate(found)],
            runs,
            "95 % intervals",
            percent=True,
            unit="success",
        )
    by_row: dict[str, list[Rate]] = {}
    for record in (record for record in runs[0].evals if record["name"] == name):
        rows = next((rows for rows in tables_of(record).values() if any(map(is_rate, rows))), [])
        for row in rows:
            label = " ".join(value for value in row.values() if isinstance(value, str))
            if label and label.lower() not in TOTALS and (rate := pooled([row], record["step"])):
                by_row.setdefault(label, []).append(rate)
    few = by_row if 1 < len(by_row) <= MOST_LINES else {}
    lines = [_rate_line(label, rates, k, whiskers=False) for k, (label, rates) in enumerate(few.items())]
    return chart(
        "Success rate", [*lines, _rate_line("all", found[0][1], -1)], runs, "95 % intervals", percent=True, unit="success"
    )


def _said(runs: Sequence[RunLog], name: str) -> set[str]:
    """Scalars that only repeat the success rate."""
    pairs = [
        (key, finite(value) and abs(value - rate.value) < 1e-6)
        for run in runs
        for rate in run.rates().get(name, [])
        for record in run.evals
        if (record["name"], record["step"]) == (name, rate.step)
        for key, value in mapping(record, "scalars").items()
    ]
    return {key for key, _ in pairs} - {key for key, same in pairs if not same}


def _scalar_charts(runs: Sequence[RunLog], name: str, said: set[str]) -> list[str]:
    """A chart for every scalar that was measured at several steps; `term/source` scalars share one chart per term."""
    points: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for run in runs:
        for record in (record for record in run.evals if record["name"] == name):
            for key, value in mapping(record, "scalars").items():
                if finite(value) and key not in said:
                    xs, ys = points.setdefault((key, run.label), ([], []))
                    xs.append(record["step"])
                    ys.append(value)
    families: dict[str, list[Series]] = {}
    for (key, label), (xs, ys) in points.items():
        family, _, rest = key.partition("/")
        title = key if len(runs) > 1 else family
        series = families.setdefault(title, [])
        series.append(Series(label if len(runs) > 1 else rest or family, xs, ys, len(series), smooth=False, dots=True))
    return [
        chart(title, series, runs, log=False, unit=title)
        for title, series in families.items()
        if any(len(s.x) > 1 for s in series)
    ]


def _scalar_table(columns: Sequence[Column]) -> str:
    """Every scalar at every evaluation."""
    keys = dict.fromkeys(key for column in columns for key in mapping(column.record, "scalars"))
    if not keys:
        return ""
    head = "".join(f'<th class="n">{escape(column.label)}</th>' for column in columns)
    body = "".join(
        f"<tr><th>{escape(key)}</th>{''.join(_value(mapping(c.record, 'scalars').get(key)) for c in columns)}</tr>"
        for key in keys
    )
    return f"<h3>Figures</h3>{_wrap(head, body, '')}"


# -- tables ------------------------------------------------------------------------------------------------------
def _value(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'<td class="n">{number(value)}</td>'
    return '<td class="miss">–</td>' if value is None else f"<td>{escape(str(value))}</td>"


def _wrap(head: str, body: str, first: str) -> str:
    return f'<div class="card scroll"><table><thead><tr><th>{first}</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _identity(tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[str] | None:
    """Columns that tell rows apart: those of words, or the first one as well; None when rows can't be told apart."""
    rows = [row for table in tables for row in table]
    words = [key for key in rows[0] if all(isinstance(row.get(key, ""), (str, bool)) for row in rows)]
    first = [key for key in list(rows[0])[:1] if key not in COUNTS and key not in words]
    for columns in (words, first + words):
        if all(len({tuple(str(row.get(key)) for key in columns) for row in table}) == len(table) for table in tables):
            return columns
    return None


def _table(title: str, columns: Sequence[Column]) -> str:
    """One table of an evaluator, its steps side by side where rows can be matched, below each other where not."""
    columns = [column for column in columns if title in tables_of(column.record)]
    tables = [tables_of(column.record)[title] for column in columns]
    identity = _identity(tables)
    values = list(dict.fromkeys(key for table in tables for row in table for key in row if key not in (identity or ())))
    if any(is_rate(row) for table in tables for row in table):
        values = ["successes", *(key for key in values if key not in COUNTS)]
    inside = _listed(columns, tables, values) if identity is None else _side_by_side(columns, tables, identity, values)
    return f"<h3>{escape(title)}</h3>{inside}"


def _listed(columns: Sequence[Column], tables: Sequence[Sequence[Mapping[str, Any]]], values: Sequence[str]) -> str:
    head = "".join(f"<th{_aligned(key)}>{_heading(key)}</th>" for key in values)
    body = "".join(
        f"<tr><th>{escape(column.label)}</th>{''.join(_cell(row, key, column.step) for key in values)}</tr>"
        for column, table in zip(columns, tables, strict=True)
        for row in table
    )
    return _wrap(head, body, "Evaluation")


def _side_by_side(
    columns: Sequence[Column], tables: Sequence[Sequence[Mapping[str, Any]]], identity: Sequence[str], values: Sequence[str]
) -> str:
    """Rows by what identifies them; a group of value columns for every evaluation."""
    index = [{tuple(str(row.get(key, "")) for key in identity): row for row in table} for table in tables]
    keys = list(dict.fromkeys(key for rows in index for key in rows))
    single = len(values) == 1
    heads = [
        (escape(c.label) if single else _heading(v) if len(columns) == 1 else f"{escape(c.label)}<br>{_heading(v)}", v)
        for c in columns
        for v in values
    ]
    head = "".join(f"<th{_aligned(value)}>{text}</th>" for text, value in heads)
    lines = []
    for key in keys:
        cells = "".join(_cell(rows.get(key), value, c.step) for c, rows in zip(columns, index, strict=True) for value in values)
        total = ' class="sum"' if any(part.lower() in TOTALS for part in key) else ""
        lines.append(f"<tr{total}><th>{escape(' · '.join(key)) or '–'}</th>{cells}</tr>")
    if len(keys) > 1 and "successes" in values and not any(part.lower() in TOTALS for key in keys for part in key):
        sums = [pooled(table, column.step) for column, table in zip(columns, tables, strict=True)]
        blank = "<td></td>" * (len(values) - 1)
        lines.append(f'<tr class="sum"><th>all</th>{"".join(_rate_cell(s) + blank for s in sums)}</tr>')
    return _wrap(head, "".join(lines), escape(" · ".join(identity)))


def _heading(key: str) -> str:
    return "success" if key == "successes" else escape(key)


def _aligned(key: str) -> str:
    """Bars begin a group and lie to the left; figures lie to the right."""
    return ' class="g"' if key == "successes" else ' class="n"'


def _cell(row: Mapping[str, Any] | None, key: str, step: int) -> str:
    if row is None:
        return '<td class="miss">–</td>'
    return _rate_cell(pooled([row], step)) if key == "successes" and is_rate(row) else _value(row.get(key))


def _rate_cell(rate: Rate | None) -> str:
    if rate is None:
        return '<td class="miss">–</td>'
    kind = "g base0" if rate.step == 0 else "g"
    return f'<td class="{kind}">{rate_bar(rate.successes, rate.trials, rate.value, *rate.interval)}</td>'


# -- pictures ----------------------------------------------------------------------------------------------------
def media(runs: Sequence[RunLog], budget: Budget) -> str:
    """Pictures and clips by caption, steps side by side. The last evaluation has the first claim on the room."""
    parts = []
    for name in dict.fromkeys(record["name"] for run in runs for record in run.evals):
        columns = [column for column in _columns(runs, name) if mapping(column.record, "media")]
        order = sorted(range(len(columns)), key=lambda k: (k < len(columns) - 1, k > 0, -k))
        shown: dict[str, dict[int, str]] = {}
        for k in order:
            for caption, file in mapping(columns[k].record, "media").items():
                shown.setdefault(caption, {})[k] = budget.embed(columns[k].run.path, str(file), f"{caption}, {columns[k].label}")
        for caption, pictures in shown.items():
            figures = [
                f"<figure>{pictures[k]}<figcaption>{escape(columns[k].label)}</figcaption></figure>" for k in sorted(pictures)
            ]
            parts.append(f"<h3>{escape(caption)}<small>{escape(name)}</small></h3>{_strip(figures)}")
    return "".join(parts)


def _strip(figures: Sequence[str]) -> str:
    """Pictures in a row: the first and the last two in sight where there are many, the others folded away."""
    if len(figures) <= MOST_PICTURES:
        return f'<div class="strip{" many" if len(figures) > 2 else ""}">{"".join(figures)}</div>'
    others = f"<details><summary>{len(figures) - 3} more between them</summary>{_strip_of(figures[1:-2])}</details>"
    return _strip_of([figures[0], *figures[-2:]]) + others


def _strip_of(figures: Sequence[str]) -> str:
    return f'<div class="strip many">{"".join(figures)}</div>'
