"""A page with samples of every source, to look at before training: pictures, texts, shapes; one HTML file without scripts."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mixtura.config.schema import RunConfig
from mixtura.data.source import Sample
from mixtura.data.sources import open_sources
from mixtura.errors import BadSample
from mixtura.rng import KeyedRng

SAMPLES, FRAMES, PIXELS, LETTERS = 12, 8, 160, 400
"""Samples of each source, frames of each clip, longest side of a picture, letters of each text, at most."""
STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem;color:#1c1c1c;background:#fafafa} h2{margin:2rem 0 .2rem}
.facts{color:#666;margin:0 0 .8rem} .grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:12px}
.card{background:#fff;border:1px solid #ddd;border-radius:8px;padding:10px;overflow:hidden}
.card h3{font:600 12px monospace;margin:0 0 6px}
.card img{margin:0 4px 4px 0;border-radius:4px;vertical-align:top}
.field{margin:4px 0;overflow-wrap:anywhere} .field b{color:#555}
.bad{color:#a11}
"""


def preview(config: RunConfig, root: Path, out: Path, say: Callable[[str], None]) -> Path:
    """Write `out/index.html` (or `out` itself when it ends in .html) with samples of every source; returns its path."""
    parts = []
    for name, source in open_sources(config.sources, root).items():
        info = source.info
        cards = [card(source, place) for place in np.unique(np.linspace(0, info.size - 1, SAMPLES).astype(int)).tolist()]
        facts = f"{info.size} samples of {info.unit_size:.4g} {html.escape(info.unit)}"
        parts.append(f'<h2>{html.escape(name)}</h2><p class="facts">{facts}</p><div class="grid">{"".join(cards)}</div>')
    page = out if out.suffix == ".html" else out / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    title = f"Samples of {html.escape(config.run.name)}"
    body = "".join(parts) or "<p>The configuration has no sources.</p>"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    page.write_text(f"{head}<h1>{title}</h1>{body}</html>", encoding="utf-8")
    say(f"wrote {page}")
    return page


def card(source: Any, place: int) -> str:
    """HTML of one sample, or of the reason why it can't be read."""
    try:
        sample: Sample = source.read(place, KeyedRng("preview", place))
    except BadSample as error:
        return f'<div class="card"><h3>{place}</h3><p class="bad">{html.escape(str(error))}</p></div>'
    fields = "".join(
        f'<div class="field"><b>{html.escape(name)}</b> {shown(value)}</div>' for name, value in sample.fields.items()
    )
    return f'<div class="card"><h3>{place} · {html.escape(sample.key)}</h3>{fields}</div>'


def shown(value: Any) -> str:
    """HTML of a field: pictures for uint8 (H, W, 3) and (T, H, W, 3), numbers and text otherwise."""
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (3, 4) and value.shape[-1] == 3:
        frames = value[None] if value.ndim == 3 else value
        chosen = frames[np.unique(np.linspace(0, len(frames) - 1, FRAMES).astype(int))]
        return f"{list(value.shape)}<br>" + "".join(picture(frame) for frame in chosen)
    if isinstance(value, np.ndarray):
        numbers = np.array2string(value, precision=3, threshold=24, edgeitems=3, separator=", ")
        return f"{value.dtype}{list(value.shape)} {html.escape(numbers)}"
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return "".join(shown(part) for part in value[:FRAMES])
    if isinstance(value, list) and value and isinstance(value[0], dict) and {"from", "value"} <= set(value[0]):
        return "".join(
            f"<br><i>{html.escape(str(turn['from']))}:</i> {html.escape(str(turn['value'])[:LETTERS])}" for turn in value
        )
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return html.escape(str(value)[:LETTERS])


def picture(frame: np.ndarray) -> str:
    """An image tag with a JPEG of at most PIXELS on its longer side."""
    image = Image.fromarray(np.ascontiguousarray(frame))
    image.thumbnail((PIXELS, PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img width="{image.width}" height="{image.height}" alt="" src="data:image/jpeg;base64,{data}">'
