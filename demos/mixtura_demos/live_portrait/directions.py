"""What smiling and the like mean to a network: directions of its offsets of expression, measured on drawn faces.

No network says which of its keypoints make a smile. But drawn faces can be made to smile and do nothing else, and a motion
network that is shown both ends says what changes. The mean change over a few people is the direction. Small networks may see
next to nothing of it: `hardly_known` tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from mixtura_demos.live_portrait.engines import Loaded

if TYPE_CHECKING:
    from torch import Tensor

    from mixtura_live_portrait.animate.editing import Offset
    from mixtura_live_portrait.animate.engine import Engine
    from mixtura_live_portrait.data.drawn.clip import DrawnClip
    from mixtura_live_portrait.data.drawn.state import State

CROWD, PEOPLE = 20, 12
"""Seed of the drawn people, and how many of them are looked at."""
AXES: tuple[Literal["x", "y", "z"], ...] = ("x", "y", "z")
MOMENTS, TALKING = 6, "a face that talks"
"""Frames of each person that tell how far offsets move at all, and where that is kept."""
LITTLE = 0.1
"""Share of it below which a direction is hardly known."""
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


def hardly_known(networks: Loaded, amounts: dict[str, float]) -> list[str]:
    """Labels of the sliders that were moved and do little, for these networks see next to nothing of what they stand for."""
    asked = [name for name, amount in amounts.items() if amount]
    least = LITTLE * float(_talking(networks)) if asked else 0.0
    return [DIRECTIONS[name].label for name in asked if float(direction(networks, name).norm()) < least]


def direction(networks: Loaded, name: str) -> Tensor:
    """(k, 3): what a slider of 1 adds to the offsets; measured once for each checkpoint in memory."""
    import torch

    from mixtura_live_portrait.data.drawn.clip import DrawnClip
    from mixtura_live_portrait.data.drawn.state import Expression, Pose, State

    if name not in networks.directions:
        doing = DIRECTIONS[name]
        ends = [State(Pose(), Expression()._replace(**{doing.field: end})) for end in (doing.low, doing.high)]
        people = [DrawnClip(CROWD, number, 0, 2) for number in range(PEOPLE)]
        changes = [_seen(networks.engine, person, ends).diff(dim=0)[0] for person in people]
        networks.directions[name] = torch.stack(changes).mean(0) / (doing.high - doing.low)
    return networks.directions[name]


def _talking(networks: Loaded) -> Tensor:
    """(): how far the offsets of a face that talks are from their mean, as `direction` measures."""
    import torch

    from mixtura_live_portrait.data.drawn.clip import DrawnClip

    if TALKING not in networks.directions:
        clips = [DrawnClip(CROWD, number, 0, 4 * MOMENTS) for number in range(PEOPLE)]
        spreads = [
            _seen(networks.engine, clip, [clip.state(4 * moment) for moment in range(MOMENTS)]).std(0).norm() for clip in clips
        ]
        networks.directions[TALKING] = torch.stack(spreads).mean()
    return networks.directions[TALKING]


def _seen(engine: Engine, person: DrawnClip, states: Sequence[State]) -> Tensor:
    """(n, k, 3): offsets of a person in some states, drawn as training draws them."""
    import torch

    from mixtura_live_portrait.animate.looking import whole
    from mixtura_live_portrait.animate.portrait import crops_of

    with torch.inference_mode():
        frames = [person.doing(state, engine.sizes.output).image for state in states]
        exp: Tensor = engine.motion(crops_of(engine, frames, [whole(frame) for frame in frames])).exp
        return exp
