"""Animation of a live stream: one driving frame in, one picture out, as from a webcam.

    stream = Stream(animator, portrait, frame, detector)
    shown = stream.frame(webcam_frame)          # (H, W, 3) uint8

The first frame with a face is the one that relative motion starts from, and its square stays for all others; `restart` takes the
next one instead. While no face is seen the last picture stays, before the first one the source. Nothing looks ahead: offsets and
rotation are smoothed by the forward filter alone, when `variance` is given.
"""

from __future__ import annotations

import torch

from mixtura_live_portrait.animate.animator import Animator
from mixtura_live_portrait.animate.looking import DRIVINGS, How, Seeker, opening
from mixtura_live_portrait.animate.movement import Movement
from mixtura_live_portrait.animate.portrait import Portrait, movement_of
from mixtura_live_portrait.animate.smoothing import Filter, orthonormal
from mixtura_live_portrait.animate.templates import Template
from mixtura_live_portrait.faces.crop import Frame, Square, as_frames, crop
from mixtura_live_portrait.faces.detector import Detector, NoFace

PATIENCE = 10
"""Frames without the face after which it is looked for everywhere, not where it was."""


class Stream:
    """A portrait of a picture that follows a stream of frames, which may change their size only after `restart`.

    `pastes` gives whole frames of the source, otherwise crops. `has_face` tells about the last frame.
    """

    def __init__(
        self,
        animator: Animator,
        portrait: Portrait,
        source: Frame,
        detector: Detector | None,
        how: How = DRIVINGS,
        pastes: bool = True,
        variance: float | None = None,
    ) -> None:
        self.animator, self.portrait, self.source = animator, portrait, source
        self.detector, self.how, self.pastes, self.variance = detector, how, pastes, variance
        self.shown = source if pastes else self._crop()
        self.restart()

    def restart(self) -> None:
        """Let relative motion start from the next frame that has a face."""
        self.seeker, self.missed, self.has_face = Seeker(self.detector, self.how), 0, False
        self.square: Square | None = None
        self.start: Movement | None = None
        self.filters = None if self.variance is None else (Filter(self.variance), Filter(self.variance))

    def frame(self, driving: Frame) -> Frame:
        """The picture for the next driving frame, uint8 (H, W, 3)."""
        try:
            around, face = self.seeker.step(driving)
        except NoFace:
            self._lost()
            return self.shown
        self.has_face, self.missed = True, 0
        self.square = self.square or around._replace(angle=0.0)
        moved = self._filtered(movement_of(self.animator.engine, [driving], [self.square]))
        self.start = moved if self.start is None else self.start
        template = Template(moved, opening(face), 1.0)
        x = self.animator.keypoints(self.portrait, template, self.start)
        (shot,) = self.animator.paint(self.source, [self.portrait], [x])
        self.shown = shot.pasted if self.pastes else shot.crops[0]
        return self.shown

    def _lost(self) -> None:
        self.has_face, self.missed = False, self.missed + 1
        if self.missed % PATIENCE == 0:
            self.seeker = Seeker(self.detector, self.how)

    def _filtered(self, moved: Movement) -> Movement:
        if self.filters is None:
            return moved
        exp, rotation = (kept.step(value) for kept, value in zip(self.filters, (moved.exp, moved.rotation), strict=True))
        return moved._replace(exp=exp, rotation=orthonormal(rotation))

    def _crop(self) -> Frame:
        side = self.animator.engine.sizes.output
        with torch.inference_mode():
            return as_frames(crop(self.source, self.portrait.to_frame(0, side), side))[0]
