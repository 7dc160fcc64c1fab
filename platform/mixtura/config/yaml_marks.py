"""Strict YAML that remembers lines: `read` gives plain data with the line of every value, `write` its inverse.

Stricter than YAML 1.1: a key given twice is an error, only true/false are booleans (on, off, yes, no stay text),
`1e-4` is a number, dates stay text, and tags, anchors and merge keys are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]
"""Keys and list indices from the root of the data."""

INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)"
)
BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
WIDTH = 2**31 - 1
"""Values are written on one line, however long."""
NULL = {"", "~", "null", "Null", "NULL"}


@dataclass
class Marked:
    """Data with the line (from 1) of every value, and what is wrong with the text: (line, path, problem)."""

    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[tuple[int, Path, str]] = field(default_factory=list)


def scalar(text: str) -> Any:
    """What an unquoted word stands for: null, true, 12, 1e-4, or itself."""
    if text in NULL:
        return None
    if text in BOOL:
        return BOOL[text]
    if INT.fullmatch(text):
        return int(text.replace("_", ""))
    if FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


class _Composer(yaml.SafeLoader):
    """Composes nodes; tags, anchors and aliases are refused with their line."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        problem = None
        if isinstance(event, yaml.AliasEvent):
            problem = f"alias '*{event.anchor}' is not supported; write the value again or use `base:`"
        elif getattr(event, "anchor", None):
            problem = f"anchor '&{event.anchor}' is not supported; write the value again or use `base:`"
        elif getattr(event, "tag", None):
            problem = f"tag '{event.tag}' is not allowed; configurations are plain data"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def read(text: str) -> Marked:
    """Read one document. A syntax error gives `data` None and one problem; other problems are all collected."""
    marked = Marked(None)
    try:
        node = yaml.compose(text, Loader=_Composer)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.context, error.problem) if part)
        marked.problems.append((mark.line + 1 if mark else 1, (), f"not readable as YAML: {reason}"))
        return marked
    except (yaml.YAMLError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        marked.problems.append((1, (), f"not readable as YAML: {reason}"))
        return marked
    if node is not None:
        marked.data = _convert(node, (), marked)
    return marked


def _convert(node: yaml.Node, path: Path, marked: Marked) -> Any:
    marked.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(child, (*path, number), marked) for number, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, marked)
    return node.value if node.style in ("'", '"', "|", ">") else scalar(node.value)  # type: ignore[attr-defined]


def _mapping(node: yaml.MappingNode, path: Path, marked: Marked) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            marked.problems.append((line, path, "a key must be a word, not a list or a section"))
            continue
        key = key_node.value
        if key == "<<" and key_node.style is None:
            marked.problems.append((line, (*path, key), "merge keys are not supported; use `base:`"))
        elif key in found:
            first = marked.lines[(*path, key)]
            marked.problems.append((line, (*path, key), f"given twice, first in line {first}; keep one"))
        else:
            marked.lines[(*path, key)] = line
            found[key] = _convert(value_node, (*path, key), marked)
    return found


class _Writer(yaml.SafeDumper):
    """Quotes every text that `read`, or any YAML 1.1 reader, would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = '"' if "\n" in value else None
    if not isinstance(scalar(value), str) or value == "<<":
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _number(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = repr(value) if "." in repr(value) else repr(value).replace("e", ".0e", 1)
    special = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
    return dumper.represent_scalar("tag:yaml.org,2002:float", special.get(text, text))


def _short_list(dumper: yaml.SafeDumper, value: list[Any] | tuple[Any, ...]) -> yaml.SequenceNode:
    plain = all(not isinstance(item, dict | list | tuple) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=plain)


_Writer.add_representer(str, _text)
_Writer.add_representer(float, _number)
_Writer.add_representer(list, _short_list)
_Writer.add_representer(tuple, _short_list)


def write(data: Any) -> str:
    """YAML text of plain data that `read` gives back equal; keys keep their order."""
    return str(yaml.dump(data, Dumper=_Writer, sort_keys=False, allow_unicode=False, width=WIDTH, default_flow_style=False))


def show(path: Path) -> str:
    """A path as people write it: `stages[0].mixture.robot`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def lookup(data: Any, path: Path) -> Any:
    """The value at a path; raises LookupError where there is none."""
    for part in path:
        inside = part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int) and part < len(data)
        if not inside:
            raise LookupError(show(path))
        data = data[part]
    return data
