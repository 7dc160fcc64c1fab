"""`mixtura report`: one HTML file that shows one run, or several side by side, to a person.

Everything is inside the file: style, script, charts as SVG, media as data URIs. `data` reads run folders,
`charts` draws, `media` shrinks pictures, `sections`, `evals` and `compare` write the sections;
this module puts them in order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mixtura import __version__
from mixtura.errors import RunError
from mixtura.report.compare import comparison, config_differences
from mixtura.report.data import RunLog, mapping, read_run
from mixtura.report.evals import evaluations, media
from mixtura.report.media import Budget
from mixtura.report.sections import bad_samples, configs, environments, headline, losses, mixtures, notes, stages, vitals
from mixtura.report.style import CSS, SCRIPT


def write_report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report on one or several run folders and return where it is.

    `out` is `RUN/report.html` for one run and `comparison.html` beside the first of several when left out. Logs that are
    cut off or evaluations that are missing become notes in the report. Raises RunError for a folder that holds no run,
    and when the report can't be written.
    """
    if not run_dirs:
        raise RunError("a report needs one or more run folders; name them, as runs/NAME")
    folders = list(dict.fromkeys(Path(folder) for folder in run_dirs))
    runs = [read_run(folder) for folder in folders]
    tell_apart(runs)
    if out is None:
        out = folders[0] / "report.html" if len(runs) == 1 else folders[0].resolve().parent / "comparison.html"
    page = _page(runs)
    temporary = out.with_name(out.name + ".tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, out)
    except OSError as error:
        raise RunError(f"the report can't be written to {out}: {error.strerror}; choose another place by --out") from error
    return out


def tell_apart(runs: Sequence[RunLog]) -> None:
    """Runs of one name are called by their folders, and by their numbers where those are alike too."""
    for choose in (lambda run, k: run.path.resolve().name, lambda run, k: f"{run.path.resolve().name} ({k})"):
        labels = [run.label for run in runs]
        for k, run in enumerate(runs, 1):
            if labels.count(run.label) > 1:
                run.label = choose(run, k)


def _page(runs: Sequence[RunLog]) -> str:
    budget = Budget()
    sections = [
        ("Runs", comparison(runs) if len(runs) > 1 else ""),
        ("Stages", stages(runs[0]) if len(runs) == 1 else ""),
        ("Evaluation", evaluations(runs)),
        ("Pictures", media(runs, budget)),
        ("Losses", losses(runs)),
        ("Mixture", mixtures(runs)),
        ("Training", vitals(runs)),
        ("Bad samples", bad_samples(runs)),
        ("Differences", config_differences(runs) if len(runs) > 1 else ""),
        ("Configuration", configs(runs)),
        ("Environment", environments(runs)),
    ]
    shown = [(title, body) for title, body in sections if body]
    links = "".join(f'<a href="#{_anchor(title)}">{title}</a>' for title, _ in shown)
    body = "".join(f'<section id="{_anchor(title)}"><h2>{title}</h2>{body}</section>' for title, body in shown)
    name = runs[0].label if len(runs) == 1 else f"{len(runs)} runs side by side"
    top = headline(runs[0]) if len(runs) == 1 else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)} · Mixtura</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{escape(name)}</h1><p>{_subtitle(runs)}</p></header><nav>{links}</nav>{notes(runs)}{top}{body}"
        f"<footer>Written by Mixtura {__version__} on {time.strftime('%Y-%m-%d %H:%M')}. This file needs no network.</footer>"
        f"</main><script>{SCRIPT}</script></body></html>"
    )


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _subtitle(runs: Sequence[RunLog]) -> str:
    """What was trained, on what, when."""
    if len(runs) > 1:
        return escape(", ".join(run.label for run in runs))
    run = runs[0]
    machine = mapping(run.env, "machine")
    parts = [
        f"system {name}" if (name := mapping(run.config, "system").get("type")) else "",
        f"seed {seed}" if (seed := mapping(run.config, "run").get("seed")) is not None else "",
        str(machine.get("device") or machine.get("processor") or ""),
        f"started {began}" if (began := run.env.get("started")) else "",
    ]
    return escape(" · ".join(part for part in parts if part))
