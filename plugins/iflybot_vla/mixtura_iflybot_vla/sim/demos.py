"""The generator `metaworld_demos`: scripted demonstrations as a LeRobot dataset, and questions about their frames.

A row of the dataset is `frame_skip` simulator steps; its action is the mean of the script's clean actions in them. A
share of the episodes is disturbed (noise is added to what is carried out, labels stay clean), so that the data show
how to recover; a share begins with the hand elsewhere. Candidates of a task are tried in order and the first that
succeed are kept, each keyed by (seed, task, candidate): the result doesn't depend on the number of processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from mixtura.data.generator import GeneratorConfig
from mixtura.errors import DataError
from mixtura.rng import KeyedRng
from mixtura_iflybot_vla.sim.questions import Scene, ask
from mixtura_iflybot_vla.sim.world import (
    ACTION_NAMES,
    STATE_NAMES,
    STEPS_PER_SECOND,
    Rendering,
    Snapshot,
    World,
    check_names,
    episode_seed,
    known_task,
    shared_world,
    versions,
)

HOLD_ROWS = 5
"""Rows kept after the row in which an episode succeeds, so that the data show how to stay."""
NOISE_SPAN = 2
"""Rows that one draw of the noise lasts."""
MARKER = "generated.json"
"""Written last: what the dataset was made from."""


class MetaworldDemosConfig(GeneratorConfig):
    """An entry of `synth:` that writes `path`/robot (LeRobot v3), `path`/qa.jsonl and `path`/qa-images."""

    type: Literal["metaworld_demos"] = "metaworld_demos"
    path: str = Field(description="folder of the data, made by this generator")
    tasks: tuple[str, ...] = Field(("reach", "drawer-open", "button-press-topdown"), min_length=1)
    episodes: int | dict[str, int] = Field(
        150, description="successful episodes kept of each task: one number, or one by task; more where precision is what counts"
    )
    image_size: int = Field(80, ge=16, description="pixels; images are square")
    cameras: tuple[str, ...] = Field(("table", "side"), min_length=1)
    frame_skip: int = Field(4, ge=1, description="simulator steps in a row; the simulator runs at 80 steps a second")
    noise: float = Field(0.6, ge=0, description="standard deviation of what is added to the first three action channels")
    noise_share: float = Field(0.5, ge=0, le=1, description="share of the episodes that are disturbed")
    wander_share: float = Field(
        0.5, ge=0, le=1, description="share of the episodes that begin where a random motion has taken the hand"
    )
    wander_rows: int = Field(8, ge=1, description="rows of that motion at most; they are not in the data")
    max_rows: int = Field(40, ge=2, description="rows of an episode at most")
    questions_per_episode: int = Field(4, ge=0, description="questions about frames of each episode")
    quality: Literal["fast", "benchmark"] = Field("fast", description="benchmark: shadows and antialiasing, ten times slower")
    storage: Literal["video", "image"] = Field("video", description="image: PNG, without loss and five times larger")
    crf: int = Field(8, ge=0, le=40, description="loss of the videos; 18 is usual, small pictures need less")
    processes: int | None = Field(None, ge=0, description="worker processes; the number of cores by default, 0 for none")

    @model_validator(mode="after")
    def _storable(self) -> MetaworldDemosConfig:
        check_names(self.tasks, self.cameras)
        if STEPS_PER_SECOND % self.frame_skip:
            raise ValueError(f"frame_skip {self.frame_skip} must divide {STEPS_PER_SECOND}, for a whole number of rows a second")
        if self.image_size % 2:
            raise ValueError(f"image_size {self.image_size} must be even, for videos halve the colour planes")
        return self

    @model_validator(mode="after")
    def _enough(self) -> MetaworldDemosConfig:
        if isinstance(self.episodes, dict) and set(self.episodes) != set(self.tasks):
            raise ValueError(
                f"episodes names {', '.join(sorted(self.episodes))}, tasks are {', '.join(sorted(self.tasks))}; name the same"
            )
        if min(self.wanted.values()) < 1:
            raise ValueError("episodes must be at least 1 for every task")
        return self

    @property
    def wanted(self) -> dict[str, int]:
        """Episodes of each task, in the order of `tasks`."""
        return {task: self.episodes[task] if isinstance(self.episodes, dict) else self.episodes for task in self.tasks}

    @property
    def rendering(self) -> Rendering:
        """What a picture depends on."""
        return Rendering(self.image_size, self.cameras, self.quality)


@dataclass(frozen=True)
class Row:
    """One row before it is drawn: a complete state, the robot state (4,), the clean action (4,), the gripper's point (3,)."""

    snapshot: Snapshot
    state: np.ndarray
    action: np.ndarray
    gripper: np.ndarray


