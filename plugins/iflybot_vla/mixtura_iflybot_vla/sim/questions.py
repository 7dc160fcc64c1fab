"""Questions about a scene with answers computed from the simulator: points, boxes, relations, distances, paths, facts.

Points and boxes are written in normalised image coordinates with two decimals, origin at the top left. Left, right,
in front and behind are meant from the robot, which looks along +y. A question is only asked when its answer can be
seen and is not a close call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixtura_iflybot_vla.sim.world import GOAL, Thing, World

PATH_POINTS = 5
"""Points of a path: the gripper now and at four later rows."""
PATH_STEP = 2
"""Rows between two points of a path."""
MARGIN = 0.02
"""Metres by which two things must differ before a relation between them is asked for."""

RELATIONS = (
    ("left", "right", "left or right of"),
    ("in front", "behind", "in front of or behind"),
    ("below", "above", "below or above"),
)
"""For each axis what a smaller and a larger coordinate is called, and how it is asked."""
VISIBLE = 0.15
"""Share of its box that a thing must show to be asked about."""
CLOSED, OPEN = 0.03, 0.1
"""Metres: a drawer is called closed up to the first and open from the second."""
GRIPPER_HALF = 0.7
"""Openings above count as open; fingers that close on nothing stop at 0.3."""


@dataclass(frozen=True)
class Question:
    """A question about the image of one camera, and its answer."""

    kind: str
    camera: str
    ask: str
    answer: str

    def record(self, key: str, image: str) -> dict[str, Any]:
        """The question in the LLaVA layout; `image` is a file name."""
        human = {"from": "human", "value": f"<image>\n{self.ask}"}
        return {"id": f"{key}-{self.kind}", "image": image, "conversations": [human, {"from": "gpt", "value": self.answer}]}


@dataclass
class Scene:
    """What questions are made from: a world at the row in question, the coming gripper points (T, 3), a generator."""

    world: World
    camera: str
    path: np.ndarray
    rng: np.random.Generator

    @property
    def things(self) -> list[Thing]:
        """What is on the table, the thing of the task first."""
        task = self.world.task
        return [task.thing] + ([task.distractor] if task.distractor else [])

    @cached_property
    def labels(self) -> np.ndarray:
        """What every pixel shows, as in `World.labels`."""
        return self.world.labels(self.camera)

    def shows(self, point: np.ndarray, bodies: Collection[int]) -> bool:
        """Whether the image shows one of `bodies` where `point` (3,) lies, within one or two pixels."""
        x, y, depth = self.world.project(point, self.camera)
        size = len(self.labels)
        if not (depth > 0 and 0.02 <= x <= 0.98 and 0.02 <= y <= 0.98):
            return False
        row, column, near = int(y * size), int(x * size), max(1, size // 60)
        patch = self.labels[max(0, row - near) : row + near + 1, max(0, column - near) : column + near + 1]
        return bool(np.isin(patch, list(bodies)).any())

    def shows_gripper(self) -> bool:
        """Whether the gripper can be seen, or the last links of the arm right in front of it (as from above)."""
        return self.shows(self.world.gripper(), self.world.parts("right_l5"))

    def shows_thing(self, thing: Thing) -> bool:
        """Whether a thing can be seen at its point."""
        return self.shows_some(thing) and self.shows(self.world.point(thing), self._bodies(thing))

    def shows_some(self, thing: Thing) -> bool:
        """Whether enough of a thing can be seen: some pixels of the goal mark, a share of a body's box."""
        pixels = int(np.isin(self.labels, list(self._bodies(thing))).sum())
        if not thing.body:
            return pixels >= max(1, self.labels.size // 2000)
        box = box_of(self.world, thing.body, self.camera)
        return box is not None and pixels >= VISIBLE * np.prod((box[2:] - box[:2]) * len(self.labels))

    def _bodies(self, thing: Thing) -> Collection[int]:
        return self.world.parts(thing.body) if thing.body else {GOAL}

    def choose(self, options: Sequence[str]) -> str:
        """One of several wordings."""
        return options[int(self.rng.integers(len(options)))]

    def question(self, kind: str, wordings: Sequence[str], answer: str) -> Question:
        """A question of this scene in one of its wordings."""
        return Question(kind, self.camera, self.choose(wordings), answer)


def ask(scene: Scene) -> Question | None:
    """One question about a scene: a kind is drawn, then a question of it; None when nothing can be asked."""
    for kind in scene.rng.permutation(len(KINDS)):
        found: list[Question] = KINDS[kind](scene)
        if found:
            return found[int(scene.rng.integers(len(found)))]
    return None


def as_point(point: np.ndarray) -> str:
    """Image coordinates as text: (0.43, 0.71)."""
    return f"({point[0]:.2f}, {point[1]:.2f})"


def box_of(world: World, body: str, camera: str) -> np.ndarray | None:
    """The box (left, top, right, bottom) of a body in an image, hidden parts included; None when much of it lies outside."""
    points = world.project(world.extent(body), camera)
    if not (points[:, 2] > 0.05).all():
        return None
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    inside_low, inside_high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    if np.prod(inside_high - inside_low) < 0.7 * np.prod(high - low):
        return None
    return np.concatenate([inside_low, inside_high])


# -- the kinds ----------------------------------------------------------------------------------------------------


def _points(scene: Scene) -> list[Question]:
    """Where the gripper and the things are in the image."""
    world, found = scene.world, []
    places = []
    if scene.shows_gripper() and not world.moves(scene.camera):  # where a camera follows the gripper, the answer never changes
        places.append(("gripper", world.gripper()))
    places += [(thing.name, world.point(thing)) for thing in scene.things if scene.shows_thing(thing)]
    for name, place in places:
        answer = as_point(world.project(place, scene.camera))
        found.append(scene.question("point", (f"Point to the {name}.", f"Where is the {name} in the image?"), answer))
    return found


def _boxes(scene: Scene) -> list[Question]:
    """The boxes of things that have a body."""
    found = []
    for thing in scene.things:
        if not thing.body or not scene.shows_thing(thing):
            continue
        box = box_of(scene.world, thing.body, scene.camera)
        if box is not None:
            name = scene.world.task.scene.split(" ", 1)[1] if thing is scene.world.task.thing else thing.name
            answer = "[" + ", ".join(f"{value:.2f}" for value in box) + "]"
            found.append(scene.question("box", (f"Give the box of the {name}.", f"Draw a box around the {name}."), answer))
    return found


def _relations(scene: Scene) -> list[Question]:
    """Where the gripper is relative to the thing of the task, axis by axis."""
    thing = scene.world.task.thing
    offset = scene.world.gripper() - scene.world.point(thing)
    found = []
    for axis, (less, more, either) in enumerate(RELATIONS):
        if abs(offset[axis]) > MARGIN and scene.shows_some(thing):
            plain = f"s the gripper {either} the {thing.name}?"
            wordings = (f"Seen from the robot, i{plain}", f"I{plain}")
            found.append(scene.question("relation", wordings, more if offset[axis] > 0 else less))
    return found


def _distances(scene: Scene) -> list[Question]:
    """How far the gripper is from the thing of the task, in whole centimetres."""
    thing = scene.world.task.thing
    if not scene.shows_some(thing):
        return []
    centimetres = 100 * float(np.linalg.norm(scene.world.gripper() - scene.world.point(thing)))
    wordings = (f"How far is the gripper from the {thing.name}?", f"How far away is the {thing.name} from the gripper?")
    return [scene.question("distance", wordings, f"{centimetres:.0f} cm")]


def _paths(scene: Scene) -> list[Question]:
    """The next points of the gripper in the image, standing still after the last row."""
    if len(scene.path) <= PATH_STEP or not scene.shows_gripper():
        return []
    rows = np.minimum(np.arange(PATH_POINTS) * PATH_STEP, len(scene.path) - 1)
    points = scene.world.project(scene.path[rows], scene.camera)
    if not (np.isfinite(points).all() and (points[:, :2] >= 0).all() and (points[:, :2] <= 1).all()):
        return []
    wordings = ("Where will the gripper go next?", "Draw the next path of the gripper.")
    return [scene.question("path", wordings, " ".join(as_point(point) for point in points))]


def _facts(scene: Scene) -> list[Question]:
    """What is there and what is being done."""
    task = scene.world.task
    if not scene.shows_some(task.thing):
        return []
    return [
        scene.question("scene", ("What is on the table?", "What do you see on the table?"), task.scene),
        scene.question("task", ("What is the robot doing?", "Which task fits this scene?"), task.phrases[0]),
    ]


def _openings(scene: Scene) -> list[Question]:
    """What is open and what is closed: the thing of the task if it can be, else the gripper."""
    world, task = scene.world, scene.world.task
    if task.opens and scene.shows_some(task.thing):
        travel = world.travel(task.thing.body)
        if travel <= CLOSED or travel >= OPEN:
            return [scene.question("opened", (f"Is the {task.opens} open or closed?",), "open" if travel >= OPEN else "closed")]
    opening = float(world.state()[3])
    if abs(opening - GRIPPER_HALF) > 0.1 and scene.shows_gripper():
        return [scene.question("gripper", ("Is the gripper open or closed?",), "open" if opening > GRIPPER_HALF else "closed")]
    return []


KINDS: tuple[Callable[[Scene], list[Question]], ...] = (_points, _boxes, _relations, _distances, _paths, _facts, _openings)
