"""Words for what pydantic finds wrong: what was expected, what was given, what may have been meant."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from mixtura.config.schema import FOLDER, NAME
from mixtura.config.yaml_marks import Path, show
from mixtura.plugins import near

Model = type[BaseModel]

LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}
KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path (text)",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section (key: value)",
    "model_type": "a section (key: value)",
    "model_attributes_type": "a section (key: value)",
}
PATTERNS = {NAME: "a word of letters, digits, _ and -", FOLDER: "a word of letters, digits, . _ and - (a folder is called so)"}


def value_text(value: Any) -> str:
    """A value as it may stand in a message, shortened."""
    if isinstance(value, dict):
        text = "a section"
    elif isinstance(value, list | tuple):
        text = f"a list of {len(value)}"
    elif value is None:
        text = "nothing"
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def explain(error: Mapping[str, Any]) -> str:
    """One sentence for an entry of `ValidationError.errors()`, apart from unknown and missing settings."""
    kind, context, given = error["type"], error.get("ctx", {}), error.get("input")
    if kind in KINDS:
        hint = "; put it in quotes" if kind == "string_type" and isinstance(given, int | float) else ""
        return f"must be {KINDS[kind]}, not {value_text(given)}{hint}"
    if kind in LIMITS:
        key, words = LIMITS[kind]
        return f"must be {words} {context[key]}, not {value_text(given)}"
    if kind in ("literal_error", "enum"):
        text = f"must be {context['expected']}, not {value_text(given)}"
        guess = (
            near(given, context["expected"].replace("'", "").replace(" or ", ", ").split(", ")) if isinstance(given, str) else ()
        )
        return f"{text}. Did you mean '{guess[0]}'?" if guess else text
    if kind == "string_pattern_mismatch":
        return f"must be {PATTERNS.get(context['pattern'], 'text like ' + context['pattern'])}, not {value_text(given)}"
    if kind in ("too_short", "string_too_short"):
        return f"needs at least {context.get('min_length', 1)} entries" if kind == "too_short" else "must not be empty"
    if kind == "too_long":
        return f"must have at most {context['max_length']} entries, not {context.get('actual_length', 'more')}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", error["msg"]))
    return f"{error['msg']} (given: {value_text(given)})"


def models_in(annotation: Any) -> list[Model]:
    """The models that an annotation mentions, as in `dict[str, Part] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not isinstance(annotation, types.GenericAlias):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]


def models_at(model: Model, path: Path) -> list[Model]:
    """The models that describe the section at a path below `model`."""
    current = [model]
    for part in path:
        fields = [m.model_fields[part] for m in current if isinstance(part, str) and part in m.model_fields]
        if fields:
            current = [found for info in fields for found in models_in(info.annotation)]
    return current


def settings(model: Model, prefix: str) -> Iterator[tuple[str, str]]:
    """All (setting, section it lives in) of a model, recursively; `[]` stands for any item."""
    for name, info in model.model_fields.items():
        yield name, prefix
        many = typing.get_origin(info.annotation) in (tuple, list, dict)
        for inner in models_in(info.annotation):
            yield from settings(inner, (f"{prefix}.{name}" if prefix else name) + ("[]" if many else ""))


@dataclass(frozen=True)
class Guide:
    """Finds what an unknown setting may have meant: in the same section, else in the others."""

    elsewhere: Mapping[str, tuple[str, ...]]

    @staticmethod
    def over(models: Mapping[str, Model]) -> Guide:
        """A guide through sections given by name."""
        places: dict[str, list[str]] = {}
        for prefix, model in models.items():
            for name, section in settings(model, prefix):
                if section not in places.setdefault(name, []):
                    places[name].append(section)
        return Guide({name: tuple(sections) for name, sections in places.items()})

    def unknown(self, path: Path, here: list[str]) -> str:
        """The message for a setting that doesn't exist; `here` are those that do."""
        name = str(path[-1])
        homes = [home for home in self.elsewhere.get(name, ()) if home != show(path[:-1])] if name != "type" else []
        guess = near(name, here)
        listed = f"Settings here: {', '.join(sorted(here))}" if here else ""
        if homes:
            return f"no such setting; '{name}' lives in {_homes(homes)}. {listed}"
        if guess:
            return f"no such setting. Did you mean '{guess[0]}'? {listed}"
        for far in near(name, self.elsewhere)[:1]:
            return f"no such setting; did you mean '{far}' in {_homes(self.elsewhere[far])}? {listed}"
        return f"no such setting. {listed}"


def _homes(homes: list[str] | tuple[str, ...]) -> str:
    return " or ".join(f"'{home}'" if home else "the top level" for home in homes[:3])
