"""Configurations for people: with the origin of each value, as a difference, as JSON schema, as a starting point."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from mixtura.config import references
from mixtura.config.loader import Loaded, plain
from mixtura.config.messages import models_in
from mixtura.config.origins import DEFAULT, Origin
from mixtura.config.schema import RunConfig
from mixtura.config.yaml_marks import Path, read, show, write
from mixtura.errors import MixturaError
from mixtura.plugins import KINDS, Kind, UnknownName, registry

COLUMN = 58
"""Where comments start."""


def annotated(loaded: Loaded) -> str:
    """The resolved configuration as YAML, each value with its origin as a comment; it loads back equal."""
    data = references.escape(plain(loaded.config))
    return "\n".join(_lines(data, (), 0, loaded)) + "\n"


def _lines(data: dict[str, Any], path: Path, depth: int, loaded: Loaded) -> Iterator[str]:
    indent = "  " * depth
    for key, value in data.items():
        here = (*path, key)
        head = write({key: None}).removesuffix(" null\n")
        if _is_single(key, value):
            yield from _leaf(indent, key, value, _origin(loaded, here))
        elif isinstance(value, dict):
            yield indent + head
            yield from _lines(value, here, depth + 1, loaded)
        else:
            yield indent + head
            for number, item in enumerate(value):
                block = list(_lines(item, (*here, number), depth + 2, loaded))
                yield f"{indent}  - {block[0].lstrip()}"
                yield from block[1:]


def _is_single(key: str | int, value: Any) -> bool:
    """Whether a value is written whole; so is everything below a key that needs a line of its own."""
    return not _is_open(value) or (isinstance(key, str) and write({key: None}).startswith("?"))


def _is_open(value: Any) -> bool:
    """Whether a value's parts get lines of their own: sections, and lists of sections."""
    return bool(value) and (
        isinstance(value, dict) or (isinstance(value, list) and all(isinstance(item, dict) and item for item in value))
    )


def _leaf(indent: str, key: str, value: Any, origin: Origin) -> Iterator[str]:
    text = write({key: value}).rstrip("\n").split("\n")
    if len(text) > 1:
        yield f"{indent}# {_comment(origin)}"
        yield from (indent + line for line in text)
    else:
        yield f"{indent + text[0]:<{COLUMN}}  # {_comment(origin)}"


def _comment(origin: Origin) -> str:
    """An origin as it may stand in a comment: a word of the command line may hold line breaks."""
    return " ".join(str(origin).split())


def _origin(loaded: Loaded, path: Path) -> Origin:
    """The origin of a value, or of the list it is part of; what nobody set has none."""
    for length in range(len(path), 0, -1):
        if path[:length] in loaded.origins:
            inside: Any = loaded.raw
            for part in path[:length]:
                inside = inside[part]
            return loaded.origins[path[:length]] if length == len(path) or not isinstance(inside, dict | list) else DEFAULT
    return DEFAULT


def origins_in(text: str) -> dict[Path, tuple[Any, str]]:
    """The inverse of `annotated`: path of every single value -> (value, origin); empty where a text has no such comments."""
    marked, lines = read(text), ["", *text.splitlines()]
    found: dict[Path, tuple[Any, str]] = {}
    for path, value in _single(marked.data, ()):
        number = marked.lines[path]
        _, mark, origin = lines[number].rpartition("  # ")
        if not mark:
            before = lines[number - 1].lstrip()
            if not before.startswith("# "):
                return {}
            origin = before.removeprefix("# ")
        found[path] = (value, origin)
    return found


def _single(data: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Values that `annotated` writes as one."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if _is_open(data) else ()
    for key, value in inside:
        if _is_single(key, value):
            yield (*path, key), value
        else:
            yield from _single(value, (*path, key))


def difference(first: RunConfig, second: RunConfig) -> list[str]:
    """Settings that differ, one a line: `path: first -> second`."""
    left, right = (dict(_leaves(plain(config), ())) for config in (first, second))
    lines = []
    for path in [*left, *(path for path in right if path not in left)]:
        pair = [json.dumps(side[path]) if path in side else "(absent)" for side in (left, right)]
        if pair[0] != pair[1]:
            lines.append(f"{show(path)}: {pair[0]} -> {pair[1]}")
    return lines


def _leaves(data: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(data, dict) and data:
        for key, value in data.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(data, list) and any(isinstance(item, dict) for item in data):
        for number, value in enumerate(data):
            yield from _leaves(value, (*path, number))
    else:
        yield path, data


# -- schemas -------------------------------------------------------------------------------------------------


def schema(name: str | None) -> str:
    """JSON schema of a whole configuration, or of the settings of a system, source, mixer, evaluator or generator."""
    model = RunConfig if name is None else config_model(name)[1]
    return json.dumps(model.model_json_schema(), indent=2)


def config_model(name: str) -> tuple[Kind, type[BaseModel]]:
    """The `Config` of whatever is called `name`; `kind/name` chooses where two kinds share it."""
    asked, _, plain = name.rpartition("/")
    kinds = [kind for kind in KINDS if kind != "demo" and asked in ("", kind)]
    for kind in kinds:
        try:
            found = registry().get(kind, plain)
        except UnknownName:
            continue
        model = getattr(found, "Config", None)
        if isinstance(model, type) and issubclass(model, BaseModel):
            return kind, model
        raise MixturaError(f"the {kind} '{plain}' has no pydantic model `Config`; this is a mistake of its plugin")
    known = [f"{kind}/{known}" for kind in kinds for known in registry().names(kind)]
    raise MixturaError(f"nothing is called '{name}'; schemas exist for: {', '.join(known)}")


def starter(system: str) -> str:
    """A configuration to start from: the system's settings with their descriptions, and the sections a run needs."""
    kind, model = config_model(f"system/{system}")
    info, _ = registry().find(kind, system)
    source = next(iter(info.plugin.sources), "webdataset")
    source = "toy" if system == "toy" else source
    lines = [
        f"# A start for the system '{system}'. Check it with: mixtura config show FILE",
        "system:",
        f"  type: {system}",
        *_commented(model, "  "),
        f"run: {{name: {system.replace('_', '-').replace(':', '-')}-first, seed: 17}}",
        "sources:",
        "  first:",
        f"    type: {source}",
        *_commented(registry().get("source", source).Config, "    "),
        "data: {global_batch: 16}",
        "optim: {lr: 3e-4}",
        "stages:",
        "  - {name: main, steps: 100, mixture: {first: 1}}",
    ]
    return "\n".join(lines) + "\n"


def _commented(model: type[BaseModel], indent: str) -> Iterator[str]:
    """A model's settings: needed ones to fill in, the others as comments with their defaults."""
    for name, info in model.model_fields.items():
        if name == "type":
            continue
        note = f"  # {info.description}" if info.description else ""
        if info.is_required():
            yield f"{indent}{name}: ...{note or '  # needed'}"
        elif not models_in(info.annotation):
            default = info.get_default(call_default_factory=True)
            plain = list(default) if isinstance(default, tuple | set | frozenset) else default
            yield f"{indent}# {write({name: plain}).strip()}{note}"
