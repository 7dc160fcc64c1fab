"""The demo of DiffusionGS: a picture to 3D Gaussians while one watches, a viewer in the page, a turntable, files to take away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from mixtura_demos.diffusion_gs.fields import SYSTEM, Fields
from mixtura_demos.diffusion_gs.job import making
from mixtura_demos.diffusion_gs.results import Results, Update, status
from mixtura_demos.shared import jobs
from mixtura_demos.shared.checkpoints import picker
from mixtura_demos.shared.look import note

title = "DiffusionGS"


def build(run: Path | None = None) -> gr.Blocks:
    """The page; `run` is preselected."""
    demo: gr.Blocks
    with gr.Blocks(title=title) as demo:
        note("One picture of an object, or of a room, becomes 3D Gaussians. Watch the denoising, turn the result, take it away.")
        weights = picker(SYSTEM, run)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                fields = Fields(weights)
            with gr.Column(scale=5, min_width=420):
                results = Results()

        def make(values: dict[Any, Any], request: gr.Request) -> Iterator[Update]:
            yield results.cleared()
            for moment in making(fields.order(values), request):
                yield results.updates(moment)

        jobs.run(fields.go, make, fields.all, results.all, fields.cancel)
        fields.cancel.click(lambda: status("Cancelled. What was made before stays."), None, results.status, **jobs.QUICK)
        demo.load(fields.fitting, [weights, fields.kind], fields.fitted, **jobs.QUICK)
    return demo
