"""What a painted face does and whose it is, read by networks that were learnt for this alone.

Pose, expression and identity of a generated picture have no label, and to ask the model's own M would let it judge itself. So
small networks learn them on drawn faces, whose labels are exact, of people that nothing else uses: in about a minute, the
same way every time. What they make of drawn faces that they never saw is measured, too, and belongs beside every figure that
comes from them. They know drawn faces alone; for real ones there are the measures of pictures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.augment import jittered
from mixtura_live_portrait.data.drawn import clip as drawing
from mixtura_live_portrait.data.drawn.clip import DrawnClip
from mixtura_live_portrait.data.drawn.state import Expression
from mixtura_live_portrait.data.sample import Frame
from mixtura_live_portrait.losses.regions import FACE, corners, cut, grown, lengths, patches
from mixtura_live_portrait.nets.reader import Opening, softest

VERSION = 6
CROWD = 8371
"""Seed of the people it learns on and is measured on; configurations have small ones."""
PEOPLE, FRAMES, HELD_OUT, CLIP = 240, 10, 40, 250
SIDE, ROOM, PATCH = 48, 0.15, 24
"""Sides of the faces and of the eyes and lips that it sees, and by how much faces reach beyond their box."""
STEM, WIDTHS, PART_WIDTHS = 5, (20, 40, 64, 80), (16, 32, 48)
EMBEDDING = 32
STEPS, BATCH, RATE = 240, 64, 2e-3
PART_STEPS, SLIP = 1800, 0.1
"""Steps of what reads eyes and lips, and how far their patches are out of place at most, in their lengths."""
DEGREES, SHARPNESS = 20.0, 12.0
"""Angle that counts as much as a whole unit of expression; factor on cosines before people are told apart by them."""


class Reading(NamedTuple):
    """What is read of n faces.

    `pose` (n, 3) in degrees, `expression` (n, 10) as `drawn.state.Expression` has it, `ratios` (n, 3), the openings of left eye,
    right eye and lips as landmarks would tell them, `identity` (n, 32) of length 1.
    """

    pose: Tensor
    expression: Tensor
    ratios: Tensor
    identity: Tensor


class Places(NamedTuple):
    """Where to look in n pictures: boxes of faces (n, 4), corners of eyes and lips (n, 3, 2, 2), -1 to 1."""

    boxes: Tensor
    corners: Tensor

    @staticmethod
    def of(frames: list[Frame]) -> Places:
        """From frames whose landmarks are known."""
        guide, boxes = (torch.from_numpy(np.stack([getattr(f, name) for f in frames])) for name in ("guide", "boxes"))
        return Places(boxes[:, FACE], corners(guide))


class FaceNet(nn.Module):
    """Faces (n, 3, SIDE, SIDE) in 0..1 -> pose in degrees (n, 3), brow (n, 1), identity."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], STEM, 2, STEM // 2)
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(WIDTHS)])
        places = (SIDE >> len(WIDTHS) - 1) ** 2
        self.hidden = nn.Linear(WIDTHS[-1] * places, 128)
        self.labels = nn.Linear(128, 4)
        self.whose = nn.Linear(WIDTHS[-1] * places, EMBEDDING)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.stem(2 * faces - 1))
        for number, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            x = F.max_pool2d(x, 2) if number < len(self.convs) - 1 else x
        labels = self.labels(F.relu(self.hidden(x.flatten(1))))
        return labels[:, :3] * DEGREES, labels[:, 3:], F.normalize(self.whose(x.flatten(1)), dim=1)


class PartNet(nn.Module):
    """Patches of left eye, right eye, lips (n, 3, 3, PATCH, PATCH) in 0..1 -> their ratios, and what of the expression they show.

    The second (n, 9): left eye, right eye, gaze (2), lips, smile, width, pucker, jaw.
    """

    def __init__(self) -> None:
        super().__init__()
        self.eye = Opening(PATCH, PART_WIDTHS, 4)
        self.mouth = Opening(PATCH, PART_WIDTHS, 6)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        eyes = self.eye(patches[:, :2].flatten(0, 1)).unflatten(0, (-1, 2))
        mouth = self.mouth(patches[:, 2])
        ratios = torch.cat([eyes[:, :, 0], mouth[:, :1]], 1)
        return ratios, torch.cat([eyes[:, :, 1], eyes[:, :, 2:].mean(1), mouth[:, 1:]], 1)


