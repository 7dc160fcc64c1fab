"""The fields of `mixtura_live_portrait.animate.settings.Settings` that the page offers, and their values as settings.

Choices and defaults are written down here, so that the page is built without importing torch; a test compares them with the
plugin's. What names places on the server, or code to run, isn't offered: detectors other than those in WORDS, folders of models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mixtura_demos.shared.errors import Refused

MOTIONS = {"relative to the first driving frame": True, "absolute": False}
REGIONS = {"everything": "all", "expression": "exp", "pose": "pose", "lips": "lip", "eyes": "eyes"}
ORDERS = {
    "largest first": "large-small",
    "smallest first": "small-large",
    "left to right": "left-right",
    "right to left": "right-left",
    "top to bottom": "top-bottom",
    "bottom to top": "bottom-top",
}
SMOOTHINGS = {"for clips that a clip drives": "auto", "on": "on", "off": "off"}
DETECTORS = {"automatic": "auto", "face mesh (478 landmarks)": "mesh"}
CROPS = {"the face": "face", "the whole frame": "whole"}
SOUNDS = {"the driving's, or else the source's": "auto", "the driving's": "driving", "the source's": "source", "none": "none"}
OPENINGS = {"as they move": None, "retargeted: as open as the driving's": True, "retargeted: open by the ratio below": "ratio"}
RATIOS = {"eyes": "eye_ratio", "lips": "lip_ratio"}
WORDS: dict[str, Mapping[str, Any]] = {
    "relative": MOTIONS, "region": REGIONS, "order": ORDERS, "smoothing": SMOOTHINGS, "detector": DETECTORS,
    "source_crop": CROPS, "driving_crop": CROPS, "sound": SOUNDS, "eyes": OPENINGS, "lips": OPENINGS,
}  # fmt: skip
"""Setting -> words in the page and what they mean."""
FRAMES, MOST_FRAMES = 50, 750
WHOLE = ("face", "driving_face", "gaps", "max_frames", "longest")
"""Settings that are whole numbers."""


@dataclass(frozen=True)
class Form:
    """Components by the setting that they stand for, in the order in which handlers get their values."""

    fields: Mapping[str, gr.components.Component]

    @property
    def components(self) -> list[gr.components.Component]:
        """What handlers take as inputs."""
        return list(self.fields.values())

    def settings(self, values: Sequence[Any]) -> dict[str, Any]:
        """Values of the components as settings."""
        return settings_of(dict(zip(self.fields, values, strict=True)))


def settings_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Words as what they mean, and what isn't set left out. Raises Refused for words that aren't offered, and broken numbers."""
    settings = {name: _meant(name, value) for name, value in values.items()}
    for part, ratio in RATIOS.items():
        by_ratio = settings.get(part) == "ratio"
        settings |= {part: by_ratio or settings.get(part), ratio: settings.get(ratio) if by_ratio else None}
    settings["fps"] = settings.get("fps") or None
    return {name: value for name, value in settings.items() if value is not None}


def _meant(name: str, value: Any) -> Any:
    """What a field's value means."""
    if name in WORDS:
        if value not in WORDS[name]:
            raise Refused(f"{name}: {value!r} isn't offered; take one of {', '.join(WORDS[name])}")
        return WORDS[name][value]
    if name in WHOLE and value is not None:
        if value != int(value):
            raise Refused(f"{name}: {value} isn't a whole number; give one")
        return int(value)
    return value


def _radio(name: str, label: str, info: str | None = None) -> gr.Radio:
    words = list(WORDS[name])
    return gr.Radio(words, value=words[0], label=label, info=info)


def _dropdown(name: str, label: str, info: str | None = None) -> gr.Dropdown:
    words = list(WORDS[name])
    return gr.Dropdown(words, value=words[0], label=label, info=info, interactive=True)


def motion() -> dict[str, gr.components.Component]:
    """What is taken over, and how strongly."""
    return {
        "relative": _radio("relative", "Motion"),
        "region": _radio("region", "What is taken over"),
        "friendly": gr.Checkbox(False, label="Expression-friendly", info="fit absolute motion to the source: begin there"),
        "multiplier": gr.Slider(0, 3, 1, step=0.05, label="Multiplier", info="how strongly the source moves"),
    }


def adjusting() -> dict[str, gr.components.Component]:
    """What is done to keypoints after the transfer."""
    only = "retargeted with relative motion, only eyes and lips move"
    return {
        "stitching": gr.Checkbox(True, label="Stitching", info="keep the shoulders where they are"),
        "lip_normalise": gr.Checkbox(True, label="Lip normalisation", info="close the source's lips before relative motion"),
        "eyes": _radio("eyes", "Eyes", only),
        "eye_ratio": gr.Slider(0, 0.8, 0.35, step=0.01, label="Ratio of the eyes"),
        "lips": _radio("lips", "Lips", only),
        "lip_ratio": gr.Slider(0, 0.8, 0.1, step=0.01, label="Ratio of the lips"),
        "steady_eyes": gr.Checkbox(False, label="Steady eyes", info="of a source clip: as open as in its first frame"),
        "smoothing": _radio("smoothing", "Smoothing over frames"),
    }


def faces() -> dict[str, gr.components.Component]:
    """Which faces, and how they are looked for."""
    return {
        "detector": _dropdown("detector", "Detector"),
        "order": _dropdown("order", "Faces are counted", "when there are several"),
        "face": gr.Number(0, label="Face of the portrait", info="from 0 on", minimum=0, maximum=99, precision=0),
        "driving_face": gr.Number(0, label="Face of the driving", info="from 0 on", minimum=0, maximum=99, precision=0),
        "all_faces": gr.Checkbox(False, label="All faces of the portrait", info="each moves as the driving does"),
        "gaps": gr.Number(0, label="Frames without a face that are bridged", minimum=0, maximum=99, precision=0),
        "source_crop": _radio("source_crop", "Crop of the portrait", "the whole frame: for what is cropped already"),
        "driving_crop": _radio("driving_crop", "Crop of the driving", "likewise"),
    }


def output() -> dict[str, gr.components.Component]:
    """How much is made, and in which form."""
    return {
        "max_frames": gr.Slider(1, MOST_FRAMES, FRAMES, step=1, label="Most frames"),
        "fps": gr.Number(0, label="Frames a second", info="0: the driving's own", minimum=0, maximum=120),
        "longest": gr.Slider(64, 1280, 1280, step=2, label="Longer side", info="pixels that frames are reduced to"),
        "paste": gr.Checkbox(True, label="Paste back", info="into the whole frame; otherwise the crop alone"),
        "comparison": gr.Checkbox(False, label="Side by side", info="also driving, source and result beside each other"),
        "sound": _dropdown("sound", "Sound"),
    }


GROUPS: tuple[tuple[str, bool, Callable[[], dict[str, gr.components.Component]]], ...] = (
    ("Motion", True, motion),
    ("Adjustments: stitching, eyes, lips, smoothing", False, adjusting),
    ("Faces and crops", False, faces),
    ("Frames and output", True, output),
)


def build() -> Form:
    """All groups, the rarer ones folded."""
    fields: dict[str, gr.components.Component] = {}
    for title, is_open, group in GROUPS:
        with gr.Accordion(title, open=is_open):
            fields |= group()
    return Form(fields)
