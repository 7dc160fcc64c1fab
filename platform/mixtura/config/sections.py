"""From plain data to models: every section on its own, so that one mistake doesn't hide the next.

Sections with a `type` are validated by the `Config` model of the class that the registry finds. Values are checked
strictly (the text "5" is no number, 1 is not true), as JSON would be, so lists may fill tuples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from mixtura.config.messages import Guide, Model, explain, models_at, models_in, value_text
from mixtura.config.origins import Problems, Tree
from mixtura.config.schema import RunConfig, Stage
from mixtura.config.yaml_marks import Path
from mixtura.errors import MixturaError
from mixtura.plugins import Kind, registry

TYPED: dict[str, Kind] = {"system": "system", "sources": "source", "synth": "generator", "evaluate": "evaluator"}

SCALARS = {"int_type", "int_from_float", "float_type", "bool_type", "string_type"}
"""Findings of pydantic's strict mode that count everywhere."""


def typed_kind(path: Path) -> Kind | None:
    """The kind of plugin class that validates the section at a path, or None."""
    if path == ("system",):
        return "system"
    if len(path) == 2 and path[0] in ("sources", "synth", "evaluate"):
        return TYPED[str(path[0])]
    if len(path) == 3 and path[0] == "stages" and path[2] == "mixer":
        return "mixer"
    return None


def is_typed(path: Path) -> bool:
    """Whether a plugin's model validates the section at a path."""
    return typed_kind(path) is not None


@dataclass
class Built:
    """Valid sections by name; in `stages` and typed lists None stands for one that is wrong."""

    values: dict[str, Any] = field(default_factory=dict)
    classes: dict[Path, Any] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        """A section, or None when it is wrong."""
        return self.values.get(name)


def defaults() -> dict[str, Any]:
    """What the schema says for settings that nobody gives, as plain data."""
    plain: dict[str, Any] = {"run": {"dir": _default(type_of("run"), "dir"), "seed": _default(type_of("run"), "seed")}}
    for name, info in RunConfig.model_fields.items():
        if isinstance(info.default, BaseModel):
            plain[name] = info.default.model_dump(mode="json")
    return plain


def type_of(section: str) -> Model:
    """The model of a top-level section that has one."""
    found = RunConfig.model_fields[section].annotation
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise TypeError(f"'{section}' has no model of its own")
    return found


def _default(model: Model, name: str) -> Any:
    return model.model_fields[name].default


