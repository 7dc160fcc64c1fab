"""Simulators of the page's visitors: each in a process of its own, a few at once, ended with the page that used them.

A simulator and its drawing context are not safe to share between threads, and handlers run in many; so an episode lives
in a worker process (the evaluator's `Crew` of one). When another visitor needs the room, the process that rested longest
is ended; whose episode it was notices nothing, for a `Seat` carries out the same actions again, which leads to the same state.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mixtura.errors import RunError
from mixtura_demos.shared.errors import Refused
from mixtura_iflybot_vla.sim.closed_loop import ClosedLoopConfig, Crew, Outcome, Team

MOST = 4
"""Processes at once; each takes about 350 MB."""
ROWS = 400
"""Rows of an episode at most."""


@dataclass
class Simulator:
    """A process, the settings it was started with, and the seat whose episode it holds."""

    crew: Team
    config: ClosedLoopConfig
    seat: Seat | None = None
    busy: bool = False


class Simulators:
    """At most `most` processes, by (session, place in the page)."""

    def __init__(self, most: int = MOST, start: Callable[[ClosedLoopConfig], Team] | None = None) -> None:
        self.most, self._start = most, start or (lambda config: Crew(config, 1))
        self._running: OrderedDict[tuple[str, str], Simulator] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._running)

    @contextmanager
    def lend(self, key: tuple[str, str], config: ClosedLoopConfig) -> Iterator[Simulator]:
        """The simulator of a key, started if need be. One that fails is ended, and the next call starts another."""
        simulator = self._take(key, config)
        try:
            yield simulator
        except Exception as error:
            self._drop(key, simulator)
            raise _told(error) from error
        finally:
            simulator.busy = False

    def _take(self, key: tuple[str, str], config: ClosedLoopConfig) -> Simulator:
        with self._lock:
            found = self._running.get(key)
            if found is not None and found.busy:
                raise Refused("this simulator is at work for another click of yours; wait until it has ended")
            if found is not None and found.config != config:
                self._running.pop(key).crew.close()
                found = None
            if found is None:
                self._make_room()
                found = self._running[key] = Simulator(self._start(config), config)
            self._running.move_to_end(key)
            found.busy = True
            return found

    def _make_room(self) -> None:
        """End the process that rested longest when there are as many as there may be."""
        while len(self._running) >= self.most:
            resting = [key for key, simulator in self._running.items() if not simulator.busy]
            if not resting:
                raise Refused(f"all {self.most} simulators are at work for other visitors; try again in a moment")
            self._running.pop(resting[0]).crew.close()

    def _drop(self, key: tuple[str, str], simulator: Simulator) -> None:
        with self._lock:
            if self._running.get(key) is simulator:
                del self._running[key]
        simulator.crew.close()

    def end_session(self, session: str) -> None:
        """End what a session used."""
        with self._lock:
            mine = [self._running.pop(key) for key in list(self._running) if key[0] == session]
        for simulator in mine:
            simulator.crew.close()

    def end_all(self) -> None:
        """End all processes."""
        for session in {key[0] for key in list(self._running)}:
            self.end_session(session)


SIMULATORS = Simulators()
"""Of the server. Its processes are daemons: they end with it."""


class Seat(Team):
    """A team of one episode that always finds it as it was left, whatever became of the process that held it."""

    def __init__(self, config: ClosedLoopConfig, key: tuple[str, str], simulators: Simulators) -> None:
        super().__init__(config)
        self.key, self.simulators = key, simulators
        self.slot = 0
        self.actions: list[np.ndarray] = []
        self.now: Outcome | None = None

    def start(self, task: str, slots: Sequence[int]) -> list[Outcome]:
        """Begin the one episode."""
        self.task, (self.slot,), self.actions = task, slots, []
        with self.simulators.lend(self.key, self.config) as simulator:
            simulator.seat = self
            outcomes = simulator.crew.start(task, [self.slot])
            (self.now,) = outcomes
        return outcomes

    def advance(self, plans: Mapping[int, np.ndarray]) -> list[Outcome]:
        """Carry out all rows of the plan; `now` shows the episode after them, after its last row as well."""
        with self._found() as simulator:
            outcomes = simulator.crew.advance(plans)
            self.actions.extend(np.asarray(plans[self.slot]))
            (self.now,) = outcomes if outcomes[0].images is not None else simulator.crew.look([self.slot])
        return outcomes

    def look(self, slots: Sequence[int]) -> list[Outcome]:
        """The episode as it is."""
        with self._found() as simulator:
            return simulator.crew.look(slots)

    @contextmanager
    def _found(self) -> Iterator[Simulator]:
        """A simulator that holds this episode."""
        with self.simulators.lend(self.key, self.config) as simulator:
            if simulator.seat is not self:
                simulator.crew.start(self.task, [self.slot])
                if self.actions:
                    simulator.crew.advance({self.slot: np.stack(self.actions)})
                simulator.seat = self
            yield simulator


def _told(error: Exception) -> Exception:
    """The error as a visitor can use it."""
    if isinstance(error, RunError) and "unexpectedly" in str(error):
        return Refused("the simulator ended unexpectedly; press Reset to start another one. The server's log may tell why")
    if isinstance(error, RunError) and "Traceback" in str(error):
        reason = str(error).strip().splitlines()[-1]
        return Refused(f"the simulator failed: {reason}. `mixtura doctor` on the server tells what it needs")
    return error
