"""One watched episode: the evaluator's own loop, a row at a time, with everything that the page shows of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mixtura_demos.iflybot_vla.facts import Facts
from mixtura_demos.iflybot_vla.simulators import SIMULATORS, Seat, Simulators
from mixtura_demos.shared.errors import Refused
from mixtura_iflybot_vla.sim.closed_loop import ClosedLoop, Move, Outcome, Team
from mixtura_iflybot_vla.sim.world import known_task

if TYPE_CHECKING:
    from mixtura.system import System

LONGEST_INSTRUCTION = 200


@dataclass(frozen=True)
class Wish:
    """What an episode is made from; another wish is another episode. `seed` is the number of the evaluator's episode."""

    checkpoint: str
    task: str
    seed: int
    execute: int


@dataclass
class Thought:
    """One answer of the policy: actions (H, 4), latent codes, whether they were given, FAST ids and their actions (H, 4)."""

    actions: np.ndarray
    codes: list[int] | None = None
    given: bool = False
    fast: list[int] | None = None
    fast_actions: np.ndarray | None = None
    seconds: float = 0.0


class Noted:
    """A system whose last answer is kept: the loop asks it for actions alone."""

    def __init__(self, system: System) -> None:
        self.system, self.config = system, system.config
        self.codes: Sequence[int] | None = None
        self.discrete = False
        self.thought: Thought | None = None

    def infer(self, **inputs: Any) -> dict[str, Any]:
        """What the system answers to one robot, under the given codes if there are some."""
        began = time.monotonic()
        codes = None if self.codes is None else np.array([self.codes])
        answer = self.system.infer(**inputs, codes=codes, discrete=self.discrete)
        plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in answer.items()}
        chunk = plain.get("fast_actions")
        self.thought = Thought(
            actions=np.array(plain["actions"][0]),
            codes=plain["codes"][0] if "codes" in plain else None,
            given=codes is not None,
            fast=plain["fast"][0] if "fast" in plain else None,
            fast_actions=np.array(chunk[0]) if chunk else None,
            seconds=time.monotonic() - began,
        )
        return dict(answer)


@dataclass
class Row:
    """One carried out row: the action (4,) as the simulator takes it, the robot's state (4,) before and after it."""

    action: np.ndarray
    before: np.ndarray
    after: np.ndarray


@dataclass
class Episode:
    """An episode and what has become of it; `step` goes on by one plan or one row."""

    wish: Wish
    facts: Facts
    noted: Noted
    seat: Seat
    words: str
    limit: int
    rows: list[Row] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    done: int = 0
    failed: bool = False

    def __post_init__(self) -> None:
        self._loop = ClosedLoop(self.facts.loop(self.wish.task, self.wish.execute), root=Path())
        self._moves = self._loop.moves(self.seat, self.wish.task, self._plan, [self.wish.seed], stride=1)
        next(self._moves)
        self.plan_views = self.views
        self.frames.append(self.views)

    def _plan(self, team: Team, outcomes: list[Outcome], words: list[str]) -> dict[int, np.ndarray]:
        """The policy: as the evaluator asks it, in the words that are in the page now."""
        self.plan_views = self.views
        return self._loop.plan(self.noted, outcomes, [self.words])  # type: ignore[arg-type]

    @property
    def now(self) -> Outcome:
        """The episode as the simulator last showed it, with pictures and state after its end as well."""
        if self.seat.now is None:
            raise Refused("the episode hasn't begun; press Reset")
        return self.seat.now

    @property
    def views(self) -> np.ndarray:
        """What the robot sees (V, H, W, 3)."""
        if self.now.images is None:
            raise Refused("the episode hasn't begun; press Reset")
        return self.now.images

    @property
    def thought(self) -> Thought | None:
        """The plan in force and what came with it."""
        return self.noted.thought

    @property
    def is_solved(self) -> bool:
        """Whether the simulator says that the task is done."""
        return self.now.solved

    @property
    def is_over(self) -> bool:
        """Solved, or as many rows as allowed."""
        return self.is_solved or len(self.rows) >= self.limit

    def step(self) -> Move:
        """Make a plan, or carry out the next row of the plan in force."""
        before = self.now.state
        try:
            move = next(self._moves)
        except StopIteration:
            raise Refused("this episode has ended; press Reset to start it again") from None
        except Exception:
            self.failed = True
            raise
        self.done = move.done
        if move.done and before is not None and self.now.state is not None:
            action = np.clip(self.seat.actions[-1], -1.0, 1.0)
            self.rows.append(Row(action, before, self.now.state))
            self.frames.append(self.views)
        return move

    def chunk(self) -> Iterator[Move]:
        """One plan, and its rows as they are carried out. A plan that was cut short is finished first."""
        while not self.is_over:
            move = self.step()
            yield move
            if move.done >= self.wish.execute:
                return

    def whole(self) -> Iterator[Move]:
        """To the end."""
        while not self.is_over:
            yield self.step()


def begin(
    system: System, facts: Facts, wish: Wish, words: str, limit: int, key: tuple[str, str], simulators: Simulators = SIMULATORS
) -> Episode:
    """A new episode at its start. Raises MixturaError when something in the wish can't be had."""
    known_task(wish.task)
    seat = Seat(facts.stage, key, simulators)
    return Episode(wish, facts, Noted(system), seat, instruction(words), limit)


def instruction(words: Any) -> str:
    """A usable instruction. Raises Refused for an empty or endless one."""
    text = " ".join(str(words or "").split())
    if not text:
        raise Refused("the instruction is empty; say what the robot should do, as 'open the drawer'")
    if len(text) > LONGEST_INSTRUCTION:
        raise Refused(f"the instruction has {len(text)} letters; give one of at most {LONGEST_INSTRUCTION}")
    return text


def number(value: Any, name: str, low: int, high: int) -> int:
    """A whole number of a field. Raises Refused."""
    whole = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, float) and value.is_integer():
        whole = int(value)
    if whole is None or not low <= whole <= high:
        raise Refused(f"{name} is {'empty' if value is None else value}; give a whole number from {low} to {high}")
    return whole
