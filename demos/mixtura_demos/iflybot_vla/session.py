"""What belongs to one visitor, the fields that an episode is made from, and how they follow the chosen checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from mixtura.errors import ConfigError
from mixtura_demos.iflybot_vla.episode import Episode, Wish, begin, instruction, number
from mixtura_demos.iflybot_vla.facts import UNKNOWN, Facts, facts_of
from mixtura_demos.iflybot_vla.simulators import ROWS
from mixtura_demos.shared import checkpoints
from mixtura_demos.shared.errors import Refused
from mixtura_iflybot_vla.sim.world import STEPS_PER_SECOND, TASKS, known_task

SYSTEM = "iflybot_vla"
MOST_SEED = 9999
Given = Mapping[Any, Any]
"""Component -> value, as gradio hands over a set of inputs."""


@dataclass
class Session:
    """One visitor's episode, and the latent codes that the sliders show."""

    episode: Episode | None = None
    codes: list[int] | None = None


@dataclass(frozen=True)
class Fields:
    """The fields that an episode is made from."""

    session: gr.State
    weights: gr.Dropdown
    task: gr.Dropdown
    words: gr.Textbox
    seed: gr.Number
    execute: gr.Number
    limit: gr.Number
    discrete: gr.Checkbox

    @property
    def all(self) -> set[Any]:
        """Every field, the session among them."""
        return set(vars(self).values())

    def wish(self, given: Given, weights: Any = None) -> tuple[Wish, Facts, checkpoints.Choice, int]:
        """What the fields ask for: the episode, facts of its checkpoint, the checkpoint, steps at most. Raises MixturaError."""
        choice = checkpoints.chosen(given[self.weights] if weights is None else weights, SYSTEM)
        facts = facts_of(choice)
        instruction(given[self.words])
        try:
            task = known_task(str(given[self.task])).name
        except ConfigError as error:
            raise Refused(str(error)) from error
        execute = number(given[self.execute], "the number of steps that are carried out", 1, facts.chunk)
        limit = number(given[self.limit], "the number of steps at most", 1, ROWS)
        wish = Wish(choice.id, task, number(given[self.seed], "the seed", 0, MOST_SEED), execute)
        return wish, facts, choice, limit

    def begin(self, given: Given, key: tuple[str, str], weights: Any = None) -> Episode:
        """A new episode, its checkpoint loaded and its simulator started."""
        wish, facts, choice, limit = self.wish(given, weights)
        return begin(checkpoints.load(choice), facts, wish, given[self.words], limit, key)


def fill_fields(weights: str | None) -> tuple[Any, Any, Any]:
    """Tasks (trained ones first), steps of a plan and steps at most, as the checkpoint's evaluator had them."""
    facts = facts_of(checkpoints.chosen(weights, SYSTEM)) if weights else UNKNOWN
    return gr.update(choices=facts.titles), facts.execute, facts.rows


def facts_or_usual(weights: str | None) -> Facts:
    """Facts of a checkpoint, or the usual ones when there is none to be read."""
    try:
        return facts_of(checkpoints.chosen(weights, SYSTEM))
    except Refused:
        return UNKNOWN


def fill_words(task: str) -> tuple[Any, str]:
    """The task's phrases, and its standard instruction."""
    phrases = TASKS[task].phrases if task in TASKS else ("",)
    return gr.update(choices=list(phrases), value=phrases[0]), phrases[0]


def write_film(frames: list[np.ndarray], frame_skip: int, path: Path) -> Path:
    """Pictures (H, W, 3) of even sizes as MP4 at the simulator's pace."""
    from mixtura.data.formats.video import VideoWriter

    height, width, _ = frames[0].shape
    with VideoWriter(path, max(1, STEPS_PER_SECOND // frame_skip), (height, width)) as writer:
        for frame in frames:
            writer.append(frame)
    return path
