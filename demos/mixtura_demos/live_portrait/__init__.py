"""The demo of LivePortrait: animate a portrait, edit it by sliders, let it follow a webcam, see which faces are found."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from mixtura_demos.live_portrait import animate, edit, faces, webcam
from mixtura_demos.live_portrait.engines import SYSTEM
from mixtura_demos.shared.checkpoints import picker
from mixtura_demos.shared.look import note

title = "LivePortrait"


def build(run: Path | None = None) -> gr.Blocks:
    """The page; `run` is preselected."""
    demo: gr.Blocks
    with gr.Blocks(title=title) as demo:
        note("Move a portrait as a driving face moves. Pictures and clips stay on this machine; finding faces needs no weights.")
        weights = picker(SYSTEM, run)
        with gr.Tabs():
            with gr.Tab("Animate", id="animate"):
                animate.Page(weights)
            with gr.Tab("Edit", id="edit"):
                edit.Page(weights)
            with gr.Tab("Webcam", id="webcam"):
                webcam.Page(weights)
            with gr.Tab("Faces", id="faces"):
                faces.Page()
    return demo
