"""The part "Animate": a portrait and what drives it in, a clip or picture out, and the motion as a template to be used again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from mixtura_demos.live_portrait import animating, form, seeing
from mixtura_demos.live_portrait.engines import loaded
from mixtura_demos.live_portrait.fields import (
    PORTRAITS,
    Given,
    Values,
    clip_field,
    example_clip,
    example_portrait,
    file_field,
    picture_field,
)
from mixtura_demos.live_portrait.inputs import Kind, given, in_words, named
from mixtura_demos.shared import jobs
from mixtura_demos.shared.errors import Refused, shown
from mixtura_demos.shared.look import note, section
from mixtura_demos.shared.work import fresh

DRIVINGS: dict[str, Kind] = {"clip or webcam recording": "clip", "picture": "picture", "motion template": "template"}
PORTRAIT, DRIVING = "the portrait", "the driving"
PROGRESS = gr.Progress()


class Page:
    """The fields and what they do. `weights` is the picker."""

    def __init__(self, weights: gr.Dropdown) -> None:
        self.weights = weights
        with gr.Row():
            with gr.Column(scale=1, min_width=340):
                self._inputs()
                self.form = form.build()
            with gr.Column(scale=1, min_width=340):
                self._outputs()
        self._wire()

    def _inputs(self) -> None:
        with section("Portrait"):
            uploads = {"picture": lambda: picture_field("Portrait picture"), "clip": lambda: clip_field("Portrait clip")}
            self.portrait = Given(PORTRAIT, PORTRAITS, uploads)
        with section("Driving"):
            builds = (
                lambda: clip_field("Driving clip"),
                lambda: picture_field("Driving picture"),
                lambda: file_field("Motion template", [".safetensors", ".pkl"]),
            )
            self.driving = Given(DRIVING, DRIVINGS, dict(zip(DRIVINGS, builds, strict=True)))
        with gr.Accordion("Landmarks or crops by hand, for faces that aren't found", open=False):
            self.by_hand = {
                "source_landmarks": file_field("Landmarks of the portrait (.json or .npz)", [".json", ".npz"]),
                "driving_landmarks": file_field("Landmarks of the driving (.json or .npz)", [".json", ".npz"]),
            }
        with gr.Row():
            self.example = gr.Button("Load the example")
            self.look = gr.Button("Show faces and crops")
        with gr.Row():
            self.start = gr.Button("Animate", variant="primary")
            self.cancel = gr.Button("Cancel", variant="stop")

    def _outputs(self) -> None:
        with section("Result"):
            self.clip = gr.Video(label="Animation", autoplay=True, loop=True, interactive=False, elem_id="lp-animation")
            self.picture = gr.Image(
                label="Animated picture", interactive=False, visible=False, format="png", elem_id="lp-animated-picture"
            )
            self.clips = gr.Video(
                label="Driving, source, result", loop=True, interactive=False, visible=False, elem_id="lp-comparison"
            )
            self.pictures = gr.Image(label="Driving, source, result (picture)", interactive=False, visible=False)
            self.told = gr.Markdown("", elem_id="lp-told")
        with section("Motion template"):
            note("What the driving did, without its pictures: give it as driving to any portrait, with the same weights.")
            self.template = gr.File(label="Template of this motion", interactive=False, height=90, elem_id="lp-template")
            self.again = gr.Button("Drive with this template")
        with section("Faces that were found"):
            self.faces = gr.Gallery(label="Faces and crops", columns=3, height=320, object_fit="contain", interactive=False)

    def _wire(self) -> None:
        by_hand = set(self.by_hand.values())
        fields = {*self.portrait.components, *self.driving.components, *by_hand, *self.form.components}
        results = [self.clip, self.picture, self.clips, self.pictures, self.told, self.template, self.faces]
        jobs.run(self.start, self.run, {self.weights, *fields}, results, self.cancel)
        jobs.run(self.look, self.show_faces, fields, self.faces, self.cancel)
        portrait, driving = self.portrait.uploads["picture"], self.driving.uploads["clip or webcam recording"]
        self.example.click(shown(give_example), None, [self.portrait.kind, portrait, self.driving.kind, driving], **jobs.QUICK)
        template = self.driving.uploads["motion template"]
        self.again.click(shown(drive_again), self.template, [self.driving.kind, template], **jobs.QUICK)

    # -- handlers ------------------------------------------------------------------------------------------------
    def settings(self, values: Values, request: gr.Request) -> dict[str, Any]:
        """Settings of the form, and landmarks by hand where they are given."""
        chosen = self.form.settings([values[field] for field in self.form.components])
        for name, field in self.by_hand.items():
            if values[field]:
                chosen[name] = given(values[field], "landmarks", str(field.label), request)
        return chosen

    def names(self, chosen: Mapping[str, Any]) -> dict[Path, str]:
        """Files of ours by what the page calls them."""
        return {chosen[name]: str(field.label) for name, field in self.by_hand.items() if name in chosen}

    def run(self, values: Values, request: gr.Request, progress: gr.Progress = PROGRESS) -> list[Any]:
        """Animate."""

        def tell(what: str, done: int, count: int) -> None:
            jobs.tick()
            if what:
                progress((done, count) if count else None, desc=what, unit="frames")

        chosen = self.settings(values, request)
        portrait, driving = self.portrait.file(values, request), self.driving.file(values, request)
        progress(0.0, desc="making the networks ready")
        networks = loaded(values[self.weights])
        names = self.names(chosen) | {portrait: PORTRAIT, driving: DRIVING}
        with named(names):
            made = animating.animate([portrait, driving], chosen, networks, fresh(request, ".out"), tell)
        clip, picture = made.of("animated.mp4"), made.of("animated.png")
        clips, pictures = made.of("comparison.mp4"), made.of("comparison.png")
        return [
            gr.update(value=clip, visible=picture is None),
            gr.update(value=picture, visible=picture is not None),
            gr.update(value=clips, visible=clips is not None),
            gr.update(value=pictures, visible=pictures is not None),
            report(made, networks.label, names),
            made.of("template.safetensors"),
            [(path, what) for name, what in FACES.items() if (path := made.of(name)) is not None],
        ]

    def show_faces(self, values: Values, request: gr.Request) -> list[tuple[Any, str]]:
        """Crops with landmarks of what was given so far."""
        chosen = self.settings(values, request)
        pictures: list[tuple[Any, str]] = []
        portrait = self.portrait.file(values, request)
        with named({portrait: PORTRAIT} | self.names(chosen)):
            pictures += seeing.see(portrait, chosen, "source").pictures("portrait")
        word = values[self.driving.kind]
        if values[self.driving.uploads[word]] and DRIVINGS[word] != "template":
            driving = self.driving.file(values, request)
            with named({driving: DRIVING} | self.names(chosen)):
                pictures += seeing.see(driving, chosen, "driving").pictures("driving")
        return pictures


FACES = {"faces_source.png": "portrait", "faces_driving.png": "driving, first frame"}


def report(made: animating.Made, label: str, names: Mapping[Path, str]) -> str:
    """What was made and how long it took, in a few lines."""
    info, count = made.info, made.info["frames"]
    painting = info["seconds"]["painting"]
    others = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in info["seconds"].items() if name != "painting")
    frames = f"{count} frames at {info['fps']:g} a second" if count > 1 else "1 frame"
    lines = [
        f"**{frames}, {info['total'] / count:.3f} s a frame**, {info['total']:.1f} s in all: painting {painting:.1f} s, "
        f"{others}.",
        f"Weights: {label}, on {info['device']}. Nothing is drawn at random, so there is no seed.",
    ]
    told = [in_words(line, names) for line in made.said if not re.fullmatch(r"\d+ of \d+ frames", line)]
    return "\n\n".join([*lines, "; ".join(told) + "." if told else ""])


def give_example() -> list[Any]:
    """A portrait and a talking head that packages ship."""
    return ["picture", example_portrait(), next(iter(DRIVINGS)), example_clip()]


def drive_again(template: str | None) -> list[Any]:
    """Take the template that was made as the driving."""
    if not template:
        raise Refused("no template yet: animate with a clip or a picture first")
    return ["motion template", template]
