"""The demo of iFlyBot-VLA: the watched loop is the evaluator's, simulators are bounded, the page does what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("gradio", reason="the demos need gradio: pip install -e demos")

from mixtura.errors import MixturaError, RunError
from mixtura_demos.iflybot_vla import drawing
from mixtura_demos.iflybot_vla.episode import Episode, Wish, begin, instruction, number
from mixtura_demos.iflybot_vla.facts import UNKNOWN, facts_of
from mixtura_demos.iflybot_vla.simulators import Simulators
from mixtura_demos.shared.checkpoints import Choice
from mixtura_demos.shared.errors import Refused
from mixtura_iflybot_vla.sim.closed_loop import ClosedLoop, ClosedLoopConfig, Team
from mixtura_iflybot_vla.sim.world import Rendering, close_worlds, shared_world
from tests.demos import browser

pytestmark = pytest.mark.filterwarnings("ignore:Constant")
SIZE = 32
LOADING = 300_000
"""Milliseconds for the first job of a server, which imports torch and loads the weights, on a machine that is busy."""
FACTS = UNKNOWN.__class__(**{**vars(UNKNOWN), "image_size": SIZE, "chunk": 4, "trained": ("reach",)})


@pytest.fixture(scope="module")
def drawn() -> Iterator[None]:
    """Skip where no picture can be drawn."""
    try:
        shared_world("reach", Rendering(SIZE)).image("table")
    except MixturaError as error:
        pytest.skip(f"the simulator cannot draw here: {error}")
    yield
    close_worlds()


class Seeing:
    """A policy whose plan depends on what it sees; four steps, the first dimension beyond what the simulator takes."""

    config = SimpleNamespace(cameras=("observation.images.table", "observation.images.side"))

    def infer(self, *, images: np.ndarray, **_: Any) -> dict[str, Any]:
        plan = np.array([1.5, 0.5, -0.1, 0.0]) + images.mean() / 1000
        return {"actions": np.tile(np.float32(plan), (len(images), 4, 1))}


def here(most: int = 4) -> Simulators:
    """Simulators in this process."""
    return Simulators(most, Team)


def episode(simulators: Simulators, seed: int = 0, limit: int = 7, key: tuple[str, str] = ("a", "one")) -> Episode:
    return begin(Seeing(), FACTS, Wish("x", "reach", seed, 2), "reach the red goal", limit, key, simulators)  # type: ignore[arg-type]


# -- stepping -------------------------------------------------------------------------------------------------------


def test_a_watched_episode_is_the_evaluators(drawn: None, tmp_path: Path) -> None:
    watched = episode(here(), limit=40)
    list(watched.whole())
    config = ClosedLoopConfig(tasks=("reach",), episodes=1, rows=40, image_size=SIZE, processes=0, videos=0)
    loop, team = ClosedLoop(config, root=tmp_path), Team(config)
    (measured,) = loop._play(team, "reach", lambda team, outcomes, words: loop.plan(Seeing(), outcomes, words))  # type: ignore[arg-type]
    assert (len(watched.rows), watched.is_solved) == (measured.rows, measured.solved)
    (end,) = team.look([0])
    assert np.array_equal(watched.views, end.images)


def test_a_chunk_shows_its_plan_first_and_then_every_step(drawn: None) -> None:
    watched = episode(here())
    assert [move.done for move in watched.chunk()] == [0, 1, 2]
    assert len(watched.rows) == 2
    assert watched.thought is not None
    assert watched.thought.actions.shape == (4, 4)
    assert watched.rows[0].action[0] == 1.0  # as the simulator takes it
    assert len(watched.frames) == 3


def test_the_limit_ends_an_episode_and_a_higher_one_lets_it_go_on(drawn: None) -> None:
    watched = episode(here(), limit=3)
    list(watched.whole())
    assert (len(watched.rows), watched.is_over, watched.is_solved) == (3, True, False)
    assert "not solved within 3 steps" in drawing.verdict(watched)
    watched.limit = 4
    list(watched.chunk())
    assert len(watched.rows) == 4


def test_who_loses_the_simulator_finds_the_episode_as_it_was(drawn: None) -> None:
    alone = episode(here(), limit=4)
    list(alone.whole())
    crowded = here(most=1)
    first, second = episode(crowded, limit=4), episode(crowded, seed=5, limit=4, key=("b", "one"))
    while not (first.is_over and second.is_over):
        for one in (first, second):
            list(one.chunk())
        assert len(crowded) == 1
    assert np.array_equal(first.views, alone.views)
    assert not np.array_equal(first.views, second.views)


def test_simulators_are_bounded_and_end_with_their_session() -> None:
    ended: list[int] = []
    simulators = Simulators(2, lambda config: SimpleNamespace(close=lambda: ended.append(1)))  # type: ignore[arg-type,return-value]
    with simulators.lend(("a", "one"), FACTS.stage), simulators.lend(("b", "one"), FACTS.stage):
        with pytest.raises(Refused, match="all 2 simulators are at work"), simulators.lend(("c", "one"), FACTS.stage):
            pass
        with pytest.raises(Refused, match="at work for another click"), simulators.lend(("a", "one"), FACTS.stage):
            pass
    with simulators.lend(("c", "one"), FACTS.stage):
        assert (len(simulators), len(ended)) == (2, 1)
    simulators.end_session("c")
    simulators.end_session("nobody")
    assert (len(simulators), len(ended)) == (1, 2)


def test_a_simulator_that_can_not_draw_says_so_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "off")
    simulators = Simulators()
    with pytest.raises(RunError, match=r"no OpenGL context with MUJOCO_GL=off.*install Mesa"):
        episode(simulators)
    assert len(simulators) == 0


def test_a_simulator_process_that_dies_is_replaced(drawn: None) -> None:
    simulators = Simulators()
    try:
        watched = episode(simulators)
        list(watched.chunk())
        seen = watched.views
        (running,) = simulators._running.values()
        running.crew.workers[0].kill()  # type: ignore[attr-defined]
        with pytest.raises(Refused, match="ended unexpectedly; press Reset"):
            list(watched.chunk())
        assert watched.failed
        again = episode(simulators)
        list(again.chunk())
        assert np.array_equal(again.views, seen)
    finally:
        simulators.end_all()


# -- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "match"), [("  \n", "is empty; say what"), (None, "is empty"), ("go " * 99, "at most 200")])
def test_instructions_that_are_none_are_refused(words: Any, match: str) -> None:
    with pytest.raises(Refused, match=match):
        instruction(words)


@pytest.mark.parametrize("value", [None, -1, 8, 1.5, "3", True])
def test_numbers_out_of_range_are_refused(value: Any) -> None:
    with pytest.raises(Refused, match="the seed is .*; give a whole number from 0 to 7"):
        number(value, "the seed", 0, 7)


def test_text_of_users_is_shown_as_text(drawn: None) -> None:
    watched = episode(here())
    watched.words = "<script>alert(1)</script> ${1+1}"
    assert "<script>" not in drawing.verdict(watched)
    assert "&lt;script&gt;" in drawing.verdict(watched)


def choice(folder: Path, **system: Any) -> Choice:
    """A folder with the configuration of a run."""
    config = {
        "system": {"type": "iflybot_vla", **system},
        "evaluate": [{"type": "closed_loop", "tasks": ["drawer-open"], "rows": 9}],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return Choice("a run", folder, "run", "iflybot_vla")


def test_facts_come_from_the_configuration(tmp_path: Path) -> None:
    facts = facts_of(choice(tmp_path, cameras=["observation.images.corner"], latent=False, chunk=5, image_size=48))
    assert (facts.tasks[0], facts.trained, facts.cameras) == ("drawer-open", ("drawer-open",), ("corner",))
    assert (facts.codes, facts.rows, facts.chunk, facts.image_size) == (0, 9, 5, 48)
    assert facts.stage.cameras == ("corner",)


def test_what_the_simulator_can_not_show_is_refused(tmp_path: Path) -> None:
    facts = facts_of(choice(tmp_path, cameras=["observation.images.head"]))
    with pytest.raises(Refused, match="camera 'head' is not known; there are topview"):
        _ = facts.stage
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(Refused, match="a run has no readable config.yaml"):
        facts_of(Choice("a run", tmp_path, "published", "iflybot_vla"))


# -- the page -------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(page: Any, served: Any) -> Any:
    """The demo in the browser, with an episode of at most six steps chosen."""
    browser.open_demo(page, served.url, "iflybot_vla")
    page.get_by_role("button", name="More settings").click()
    fill(page, "Steps at most", 6)
    return page


def fill(page: Any, label: str, value: Any) -> None:
    field = page.get_by_label(label, exact=True)
    field.fill(str(value))
    field.press("Tab")


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def picture(page: Any, name: str) -> str:
    """What a picture holds; waits for it."""
    source: str = page.locator(f"img[data-shows='{name}']").first.get_attribute("src")
    return source


def changed(page: Any, name: str, before: str) -> str:
    """What a picture holds once it isn't `before` any more."""
    page.wait_for_function(
        "([name, before]) => { const i = document.querySelector(`img[data-shows='${name}']`); return i && i.src !== before }",
        arg=[name, before],
    )
    return picture(page, name)


