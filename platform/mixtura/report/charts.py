"""Charts as SVG text: lines, stacked areas and rate bars. Colours are CSS classes, so a page can be light or dark.

Every line chart carries its numbers as JSON in `data-hover`, from which the page's script shows values under the pointer.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

WIDTH, HEIGHT = 560, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 30, 38
EDGE = 5
"""Pixels around the plot where dots may still reach."""
RAW_POINTS, SMOOTH_POINTS = 480, 240
COLORS = 8
"""Colours that the style sheet has; series beyond them start again, dashed."""

Pairs = tuple[Sequence[float], Sequence[float]]


@dataclass
class Series:
    """A line: `x`, `y`, drawn smoothed when `smooth`. `color` -1 is the text's colour. `bounds` (low, high) per point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = -1
    smooth: bool = True
    dots: bool = False
    bounds: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass
class Axes:
    """Scales of a chart: data ranges, and whether y is logarithmic or a share shown in %. `bands` are (x, label).

    `unit` says what y counts, or in what unit; x counts steps.
    """

    x0: float
    x1: float
    y0: float
    y1: float
    log: bool = False
    percent: bool = False
    bands: Sequence[tuple[float, str]] = field(default_factory=tuple)
    unit: str = ""

    def px(self, x: np.ndarray | float) -> np.ndarray:
        """Data to pixels."""
        return LEFT + (np.asarray(x, float) - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def py(self, y: np.ndarray | float) -> np.ndarray:
        """Data to pixels, kept near the plot so that paths stay finite."""
        values, low, high = np.asarray(y, float), self.y0, self.y1
        if self.log:
            values, low, high = np.log10(np.maximum(values, 1e-300)), math.log10(low), math.log10(high)
        share = np.clip((values - low) / (high - low), -1, 2)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def number(value: float) -> str:
    """A figure for people: four digits, no needless zeros."""
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size < 1e-3 or size >= 1e7:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within [low, high]."""
    span = (high - low) / count
    power = 10 ** math.floor(math.log10(span))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= span * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within [low, high], with 2 and 5 between them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / 6))
    marks = (1, 2, 5) if high / low < 200 else (1,)
    return [m * 10.0**k for k in range(first, last + 1, stride) for m in marks if low <= m * 10.0**k <= high]


def axis_label(value: float, percent: bool) -> str:
    """Short text of a tick."""
    if percent:
        return f"{value * 100:.3g} %"
    if abs(value) >= 10_000:
        return f"{value / 1e6:.4g}M" if abs(value) >= 1e6 else f"{value / 1e3:.4g}k"
    return number(value)


def smoothed(y: np.ndarray) -> np.ndarray:
    """Gaussian average over neighbours on both sides, so that it doesn't lag (sigma: a sixtieth); `y` itself when short."""
    if len(y) < 12:
        return y
    sigma = max(len(y) / 60, 1.5)
    reach = math.ceil(3 * sigma)
    kernel = np.exp(-((np.arange(-reach, reach + 1) / sigma) ** 2) / 2)
    weight = np.convolve(np.ones(len(y)), kernel)[reach:-reach]
    averaged: np.ndarray = np.convolve(y, kernel)[reach:-reach] / weight
    return averaged


def segments(x: np.ndarray, starts: Sequence[float]) -> list[slice]:
    """Slices of ascending `x` between the starts of stages: a curve doesn't run across a change of stage."""
    cuts = sorted({0, len(x), *np.searchsorted(x, np.asarray(starts, float), side="right").tolist()})
    return [slice(a, b) for a, b in itertools.pairwise(cuts) if b > a]


def thinned(x: np.ndarray, y: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """At most about `points` points that keep lows and highs."""
    if len(x) <= points:
        return x, y
    kept: set[int] = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), points // 2):
        kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    order = sorted(kept)
    return x[order], y[order]


def path(axes: Axes, x: np.ndarray, y: np.ndarray) -> str:
    """An SVG path through the points."""
    return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in zip(axes.px(x), axes.py(y), strict=True))


def style(color: int) -> str:
    """Classes of a series."""
    return "ink" if color < 0 else f"c{color % COLORS}" + (" dash" if color >= COLORS else "")


def frame(axes: Axes, body: str, label: str, hover: str = "") -> str:
    """Grid, labels, stage marks and the plot's content."""
    y_ticks = log_ticks(axes.y0, axes.y1) if axes.log else ticks(axes.y0, axes.y1)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}"{hover}>']
    for value in y_ticks:
        y = float(axes.py(value))
        parts.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{axis_label(value, axes.percent)}</text>'
        )
    for value in ticks(axes.x0, axes.x1, 6):
        x = float(axes.px(value))
        place = f'x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle"'
        parts.append(f'<text class="tick" {place}>{axis_label(value, False)}</text>')
    parts.append(f'<path class="base" d="M{LEFT},{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    parts.append(f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">step</text>')
    unit = f"{axes.unit}, log scale" if axes.unit and axes.log else axes.unit
    parts.append(f'<text class="axis" x="2" y="11">{escape(unit)}</text>')
    window = (LEFT - EDGE, TOP - EDGE, WIDTH - LEFT - RIGHT + 2 * EDGE, HEIGHT - TOP - BOTTOM + 2 * EDGE)
    place = 'x="{}" y="{}" width="{}" height="{}"'.format(*window)
    parts.append(f'<svg {place} viewBox="{" ".join(map(str, window))}">{body}</svg>')  # cuts off what leaves the plot
    parts.append(_bands(axes))
    parts.append('<path class="cross" d=""/></svg>')
    return "".join(parts)


