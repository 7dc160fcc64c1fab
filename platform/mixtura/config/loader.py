"""Reads a configuration: files with their `base:` files, the command line, references, models, checks.

`load` gives a valid `RunConfig` with the origin of every value, or one ConfigError that lists all that is wrong.
`dump` writes a configuration that `load` gives back equal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from mixtura.config import overrides as command_line
from mixtura.config import references
from mixtura.config.checks import check
from mixtura.config.origins import Origin, Problems, Tree
from mixtura.config.schema import RunConfig
from mixtura.config.sections import Builder, defaults, is_typed
from mixtura.config.yaml_marks import Path, read, write
from mixtura.errors import ConfigError


@dataclass(frozen=True)
class Loaded:
    """A valid configuration. `origins` tells by path where each given value came from; `raw` is the merged plain data."""

    config: RunConfig
    origins: Mapping[Path, Origin]
    path: FilePath | None
    raw: Mapping[str, Any]


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Loaded:
    """Read a YAML file, or a run folder's `config.yaml`, with `a.b=v` settings on top. Raises ConfigError."""
    file = FilePath(path)
    if file.is_dir():
        file = file / "config.yaml"
    problems = Problems()
    tree = _read_chain(file, (), problems, None)
    return _finish(tree, overrides, problems, file)


def loads(text: str, overrides: Sequence[str] = (), name: str = "text") -> Loaded:
    """Read a configuration from text; `base:` files are relative to the working folder."""
    problems = Problems()
    tree = _read_text(text, name, FilePath.cwd(), (), problems)
    return _finish(tree, overrides, problems, None)


def merged(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A YAML file over its `base:` files as plain data, references as they are written; nothing is checked but the syntax."""
    problems = Problems()
    tree = _read_chain(FilePath(path), (), problems, None)
    problems.raise_all()
    return tree.data


def dump(config: RunConfig) -> str:
    """The configuration as YAML, every value written out; `load` gives it back equal."""
    return write(references.escape(plain(config)))


def plain(config: RunConfig) -> dict[str, Any]:
    """The configuration as mappings, lists and single values, nothing lost."""
    kept: dict[str, Any] = _not_lost(config.model_dump(mode="json"), config.model_dump())
    return kept


def _not_lost(given: Any, original: Any) -> Any:
    """JSON has no infinity, so pydantic writes null for it in settings of any type; here it stays."""
    if isinstance(given, dict) and isinstance(original, dict) and len(given) == len(original):
        return {key: _not_lost(value, was) for (key, value), was in zip(given.items(), original.values(), strict=True)}
    if isinstance(given, list) and isinstance(original, list | tuple) and len(given) == len(original):
        return [_not_lost(value, was) for value, was in zip(given, original, strict=True)]
    return original if given is None and isinstance(original, float) else given


def _finish(tree: Tree, overrides: Sequence[str], problems: Problems, path: FilePath | None) -> Loaded:
    command_line.apply(tree, overrides, is_typed, problems)
    if problems and not tree.data:
        problems.raise_all()
    known = defaults()
    run = tree.data.get("run")
    if isinstance(run, dict):
        run.setdefault("dir", known["run"]["dir"])
    references.resolve(tree, known, problems)
    unresolved = {place for _, place, _ in problems.found}
    built = Builder(tree, problems).build()
    # A text that kept its reference is wrong once, not twice.
    problems.found = _first_per_place(problems, unresolved)
    check(built, tree, problems)
    problems.raise_all()
    return Loaded(RunConfig(**built.values), dict(tree.origins), path, tree.data)


def _first_per_place(problems: Problems, places: set[Path]) -> list[tuple[Origin, Path, str]]:
    kept: list[tuple[Origin, Path, str]] = []
    seen: set[Path] = set()
    for problem in problems.found:
        if problem[1] in seen and problem[1] in places and problem[1]:
            continue
        seen.add(problem[1])
        kept.append(problem)
    return kept


# -- files ---------------------------------------------------------------------------------------------------


def _shown(file: FilePath) -> str:
    """A file as messages name it: relative where that is shorter."""
    relative = os.path.relpath(file)
    return relative if not relative.startswith("..") else str(file)


def _read_chain(file: FilePath, above: tuple[FilePath, ...], problems: Problems, asked: Origin | None) -> Tree:
    """A file over its bases. `above` are the files that led here, `asked` the line that names this one."""
    resolved = file.resolve()
    if resolved in above:
        circle = " -> ".join(_shown(step) for step in (*above[above.index(resolved) :], resolved))
        problems.add(asked or Origin(0, _shown(file), 1), ("base",), f"files include each other in a circle: {circle}")
        return Tree()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        if asked is None:
            raise ConfigError(
                f"{file}: can't read the configuration ({reason}); give the path of a YAML file or a run folder"
            ) from error
        problems.add(
            asked, ("base",), f"can't read '{file}' ({reason}); paths of base files are relative to the file that names them"
        )
        return Tree()
    return _read_text(text, _shown(file), file.parent, (*above, resolved), problems)


def _read_text(text: str, name: str, folder: FilePath, above: tuple[FilePath, ...], problems: Problems) -> Tree:
    marked = read(text)
    for line, path, problem in marked.problems:
        problems.add(Origin(0, name, line), path, problem)
    if not isinstance(marked.data, dict):
        if not marked.problems:
            problems.add(
                Origin(0, name, 1),
                (),
                "expected sections (key: value); the file holds " + ("nothing" if marked.data is None else "something else"),
            )
        return Tree()
    own = Tree(marked.data, {path: Origin(0, name, line) for path, line in marked.lines.items()})
    base = own.data.pop("base", None)
    names = [base] if isinstance(base, str) else base if base is not None else []
    asked = own.origin(("base",))
    own.forget(("base",))
    own.origins.pop(("base",), None)
    if not isinstance(names, list) or not all(isinstance(item, str) for item in names):
        problems.add(asked, ("base",), "must be a file or a list of files, relative to this file")
        names = []
    merged = Tree()
    for item in names:
        merged.merge(_read_chain(folder / item, above, problems, asked), is_typed)
    merged.merge(own, is_typed)
    return merged
