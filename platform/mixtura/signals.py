"""SIGTERM and SIGINT as a request: the step is finished and saved before the process ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass
class StopRequest:
    """`signum` is 0 until a signal came."""

    signum: int = 0


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch the two signals; a second one of the same kind has its usual effect."""
    request = StopRequest()
    before: dict[int, Any] = {}

    def handler(signum: int, frame: Any) -> None:
        request.signum = signum
        signal.signal(signum, before[signum])

    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGTERM, signal.SIGINT):
            before[signum] = signal.signal(signum, handler)
    try:
        yield request
    finally:
        for number, old in before.items():
            signal.signal(number, old)
