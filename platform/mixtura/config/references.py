"""References inside values: `${run.name}` for another setting, `${env:HOME}` for the environment; `$${` is a plain `${`.

A reference that is the whole value keeps the other setting's type; within other text its words are put in. An environment
variable that is the whole value is read like an unquoted word of YAML.
"""

from __future__ import annotations

import os
import re
from typing import Any

from mixtura.config.origins import Problems, Tree
from mixtura.config.yaml_marks import Path, lookup, scalar, show
from mixtura.plugins import near

REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")


class _Wrong(Exception):
    """A reference that can't be followed."""


def resolve(tree: Tree, defaults: dict[str, Any], problems: Problems) -> None:
    """Replace all references in the tree; `defaults` answers for settings that nobody gave."""
    source = tree.data
    tree.data = _walk(source, (), _Resolver(source, defaults), tree, problems)


def escape(data: Any) -> Any:
    """Plain data in which no text is taken for a reference."""
    if isinstance(data, dict):
        return {key: escape(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [escape(value) for value in data]
    return data.replace("${", "$${") if isinstance(data, str) else data


def _walk(value: Any, path: Path, resolver: _Resolver, tree: Tree, problems: Problems) -> Any:
    if isinstance(value, dict):
        return {key: _walk(item, (*path, key), resolver, tree, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_walk(item, (*path, number), resolver, tree, problems) for number, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return resolver.text(value, (path,))
    except _Wrong as wrong:
        problems.add(tree.origin(path), path, str(wrong))
        return value


class _Resolver:
    """Follows references through the unresolved data."""

    def __init__(self, data: dict[str, Any], defaults: dict[str, Any]) -> None:
        self.data, self.defaults = data, defaults

    def text(self, text: str, chain: tuple[Path, ...]) -> Any:
        """A text with its references replaced; `chain` are the settings that led here."""
        whole = REFERENCE.fullmatch(text)
        if whole and whole[1] is not None:
            return self.follow(whole[1], chain, whole=True)
        return REFERENCE.sub(lambda match: self._part(match, chain), text)

    def _part(self, match: re.Match[str], chain: tuple[Path, ...]) -> str:
        if match[0] == "$${":
            return "${"
        if match[1] is None:
            raise _Wrong("'${' without '}'; write $${ for a plain ${")
        value = self.follow(match[1], chain, whole=False)
        if isinstance(value, bool):
            return "true" if value else "false"
        if value is None or isinstance(value, dict | list):
            raise _Wrong(f"${{{match[1]}}} is {'empty' if value is None else 'not a single value'}; it can't be part of a text")
        return str(value)

    def follow(self, name: str, chain: tuple[Path, ...], whole: bool) -> Any:
        """What `${name}` stands for."""
        if name.startswith("env:"):
            value = os.environ.get(name[4:])
            if value is None:
                raise _Wrong(f"${{{name}}}: the environment variable '{name[4:]}' is not set")
            return scalar(value) if whole else value
        path: Path = tuple(int(part) if part.isdigit() else part for part in name.split("."))
        if path in chain:
            circle = " -> ".join(show(place) for place in (*chain[chain.index(path) :], path))
            raise _Wrong(f"references go in a circle: {circle}")
        value = self._find(path, name)
        if isinstance(value, str):
            return self.text(value, (*chain, path))
        if isinstance(value, dict | list):
            raise _Wrong(f"${{{name}}} is a section; only single values can be referred to")
        return value

    def _find(self, path: Path, name: str) -> Any:
        for data in (self.data, self.defaults):
            try:
                return lookup(data, path)
            except LookupError:
                continue
        guess = near(name, [show(known) for known in _leaves(self.data)] + [show(known) for known in _leaves(self.defaults)])
        raise _Wrong(f"${{{name}}}: there is no setting '{name}'." + (f" Did you mean '{guess[0]}'?" if guess else ""))


def _leaves(data: Any, path: Path = ()) -> list[Path]:
    if not isinstance(data, dict):
        return [path]
    return [leaf for key, value in data.items() for leaf in _leaves(value, (*path, key))]
