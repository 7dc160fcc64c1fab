"""Handlers of the comparison: two checkpoints in the same task from the same seed, a step each by turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from mixtura_demos.iflybot_vla import drawing
from mixtura_demos.iflybot_vla.episode import Episode
from mixtura_demos.iflybot_vla.session import Fields, Given, write_film
from mixtura_demos.shared import jobs, work

PLACES = ("one", "two")


@dataclass
class Side:
    """One of the two: its label, its episode, seconds that its plans and steps took."""

    label: str
    episode: Episode
    seconds: float = 0.0
    plans: int = 0


@dataclass(frozen=True)
class Comparing:
    """The second checkpoint and what is seen of both."""

    fields: Fields
    second: gr.Dropdown
    views: gr.HTML
    table: gr.HTML
    film: gr.Video

    @property
    def inputs(self) -> set[Any]:
        """What the handler is given."""
        return {*self.fields.all, self.second}

    @property
    def outputs(self) -> list[Any]:
        """What it changes."""
        return [self.views, self.table, self.film]

    def run(
        self,
        given: Given,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict[Any, Any]]:
        """Both episodes to their ends."""
        pickers = (given[self.fields.weights], given[self.second])
        labels = [self.fields.wish(given, weights)[2].label for weights in pickers]  # both are checked before either is loaded
        progress(0.1, desc="loading both, starting two simulators")
        keys = [(request.session_hash or "", f"compare-{place}") for place in PLACES]
        sides = [
            Side(label, self.fields.begin(given, key, weights)) for label, key, weights in zip(labels, keys, pickers, strict=True)
        ]
        yield self._shown(sides)
        while any(not side.episode.is_over for side in sides):
            for side in sides:
                jobs.tick()
                advance(side)
            yield self._shown(sides)
        yield {**self._shown(sides), self.film: self._film(sides, request)}

    def _shown(self, sides: list[Side]) -> dict[Any, Any]:
        pairs = [
            drawing.picture(view, f"{place}: {side.label}, camera {name}", f"{place}-{name}", 170)
            for place, side in zip("AB", sides, strict=True)
            for name, view in zip(side.episode.facts.cameras, side.episode.views, strict=True)
        ]
        return {self.views: drawing.panel(drawing.row(pairs)), self.table: drawing.table(rows(sides)), self.film: gr.skip()}

    def _film(self, sides: list[Side], request: gr.Request) -> str:
        """Both side by side; the one that ends first stands still."""
        films = [[drawing.strip(frame, 160) for frame in side.episode.frames] for side in sides]
        height = min(film[0].shape[0] for film in films)
        length = max(len(film) for film in films)
        frames = [np.concatenate([film[min(k, len(film) - 1)][:height] for film in films], 1) for k in range(length)]
        return str(write_film(frames, sides[0].episode.facts.frame_skip, work.fresh(request, ".mp4")))


def advance(side: Side) -> None:
    """One step of an episode that isn't over, with the plan before it when one is due."""
    episode, began = side.episode, time.monotonic()
    if episode.is_over:
        return
    if episode.step().done == 0:
        side.plans += 1
        episode.step()
    side.seconds += time.monotonic() - began


def rows(sides: list[Side]) -> list[dict[str, Any]]:
    """The table: how each stands."""
    made = []
    for place, side in zip("AB", sides, strict=True):
        episode = side.episode
        state = "solved" if episode.is_solved else "not solved" if episode.is_over else "running"
        wish = episode.wish
        made.append(
            {
                "": place, "weights": side.label, "task": wish.task, "seed": wish.seed, "result": state,
                "steps": len(episode.rows), "plans": side.plans, "seconds": f"{side.seconds:.1f}",
            }
        )  # fmt: skip
    return made
