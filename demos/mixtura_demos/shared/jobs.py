"""Heavy work of handlers: one job at a time on the whole server, with progress, and a button that ends it.

A job runs in a thread of its own, so that one whose page went away ends too and lets the next one in. Long loops call
`tick()`; generators are ended between what they yield as well.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.events import Dependency

from mixtura_demos.shared.errors import for_page

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How events are wired that are no jobs: `button.click(handler, inputs, outputs, **QUICK)`, at once and without a sign."""


class Stop(Exception):
    """This job was cancelled; raised by `tick`, caught by `run`."""


class Job:
    """One run of a handler."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.cancelled = threading.Event()
        self.results: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()


class Line:
    """Who waits for the processor: first come, first served; whoever is cancelled leaves."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: list[Job] = []

    def wait(self, job: Job, told: Callable[[int], None]) -> None:
        """Return when it is this job's turn; `told` hears how many are before it. Raises Stop."""
        with self._changed:
            self._jobs.append(job)
            while (place := self._jobs.index(job)) > 0 and not job.cancelled.is_set():
                told(place)
                self._changed.wait(timeout=1.0)
        if job.cancelled.is_set():
            raise Stop

    def leave(self, job: Job) -> None:
        """This job is over, or gave up."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
            self._changed.notify_all()

    def of(self, session: str) -> list[Job]:
        """Jobs of a session that wait or run."""
        with self._changed:
            return [job for job in self._jobs if job.session == session]

    def all(self) -> list[Job]:
        """Jobs that wait or run."""
        with self._changed:
            return list(self._jobs)

    def wake(self) -> None:
        """Let those who wait look whether they were cancelled."""
        with self._changed:
            self._changed.notify_all()


LINE = Line()
_current: contextvars.ContextVar[Job | None] = contextvars.ContextVar("mixtura_job", default=None)


def tick() -> None:
    """Call this inside long loops of a handler. Raises Stop when the job was cancelled or its page is gone."""
    job = _current.get()
    if job is not None and job.cancelled.is_set():
        raise Stop


def stop_session(session: str) -> None:
    """Cancel all jobs of a session."""
    for job in LINE.of(session):
        job.cancelled.set()
    LINE.wake()


def stop_all() -> None:
    """Cancel all jobs: the server ends."""
    for job in LINE.all():
        job.cancelled.set()
    LINE.wake()


def run(
    button: gr.Button, function: Callable[..., Any], inputs: Any, outputs: Any, cancel: gr.Button | None = None
) -> Dependency:
    """Wire `button` to `function` (plain or generator) as a job; `cancel` ends the job of whoever presses it."""
    dependency: Dependency = button.click(
        as_job(function),
        inputs,
        outputs,
        concurrency_id="compute",
        concurrency_limit=1,
        api_visibility="private",
    )
    if cancel is not None:
        cancel.click(
            _cancel, None, None, concurrency_limit=None, show_progress="hidden", cancels=[dependency], api_visibility="private"
        )
    return dependency


def _cancel(request: gr.Request) -> None:
    stop_session(request.session_hash or "")
    gr.Info("Cancelled.")


def as_job(function: Callable[..., Any]) -> Callable[..., Generator[Any, None, None]]:
    """`function` as a generator that runs it in its turn, shows its errors in the page, and ends quietly when cancelled."""

    @functools.wraps(function)
    def job_of(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        request = LocalContext.request.get(None)
        job = Job(getattr(request, "session_hash", None) or "")
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(_work, job, function, args, kwargs), daemon=True).start()
        try:
            yield from _results(job)
        finally:
            job.cancelled.set()
            LINE.wake()

    return job_of


def _results(job: Job) -> Generator[Any, None, None]:
    """What the job yields, until it ends or fails."""
    while True:
        try:
            what, value = job.results.get(timeout=0.5)
        except queue.Empty:
            if job.cancelled.is_set():
                return  # the page is free at once, the line when the handler notices
            continue
        if what == "done":
            return
        if what == "failed":
            raise for_page(value) from value
        yield value


def _work(job: Job, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """The thread of a job: wait, run, hand over."""
    _current.set(job)
    try:
        LINE.wait(job, _tell_place)
        for value in _steps(function, args, kwargs):
            tick()
            job.results.put(("value", value))
            tick()
    except Stop:
        pass
    except Exception as error:
        job.results.put(("failed", error))
    finally:
        LINE.leave(job)
        job.results.put(("done", None))


def _steps(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Generator[Any, None, None]:
    if inspect.isgeneratorfunction(function):
        yield from function(*args, **kwargs)
    else:
        yield function(*args, **kwargs)


def _tell_place(before: int) -> None:
    """Show in the page how many jobs of others come first."""
    progress = LocalContext.progress.get(None)
    if progress is not None:
        progress(None, desc=f"waiting for {before} other job{'s' if before > 1 else ''}")
