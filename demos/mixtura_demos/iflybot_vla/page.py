"""The page: its fields, and which click starts what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from mixtura_demos.iflybot_vla import drawing
from mixtura_demos.iflybot_vla.acting import Acting, leave, no_latents_yet
from mixtura_demos.iflybot_vla.comparing import Comparing
from mixtura_demos.iflybot_vla.facts import CODES
from mixtura_demos.iflybot_vla.session import MOST_SEED, SYSTEM, Fields, Session, facts_or_usual, fill_fields, fill_words
from mixtura_demos.iflybot_vla.simulators import ROWS
from mixtura_demos.shared import jobs
from mixtura_demos.shared.checkpoints import picker
from mixtura_demos.shared.errors import shown
from mixtura_demos.shared.look import note, section
from mixtura_iflybot_vla.sim.world import TASKS

JOB: dict[str, Any] = {"concurrency_id": "compute", "concurrency_limit": 1, "api_visibility": "private"}


def build(run: Path | None = None) -> gr.Blocks:
    """The page; `run` is preselected."""
    demo: gr.Blocks
    with gr.Blocks(title="iFlyBot-VLA") as demo:
        gr.HTML(drawing.STYLE, padding=False)
        note(
            "A policy drives a simulated robot: it looks at the cameras, reads the instruction, writes latent codes, and plans a "
            "chunk of actions; the simulator carries out the first steps of it, and the policy plans again."
        )
        session = gr.State(Session())
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                fields, buttons = _inputs(run, session)
            with gr.Column(scale=2, min_width=420):
                acting = _episode(fields)
        _wire(acting, buttons)
        _compare(fields, run)
        demo.unload(leave)
    return demo


def _inputs(run: Path | None, session: gr.State) -> tuple[Fields, dict[str, gr.Button]]:
    """What an episode is made from, and the buttons."""
    weights = picker(SYSTEM, run)
    facts = facts_or_usual(weights.value)
    first = facts.tasks[0]
    task = gr.Dropdown(facts.titles, value=first, label="Task")
    phrases = gr.Dropdown(
        list(TASKS[first].phrases), value=TASKS[first].phrases[0], label="Instructions that training used", interactive=True
    )
    words = gr.Textbox(TASKS[first].phrases[0], label="Instruction", elem_id="vla-words")
    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MOST_SEED, info="the evaluator's episode of this number")
    with gr.Accordion("More settings", open=False):
        execute = gr.Number(facts.execute, label="Steps of a plan that are carried out", precision=0, minimum=1)
        limit = gr.Number(facts.rows, label="Steps at most", precision=0, minimum=1, maximum=ROWS)
        discrete = gr.Checkbox(True, label="Discrete tokens", info="let the language model write them too; takes longer")
    with gr.Row():
        buttons = {
            "chunk": gr.Button("One chunk", variant="primary", min_width=110),
            "whole": gr.Button("Whole episode", variant="primary", min_width=110),
            "reset": gr.Button("Reset", min_width=80),
            "stop": gr.Button("Stop", variant="stop", min_width=80),
        }
    fields = Fields(session, weights, task, words, seed, execute, limit, discrete)
    weights.change(shown(fill_fields), weights, [task, execute, limit], **jobs.QUICK)
    task.change(fill_words, task, [phrases, words], **jobs.QUICK)
    phrases.input(lambda phrase: phrase, phrases, words, trigger_mode="always_last", **jobs.QUICK)
    return fields, buttons


def _episode(fields: Fields) -> Acting:
    """What is seen of an episode."""
    with section("Episode"):
        status = gr.HTML(drawing.panel("<p role='status'>Nothing has run yet.</p>"), elem_id="vla-status")
        views = gr.HTML(drawing.panel("<p>“Reset” shows how the episode begins.</p>"), elem_id="vla-views")
    with section("Chosen chunk"):
        chunk = gr.HTML(drawing.panel("<p>No plan yet. “One chunk” makes one.</p>"), elem_id="vla-chunk")
    facts = facts_or_usual(fields.weights.value)
    with section("Latent actions: what the codes do to the image"):
        latents = gr.HTML(no_latents_yet(facts), elem_id="vla-latents")
        with gr.Row():
            codes = [
                gr.Slider(0, max(facts.codebook - 1, 1), 0, step=1, label=f"Code {k + 1}", min_width=180, visible=k < facts.codes)
                for k in range(CODES)
            ]
        with gr.Row():
            own = gr.Button("Back to the policy's codes", size="sm")
            steer = gr.Checkbox(False, label="Act under these codes", info="the next plans follow the sliders")
    with section("Discrete action tokens"):
        tokens = gr.HTML(drawing.tokens(None, facts.has_fast, True), elem_id="vla-tokens")
    with section("Film"):
        film = gr.Video(label="Film of the episode", interactive=False, height=260, elem_id="vla-film")
        download = gr.DownloadButton("Download the film", interactive=False, elem_id="vla-download")
    return Acting(fields, status, views, chunk, latents, codes, own, steer, tokens, film, download)


def _wire(acting: Acting, buttons: dict[str, gr.Button]) -> None:
    """Clicks. Short jobs have no cancel handler of their own: Stop ends all jobs of its page."""
    given, shows = acting.inputs, acting.outputs
    buttons["reset"].click(jobs.as_job(acting.reset), given, shows, **JOB)
    buttons["chunk"].click(jobs.as_job(acting.one_chunk), given, shows, **JOB)
    jobs.run(buttons["whole"], acting.whole_episode, given, shows, buttons["stop"])
    buttons["stop"].click(acting.stopped, given, [acting.status], **jobs.QUICK)
    seen = [acting.latents, *acting.codes]
    for slider in acting.codes:
        slider.input(jobs.as_job(acting.change_codes), given, seen, trigger_mode="always_last", show_progress="hidden", **JOB)
    acting.own.click(jobs.as_job(acting.own_codes), given, seen, show_progress="hidden", **JOB)
    acting.fields.weights.change(
        shown(acting.fit_codes), acting.fields.weights, [acting.latents, acting.tokens, *acting.codes], **jobs.QUICK
    )


def _compare(fields: Fields, run: Path | None) -> None:
    """A second checkpoint beside the first."""
    with section("Compare two checkpoints"):
        note("Both act in the same task from the same seed with the same instruction, one step each by turns.")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                second = picker(SYSTEM, run, label="Second weights")
                start = gr.Button("Run both", variant="primary")
                stop = gr.Button("Stop comparing", variant="stop")
            with gr.Column(scale=2, min_width=420):
                views = gr.HTML(drawing.panel("<p>Nothing has run yet.</p>"), elem_id="vla-pair")
                table = gr.HTML("", elem_id="vla-table")
                film = gr.Video(label="Film of both", interactive=False, height=260, elem_id="vla-pair-film")
    comparing = Comparing(fields, second, views, table, film)
    jobs.run(start, comparing.run, comparing.inputs, comparing.outputs, stop)
