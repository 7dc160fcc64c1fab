"""The part "Edit": a portrait turned, moved and given another expression by sliders, seen as they move."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from mixtura_demos.live_portrait import form
from mixtura_demos.live_portrait.directions import DIRECTIONS, hardly_known
from mixtura_demos.live_portrait.engines import loaded
from mixtura_demos.live_portrait.fields import Values, example_portrait, picture_field
from mixtura_demos.live_portrait.inputs import given, named
from mixtura_demos.live_portrait.sitting import Sitting, crop_of, edited, sit
from mixtura_demos.shared import jobs
from mixtura_demos.shared.errors import Refused, shown
from mixtura_demos.shared.look import note, section

EDITS: dict[str, tuple[str, str, float, float, float, float]] = {
    "pitch": ("Pitch", "degrees that the head nods", -45, 45, 0, 1),
    "yaw": ("Yaw", "degrees that the head turns aside", -60, 60, 0, 1),
    "roll": ("Roll", "degrees that the head leans", -45, 45, 0, 1),
    "x": ("Move aside", "in halves of the crop", -1, 1, 0, 0.01),
    "y": ("Move down", "in halves of the crop", -1, 1, 0, 0.01),
    "scale": ("Size", "factor of the head", 0.5, 2, 1, 0.01),
    "eye_ratio": ("Eyes open", "ratio of both eyes, by retargeting", 0, 0.8, 0, 0.01),
    "lip_ratio": ("Lips open", "ratio of the lips, by retargeting", 0, 0.8, 0, 0.01),
    "expression": ("Expression", "factor of all that the face shows; 0 is a face at rest", -3, 3, 1, 0.05),
    "lip_expression": ("Expression of the lips", "factor, where their keypoints are known", -3, 3, 1, 0.05),
    "eye_expression": ("Expression of the eyes", "factor, where their keypoints are known", -3, 3, 1, 0.05),
}
"""Slider of `mixtura_live_portrait.animate.editing.Edit` -> label, what it is, least, most, at rest, step."""
POSE, OPENINGS = ("pitch", "yaw", "roll"), ("eye_ratio", "lip_ratio")
PLACE, STRENGTH = ("x", "y", "scale"), ("expression", "lip_expression", "eye_expression")
BESIDE = "<style>.lp-beside { position: sticky; top: 0.5rem; align-self: flex-start; }</style>"
"""The preview stays in sight while sliders further down are moved."""
PARTS = ("lip_expression", "eye_expression")
"""Sliders that networks with other keypoints than the published ones don't know."""