def _bands(axes: Axes) -> str:
    """Names of the stages above the plot and a line where each but the first begins."""
    starts = [max(x, axes.x0) for x, _ in axes.bands] + [axes.x1]
    parts = []
    for i, (start, name) in enumerate(axes.bands):
        left, room = float(axes.px(starts[i])), float(axes.px(starts[i + 1]) - axes.px(starts[i]))
        if start > axes.x0:
            parts.append(f'<path class="stage" d="M{left:.1f},{TOP - 12}V{HEIGHT - BOTTOM}"/>')
        shown = name if len(name) * 6 < room else name[: max(0, int(room / 6) - 1)] + "…"
        if room > 18:
            parts.append(
                f'<text class="band" x="{left + 5:.1f}" y="{TOP - 6}"><title>{escape(name)}</title>{escape(shown)}</text>'
            )
    return "".join(parts)


def x_range(x: np.ndarray, last: float = 0.0, first: float = 0.0) -> tuple[float, float]:
    """From `first` to the last step (or to `last`, where that is later), and never empty."""
    first, last = min(first, float(x.min())), max(last, float(x.max()))
    return first, last if last > first else first + 1.0


def y_range(values: np.ndarray, raw: np.ndarray, zero: bool, log: bool) -> tuple[float, float]:
    """Room for the smoothed lines and for nearly all of the raw ones."""
    low, high = float(values.min()), float(values.max())
    if raw.size:
        low, high = min(low, float(np.quantile(raw, 0.01))), max(high, float(np.quantile(raw, 0.99)))
    if log:
        room = max((high / low) ** 0.05, 1.05)
        return low / room, high * room
    if zero:
        low = min(low, 0.0)
    room = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return max(0.0, low - room) if low >= 0 else low - room, high + room


def line_chart(series: Sequence[Series], label: str, *, bands: Sequence[tuple[float, str]] = (), percent: bool = False,
               zero: bool = False, log: bool | None = None, last: float = 0.0, first: float = 0.0,
               unit: str = "") -> str:  # fmt: skip
    """SVG of lines over steps from `first` to `last`, or to the last point where that is later; "" without data.

    `log` None: logarithmic where positive values span more than 30-fold. A curve is broken where a stage of `bands` begins,
    unless its points are marked by dots (measurements).
    """
    drawn = [(s, np.asarray(s.x, float), np.asarray(s.y, float)) for s in series if len(s.x)]
    if not drawn:
        return ""
    starts = [x for x, _ in bands]
    curves = [
        (s, x[part], y[part], smoothed(y[part]) if s.smooth else y[part])
        for s, x, y in drawn
        for part in segments(x, [] if s.dots else starts)
    ]
    values = np.concatenate([c[3] for c in curves])
    raw = np.concatenate([y for s, _, y in drawn if s.smooth] or [np.zeros(0)])
    positive = bool((values > 0).all() and (raw > 0).all())
    wide = positive and values.max() / values.min() > 30
    log = positive and (wide if log is None else log) and not percent
    low, high = y_range(np.concatenate([values, *_bounds(drawn)]), raw, zero and not log, log)
    if percent:
        low, high = 0.0, max(high, 0.05) if high < 0.5 else 1.0
    axes = Axes(*x_range(np.concatenate([x for _, x, _ in drawn]), last, first), low, high, log, percent, bands, unit)
    return frame(axes, _bodies(axes, [s for s, _, _ in drawn], curves), label, _hover(axes, [s for s, _, _ in drawn], curves))