@dataclass(frozen=True)
class Record:
    """A record in the LLaVA layout and its image as PNG bytes."""

    values: dict[str, Any]
    png: bytes


@dataclass(frozen=True)
class Demonstration:
    """A kept episode: images (T, V, H, W, 3) uint8, states (T, 4) and actions (T, 4) float32, instruction, questions."""

    task: str
    images: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    instruction: str
    questions: list[Record]


@dataclass(frozen=True)
class Job:
    """A candidate: number `index` of a task."""

    config: MetaworldDemosConfig
    seed: int
    task: str
    index: int


# -- one episode --------------------------------------------------------------------------------------------------


def demonstrate(job: Job) -> Demonstration | None:
    """Simulate a candidate without cameras and draw it if it succeeds; None if it fails. Runs in a worker process."""
    world = shared_world(job.task, job.config.rendering)
    rng = KeyedRng("metaworld_demos", job.seed, job.task, job.index)
    rows = simulate(world, job, rng.at("noise").numpy())
    if rows is None:
        return None
    images = []
    for row in rows:
        world.restore(row.snapshot)
        images.append(world.images())
    phrases = known_task(job.task).phrases
    instruction = phrases[int(rng.at("instruction").numpy().integers(len(phrases)))]
    questions = list(_questions(world, job, rows, images, rng))
    states, actions = np.stack([row.state for row in rows]), np.stack([row.action for row in rows])
    return Demonstration(job.task, np.stack(images), states, actions, instruction, questions)


def simulate(world: World, job: Job, rng: np.random.Generator) -> list[Row] | None:
    """The rows of a candidate, or None when it doesn't succeed within `max_rows`."""
    config = job.config
    world.reset(episode_seed("train", job.seed, job.task, job.index))
    disturbed = rng.random() < config.noise_share
    if rng.random() < config.wander_share:
        # Where the hand is must not tell what to do next: a policy that learns so stops short of its goal.
        away = np.append(rng.uniform(-1.0, 1.0, 3), world.expert()[3])
        if world.hold(away, config.frame_skip * int(rng.integers(1, config.wander_rows + 1))):
            return None
    rows: list[Row] = []
    noise: np.ndarray | None = None
    solved_at: int | None = None
    while len(rows) < config.max_rows:
        if len(rows) % NOISE_SPAN == 0:
            draw, active = rng.normal(0.0, config.noise, 3), rng.random() < 0.5  # undisturbed spans leave time to recover
            noise = draw if disturbed and active and solved_at is None else None
        before, state, gripper = world.snapshot(), world.state(), world.gripper()
        action, solved = world.follow(config.frame_skip, noise)
        rows.append(Row(before, state, action, gripper))
        if solved and solved_at is None:
            solved_at = len(rows)
        if solved_at is not None and len(rows) >= solved_at + HOLD_ROWS:
            break
    return rows if solved_at is not None else None


def _questions(world: World, job: Job, rows: list[Row], images: list[np.ndarray], rng: KeyedRng) -> Iterator[Record]:
    """Questions about rows drawn without replacement, each about one view."""
    numbers = rng.at("questions").numpy()
    chosen = numbers.permutation(len(rows))[: job.config.questions_per_episode]
    path = np.stack([row.gripper for row in rows])
    for number in sorted(int(row) for row in chosen):
        view = int(numbers.integers(len(job.config.cameras)))
        camera = job.config.cameras[view]
        world.restore(rows[number].snapshot)
        question = ask(Scene(world, camera, path[number:], numbers))
        if question is not None:
            key = f"{job.task}-{job.index:04d}-{number:02d}-{camera}"
            buffer = BytesIO()
            Image.fromarray(images[number][view]).save(buffer, "PNG")
            yield Record(question.record(key, f"{key}.png"), buffer.getvalue())


# -- the dataset --------------------------------------------------------------------------------------------------


