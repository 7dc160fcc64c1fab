"""The simulator of iFlyBot-VLA: exact episodes, projected points, demonstrations, questions, closed loop."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mixtura.data.formats.lerobot import LeRobotConfig, LeRobotSource
from mixtura.errors import ConfigError, DataError, MixturaError, RunError
from mixtura.evaluate import EvalContext
from mixtura.rng import KeyedRng
from mixtura_iflybot_vla.sim.closed_loop import ClosedLoop, ClosedLoopConfig, Crew, Team
from mixtura_iflybot_vla.sim.demos import HOLD_ROWS, Job, MetaworldDemos, MetaworldDemosConfig, demonstrate, simulate
from mixtura_iflybot_vla.sim.questions import KINDS, Scene, box_of
from mixtura_iflybot_vla.sim.world import GOAL, TASKS, Rendering, World, close_worlds, episode_seed, shared_world

pytestmark = pytest.mark.filterwarnings("ignore:Constant")
SIZE = 48
RENDERING = Rendering(image_size=SIZE)


@pytest.fixture(scope="module", autouse=True)
def _simulator() -> Iterator[None]:
    """Skip where no picture can be drawn."""
    try:
        shared_world("reach", RENDERING).image("table")
    except MixturaError as error:
        pytest.skip(f"the simulator cannot draw here: {error}")
    yield
    close_worlds()


def world(task: str) -> World:
    return shared_world(task, RENDERING)


def demos(path: str, root: Path, seed: int = 0, **changes: Any) -> MetaworldDemos:
    values = {"tasks": ("reach",), "episodes": 2, "image_size": SIZE, "processes": 0, **changes}
    return MetaworldDemos(MetaworldDemosConfig(path=path, **values), root=root, seed=seed)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, _simulator: None) -> Path:
    root = tmp_path_factory.mktemp("demos")
    demos("data", root).run(lambda text: None)
    return root / "data"


# -- the world ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(TASKS))
def test_an_episode_depends_on_its_seed_alone(task: str) -> None:
    here, seed = world(task), episode_seed("train", 0, task, 0)
    here.reset(seed)
    first, picture = here.snapshot().state, here.images()
    here.reset(episode_seed("train", 0, task, 1))
    assert not np.array_equal(here.images(), picture)
    here.follow(40)
    here.reset(seed)
    assert np.array_equal(here.snapshot().state, first)
    assert np.array_equal(here.images(), picture)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_going_on_from_a_snapshot_gives_the_same_future(task: str) -> None:
    here = world(task)
    here.reset(1)
    here.follow(20)
    middle = here.snapshot()
    here.follow(20)
    end, picture = here.snapshot().state, here.images()
    here.reset(2)
    here.follow(12)
    here.restore(middle)
    here.follow(20)
    assert np.array_equal(here.snapshot().state, end)
    assert np.array_equal(here.images(), picture)


def test_training_and_evaluation_never_share_a_start() -> None:
    train = {episode_seed("train", seed, "reach", i) for seed in range(3) for i in range(200)}
    evaluate = {episode_seed("evaluate", seed, "reach", i) for seed in range(3) for i in range(200)}
    assert len(train) == len(evaluate) == 600
    assert all(seed % 2 == 0 for seed in train)
    assert all(seed % 2 == 1 for seed in evaluate)


def test_holding_the_mean_action_moves_the_gripper_as_far_as_the_script_did() -> None:
    here = world("reach")
    here.reset(3)
    for _ in range(6):
        start = here.snapshot()
        action, _ = here.follow(4)
        reached = here.state()[:3]
        after = here.snapshot()
        here.restore(start)
        here.hold(action, 4)
        assert np.abs(here.state()[:3] - reached).max() < 1e-3
        here.restore(after)


def test_the_robot_state_holds_no_object_positions() -> None:
    here = world("reach")
    states = []
    for seed in range(3):
        here.reset(seed)
        states.append(here.state())
    assert states[0].shape == (4,)
    assert np.abs(np.ptp(states, axis=0)).max() < 1e-6


def test_the_goal_is_red_where_it_is_projected_to() -> None:
    here = world("reach")
    for seed in range(5):
        here.reset(seed)
        x, y, _ = here.project(here.point(TASKS["reach"].thing), "table") * SIZE
        picture, labels = here.image("table").astype(int), here.labels("table")
        rows, columns = np.nonzero(labels == GOAL)
        assert abs(columns.mean() + 0.5 - x) < 1
        assert abs(rows.mean() + 0.5 - y) < 1
        red, green, blue = picture[rows, columns].T
        assert (red > green + 60).all()
        assert (red > blue + 60).all()


@pytest.mark.parametrize("task", ["drawer-open", "button-press-topdown"])
def test_the_box_of_a_thing_surrounds_the_pixels_that_show_it(task: str) -> None:
    here = world(task)
    here.reset(4)
    box = box_of(here, TASKS[task].thing.body, "table")
    rows, columns = np.nonzero(np.isin(here.labels("table"), list(here.parts(TASKS[task].thing.body))))
    shown = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / SIZE
    assert box is not None
    assert np.abs(box - shown).max() < 1.6 / SIZE


# -- questions ------------------------------------------------------------------------------------------------------


def scene(task: str, rows: int, camera: str = "table") -> Scene:
    here = world(task)
    here.reset(4)
    for _ in range(rows):
        here.follow(4)
    return Scene(here, camera, np.repeat(here.gripper()[None], 9, 0), np.random.default_rng(0))


@pytest.mark.parametrize("task", sorted(TASKS))
def test_points_and_boxes_lie_in_the_image(task: str) -> None:
    questions = [question for kind in KINDS for question in kind(scene(task, 0))]
    assert {"point", "relation", "distance", "path", "scene", "task"} <= {question.kind for question in questions}
    for question in (q for q in questions if q.kind in ("point", "box", "path")):
        numbers = [float(number) for number in re.findall(r"\d\.\d\d", question.answer)]
        assert len(numbers) == {"point": 2, "box": 4, "path": 10}[question.kind]
        assert all(0 <= number <= 1 for number in numbers)


def test_the_drawer_is_closed_before_and_open_after() -> None:
    answers = []
    for rows in (0, 26):
        found = [question for kind in KINDS for question in kind(scene("drawer-open", rows))]
        answers.append(next(question.answer for question in found if question.kind == "opened"))
    assert answers == ["closed", "open"]


def test_a_distance_is_the_distance_in_the_simulator() -> None:
    here = scene("button-press-topdown", 0)
    question = next(question for kind in KINDS for question in kind(here) if question.kind == "distance")
    true = np.linalg.norm(here.world.gripper() - here.world.point(TASKS["button-press-topdown"].thing))
    assert question.answer == f"{100 * true:.0f} cm"


def test_nothing_is_asked_about_what_the_arm_hides() -> None:
    seen, hidden = scene("button-press-topdown", 0), scene("button-press-topdown", 0)
    hidden.labels = np.full_like(seen.labels, min(seen.world.parts("right_l5")))  # as if the arm stood before the camera
    asked = [{question.kind for kind in KINDS for question in kind(here)} for here in (seen, hidden)]
    assert {"box", "relation", "distance"} <= asked[0]
    assert not {"box", "relation", "distance"} & asked[1]
    assert not [question for kind in KINDS for question in kind(hidden) if "button" in question.ask and question.kind == "point"]


# -- demonstrations -------------------------------------------------------------------------------------------------


def test_demonstrations_end_a_few_rows_after_success() -> None:
    job = Job(MetaworldDemosConfig(path="", image_size=SIZE, noise_share=0, wander_share=0), 0, "reach", 0)
    here = world("reach")
    rows = simulate(here, job, np.random.default_rng(0))
    assert rows is not None
    assert HOLD_ROWS < len(rows) < 40
    here.restore(rows[-HOLD_ROWS].snapshot)
    assert np.linalg.norm(here.gripper() - here.point(TASKS["reach"].thing)) <= 0.05
    here.restore(rows[-HOLD_ROWS - 1].snapshot)
    assert np.linalg.norm(here.gripper() - here.point(TASKS["reach"].thing)) > 0.05


def test_noise_changes_what_happens_and_never_leaves_the_action_range() -> None:
    runs = []
    for share in (0.0, 1.0):
        config = MetaworldDemosConfig(path="", image_size=SIZE, noise_share=share, wander_share=0)
        episode = demonstrate(Job(config, 0, "reach", 1))
        assert episode is not None
        assert np.abs(episode.actions).max() <= 1
        runs.append(episode)
    rows = min(len(run.states) for run in runs)
    assert np.array_equal(runs[0].states[0], runs[1].states[0])
    assert not np.allclose(runs[0].states[:rows], runs[1].states[:rows])


def test_the_script_brings_the_gripper_onto_the_goal_not_to_the_edge_of_what_counts() -> None:
    here = world("reach")
    for seed in range(3):
        here.reset(seed)
        for _ in range(20):
            here.follow(4)
        assert np.linalg.norm(here.gripper() - here.point(TASKS["reach"].thing)) < 0.015


def test_wandering_episodes_begin_where_the_hand_was_taken() -> None:
    starts = []
    for share in (0.0, 1.0, 1.0):
        job = Job(MetaworldDemosConfig(path="", image_size=SIZE, noise_share=0, wander_share=share), 0, "reach", len(starts))
        rows = simulate(world("reach"), job, np.random.default_rng(len(starts)))
        assert rows is not None
        starts.append(rows[0].state[:3])
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(starts, 2)) > 0.02


def test_a_dataset_holds_what_was_asked_for(dataset: Path) -> None:
    source = LeRobotSource(LeRobotConfig(type="lerobot", path="data/robot"), name="robot", root=dataset.parent)
    fields = source.read(0, KeyedRng(0)).fields
    assert fields["observation.images.table"].shape == fields["observation.images.side"].shape == (SIZE, SIZE, 3)
    assert fields["observation.state"].shape == fields["action"].shape == (4,)
    assert fields["task"] in TASKS["reach"].phrases
    assert json.loads((dataset / "generated.json").read_text())["episodes"] == {"reach": 2}
    assert json.loads((dataset / "robot/meta/rendering.json").read_text())["quality"] == "fast"
    first = json.loads((dataset / "qa.jsonl").read_text().splitlines()[0])
    assert (dataset / "qa-images" / first["image"]).is_file()
    assert [turn["from"] for turn in first["conversations"]] == ["human", "gpt"]
    assert first["conversations"][0]["value"].startswith("<image>")


def test_a_dataset_is_made_once_and_never_overwritten(dataset: Path) -> None:
    assert demos("data", dataset.parent).done()
    assert demos("data", dataset.parent, processes=2).done()
    other = demos("data", dataset.parent, seed=1)
    assert not other.done()
    with pytest.raises(DataError, match="other data"):
        other.run(lambda text: None)


def test_a_killed_generator_leaves_nothing_that_looks_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = demos("data", tmp_path, episodes=1)
    monkeypatch.setattr("mixtura.data.formats.lerobot_write.LeRobotWriter.finalize", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generator.run(lambda text: None)
    assert not generator.done()
    assert not (tmp_path / "data").exists()
    monkeypatch.undo()
    generator.run(lambda text: None)
    assert generator.done()


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(dataset: Path, tmp_path: Path) -> None:
    demos("data", tmp_path, processes=2).run(lambda text: None)
    for path in (path for path in dataset.rglob("*") if path.is_file() and ".mixtura-cache" not in path.parts):
        assert (tmp_path / "data" / path.relative_to(dataset)).read_bytes() == path.read_bytes(), path


def test_unknown_tasks_and_cameras_are_named() -> None:
    with pytest.raises(ValidationError, match=r"task 'reech' is not known; there are reach, drawer-open"):
        MetaworldDemosConfig(path="data", tasks=("reech",))
    with pytest.raises(ValidationError, match="camera 'top' is not known"):
        ClosedLoopConfig(cameras=("top",))


# -- closed loop ----------------------------------------------------------------------------------------------------


def evaluator(root: Path, **changes: Any) -> ClosedLoop:
    values = {"tasks": ("reach",), "episodes": 3, "image_size": SIZE, "processes": 0, "videos": 0, **changes}
    return ClosedLoop(ClosedLoopConfig(**values), root=root)


def context(out: Path, **sources: Any) -> EvalContext:
    return EvalContext(step=0, sources=sources, out=out, rng=KeyedRng(0))


class Constant:
    """A system that always does the same; remembers what it was shown."""

    def __init__(self, action: list[float], rows: int = 8) -> None:
        self.action, self.rows, self.calls = action, rows, []

    def infer(self, *, images: np.ndarray, state: np.ndarray, instruction: list[str]) -> dict[str, np.ndarray]:
        self.calls.append((images, state, instruction))
        return {"actions": np.tile(np.float32(self.action), (len(images), self.rows, 1))}


def test_the_expert_solves_all_tasks_with_held_actions(tmp_path: Path) -> None:
    result = evaluator(tmp_path, tasks=tuple(TASKS), episodes=4).expert(tmp_path)
    assert result.scalars["success/mean"] == 1.0
    assert [row["trials"] for row in result.tables["Closed-loop success"]] == [4] * len(TASKS)


def test_a_system_that_does_nothing_fails_everywhere(tmp_path: Path) -> None:
    system = Constant([0, 0, 0, 0])
    result = evaluator(tmp_path, rows=6).run(system, context(tmp_path))
    assert result.scalars == {"success/reach": 0.0, "success/mean": 0.0}
    images, state, instruction = system.calls[0]
    assert images.shape == (3, 2, SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    assert state.shape == (3, 4)
    assert len(instruction) == 3
    assert len(system.calls) == 3  # six rows, two of every plan


def drift(team: Any, outcomes: list[Any], words: list[str]) -> dict[int, np.ndarray]:
    """A policy that depends on what it sees."""
    return {o.slot: np.tile([0.1, 0.4, 0.001 * float(o.images.mean()), 0], (8, 1)) for o in outcomes}


def test_the_loop_can_be_watched_row_by_row_and_goes_the_same_way(tmp_path: Path) -> None:
    loop = evaluator(tmp_path, rows=10, execute=4)
    ends, seen = [], []
    for stride in (None, 1, 3):
        moves = list(loop.moves(Team(loop.config), "reach", drift, [0, 2], stride=stride))
        seen.append(len(moves))
        ends.append((moves[-1].outcomes, moves[-1].plans))
    assert seen == [7, 14, 9]  # the start, three plans; then 4 + 4 + 2 rows: at once, one by one, three and one
    assert all(outcomes == ends[0][0] for outcomes, _ in ends)
    assert all(np.array_equal(plans[2], ends[0][1][2]) for _, plans in ends)


def test_a_loop_that_is_left_and_made_again_comes_back_to_the_same_state(tmp_path: Path) -> None:
    loop, team = evaluator(tmp_path), Team(ClosedLoopConfig(tasks=("reach",), image_size=SIZE, processes=0))
    team.start("reach", [1])
    done = np.random.default_rng(0).uniform(-1, 1, (6, 4))
    for row in done:
        team.advance({1: row[None]})
    (there,) = team.look([1])
    again = Team(loop.config)
    again.start("reach", [1])
    for pair in done.reshape(3, 2, 4):
        again.advance({1: pair})
    (here,) = again.look([1])
    assert np.array_equal(here.images, there.images)
    assert np.array_equal(here.state, there.state)


@pytest.mark.slow
def test_what_a_simulator_process_refuses_is_said_without_a_traceback() -> None:
    crew = Crew(ClosedLoopConfig(processes=1, image_size=SIZE), 1)
    try:
        with pytest.raises(RunError, match=r"^task 'reech' is not known"):
            crew.start("reech", [0])
        assert crew.start("reach", [0])[0].rows == 0
    finally:
        crew.close()


def test_films_are_written_and_small(tmp_path: Path) -> None:
    result = evaluator(tmp_path, videos=2, rows=6).run(Constant([0, 1, 0, 0]), context(tmp_path / "out"))
    (film,) = result.media.values()
    assert 0 < (tmp_path / "out" / film).stat().st_size < 300_000


@pytest.mark.slow
def test_measuring_in_processes_gives_the_same_result(tmp_path: Path) -> None:
    here = evaluator(tmp_path, rows=24, videos=2).run(Constant([0.05, 0.6, -0.1, 0]), context(tmp_path / "a"))
    there = evaluator(tmp_path, rows=24, videos=2, processes=2).run(Constant([0.05, 0.6, -0.1, 0]), context(tmp_path / "b"))
    assert here.scalars == there.scalars
    assert here.tables == there.tables
    assert (tmp_path / "a/reach.webp").read_bytes() == (tmp_path / "b/reach.webp").read_bytes()


def test_unfit_systems_are_refused_with_the_reason(tmp_path: Path, dataset: Path) -> None:
    with pytest.raises(ConfigError, match="expected"):
        evaluator(tmp_path).run(Constant([0, 0, 0, 0], rows=1), context(tmp_path))
    with pytest.raises(RunError, match="NaN"):
        evaluator(tmp_path).run(Constant([np.nan, 0, 0, 0]), context(tmp_path))
    looking = Constant([0, 0, 0, 0])
    looking.config = SimpleNamespace(cameras=("observation.images.table",))
    with pytest.raises(ConfigError, match="set `cameras` alike"):
        evaluator(tmp_path).run(looking, context(tmp_path))
    source = LeRobotSource(LeRobotConfig(type="lerobot", path="robot"), name="robot", root=dataset)
    with pytest.raises(DataError, match="quality benchmark, source 'robot' was made with fast"):
        evaluator(tmp_path, quality="benchmark").run(Constant([0, 0, 0, 0]), context(tmp_path, robot=source))
