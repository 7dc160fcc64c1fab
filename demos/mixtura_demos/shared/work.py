"""Files that demos write: one temporary folder of the server, in it one of each browser session, removed at the end.

Names are drawn by us; nothing that a user sends (file names, session ids) becomes a part of a path.
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from mixtura_demos.shared.errors import Refused

if TYPE_CHECKING:
    import gradio as gr

_lock = threading.Lock()
_root: Path | None = None
_sessions: dict[str, Path] = {}
_uploads: dict[str, set[str]] = {}
"""Uploaded files, and the sessions that have used each."""


def root() -> Path:
    """The server's work folder, made when first asked for; gradio keeps its uploads there too, and serves nothing else."""
    global _root
    with _lock:
        if _root is None:
            _root = Path(tempfile.mkdtemp(prefix="mixtura-demos-")).resolve()
            os.environ["GRADIO_TEMP_DIR"] = str(_root)
            atexit.register(remove_all)
        return _root


def session_folder(request: gr.Request) -> Path:
    """The folder of the browser session that sent `request`; it goes when the session ends."""
    key = request.session_hash
    if not isinstance(key, str) or not key:
        raise Refused("this request belongs to no browser session; use the page")
    base = root()
    with _lock:
        folder = _sessions.get(key)
        if folder is None:
            folder = _sessions[key] = base / f"session-{secrets.token_hex(16)}"
        folder.mkdir(exist_ok=True)
        return folder


def fresh(request: gr.Request, suffix: str) -> Path:
    """A new file name of ours in the session's folder; `suffix` (".mp4") comes from the program, never from the user."""
    if not re.fullmatch(r"\.[a-z0-9]{1,8}", suffix):
        raise ValueError(f"suffix must be like '.mp4', not {suffix!r}")
    return session_folder(request) / f"{secrets.token_hex(12)}{suffix}"


def note_upload(path: str) -> None:
    """gradio has stored an uploaded file."""
    with _lock:
        _uploads.setdefault(path, set())


def note_use(key: str, path: str) -> None:
    """A session has sent the path of a file; counts when it is an uploaded one."""
    with _lock:
        if path in _uploads:
            _uploads[path].add(key)


def end_session(key: str) -> None:
    """Remove what a session wrote, and what it uploaded unless another one has used the same file."""
    with _lock:
        folder = _sessions.pop(key, None)
        mine = [path for path, users in _uploads.items() if key in users]
        for path in mine:
            _uploads[path].discard(key)
        unused = [path for path in mine if not _uploads[path]]
        for path in unused:
            del _uploads[path]
    for path in unused:
        Path(path).unlink(missing_ok=True)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def remove_all() -> None:
    """Remove the work folder; the next `root()` makes a new one."""
    global _root
    with _lock:
        folder, _root = _root, None
        _sessions.clear()
        _uploads.clear()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
