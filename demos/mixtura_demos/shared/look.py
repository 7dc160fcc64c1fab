"""How all demos look: one theme, light or dark as the browser prefers, fonts of the system (none is fetched)."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
CSS = (Path(__file__).parent / "look.css").read_text()


def theme() -> gr.themes.Base:
    """The hub gives it to every demo; a demo that is launched alone passes it to `launch(theme=theme(), css=CSS)`."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        font=FONTS,
        font_mono=MONO,
        radius_size=gr.themes.sizes.radius_sm,
    )


def section(title: str) -> gr.Column:
    """A titled part of a page: `with section("Input"): ...`."""
    column = gr.Column(elem_classes="mx-section")
    with column:
        gr.Markdown(f"### {title}")
    return column


def note(text: str) -> gr.Markdown:
    """A line or two of explanation."""
    return gr.Markdown(text, elem_classes="mx-note")
