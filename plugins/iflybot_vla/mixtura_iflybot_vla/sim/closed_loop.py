"""The evaluator `closed_loop`: a policy acts in the simulator and the share of solved episodes is counted.

All episodes of a task are stepped together: one `infer` call plans for those still running, each carries out the first
`execute` rows of its plan, and only then are pictures drawn again. Episodes live in worker processes (pictures are what
costs); each keeps its own complete state, so the result doesn't depend on how many processes there are.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field, model_validator

from mixtura.errors import ConfigError, DataError, MixturaError, RunError
from mixtura.evaluate import EvalContext, EvalResult, EvaluatorConfig
from mixtura_iflybot_vla.sim.world import (
    Rendering,
    Snapshot,
    check_names,
    close_worlds,
    episode_seed,
    known_task,
    shared_world,
)

if TYPE_CHECKING:
    from mixtura.system import System

Policy = Callable[["Team", list["Outcome"], list[str]], Mapping[int, np.ndarray]]
"""Plans for the episodes still running: slot -> actions (rows >= execute, 4)."""
FILM_WIDTH = 480


class ClosedLoopConfig(EvaluatorConfig):
    """An entry of `evaluate:`; cameras, picture settings and `frame_skip` must be those of the data."""

    type: Literal["closed_loop"] = "closed_loop"
    tasks: tuple[str, ...] = Field(("reach", "drawer-open", "button-press-topdown"), min_length=1)
    episodes: int = Field(20, ge=1, description="episodes of each task")
    rows: int = Field(60, ge=1, description="rows after which an episode counts as failed")
    execute: int = Field(2, ge=1, description="rows of a plan that are carried out before the next one")
    image_size: int = Field(80, ge=16, description="pixels; images are square")
    cameras: tuple[str, ...] = Field(("table", "side"), min_length=1, description="in the order of the system's views")
    frame_skip: int = Field(4, ge=1, description="simulator steps in a row")
    quality: Literal["fast", "benchmark"] = Field("fast", description="as in the data; benchmark has shadows and antialiasing")
    seed_base: int = Field(0, ge=0, description="another number gives other starts; training starts are never among them")
    videos: int = Field(3, ge=0, description="episodes of each task that are filmed")
    processes: int | None = Field(None, ge=0, description="worker processes; the number of cores by default, 0 for none")

    @model_validator(mode="after")
    def _known_names(self) -> ClosedLoopConfig:
        check_names(self.tasks, self.cameras)
        return self

    @property
    def rendering(self) -> Rendering:
        """What a picture depends on."""
        return Rendering(self.image_size, self.cameras, self.quality)


@dataclass(frozen=True)
class Outcome:
    """An episode after some rows: solved or not, and while it runs what the robot sees (V, H, W, 3) and feels (4,)."""

    slot: int
    rows: int
    solved: bool
    images: np.ndarray | None = None
    state: np.ndarray | None = None


@dataclass(frozen=True)
class Move:
    """Plans (rows, 4) by slot, how many of their rows are carried out, and the episodes after them.

    The first move of a task has no plans: it shows how the episodes begin. A new plan is shown before it is carried out.
    """

    plans: Mapping[int, np.ndarray]
    done: int
    outcomes: list[Outcome]


@dataclass
class Episode:
    """An episode in its process: its latest state, rows so far, film frames (H, W, 3)."""

    snapshot: Snapshot
    filmed: bool
    rows: int = 0
    solved: bool = False
    frames: list[np.ndarray] = field(default_factory=list)


# -- episodes -----------------------------------------------------------------------------------------------------


class Team:
    """Some episodes of one task, run in this process by turns on one simulator."""

    def __init__(self, config: ClosedLoopConfig) -> None:
        self.config = config
        self.task = ""
        self.episodes: dict[int, Episode] = {}

    def start(self, task: str, slots: Sequence[int]) -> list[Outcome]:
        """Begin the episodes with the given numbers; returns what their robots see."""
        world = shared_world(task, self.config.rendering)
        self.task, self.episodes = task, {}
        for slot in slots:
            world.reset(episode_seed("evaluate", self.config.seed_base, task, slot))
            self.episodes[slot] = Episode(world.snapshot(), filmed=slot < self.config.videos)
        return [self._look(slot) for slot in slots]

    def advance(self, plans: Mapping[int, np.ndarray]) -> list[Outcome]:
        """Carry out the first `execute` rows of each plan (rows, 4); stops at success and at the last row."""
        world = shared_world(self.task, self.config.rendering)
        for slot, plan in plans.items():
            episode = self.episodes[slot]
            world.restore(episode.snapshot)
            for action in plan[: min(self.config.execute, self.config.rows - episode.rows)]:
                if episode.filmed:
                    episode.frames.append(world.image(self.config.cameras[0]))
                episode.solved = world.hold(action, self.config.frame_skip)
                episode.rows += 1
                if episode.solved:
                    break
            episode.snapshot = world.snapshot()
        return [self._look(slot) for slot in plans]

    def script(self, slots: Sequence[int]) -> dict[int, np.ndarray]:
        """What the scripted expert, which sees object positions, would do next: slot -> (execute, 4)."""
        world = shared_world(self.task, self.config.rendering)
        plans = {}
        for slot in slots:
            world.restore(self.episodes[slot].snapshot)
            plans[slot] = np.stack([world.follow(self.config.frame_skip)[0] for _ in range(self.config.execute)])
        return plans

    def films(self) -> dict[int, list[np.ndarray]]:
        """The frames (H, W, 3) of the filmed episodes, one a row."""
        world = shared_world(self.task, self.config.rendering)
        for episode in (e for e in self.episodes.values() if e.filmed):
            world.restore(episode.snapshot)
            episode.frames.append(world.image(self.config.cameras[0]))
        return {slot: episode.frames for slot, episode in self.episodes.items() if episode.filmed}

    def look(self, slots: Sequence[int]) -> list[Outcome]:
        """The episodes with what their robots see and feel, after the end as well."""
        world = shared_world(self.task, self.config.rendering)
        outcomes = []
        for slot in slots:
            episode = self.episodes[slot]
            world.restore(episode.snapshot)
            outcomes.append(Outcome(slot, episode.rows, episode.solved, world.images(), world.state()))
        return outcomes

    def close(self) -> None:
        """Free the simulators of this process."""
        close_worlds()

    def _look(self, slot: int) -> Outcome:
        episode = self.episodes[slot]
        if episode.solved or episode.rows >= self.config.rows:
            return Outcome(slot, episode.rows, episode.solved)
        return self.look([slot])[0]


class Crew(Team):
    """The same, with the episodes dealt out to worker processes."""

    def __init__(self, config: ClosedLoopConfig, processes: int) -> None:
        super().__init__(config)
        context = multiprocessing.get_context("spawn")  # GL contexts and the threads of the trainer don't survive a fork
        self.lines: list[Connection] = []
        self.workers = []
        for _ in range(processes):
            here, there = context.Pipe()
            worker = context.Process(target=_work, args=(there, config), daemon=True)
            worker.start()
            there.close()
            self.lines.append(here)
            self.workers.append(worker)

    def start(self, task: str, slots: Sequence[int]) -> list[Outcome]:
        answers = self._ask("start", [(task, part) for part in self._deal(slots)])
        return sorted((outcome for part in answers for outcome in part), key=lambda outcome: outcome.slot)

    def advance(self, plans: Mapping[int, np.ndarray]) -> list[Outcome]:
        answers = self._ask("advance", [({slot: plans[slot] for slot in part},) for part in self._deal(list(plans))])
        return sorted((outcome for part in answers for outcome in part), key=lambda outcome: outcome.slot)

    def script(self, slots: Sequence[int]) -> dict[int, np.ndarray]:
        answers = self._ask("script", [(part,) for part in self._deal(slots)])
        return {slot: plan for part in answers for slot, plan in part.items()}

    def films(self) -> dict[int, list[np.ndarray]]:
        return {slot: film for part in self._ask("films", [()] * len(self.lines)) for slot, film in part.items()}

    def look(self, slots: Sequence[int]) -> list[Outcome]:
        answers = self._ask("look", [(part,) for part in self._deal(slots)])
        return sorted((outcome for part in answers for outcome in part), key=lambda outcome: outcome.slot)

    def close(self) -> None:
        for line in self.lines:
            line.close()  # a worker ends when its line does
        for worker in self.workers:
            worker.join(10)
            if worker.is_alive():
                worker.terminate()

    def _deal(self, slots: Sequence[int]) -> list[list[int]]:
        """An episode stays with its worker."""
        return [[slot for slot in slots if slot % len(self.lines) == k] for k in range(len(self.lines))]

    def _ask(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        try:
            for line, values in zip(self.lines, arguments, strict=True):
                line.send((method, values))
            answers = [line.recv() for line in self.lines]
        except (EOFError, OSError) as error:
            raise RunError("a simulator process ended unexpectedly; set `processes: 0` to see its own error") from error
        for kind, answer in answers:
            if kind == "refused":
                raise RunError(answer)
            if kind == "error":
                raise RunError(f"a simulator process failed:\n{answer}")
        return [answer for _, answer in answers]


def _work(line: Connection, config: ClosedLoopConfig) -> None:
    """Answer calls until the line is closed."""
    team = Team(config)
    while True:
        try:
            method, values = line.recv()
        except (EOFError, OSError):
            team.close()
            return
        try:
            line.send(("answer", getattr(team, method)(*values)))
        except MixturaError as error:
            line.send(("refused", str(error)))
        except Exception:  # told to the caller, who raises
            line.send(("error", traceback.format_exc()))


# -- the evaluator ------------------------------------------------------------------------------------------------


class ClosedLoop:
    """Measures success in the simulator: scalars `success/TASK` and `success/mean`, a table, a film of each task."""

    Config: ClassVar[type[ClosedLoopConfig]] = ClosedLoopConfig

    def __init__(self, config: ClosedLoopConfig, *, root: Path) -> None:
        self.config, self.root = config, Path(root)

    def run(self, system: System, context: EvalContext) -> EvalResult:
        """Let `system` act. It is given `images` (B, V, H, W, 3) uint8, `state` (B, 4) float32 and `instruction`."""
        self._check(system, context)
        return self.measure(lambda team, outcomes, words: self.plan(system, outcomes, words), context.out)

    def expert(self, out: Path) -> EvalResult:
        """The same for the scripted expert, its actions held as long as a policy's: what a perfect imitator can reach."""
        return self.measure(lambda team, outcomes, words: team.script([outcome.slot for outcome in outcomes]), out)

    def measure(self, policy: Policy, out: Path) -> EvalResult:
        """Run all episodes of all tasks with a policy; films are written to `out`, and named by their files in it."""
        processes = os.cpu_count() or 1 if self.config.processes is None else self.config.processes
        team = Crew(self.config, min(processes, self.config.episodes)) if processes else Team(self.config)
        result = EvalResult()
        table = result.tables["Closed-loop success"] = []
        try:
            for task in self.config.tasks:
                finished = self._play(team, task, policy)
                solved = [outcome for outcome in finished if outcome.solved]
                mean = float(np.mean([outcome.rows for outcome in solved])) if solved else None
                table.append({"task": task, "successes": len(solved), "trials": len(finished), "mean steps": mean})
                result.scalars[f"success/{task}"] = len(solved) / len(finished)
                if self.config.videos:
                    marks = {outcome.slot: outcome.solved for outcome in finished}
                    path = save_film(team.films(), marks, Path(out) / f"{task}.webp")
                    result.media[f"{task}: {known_task(task).phrases[0]}"] = path.name
        finally:
            team.close()
        result.scalars["success/mean"] = float(np.mean([row["successes"] / row["trials"] for row in table]))
        return result

    def _play(self, team: Team, task: str, policy: Policy) -> list[Outcome]:
        """All episodes of a task to their ends, in the order of their numbers."""
        finished: dict[int, Outcome] = {}
        for move in self.moves(team, task, policy, range(self.config.episodes)):
            finished |= {outcome.slot: outcome for outcome in move.outcomes if outcome.images is None}
        return [finished[slot] for slot in sorted(finished)]

    def moves(
        self, team: Team, task: str, policy: Policy, slots: Sequence[int], words: Sequence[str] = (), stride: int | None = None
    ) -> Iterator[Move]:
        """The loop itself, for whoever wants to watch: plan, carry out `execute` rows, plan again, until all have ended.

        `words` are the instructions (the task's own by default); with `stride` so many rows a move, which changes what is
        seen on the way and not what happens.
        """
        phrases = words or known_task(task).phrases
        running, stride = team.start(task, slots), stride or self.config.execute
        yield Move({}, 0, running)
        while running:
            made = policy(team, running, [phrases[outcome.slot % len(phrases)] for outcome in running])
            plans = {slot: np.asarray(plan, np.float64) for slot, plan in made.items()}
            yield Move(plans, 0, running)
            for first in range(0, self.config.execute, stride):
                last = min(first + stride, self.config.execute)
                outcomes = team.advance({outcome.slot: plans[outcome.slot][first:last] for outcome in running})
                yield Move(plans, last, outcomes)
                running = [outcome for outcome in outcomes if outcome.images is not None]
                if not running:
                    break

    def plan(self, system: System, outcomes: list[Outcome], words: list[str]) -> dict[int, np.ndarray]:
        """One plan (rows, 4) for each running episode from one call of `infer`."""
        images = np.stack([outcome.images for outcome in outcomes if outcome.images is not None])
        state = np.stack([outcome.state for outcome in outcomes if outcome.state is not None])
        actions = system.infer(images=images, state=state, instruction=words)["actions"]
        plans = np.asarray(actions.detach().float().cpu() if hasattr(actions, "detach") else actions)
        if plans.ndim != 3 or len(plans) != len(outcomes) or plans.shape[1] < self.config.execute or plans.shape[2] != 4:
            raise ConfigError(
                f"the system's actions have shape {plans.shape}, expected ({len(outcomes)}, at least {self.config.execute}, 4); "
                "lower `execute` of closed_loop or train with a longer chunk on data with 4 action channels"
            )
        if not np.isfinite(plans).all():
            raise RunError("the system's actions hold NaN or infinity; the weights are not usable")
        return {outcome.slot: plan for outcome, plan in zip(outcomes, plans, strict=True)}

    def _check(self, system: System, context: EvalContext) -> None:
        """Refuse views or picture settings that the system was not trained with."""
        views = tuple(f"observation.images.{camera}" for camera in self.config.cameras)
        wanted = getattr(getattr(system, "config", None), "cameras", None)
        if wanted is not None and tuple(wanted) != views:
            raise ConfigError(
                f"closed_loop draws {', '.join(views)}, the system looks at {', '.join(wanted)}; set `cameras` alike"
            )
        for name, source in context.sources.items():
            stored = rendering_of(source)
            for key in ("image_size", "quality", "frame_skip"):
                value = getattr(self.config, key)
                if stored.get(key, value) != value:
                    raise DataError(f"closed_loop has {key} {value}, source '{name}' was made with {stored[key]}; set them alike")


