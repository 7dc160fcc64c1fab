"""What the page shows: how far it is, the views while it denoises, the viewer, the turntable, files to take away."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import gradio as gr

from mixtura_demos.diffusion_gs.job import Shown
from mixtura_demos.diffusion_gs.viewer import viewer
from mixtura_demos.shared.look import section

Update = dict[Any, Any]
FACTS = """
table { width: 100%; border-collapse: collapse; margin: 0; font-size: 0.85rem; }
th, td { border: 0; border-bottom: 1px solid var(--border-color-primary); padding: 0.25rem 0.5rem; text-align: left; }
th { font-weight: 600; white-space: nowrap; }
"""


class Results:
    """What comes out."""

    def __init__(self) -> None:
        with section("Result"):
            self.status = gr.HTML(status("Give a picture, or take an example, then make Gaussians."), elem_classes="gs-status")
            with gr.Row():
                self.cut = _picture("Cut out", "the object without its background", "gs-cut")
                self.same = _picture("Picture's view", "the Gaussians of this step from the picture's camera", "gs-live")
                self.other = _picture("New view", "the Gaussians of this step from a camera that the network lacks", "gs-live")
            self.viewer = viewer("Gaussians")
            with gr.Row():
                self.clip = gr.Video(label="Turntable", interactive=False, loop=True, height=280)
                with gr.Column():
                    self.facts = gr.HTML(css_template=FACTS, apply_default_css=False, elem_classes="gs-facts")
                    self.downloads = {
                        "gaussians.ply": _download("Download Gaussians (.ply)"),
                        "mesh.glb": _download("Download mesh (.glb)"),
                        "info.json": _download("Download settings (.json)"),
                    }

    @property
    def all(self) -> list[Any]:
        """What the job sets."""
        return [
            self.status, self.cut, self.same, self.other, self.viewer, self.clip, self.facts, *self.downloads.values(),
        ]  # fmt: skip

    def cleared(self) -> Update:
        """The page at the start of a job."""
        emptied: Update = dict.fromkeys((self.cut, self.same, self.other, self.viewer, self.clip))
        emptied.update({button: gr.update(value=None, interactive=False) for button in self.downloads.values()})
        return {**emptied, self.facts: "", self.status: status("Reading the picture …")}

    def updates(self, moment: Shown) -> Update:
        """A moment of the job as new values of fields."""
        changed: Update = {self.status: status(moment.status, moment.share)}
        if moment.cut is not None:
            changed[self.cut] = moment.cut
        if moment.views is not None:
            changed[self.same], changed[self.other] = moment.views
        if moment.scene is not None:
            changed[self.viewer] = moment.scene
        if moment.facts is not None:
            changed[self.facts] = table(moment.facts)
        for name, path in moment.files.items():
            if name == "turntable.mp4":
                changed[self.clip] = str(path)
            elif name in self.downloads:
                changed[self.downloads[name]] = gr.update(value=str(path), interactive=True)
        return changed


def _picture(label: str, alternative: str, name: str) -> gr.Image:
    return gr.Image(
        label=label,
        format="png",
        interactive=False,
        height=210,
        min_width=150,
        alt_text=alternative,
        buttons=["download"],
        elem_classes=name,
    )


def _download(label: str) -> gr.DownloadButton:
    return gr.DownloadButton(label, interactive=False, size="sm")


def status(text: str, share: float | None = None) -> str:
    """The line that tells how far the work is."""
    bar = "" if share is None else f'<progress value="{share:.3f}" max="1" aria-label="denoising"></progress> '
    return f'<p role="status">{bar}{html.escape(text)}</p>'


def table(facts: Mapping[str, str]) -> str:
    """Facts as rows."""
    rows = [f"<tr><th scope='row'>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in facts.items()]
    return f"<table>{''.join(rows)}</table>"