class MetaworldDemos:
    """Writes the dataset once. It is built next to `path` and moved there when it is complete."""

    Config: ClassVar[type[MetaworldDemosConfig]] = MetaworldDemosConfig

    def __init__(self, config: MetaworldDemosConfig, *, root: Path, seed: int) -> None:
        self.config, self.seed = config, seed
        self.path = Path(root) / config.path

    def recipe(self) -> dict[str, Any]:
        """What the data depend on, as JSON values."""
        return {"seed": self.seed, **json.loads(self.config.model_dump_json(exclude={"path", "processes"}))}

    def done(self) -> bool:
        """Whether the finished dataset of this configuration and seed is there."""
        try:
            return bool(json.loads((self.path / MARKER).read_text())["recipe"] == self.recipe())
        except (OSError, ValueError, KeyError):
            return False

    def run(self, say: Callable[[str], None]) -> list[Path]:
        """Make the dataset; raises DataError when other files are in its place. Returns the paths of its parts."""
        parts = [self.path / name for name in ("robot", "qa.jsonl", "qa-images")]
        if self.done():
            return parts
        if self.path.exists() and any(self.path.iterdir()):
            raise DataError(f"{self.path} holds other data than this configuration makes; delete it or choose another `path`")
        partial = self.path.with_name(self.path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "qa-images").mkdir(parents=True)
        self._write(partial, say)
        if self.path.exists():
            self.path.rmdir()
        partial.rename(self.path)
        return parts

    def _write(self, folder: Path, say: Callable[[str], None]) -> None:
        from mixtura.data.formats.lerobot_write import LeRobotWriter

        config = self.config
        writer = LeRobotWriter(
            folder / "robot",
            fps=STEPS_PER_SECOND // config.frame_skip,
            features=features(config),
            robot_type="sawyer",
            crf=config.crf,
        )
        counts: dict[str, int] = dict.fromkeys(config.tasks, 0)
        rows = 0
        with (folder / "qa.jsonl").open("w") as records:
            for episode in self._episodes():
                self._add(writer, episode)
                for question in episode.questions:
                    records.write(json.dumps(question.values) + "\n")
                    (folder / "qa-images" / question.values["image"]).write_bytes(question.png)
                counts[episode.task] += 1
                rows += len(episode.states)
                made, wanted = sum(counts.values()), sum(config.wanted.values())
                if made % 50 == 0 or made == wanted:
                    say(f"{made} of {wanted} episodes, {rows} rows")
        writer.finalize()
        rendering = {**config.rendering.settings(), "frame_skip": config.frame_skip, **versions()}
        (folder / "robot" / "meta" / "rendering.json").write_text(json.dumps(rendering, indent=1))
        marker = {"recipe": self.recipe(), "episodes": counts, "rows": rows, "rendering": rendering}
        (folder / MARKER).write_text(json.dumps(marker, indent=1))

    def _add(self, writer: Any, episode: Demonstration) -> None:
        for images, state, action in zip(episode.images, episode.states, episode.actions, strict=True):
            frame = {f"observation.images.{camera}": image for camera, image in zip(self.config.cameras, images, strict=True)}
            writer.add_frame({**frame, "observation.state": state, "action": action}, task=episode.instruction)
        writer.save_episode()

    def _episodes(self) -> Iterator[Demonstration]:
        """The kept episodes, tasks by turns; further candidates replace those that failed."""
        processes = os.cpu_count() or 1 if self.config.processes is None else self.config.processes
        missing, tried = dict(self.config.wanted), dict.fromkeys(self.config.tasks, 0)
        context = multiprocessing.get_context("spawn")  # GL contexts and the threads of the caller don't survive a fork
        pool = context.Pool(processes) if processes else None
        try:
            while any(missing.values()):
                jobs = []
                for turn in range(max(missing.values())):
                    for task in (name for name in self.config.tasks if turn < missing[name]):
                        jobs.append(Job(self.config, self.seed, task, tried[task]))
                        tried[task] += 1
                for job, episode in zip(jobs, pool.imap(demonstrate, jobs) if pool else map(demonstrate, jobs), strict=True):
                    if episode is not None:
                        missing[job.task] -= 1
                        yield episode
                self._check(tried, missing)
            if pool:
                pool.close()
                pool.join()
        finally:
            if pool:
                pool.terminate()

    def _check(self, tried: dict[str, int], missing: dict[str, int]) -> None:
        """Give up when hardly any candidate of a task succeeds."""
        for task, tries in tried.items():
            kept = self.config.wanted[task] - missing[task]
            if missing[task] and tries >= 50 and kept < tries / 20:
                raise DataError(
                    f"the script solved {kept} of {tries} episodes of '{task}' within {self.config.max_rows} rows; "
                    "raise max_rows, or lower noise or noise_share"
                )


def features(config: MetaworldDemosConfig) -> dict[str, dict[str, Any]]:
    """The fields of the LeRobot dataset."""
    size = config.image_size
    image = {"dtype": config.storage, "shape": (size, size, 3), "names": ["height", "width", "channels"]}
    return {
        **{f"observation.images.{camera}": image for camera in config.cameras},
        "observation.state": {"dtype": "float32", "shape": (len(STATE_NAMES),), "names": list(STATE_NAMES)},
        "action": {"dtype": "float32", "shape": (len(ACTION_NAMES),), "names": list(ACTION_NAMES)},
    }
