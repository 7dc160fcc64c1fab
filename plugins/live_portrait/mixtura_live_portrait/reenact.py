"""Pictures in, animated pictures out: what `LivePortrait.infer` does, for evaluators, demos and exports.

Frames are crops already, as large as the networks'. Finding faces, templates, smoothing and pasting back are `animate`'s work,
whose rules of transfer are used here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from mixtura.errors import DataError
from mixtura_live_portrait.animate.movement import Movement
from mixtura_live_portrait.animate.regions import Region
from mixtura_live_portrait.animate.retarget import Openings, Retargeted, Small, adjusted, corrected, retargeted
from mixtura_live_portrait.animate.transfer import Rules, transfer
from mixtura_live_portrait.faces.layouts import GUIDES
from mixtura_live_portrait.keypoints import Motion, placed
from mixtura_live_portrait.losses.regions import corners
from mixtura_live_portrait.nets.sizes import Sizes

if TYPE_CHECKING:
    from mixtura_live_portrait.system import LivePortrait

How = Literal["relative", "absolute", "whole"]
BATCH = 16
"""Frames that are painted together."""


@dataclass(frozen=True)
class Request:
    """Inputs of `infer`.

    `source` (1 or n, 3, S, S) and `driving` (n, 3, S, S) in 0..1, S the side that the networks see or paint; without `driving`
    the source's own motion is kept. `motion`: relative to the driving frame `first` (the first one when left out), absolute, or
    whole: the driving's pose, expression, place and size on the source's canonical keypoints, as training has it. `region` as
    `animate.regions` has it. `stitching` keeps the shoulders. `eyes` and `lips` (1 or n, 1) are opening ratios to be set; they
    need the source's own, `ratios` (1 or n, 3): left eye, right eye, lips. Systems with `told_landmarks` need its `guide`
    (1 or n, 12, 2), too: `faces.layouts.guide`, -1 to 1, NaN where unknown. `corrections`: so many times the openings are read in
    what was painted, by the system's reader around the corners of `guide`, and what is told is corrected; for systems that learnt
    with `openings`, and for relative motion, which leaves the corners in their places.
    """

    source: Tensor
    driving: Tensor | None = None
    first: Tensor | None = None
    motion: How = "relative"
    region: Region = "all"
    stitching: bool = False
    eyes: Tensor | None = None
    lips: Tensor | None = None
    ratios: Tensor | None = None
    guide: Tensor | None = None
    corrections: int = 0

    @staticmethod
    def of(sizes: Sizes, device: torch.device, **given: Any) -> Request:
        """Check what is given. Raises DataError for what doesn't fit."""
        unknown = set(given) - set(Request.__dataclass_fields__)
        if unknown or "source" not in given:
            wrong = f"{', '.join(sorted(unknown))} is not among them" if unknown else "source must be given"
            raise DataError(f"infer takes {', '.join(Request.__dataclass_fields__)}; {wrong}")
        values = {
            **given,
            **{name: _pictures(name, given[name], sizes, device) for name in _given(given, "source", "driving", "first")},
        }
        values |= {name: _ratios(name, given[name], device) for name in _given(given, "eyes", "lips", "ratios")}
        values |= {name: _guide(given[name], device) for name in _given(given, "guide")}
        request = Request(**values)
        if request.motion not in get_args(How):
            raise DataError(f"motion {request.motion!r}: take one of {', '.join(get_args(How))}")
        is_opened = request.eyes is not None or request.lips is not None
        if is_opened and request.ratios is None:
            raise DataError("eyes and lips are opened from where they are: give `ratios` (1, 3) of the source as well")
        if is_opened and sizes.told_landmarks and request.guide is None:
            raise DataError("eyes and lips are told landmarks: give `guide` (1, 12, 2) of the source beside its `ratios`")
        request.check_corrections()
        request.frames()
        return request

    def check_corrections(self) -> None:
        """Raises DataError for corrections that can't be."""
        if isinstance(self.corrections, bool) or not isinstance(self.corrections, int) or self.corrections < 0:
            raise DataError(f"corrections {self.corrections!r}: expected a whole number, 0 or more")
        if self.corrections and ((self.eyes is None and self.lips is None) or self.guide is None or self.motion != "relative"):
            raise DataError("corrections are of openings told: give `eyes` or `lips`, the source's `guide`, and relative motion")

    def frames(self) -> int:
        """Frames that come out. Raises DataError when the inputs have different numbers of frames."""
        inputs = (self.source, self.driving, self.eyes, self.lips, self.ratios, self.guide)
        counts = {len(x) for x in inputs if x is not None} - {1}
        if len(counts) > 1:
            raise DataError(f"inputs of {' and '.join(map(str, sorted(counts)))} frames; each needs as many, or one")
        return counts.pop() if counts else 1


def _given(given: dict[str, Any], *names: str) -> list[str]:
    return [name for name in names if given.get(name) is not None]


