"""Demos that can't be opened, each in its own way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr


def unbuildable(run: Path | None = None) -> gr.Blocks:
    """Fails half-way."""
    with gr.Blocks():
        gr.Textbox(label="Half")
        raise RuntimeError("the <b>half</b> of it is missing")


def leaving(run: Path | None = None) -> gr.Blocks:
    """Tries to end the program."""
    raise SystemExit(3)


def nothing(run: Path | None = None) -> Any:
    """No Blocks."""
    return None
