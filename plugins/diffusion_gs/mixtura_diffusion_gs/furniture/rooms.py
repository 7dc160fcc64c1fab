"""Furnished rooms: which pieces there are and where they stand.

`plan_room` is a pure function of its seed. Pieces stand on the floor without overlap, at their real size, and small things stand
on some of them. What the room itself looks like is said in `shell`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from .mesh import Array, placed
from .models import FurnitureError, Model, find
from .roles import RECIPES, ROLES, SMALL

HEIGHT = 2.6
GAP = 0.04  # metres between two pieces
FEWEST, MOST = 6, 12
TRIES = 40
DOOR = (0.9, 2.05)
Spot = tuple[float, float, float]  # x, y, yaw


@dataclass(frozen=True)
class Piece:
    """A model in a room, its foot at `position` (metres), turned by `yaw` radians from its back at +y."""

    model: Model
    role: str
    position: tuple[float, float, float]
    yaw: float

    @property
    def matrix(self) -> Array:
        """The 4x4 map from the model's axes into the room's."""
        return placed(self.yaw, self.position)

    @property
    def footprint(self) -> Array:
        """Half the width along x and y [2] of the upright box around the piece, metres."""
        return _half(self.model, self.yaw)

    @property
    def height(self) -> float:
        """The highest point above the floor, metres."""
        return self.position[2] + self.model.size[2]


@dataclass(frozen=True)
class Room:
    """A room's plan: the floor spans `size` (metres along x and y) around the origin.

    `pieces` stand on the floor, `ornaments` on pieces; `door` is a wall (0 to 3, see `WALLS`) and where along it the door is.
    """

    seed: int
    kind: str
    size: tuple[float, float]
    pieces: tuple[Piece, ...]
    ornaments: tuple[Piece, ...]
    door: tuple[int, float]


# Walls by number: yaw of a piece that leans on it, and the direction out of the room.
WALLS: tuple[tuple[float, tuple[int, int]], ...] = (
    (0.0, (0, 1)),
    (-np.pi / 2, (1, 0)),
    (np.pi, (0, -1)),
    (np.pi / 2, (-1, 0)),
)


def plan_room(seed: int) -> Room:
    """A room with 6 to 12 pieces on its floor.

    Raises FurnitureError when the catalogue is missing, ValueError for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    for attempt in range(100):
        room = _Planner(np.random.default_rng([seed, attempt])).plan(seed)
        if len(room.pieces) >= FEWEST:
            return room
    raise FurnitureError(f"seed {seed} leaves no room for {FEWEST} pieces")


def along(room_size: tuple[float, float], wall: int, offset: float, inset: float) -> tuple[float, float]:
    """The point (x, y) at `offset` metres to the right of a wall's middle, `inset` metres before the wall."""
    normal_x, normal_y = WALLS[wall][1]
    reach = (room_size[0] if normal_x else room_size[1]) / 2 - inset
    return normal_x * reach + normal_y * offset, normal_y * reach - normal_x * offset


def wall_length(room_size: tuple[float, float], wall: int) -> float:
    """Metres from corner to corner."""
    return room_size[0] if WALLS[wall][1][1] else room_size[1]


def _half(model: Model, yaw: float) -> Array:
    cos, sin = abs(np.cos(yaw)), abs(np.sin(yaw))
    width, depth, _ = model.size
    return np.array([cos * width + sin * depth, sin * width + cos * depth]) / 2