def status(page: Any, text: str) -> None:
    """Wait for the words in the status line."""
    page.locator("#vla-status [role=status]", has_text=text).wait_for(timeout=LOADING)


def test_an_episode_by_chunks_and_whole_with_codes_tokens_and_film(opened: Any) -> None:
    opened.set_viewport_size({"width": 1200, "height": 1500})
    press(opened, "Reset")
    status(opened, "ready, step 0 of at most 6")
    start = picture(opened, "view-table")
    press(opened, "One chunk")
    status(opened, "paused, step 2 of at most 6")
    opened.locator("#vla-chunk p[data-done='2']").wait_for()
    assert opened.locator("#vla-chunk svg").count() == 4
    assert "planned" in opened.locator("#vla-chunk svg").first.get_attribute("aria-label")
    middle = changed(opened, "view-table", start)
    opened.locator("#vla-tokens code[data-tokens]").wait_for()

    after = picture(opened, "after")
    opened.get_by_label("range slider for Code 1").press("ArrowRight")
    theirs = changed(opened, "after-changed", "")
    assert theirs != after
    assert picture(opened, "after") == after
    browser.screenshot(opened, "iflybot_vla")
    press(opened, "Back to the policy's codes")
    opened.locator("img[data-shows='after-changed']").wait_for(state="detached")

    first_plan = opened.locator("#vla-chunk svg").first.get_attribute("aria-label")
    press(opened, "Whole episode")
    status(opened, "not solved within 6 steps")
    changed(opened, "view-table", middle)
    assert opened.locator("#vla-chunk svg").first.get_attribute("aria-label") != first_plan
    opened.locator("#vla-film video").wait_for()
    with opened.expect_download() as download:
        opened.locator("#vla-download").click()
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"
    press(opened, "One chunk")
    assert "has ended; press Reset" in browser.error_in(opened)


