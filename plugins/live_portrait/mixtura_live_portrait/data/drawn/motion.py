"""What a head does in a clip: it turns and sways, talks, blinks, looks around. Closed functions of time, so any frame is at hand.

Angles and shifts are sums of slow waves. Talking is syllables (3 to 6 a second) within phrases; blinks, winks, smiles, raised
brows and wide open mouths are events; the eyes jump from place to place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.drawn.backdrop import Scene
from mixtura_live_portrait.data.drawn.identity import Identity
from mixtura_live_portrait.data.drawn.state import Expression, Pose, State

Doubles = NDArray[np.float64]

SPANS = np.array([8.0, 17.0, 7.0, 0.045, 0.035, 0.03])
"""Standard deviations of pitch, yaw, roll (degrees), shifts, and of the scale's logarithm."""
BOUNDS = np.array([28.0, 48.0, 28.0, 0.15, 0.12, 0.1])
WAVES = 3
WIDEST = 0.8
"""Opening ratio of a mouth at its widest, as in the published retargeting."""


class Motion:
    """The motion of one clip of `seconds`. `state(t)` gives the frame at t seconds."""

    def __init__(self, who: Identity, scene: Scene, rng: KeyedRng, seconds: float) -> None:
        draw = rng.at("motion").numpy()
        self.who, self.scene = who, scene
        energy = draw.uniform(0.5, 1.4)
        self.rates = 2 * np.pi * draw.uniform(0.06, 0.55, (6, WAVES))
        self.phases = draw.uniform(0, 2 * np.pi, (6, WAVES))
        self.spans = energy * SPANS[:, None] * draw.uniform(0.4, 1.0, (6, WAVES))
        self.centres = 0.5 * SPANS * draw.standard_normal(6)
        self.rest = draw.uniform(0.85, 1.1)
        self.talk = draw.uniform(0.0, 0.55)
        self.syllables = 2 * np.pi * draw.uniform((2.6, 3.8, 0.25), (3.8, 6.0, 0.6))
        self.speech = draw.uniform(0, 2 * np.pi, 5)
        self.blinks = _events(draw, seconds, 0.35, (0.07, 0.13))
        self.winks = _events(draw, seconds, 0.05, (0.2, 0.5))
        self.is_left = bool(draw.integers(2))
        self.smiles = _events(draw, seconds, 0.18, (0.7, 2.0))
        self.frowns = _events(draw, seconds, 0.08, (0.7, 1.5))
        self.raises = _events(draw, seconds, 0.22, (0.3, 0.9))
        self.gapes = _events(draw, seconds, 0.10, (0.4, 0.9))
        self.kisses = _events(draw, seconds, 0.10, (0.3, 0.8))
        count = 2 + int(seconds * 1.2)
        self.jumps = np.sort(draw.uniform(-1, seconds, count))
        self.places = np.clip(draw.standard_normal((count, 2)) * (0.5, 0.3), -1, 1)

    def state(self, t: float) -> State:
        """Pose and expression at a time."""
        waves = (self.spans * np.sin(self.rates * t + self.phases)).sum(1) / np.sqrt(WAVES / 2)
        pitch, yaw, roll, x, y, growth = (BOUNDS * np.tanh((self.centres + waves) / BOUNDS)).tolist()
        scene = self.scene
        pose = Pose(pitch, yaw, roll, scene.x + x, scene.y + y, scene.scale * float(np.exp(growth)))
        return State(pose, self._expression(t))

    def _expression(self, t: float) -> Expression:
        smile, frown, gape = at(self.smiles, t), at(self.frowns, t), at(self.gapes, t)
        kiss, raised, wink = at(self.kisses, t), at(self.raises, t), at(self.winks, t)
        opened = self.who.eyes.opening * self.rest * (1 + 0.3 * raised - 0.25 * smile) * (1 - at(self.blinks, t))
        winking = opened * (1 - wink)
        left, right = (winking, opened) if self.is_left else (opened, winking)
        waves = np.sin(self.syllables * t + self.speech[:3])
        phrase = min(1.0, max(0.0, 1.6 * float(waves[2]) + 0.5))
        said = self.talk * phrase * (0.5 + 0.5 * float(waves[0])) * (0.55 + 0.45 * float(waves[1]))
        rounded = 0.5 + 0.5 * float(np.sin(0.53 * self.syllables[0] * t + self.speech[3]))
        lips = (1 - gape) * said * (1 - 0.5 * kiss) + gape * WIDEST
        place = self.places[max(0, int(np.searchsorted(self.jumps, t)) - 1)]
        return Expression(
            eye_left=left,
            eye_right=right,
            gaze_x=float(place[0]),
            gaze_y=float(place[1]),
            brow=raised - 0.7 * frown,
            lips=lips,
            smile=smile - 0.8 * frown,
            width=0.6 * phrase * (1 - 2 * rounded) * (1 - kiss),
            pucker=max(kiss, 0.45 * phrase * rounded * min(1.0, 2 * self.talk)),
            jaw=0.5 * gape + 0.25 * said,
        )


def _events(draw: np.random.Generator, seconds: float, rate: float, halves: tuple[float, float]) -> Doubles:
    """Events (N, 3): middle, half length in seconds, strength; `rate` of them a second on average."""
    count = int(draw.poisson(rate * seconds))
    low, high = np.array([0.0, halves[0], 0.5]), np.array([seconds, halves[1], 1.0])
    return np.asarray(low + (high - low) * draw.random((count, 3)))


def at(events: Doubles, t: float) -> float:
    """How strong the strongest event is at a time: 0 to 1, smooth, full for half of its length."""
    if not len(events):
        return 0.0
    rise = np.clip(2 * (1 - np.abs(t - events[:, 0]) / events[:, 1]), 0, 1)
    return float((events[:, 2] * rise * rise * (3 - 2 * rise)).max())
