"""Landmark layouts: which point of which model is an eye corner, a lid, a lip, and what is measured from them.

A layout is known by its number of points: 203 (LivePortrait's own model), 106 (InsightFace), 101, 68 (iBUG), 9 (X-Pose, animals),
5, and MediaPipe's 478 and 468. `axis` gives the two points that crops are turned by, `outline` the points that they enclose,
`ratios` how far eyes and lips are open, `guide` and `boxes` what training looks at. All take landmarks (..., L, 2) in any units;
what a layout doesn't have comes back as NaN. "Left" is left in an upright picture, as in the official code.

Indices follow the published LivePortrait code for 203, 106, 101, 68, 9 and 5, and the markups of InsightFace, iBUG and MediaPipe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixtura.errors import DataError

Points = NDArray[np.float32]
Group = tuple[int, ...]
"""Landmarks whose mean is one point; empty where the layout has none."""

EPSILON = 1e-6
GUIDES = 12
"""Points of `guide`: left eye, right eye (left corner, right corner, upper lid, lower lid each), upper and lower lip, corners of
the lips."""
GAPS = ((2, 3), (6, 7), (8, 9))
"""Points of `guide` that part when the left eye, the right eye, the lips open."""
SPANS = ((0, 1), (4, 5), (10, 11))
"""Corners of the left eye, the right eye, the lips in `guide`."""
GUIDING = {"eyes": slice(0, 8), "lips": slice(8, GUIDES)}
"""Points of `guide` by the part that they belong to."""
OPENINGS = {"eyes": [0, 1], "lips": [2]}
"""Places of a part among `ratios`."""
FIVE_CENTRE, FIVE_HALF = 0.75, 1.15
"""Middle and half side of a face's square for five points, in lengths of the axis from the middle of the eyes on: measured on
two real faces with the points of a whole mesh (0.68 and 0.82, 1.10 and 1.21)."""
MARGIN = 0.25
"""By how much of their width or height the boxes of eyes and lips reach beyond their landmarks."""


@dataclass(frozen=True)
class Eye:
    """One eye. `left` and `right` are its corners in the picture, `upper` and `lower` the middles of its lids."""

    centre: Group
    left: Group = ()
    right: Group = ()
    upper: Group = ()
    lower: Group = ()


@dataclass(frozen=True)
class Layout:
    """Where to find what among `points` landmarks."""

    name: str
    points: int
    eyes: tuple[Eye, Eye]
    lip: Group
    """Corners of the lips; their mean is the lower end of the axis."""
    upper_lip: Group = ()
    """Middle of the inner edge of the upper lip."""
    lower_lip: Group = ()
    lips: Group = ()
    """Points around the lips, for their box."""
    outline: Group = ()
    """Points that a crop encloses; empty means all."""


def _span(first: int, last: int) -> Group:
    return tuple(range(first, last + 1))


MEDIAPIPE_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409)
MEDIAPIPE_JAW = (127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356)
MEDIAPIPE_BROWS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)


def _mediapipe(points: int) -> Layout:
    """The mesh covers the forehead, which other layouts leave out: the crop encloses jaw and brows as theirs does."""
    left = Eye((33, 133, 159, 145), (33,), (133,), (159,), (145,))
    right = Eye((362, 263, 386, 374), (362,), (263,), (386,), (374,))
    outline = MEDIAPIPE_JAW + MEDIAPIPE_BROWS
    return Layout(f"mediapipe-{points}", points, (left, right), (61, 291), (13,), (14,), MEDIAPIPE_LIPS, outline)


LAYOUTS = {
    layout.points: layout
    for layout in (
        Layout(
            "liveportrait-203", 203,
            (Eye((0, 6, 12, 18), (0,), (12,), (6,), (18,)), Eye((24, 30, 36, 42), (24,), (36,), (30,), (42,))),
            (48, 66), (90,), (102,), _span(48, 107),
        ),
        Layout(
            "insightface-106", 106,
            (Eye((33, 35, 40, 39), (35,), (39,), (40,), (33,)), Eye((87, 89, 94, 93), (89,), (93,), (94,), (87,))),
            (52, 61), (62,), (60,), _span(52, 71),
        ),
        Layout(
            "101", 101,
            (Eye((39, 42, 45, 48), (39,), (45,), (42,), (48,)), Eye((51, 54, 57, 60), (51,), (57,), (54,), (60,))),
            (75, 81), (), (), _span(75, 86),
        ),
        Layout(
            "ibug-68", 68,
            (Eye((36, 39), (36,), (39,), (37, 38), (40, 41)), Eye((42, 45), (42,), (45,), (43, 44), (46, 47))),
            (48, 54), (62,), (66,), _span(48, 67),
        ),
        Layout("animal-9", 9, (Eye((0, 1)), Eye((2, 3))), (5, 6), (), (), (5, 6, 7, 8)),
        Layout("5", 5, (Eye((0,)), Eye((1,))), (3, 4)),
        _mediapipe(468),
        _mediapipe(478),
    )
}  # fmt: skip
"""Number of points -> layout."""


def layout_of(landmarks: Points, name: str = "landmarks") -> Layout:
    """The layout of landmarks (..., L, 2). Raises DataError, naming `name`, for other shapes and unknown numbers of points."""
    if landmarks.ndim < 2 or landmarks.shape[-1] != 2 or landmarks.shape[-2] not in LAYOUTS:
        known = ", ".join(str(points) for points in sorted(LAYOUTS))
        raise DataError(f"{name}: landmarks of shape {tuple(landmarks.shape)}; expected (..., L, 2) with L one of {known}")
    return LAYOUTS[landmarks.shape[-2]]


def _mean(landmarks: Points, group: Group) -> Points:
    """(..., L, 2) -> (..., 2), NaN for an empty group."""
    if not group:
        return np.full((*landmarks.shape[:-2], 2), np.nan, np.float32)
    return landmarks[..., list(group), :].mean(-2, dtype=np.float32)


def eye_centres(landmarks: Points) -> Points:
    """(..., L, 2) -> (..., 2, 2): centres of the left and the right eye."""
    layout = layout_of(landmarks)
    return np.stack([_mean(landmarks, eye.centre) for eye in layout.eyes], -2)


def axis(landmarks: Points) -> Points:
    """(..., L, 2) -> (..., 2, 2): the middle between the eyes and that of the lips; from one to the other is down."""
    return np.stack([eye_centres(landmarks).mean(-2), _mean(landmarks, layout_of(landmarks).lip)], -2)


def outline(landmarks: Points) -> Points:
    """(..., L, 2) -> (..., N, 2): the points that a crop encloses, so that a face fills it alike in every layout.

    All points, but for MediaPipe's mesh jaw and brows (it covers the forehead, the others don't), and for five points, which lie
    inside the face, the corners of a square along the axis that other layouts' points fill.
    """
    layout = layout_of(landmarks)
    if layout.points == 5:
        return _around_five(landmarks)
    return landmarks[..., list(layout.outline), :] if layout.outline else landmarks


def _around_five(landmarks: Points) -> Points:
    eyes, lip = np.moveaxis(axis(landmarks), -2, 0)
    down = lip - eyes
    across = np.stack([down[..., 1], -down[..., 0]], -1)
    centre = eyes + FIVE_CENTRE * down
    return np.stack([centre + FIVE_HALF * (x * across + y * down) for x in (-1, 1) for y in (-1, 1)], -2).astype(np.float32)


def _length(first: Points, second: Points) -> Points:
    return np.asarray(np.linalg.norm(first - second, axis=-1), np.float32)


def ratios(landmarks: Points) -> Points:
    """(..., L, 2) -> (..., 3): opening of the left eye, the right eye and the lips; NaN where the layout has no lids.

    Eyes: distance of the lids over that of the corners; lips: of the inner lips over that of the corners, both + 1e-6.
    """
    layout = layout_of(landmarks)
    pairs = [(eye.upper, eye.lower, eye.left, eye.right) for eye in layout.eyes]
    pairs.append((layout.upper_lip, layout.lower_lip, layout.lip[:1], layout.lip[1:]))
    values = []
    for groups in pairs:
        upper, lower, left, right = (_mean(landmarks, group) for group in groups)
        values.append(_length(upper, lower) / (_length(left, right) + EPSILON))
    return np.stack(values, -1)


def guide(landmarks: Points) -> Points:
    """(..., L, 2) -> (..., 12, 2): points that the first keypoints are guided to, NaN where there is none.

    Left eye, right eye: left corner, right corner, middle of the upper lid, of the lower lid; then the middle of the inner edge
    of the upper lip and of the lower lip; then the left and the right corner of the lips. The paper (arXiv 2407.03168) takes ten
    of eyes and lips without saying which; our ten are the first.
    """
    layout = layout_of(landmarks)
    groups = [group for eye in layout.eyes for group in (eye.left, eye.right, eye.upper, eye.lower)]
    groups += [layout.upper_lip, layout.lower_lip, layout.lip[:1], layout.lip[1:]]
    return np.stack([_mean(landmarks, group) for group in groups], -2)


def boxes(landmarks: Points) -> Points:
    """(..., L, 2) -> (..., 3, 4): x0, y0, x1, y1 of the face, of both eyes and of the lips; NaN where the layout has no points.

    The face's box encloses `outline`; those of eyes and lips reach beyond their points by MARGIN of their longer side.
    """
    layout = layout_of(landmarks)
    eyes = tuple(index for eye in layout.eyes for group in (eye.left, eye.right, eye.upper, eye.lower) for index in group)
    face = _box(outline(landmarks), 0.0)
    parts = [
        _box(landmarks[..., list(group), :], MARGIN) if group else np.full_like(face, np.nan) for group in (eyes, layout.lips)
    ]
    return np.stack([face, *parts], -2).astype(np.float32)


def _box(points: Points, margin: float) -> Points:
    low, high = points.min(-2), points.max(-2)
    room = margin * (high - low).max(-1, keepdims=True)
    return np.concatenate([low - room, high + room], -1)


def normalised(landmarks: Points, width: float, height: float) -> Points:
    """Pixels -> -1..1 as grid_sample with align_corners=False has it: 0 and the full width are the edges of the picture."""
    return (landmarks / np.array([width, height], np.float32) * 2 - 1).astype(np.float32)


def in_pixels(landmarks: Points, width: float, height: float) -> Points:
    """-1..1 -> pixels; undoes `normalised`."""
    return ((landmarks + 1) / 2 * np.array([width, height], np.float32)).astype(np.float32)
