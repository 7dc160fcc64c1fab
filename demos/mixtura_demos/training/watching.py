"""The page's part about runs that exist: choose some, then a view, a stage, a source, a curve; follow one that goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gradio as gr

from mixtura_demos.shared.errors import shown
from mixtura_demos.training import runs as folders
from mixtura_demos.training import views
from mixtura_demos.training.looks import REPORT_CSS, REPORT_SCRIPT

FOLLOW_SECONDS = 5
EMPTY = (
    "<p>No run was found in runs/. Make one with <code>mixtura train CONFIG</code>; "
    "the form under 'New run' writes such a CONFIG.</p>"
)
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""By the queue, for without it gradio doesn't tell the page that a state changed."""


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
    wanted, drawn = gr.State(()), gr.State(())  # how far the runs were when a drawing was asked for, and when it was made
    # it always runs: an answer that gradio's stream missed as it closed comes with the next request, else never
    timer = gr.Timer(FOLLOW_SECONDS)

    def refresh(ids: list[str], *asked: Any) -> tuple[Any, ...]:
        """What there is to choose from in the runs, and how far they are: when that changes, the page is drawn."""
        if not ids and not _offer(run):
            return gr.skip(), gr.skip(), gr.skip(), ()
        places = folders.chosen(ids, run)
        logs = folders.read(places)
        stage, source, curve = asked
        stages = [views.ALL_STAGES, *views.stage_names(logs)]
        sources = [views.ALL_SOURCES, *views.source_names(logs)]
        curves = views.curve_names(logs)
        return (
            gr.Dropdown(stages, value=_kept(stage, stages)),
            gr.Dropdown(sources, value=_kept(source, sources)),
            gr.Dropdown(curves, value=_kept(curve, curves)),
            folders.state_of(places),
        )

    def draw(ids: list[str], view: str, stage: str, source: str, curve: str | None) -> tuple[str, Any]:
        if not ids and not _offer(run):
            return EMPTY, ()
        places = folders.chosen(ids, run)
        state = folders.state_of(places)  # before they are read: what comes in between is drawn next time
        return views.render(folders.read(places), view, stage, source, curve), state

    def look(ids: list[str]) -> Any:
        choices = _offer(run)
        known = [key for _, key in choices]
        kept = [key for key in ids or [] if key in known]
        return gr.Dropdown(choices, value=kept or known[:1])

    def tick(on: bool, ids: list[str], before: Any, *asked: Any) -> tuple[Any, ...]:
        if not on or not ids or folders.state_of(folders.chosen(ids, run)) == before:
            return (gr.skip(),) * len(outputs)
        *offered, state = refresh(ids, *asked)
        return *offered, (state, time.monotonic())  # asks anew, even if an earlier drawing of the same state came to nothing

    asked = [stage, source, curve]
    outputs = [*asked, wanted]
    picker.change(shown(refresh), [picker, *asked], outputs, **QUIET)
    # one drawing at a time, the last word wins; a field that its user changes is else ignored while the page is drawn
    wishes = [view.change, stage.input, source.input, curve.change, wanted.change]
    gr.on(wishes, shown(draw), [picker, view, *asked], [page, drawn], trigger_mode="always_last", **QUIET)
    curve.input(lambda: views.ONE_CURVE, None, view, trigger_mode="always_last", **QUIET)
    again.click(shown(look), picker, picker, **QUIET).then(shown(refresh), [picker, *asked], outputs, **QUIET)
    timer.tick(shown(tick), [follow, picker, drawn, *asked], outputs, trigger_mode="multiple", **QUIET)
    block = gr.context.Context.root_block
    if block is not None:
        block.load(shown(look), picker, picker, **QUIET).then(shown(refresh), [picker, *asked], outputs, **QUIET)


def _offer(run: Path | None) -> list[tuple[str, str]]:
    return [(choice.label, choice.id) for choice in folders.found(run)]


def _kept(value: Any, choices: list[str]) -> Any:
    """A choice that is still there, else the first."""
    return value if value in choices else next(iter(choices), None)