def _pictures(name: str, value: Any, sizes: Sizes, device: torch.device) -> Tensor:
    pictures = torch.as_tensor(value, dtype=torch.float32)
    pictures = pictures[None] if pictures.ndim == 3 else pictures
    sides = sorted({sizes.image, sizes.output})
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) not in [(3, side, side) for side in sides] or not len(pictures):
        raise DataError(f"{name} has shape {tuple(pictures.shape)}; expected (n, 3, S, S) with S {' or '.join(map(str, sides))}")
    if not pictures.isfinite().all():
        raise DataError(f"{name} holds NaN or infinity")
    return pictures.to(device)


def _ratios(name: str, value: Any, device: torch.device) -> Tensor:
    width = 3 if name == "ratios" else 1
    ratios = torch.as_tensor(value, dtype=torch.float32)
    ratios = ratios.reshape(-1, width) if ratios.numel() % width == 0 and ratios.ndim < 2 else ratios
    if ratios.ndim != 2 or ratios.shape[1] != width or not len(ratios):
        raise DataError(f"{name} has shape {tuple(ratios.shape)}; expected (n, {width}): opening ratios, 0 is shut")
    return ratios.to(device)


def _guide(value: Any, device: torch.device) -> Tensor:
    guide = torch.as_tensor(value, dtype=torch.float32)
    guide = guide[None] if guide.ndim == 2 else guide
    if guide.ndim != 3 or tuple(guide.shape[1:]) != (GUIDES, 2) or not len(guide):
        raise DataError(f"guide has shape {tuple(guide.shape)}; expected (n, {GUIDES}, 2): points of `faces.layouts.guide`")
    return guide.to(device)


def run(system: LivePortrait, request: Request) -> dict[str, Tensor]:
    """`frames` (n, 3, S', S') in 0..1, and the keypoints `x_source`, `x_driving` (n, k, 3) that they were painted from.

    Raises DataError for corrections by a reader that hasn't learnt.
    """
    if request.corrections and not system.config.openings:
        raise DataError("corrections need a reader that knows painted openings: a system that learnt with `openings: true`")
    source = Movement.of(_motion(system, request.source))
    x_source, moved = source.keypoints(), _moved(system, request, source).keypoints().expand(request.frames(), -1, -1)
    volume = system.volume(request.source)

    def found(told: Openings) -> Tensor:
        pictures = _painted(system, volume, x_source, _adjusted(system, request, x_source, moved, told))
        assert request.guide is not None
        return system.read(pictures, corners(request.guide).expand(len(pictures), -1, -1, -1))

    told = corrected(Openings(request.eyes, request.lips), found, request.corrections)
    x_driving = _adjusted(system, request, x_source, moved, told)
    frames = _painted(system, volume, x_source, x_driving)
    return {"frames": frames, "x_source": x_source.expand_as(x_driving), "x_driving": x_driving}


def _painted(system: LivePortrait, volume: Tensor, x_source: Tensor, x_driving: Tensor) -> Tensor:
    """Pictures of all keypoints (n, k, 3), some at a time."""
    painted = []
    for at in range(0, len(x_driving), BATCH):
        some = slice(at, at + BATCH)
        count = len(x_driving[some])
        appearance, start = (p.expand(count, *p.shape[1:]) if len(p) == 1 else p[some] for p in (volume, x_source))
        painted.append(system.paint(appearance, start, x_driving[some]))
    return torch.cat(painted)


def _motion(system: LivePortrait, pictures: Tensor) -> Motion:
    motions = [Motion.of(system.motion(system.shrunk(some))) for some in pictures.split(BATCH)]
    return Motion(*(torch.cat(parts) for parts in zip(*motions, strict=True)))


def _moved(system: LivePortrait, request: Request, source: Movement) -> Movement:
    """The source's movement after the transfer."""
    if request.driving is None:
        return source
    driving = Movement.of(_motion(system, request.driving))
    if request.motion == "whole":
        return driving._replace(kp=source.kp.expand_as(driving.kp))
    first = driving.first() if request.first is None else Movement.of(_motion(system, request.first[:1]))
    return transfer(source, driving, first, Rules(relative=request.motion == "relative", region=request.region))


def _adjusted(system: LivePortrait, request: Request, x_source: Tensor, x_driving: Tensor, openings: Openings) -> Tensor:
    """Retargeting and stitching in the published order."""
    told, offsets = x_source, list[Tensor | None]([None, None])
    if system.sizes.told_landmarks and request.guide is not None:
        count = max(len(x_source), len(request.guide))
        told = placed(x_source.expand(count, -1, -1), request.guide.expand(count, -1, -1))
    for number, (name, own) in enumerate((("eyes", slice(0, 2)), ("lips", slice(2, 3)))):
        ratio = openings[number]
        if ratio is not None and request.ratios is not None:
            offsets[number] = retargeted(system.get_submodule(name), told, request.ratios[:, own], ratio)
    small = Small(system.stitching, system.eyes, system.lips)
    return adjusted(
        small,
        x_source,
        x_driving,
        stitching=request.stitching,
        is_relative=request.motion == "relative",
        retargeting=Retargeted(*offsets),
    )
