"""What the page shows, as HTML with everything inside it (no files): camera views, the chunk as curves, latent pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from mixtura_demos.iflybot_vla.episode import Episode, Thought
from mixtura_iflybot_vla.sim.world import ACTION_NAMES

UNITS = ("cm", "cm", "cm", "effort")
CM = 100.0
GAIN = 4
"""Differences of two pictures are shown so many times as strong around grey."""
WIDE, HIGH, LEFT, TOP, FOOT = 250, 132, 34, 20, 18

CSS = """
.mxv figure { margin: 0; display: inline-block; }
.mxv figcaption { font-size: 0.85rem; color: var(--body-text-color-subdued); max-width: 12rem; }
.mxv img { image-rendering: pixelated; border: 1px solid var(--border-color-primary); display: block;
 max-width: 100%; height: auto; }
.mxv .mxv-row { display: flex; flex-wrap: wrap; gap: 0.8rem; align-items: flex-start; }
.mxv svg { width: 100%; max-width: 270px; height: auto; color: var(--body-text-color); }
.mxv table { border-collapse: collapse; } .mxv td, .mxv th { border: 1px solid var(--border-color-primary);
 padding: 0.25rem 0.7rem; text-align: left; }
.mxv .mxv-status { font-weight: 600; } .mxv .solved { color: #15803d; } .mxv .failed { color: #b91c1c; }
.dark .mxv .solved { color: #4ade80; } .dark .mxv .failed { color: #f87171; }
.mxv .plan { fill: none; stroke: #0d9488; stroke-width: 2; stroke-dasharray: 5 3; }
.mxv .fast { fill: none; stroke: #c2410c; stroke-width: 1.5; stroke-dasharray: 1.5 2.5; }
.mxv .real { fill: none; stroke: #7c3aed; stroke-width: 2.5; } .mxv .dot { fill: #0d9488; }
.dark .mxv .real { stroke: #a78bfa; } .dark .mxv .fast { stroke: #fb923c; }
.mxv .key { display: inline-block; width: 1.6rem; height: 0.5rem; vertical-align: middle; margin: 0 0.3rem 0 0.9rem; }
"""
STYLE = f"<style>{CSS}</style>"


def panel(inside: str) -> str:
    """A part of the page; the page holds `STYLE` once."""
    return f"<div class='mxv'>{inside}</div>"


def picture(pixels: np.ndarray, caption: str, name: str, shown: int = 200) -> str:
    """A picture (H, W, 3) uint8 with its caption; `name` is for whoever looks for it in the page."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    text = html.escape(caption)
    return (
        f"<figure><img data-shows='{html.escape(name)}' width='{shown}' height='{shown}' alt='{text}' "
        f"src='data:image/png;base64,{data}'><figcaption>{text}</figcaption></figure>"
    )


def row(figures: Sequence[str]) -> str:
    """Figures side by side."""
    return f"<div class='mxv-row'>{''.join(figures)}</div>"


# -- the episode -----------------------------------------------------------------------------------------------------


def verdict(episode: Episode, word: str = "") -> str:
    """How the episode stands, in words."""
    rows, wish = len(episode.rows), episode.wish
    if episode.is_solved:
        state, kind = f"solved after {rows} steps", "solved"
    elif episode.is_over:
        state, kind = f"not solved within {rows} steps", "failed"
    else:
        state, kind = f"{word or 'running'}, step {rows} of at most {episode.limit}", "running"
    thought = episode.thought
    took = f" · {1000 * thought.seconds:.0f} ms for the last plan" if thought else ""
    return panel(
        f"<p role='status' class='mxv-status {kind}' data-rows='{rows}'>{state}</p>"
        f"<p>{html.escape(wish.task)}, seed {wish.seed}: “{html.escape(episode.words)}”{took}</p>"
    )


def views(episode: Episode) -> str:
    """The camera views as the policy is given them."""
    size = episode.views.shape[2]
    return panel(
        row(
            [
                picture(view, f"camera {name} ({size} × {size})", f"view-{name}", 240)
                for name, view in zip(episode.facts.cameras, episode.views, strict=True)
            ]
        )
    )


def strip(frame: np.ndarray, height: int = 240) -> np.ndarray:
    """The views (V, H, W, 3) side by side, enlarged to even sizes."""
    flat = np.concatenate(list(frame), 1)
    times = max(1, height // len(flat))
    large = flat.repeat(times, 0).repeat(times, 1)
    return large[: len(large) // 2 * 2, : large.shape[1] // 2 * 2]


# -- the chunk -------------------------------------------------------------------------------------------------------


def moved(episode: Episode) -> np.ndarray:
    """How the hand really moved in the rows carried out of the plan (rows, 3), in the action's unit: cm a simulator step."""
    rows = episode.rows[len(episode.rows) - episode.done :] if episode.done else []
    skip = episode.facts.frame_skip
    return np.array([(r.after[:3] - r.before[:3]) * CM / skip for r in rows]).reshape(-1, 3)


def chunk(episode: Episode) -> str:
    """Each action channel over the chunk: the plan, the rows of it that were carried out, what the hand did."""
    thought = episode.thought
    if thought is None:
        return panel("<p>No plan yet. “One chunk” makes one.</p>")
    done = episode.done
    carried = (
        np.array([r.action for r in episode.rows[len(episode.rows) - done :]]).reshape(done, -1) if done else np.zeros((0, 4))
    )
    real = moved(episode)
    charts = [
        curves(
            f"{name} ({unit})",
            thought.actions[:, channel],
            carried[:, channel],
            real[:, channel] if channel < 3 else np.zeros(0),
            None if thought.fast_actions is None else thought.fast_actions[:, channel],
        )
        for channel, (name, unit) in enumerate(zip(ACTION_NAMES, UNITS, strict=True))
    ]
    keys = [("#0d9488", "planned (dashed), carried out (dots)"), ("#7c3aed", "hand moved")]
    if thought.fast_actions is not None and np.isfinite(thought.fast_actions).all():
        keys.append(("#c2410c", "from discrete tokens"))
    legend = "".join(f"<span class='key' style='background:{colour}'></span>{text}" for colour, text in keys)
    return panel(f"<p data-done='{done}'>{done} of {len(thought.actions)} planned steps carried out.{legend}</p>{row(charts)}")


def curves(title: str, planned: np.ndarray, carried: np.ndarray, real: np.ndarray, fast: np.ndarray | None) -> str:
    """One channel as an SVG; all of them share the range of actions, a little wider than -1 to 1."""
    count = max(len(planned), 2)

    def points(values: np.ndarray) -> list[tuple[float, float]]:
        return [
            (LEFT + k * (WIDE - LEFT - 8) / (count - 1), TOP + (1.2 - max(-1.2, min(1.2, float(v)))) * (HIGH - TOP - FOOT) / 2.4)
            for k, v in enumerate(values)
        ]

    def line(values: np.ndarray, kind: str) -> str:
        return f"<polyline class='{kind}' points='{' '.join(f'{x:.1f},{y:.1f}' for x, y in points(values))}'/>"

    grid = "".join(
        f"<line x1='{LEFT}' x2='{WIDE - 8}' y1='{y:.1f}' y2='{y:.1f}' stroke='currentColor' stroke-opacity='0.2'/>"
        f"<text x='{LEFT - 5}' y='{y + 3.5:.1f}' font-size='10' text-anchor='end' fill='currentColor'>{level}</text>"
        for level, (_, y) in zip((1, 0, -1), points(np.array([1.0, 0.0, -1.0])), strict=True)
    )
    steps = "".join(
        f"<text x='{x:.1f}' y='{HIGH - 4}' font-size='10' text-anchor='middle' fill='currentColor'>{k + 1}</text>"
        for k, (x, _) in enumerate(points(planned))
        if count <= 12 or k % 5 == 0
    )
    dots = "".join(f"<circle class='dot' r='3.5' cx='{x:.1f}' cy='{y:.1f}'/>" for x, y in points(carried))
    shown = f"{title}: planned {', '.join(f'{v:.2f}' for v in planned)}; {len(carried)} carried out"
    return (
        f"<svg viewBox='0 0 {WIDE} {HIGH}' role='img' aria-label='{html.escape(shown)}'>"
        f"<text x='{LEFT}' y='13' font-size='12' font-weight='600' fill='currentColor'>{html.escape(title)}</text>{grid}{steps}"
        f"{'' if fast is None or not np.isfinite(fast).all() else line(fast, 'fast')}{line(planned, 'plan')}"
        f"{line(real, 'real')}{dots}</svg>"
    )


# -- latent actions and tokens ---------------------------------------------------------------------------------------


def difference(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The change from `before` to `after` (H, W, 3) uint8 around grey, GAIN times as strong."""
    change = after.astype(np.float32) - before.astype(np.float32)
    shown: np.ndarray = np.clip(127.5 + GAIN * change, 0, 255).astype(np.uint8)
    return shown


def latents(own: Sequence[int], ahead: Sequence[np.ndarray], other: Sequence[int], span: int) -> str:
    """Before, after and difference under the policy's codes, and under other ones. `ahead`: before, own after, other after."""
    before, mine, theirs = ahead
    text = " ".join(map(str, own))
    figures = [
        picture(before, "now, as the latent action model sees it", "before", 160),
        picture(mine, f"{span} steps later under the policy's codes", "after", 160),
        picture(difference(mine, before), f"difference, {GAIN} times", "difference", 160),
    ]
    rows = [f"<p>The policy's codes: <b data-codes='{text}'>{text}</b></p>", row(figures)]
    if list(other) != list(own):
        changed = " ".join(map(str, other))
        figures = [
            picture(theirs, f"{span} steps later under your codes", "after-changed", 160),
            picture(difference(theirs, before), f"difference, {GAIN} times", "difference-changed", 160),
            picture(difference(theirs, mine), f"your codes against the policy's, {GAIN} times", "difference-between", 160),
        ]
        rows += [f"<p>Your codes: <b data-changed='{changed}'>{changed}</b></p>", row(figures)]
    return panel("".join(rows))


def tokens(thought: Thought | None, has_fast: bool, wanted: bool) -> str:
    """The discrete action tokens that the language model writes for the same chunk."""
    if not has_fast:
        return panel("<p>These weights have no discrete action tokens (<code>fast: false</code>).</p>")
    if thought is None or thought.fast is None:
        return panel(f"<p>{'No plan yet.' if wanted else 'Not written; tick “Discrete tokens”.'}</p>")
    listed = " ".join(map(str, thought.fast)) or "none"
    if thought.fast_actions is None or not np.isfinite(thought.fast_actions).all():
        verdict = f"They stand for no chunk of {len(thought.actions)} × {thought.actions.shape[1]} numbers, so no curve is drawn."
    else:
        error = float(np.sqrt(np.square(thought.fast_actions - thought.actions).mean()))
        verdict = f"Decoded, they differ from the plan by {error:.2f} (root mean square); the orange curves show them."
    return panel(f"<p>{len(thought.fast)} tokens: <code data-tokens='{len(thought.fast)}'>{listed}</code></p><p>{verdict}</p>")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys."""
    if not rows:
        return ""
    head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in r.values()) + "</tr>" for r in rows)
    return panel(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
