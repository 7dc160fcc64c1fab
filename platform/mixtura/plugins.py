"""What is installed: plugins describe themselves in one object, the registry finds and imports what they offer.

A distribution names its `Plugin` in the entry-point group `mixtura.plugins`; the environment variable
MIXTURA_PLUGINS (`module:attr,…`) adds plugins that aren't installed. Listing imports only the modules that hold
those objects, never torch; `Registry.get` imports the one thing asked for. A plugin that can't be read is set
aside with its traceback and never breaks another one.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.metadata
import os
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mixtura import API_VERSION
from mixtura.errors import MixturaError

GROUP = "mixtura.plugins"
VARIABLE = "MIXTURA_PLUGINS"
Kind = Literal["system", "source", "mixer", "evaluator", "generator", "demo"]
KINDS: tuple[Kind, ...] = get_args(Kind)

KNOWN: dict[str, str] = {
    "iflybot_vla": "mixtura-iflybot-vla",
    "metaworld_demos": "mixtura-iflybot-vla",
    "closed_loop": "mixtura-iflybot-vla",
    "diffusion_gs": "mixtura-diffusion-gs",
    "depth_any_video": "mixtura-depth-any-video",
    "live_portrait": "mixtura-live-portrait",
    "omni_human": "mixtura-omni-human",
}
"""Names that come with distributions of ours, for a hint when they aren't installed."""


@dataclass(frozen=True)
class Plugin:
    """What a distribution offers. The mappings go from a name to "module:attribute", imported when asked for.

    A system, source, mixer, evaluator or generator is a class with a pydantic model `Config`; a demo is a function
    `build(run: Path | None) -> gradio.Blocks`. `configs` is a package folder with ready YAML files. `requires` maps a
    module to the extra of this distribution that installs it. `api` is the contract's version the plugin is written for.
    """

    name: str
    api: int = 1
    summary: str = ""
    systems: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    mixers: Mapping[str, str] = field(default_factory=dict)
    evaluators: Mapping[str, str] = field(default_factory=dict)
    generators: Mapping[str, str] = field(default_factory=dict)
    demos: Mapping[str, str] = field(default_factory=dict)
    configs: str | None = None
    requires: Mapping[str, str] = field(default_factory=dict)

    def offers(self, kind: Kind) -> Mapping[str, str]:
        """Names of one kind and where they are."""
        offered: Mapping[str, str] = getattr(self, f"{kind}s")
        return offered


@dataclass(frozen=True)
class PluginInfo:
    """A plugin that can be used, and the distribution it came with."""

    plugin: Plugin
    distribution: str
    version: str

    @property
    def name(self) -> str:
        """The plugin's name."""
        return self.plugin.name

    def __str__(self) -> str:
        return f"plugin '{self.name}' of {self.distribution} {self.version}".rstrip()


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that was set aside: `error` is one line, `traceback` the rest."""

    name: str
    distribution: str
    version: str
    error: str
    traceback: str


class UnknownName(MixturaError):
    """Nothing of this name is installed. `suggestions` are near names, `known` all names of the kind."""

    def __init__(self, text: str, suggestions: tuple[str, ...], known: tuple[str, ...]) -> None:
        super().__init__(text)
        self.suggestions, self.known = suggestions, known


class AmbiguousName(MixturaError):
    """Two plugins offer the same name."""


class PluginError(MixturaError):
    """A plugin's class can't be imported."""


@dataclass(frozen=True)
class _Entry:
    """Where a plugin object is said to be."""

    name: str
    value: str
    distribution: str
    version: str


def _entries() -> Iterator[_Entry]:
    """Built-ins, installed distributions by name, then MIXTURA_PLUGINS; the same place counts once."""
    from mixtura import __version__

    yield _Entry("builtin", "mixtura.builtin:plugin", "mixtura", __version__)
    seen: set[str] = set()
    points = importlib.metadata.entry_points(group=GROUP)
    for point in sorted(points, key=lambda p: (p.dist.name if p.dist else "", p.name)):
        if point.value not in seen:
            seen.add(point.value)
            owner = point.dist
            yield _Entry(point.name, point.value, owner.name if owner else "unknown", owner.version if owner else "")
    for value in os.environ.get(VARIABLE, "").split(","):
        value = value.strip()
        if value and value not in seen:
            seen.add(value)
            yield _Entry(value.partition(":")[0], value, VARIABLE, "")


def _import(place: str) -> Any:
    """The object at "module:attribute"."""
    module_name, _, attribute = place.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"'{place}' must be 'module:attribute'")
    found: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _flaw(plugin: Any) -> str | None:
    """What is wrong with a plugin object, or None."""
    if not isinstance(plugin, Plugin):
        return f"expected a mixtura.plugins.Plugin, found {type(plugin).__name__}"
    if plugin.api != API_VERSION:
        return f"written for plugin API {plugin.api}, this mixtura has {API_VERSION}; install versions that go together"
    if not isinstance(plugin.name, str) or not plugin.name.replace("-", "_").isidentifier():
        return f"name must be a word (letters, digits, _ or -), not {plugin.name!r}"
    for kind in KINDS:
        offered = plugin.offers(kind)
        if not isinstance(offered, Mapping):
            return f"{kind}s must map names to 'module:attribute', not {type(offered).__name__}"
        for key, place in offered.items():
            good = isinstance(key, str) and isinstance(place, str) and all(place.partition(":"))
            if not good:
                return f"{kind}s[{key!r}] must be 'module:attribute', not {place!r}"
    return None


def near(name: str, known: Iterable[str]) -> tuple[str, ...]:
    """Names like `name`, best first; `_`, `-` and case don't count."""
    plain: dict[str, str] = {}
    for key in known:
        plain.setdefault(_plain(key), key)
    return tuple(plain[match] for match in difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.6))


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