def rendering_of(source: Any) -> dict[str, Any]:
    """The picture settings stored with a dataset of this simulator; empty for other sources."""
    folder = getattr(source, "root", None)
    path = Path(folder) / "meta" / "rendering.json" if folder else None
    return dict(json.loads(path.read_text())) if path and path.is_file() else {}


def save_film(films: Mapping[int, Sequence[np.ndarray]], solved: Mapping[int, bool], path: Path) -> Path:
    """An animated WebP of some episodes side by side, marked as solved (green) or failed (red)."""
    slots = sorted(films)
    side = max(40, min(160, FILM_WIDTH // len(slots)))
    length = max(len(films[slot]) for slot in slots)
    pictures = []
    for k in range(length):
        strip = Image.new("RGB", (side * len(slots), side))
        for place, slot in enumerate(slots):
            tile = Image.fromarray(films[slot][min(k, len(films[slot]) - 1)]).resize((side, side), Image.Resampling.NEAREST)
            word, colour = ("solved", (40, 170, 60)) if solved[slot] else ("failed", (210, 40, 40))
            draw = ImageDraw.Draw(tile)
            if k >= len(films[slot]) - 1:
                draw.rectangle((0, 0, side - 1, side - 1), outline=colour, width=max(3, side // 25))
            draw.rectangle((4, side - 16, 42, side - 4), fill=colour)
            draw.text((6, side - 16), word, fill=(255, 255, 255))
            strip.paste(tile, (place * side, 0))
        pictures.append(strip)
    path.parent.mkdir(parents=True, exist_ok=True)
    durations = [100] * (length - 1) + [1500]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=50, method=3)
    return path
