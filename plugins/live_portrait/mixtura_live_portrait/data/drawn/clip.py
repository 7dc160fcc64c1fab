"""One clip of one person, as drawn: who, in which scene, with which motion, by which hand."""

from __future__ import annotations

from typing import Literal

from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.drawn.backdrop import draw_scene
from mixtura_live_portrait.data.drawn.identity import draw_identity
from mixtura_live_portrait.data.drawn.motion import Motion
from mixtura_live_portrait.data.drawn.render import Drawn, render
from mixtura_live_portrait.data.drawn.state import State
from mixtura_live_portrait.data.drawn.styles import painted

Style = Literal["plain", "painted"]
FPS = 25
VERSION = 2
"""Counts what changes pixels or labels of drawings; part of the fingerprint of data made from them."""


class DrawnClip:
    """Clip `number` of person `identity` in the crowd `seed`, `frames` long. Cheap to make: nothing is drawn before `frame`."""

    def __init__(self, seed: int, identity: int, number: int, frames: int, style: Style = "plain") -> None:
        rng = KeyedRng("mixtura drawn clip", seed, identity, number, style)
        self.who = draw_identity(seed, identity)
        self.hand = rng if style == "painted" else None
        if self.hand:
            self.who = painted(self.who, rng)
        self.scene = draw_scene(rng)
        self.motion = Motion(self.who, self.scene, rng, frames / FPS)

    def state(self, frame: int) -> State:
        """Pose and expression of a frame."""
        return self.motion.state(frame / FPS)

    def frame(self, frame: int, size: int) -> Drawn:
        """Draw a frame of `size` pixels."""
        return self.doing(self.state(frame), size)

    def doing(self, state: State, size: int) -> Drawn:
        """Draw this person in this scene in any state, as the truth of what another clip's motion makes of them."""
        return render(self.who, state, self.scene, size, self.hand)
