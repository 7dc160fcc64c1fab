"""Portraits, templates and the networks, brought together: `Animator`.

    animator = Animator(engine)
    portrait = picture_portrait(engine, frame, look([frame], detector))
    driving = animator.template(clip, look(clip, detector, DRIVINGS).still(), clip.fps)
    for shot in animator.animate(frame, portrait, driving):
        shot.pasted                                     # (H, W, 3) uint8; shot.results[0] is the crop alone

Frames are worked on in batches, and one batch is all that is in memory: clips may be as long as they like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from mixtura.errors import ConfigError, DataError
from mixtura_live_portrait.animate import retarget
from mixtura_live_portrait.animate.engine import Engine
from mixtura_live_portrait.animate.looking import Looked
from mixtura_live_portrait.animate.movement import Movement
from mixtura_live_portrait.animate.portrait import BATCH, Portrait, batches, crops_of, movement_of
from mixtura_live_portrait.animate.regions import check_region
from mixtura_live_portrait.animate.smoothing import OBSERVATION, PROCESS, check_variances, smoothed, smoothed_rotations
from mixtura_live_portrait.animate.templates import Template
from mixtura_live_portrait.animate.transfer import Rules, Smoothing, friendlier, neutral, stretched, transfer
from mixtura_live_portrait.faces.crop import Frame, as_frames, soft_mask


@dataclass(frozen=True)
class Adjust:
    """What is done to keypoints after the transfer.

    `lip_normalise` closes a source's lips before relative motion. `eyes`, `lips` retarget to the driving's ratios, or to
    `eye_ratio`, `lip_ratio` where these are given. `steady_eyes` keeps a clip's eyes as open as in its first frame. `smooth`
    None smooths clips that a clip drives; `variance` is that of what is seen.
    """

    stitching: bool = True
    lip_normalise: bool = True
    eyes: bool = False
    lips: bool = False
    eye_ratio: float | None = None
    lip_ratio: float | None = None
    steady_eyes: bool = False
    smooth: bool | None = None
    variance: float = OBSERVATION


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame of an animation: `results` are the painted crops (3, S, S) of each face, `pasted` the frame with them in."""

    number: int
    frame: Frame
    results: tuple[Tensor, ...]
    portraits: tuple[Portrait, ...]
    mask: Tensor

    @property
    def crops(self) -> list[Frame]:
        """The painted crops as (S, S, 3) uint8."""
        return [as_frames(result) for result in self.results]

    @cached_property
    def pasted(self) -> Frame:
        """The source's frame with every face in its place."""
        frame = self.frame
        for portrait, result in zip(self.portraits, self.results, strict=True):
            frame = portrait.pasted(result, frame, self.number, self.mask)
        return frame


def shared_length(*parts: Sized) -> int:
    """Frames that all have: the shortest of those with more than one, for one frame goes with any number."""
    return min((len(part) for part in parts if len(part) > 1), default=1)


def _either(ratio: float | None, driving: Tensor) -> Tensor:
    """The opening (n or 1, 1) that is asked for: a given one, or the driving's."""
    return driving if ratio is None else torch.full_like(driving[:1], ratio)


