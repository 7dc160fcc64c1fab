"""Sections of the report that come from the training log, the configuration and the environment."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from mixtura.report.charts import Series, number, stacked_chart
from mixtura.report.data import Rate, RunLog, finite, mapping
from mixtura.report.parts import (
    bad_count,
    bar,
    chart,
    duration,
    ends,
    epochs_of,
    figure,
    grid,
    marks,
    mean_of,
    rate_text,
    share,
    table,
)

KNOWN = (
    "step",
    "stage_step",
    "time",
    "loss",
    "lr",
    "grad_norm",
    "samples_per_s",
    "step_s",
    "wait_share",
    "memory_mb",
    "bad_samples",
)
FAMILIES = ("loss", "mix", "mix_planned", "epoch", "lr")
"""Figures of the training log that have charts of their own; all others are drawn by the word before their first slash."""
MOST_BAD = 50


# -- headline ----------------------------------------------------------------------------------------------------
def notes(runs: Sequence[RunLog]) -> str:
    """What is missing or odd, before anything else."""
    who = [f"<b>{escape(run.label)}</b>: " if len(runs) > 1 else "" for run in runs]
    items = "".join(f"<li>{name}{escape(note)}</li>" for name, run in zip(who, runs, strict=True) for note in run.notes)
    return f'<div class="notes"><ul>{items}</ul></div>' if items else ""


def headline(run: RunLog) -> str:
    """Tiles with the figures that matter most."""
    tiles = [_success_tile(name, rates) for name, rates in run.rates().items()] or _scalar_tiles(run)
    start, stage = run.stages[-1] if run.stages else (0, "")
    values = [value for step, value in zip(*run.series("loss"), strict=True) if step > start]
    if values:
        first, last = ends(values)
        where = f" of stage {stage}" if len(run.stages) > 1 else ""
        tiles.append(_tile("Loss at the end", number(last), f"{number(first)} at the start{where}"))
    planned = run.planned_steps
    tiles.append(
        _tile("Steps", f"{run.steps:,}", "finished" if run.done else f"of {planned:,}, not ended" if planned else "not ended")
    )
    tiles.append(_tile("Run time", duration(run.seconds), "" if run.done else "training steps so far"))
    if run.samples_seen:
        probes = run.series("extra_samples")[1]
        more = f", and {probes[-1]:,.0f} for the mixer's probes" if probes else ""
        tiles.append(
            _tile("Samples seen", f"{run.samples_seen:,}", f"from {len(run.keys('mix/')) or len(run.sources)} sources{more}")
        )
    speed, waits = mean_of(run, "samples_per_s"), mean_of(run, "wait_share")
    if speed is not None:
        tiles.append(
            _tile(
                "Throughput", f"{number(speed)} /s", f"{share(waits)} of the time waiting for data" if waits is not None else ""
            )
        )
    memory = run.series("memory_mb")[1]
    if memory:
        tiles.append(_tile("Peak memory", f"{max(memory):,.0f} MiB"))
    tiles.append(_tile("Bad samples", f"{bad_count(run):,}", "replaced and counted"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(label: str, value: str, sub: str = "", body: str = "", kind: str = "") -> str:
    under = f'<span class="sub">{escape(sub)}</span>' if sub else ""
    return f'<div class="tile {kind}"><label>{escape(label)}</label><strong>{escape(value)}</strong>{body}{under}</div>'


def _success_tile(name: str, rates: Sequence[Rate]) -> str:
    """The last rate with its interval, the best one, and the untrained one."""
    last, first = rates[-1], rates[0]
    best = max(rates, key=lambda rate: rate.value)
    lines = []
    if best.step != last.step and best.value > last.value:
        lines.append(f"best: {share(best.value)} at step {best.step:,} ({rate_text(best)})")
    if first.step == 0 and last.step > 0:
        lines.append(f"untrained: {share(first.value)} ({rate_text(first)})")
    elif last.step > 0:
        lines.append("untrained: not measured (set at_start: true)")
    under = "".join(f'<span class="sub">{escape(line)}</span>' for line in lines)
    sub = f'{bar(last)}<span class="sub">{rate_text(last)}</span>{under}'
    return _tile(f"{name}: success at step {last.step:,}", share(last.value), "", sub, "wide")


def _scalar_tiles(run: RunLog, most: int = 3) -> list[str]:
    """Figures of the last evaluation, where nothing counts successes."""
    if not run.evals:
        return []
    last = run.evals[-1]
    before = next((r for r in run.evals if r["name"] == last["name"] and r is not last), None)
    tiles = []
    for key, value in list(mapping(last, "scalars").items())[:most]:
        if finite(value):
            old = mapping(before, "scalars").get(key) if before else None
            sub = f"{number(old)} at step {before['step']:,}" if before and finite(old) else f"step {last['step']:,}"
            tiles.append(_tile(f"{last['name']}: {key}", number(value), sub))
    return tiles


# -- sections ----------------------------------------------------------------------------------------------------
def stages(run: RunLog) -> str:
    """What each stage trained on, and how the loss went in it."""
    configured = {section.get("name"): section for section in run.stage_sections}
    rows = []
    for k, (start, name) in enumerate(run.stages):
        end = run.stages[k + 1][0] if k + 1 < len(run.stages) else run.steps
        section = configured.get(name, {})
        values = [v for s, v in zip(*run.series("loss"), strict=True) if start < s <= end]
        first, last = ends(values) if values else (None, None)
        weights = mapping(section, "mixture")
        total = sum(w for w in weights.values() if finite(w)) or 1.0
        mixture = ", ".join(f"{source} {share(w / total)}" for source, w in weights.items() if finite(w) and w > 0)
        trains = section.get("train")
        cells = (
            f"{start + 1:,}–{end:,}" if end > start else "not begun",
            ", ".join(map(str, trains)) if isinstance(trains, list) else "all parts",
            mixture or "–",
            str(mapping(section, "mixer").get("type", "static")),
            f"{number(first)} → {number(last)}" if first is not None and last is not None else "–",
        )
        rows.append([escape(name), *map(escape, cells)])
    return table(["Stage", "Steps", "Trains", "Mixture", "Mixer", "Loss"], rows) if rows else ""


def losses(runs: Sequence[RunLog]) -> str:
    """The loss, its terms, and their parts by source."""
    return _losses_of_one(runs[0]) if len(runs) == 1 else _losses_of_many(runs)


def _losses_of_one(run: RunLog) -> str:
    colors = {source: k for k, source in enumerate(run.sources)}
    cards = (
        [chart("Loss", [Series("loss", *run.series("loss"))], [run], "weighted sum of the terms", unit="loss")]
        if len(run.terms) != 1
        else []
    )
    for term in run.terms:
        whole = Series("all sources", *run.series(f"loss/{term}"))
        parts = [Series(name, *run.series(f"loss/{term}/{name}"), colors.get(name, 0)) for name in run.keys(f"loss/{term}/")]
        only = parts[0] if len(parts) == 1 else None
        if only is not None:
            parts = [] if len(only.y) == len(whole.y) and np.allclose(only.y, whole.y, rtol=1e-3) else parts
        cards.append(
            chart(f"loss: {term}", [whole, *parts], [run], f"source {only.name}" if only and not parts else "", unit="loss")
        )
    return grid(cards)


def _losses_of_many(runs: Sequence[RunLog]) -> str:
    terms = list(dict.fromkeys(term for run in runs for term in run.terms))
    keys = [("Loss", "loss")] + [(f"loss: {term}", f"loss/{term}") for term in terms]
    cards = [
        chart(title, [Series(r.label, *r.series(key), k) for k, r in enumerate(runs)], runs, unit="loss") for title, key in keys
    ]
    details = []
    for term in terms:
        sources = sorted({name for run in runs for name in run.keys(f"loss/{term}/")})
        for source in sources if len(sources) > 1 else []:
            lines = [Series(run.label, *run.series(f"loss/{term}/{source}"), k) for k, run in enumerate(runs)]
            details.append(chart(f"loss: {term}", lines, runs, f"source {source}", unit="loss"))
    inside = grid(details)
    more = f'<details class="card"><summary>Terms by source</summary>{inside}</details>' if inside else ""
    return grid(cards) + more


def mixtures(runs: Sequence[RunLog]) -> str:
    """Shares of the sources as drawn (areas) and as planned (dashed), and what that came to."""
    cards, rows = [], []
    everywhere = sorted({source for run in runs for source in run.sources})
    for run in runs:
        names = sorted(set(run.keys("mix/")) | set(run.keys("mix_planned/")))
        lines = [line for line in run.train if any(finite(line.get(f"mix/{name}")) for name in names)]
        if not lines:
            continue
        steps = [float(line["step"]) for line in lines]
        drawn, planned = (_shares(lines, prefix, names) for prefix in ("mix", "mix_planned"))
        colors = [everywhere.index(name) for name in names]
        if len(names) > 1:
            wanted = planned if planned.any() else None
            svg = stacked_chart(names, colors, steps, drawn, wanted, f"mixture of {run.label}", marks(run), run.first)
            sub = "shares of the samples; dashed: as planned" if wanted is not None else "shares of the samples"
            cards.append(
                figure(run.label if len(runs) > 1 else "Mixture as realised", svg, list(zip(names, colors, strict=True)), sub)
            )
        rows += _mixture_rows(run, names, steps, drawn, planned, len(runs) > 1)
    if not rows:
        return ""
    head = (["Run"] if len(runs) > 1 else []) + ["Source", "Realised", "Planned", "Samples", "Epochs"]
    return grid([*cards, table(head, rows, range(len(head) - 4, len(head)))])


def _shares(lines: Sequence[dict[str, Any]], prefix: str, names: Sequence[str]) -> np.ndarray:
    """Shares (N, K) of the sources in each log line; a source that a stage leaves out has 0."""
    values = [[line.get(f"{prefix}/{name}") for name in names] for line in lines]
    return np.array([[value if finite(value) else 0.0 for value in row] for row in values])


def _mixture_rows(
    run: RunLog, names: Sequence[str], steps: Sequence[float], drawn: np.ndarray, planned: np.ndarray, many: bool
) -> list[list[str]]:
    weights = np.diff([float(run.first), *steps])
    batch = mapping(run.config, "data").get("global_batch")
    rows = []
    for k, name in enumerate(names):
        mean = float(np.average(drawn[:, k], weights=weights))
        wanted = float(np.average(planned[:, k], weights=weights)) if planned.any() else None
        epochs = epochs_of(run, name)
        cells = [
            f"{mean * 100:.2f} %",
            f"{wanted * 100:.2f} %" if wanted is not None else "–",
            f"{round(mean * weights.sum() * batch):,}" if isinstance(batch, int) else "–",
            number(epochs) if epochs is not None else "–",
        ]
        rows.append([escape(run.label), escape(name), *cells] if many else [escape(name), *cells])
    return rows


def vitals(runs: Sequence[RunLog]) -> str:
    """Learning rate, gradient norm, speed, waiting, and whatever else was logged."""
    cards = [
        _family(runs, "Learning rate", "lr", smooth=False, zero=True, log=False, unit="learning rate"),
        _family(runs, "Gradient norm", "grad_norm", sub="before clipping", unit="norm"),
        _family(runs, "Throughput", "samples_per_s", zero=True, log=False, unit="samples a second"),
        _family(runs, "Waiting for data", "wait_share", zero=True, percent=True, unit="share of the time"),
        _family(runs, "Memory", "memory_mb", smooth=False, zero=True, log=False, unit="MiB"),
        _family(runs, "Epochs", "epoch", sub="within each stage", smooth=False, zero=True, log=False, unit="epochs"),
    ]
    others: dict[str, None] = {}
    for run in runs:
        for key in run.keys(""):
            if key not in KNOWN and key.partition("/")[0] not in FAMILIES and run.series(key)[0]:
                others[key.partition("/")[0]] = None
    return grid(cards + [_family(runs, name, name, unit=name) for name in others])


def _family(runs: Sequence[RunLog], title: str, key: str, sub: str = "", smooth: bool = True, **options: Any) -> str:
    """A chart of `key` and of everything below `key/`, a line for each run and figure."""
    series: list[Series] = []
    for run in runs:
        below = sorted(run.keys(f"{key}/"))
        for name, full in [("", key), *((b, f"{key}/{b}") for b in below)]:
            x, y = run.series(full)
            label = " · ".join(part for part in (run.label if len(runs) > 1 else "", name) if part)
            if x:
                series.append(Series(label or title, x, y, len(series) if below or len(runs) > 1 else 0, smooth))
    if len(series) == 1 and len(runs) == 1 and series[0].name != title:
        title = f"{title}: {series[0].name}"
    return chart(title, series, runs, sub, **options)


def bad_samples(runs: Sequence[RunLog]) -> str:
    """Which samples were replaced, when and why."""
    total = sum(map(bad_count, runs))
    if not total:
        return '<div class="card empty">No sample was bad.</div>' if any(run.train for run in runs) else ""
    seen = sum(run.samples_seen or 0 for run in runs)
    part = f", {total / seen * 100:.2g} % of those seen" if seen else ""
    text = f"Unreadable samples that were replaced by the next item of their source: {total:,}{part}."
    named = [(run, record) for run in runs for record in run.bad]
    if len(named) > MOST_BAD:
        text += f" The first {MOST_BAD} are listed; log.jsonl names all of them."
    rows = [
        [*map(escape, (run.label, f"{record['step']:,}", *(str(record.get(key, "–")) for key in ("source", "item", "reason"))))]
        for run, record in named[:MOST_BAD]
    ]
    skip = 0 if len(runs) > 1 else 1
    return f"<p>{text}</p>" + (
        table(["Run", "Step", "Source", "Item", "Reason"][skip:], [row[skip:] for row in rows]) if rows else ""
    )


def configs(runs: Sequence[RunLog]) -> str:
    """Settings as they were resolved."""
    return "".join(
        f'<details class="card"><summary>{escape(run.label)}: config.yaml</summary><pre>{escape(run.config_text)}</pre></details>'
        for run in runs
        if run.config_text
    )


def environments(runs: Sequence[RunLog]) -> str:
    """Versions and machines."""
    known = [run for run in runs if run.env]
    if not known:
        return ""
    keys: dict[str, None] = {"python": None}
    flat = []
    for run in known:
        machine = {f"machine: {key}": value for key, value in mapping(run.env, "machine").items()}
        command = run.env.get("command")
        said = {
            "command": " ".join(map(str, command)) if isinstance(command, list) else command,
            "started": run.env.get("started"),
        }
        flat.append({"python": run.env.get("python"), **mapping(run.env, "versions"), **machine, **said})
        keys.update(dict.fromkeys(flat[-1]))
    rows = [[escape(key), *(escape(str(values.get(key) or "–")) for values in flat)] for key in keys]
    return table(["", *(escape(run.label) for run in known)], rows)
