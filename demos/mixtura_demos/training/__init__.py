"""Runs in the browser: what they did, several over each other, and a form that writes the configuration of a new one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr

title = "Training"


def build(run: Path | None) -> gr.Blocks:
    """The page; `run` is shown first."""
    import gradio as gr

    from mixtura_demos.training.watching import build_watching
    from mixtura_demos.training.writing_form import build_form

    page: gr.Blocks = gr.Blocks(title=title)
    with page, gr.Tabs():
        with gr.Tab("Runs", id="runs"):
            build_watching(run)
        with gr.Tab("New run", id="new"):
            build_form()
    return page
