"""Where every value of a configuration came from, and what is wrong with it.

A `Tree` is plain data plus the `Origin` of each value; `Tree.merge` puts another tree on top, key by key.
`Problems` collects everything that is wrong, so that a user sees all of it at once, ordered by place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mixtura.config.yaml_marks import Path, show
from mixtura.errors import ConfigError


@dataclass(frozen=True, order=True)
class Origin:
    """A line of a file, or the `token`-th word of the command line (`file` holds its text)."""

    token: int
    file: str
    line: int

    def __str__(self) -> str:
        if self.token:
            return f"command line '{self.file}'"
        return f"{self.file}:{self.line}" if self.line else self.file


DEFAULT = Origin(0, "default", 0)
"""The origin of what nobody set."""


@dataclass
class Tree:
    """Plain data and the origin of each of its values, by path."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, Origin] = field(default_factory=dict)

    def origin(self, path: Path) -> Origin:
        """Where a value came from; the nearest section around it for what isn't there."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return DEFAULT

    def forget(self, path: Path) -> None:
        """Drop the origins of everything below a path."""
        self.origins = {
            key: origin for key, origin in self.origins.items() if not (len(key) > len(path) and key[: len(path)] == path)
        }

    def merge(self, top: Tree, is_typed: Callable[[Path], bool]) -> None:
        """Put `top` over this tree: mappings merge per key, everything else is replaced.

        A section for which `is_typed` holds and whose `type` changes loses what the old type had.
        """
        self._merge(self.data, top.data, (), top, is_typed)
        if () in top.origins:
            self.origins[()] = top.origins[()]

    def _merge(
        self, under: dict[str, Any], over: dict[str, Any], path: Path, top: Tree, is_typed: Callable[[Path], bool]
    ) -> None:
        if is_typed(path) and "type" in over and over["type"] != under.get("type", over["type"]):
            under.clear()
            self.forget(path)
        for key, value in over.items():
            here = (*path, key)
            if here in top.origins:
                self.origins[here] = top.origins[here]
            if isinstance(value, dict) and isinstance(under.get(key), dict):
                self._merge(under[key], value, here, top, is_typed)
            else:
                under[key] = value
                self.forget(here)
                below = {place: origin for place, origin in top.origins.items() if place[: len(here)] == here}
                self.origins.update(below)


@dataclass
class Problems:
    """What is wrong so far: (origin, path, text)."""

    found: list[tuple[Origin, Path, str]] = field(default_factory=list)

    def add(self, origin: Origin, path: Path, text: str) -> None:
        """Note one problem; the same one counts once."""
        if (origin, path, text) not in self.found:
            self.found.append((origin, path, text))

    def __bool__(self) -> bool:
        return bool(self.found)

    def below(self, path: Path) -> bool:
        """Whether something at or below a path is wrong."""
        return any(place[: len(path)] == path for _, place, _ in self.found)

    def raise_all(self) -> None:
        """Raise ConfigError with all problems ordered by file and line, those of the command line last."""
        if self.found:
            lines = [f"{origin}: {show(path)}: {text}" if path else f"{origin}: {text}" for origin, path, text in self._ordered()]
            findings = tuple((origin.line, path, text) for origin, path, text in self._ordered())
            raise ConfigError("\n".join(lines), findings)

    def _ordered(self) -> list[tuple[Origin, Path, str]]:
        return sorted(self.found, key=lambda problem: problem[0])
