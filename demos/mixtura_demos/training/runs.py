"""The runs that the page offers, and what their folders hold; the report's readers do the reading.

A picker's value is an id that the server drew up; a path that a client makes up is not among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixtura.report.data import RunLog, read_run
from mixtura.report.page import tell_apart
from mixtura_demos.shared.errors import Refused

FOLDER = "runs"
MOST = 12
"""Runs that are shown together."""


@dataclass(frozen=True)
class RunChoice:
    """A run folder and what it is called in the list."""

    label: str
    path: Path

    @property
    def id(self) -> str:
        """What the picker sends: depends on the place alone."""
        return hashlib.sha256(str(self.path).encode()).hexdigest()[:16]


def found(extra: Path | None = None, root: Path | None = None) -> list[RunChoice]:
    """Runs in `runs/` of `root` (the working folder) and one level below (ablations), newest first; `extra` before all."""
    base = ((root or Path.cwd()) / FOLDER).resolve()
    folders = [folder for pattern in ("*", "*/*") for folder in base.glob(pattern) if _is_run(folder, base)]
    folders.sort(key=_age, reverse=True)
    choices = [RunChoice(str(folder.relative_to(base)), folder) for folder in folders]
    if extra is not None and _holds_run(extra):
        place = extra.resolve()
        choices = [RunChoice(place.name, place), *(choice for choice in choices if choice.path != place)]
    return choices


def _is_run(folder: Path, base: Path) -> bool:
    """Whether a folder below `base` holds a run of its own: no link that leads elsewhere, no checkpoint of a run."""
    return not folder.is_symlink() and _holds_run(folder) and (folder.parent == base or not _holds_run(folder.parent))


def _holds_run(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "log.jsonl").is_file() or (folder / "config.yaml").is_file())


def _age(folder: Path) -> float:
    files = [folder / name for name in ("log.jsonl", "config.yaml") if (folder / name).exists()]
    return max(file.stat().st_mtime for file in files)


def chosen(ids: Sequence[str] | None, extra: Path | None, root: Path | None = None) -> list[Path]:
    """Folders of the chosen runs. Raises Refused for none, for too many, and for ids that the list doesn't hold."""
    if not ids:
        raise Refused("no run is chosen; choose one from the list, or make one with mixtura train CONFIG")
    if len(ids) > MOST:
        raise Refused(f"{len(ids)} runs are too many for one page; choose at most {MOST}")
    known = {choice.id: choice.path for choice in found(extra, root)}
    if not all(isinstance(key, str) and key in known for key in ids):
        raise Refused("a chosen run is gone or was never offered; press 'Look again' and choose from the list")
    return [known[key] for key in ids]


def read(folders: Sequence[Path]) -> list[RunLog]:
    """The logs of runs, with labels that differ."""
    logs = [read_run(folder) for folder in folders]
    tell_apart(logs)
    return logs


def state_of(folders: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    """Changes when a log grows."""
    stats = [(folder / "log.jsonl").stat() for folder in folders if (folder / "log.jsonl").exists()]
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)
