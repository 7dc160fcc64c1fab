"""What a user gives: weights, a picture or an example, and settings that fit the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from mixtura_demos.diffusion_gs import pictures
from mixtura_demos.diffusion_gs.about import About, about
from mixtura_demos.diffusion_gs.job import Order
from mixtura_demos.shared.checkpoints import chosen
from mixtura_demos.shared.errors import Refused, shown
from mixtura_demos.shared.jobs import QUICK
from mixtura_demos.shared.look import section

SYSTEM = "diffusion_gs"
ROUTES = ("arc", "forward", "sideways")
OF_A_KIND = {
    "object": ("elevation", "foreground_ratio", "remover"),
    "scene": ("route",),
}
"""Settings that pictures of one kind have only."""


class Fields:
    """What a user gives."""

    def __init__(self, weights: gr.Dropdown) -> None:
        self.weights = weights
        self.known = gr.Markdown(elem_classes="mx-note")
        with section("Picture"):
            self.picture = pictures.unread(
                gr.Image(
                    label="Picture",
                    type="filepath",
                    sources=["upload", "clipboard", "webcam"],
                    height=240,
                    elem_classes="gs-picture",
                )
            )
            self.kind = gr.Radio(["object", "scene"], value="object", label="The picture shows")
            with gr.Row():
                for name, kind in pictures.examples().items():
                    self._example(name, kind)
        with gr.Row():
            self.go = gr.Button("Make Gaussians", variant="primary")
            self.cancel = gr.Button("Cancel", variant="stop")
        with gr.Accordion("Settings", open=False):
            self.settings = self._settings()
        for field in (weights, self.kind):
            field.change(self.fitting, [weights, self.kind], self.fitted, **QUICK)

    def _example(self, name: str, kind: str) -> None:
        def take(request: gr.Request) -> tuple[str, str]:
            return str(pictures.example(name, request)), kind

        gr.Button(f"Example: {name.lower()}", size="sm", min_width=110).click(
            shown(take), None, [self.picture, self.kind], **QUICK
        )

    def _settings(self) -> dict[str, Any]:
        """Fields by the name that the plugin's settings have; `seed` beside them."""
        return {
            "seed": gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1),
            "steps": gr.Slider(1, 100, 30, step=1, label="Denoising steps", elem_classes="gs-steps"),
            "sampler": gr.Radio(["ancestral", "ddim"], value="ancestral", label="Sampler"),
            "guidance": gr.Slider(0, 5, 1, step=0.1, label="Guidance"),
            "fov": gr.Slider(10, 120, 40, step=0.1, label="Field of view in degrees"),
            "elevation": gr.Slider(-80, 80, 20, step=1, label="Degrees from which the picture looks down"),
            "foreground_ratio": gr.Slider(0.2, 1, 0.825, step=0.005, label="Share of the frame that the object fills"),
            "remover": gr.Radio(list(pictures.REMOVERS), value="auto", label="Background removal"),
            "route": gr.Radio(list(ROUTES), value="arc", label="Path of the views through the scene"),
            "mesh": gr.Checkbox(True, label="Make a mesh"),
            "resolution": gr.Slider(32, 256, 128, step=16, label="Voxels along the mesh's longest side"),
        }

    @property
    def all(self) -> set[Any]:
        """What the job takes."""
        return {self.weights, self.picture, self.kind, *self.settings.values()}

    def order(self, values: Mapping[Any, Any]) -> Order:
        """What the job is to do. Raises Refused where no weights were chosen."""
        choice, kind = chosen(values[self.weights], SYSTEM), values[self.kind]
        others = {name for other, names in OF_A_KIND.items() if other != kind for name in names}
        settings = {name: values[field] for name, field in self.settings.items() if name not in others}
        return Order(choice, values[self.picture], {"kind": kind, **settings})

    @property
    def fitted(self) -> list[Any]:
        """What `fitting` sets."""
        names = ("steps", "sampler", "guidance", "fov", *OF_A_KIND["object"], *OF_A_KIND["scene"])
        return [self.known, self.kind, *(self.settings[name] for name in names)]

    def fitting(self, weights: str | None, kind: str) -> list[Any]:
        """Fields as the weights and the kind of picture need them; where there are no weights, as the published ones would."""
        try:
            facts, words = about(chosen(weights, SYSTEM).path), ""
        except Refused:
            facts, words = About(), "Without weights the page can't make Gaussians yet."
        kind = kind if kind in facts.kinds else facts.kinds[0]
        return [
            words or facts.words,
            gr.update(choices=list(facts.kinds), value=kind),
            gr.update(value=facts.steps, interactive=not facts.is_one_step),
            gr.update(value=facts.sampler, interactive=not facts.is_one_step),
            gr.update(value=facts.guidance, interactive=facts.has_guidance),
            gr.update(value=facts.fov[kind]),
            *(gr.update(visible=kind == owner) for owner, names in OF_A_KIND.items() for _ in names),
        ]
