"""From a JSON schema to fields of a form: what kind each is, what bounds and choices it has, how values are shown and read.

A field that holds nothing stands for the default. What no kind fits (unions, lists of sections, references) is a field of
YAML text, so that nothing a configuration can say is out of the form's reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from mixtura.config.yaml_marks import Path, read, scalar, write
from mixtura_demos.shared.errors import Refused

Kind = Literal["integer", "number", "flag", "choice", "choices", "text", "list", "yaml"]
LONGEST = 20_000
"""Characters that one field takes."""


class _Nothing:
    """One of its kind, also where data that hold it are copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Nothing:
        return self


NOTHING: Any = _Nothing()
"""What `parse` gives for an empty field: the setting is left out."""
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "multipleOf": "a multiple of",
}
WITH_DEFAULT = ("integer", "number", "text", "list")
"""Kinds whose default stands in the hint; the others show it by themselves."""
SCALARS = ("integer", "number", "string", "boolean")


@dataclass(frozen=True)
class Field:
    """A single setting. `default` is NOTHING where the schema has none; `bounds` has the schema's words."""

    path: Path
    kind: Kind
    help: str = ""
    default: Any = NOTHING
    required: bool = False
    nullable: bool = False
    choices: tuple[Any, ...] = ()
    bounds: Mapping[str, float] | None = None

    @property
    def name(self) -> str:
        """The last word of the path."""
        return str(self.path[-1])

    @property
    def hint(self) -> str:
        """Description, bounds and default in one line."""
        limits = " and ".join(f"{BOUNDS[key]} {number(value)}" for key, value in (self.bounds or {}).items())
        needed = "needed" if self.required else ""
        has_default = self.kind in WITH_DEFAULT and self.default not in (NOTHING, None, "")
        default = f"default {text_of(self.default)}" if has_default else ""
        return "; ".join(part for part in (self.help, limits, needed, default) if part)


@dataclass(frozen=True)
class Group:
    """A section with settings of its own. `optional`: it may be absent altogether, which is not the same as empty."""

    path: Path
    help: str
    parts: tuple[Field | Group, ...]
    optional: bool = False

    @property
    def name(self) -> str:
        """The last word of the path."""
        return str(self.path[-1])

    def fields(self) -> list[Field]:
        """All fields of this section and of those in it."""
        return [field for part in self.parts for field in ([part] if isinstance(part, Field) else part.fields())]


def number(value: float) -> str:
    """A bound without a needless .0."""
    return str(int(value)) if float(value).is_integer() else str(value)


def text_of(value: Any) -> str:
    """A value as YAML, without the line that may end a document."""
    return write(value).removesuffix("\n").removesuffix("\n...")


# -- schemas -------------------------------------------------------------------------------------------------
def group_of(schema: Mapping[str, Any], path: Path, leave_out: tuple[str, ...] = ()) -> Group:
    """The fields of an object's schema at `path`, without those in `leave_out`."""
    return _group(schema, path, schema.get("$defs", {}), leave_out)


def _group(node: Mapping[str, Any], path: Path, known: Mapping[str, Any], leave_out: tuple[str, ...] = ()) -> Group:
    required = node.get("required", ())
    parts = [
        _part(child, (*path, name), known, name in required)
        for name, child in node.get("properties", {}).items()
        if name not in leave_out
    ]
    return Group(path, str(node.get("description", "")), tuple(parts))


def _part(node: Mapping[str, Any], path: Path, known: Mapping[str, Any], required: bool) -> Field | Group:
    node, nullable = _plain(node, known)
    help_text = " ".join(str(node.get("description", "")).split())
    if node.get("properties") and len(path) < 12:
        return replace(_group(node, path, known), help=help_text, optional=nullable)
    default = node.get("default", NOTHING)
    base = Field(path, "yaml", help_text, default, required, nullable)
    return _typed(base, node, known)


