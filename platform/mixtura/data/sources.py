"""Opening the sources of a configuration through the registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