class Animator:
    """Moves portraits. Raises ConfigError for rules that these networks can't follow."""

    def __init__(self, engine: Engine, rules: Rules | None = None, adjust: Adjust | None = None, batch: int = BATCH) -> None:
        self.engine, self.rules, self.adjust, self.batch = engine, rules or Rules(), adjust or Adjust(), batch
        check_region(self.rules.region, engine.sizes.keypoints, self.rules.lists)
        check_variances(self.adjust.variance, PROCESS)
        if batch < 1:
            raise ConfigError(f"batch of {batch} frames; expected 1 or more")
        self.mask = soft_mask(engine.sizes.output).to(engine.device)

    # -- drivings ------------------------------------------------------------------------------------------------
    def template(self, frames: Iterable[Frame], looked: Looked, fps: float, networks: str = "") -> Template:
        """What a driving face does in frames."""
        movement = movement_of(self.engine, frames, looked.squares, self.batch)
        return Template(movement, looked.ratios.to(self.engine.device), fps, networks)

    # -- keypoints -----------------------------------------------------------------------------------------------
    @torch.inference_mode()
    def keypoints(self, portrait: Portrait, driving: Template, first: Movement | None = None) -> Tensor:
        """Keypoints to paint (n, k, 3), for as many frames as portrait and driving both have (a picture has all).

        `first` is the movement that a driving's is relative to; by default its first frame. Raises ConfigError where eyes or
        lips are to be retargeted and ratios aren't known.
        """
        is_picture = driving.is_picture and first is None
        count = shared_length(portrait, driving)
        portrait, driving = portrait.first(count), driving.first(count).to(self.engine.device)
        first = driving.movement.first() if first is None else first
        x_source, small = portrait.x, self.engine.small
        closed = self._closed(portrait) if self.rules.relative else None
        rest = neutral(portrait.movement, closed) if is_picture else None
        move = partial(transfer, portrait.movement, first=first, rules=self.rules, rest=rest, is_clip=portrait.is_clip)
        x = move(driving.movement, smoothing=self._smoothing(portrait, is_picture)).keypoints()
        if self.rules.friendly and not portrait.is_clip and not is_picture:
            x = friendlier(x_source, x, move(first).keypoints())
        x = retarget.adjusted(
            small,
            x_source,
            x,
            stitching=self.adjust.stitching,
            is_relative=self.rules.relative,
            before=self._before(portrait, closed),
            retargeting=self._retargeting(portrait, driving),
        )
        return stretched(x_source, x, self.rules.multiplier)

    def _smoothing(self, portrait: Portrait, is_picture: bool) -> Smoothing | None:
        wanted = portrait.is_clip and not is_picture if self.adjust.smooth is None else self.adjust.smooth
        if not wanted:
            return None
        variance = self.adjust.variance
        return Smoothing(partial(smoothed, observation=variance), partial(smoothed_rotations, observation=variance))

    def _closed(self, portrait: Portrait) -> Tensor:
        return retarget.closed_lips(self.engine.small.lips, portrait.told, portrait.ratios)

    def _before(self, portrait: Portrait, closed: Tensor | None) -> Tensor | None:
        """Offsets of closed lips and of a clip's steady eyes."""
        before = closed if self.adjust.lip_normalise else None
        if self.adjust.steady_eyes and portrait.is_clip:
            eyes = retarget.steady_eyes(self.engine.small.eyes, portrait.told, portrait.ratios)
            before = eyes if before is None else before + eyes
        return before

    def _retargeting(self, portrait: Portrait, driving: Template) -> retarget.Retargeted:
        adjust, small, own = self.adjust, self.engine.small, portrait.ratios
        eyes = lips = None
        self.check_ratios(source=own, driving=driving.ratios)
        if adjust.eyes:
            wanted = _either(adjust.eye_ratio, retarget.eye_opening(driving.ratios))
            eyes = retarget.retargeted(small.eyes, portrait.told, own[:, :2], wanted)
        if adjust.lips:
            wanted = _either(adjust.lip_ratio, retarget.lip_opening(driving.ratios))
            lips = retarget.retargeted(small.lips, portrait.told, own[:, 2:], wanted)
        return retarget.Retargeted(eyes, lips)

    def check_ratios(self, source: Tensor | None = None, driving: Tensor | None = None) -> None:
        """Whether ratios (n, 3) tell what retargeting needs of a source, of a driving; ConfigError if they don't."""
        adjust, remedy = self.adjust, "take a detector whose landmarks have lids and lips, or leave it out"
        for name, is_wanted, ratio, part in (
            ("eyes", adjust.eyes, adjust.eye_ratio, slice(0, 2)),
            ("lips", adjust.lips, adjust.lip_ratio, slice(2, 3)),
        ):
            if is_wanted and source is not None and not source[:, part].isfinite().any():
                raise ConfigError(f"{name}: how far the source's are open isn't known; {remedy}")
            if is_wanted and ratio is None and driving is not None and not driving[:, part].isfinite().any():
                raise ConfigError(f"{name}: how far the driving's are open isn't known; {remedy}, or give a ratio")

    # -- pictures ------------------------------------------------------------------------------------------------
    def animate(
        self,
        frames: Frame | Iterable[Frame],
        portraits: Portrait | Sequence[Portrait],
        drivings: Template | Sequence[Template],
    ) -> Iterator[Shot]:
        """Every face of a picture, or of the frames of a clip, moved by its driving, or all by the same one.

        As long as the shortest of all that are longer than one frame. Raises DataError for other numbers of drivings.
        """
        faces = [portraits] if isinstance(portraits, Portrait) else list(portraits)
        moves = [drivings] if isinstance(drivings, Template) else list(drivings)
        if not faces or len(moves) not in (1, len(faces)):
            raise DataError(f"{len(faces)} faces, {len(moves)} drivings; expected one driving for each face, or one for all")
        moves = moves * len(faces) if len(moves) == 1 else moves
        count = shared_length(*faces, *moves)
        places = [self.keypoints(face, move) for face, move in zip(faces, moves, strict=True)]
        return self.paint(frames, faces, [x[:count].expand(count, -1, -1) for x in places])

    def paint(self, frames: Frame | Iterable[Frame], portraits: Sequence[Portrait], places: Sequence[Tensor]) -> Iterator[Shot]:
        """Every face with its keypoints at `places` (n, k, 3). Frames: those of the clip, or the picture itself."""
        count, start = len(places[0]), 0
        stills = repeat(frames, count) if isinstance(frames, np.ndarray) else frames
        for some in batches(stills, self.batch):
            some = some[: count - start]
            results = [self._painted(some, portrait, x, start) for portrait, x in zip(portraits, places, strict=True)]
            for index, frame in enumerate(some):
                own = tuple(images[index] for images in results)
                yield Shot(start + index, frame, own, tuple(portraits), self.mask)
            start += len(some)
            if start >= count:
                return
        if start < count:
            raise DataError(f"{start} frames for keypoints of {count}; the clip is shorter than it was when it was looked at")

    def _painted(self, frames: Sequence[Frame], portrait: Portrait, places: Tensor, start: int) -> Tensor:
        x = places[start : start + len(frames)]
        with torch.inference_mode():
            if portrait.volume is not None:
                return self.engine.animate(portrait.volume, portrait.x, x)
            some = slice(start, start + len(frames))
            volume = self.engine.volume(crops_of(self.engine, frames, portrait.squares[some]))
            return self.engine.animate(volume, portrait.x[some], x)
