"""The training sample of LivePortrait from two frames, and what is measured of a frame.

| field | value |
| --- | --- |
| `source`, `driving` | uint8 (S, S, 3); what is given and what shall come out |
| `driving_seen` | uint8 (S, S, 3): `driving` in other colours, which is what the motion network sees |
| `is_video` | bool: two frames of a clip, or one picture twice |
| `guide` (2, 12, 2), `boxes` (2, 3, 4) | of source and driving, -1 to 1, as `faces.layouts` defines them |
| `ratios` (2, 3) | opening of left eye, right eye, lips |
| `pose` (2, 3) | pitch, yaw, roll in degrees |
| `expression` (2, 10) | numbers of `drawn.state.Expression` |
| `identity` | int, equal for equal people of one source |
| `other` (S, S, 3), `other_ratios` (3,) | a frame of somebody else, where asked for |

What isn't known is NaN. All arrays are float32 but for the frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtura_live_portrait.data.drawn.state import Expression
from mixtura_live_portrait.faces import layouts

Array = NDArray[np.float32]
Picture = NDArray[np.uint8]

MIRRORED_GUIDE = (5, 4, 6, 7, 1, 0, 2, 3, 8, 9, 11, 10)
"""Left corner, right corner, upper, lower lid of the left eye and of the right one; lips, and their corners."""
MIRRORED_RATIOS = (1, 0, 2)
EYES = Expression._fields.index("eye_left"), Expression._fields.index("eye_right")
GAZE = Expression._fields.index("gaze_x")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame and what is known of it; `guide` (12, 2), `boxes` (3, 4), `ratios` (3,), `pose` (3,), `expression` (10,)."""

    image: Picture
    guide: Array
    boxes: Array
    ratios: Array
    pose: Array
    expression: Array

    @classmethod
    def of(cls, image: Picture, landmarks: Array | None, pose: Array | None = None, expression: Array | None = None) -> Frame:
        """From an image (S, S, 3) and landmarks (L, 2) in its pixels; DataError for unknown layouts."""
        pose = _unknown(3) if pose is None else pose
        expression = _unknown(len(Expression._fields)) if expression is None else expression
        if landmarks is None:
            return cls(image, _unknown(layouts.GUIDES, 2), _unknown(3, 4), _unknown(3), pose, expression)
        normal = layouts.normalised(landmarks, image.shape[1], image.shape[0])
        return cls(image, layouts.guide(normal), layouts.boxes(normal), layouts.ratios(landmarks), pose, expression)

    def mirrored(self) -> Frame:
        """The frame as a mirror shows it: left becomes right in everything that is known."""
        guide = self.guide[list(MIRRORED_GUIDE)] * np.array([-1, 1], np.float32)
        boxes = self.boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32)
        expression = self.expression.copy()
        expression[list(EYES)] = self.expression[list(EYES[::-1])]
        expression[GAZE] *= -1
        pose = self.pose * np.array([1, -1, -1], np.float32)
        image = np.ascontiguousarray(self.image[:, ::-1])
        return Frame(image, guide, boxes, self.ratios[list(MIRRORED_RATIOS)], pose, expression)


def fields_of(source: Frame, driving: Frame, seen: Picture, is_video: bool, identity: int, other: Frame | None) -> dict[str, Any]:
    """The fields of a training sample."""
    fields: dict[str, Any] = {
        "source": source.image,
        "driving": driving.image,
        "driving_seen": seen,
        "is_video": is_video,
        "identity": identity,
    }
    for name in ("guide", "boxes", "ratios", "pose", "expression"):
        fields[name] = np.stack([getattr(source, name), getattr(driving, name)]).astype(np.float32)
    if other is not None:
        fields |= {"other": other.image, "other_ratios": other.ratios.astype(np.float32)}
    return fields


def _unknown(*shape: int) -> Array:
    return np.full(shape, np.nan, np.float32)
