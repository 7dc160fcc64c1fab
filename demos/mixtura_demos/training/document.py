"""A configuration under construction: what the user gave, no more; fields and buttons change it, the core checks it.

References (`${run.name}`) stay as they are written. A `Document` is a value: every change gives a new one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mixtura.config import loads
from mixtura.config.yaml_marks import Path, lookup, show, write
from mixtura.errors import ConfigError, MixturaError
from mixtura_demos.shared.errors import Refused
from mixtura_demos.training import fields
from mixtura_demos.training.fields import NOTHING, Field
from mixtura_demos.training.starts import Start

NAME = "form.yaml"
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MOST_PARTS = 50
"""Sources, stages and other entries that the form takes."""


@dataclass(frozen=True)
class Problem:
    """What is wrong: the line of the preview, the setting, and a sentence with what is expected."""

    line: int
    path: Path
    text: str

    @property
    def key(self) -> str:
        """The setting as people write it."""
        return show(self.path)


@dataclass(frozen=True)
class Document:
    """`data` is the configuration; `unread` has what fields hold that isn't YAML: path -> (text, what is wrong)."""

    data: dict[str, Any]
    origin: str
    unread: Mapping[Path, tuple[str, str]] = field(default_factory=dict)

    @staticmethod
    def begin(start: Start) -> Document:
        """What a start says."""
        return Document(start.data(), start.label)

    @property
    def system(self) -> str:
        """The system's name."""
        section = self.data.get("system")
        return str(section.get("type")) if isinstance(section, dict) else ""

    def value(self, path: Path) -> Any:
        """What is given at a path; NOTHING where nothing is."""
        try:
            return lookup(self.data, path)
        except LookupError:
            return NOTHING

    def text(self) -> str:
        """The file."""
        return f"# Written by Mixtura's form, from {self.origin}.\n{write(self.data)}"

    def problems(self) -> list[Problem]:
        """What the core finds wrong, in the order of the file, and what fields hold that can't be read."""
        found = [Problem(0, path, text) for path, (_, text) in self.unread.items()]
        try:
            loads(self.text(), name=NAME)
        except ConfigError as error:
            found += [Problem(line, path, text) for line, path, text in error.findings]
            if not error.findings:
                found.append(Problem(0, (), str(error)))
        except MixturaError as error:
            found.append(Problem(0, (), str(error)))
        return found

    # -- changes -------------------------------------------------------------------------------------------
    def put(self, setting: Field, shown: Any) -> Document:
        """With a field's new content; what can't be read is kept beside the data as a problem."""
        unread = {path: entry for path, entry in self.unread.items() if path != setting.path}
        before = self.value(setting.path)
        try:
            value = fields.parse(fields.fitting(setting, before), shown, before)
        except Refused as error:
            return replace(self, unread={**unread, setting.path: (str(shown), str(error))})
        data = copy.deepcopy(self.data)
        _set(data, setting.path, value)
        return replace(self, data=data, unread=unread)

    def retyped(self, path: Path, name: str) -> Document:
        """With another type at a section; settings of the old type mean nothing to the new one."""
        return self._changed(path, {"type": name})

    def switched(self, path: Path, on: bool) -> Document:
        """With an optional section, empty, or without it."""
        return self._changed(path, {} if on else NOTHING)

    def with_source(self, name: str, kind: str) -> Document:
        """With one source more. Raises Refused for a name that is none, or is there already."""
        sources = self._section("sources")
        if not WORD.fullmatch(name):
            raise Refused("a source needs a name: a word of letters, digits, _ and - (at most 64)")
        if name in sources:
            raise Refused(f"there is a source '{name}' already; choose another name")
        self._room(sources)
        return self._changed(("sources", name), {"type": kind})

    def with_entry(self, key: str, kind: str) -> Document:
        """With one evaluator or generator more."""
        entries = self._list(key)
        self._room(entries)
        return self._changed((key,), [*entries, {"type": kind}])

    def with_stage(self) -> Document:
        """With a copy of the last stage at the end, under a name of its own."""
        stages = self._list("stages")
        self._room(stages)
        last = copy.deepcopy(stages[-1]) if stages and isinstance(stages[-1], dict) else {"steps": 100, "mixture": {}}
        names = [stage.get("name") for stage in stages if isinstance(stage, dict)]
        number = next(k for k in range(len(stages) + 1, 2 * len(stages) + 3) if f"stage-{k}" not in names)
        return self._changed(("stages",), [*stages, {**last, "name": f"stage-{number}"}])

    def without(self, path: Path) -> Document:
        """Without a source, a stage or another entry."""
        if len(path) != 2 or self.value(path) is NOTHING:
            raise Refused(f"there is no {show(path)} to remove")
        if isinstance(path[1], int):
            entries = [item for k, item in enumerate(self._list(str(path[0]))) if k != path[1]]
            return self._changed((path[0],), entries)
        return self._changed(path, NOTHING)

    def earlier(self, path: Path) -> Document:
        """With a stage one place earlier."""
        stages, k = self._list("stages"), path[-1]
        if not isinstance(k, int) or not 0 < k < len(stages):
            raise Refused("only a stage that has one before it can go up")
        stages[k - 1], stages[k] = stages[k], stages[k - 1]
        return self._changed(("stages",), stages)

    def _section(self, key: str) -> dict[str, Any]:
        value = self.data.get(key)
        return value if isinstance(value, dict) else {}

    def _list(self, key: str) -> list[Any]:
        value = self.data.get(key)
        return list(value) if isinstance(value, list) else []

    def _room(self, entries: Any) -> None:
        if len(entries) >= MOST_PARTS:
            raise Refused(f"the form takes at most {MOST_PARTS} entries of a kind; write longer configurations by hand")

    def _changed(self, path: Path, value: Any) -> Document:
        """With a value at a path; what fields below it held is forgotten."""
        data = copy.deepcopy(self.data)
        _set(data, path, copy.deepcopy(value))
        kept = {place: entry for place, entry in self.unread.items() if place[: len(path)] != path}
        return replace(self, data=data, unread=kept)


def _set(data: dict[str, Any], path: Path, value: Any) -> None:
    """Put a value at a path, making the sections on the way; NOTHING takes it away."""
    at: Any = data
    for step in path[:-1]:
        inside = at.get(step) if isinstance(at, dict) else at[step]
        if not isinstance(inside, dict | list):
            if value is NOTHING:
                return
            inside = at[step] = {}
        at = inside
    last: Any = path[-1]
    if value is not NOTHING:
        at[last] = value
    elif isinstance(at, dict):
        at.pop(last, None)