class Page:
    """The fields and what they do. `weights` is the picker."""

    def __init__(self, weights: gr.Dropdown) -> None:
        self.weights = weights
        self.sitting = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                self._inputs()
            with gr.Column(scale=1, min_width=320, elem_classes="lp-beside"), section("Preview"):
                gr.HTML(BESIDE, padding=False)
                self.preview = gr.Image(
                    label="Edited portrait",
                    format="png",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_id="lp-edited",
                )
                note("The arrow at the picture's corner downloads it as PNG.")
                self.told = gr.Markdown("", elem_id="lp-edit-told")
        self._wire()

    def _inputs(self) -> None:
        with section("Portrait to edit"):
            self.picture = picture_field("Picture to edit")
            with gr.Row():
                self.example = gr.Button("Load the example portrait")
                self.reset = gr.Button("Reset the sliders")
            with gr.Row():
                self.stitching = gr.Checkbox(True, label="Keep the shoulders", info="stitching")
                self.paste = gr.Checkbox(True, label="Whole picture", info="otherwise the crop alone")
            with gr.Accordion("Several faces", open=False):
                self.order = gr.Dropdown(list(form.ORDERS), value="largest first", label="Count faces", interactive=True)
                self.face = gr.Number(0, label="Face to edit", info="from 0 on", minimum=0, maximum=99, precision=0)
        self.sliders: dict[str, gr.Slider] = {}
        with section("Pose"):
            self._sliders(POSE)
        with section("Eyes and lips"):
            self._sliders(OPENINGS)
        with section("Expression"):
            note("What these mean to the keypoints is measured with these weights, on drawn faces, when they are first moved.")
            self.doings = {
                name: gr.Slider(-1 if doing.low else 0, 1, 0, step=0.05, label=doing.label, info=doing.info)
                for name, doing in DIRECTIONS.items()
            }
        with gr.Accordion("Place and size", open=False):
            self._sliders(PLACE)
        with gr.Accordion("Strength of the expression", open=False):
            self._sliders(STRENGTH)

    def _sliders(self, names: tuple[str, ...]) -> None:
        for name in names:
            label, info, least, most, rest, step = EDITS[name]
            self.sliders[name] = gr.Slider(least, most, rest, step=step, label=label, info=info)

    def _wire(self) -> None:
        moved = [*self.sliders.values(), *self.doings.values()]
        chosen = {self.weights, self.picture, self.order, self.face}
        heavy: dict[str, Any] = {"concurrency_id": "compute", "concurrency_limit": 1, "api_visibility": "private"}
        fields = {self.sitting, self.stitching, self.paste, *moved}
        shown_here = [self.preview, self.told]
        gr.on(
            [self.picture.change, self.weights.change, self.order.input, self.face.submit, self.face.blur],
            jobs.as_job(self.prepare),
            {self.sitting, self.paste, *chosen},
            [self.sitting, *shown_here, *moved],
            trigger_mode="always_last",
            show_progress_on=self.preview,
            **heavy,
        )
        # `input` is what the keyboard gives as well; while a preview is made only the last value waits.
        triggers = [event for slider in moved for event in (slider.input, slider.release)]
        gr.on(
            [*triggers, self.stitching.input, self.paste.input],
            jobs.as_job(self.show),
            fields,
            shown_here,
            trigger_mode="always_last",
            show_progress="hidden",
            **heavy,
        )
        self.reset.click(jobs.as_job(self.rest), {self.sitting, self.paste}, [*shown_here, *moved], **heavy)
        self.example.click(shown(example_portrait), None, self.picture, **jobs.QUICK)

    # -- handlers ------------------------------------------------------------------------------------------------
    def prepare(self, values: Values, request: gr.Request) -> list[Any]:
        """Look at a new picture, or at the same one with other weights; sliders go to rest."""
        upload, before = values[self.picture], values[self.sitting]
        if not upload:
            return [None, None, "", *self.at_rest(None)]
        key = (str(upload), str(values[self.weights]), str(values[self.order]), str(values[self.face]))
        if before is not None and before.key == key:
            return [gr.skip()] * (3 + len(self.sliders) + len(self.doings))
        settings = form.settings_of({"order": values[self.order], "face": values[self.face] or 0})
        began, path = time.perf_counter(), given(upload, "picture", "the picture", request)
        with named({path: "the picture"}):
            sitting = sit(path, settings, loaded(values[self.weights]), key)
        told = f"Face found and appearance computed in {time.perf_counter() - began:.2f} s; weights: {sitting.networks.label}."
        return [sitting, self.still(sitting, values), told, *self.at_rest(sitting)]

    def show(self, values: Values) -> list[Any]:
        """The preview of what the sliders say."""
        sitting = values[self.sitting]
        if sitting is None:
            raise Refused("there is no portrait yet: give a picture with a face, or take the example")
        edits = {name: values[slider] for name, slider in self.sliders.items()}
        amounts = {name: values[slider] for name, slider in self.doings.items()}
        began = time.perf_counter()
        picture = edited(sitting, edits, amounts, values[self.stitching], values[self.paste])
        told = f"Painted in {time.perf_counter() - began:.2f} s. Nothing is drawn at random, so there is no seed."
        if little := hardly_known(sitting.networks, amounts):
            told += f" These weights hardly know what this is: {', '.join(little)}; moving it does little."
        return [picture, told]

    def rest(self, values: Values) -> list[Any]:
        """All sliders at rest, and the picture as it was."""
        sitting = values[self.sitting]
        return [None if sitting is None else self.still(sitting, values), "", *self.at_rest(sitting)]

    def still(self, sitting: Sitting, values: Values) -> Any:
        """The portrait as it is."""
        return sitting.frame if values[self.paste] else crop_of(sitting)

    def at_rest(self, sitting: Sitting | None) -> list[Any]:
        """Sliders at rest: eyes and lips as open as they are, and only those that this portrait and these weights know."""
        known: dict[str, Any] = {name: {"value": rest, "visible": True} for name, (*_, rest, _step) in EDITS.items()}
        if sitting is not None:
            from mixtura_live_portrait.animate.regions import PUBLISHED

            for name, own in zip(("eye_ratio", "lip_ratio"), sitting.openings, strict=True):
                known[name] = {"value": min(round(own or 0, 2), 0.8), "interactive": own is not None}
            for name in PARTS:
                known[name]["visible"] = sitting.networks.engine.sizes.keypoints == PUBLISHED
        return [*(gr.update(**known[name]) for name in self.sliders), *(gr.update(value=0) for _ in self.doings)]
