"""What smiling and the like mean to a network: directions of its offsets of expression, measured on drawn faces.

No network says which of its keypoints make a smile. But drawn faces can be made to smile and do nothing else, and a motion
network that is shown them at rest and smiling says what changes. The mean change over a few people is the direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from mixtura_demos.live_portrait.engines import Loaded

if TYPE_CHECKING:
    from torch import Tensor

    from mixtura_live_portrait.animate.editing import Offset
    from mixtura_live_portrait.animate.engine import Engine
    from mixtura_live_portrait.data.drawn.clip import DrawnClip

CROWD, PEOPLE = 20, 12
"""Seed of the drawn people, and how many of them are looked at."""
AXES: tuple[Literal["x", "y", "z"], ...] = ("x", "y", "z")
STILL = 1e-6
"""Offsets below which nothing is moved."""


class Doing(NamedTuple):
    """A slider: what is drawn at both its ends, by names of `mixtura_live_portrait.data.drawn.state.Expression`."""

    label: str
    info: str
    field: str
    low: float
    high: float


DIRECTIONS = {
    "smile": Doing("Smile", "up: corners of the mouth up; down: a frown", "smile", -1, 1),
    "brow": Doing("Brows", "up: raised", "brow", -1, 1),
    "gaze_x": Doing("Gaze aside", "which way the eyes look, left or right", "gaze_x", -1, 1),
    "gaze_y": Doing("Gaze up and down", "which way the eyes look, up or down", "gaze_y", -1, 1),
    "pucker": Doing("Pucker", "lips as for a kiss", "pucker", 0, 1),
}
"""Name -> slider from -1 (0 where nothing is drawn below) to 1."""


def offsets(networks: Loaded, amounts: dict[str, float]) -> tuple[Offset, ...]:
    """Keypoint, axis, amount: what sliders of DIRECTIONS add up to."""
    asked = [amount * direction(networks, name) for name, amount in amounts.items() if amount]
    if not asked:
        return ()
    total = sum(asked[1:], asked[0])
    return tuple(
        (index, axis, float(value))
        for index, row in enumerate(total.tolist())
        for axis, value in zip(AXES, row, strict=True)
        if abs(value) > STILL
    )


def direction(networks: Loaded, name: str) -> Tensor:
    """(k, 3): what a slider of 1 adds to the offsets; measured once for each checkpoint in memory."""
    import torch

    from mixtura_live_portrait.data.drawn.clip import DrawnClip

    if name not in networks.directions:
        doing = DIRECTIONS[name]
        with torch.inference_mode():
            changes = [_change(networks.engine, DrawnClip(CROWD, number, 0, 2), doing) for number in range(PEOPLE)]
            networks.directions[name] = torch.stack(changes).mean(0) / (doing.high - doing.low)
    return networks.directions[name]


def _change(engine: Engine, person: DrawnClip, doing: Doing) -> Tensor:
    """(k, 3) of one person, in the same crop at both ends."""
    from mixtura_live_portrait.animate.portrait import crops_of
    from mixtura_live_portrait.data.drawn.state import Expression, Pose, State
    from mixtura_live_portrait.faces.crop import square

    states = [State(Pose(), Expression()._replace(**{doing.field: end})) for end in (doing.low, doing.high)]
    drawn = [person.doing(state, engine.sizes.image) for state in states]
    around = square(drawn[0].landmarks)
    exp: Tensor = engine.motion(crops_of(engine, [one.image for one in drawn], [around, around])).exp
    return exp[1] - exp[0]
