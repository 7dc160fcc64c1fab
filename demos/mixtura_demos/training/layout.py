"""The sections of a document's form: which fields each has now, from the JSON schemas of the core and of the plugins."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mixtura.config import show
from mixtura.config.sections import typed_kind
from mixtura.config.yaml_marks import Path
from mixtura.errors import MixturaError
from mixtura.plugins import Kind, registry
from mixtura_demos.training.document import Document
from mixtura_demos.training.fields import Field, Group, group_of

PLAIN = ("run", "data", "optim", "schedule", "train", "checkpoint", "log")
"""Sections whose settings the core alone knows."""
LISTS: dict[str, Kind] = {"evaluate": "evaluator", "synth": "generator"}


@dataclass(frozen=True)
class Typed:
    """A section with a `type`: the names it may have, and its fields; `problem` where they can't be known."""

    path: Path
    kind: Kind
    type: str
    types: tuple[str, ...]
    group: Group
    problem: str = ""


@dataclass(frozen=True)
class Stage:
    """A stage: its plain fields, a weight for every source, and its mixer."""

    path: Path
    group: Group
    mixture: Group
    mixer: Typed


@dataclass(frozen=True)
class Layout:
    """Everything that the form shows, in order."""

    system: Typed
    run: Group
    sources: tuple[Typed, ...]
    stages: tuple[Stage, ...]
    plain: tuple[Group, ...]
    lists: dict[str, tuple[Typed, ...]]
    others: Group

    def fields(self) -> dict[Path, Field]:
        """Every field by its path."""
        return {field.path: field for group in self.groups() for field in group.fields()}

    def groups(self) -> Iterator[Group]:
        """Every group at the top of a section."""
        yield self.system.group
        yield self.run
        yield from (section.group for section in self.sources)
        for stage in self.stages:
            yield from (stage.group, stage.mixture, stage.mixer.group)
        yield from self.plain
        yield from (section.group for sections in self.lists.values() for section in sections)
        yield self.others

    def typed(self) -> dict[Path, Typed]:
        """Sections whose type can change."""
        listed = [section for sections in self.lists.values() for section in sections]
        found = [*self.sources, *(stage.mixer for stage in self.stages), *listed]
        return {section.path: section for section in found}

    def optional(self) -> set[Path]:
        """Sections that can be switched on and off."""
        return {path for group in self.groups() for path in _optional(group)}


def _optional(group: Group) -> Iterator[Path]:
    for part in group.parts:
        if isinstance(part, Group):
            if part.optional:
                yield part.path
            yield from _optional(part)


def layout(document: Document) -> Layout:
    """The form of a document as it is now. A plugin that can't be imported costs its own section only."""
    data, whole = document.data, schema_of(None)
    known = {"$defs": whole.get("$defs", {})}
    sections = {name: whole["properties"][name] for name in PLAIN}
    plain = [group_of({"properties": {name: node}, **known}, ()).parts[0] for name, node in sections.items()]
    run, *others = [part for part in plain if isinstance(part, Group)]
    rest = {name: whole["properties"][name] for name in ("init_from",)}
    if "ablation" in data:
        rest["ablation"] = {"description": whole["properties"]["ablation"].get("description", "")}
    return Layout(
        system=_typed(document, ("system",)),
        run=run,
        sources=tuple(_typed(document, ("sources", name)) for name in _names(data.get("sources"))),
        stages=tuple(_stage(document, k, whole) for k in range(_length(data.get("stages")))),
        plain=tuple(others),
        lists={key: tuple(_typed(document, (key, k)) for k in range(_length(data.get(key)))) for key in LISTS},
        others=group_of({"properties": rest, **known}, ()),
    )


def _names(section: Any) -> list[str]:
    return list(section) if isinstance(section, dict) else []


def _length(entries: Any) -> int:
    return len(entries) if isinstance(entries, list) else 0


def _stage(document: Document, number: int, whole: dict[str, Any]) -> Stage:
    path: Path = ("stages", number)
    node = {**whole["$defs"]["Stage"], "$defs": whole["$defs"]}
    weights = document.value((*path, "mixture"))
    names = dict.fromkeys([*_names(document.data.get("sources")), *_names(weights)])
    weight = {"type": "number", "minimum": 0}
    mixture = group_of({"properties": dict.fromkeys(names, weight)}, (*path, "mixture"))
    return Stage(path, group_of(node, path, ("mixture", "mixer")), mixture, _typed(document, (*path, "mixer")))


def _typed(document: Document, path: Path) -> Typed:
    kind = typed_kind(path)
    if kind is None:
        raise ValueError(f"{path} has no type")
    value = document.value((*path, "type"))
    name = value if isinstance(value, str) else "static" if kind == "mixer" else ""
    types = tuple(registry().names(kind))
    try:
        return Typed(path, kind, name, types, group_of(schema_of(f"{kind}/{name}"), path, ("type",)))
    except MixturaError as error:
        return Typed(path, kind, name, types, Group(path, "", ()), str(error))


@functools.lru_cache(maxsize=64)
def schema_of(name: str | None) -> dict[str, Any]:
    """The JSON schema that `mixtura config schema NAME` prints. Raises MixturaError."""
    try:
        found: dict[str, Any] = json.loads(show.schema(name))
    except MixturaError:
        raise
    except Exception as error:  # a plugin's model may hold what JSON schema can't say
        reason = f"{type(error).__name__}: {error}"
        raise MixturaError(f"'{name}' has no JSON schema ({reason}); this is a mistake of its plugin") from error
    return found
