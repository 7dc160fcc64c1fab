"""Handlers of one episode: begin, one chunk, to the end; latent codes and what they do to the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from mixtura_demos.iflybot_vla import drawing
from mixtura_demos.iflybot_vla.episode import Episode, Thought, instruction, number
from mixtura_demos.iflybot_vla.facts import UNKNOWN, Facts, facts_of
from mixtura_demos.iflybot_vla.session import SYSTEM, Fields, Given, Session, write_film
from mixtura_demos.iflybot_vla.simulators import SIMULATORS
from mixtura_demos.shared import checkpoints, jobs, work
from mixtura_demos.shared.errors import Refused

if TYPE_CHECKING:
    from mixtura_iflybot_vla.sim.closed_loop import Move

NO_LATENTS = drawing.panel("<p>These weights have no latent actions (<code>latent: false</code>).</p>")


@dataclass(frozen=True)
class Acting:
    """The fields and what is seen of an episode; methods are handlers."""

    fields: Fields
    status: gr.HTML
    views: gr.HTML
    chunk: gr.HTML
    latents: gr.HTML
    codes: list[gr.Slider]
    own: gr.Button
    steer: gr.Checkbox
    tokens: gr.HTML
    film: gr.Video
    download: gr.DownloadButton

    @property
    def inputs(self) -> set[Any]:
        """What handlers are given."""
        return {*self.fields.all, *self.codes, self.steer}

    @property
    def outputs(self) -> list[Any]:
        """What the buttons change."""
        return [self.status, self.views, self.chunk, self.latents, *self.codes, self.tokens, self.film, self.download]

    # -- the buttons -------------------------------------------------------------------------------------------
    def reset(self, given: Given, request: gr.Request, progress: gr.Progress = gr.Progress()) -> dict[Any, Any]:  # noqa: B008
        """The episode from its start."""
        episode = self._begin(given, request, progress)
        return {**self._episode(episode, "ready"), self.latents: no_latents_yet(episode.facts), **self._no_film()}

    def one_chunk(
        self,
        given: Given,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict[Any, Any]]:
        """One plan, and the steps of it that are carried out, one by one."""
        episode = self._going(given, request, progress)
        if episode.is_over:
            raise Refused("this episode has ended; press Reset to start it again")
        yield from self._watched(given, request, episode, episode.chunk())

    def whole_episode(
        self,
        given: Given,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[dict[Any, Any]]:
        """To the end; an episode that has ended begins again."""
        episode = self._going(given, request, progress)
        if episode.is_over:
            episode = self._begin(given, request, progress)
        yield {**self._episode(episode), **self._no_film()}
        yield from self._watched(given, request, episode, episode.whole())

    def _watched(self, given: Given, request: gr.Request, episode: Episode, moves: Iterator[Move]) -> Iterator[dict[Any, Any]]:
        """The page after each of the moves, and what came of them."""
        for move in moves:
            yield self._moved(given, episode, is_new=move.done == 0)
            jobs.tick()
        yield self._told(episode, request)

    def stopped(self, given: Given) -> dict[Any, Any]:
        """How far the episode came."""
        episode = self._session(given).episode
        return {self.status: drawing.verdict(episode, "stopped") if episode else gr.skip()}

    # -- latent codes ------------------------------------------------------------------------------------------
    def change_codes(self, given: Given) -> dict[Any, Any]:
        """What the codes of the sliders do to the image that the last plan was made for."""
        episode, thought = self._planned(given)
        return {self.latents: self._ahead(given, episode, thought, self._slid(given, episode))}

    def own_codes(self, given: Given) -> dict[Any, Any]:
        """The sliders back to what the policy wrote."""
        episode, thought = self._planned(given)
        own = self._own(given, thought)
        return {self.latents: self._ahead(given, episode, thought, own), **dict(zip(self.codes, own, strict=False))}

    def fit_codes(self, weights: str | None) -> dict[Any, Any]:
        """As many sliders as the checkpoint has codes."""
        facts = facts_of(checkpoints.chosen(weights, SYSTEM)) if weights else UNKNOWN
        sliders = {
            slider: gr.update(visible=k < facts.codes, maximum=max(facts.codebook - 1, 1), value=0)
            for k, slider in enumerate(self.codes)
        }
        return {**sliders, self.latents: no_latents_yet(facts), self.tokens: drawing.tokens(None, facts.has_fast, True)}

    # -- parts -------------------------------------------------------------------------------------------------
    def _session(self, given: Given) -> Session:
        session: Session = given[self.fields.session]
        return session

    def _begin(self, given: Given, request: gr.Request, progress: gr.Progress) -> Episode:
        session = self._session(given)
        self.fields.wish(given)  # what is wrong is told before anything is loaded
        progress(0.1, desc="loading the weights, starting the simulator")
        session.episode, session.codes = None, None
        session.episode = self.fields.begin(given, (request.session_hash or "", "one"))
        return session.episode

    def _going(self, given: Given, request: gr.Request, progress: gr.Progress) -> Episode:
        """The visitor's episode as the fields ask for it: the one there is, or a new one."""
        episode, (wish, _, _, limit) = self._session(given).episode, self.fields.wish(given)
        if episode is None or episode.failed or episode.wish != wish:
            episode = self._begin(given, request, progress)
        episode.words, episode.limit = instruction(given[self.fields.words]), limit
        episode.noted.discrete = bool(given[self.fields.discrete])
        episode.noted.codes = self._slid(given, episode) if given[self.steer] and episode.facts.codes else None
        return episode

    def _episode(self, episode: Episode, word: str = "") -> dict[Any, Any]:
        return {
            self.status: drawing.verdict(episode, word),
            self.views: drawing.views(episode),
            self.chunk: drawing.chunk(episode),
            self.tokens: drawing.tokens(episode.thought, episode.facts.has_fast, episode.noted.discrete),
        }

    def _moved(self, given: Given, episode: Episode, is_new: bool) -> dict[Any, Any]:
        """After a step; with a new plan its latent codes too."""
        shows = self._episode(episode)
        if not is_new:
            del shows[self.tokens]
            return shows
        thought = episode.thought
        if thought is None or thought.codes is None:
            return {**shows, self.latents: NO_LATENTS}
        session = self._session(given)
        if not thought.given:
            session.codes = thought.codes
            shows |= dict(zip(self.codes, thought.codes, strict=False))
        return {**shows, self.latents: self._ahead(given, episode, thought, thought.codes)}

    def _ahead(self, given: Given, episode: Episode, thought: Thought, other: Sequence[int]) -> str:
        """Pictures of the policy's codes, and of others."""
        own, system = self._own(given, thought), episode.noted.system
        seen = system.infer(images=np.stack([episode.plan_views] * 2), codes=np.array([own, list(other)]))
        mine, theirs = seen["predicted"].cpu().numpy()
        return drawing.latents(own, (seen["before"][0].cpu().numpy(), mine, theirs), other, episode.facts.span)

    def _own(self, given: Given, thought: Thought) -> list[int]:
        """What the policy wrote itself when it was last free to."""
        return self._session(given).codes or thought.codes or []

    def _slid(self, given: Given, episode: Episode) -> list[int]:
        facts = episode.facts
        return [
            number(given[slider], f"code {k + 1}", 0, facts.codebook - 1) for k, slider in enumerate(self.codes[: facts.codes])
        ]

    def _planned(self, given: Given) -> tuple[Episode, Thought]:
        episode = self._session(given).episode
        if episode is None or episode.thought is None:
            raise Refused("there is no plan yet; press One chunk first")
        if episode.thought.codes is None:
            raise Refused("these weights have no latent actions; choose others")
        return episode, episode.thought

    def _told(self, episode: Episode, request: gr.Request) -> dict[Any, Any]:
        """The end of a job: how the episode stands, and its film so far."""
        frames = [drawing.strip(frame) for frame in episode.frames]
        path = str(write_film(frames, episode.facts.frame_skip, work.fresh(request, ".mp4")))
        return {
            self.status: drawing.verdict(episode, "paused"),
            self.film: path,
            self.download: gr.update(value=path, interactive=True),
        }

    def _no_film(self) -> dict[Any, Any]:
        return {self.film: None, self.download: gr.update(value=None, interactive=False)}


def no_latents_yet(facts: Facts) -> str:
    """What stands where pictures of latent codes will be."""
    return drawing.panel("<p>No plan yet.</p>") if facts.codes else NO_LATENTS


def leave(request: gr.Request) -> None:
    """The page was closed: end its simulators."""
    SIMULATORS.end_session(request.session_hash or "")