BROW = Expression._fields.index("brow")


class Meter(nn.Module):
    """Reads faces; `worth` is what it made of held-out ones: name -> figure."""

    worth: dict[str, float]

    def __init__(self) -> None:
        super().__init__()
        self.face = FaceNet()
        self.parts = PartNet()
        self.worth = {}

    @torch.no_grad()
    def read(self, pictures: Tensor, places: Places) -> Reading:
        """Pictures (n, 3, S, S) in 0..1."""
        pictures = _small(pictures)
        pose, brow, identity = self.face(cut(pictures, grown(places.boxes, ROOM), SIDE))
        ratios, shown = self.parts(patches(pictures, places.corners, PATCH))
        return Reading(pose, torch.cat([shown[:, :BROW], brow, shown[:, BROW:]], 1), ratios, identity)


def _small(pictures: Tensor) -> Tensor:
    """Pictures not much larger than what is cut out of them."""
    while pictures.shape[-1] >= 4 * SIDE:
        pictures = F.avg_pool2d(pictures, 2)
    return pictures


class Drawn(NamedTuple):
    """Drawn frames: pictures (n, 3, S, S) in 0..1, where to look, labels, number of the person (n,)."""

    pictures: Tensor
    places: Places
    pose: Tensor
    expression: Tensor
    ratios: Tensor
    who: Tensor


def draw(first: int, people: int, frames: int, size: int, is_augmented: bool) -> Drawn:
    """Frames of people from number `first` of the crowd on; augmented ones come a second time, mirrored, in other colours."""
    found: list[Frame] = []
    who: list[int] = []
    for number in range(first, first + people):
        mine = list(_frames(number, frames, size))
        mine += [_mirrored(frame, KeyedRng("meter", number, at)) for at, frame in enumerate(mine)] if is_augmented else []
        found += mine
        who += [number - first] * len(mine)
    pictures = torch.from_numpy(np.stack([frame.image for frame in found])).movedim(-1, 1).float() / 255
    pose, expression, ratios = (
        torch.from_numpy(np.stack([getattr(f, name) for f in found])) for name in ("pose", "expression", "ratios")
    )
    return Drawn(pictures, Places.of(found), pose, expression, ratios, torch.tensor(who))


def _frames(number: int, frames: int, size: int) -> Iterator[Frame]:
    """Frames of a clip; eyes and lips of every second one are as far open as chance says, for clips seldom show them all shut."""
    clip = DrawnClip(CROWD, number, 0, CLIP)
    for turn, at in enumerate(np.linspace(0, CLIP - 1, frames).astype(int).tolist()):
        state = clip.state(at)
        if turn % 2:
            state = state.exercised(KeyedRng("meter openings", number, turn).numpy())
        drawn = clip.doing(state, size)
        yield Frame.of(drawn.image, drawn.landmarks, np.array(state.pose[:3], np.float32), state.expression.vector())


def _mirrored(frame: Frame, rng: KeyedRng) -> Frame:
    other = frame.mirrored()
    colours = jittered(other.image, 0.6, rng.numpy())
    return Frame(colours, other.guide, other.boxes, other.ratios, other.pose, other.expression)


def learn(size: int) -> Meter:
    """A meter for frames of `size` pixels, from drawn ones. Deterministic on one machine."""
    given = draw(0, PEOPLE, FRAMES, size, is_augmented=True)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(KeyedRng("meter", VERSION).key)
        meter = Meter()
        learn_faces(meter.face, given)
        learn_parts(meter.parts, given)
    meter.requires_grad_(False).eval()
    meter.worth = worth(meter, draw(PEOPLE, HELD_OUT, 6, size, is_augmented=False))
    return meter


