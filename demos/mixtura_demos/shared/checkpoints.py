"""Weights that a demo can use: runs, exports and published folders below the working folder, or named when the hub starts.

Looking reads small YAML files and imports neither torch nor a plugin. A picker's value is a short id that the server
drew up itself; a path that a client makes up is not among them.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr
import yaml

from mixtura_demos.shared.errors import Refused
from mixtura_demos.shared.jobs import QUICK

if TYPE_CHECKING:
    from mixtura.system import System

FOLDERS = ("runs", "exports", "weights")
PUBLISHED = (".pth", ".pt", ".ckpt", ".bin")
COMMANDS = {"iflybot_vla": "make train", "diffusion_gs": "make gaussians", "live_portrait": "make portrait"}
CACHED = 2

_offered: dict[str, Choice] = {}
_loaded: OrderedDict[tuple[Path, int], System] = OrderedDict()
_lock = threading.RLock()


@dataclass(frozen=True)
class Choice:
    """Weights of a system and where they lie."""

    label: str
    path: Path
    kind: Literal["run", "export", "published"]
    system: str

    @property
    def id(self) -> str:
        """What the picker sends: depends on the place alone."""
        return hashlib.sha256(str(self.path).encode()).hexdigest()[:16]


def found(system: str, extra: Path | None = None, root: Path | None = None) -> list[Choice]:
    """Weights of `system` in the `FOLDERS` of `root` (the working folder), newest first, `extra` before all."""
    base = Path.cwd() if root is None else root
    folders = [path for name in FOLDERS for path in sorted((base / name).glob("*")) if path.is_dir()]
    choices = [choice for path in folders if (choice := _choice(path, system))]
    choices.sort(key=lambda choice: _age(choice.path), reverse=True)
    named = _choice(extra, system, named=True) if extra is not None else None
    if named is not None:
        choices = [named, *(choice for choice in choices if choice.path != named.path)]
    return choices


def _choice(path: Path, system: str, named: bool = False) -> Choice | None:
    """What a folder holds for `system`; a folder without config.yaml counts when it was named and holds published files."""
    path = path.resolve()
    kind = _kind(path)
    config = path / "config.yaml"
    if kind is None or (not config.is_file() and not named):
        return None
    if config.is_file() and _system_of(config) != system:
        return None
    label = {"run": path.name, "export": f"{path.name} (export)", "published": f"{path.name} (published)"}[kind]
    return Choice(label, path, kind, system)


def _kind(path: Path) -> Literal["run", "export", "published"] | None:
    if (path / "DONE").is_file() and (path / "config.yaml").is_file():
        return "export"
    if any((step / "DONE").is_file() for step in path.glob("step-*")):
        return "run"
    if path.is_dir() and any(file.suffix in PUBLISHED for file in path.rglob("*")):
        return "published"
    return None


def _system_of(config: Path) -> str | None:
    """`system.type` of a configuration; None for what isn't one."""
    try:
        if config.stat().st_size > 2**20:
            return None
        content = yaml.safe_load(config.read_text())
        return str(content["system"]["type"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None


def _age(path: Path) -> float:
    return max((file.stat().st_mtime for file in (path, *path.glob("step-*"))), default=0.0)


def advice(system: str) -> str:
    """One line on how to get weights of a system."""
    command = COMMANDS.get(system)
    if command is None:
        return f"No weights of {system} were found in {', '.join(FOLDERS)}; train some first: mixtura train CONFIG"
    return f"No weights of {system} were found in {', '.join(FOLDERS)}; train some first: {command}"


def picker(system: str, run: Path | None, label: str = "Weights") -> gr.Dropdown:
    """A field that offers what `found` finds, looked for again when the page is loaded and by the button beside it."""

    def look() -> dict[str, Any]:
        choices = _offer(system, run)
        return gr.update(choices=choices, value=choices[0][1] if choices else None)

    def again(value: str | None) -> dict[str, Any]:
        choices = _offer(system, run)
        known = [key for _, key in choices]
        return gr.update(choices=choices, value=value if value in known else next(iter(known), None))

    choices = _offer(system, run)
    with gr.Row(equal_height=True, elem_classes="mx-picker"):
        field = gr.Dropdown(
            choices,
            value=choices[0][1] if choices else None,
            label=label,
            info=None if choices else advice(system),
            scale=5,
            interactive=True,
        )
        refresh = gr.Button("Look again", scale=1, min_width=110, size="sm")
    refresh.click(again, field, field, **QUICK)
    block = gr.context.Context.root_block
    if block is not None:
        block.load(look, None, field, **QUICK)
    return field


def _offer(system: str, run: Path | None) -> list[tuple[str, str]]:
    """(label, id) of what is found now; labels that occur twice tell their folder as well."""
    choices = found(system, run)
    labels = [choice.label for choice in choices]
    with _lock:
        _offered.update({choice.id: choice for choice in choices})
    return [
        (choice.label if labels.count(choice.label) == 1 else f"{choice.label} in {choice.path.parent.name}", choice.id)
        for choice in choices
    ]


def chosen(value: Any, system: str | None = None) -> Choice:
    """What a picker's value stands for. Raises Refused when nothing was chosen, or for a value that no picker offered."""
    if value is None or value == "":
        raise Refused(advice(system) if system else "no weights were chosen; if there are none, train one first: make train")
    with _lock:
        choice = _offered.get(value) if isinstance(value, str) else None
    if choice is None or (system is not None and choice.system != system):
        raise Refused("these weights are not among those offered; press 'Look again' and choose from the list")
    if not choice.path.is_dir():
        raise Refused(f"{choice.label} is gone from the disk; press 'Look again' and choose another one")
    return choice


def load(choice: Choice) -> System:
    """The system in evaluation mode; the last two stay in memory. One caller loads, others wait. Raises MixturaError."""
    from mixtura import checkpoint

    with _lock:
        place = choice.path if choice.kind == "published" else checkpoint.locate(choice.path)
        key = (place, place.stat().st_mtime_ns)
        if key not in _loaded:
            while len(_loaded) >= CACHED:
                _loaded.popitem(last=False)
            _loaded[key] = _published(choice) if choice.kind == "published" else checkpoint.load_system(place)[0]
        _loaded.move_to_end(key)
        return _loaded[key]


def _published(choice: Choice) -> System:
    """A system filled with official files: as the folder's config.yaml says, or of the published size."""
    from mixtura import checkpoint
    from mixtura.config import load as read
    from mixtura.plugins import registry

    cls = registry().get("system", choice.system)
    config = choice.path / "config.yaml"
    section = (
        read(config).config.system if config.is_file() else cls.Config.model_validate({"type": choice.system, "size": "full"})
    )
    system: System = cls(section)
    files = sorted(file for file in choice.path.rglob("*") if file.suffix in PUBLISHED)
    checkpoint.take_published(system, files[0])
    return system.eval()
