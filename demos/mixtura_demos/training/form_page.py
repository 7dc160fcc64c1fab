"""The form as HTML: a native input for every field, sections to open and close, buttons for what is added and removed.

Every input has `data-path`, the JSON of its setting's path; the script (`form.js`) sends what is typed there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any

from mixtura.config.yaml_marks import Path, show
from mixtura.plugins import registry
from mixtura_demos.training import fields
from mixtura_demos.training.document import Document
from mixtura_demos.training.fields import NOTHING, Field, Group
from mixtura_demos.training.layout import LISTS, Layout, Stage, Typed

ADDED = {"evaluate": ("Evaluators", "evaluator"), "synth": ("Data that commands make", "generator")}


def form(document: Document, parts: Layout, revision: int) -> str:
    """The whole form. `revision` makes two forms differ though their text is the same, so that typed text is replaced."""
    return (
        f'<div class="form" data-revision="{revision}">'
        + _details("run", _group(document, parts.run), "Run", parts.run.help, opened=True)
        + _stages(document, parts.stages)
        + _sources(document, parts.sources)
        + _details("system", _typed_body(document, parts.system, change=False), f"System: {parts.system.type}")
        + "".join(_details(group.name, _group(document, group), group.name.capitalize(), group.help) for group in parts.plain)
        + "".join(_list(document, key, sections) for key, sections in parts.lists.items())
        + _details("others", _group(document, parts.others), "Other settings")
        + "</div>"
    )


# -- sections ------------------------------------------------------------------------------------------------
def _details(key: str, body: str, title: str, help_text: str = "", opened: bool = False) -> str:
    """A section that opens and closes; `key` is how the script remembers which were open."""
    small = f"<small>{escape(help_text)}</small>" if help_text else ""
    state = " open" if opened else ""
    return f'<details data-key="{escape(key)}"{state}><summary>{escape(title)}{small}</summary><div>{body}</div></details>'


def _group(document: Document, group: Group) -> str:
    return "".join(_field(document, part) if isinstance(part, Field) else _section(document, part) for part in group.parts)


def _section(document: Document, group: Group) -> str:
    """A section within a section; one that may be absent has a switch and shows its fields when it is there."""
    given = document.value(group.path)
    if not group.optional:
        return _details(show(group.path), _group(document, group), group.name, group.help)
    on = isinstance(given, dict)
    switch = (
        f'<label class="switch"><input type="checkbox" data-switch="{_data(group.path)}"{" checked" if on else ""}>'
        f" set {escape(group.name)}</label>"
    )
    return _details(show(group.path), switch + (_group(document, group) if on else ""), group.name, group.help, opened=on)


def _typed_body(document: Document, section: Typed, change: bool = True) -> str:
    """The type, where it can change, and the fields of that type."""
    problem = f'<p class="wrong">{escape(section.problem)}</p>' if section.problem else ""
    if not change:
        return problem + _group(document, section.group)
    options = "".join(_option(name, name, name == section.type) for name in _with(section.types, section.type))
    name = f"f-{_slug((*section.path, 'type'))}"
    chooser = (
        f'<div class="field"><label for="{name}">type</label>'
        f'<select id="{name}" data-retype="{_data(section.path)}">{options}</select></div>'
    )
    return chooser + problem + _group(document, section.group)


def _sources(document: Document, sources: Iterable[Typed]) -> str:
    inside = "".join(_removable(document, section, str(section.path[-1]), f"source {section.path[-1]}") for section in sources)
    kinds = "".join(_option(name, name, False) for name in registry().names("source"))
    add = (
        '<div class="add"><label>Name of a new source<input type="text" data-name="sources" maxlength="64"></label>'
        f'<label>Its type<select data-type="sources">{kinds}</select></label>{_button("add", "Add source", ("sources",))}</div>'
    )
    return _details("sources", inside + add, "Sources", "what the data are", opened=True)


def _stages(document: Document, stages: tuple[Stage, ...]) -> str:
    inside = "".join(_stage(document, stage, opened=k == 0) for k, stage in enumerate(stages))
    add = f'<div class="add">{_button("add", "Add a stage like the last", ("stages",))}</div>'
    return _details("stages", inside + add, "Stages", "parts of the run, in order", opened=True)


def _stage(document: Document, stage: Stage, opened: bool) -> str:
    name = document.value((*stage.path, "name"))
    label = name if isinstance(name, str) and name else f"stage {stage.path[-1]}"
    weights = f"<fieldset><legend>mixture: weight of each source</legend>{_group(document, stage.mixture)}</fieldset>"
    about = "what gives the proportions of every step"
    mixer = _details(show(stage.mixer.path), _typed_body(document, stage.mixer), "mixer", about)
    buttons = _button("remove", f"Remove stage {label}", stage.path)
    if stage.path[-1]:
        buttons += _button("earlier", f"Move stage {label} up", stage.path)
    return _details(show(stage.path), _group(document, stage.group) + weights + mixer + buttons, label, opened=opened)


def _list(document: Document, key: str, sections: tuple[Typed, ...]) -> str:
    title, kind = ADDED[key]
    titles = [f"{k}: {section.type}" for k, section in enumerate(sections, 1)]
    inside = "".join(_removable(document, s, t, f"{kind} {t}") for s, t in zip(sections, titles, strict=True))
    kinds = "".join(_option(name, name, False) for name in registry().names(LISTS[key]))
    add = (
        f'<div class="add"><label>New {kind}<select data-type="{key}">{kinds}</select></label>'
        f"{_button('add', f'Add {kind}', (key,))}</div>"
    )
    return _details(key, inside + (add if kinds else ""), title)


def _removable(document: Document, section: Typed, title: str, name: str) -> str:
    """A section with a button that takes it away."""
    body = _typed_body(document, section) + _button("remove", f"Remove {name}", section.path)
    return _details(show(section.path), body, title)


def _button(action: str, label: str, path: Path) -> str:
    return f'<button type="button" data-action="{action}" data-at="{_data(path)}">{escape(label)}</button>'


# -- fields --------------------------------------------------------------------------------------------------
def _field(document: Document, setting: Field) -> str:
    value = document.value(setting.path)
    setting = fields.fitting(setting, value)
    name = f"f-{_slug(setting.path)}"
    shown = fields.show(setting, value)
    if setting.path in document.unread:
        shown = document.unread[setting.path][0]
    given = " given" if value is not NOTHING else ""
    about = f'<small id="{name}-help">{escape(setting.hint)}</small>' if setting.hint else ""
    marks = f'id="{name}" data-path="{_data(setting.path)}" aria-describedby="{name}-wrong{f" {name}-help" if about else ""}"'
    wrong = f'<p class="wrong" id="{name}-wrong" data-for="{_data(setting.path)}"></p>'
    if setting.kind == "choices":
        body = _choices(setting, shown, marks)
        return f'<fieldset class="field{given}"><legend>{escape(setting.name)}</legend>{body}{about}{wrong}</fieldset>'
    return (
        f'<div class="field{given}"><label for="{name}">{escape(setting.name)}</label>'
        f"{_input(setting, shown, value, marks)}{about}{wrong}</div>"
    )


def _input(setting: Field, shown: Any, value: Any, marks: str) -> str:
    if setting.kind == "flag":
        return f'<input type="checkbox" {marks}{" checked" if shown else ""}>'
    if setting.kind == "choice":
        return f"<select {marks}>{_options(setting, shown)}</select>"
    placeholder = ""
    if value is NOTHING and setting.default not in (NOTHING, None, ""):
        placeholder = f' placeholder="{escape(fields.text_of(setting.default), quote=True)}"'
    if setting.kind in ("integer", "number"):
        return f'<input type="number" {_limits(setting)} {marks} value="{escape(shown, quote=True)}"{placeholder}>'
    if setting.kind == "yaml" or "\n" in shown:
        rows = min(12, max(1, shown.count("\n") + 1))
        return f'<textarea rows="{rows}" spellcheck="false" {marks}{placeholder}>\n{escape(shown)}</textarea>'
    return f'<input type="text" autocomplete="off" {marks} value="{escape(shown, quote=True)}"{placeholder}>'


def _limits(setting: Field) -> str:
    """Bounds for the arrow keys; the core's checker has the last word."""
    bounds = setting.bounds or {}
    low, high = (bounds.get(a, bounds.get(b)) for a, b in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")))
    limits = [f'{key}="{fields.number(bound)}"' for key, bound in (("min", low), ("max", high)) if bound is not None]
    return " ".join([f'step="{1 if setting.kind == "integer" else "any"}"', *limits])


def _options(setting: Field, shown: str) -> str:
    """The choices; an empty one for the default, and what the file says where that isn't among them."""
    words = [fields.text_of(choice) for choice in setting.choices]
    none = "choose one" if setting.default is NOTHING else f"default: {fields.text_of(setting.default)}"
    return _option("", none, shown == "") + "".join(_option(word, word, word == shown) for word in _with(words, shown))


def _choices(setting: Field, shown: list[str], marks: str) -> str:
    boxes = "".join(
        f'<label class="switch"><input type="checkbox" value="{escape(word, quote=True)}"{" checked" if word in shown else ""}>'
        f" {escape(word)}</label>"
        for word in map(fields.text_of, setting.choices)
    )
    return f'<div role="group" class="choices" {marks}>{boxes}</div>'


def _option(value: str, label: str, chosen: bool) -> str:
    return f'<option value="{escape(value, quote=True)}"{" selected" if chosen else ""}>{escape(label)}</option>'


def _with(words: Iterable[str], word: str) -> list[str]:
    listed = list(words)
    return listed if word in listed or not word else [*listed, word]


def _data(path: Path) -> str:
    return escape(json.dumps(path), quote=True)


def _slug(path: Path) -> str:
    """An id that no other path has."""
    return "-".join("".join(c if c.isalnum() else f"_{ord(c):x}_" for c in str(part)) for part in path)