def _steps(parameters: list[nn.Parameter], count: int, size: int) -> Iterator[tuple[Tensor, torch.optim.Optimizer]]:
    """Random items for each step, and the optimizer at its learning rate, which rises, stays and falls."""
    optimizer = torch.optim.Adam(parameters, RATE)
    for step in range(count):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20, 2 * (1 - step / count))
        yield torch.randint(size, (BATCH,)), optimizer


def _down(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def learn_faces(network: FaceNet, given: Drawn) -> None:
    """Pose and brows by mean absolute error, people by telling them apart."""
    people = nn.Linear(EMBEDDING, PEOPLE, bias=False)
    parts = zip(given.pictures.split(256), grown(given.places.boxes, ROOM).split(256), strict=True)
    faces = torch.cat([cut(pictures, boxes, SIDE) for pictures, boxes in parts])
    for some, optimizer in _steps([*network.parameters(), *people.parameters()], STEPS, len(faces)):
        pose, brow, identity = network(_softened(faces[some], most=0.5))
        cosines = identity @ F.normalize(people.weight, dim=1).T
        off = (pose - given.pose[some]).abs().mean() / DEGREES + (brow[:, 0] - given.expression[some, BROW]).abs().mean()
        _down(optimizer, off + 0.1 * F.cross_entropy(SHARPNESS * cosines, given.who[some]))


def learn_parts(network: PartNet, given: Drawn) -> None:
    """Ratios by absolute, expression by squared error in its own spread; patches are a little out of place."""
    ends = given.places.corners
    length = lengths(ends)[..., None, None]
    true = torch.cat([given.expression[:, :BROW], given.expression[:, BROW + 1 :]], 1)
    spread = true.std(0) + 0.01
    for some, optimizer in _steps(list(network.parameters()), PART_STEPS, len(ends)):
        slip = SLIP * length[some] * (2 * torch.rand(BATCH, 3, 1, 2) - 1)
        ratios, shown = network(patches(_softened(given.pictures[some], most=1.0), ends[some] + slip, PATCH))
        off = 12 * (ratios - given.ratios[some]).abs().mean()
        _down(optimizer, off + ((shown - true[some]) / spread).square().mean())


def _softened(pictures: Tensor, most: float) -> Tensor:
    """Every second picture softer, one more than another, for painted ones are softer than drawn ones."""
    half = len(pictures) // 2
    soft = torch.lerp(pictures[:half], softest(pictures[:half]), most * torch.rand(half, 1, 1, 1))
    return torch.cat([soft, pictures[half:]])


def worth(meter: Meter, held: Drawn) -> dict[str, float]:
    """Errors on people it never saw, and how far apart frames of one person and of two are in identity (1 - cosine).

    Expression is hard to see in few pixels: what always the same guess would be off stands beside it.
    """
    reading = meter.read(held.pictures, held.places)
    apart = 1 - reading.identity @ reading.identity.T
    same = held.who[:, None] == held.who
    off = (reading.ratios - held.ratios).abs()
    return {
        "pose": float((reading.pose - held.pose).abs().mean()),
        "expression": float((reading.expression - held.expression).abs().mean()),
        "expression, if guessed": float((held.expression.median(0).values - held.expression).abs().mean()),
        "eyes": float(off[:, :2].mean()),
        "lips": float(off[:, 2].mean()),
        "same person": float(apart[same & ~torch.eye(len(same), dtype=torch.bool)].mean()),
        "another person": float(apart[~same].mean()),
    }


def meter_for(size: int, cache: Path | None) -> Meter:
    """The meter for frames of `size` pixels: from the cache, or learnt now and kept there."""
    size = min(size, 2 * SIDE)  # larger frames are made smaller anyway
    if cache is None:
        return learn(size)
    file = cache / f"meter-{VERSION}-{drawing.VERSION}-{size}.safetensors"
    if not file.exists():
        made = learn(size)
        part = file.with_suffix(".part")
        save_file(made.state_dict(), part, {"worth": json.dumps(made.worth)})
        os.replace(part, file)
    meter = Meter()
    meter.load_state_dict(load_file(file))
    with safe_open(file, "pt") as opened:
        meter.worth = json.loads(opened.metadata()["worth"])
    return meter.requires_grad_(False).eval()
