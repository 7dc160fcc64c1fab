"""What the form can start from: ready configurations of the working folder and of a plugin, or a system's bare defaults."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixtura.config import merged
from mixtura.config.show import starter
from mixtura.config.yaml_marks import read
from mixtura.errors import MixturaError
from mixtura.plugins import registry
from mixtura_demos.shared.errors import Refused

CONFIGS = "configs"
ORDER = ("quickstart", "full", "claims")
BARE = "bare: the system's defaults"
MOST_BYTES = 2**20


@dataclass(frozen=True)
class Start:
    """A configuration to begin with; `path` None stands for the system's defaults."""

    label: str
    system: str
    path: Path | None = None

    def data(self) -> dict[str, Any]:
        """Its settings as they are written, bases included. Raises MixturaError."""
        found = read(starter(self.system)).data if self.path is None else merged(self.path)
        sources = found.get("sources")
        if isinstance(sources, dict):  # null takes a source of a base file away, and did so
            found["sources"] = {name: section for name, section in sources.items() if section is not None}
        filled: dict[str, Any] = _without_blanks(found)
        return filled


def _without_blanks(data: Any) -> Any:
    """`...` marks what a starter leaves to be filled in."""
    if isinstance(data, dict):
        return {key: _without_blanks(value) for key, value in data.items() if value != "..."}
    return [_without_blanks(value) for value in data] if isinstance(data, list) else data


def systems() -> list[str]:
    """Every system that is installed, third parties' too; the built-in toy comes last."""
    names = registry().names("system")
    return sorted(names, key=lambda name: (names[name].name == "builtin", name))


def starts(system: str, root: Path | None = None) -> list[Start]:
    """Ready configurations of a system, the shortest to run first, and the bare one. Only YAML is read."""
    listed = [Start(label, system, path) for label, path in _files(system, root or Path.cwd()) if _system_in(path) == system]
    return [*listed, Start(BARE, system)]


def start(system: Any, label: Any, root: Path | None = None) -> Start:
    """The start of this label. Raises Refused for a system or a label that isn't listed."""
    if system not in systems():
        raise Refused(f"no system is called so; installed: {', '.join(systems())}")
    for found in starts(system, root):
        if found.label == label:
            return found
    raise Refused("this configuration is gone or was never offered; choose another one to start from")


def _files(system: str, root: Path) -> list[tuple[str, Path]]:
    """YAML files of the working folder's `configs` and of the plugin's own."""
    base = root / CONFIGS
    files = sorted(
        (path for pattern in ("*.yaml", "*/*.yaml") for path in base.glob(pattern)),
        key=lambda path: (ORDER.index(path.parent.name) if path.parent.name in ORDER else len(ORDER), path),
    )
    listed = [(str(path.relative_to(root)), path) for path in files]
    info, _ = registry().find("system", system)
    for folder in _package_folder(info.plugin.configs):
        listed += [(f"{info.name}: {path.relative_to(folder)}", path) for path in sorted(folder.rglob("*.yaml"))]
    return listed


def _package_folder(place: str | None) -> list[Path]:
    """Folders of a package named `package.configs` or `package/configs`; none where it can't be found."""
    package, *inside = (place or "").replace(":", "/").replace("/", ".").split(".")
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        return []
    roots = spec.submodule_search_locations or [] if spec else []
    return [folder for root in roots if (folder := Path(root).joinpath(*inside)).is_dir()]


def _system_in(path: Path) -> str | None:
    """`system.type` of a file, its bases included; None for what isn't a configuration."""
    try:
        stat = path.stat()
        return _read_system(path, stat.st_mtime_ns) if stat.st_size <= MOST_BYTES else None
    except OSError:
        return None


@functools.lru_cache(maxsize=256)
def _read_system(path: Path, _: int) -> str | None:
    try:
        section = merged(path).get("system")
    except MixturaError:
        return None
    return section.get("type") if isinstance(section, dict) else None
