"""The page's part about runs that exist: choose some, then a view, a stage, a source, a curve; follow one that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from mixtura.report.data import RunLog
from mixtura_demos.shared.errors import shown
from mixtura_demos.training import runs as folders
from mixtura_demos.training import views
from mixtura_demos.training.looks import REPORT_CSS, REPORT_SCRIPT

FOLLOW_SECONDS = 5
EMPTY = (
    "<p>No run was found in runs/. Make one with <code>mixtura train CONFIG</code>; "
    "the form under 'New run' writes such a CONFIG.</p>"
)
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def build_watching(run: Path | None) -> None:
    """Lay out the part and wire it; `run` is chosen first."""
    choices = _offer(run)
    with gr.Row(equal_height=True, elem_classes="mx-picker"):
        picker = gr.Dropdown(
            choices,
            value=[choices[0][1]] if choices else [],
            multiselect=True,
            label="Runs",
            info="one, or several that are shown over each other",
            scale=5,
        )
        again = gr.Button("Look again", scale=1, min_width=110, size="sm")
        follow = gr.Checkbox(label="Follow what is still running", scale=1, min_width=200)
    view = gr.Radio([*list(views.VIEWS)[:2], views.ONE_CURVE, *list(views.VIEWS)[2:]], value="Overview", label="Show")
    with gr.Row():
        stage = gr.Dropdown([views.ALL_STAGES], value=views.ALL_STAGES, label="Stage")
        source = gr.Dropdown([views.ALL_SOURCES], value=views.ALL_SOURCES, label="Source")
        curve = gr.Dropdown([], label="Curve of all the runs")
    page = gr.HTML(
        "" if choices else EMPTY, css_template=REPORT_CSS, js_on_load=REPORT_SCRIPT, apply_default_css=False, elem_id="run-view"
    )
    state = gr.State(())
    timer = gr.Timer(FOLLOW_SECONDS, active=False)

    def refresh(ids: list[str], *asked: Any) -> tuple[Any, ...]:
        """Everything that depends on which runs are chosen."""
        if not ids and not _offer(run):
            return gr.skip(), gr.skip(), gr.skip(), EMPTY, ()
        places = folders.chosen(ids, run)
        logs = folders.read(places)
        view, stage, source, curve = asked
        stages = [views.ALL_STAGES, *views.stage_names(logs)]
        sources = [views.ALL_SOURCES, *views.source_names(logs)]
        curves = views.curve_names(logs)
        stage, source, curve = _kept(stage, stages), _kept(source, sources), _kept(curve, curves)
        html = views.render(logs, view, stage, source, curve)
        return (
            gr.Dropdown(stages, value=stage),
            gr.Dropdown(sources, value=source),
            gr.Dropdown(curves, value=curve),
            html,
            folders.state_of(places),
        )

    def draw(ids: list[str], view: str, stage: str, source: str, curve: str | None) -> str:
        return views.render(_logs(ids, run), view, stage, source, curve)

    def draw_curve(ids: list[str], stage: str, source: str, curve: str | None) -> tuple[str, str]:
        return views.ONE_CURVE, draw(ids, views.ONE_CURVE, stage, source, curve)

    def look(ids: list[str]) -> Any:
        choices = _offer(run)
        known = [key for _, key in choices]
        kept = [key for key in ids or [] if key in known]
        return gr.Dropdown(choices, value=kept or known[:1])

    def tick(ids: list[str], before: Any, *asked: Any) -> tuple[Any, ...]:
        if not ids or folders.state_of(folders.chosen(ids, run)) == before:
            return (gr.skip(),) * 5
        return refresh(ids, *asked)

    asked = [view, stage, source, curve]
    outputs = [stage, source, curve, page, state]
    picker.change(shown(refresh), [picker, *asked], outputs, **QUIET)
    for field in (view, stage, source):
        field.input(shown(draw), [picker, *asked], page, **QUIET)
    curve.input(shown(draw_curve), [picker, stage, source, curve], [view, page], **QUIET)
    again.click(shown(look), picker, picker, **QUIET).then(shown(refresh), [picker, *asked], outputs, **QUIET)
    follow.change(lambda on: gr.Timer(active=on), follow, timer, **QUIET)
    timer.tick(shown(tick), [picker, state, *asked], outputs, **QUIET)
    block = gr.context.Context.root_block
    if block is not None:
        block.load(shown(look), picker, picker, **QUIET).then(shown(refresh), [picker, *asked], outputs, **QUIET)


def _offer(run: Path | None) -> list[tuple[str, str]]:
    return [(choice.label, choice.id) for choice in folders.found(run)]


def _logs(ids: list[str], run: Path | None) -> list[RunLog]:
    return folders.read(folders.chosen(ids, run))


def _kept(value: Any, choices: list[str]) -> Any:
    """A choice that is still there, else the first."""
    return value if value in choices else next(iter(choices), None)
