"""Settings from the command line: `a.b=v`, `stages.0.steps=10`, `stages[dual-level].mixture.qa=0.5`.

The value is read as strict YAML. Mappings merge per key, as in files; list items are named by index or by their `name`
(evaluators without one by their `type`). A `type=` is applied before the other settings, wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from mixtura.config.origins import Origin, Problems, Tree
from mixtura.config.yaml_marks import Path, read, show
from mixtura.plugins import near

TOKEN = re.compile(r"(?P<path>[A-Za-z_][^=]*)=(?P<value>.*)", re.DOTALL)
STEP = re.compile(r"\.?([A-Za-z0-9_-]+)|\[([^\[\]]+)\]")


def apply(tree: Tree, tokens: Sequence[str], is_typed: Callable[[Path], bool], problems: Problems) -> None:
    """Put all tokens over the tree, in order, changes of `type` first."""
    numbered = [(number, token) for number, token in enumerate(tokens, 1)]
    for number, token in sorted(numbered, key=lambda item: not item[1].partition("=")[0].endswith(".type")):
        origin = Origin(number, token, 0)
        match = TOKEN.fullmatch(token)
        if not match:
            problems.add(origin, (), "expected setting=value, as optim.lr=1e-4")
            continue
        marked = read(match["value"])
        if marked.problems:
            problems.add(origin, (), marked.problems[0][2])
            continue
        try:
            path = _resolve(tree.data, match["path"])
        except LookupError as error:
            problems.add(origin, (), str(error.args[0]))
            continue
        _put(tree, path, marked.data, origin, is_typed)


def _resolve(data: Any, text: str) -> Path:
    """The path that a dotted name stands for, looked up in the data where it goes through lists."""
    steps: list[str] = []
    position = 0
    while position < len(text):
        match = STEP.match(text, position)
        if not match or (position == 0 and match[2]):
            raise LookupError(f"'{text}' is not a setting; expected words with dots, as stages.0.steps or stages[name].steps")
        steps.append(match[1] or match[2])
        position = match.end()
    path: Path = ()
    for step in steps:
        if isinstance(data, list):
            number = _item(data, step, path)
            path, data = (*path, number), data[number]
        elif isinstance(data, dict) or data is None:
            path, data = (*path, step), (data or {}).get(step)
        else:
            raise LookupError(f"{show(path)} is a value ({data!r}), not a section; it has no '{step}'")
    return path


def _item(items: list[Any], step: str, path: Path) -> int:
    """The index of a list item given by number or name."""
    if step.isdigit():
        if int(step) < len(items):
            return int(step)
        raise LookupError(f"{show(path)} has {len(items)} entries, numbered from 0; there is no {step}")
    names = [str(item.get("name", item.get("type"))) if isinstance(item, dict) else "" for item in items]
    if names.count(step) == 1:
        return names.index(step)
    if step in names:
        raise LookupError(f"{show(path)}[{step}] is not clear, {names.count(step)} entries are called so; use the number")
    guess = near(step, [name for name in names if name])
    hint = f" Did you mean '{guess[0]}'?" if guess else ""
    raise LookupError(f"{show(path)} has no entry called '{step}'.{hint} Entries: {', '.join(filter(None, names)) or 'none'}")


def _put(tree: Tree, path: Path, value: Any, origin: Origin, is_typed: Callable[[Path], bool]) -> None:
    """Put one value at a path, making the sections on the way."""
    at: Any = tree.data
    step: Any
    for length, (step, following) in enumerate(pairwise(path), 1):
        inside = at[step] if isinstance(at, list) else at.get(step)
        if inside is None:
            inside = at[step] = {}
            tree.origins[path[:length]] = origin
        # A changed type drops what the old type had: its settings mean nothing to the new one.
        if following == "type" and length + 1 == len(path) and is_typed(path[:length]) and _type_of(inside, value) != value:
            inside.clear()
            tree.forget(path[:length])
        at = inside
    last: Any = path[-1]
    old = at[last] if isinstance(at, list) else at.get(last)
    if isinstance(value, dict) and isinstance(old, dict):
        _merge_at(tree, path, old, value, origin, is_typed)
        return
    at[last] = value
    tree.forget(path)
    tree.origins[path] = origin


def _merge_at(
    tree: Tree, path: Path, old: dict[str, Any], value: dict[str, Any], origin: Origin, is_typed: Callable[[Path], bool]
) -> None:
    """Merge a mapping from the command line into the section at `path`."""
    if is_typed(path) and value.get("type", old.get("type")) != old.get("type"):
        old.clear()
        tree.forget(path)
    for key, item in value.items():
        _put(tree, (*path, key), item, origin, is_typed)


def _type_of(section: Any, default: Any) -> Any:
    return section.get("type", default) if isinstance(section, dict) else default
