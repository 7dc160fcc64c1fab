"""Our own viewer of Gaussians in the page: a canvas, drawn by WebGL2 or, without it, by plain JavaScript.

The scripts are the files beside this one; they become a part of the page and fetch nothing but the .ply of the scene shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

HERE = Path(__file__).parent
SCRIPTS = ("splats.js", "webgl.js", "canvas.js", "viewer.js")
ATTACH = """
const viewer = new SplatViewer(element);
const shown = () => viewer.show(props.value ? { ...props.value, url: props.value.file.url } : null);
watch("value", shown);
shown();
"""
PAGE = """
<div class="splat-box">
  <canvas tabindex="0" role="application" aria-label="Gaussians, turned by the arrow keys" aria-describedby="splat-line"></canvas>
  <div class="splat-buttons">
    <button type="button" class="splat-reset">Reset the view</button>
    <button type="button" class="splat-spin">Spin or stop</button>
  </div>
  <p class="splat-line" id="splat-line" role="status"></p>
</div>
"""
Rows = Sequence[Sequence[float]]


def viewer(label: str) -> gr.HTML:
    """The viewer, empty; its value is a scene (`scene`) or None."""
    script = "\n".join((HERE / name).read_text() for name in SCRIPTS)
    style = (HERE / "viewer.css").read_text()
    return gr.HTML(label=label, html_template=PAGE, css_template=style, js_on_load=script + ATTACH, elem_classes="splat-viewer")


def scene(file: Path, c2w: Rows, focal: float, size: int, up: Sequence[float], distance: float | None) -> dict[str, Any]:
    """What the viewer shows: Gaussians in `file`, at first from the camera `c2w` (4, 4), OpenCV axes.

    `focal` belongs to square pictures of `size` pixels. The view turns about the axis `up` through the point `distance` ahead of
    the camera; None takes the depth of the Gaussians' middle.
    """
    return {
        "file": FileData(path=str(file), orig_name=file.name).model_dump(),
        "c2w": [list(row) for row in c2w],
        "fov": math.degrees(2 * math.atan(size / 2 / focal)),
        "up": list(up),
        "distance": distance,
    }