class Registry:
    """All plugins found once; see `registry`."""

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self._plugins: list[PluginInfo] = []
        self._broken: list[BrokenPlugin] = []
        for entry in entries:
            self._add(entry)

    def _add(self, entry: _Entry) -> None:
        """Read one plugin object, or set it aside. SystemExit is caught too: a plugin must not end the program."""
        try:
            plugin = _import(entry.value)
            flaw = _flaw(plugin)
            text = ""
        except (Exception, SystemExit) as error:
            flaw = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            text = traceback.format_exc()
        if flaw is None:
            self._plugins.append(PluginInfo(plugin, entry.distribution, entry.version))
        else:
            self._broken.append(
                BrokenPlugin(entry.name, entry.distribution, entry.version, flaw, text or f"{entry.value}: {flaw}\n")
            )

    def plugins(self) -> list[PluginInfo]:
        """Plugins that can be used, built-ins first."""
        return list(self._plugins)

    def broken(self) -> list[BrokenPlugin]:
        """Plugins that were set aside."""
        return list(self._broken)

    def _owners(self, kind: Kind) -> dict[str, list[PluginInfo]]:
        owners: dict[str, list[PluginInfo]] = {}
        for info in self._plugins:
            for name in info.plugin.offers(kind):
                owners.setdefault(name, []).append(info)
        return owners

    def names(self, kind: Kind) -> dict[str, PluginInfo]:
        """Everything of a kind, without importing it; a name that two plugins claim is listed as `plugin:name`."""
        listed: dict[str, PluginInfo] = {}
        for name, infos in sorted(self._owners(kind).items()):
            for info in infos:
                listed[name if len(infos) == 1 else f"{self._label(info, infos)}:{name}"] = info
        return listed

    def find(self, kind: Kind, name: str) -> tuple[PluginInfo, str]:
        """Who offers `name` (or `plugin:name`), and where. Raises UnknownName and AmbiguousName; imports nothing."""
        if kind not in KINDS:
            raise MixturaError(f"no kind of thing is called '{kind}'; kinds: {', '.join(KINDS)}")
        owner, _, plain = name.rpartition(":")
        infos = self._owners(kind).get(plain, [])
        if owner:
            infos = [info for info in infos if owner in (info.name, info.distribution)]
        if not infos:
            raise self._unknown(kind, name, plain)
        if len(infos) > 1:
            choices = " or ".join(f"'{self._label(info, infos)}:{plain}'" for info in infos)
            claims = " and ".join(str(info) for info in infos)
            raise AmbiguousName(f"{kind} '{name}' is offered by {claims}; write {choices}")
        return infos[0], infos[0].plugin.offers(kind)[plain]

    @staticmethod
    def _label(info: PluginInfo, others: list[PluginInfo]) -> str:
        """The plugin's name, or its distribution's where two plugins are called alike."""
        return info.name if sum(other.name == info.name for other in others) == 1 else info.distribution

    def get(self, kind: Kind, name: str) -> Any:
        """Import what `name` stands for. Raises UnknownName, AmbiguousName, or PluginError when the import fails."""
        info, place = self.find(kind, name)
        try:
            return _import(place)
        except MixturaError:
            raise
        except Exception as error:
            raise PluginError(f"{kind} '{name}' of {info} can't be imported ({place}): {_reason(info, error)}") from error

    def _unknown(self, kind: Kind, name: str, plain: str) -> UnknownName:
        known = tuple(self.names(kind))
        suggestions = near(name, known) or near(plain, known)
        parts = [f"no {kind} is called '{name}'"]
        if suggestions:
            parts.append(f"did you mean '{suggestions[0]}'?")
        elif hint := self._hint(plain):
            parts.append(hint)
        parts.append(f"known: {', '.join(known) or 'none'}")
        return UnknownName("; ".join(parts), suggestions, known)

    def _hint(self, name: str) -> str:
        """Which distribution of ours has a name that isn't installed, or which broken plugin may have it."""
        for found in near(name, KNOWN)[:1]:
            distribution = KNOWN[found]
            broken = [b for b in self._broken if distribution in (b.distribution, f"mixtura-{b.name}".replace("_", "-"))]
            if broken:
                state = f"is installed but broken ({broken[0].error})"
                return f"'{found}' comes with {distribution}, which {state}; see `mixtura doctor`"
            if all(info.distribution != distribution for info in self._plugins):
                return f"'{found}' comes with {distribution}: pip install {distribution}"
        return ""


def _reason(info: PluginInfo, error: Exception) -> str:
    """One line on why an import failed, with the remedy where it is a missing package."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, ModuleNotFoundError) and error.name:
        extra = info.plugin.requires.get(error.name.partition(".")[0])
        if extra:
            return f"{reason}; pip install '{info.distribution}[{extra}]'"
    return reason


@functools.cache
def registry() -> Registry:
    """The registry of this process, built once (`registry.cache_clear()` looks again)."""
    return Registry(_entries())
