"""What the page shows of one or several runs, as parts of the report: HTML with charts, tables and embedded pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from mixtura.config.show import origins_in
from mixtura.config.yaml_marks import Path as Place
from mixtura.config.yaml_marks import show, write
from mixtura.report.charts import Series
from mixtura.report.compare import comparison, config_differences
from mixtura.report.data import RunLog, finite, mapping
from mixtura.report.evals import evaluations, media
from mixtura.report.media import Budget
from mixtura.report.parts import chart, table
from mixtura.report.sections import bad_samples, environments, headline, losses, mixtures, notes, stages, vitals

ALL_STAGES, ALL_SOURCES = "all stages", "all sources"
MEDIA_BYTES = 8_000_000
"""Pictures and clips that one answer of the server may hold."""
UNITS = {
    "loss": "loss",
    "lr": "learning rate",
    "grad_norm": "norm",
    "samples_per_s": "samples a second",
    "step_s": "seconds a step",
    "wait_share": "share of the time",
    "memory_mb": "MiB",
    "epoch": "epochs",
    "mix": "share of the samples",
    "mix_planned": "share of the samples",
    "bad_samples": "bad samples",
}
"""What the first word of a figure's name counts."""
HIDDEN = ("step", "stage_step", "time")
SHARES = ("wait_share", "mix", "mix_planned")

Runs = Sequence[RunLog]


def overview(runs: Runs) -> str:
    """The figures that matter most, and what each stage did."""
    top = headline(runs[0]) if len(runs) == 1 else comparison(runs)
    parts = "".join(f"<h3>{escape(run.label)}: stages</h3>{stages(run)}" for run in runs if run.stages)
    return notes(runs) + top + parts


def measured(runs: Runs) -> str:
    """Tables, curves, pictures and clips of evaluators."""
    budget = Budget(MEDIA_BYTES)
    shown = evaluations(runs) + media(runs, budget)
    if budget.left_out:
        shown += f"<p>{len(budget.left_out)} pictures are left out here; `mixtura report` embeds more of them.</p>"
    return shown


def problems(runs: Runs) -> str:
    """Warnings about the run or its log, and samples that couldn't be used."""
    clean = '<div class="card empty">Nothing was noted about the run.</div>'
    return f"<h3>Notes</h3>{notes(runs) or clean}<h3>Bad samples</h3>{bad_samples(runs)}"


def settings(runs: Runs) -> str:
    """The resolved settings, each with where it came from; those that differ first."""
    differing = config_differences(runs) if len(runs) > 1 else ""
    head = f"<h3>Settings that differ</h3>{differing}" if differing else ""
    return head + "".join(_settings_of(run) for run in runs if run.config_text)


def _settings_of(run: RunLog) -> str:
    title = f"<h3>{escape(run.label)}: config.yaml</h3>"
    origins = origins_in(run.config_text)
    if not origins:
        remark = "The run was made before origins were kept; `mixtura train` writes them now."
        return f'{title}<p>{remark}</p><div class="card empty"><pre>{escape(run.config_text)}</pre></div>'
    rows = [_setting(path, value, origin) for path, (value, origin) in origins.items()]
    return title + table(["Setting", "Value", "Origin"], rows)


def _setting(path: Place, value: object, origin: str) -> list[str]:
    text = write(value).removesuffix("\n").removesuffix("\n...")
    kind = "miss" if origin == "default" else "given"
    return [*(f"<code>{escape(word)}</code>" for word in (show(path), text)), f'<span class="{kind}">{escape(origin)}</span>']


VIEWS: dict[str, Callable[[Runs], str]] = {
    "Overview": overview,
    "Losses": losses,
    "Mixture": mixtures,
    "Speed and optimizer": vitals,
    "Evaluations": measured,
    "Problems": problems,
    "Settings": settings,
    "Environment": environments,
}
ONE_CURVE = "One curve"
WHOLE = ("Settings", "Environment", "Overview")
"""Views that belong to whole runs."""


def stage_names(runs: Runs) -> list[str]:
    """Stages of all the runs, in order."""
    return list(dict.fromkeys(name for run in runs for _, name in run.stages))


def source_names(runs: Runs) -> list[str]:
    """Sources of all the runs."""
    return sorted({name for run in runs for name in run.sources})


def curve_names(runs: Runs) -> list[str]:
    """Every figure that was logged or measured: `loss/flow/robot`, `lr`, `closed_loop: success rate`."""
    logged = {key: None for run in runs for key in run.keys("") if key not in HIDDEN and run.series(key)[0]}
    rates = {f"{name}: success rate": None for run in runs for name in run.rates()}
    scalars = {
        f"{record['name']}: {key}": None
        for run in runs
        for record in run.evals
        for key, value in mapping(record, "scalars").items()
        if finite(value)
    }
    return [*logged, *rates, *scalars]


def one_curve(runs: Runs, name: str) -> str:
    """One figure of all the runs in one chart."""
    evaluator, _, key = name.partition(": ")
    if key:
        lines = [_measured(run, k, evaluator, key) for k, run in enumerate(runs)]
        return chart(name, lines, runs, unit=key, percent=key == "success rate", log=False)
    lines = [Series(run.label, *run.series(name), k) for k, run in enumerate(runs)]
    family = name.partition("/")[0]
    return chart(name, lines, runs, unit=UNITS.get(family, family), percent=family in SHARES)


def _measured(run: RunLog, color: int, evaluator: str, key: str) -> Series:
    """A figure of an evaluator over steps; rates have their intervals."""
    if key == "success rate":
        rates = run.rates().get(evaluator, [])
        bounds = ([rate.interval[0] for rate in rates], [rate.interval[1] for rate in rates])
        return Series(run.label, [r.step for r in rates], [r.value for r in rates], color, smooth=False, dots=True, bounds=bounds)
    records = [record for record in run.evals if record["name"] == evaluator]
    points = [(record["step"], mapping(record, "scalars").get(key)) for record in records]
    known = [(step, value) for step, value in points if finite(value)]
    return Series(run.label, [step for step, _ in known], [value for _, value in known], color, smooth=False, dots=True)


def render(runs: Runs, view: str, stage: str, source: str, curve: str | None) -> str:
    """HTML of a view of the chosen stage and source."""
    parts = [
        run.part(stage if stage != ALL_STAGES else None, source if source != ALL_SOURCES else None)
        for run in runs
        if stage == ALL_STAGES or stage in [name for _, name in run.stages]
    ]
    if view == ONE_CURVE:
        body = one_curve(parts, curve) if curve and parts else ""
    elif view in WHOLE:
        body = VIEWS[view](runs)
    else:
        body = VIEWS[view](parts) if parts else ""
    return body or f'<div class="card empty">{_absent(view, stage, source)}</div>'


def _absent(view: str, stage: str, source: str) -> str:
    chosen = [word for word, whole in ((stage, ALL_STAGES), (source, ALL_SOURCES)) if word != whole]
    where = f" for {escape(' and '.join(chosen))}" if chosen else ""
    return f"{escape(view)}: nothing was logged{where}."