class _Planner:
    """Puts pieces into one room, one after the other."""

    def __init__(self, rng: Generator) -> None:
        self.rng = rng
        self.size = (round(rng.uniform(4.2, 5.6), 2), round(rng.uniform(3.8, 4.8), 2))
        self.pieces: list[Piece] = []
        self.taken: list[tuple[float, float, float, float]] = []  # centre and half widths of boxes that stay free

    def plan(self, seed: int) -> Room:
        """The whole room."""
        kind = str(self.rng.choice(sorted(RECIPES)))
        door = int(self.rng.integers(4)), 0.0
        room_for_door = wall_length(self.size, door[0]) / 2 - DOOR[0] / 2 - 0.15
        door = door[0], float(self.rng.choice([-1, 1]) * self.rng.uniform(0.4, 1) * room_for_door)
        self.taken.append((*along(self.size, *door, 0.45), 0.5, 0.5))
        for role, where, least, most in RECIPES[kind]:
            for number in range(int(self.rng.integers(least, most + 1))):
                self._add(role, where, number)
        wanted = self.rng.integers(FEWEST + 2, MOST + 1)
        for role in self.rng.permutation(["thing", "plant", "shelf", "chair", "sideboard", "thing", "armchair", "plant"]):
            if len(self.pieces) < wanted:
                self._add(str(role), "wall", 0)
        return Room(seed, kind, self.size, tuple(self.pieces[:MOST]), tuple(self._ornaments()), door)

    def _add(self, role: str, where: str, number: int) -> None:
        """One more piece, if a free spot is found; pieces around a table are all of one model."""
        same = [piece.model for piece in self.pieces if piece.role == role]
        repeats = bool(same) and (where.startswith("around") or role == "bedside table")
        model = same[0] if repeats else find(str(self.rng.choice(ROLES[role])))
        if not repeats and model in same:
            return
        for _ in range(TRIES):
            spot = self._spot(model, where, number)
            if spot is not None and self._is_free(model, spot):
                self.pieces.append(Piece(model, role, (spot[0], spot[1], 0.0), spot[2]))
                return

    def _spot(self, model: Model, where: str, number: int) -> Spot | None:
        kind, _, other = where.partition(" ")
        if kind in ("before", "around"):
            anchors = [piece for piece in self.pieces if piece.role == other]
            return self._beside(model, anchors[0], kind, number) if anchors else None
        if kind == "wall":
            wall = int(self.rng.integers(4))
            slack = wall_length(self.size, wall) / 2 - model.size[0] / 2 - 0.05
            offset = self.rng.uniform(-1, 1) * max(slack, 0)
            return *along(self.size, wall, offset, model.size[1] / 2 + 0.03), WALLS[wall][0]
        reach = 0.12 if kind == "middle" else 0.55
        x, y = self.rng.uniform(-reach, reach, 2) * np.array(self.size) / 2
        # Free pieces look at the centre, more or less.
        yaw = np.pi / 2 * self.rng.integers(2) if kind == "middle" else np.arctan2(-x, y) + self.rng.uniform(-0.4, 0.4)
        return float(x), float(y), float(yaw)

    def _beside(self, model: Model, anchor: Piece, kind: str, number: int) -> Spot:
        """Before the front of `anchor`, or at its sides in turn (front, back, right, left), facing it."""
        turn = anchor.yaw + (np.pi if kind == "before" else (np.pi, 0.0, -np.pi / 2, np.pi / 2)[number % 4])
        sideways = kind == "around" and number % 4 > 1
        gap = self.rng.uniform(0.3, 0.5) if anchor.role == "sofa" else self.rng.uniform(0.05, 0.12)
        reach = anchor.model.size[0 if sideways else 1] / 2 + model.size[1] / 2 + gap
        # A piece leaning back at yaw 0 has its back at +y: here its back points away from the anchor.
        x, y = anchor.position[0] - np.sin(turn) * reach, anchor.position[1] + np.cos(turn) * reach
        return float(x), float(y), float(turn if anchor.role != "sofa" else anchor.yaw)

    def _is_free(self, model: Model, spot: Spot) -> bool:
        half, centre = _half(model, spot[2]), np.array(spot[:2])
        if (np.abs(centre) + half > np.array(self.size) / 2 - 0.02).any() or model.size[2] > HEIGHT - 0.05:
            return False
        boxes = [(*piece.position[:2], *piece.footprint) for piece in self.pieces] + self.taken
        return all(abs(centre[0] - x) >= half[0] + w + GAP or abs(centre[1] - y) >= half[1] + d + GAP for x, y, w, d in boxes)

    def _ornaments(self) -> list[Piece]:
        """Small things, two each, on tables, desks and chests that have a top to stand on."""
        bases = [piece for piece in self.pieces[:MOST] if _is_base(piece) for _ in range(2)]
        things: list[Piece] = []
        for base, name in zip(bases, self.rng.permutation(SMALL), strict=False):
            thing = self._on_top(base, find(str(name)))
            if thing is not None and all(_are_apart(thing, other) for other in things):
                things.append(thing)
        return things

    def _on_top(self, base: Piece, model: Model) -> Piece | None:
        slack = np.array(base.model.size[:2]) / 2 * 0.85 - np.array(model.size[:2]) / 2
        x, y = self.rng.uniform(-1, 1, 2) * slack
        yaw = base.yaw + float(self.rng.uniform(-0.4, 0.4))
        at = base.matrix @ [x, y, base.model.top or 0.0, 1]
        return Piece(model, "ornament", (float(at[0]), float(at[1]), float(at[2])), yaw) if (slack > 0).all() else None


def _are_apart(first: Piece, second: Piece) -> bool:
    distance = np.abs(np.subtract(first.position[:2], second.position[:2]))
    return bool((distance > first.footprint + second.footprint).any())


def _is_base(piece: Piece) -> bool:
    top = piece.model.top
    return piece.role in ("table", "coffee table", "desk", "sideboard", "dresser", "bedside table", "counter") and (
        top is not None and 0.3 < top < 1.3 and top > 0.9 * piece.model.size[2]
    )
