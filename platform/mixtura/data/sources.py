"""Opening the sources of a configuration through the registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mixtura.data.source import Source, SourceConfig
from mixtura.errors import DataError, MixturaError
from mixtura.plugins import registry


def open_sources(sections: Mapping[str, SourceConfig], root: Path) -> dict[str, Source]:
    """Sources by name, sorted; problems of all of them are told at once. Relative paths start at `root`."""
    opened: dict[str, Source] = {}
    problems: list[str] = []
    for name in sorted(sections):
        try:
            source = registry().get("source", sections[name].type)(sections[name], name=name, root=root)
            if len(source) < 1:
                raise DataError(f"source '{name}': holds no sample")
            opened[name] = source
        except MixturaError as error:
            problems.append(str(error) if name in str(error) else f"source '{name}': {error}")
    if problems:
        raise DataError("\n".join(problems))
    return opened


def sections_of(given: Mapping[str, Mapping[str, Any]], default: str) -> dict[str, SourceConfig]:
    """Sections of sources that stand within another section, by name; their type is `default` where they say none.

    Raises ValueError that names what is wrong, so that a pydantic validator may call it.
    """
    sections = {}
    for name, values in given.items():
        kind = str(values.get("type", default))
        try:
            sections[name] = registry().get("source", kind).Config(**{**values, "type": kind})
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
            raise ValueError(f"sources.{name}: {told}") from error
    return sections