class Builder:
    """Validates the sections of one tree."""

    def __init__(self, tree: Tree, problems: Problems) -> None:
        self.tree, self.problems = tree, problems
        self.built = Built()
        self.configs = self._find_classes()
        own = {"": RunConfig}
        self.guide = Guide.over({**own, **{str(path[0]): model for path, model in self.configs.items() if path[0] != "stages"}})

    def _find_classes(self) -> dict[Path, Model]:
        """Look up the class of every typed section; what can't be found is a problem."""
        configs: dict[Path, Model] = {}
        for path, value in self._typed_sections():
            kind = typed_kind(path)
            if kind is None or not isinstance(value, dict):
                self._wrong(path, f"must be a section with a `type`, not {value_text(value)}")
                continue
            name = value.get("type")
            if not isinstance(name, str) or not name:
                known = ", ".join(registry().names(kind))
                self._wrong((*path, "type"), f"missing; say which {kind} it is. Known: {known or 'none'}")
                continue
            try:
                found = registry().get(kind, name)
            except MixturaError as error:
                self._wrong((*path, "type"), str(error))
                continue
            model = getattr(found, "Config", None)
            if not (isinstance(model, type) and issubclass(model, BaseModel)):
                self._wrong(
                    (*path, "type"), f"the {kind} '{name}' has no pydantic model `Config`; this is a mistake of its plugin"
                )
                continue
            configs[path], self.built.classes[path] = model, found
        return configs

    def _typed_sections(self) -> list[tuple[Path, Any]]:
        data = self.tree.data
        found: list[tuple[Path, Any]] = [(("system",), data["system"])] if "system" in data else []
        if isinstance(data.get("sources"), dict):
            # A source set to null takes one of a base file away.
            found += [(("sources", name), value) for name, value in data["sources"].items() if value is not None]
        for key in ("synth", "evaluate"):
            if isinstance(data.get(key), list):
                found += [((key, number), value) for number, value in enumerate(data[key])]
        if isinstance(data.get("stages"), list):
            for number, stage in enumerate(data["stages"]):
                if isinstance(stage, dict):
                    found.append((("stages", number, "mixer"), stage.get("mixer", {"type": "static"})))
        return found

    def _wrong(self, path: Path, text: str) -> None:
        self.problems.add(self.tree.origin(path), path, text)

    # -- building ------------------------------------------------------------------------------------------
    def build(self) -> Built:
        """Validate everything; problems are noted, valid sections are in the result."""
        data = self.tree.data
        for key in data:
            if key not in RunConfig.model_fields:
                self._wrong((key,), self.guide.unknown((key,), list(RunConfig.model_fields)))
        for key, info in RunConfig.model_fields.items():
            if key in data:
                value = self._section(key, data[key])
                if not self.problems.below((key,)) or key in ("sources", "stages"):
                    self.built.values[key] = value
            elif info.is_required():
                self._wrong((key,), f"missing: {info.description or 'this section is needed'}")
            else:
                self.built.values[key] = info.get_default(call_default_factory=True)
        return self.built

    def _section(self, key: str, value: Any) -> Any:
        if key == "system":
            return self._typed((key,), value)
        if key == "sources":
            return self._sources(value)
        if key in ("synth", "evaluate", "stages"):
            if not isinstance(value, list) or (key == "stages" and not value):
                self._wrong((key,), f"must be a list of sections, not {value_text(value) if value != [] else 'empty'}")
                return ()
            return tuple(self._stage(n, v) if key == "stages" else self._typed((key, n), v) for n, v in enumerate(value))
        annotation = RunConfig.model_fields[key].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return self._validate(annotation, (key,), value)
        return self._plain(key, annotation, value)

    def _plain(self, key: str, annotation: Any, value: Any) -> Any:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        found, errors = _checked(adapter, value)
        models = models_in(annotation)
        self._note(models[0] if models else RunConfig, (key,), value, errors)
        return found

    def _sources(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._wrong(("sources",), f"must be a section (name: source), not {value_text(value)}")
            return {}
        names: Any = RunConfig.model_fields["sources"].annotation
        adapter: TypeAdapter[Any] = TypeAdapter(names)
        kept = {name: section for name, section in value.items() if section is not None}
        try:
            adapter.validate_python(kept)
        except ValidationError as error:
            self._note(RunConfig, ("sources",), kept, list(error.errors(include_url=False)))
        return {name: self._typed(("sources", name), section) for name, section in kept.items()}

    def _typed(self, path: Path, value: Any) -> Any:
        model = self.configs.get(path)
        return None if model is None else self._validate(model, path, value)

    def _stage(self, number: int, value: Any) -> Any:
        path: Path = ("stages", number)
        mixer = self._typed((*path, "mixer"), value.get("mixer", {"type": "static"}) if isinstance(value, dict) else None)
        plain = {key: item for key, item in value.items() if key != "mixer"} if isinstance(value, dict) else value
        stage = self._validate(Stage, path, plain)
        return stage.model_copy(update={"mixer": mixer}) if stage is not None and mixer is not None else None

    def _validate(self, model: Model, path: Path, value: Any) -> Any:
        try:
            found, errors = _checked(TypeAdapter(model), value)
        except Exception as error:
            # A validator of a plugin may fail on data it didn't expect; that must not hide the other problems.
            self._wrong(path, f"the model {model.__name__} can't check this section ({type(error).__name__}: {error})")
            return None
        self._note(model, path, value, errors)
        return found if not errors else None

    def _note(self, model: Model, path: Path, value: Any, errors: list[Mapping[str, Any]]) -> None:
        """Turn pydantic's findings into problems with full paths."""
        for error in errors:
            inside = _place(error, value)
            here = (*path, *inside)
            if error["type"] == "extra_forbidden":
                names = [name for found in models_at(model, inside[:-1]) for name in found.model_fields]
                self._wrong(here, self.guide.unknown(here, names))
            elif error["type"] == "missing":
                self._wrong(here, _missing(model, inside))
            elif "[key]" in error["loc"]:
                self._wrong(here, f"the name {explain(error)}")
            else:
                self._wrong(here, explain(error))


def _checked(adapter: TypeAdapter[Any], value: Any) -> tuple[Any, list[Mapping[str, Any]]]:
    """The validated value and what is wrong with it.

    Strict rules where they can be kept: behind a `mode="before"` validator pydantic's strict mode also refuses lists for
    tuples, so of its findings only those about single values count there.
    """
    text = json.dumps(value)
    try:
        return adapter.validate_json(text, strict=True), []
    except ValidationError as error:
        strict = [finding for finding in error.errors(include_url=False) if finding["type"] in SCALARS]
    try:
        found, errors = adapter.validate_json(text), []
    except ValidationError as error:
        found, errors = None, list(error.errors(include_url=False))
    known = {finding["loc"] for finding in errors}
    return found, [*errors, *(finding for finding in strict if finding["loc"] not in known)]


def _place(error: Mapping[str, Any], value: Any) -> Path:
    """The path of an error within the data: pydantic's location without its labels of unions and functions."""
    path: Path = ()
    location = error["loc"]
    for number, part in enumerate(location):
        inside = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if inside:
            path, value = (*path, part), value[part]
        elif error["type"] == "missing" and number == len(location) - 1:
            path = (*path, part)
    return path


def _missing(model: Model, path: Path) -> str:
    if path and isinstance(path[-1], int):
        return "missing; the list needs more entries"
    for found in models_at(model, path[:-1]):
        info = found.model_fields.get(str(path[-1])) if path else None
        if info is not None and info.description:
            return f"missing: {info.description}"
    return "missing; this setting has no default"
