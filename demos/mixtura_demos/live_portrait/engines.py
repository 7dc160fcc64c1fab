"""Networks ready for use, once for each system that is in memory; they go when it does."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from mixtura_demos.shared import checkpoints

if TYPE_CHECKING:
    from torch import Tensor

    from mixtura_live_portrait.animate.engine import Engine

SYSTEM = "live_portrait"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A checkpoint's engine, its name in the picker, the fingerprint that its templates bear, and what `directions` measured."""

    engine: Engine
    label: str
    networks: str
    directions: dict[str, Tensor] = field(default_factory=dict)


_LOADED: WeakKeyDictionary[Any, Loaded] = WeakKeyDictionary()
_LOCK = threading.Lock()


def loaded(value: str | None) -> Loaded:
    """What was picked. Raises Refused when nothing was, or it is gone."""
    choice = checkpoints.chosen(value, SYSTEM)
    return of_system(checkpoints.load(choice), choice.label)


def of_system(system: Any, label: str) -> Loaded:
    """A system's engine, made when it is first asked for."""
    from mixtura_live_portrait.animate.files import engine_of
    from mixtura_live_portrait.animate.settings import Settings
    from mixtura_live_portrait.animate.templates import fingerprint

    with _LOCK:
        if system not in _LOADED:
            networks = fingerprint(system.get_submodule("motion"))
            _LOADED[system] = Loaded(engine_of(system, Settings()), label, networks)
        return _LOADED[system]
