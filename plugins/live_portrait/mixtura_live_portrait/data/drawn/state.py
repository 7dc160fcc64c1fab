"""What a head does in one frame: `Pose` and `Expression`, and the numbers that each of them has.

Left and right are those of the picture, as in the published landmark layouts. Opening ratios are measured in the head's own
frontal plane: the distance of the lids over that of the eye's corners, that of the inner lips over that of the mouth's corners.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Pose(NamedTuple):
    """Where the head is: degrees, and image half-widths for the shift. `scale` is the half-width over the head's unit.

    Positive pitch looks down, positive yaw to the left of the picture, positive roll turns clockwise.
    """

    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0
    x: float = 0.0
    y: float = 0.0
    scale: float = 0.6


WIDE_EYES, WIDE_LIPS = 0.55, 0.7
"""How far eyes and lips open at most by chance."""
SHUT = 0.1
"""How far below 0 chance goes: about an eighth of eyes and of lips are quite shut."""


class Expression(NamedTuple):
    """What the face does.

    Eyes and `lips` are opening ratios, 0 to 0.8. `gaze_x`, `gaze_y`, `brow` (up), `smile` (corners up), `width` of the mouth are
    -1 to 1; `pucker` and `jaw` (lowered beyond what open lips need) 0 to 1.
    """

    eye_left: float = 0.35
    eye_right: float = 0.35
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    brow: float = 0.0
    lips: float = 0.0
    smile: float = 0.0
    width: float = 0.0
    pucker: float = 0.0
    jaw: float = 0.0

    def vector(self) -> Array:
        """The numbers as an array (10,), in the order of the fields."""
        return np.array(self, np.float32)


class State(NamedTuple):
    """One frame of a head: pose and expression."""

    pose: Pose = Pose()
    expression: Expression = Expression()

    def opened(self, eyes: float | None = None, lips: float | None = None) -> State:
        """The same with eyes or lips as far open as told."""
        told = {} if eyes is None else {"eye_left": eyes, "eye_right": eyes}
        return self._replace(expression=self.expression._replace(**told, **({} if lips is None else {"lips": lips})))

    def exercised(self, chance: np.random.Generator) -> State:
        """The same with eyes and lips as far open as chance says."""
        return self.opened(*(max(0.0, chance.uniform(-SHUT, widest)) for widest in (WIDE_EYES, WIDE_LIPS)))