def test_a_stopped_episode_frees_the_queue_and_goes_on(opened: Any) -> None:
    fill(opened, "Steps at most", 400)
    press(opened, "Whole episode")
    rows_shown = "Number(document.querySelector('#vla-status [data-rows]')?.dataset.rows)"
    opened.wait_for_function(f"{rows_shown} > 2", timeout=LOADING)
    press(opened, "Stop")
    status(opened, "stopped, step")
    rows = int(opened.locator("#vla-status [data-rows]").get_attribute("data-rows"))
    assert rows < 400
    press(opened, "One chunk")
    status(opened, "paused, step")
    assert int(opened.locator("#vla-status [data-rows]").get_attribute("data-rows")) > rows


def test_two_checkpoints_side_by_side_one_of_them_without_latent_actions(opened: Any) -> None:
    opened.get_by_label("Second weights").click()
    opened.get_by_role("option", name="iflybot-plain").click()
    fill(opened, "Seed", 2)
    press(opened, "Run both")
    opened.locator("#vla-pair-film video").wait_for(timeout=LOADING)
    cells = opened.locator("#vla-table tbody tr").all_inner_texts()
    assert [row.split("\t")[1:6] for row in cells] == [
        ["iflybot-tiny", "reach", "2", "not solved", "6"],
        ["iflybot-plain", "reach", "2", "not solved", "6"],
    ]
    assert picture(opened, "A-table") != picture(opened, "B-table")

    opened.get_by_label("Weights", exact=True).click()
    opened.get_by_role("option", name="iflybot-plain").click()
    opened.locator("#vla-latents", has_text="no latent actions").wait_for()
    assert "no discrete action tokens" in opened.locator("#vla-tokens").inner_text()
    press(opened, "One chunk")
    status(opened, "paused, step 2")
    assert opened.get_by_label("range slider for Code 1").count() == 0


def test_an_unknown_instruction_is_fine_an_empty_one_and_forged_weights_are_named(opened: Any) -> None:
    words = opened.locator("#vla-words textarea")
    words.fill("<b>sing</b> ${1+1}")
    press(opened, "Reset")
    opened.locator("#vla-status", has_text="“<b>sing</b> ${1+1}”").wait_for(timeout=LOADING)
    words.fill(" ")
    press(opened, "One chunk")
    assert "the instruction is empty; say what the robot should do" in browser.error_in(opened)

    def forge(route: Any) -> None:
        body = json.loads(route.request.post_data)
        body["data"] = ["../../etc" if isinstance(v, str) and len(v) == 16 and " " not in v else v for v in body["data"]]
        route.continue_(post_data=json.dumps(body))

    words.fill("reach the red goal")
    opened.route("**/queue/join*", forge)
    press(opened, "One chunk")
    assert "../../etc" in browser.error_in(opened)