def _typed(base: Field, node: Mapping[str, Any], known: Mapping[str, Any]) -> Field:
    """The field with the kind that its schema asks for."""
    kind = node.get("type")
    if "enum" in node or "const" in node:
        return replace(base, kind="choice", choices=tuple(node.get("enum", [node.get("const")])))
    if kind in ("integer", "number"):
        return replace(base, kind=kind, bounds={key: node[key] for key in BOUNDS if key in node})
    if kind == "boolean" and isinstance(base.default, bool):
        return replace(base, kind="flag")
    if kind == "boolean":
        return replace(base, kind="choice", choices=(True, False))
    if kind == "string":
        return replace(base, kind="text")
    if kind == "array":
        items, _ = _plain(node.get("items", {}), known)
        if "enum" in items:
            return replace(base, kind="choices", choices=tuple(items["enum"]))
        tuples = node.get("prefixItems", [])
        if items.get("type") in SCALARS or (tuples and all(item.get("type") in SCALARS for item in tuples)):
            return replace(base, kind="list")
    return base


def _plain(node: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The schema behind references and behind "or null", and whether null is allowed."""
    found, nullable = dict(node), False
    for _ in range(20):
        if "$ref" in found:
            target = known.get(str(found.pop("$ref")).rpartition("/")[2], {})
            found = {**target, **found}
        options = found.get("anyOf") or found.get("oneOf") or found.get("allOf")
        if options is None:
            break
        kept = [option for option in options if option.get("type") != "null"]
        nullable = nullable or len(kept) < len(options)
        if len(kept) != 1:
            break
        rest = {key: value for key, value in found.items() if key not in ("anyOf", "oneOf", "allOf")}
        found = {**kept[0], **rest}
    return found, nullable


# -- values --------------------------------------------------------------------------------------------------
def fitting(field: Field, value: Any) -> Field:
    """The field as it can show `value`: as YAML text where its own kind can't, which is so for references and mistakes."""
    if value is NOTHING or (value is None and field.default is None):
        return field
    plain = not isinstance(value, bool)
    fits = {
        "integer": plain and isinstance(value, int | float),
        "number": plain and isinstance(value, int | float),
        "flag": isinstance(value, bool),
        "choice": not isinstance(value, dict | list | None),
        "choices": isinstance(value, list) and all(item in field.choices for item in value),
        "text": isinstance(value, str),
        "list": isinstance(value, list) and not any(isinstance(item, dict | list) for item in value),
        "yaml": True,
    }
    return field if fits[field.kind] else replace(field, kind="yaml")


def show(field: Field, value: Any) -> Any:
    """What the field holds for a value: text, true or false for a flag, a list of words for choices."""
    if field.kind == "flag":
        return value if isinstance(value, bool) else bool(field.default) if field.default is not NOTHING else False
    if field.kind == "choices":
        chosen = value if value is not NOTHING else [] if field.default is NOTHING else field.default
        return [text_of(item) for item in chosen or []]
    if value is NOTHING or (value is None and field.kind != "yaml"):
        return ""
    if field.kind == "text":
        return value
    return text_of(value)


def parse(field: Field, shown: Any, before: Any) -> Any:
    """The value that a field's content stands for; NOTHING for an empty one. Raises Refused with what can't be read."""
    if field.kind == "flag":
        return bool(shown)
    if field.kind == "choices":
        words = [word for word in shown if isinstance(word, str)] if isinstance(shown, list) else []
        chosen = [item for item in field.choices if text_of(item) in words]
        if not chosen and before is NOTHING and not field.default:
            return NOTHING
        old = [item for item in before if item in chosen] if isinstance(before, list) else []
        return old + [item for item in chosen if item not in old]
    text = str(shown if shown is not None else "")
    if len(text) > LONGEST:
        raise Refused(f"{len(text)} characters are too many for one setting; give at most {LONGEST}")
    if not text.strip() and not (field.kind == "text" and before == text):
        return NOTHING
    if field.kind == "choice":
        return next((choice for choice in field.choices if text_of(choice) == text), scalar(text))
    if field.kind == "text":
        return text
    return _scalar_or_yaml(field, text)


def _scalar_or_yaml(field: Field, text: str) -> Any:
    text = text if "\n" in text else text.strip()
    if field.kind in ("integer", "number"):
        return scalar(text)
    if field.kind == "list" and text[0] not in "[$":
        text = f"[{text}]"
    marked = read(text)
    if marked.problems:
        raise Refused(marked.problems[0][2])
    return marked.data
