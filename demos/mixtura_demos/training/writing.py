"""Where the form's file goes: the session's own folder for download, or a folder of the working folder chosen from a list."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr

from mixtura_demos.guard import LOOPBACK
from mixtura_demos.shared import work
from mixtura_demos.shared.errors import Refused
from mixtura_demos.training.starts import CONFIGS

WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MOST_FOLDERS = 100
NOT_THESE = ("runs", "exports", "weights", "data", "node_modules", "build", "dist")


def folders(root: Path | None = None) -> list[str]:
    """Folders that may be written to: `configs`, what is in it, and the working folder's own that hold YAML files."""
    base = (root or Path.cwd()).resolve()
    configs = [base / CONFIGS, *sorted(path for path in (base / CONFIGS).glob("*") if path.is_dir())]
    others = sorted(path for path in base.glob("*") if path.is_dir() and next(path.glob("*.yaml"), None) is not None)
    kept = [path for path in dict.fromkeys([*configs, *others]) if _is_own(path, base)]
    return [str(path.relative_to(base)) for path in kept[:MOST_FOLDERS]]


def _is_own(folder: Path, base: Path) -> bool:
    """Whether a folder lies where its name says, and isn't one of those that hold something else."""
    return folder.resolve() == folder and not folder.name.startswith(".") and folder.relative_to(base).parts[0] not in NOT_THESE


def write(folder: str, name: str, text: str, overwrite: bool, root: Path | None = None) -> Path:
    """Write a file and return its path, relative to the working folder. Raises Refused; replaces only when told to."""
    base = (root or Path.cwd()).resolve()
    if folder not in folders(base):
        raise Refused("this folder is not among those offered; choose one from the list")
    word = (name or "").strip().removesuffix(".yaml")
    if not WORD.fullmatch(word):
        raise Refused("the file's name must be a plain word of small letters, digits, - and _ (at most 64); '.yaml' is added")
    file = base / folder / f"{word}.yaml"
    if os.path.lexists(file) and not overwrite:
        raise Refused(f"{folder}/{file.name} exists already; choose another name, or tick 'Replace a file of this name'")
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise Refused(f"{folder}/{file.name} is no plain file; choose another name")
    _put(file, text, overwrite)
    return file.relative_to(base)


def _put(file: Path, text: str, overwrite: bool) -> None:
    """Write whole or not at all, and never over a file that came meanwhile."""
    temporary = file.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        file.parent.mkdir(exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        if overwrite:
            os.replace(temporary, file)
        else:
            os.link(temporary, file)
    except FileExistsError as error:
        raise Refused(f"{file.name} has just come into being; choose another name") from error
    except OSError as error:
        raise Refused(f"the file can't be written ({error.strerror}); choose another folder, or download it") from error
    finally:
        temporary.unlink(missing_ok=True)


def plain_word(name: object) -> str:
    """A file name to suggest for a run's name."""
    word = re.sub(r"[^a-z0-9_-]+", "-", str(name).lower()).strip("-_") if isinstance(name, str) else ""
    return word[:64] if WORD.fullmatch(word[:64]) else "run"


def to_download(request: gr.Request, text: str) -> Path:
    """A file of the session, under a name of ours."""
    file = work.fresh(request, ".yaml")
    file.write_text(text, encoding="utf-8")
    return file


def command(path: Path) -> str:
    """What trains from a file, as it is typed in a shell."""
    return shlex.join(["mixtura", "train", str(path)])


def is_local(request: gr.Request) -> bool:
    """Whether the page is open on the machine that serves it: over loopback, under its name, not through a proxy."""
    inner = getattr(request, "request", None)
    scope = getattr(inner, "scope", None) or {}
    ends = [scope.get(side) for side in ("client", "server")]
    headers = {name.lower(): value for name, value in getattr(inner, "headers", {}).items()}
    name = urlsplit(f"//{headers.get('host', '')}").hostname
    straight = not headers.keys() & {"x-forwarded-for", "x-forwarded-host", "forwarded", "via"}
    return straight and name in LOOPBACK and all(end and _is_loopback(end[0]) for end in ends)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