def _bounds(drawn: Sequence[tuple[Series, np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    return [np.asarray(side, float) for s, _, _ in drawn if s.bounds for side in s.bounds]


Curve = tuple[Series, np.ndarray, np.ndarray, np.ndarray]


def _bodies(axes: Axes, series: Sequence[Series], curves: Sequence[Curve]) -> str:
    """Raw traces behind, then the lines, each series in its own group."""
    parts = []
    for k, s in enumerate(series):
        mine = [c for c in curves if c[0] is s]
        inner = [
            f'<path class="raw" d="{path(axes, *thinned(x, y, RAW_POINTS))}"/>' for _, x, y, m in mine if s.smooth and m is not y
        ]
        inner += [f'<path class="line" d="{path(axes, *thinned(x, m, SMOOTH_POINTS))}"/>' for _, x, _, m in mine if len(x) > 1]
        dots = [(x, m) for _, x, _, m in mine if s.dots or len(x) == 1]
        inner += [
            f'<circle r="3.2" cx="{a:.1f}" cy="{b:.1f}"/>' for x, m in dots for a, b in zip(axes.px(x), axes.py(m), strict=True)
        ]
        if s.bounds:
            lows, highs = (axes.py(np.asarray(side)) for side in s.bounds)
            inner += [
                f'<path class="whisker" d="M{x:.1f},{a:.1f}V{b:.1f}"/>'
                for x, a, b in zip(axes.px(np.asarray(s.x)), lows, highs, strict=True)
            ]
        parts.append(f'<g class="{style(s.color)}" data-k="{k}">{"".join(inner)}</g>')
    return "".join(parts)


def _hover(axes: Axes, series: Sequence[Series], curves: Sequence[Curve]) -> str:
    """The `data-hover` attribute: pixels of the plot, range of x, and (name, class, x, y) per series."""
    lists = []
    for s in series:
        xs: list[float] = []
        ys: list[float] = []
        for _, x, _, m in (c for c in curves if c[0] is s):
            a, b = thinned(x, m, SMOOTH_POINTS)
            xs += [float(f"{v:.6g}") for v in a]
            ys += [float(f"{v:.4g}") for v in b]
        lists.append([s.name, style(s.color), xs, ys])
    return hover_attribute(axes, lists)


def hover_attribute(axes: Axes, lists: Sequence[Sequence[object]]) -> str:
    """JSON for the page's script, safe in an attribute."""
    record = {
        "box": [LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM],
        "x": [axes.x0, axes.x1],
        "percent": axes.percent,
        "series": lists,
    }
    return f' data-hover="{escape(json.dumps(record, separators=(",", ":")))}"'


def stacked_chart(names: Sequence[str], colors: Sequence[int], x: Sequence[float], shares: np.ndarray, planned: np.ndarray | None,
                  label: str, bands: Sequence[tuple[float, str]] = (), first: float = 0.0) -> str:  # fmt: skip
    """SVG of shares (N, K) stacked over steps `x` (N,), and the edges of the planned ones (N, K) dashed; "" without data.

    A row stands for the steps since the row before it, the first one for those since `first`.
    """
    if not len(x):
        return ""
    rows, ends = binned(np.asarray(x, float), shares, [b for b, _ in bands], first)
    axes = Axes(*x_range(ends, first=first), 0.0, 1.0, False, True, bands, "share of the samples")
    edges = np.concatenate([[first], ends])
    tops = np.concatenate([np.zeros((len(rows), 1)), np.minimum(np.cumsum(rows, 1), 1.0)], 1)
    parts = []
    for k, color in enumerate(colors):
        under, over = _staircase(axes, edges, tops[:, k]), _staircase(axes, edges, tops[:, k + 1])
        shape = "M" + "L".join([*over, *reversed(under)]) + "Z"
        parts.append(f'<g class="{style(color)}" data-k="{k}"><path class="area" d="{shape}"/></g>')
    if planned is not None:
        wanted, _ = binned(np.asarray(x, float), planned, [b for b, _ in bands], first)
        sums = np.minimum(np.cumsum(wanted, 1), 1.0)
        parts += [f'<path class="planned" d="M{"L".join(_staircase(axes, edges, sums[:, k]))}"/>' for k in range(len(names) - 1)]
    lists = [
        [n, style(c), ends.tolist(), [round(float(v), 4) for v in rows[:, k]]]
        for k, (n, c) in enumerate(zip(names, colors, strict=True))
    ]
    return frame(axes, "".join(parts), label, hover_attribute(axes, lists))


def binned(
    x: np.ndarray, rows: np.ndarray, starts: Sequence[float], first: float = 0.0, bins: int = 120
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of rows (N, K), weighted by the steps each stands for, over at most about `bins` spans; and the spans' ends."""
    steps = np.diff(np.concatenate([[first], x]))
    means, ends = [], []
    for part in segments(x, starts):
        size = part.stop - part.start
        for piece in np.array_split(np.arange(part.start, part.stop), min(size, max(1, round(bins * size / len(x))))):
            means.append(np.average(rows[piece], axis=0, weights=np.maximum(steps[piece], 1e-9)))
            ends.append(x[piece[-1]])
    return np.array(means), np.array(ends)


def _staircase(axes: Axes, edges: np.ndarray, heights: np.ndarray) -> list[str]:
    """Corners of a step function: `heights` (N,) between `edges` (N + 1,)."""
    xs, ys = np.repeat(axes.px(edges), 2)[1:-1], np.repeat(axes.py(heights), 2)
    return [f"{a:.1f},{b:.1f}" for a, b in zip(xs, ys, strict=True)]


def rate_bar(successes: int, trials: int, value: float, low: float, high: float) -> str:
    """HTML of a success rate with its interval."""
    return (
        f'<div class="rate"><b>{value * 100:.0f} %</b><span class="track"><i class="iv" style="left:{low * 100:.1f}%;'
        f'width:{(high - low) * 100:.1f}%"></i><i class="dot" style="left:{value * 100:.1f}%"></i></span>'
        f"<small>{successes}/{trials} · {low * 100:.0f}–{high * 100:.0f} %</small></div>"
    )
