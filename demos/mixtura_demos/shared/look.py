"""How all demos look: one theme, light or dark as the browser prefers, fonts of the system (none is fetched)."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
CSS = (Path(__file__).parent / "look.css").read_text()
HEAD = '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'


def theme() -> gr.themes.Base:
    """The hub gives it to every demo; a demo that is launched alone passes it to `launch(theme=theme(), css=CSS)`."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        font=FONTS,
        font_mono=MONO,
        radius_size=gr.themes.sizes.radius_md,
    ).set(
        body_background_fill="#f6f8f9",
        body_background_fill_dark="#0e151a",
        background_fill_primary_dark="#16212a",
        block_background_fill="#ffffff",
        block_background_fill_dark="#16212a",
        block_border_width="1px",
        block_label_background_fill_dark="#16212a",
        body_text_color_subdued="#51616c",
        body_text_color_subdued_dark="#a3b2bc",
        block_info_text_color="#51616c",
        block_info_text_color_dark="#a3b2bc",
        button_secondary_text_color="#17232b",
        button_secondary_text_color_dark="#e8eef1",
        block_border_color_dark="#2f3d48",
        input_background_fill_dark="#0e151a",
        input_border_width="1px",
        button_primary_background_fill="#0b7a75",
        button_primary_background_fill_hover="#096661",
        button_primary_text_color="#ffffff",
        button_primary_background_fill_dark="#0b7a75",
        button_primary_background_fill_hover_dark="#0d918b",
        button_primary_text_color_dark="#ffffff",
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
