"""The part "Faces": which faces are found in a picture or a clip, where, and how far eyes and lips are open."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from mixtura_demos.live_portrait import form, seeing
from mixtura_demos.live_portrait.fields import PORTRAITS, Given, Values, clip_field, example_portrait, picture_field
from mixtura_demos.live_portrait.inputs import named
from mixtura_demos.shared import jobs
from mixtura_demos.shared.errors import shown
from mixtura_demos.shared.look import note, section

FRAMINGS: dict[str, seeing.Side] = {"as a portrait": "source", "as a driving": "driving"}


class Page:
    """The fields and what they do."""

    def __init__(self) -> None:
        with gr.Row():
            with gr.Column(scale=1, min_width=320), section("Picture or clip"):
                note("Of a clip the first frame is looked at. No weights are needed.")
                uploads = {"picture": lambda: picture_field("Picture with faces"), "clip": lambda: clip_field("Clip with a face")}
                self.given = Given("the picture or clip", PORTRAITS, uploads)
                self.detector = gr.Dropdown(list(form.DETECTORS), value="automatic", label="Face detector", interactive=True)
                self.order = gr.Dropdown(list(form.ORDERS), value="largest first", label="Count the faces", interactive=True)
                self.framing = gr.Radio(list(FRAMINGS), value="as a portrait", label="Crop the faces")
                with gr.Row():
                    self.example = gr.Button("Load the example picture")
                    self.start = gr.Button("Find faces", variant="primary")
            with gr.Column(scale=1, min_width=320), section("Found"):
                self.gallery = gr.Gallery(label="Found faces", columns=3, height=360, object_fit="contain", interactive=False)
                self.table = gr.Dataframe(headers=seeing.HEADER, label="Faces, in pixels of the frame", interactive=False)
                self.told = gr.Markdown("", elem_id="lp-faces-told")
        fields = {*self.given.components, self.detector, self.order, self.framing}
        jobs.run(self.start, self.find, fields, [self.gallery, self.table, self.told])
        self.example.click(
            shown(lambda: ["picture", example_portrait()]), None, [self.given.kind, self.given.uploads["picture"]], **jobs.QUICK
        )

    def find(self, values: Values, request: gr.Request) -> list[Any]:
        """All faces of the picture."""
        words = {"detector": values[self.detector], "order": values[self.order]}
        path, began = self.given.file(values, request), time.perf_counter()
        with named({path: self.given.what}):
            seen = seeing.see(path, form.settings_of(words), FRAMINGS[values[self.framing]], everyone=True)
        count, seconds = len(seen.rows), time.perf_counter() - began
        return [seen.pictures("faces"), seen.rows, f"{count} face{'' if count == 1 else 's'} in {seconds:.2f} s."]
