"""A data set that is built beside its place and moved there when it is whole, so that nothing half made looks finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixtura.errors import DataError

MARKER, RECIPE = "generated.json", "recipe.json"
"""Written last, and first: what the data were made from."""


class Build:
    """A folder `path` made from `recipe`, JSON values that say all it depends on."""

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        self.path, self.recipe = path, json.loads(json.dumps(recipe))

    def is_done(self) -> bool:
        """Whether the finished data of exactly this recipe are there."""
        return _content(self.path / MARKER).get("recipe") == self.recipe

    def run(self, fill: Callable[[Path], dict[str, Any]]) -> None:
        """Have `fill` write into a folder beside `path`, and move it there; `fill` returns facts for the marker.

        What an interrupted run of the same recipe left in that folder is still in it. DataError when other files are at `path`.
        """
        if self.is_done():
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise DataError(f"{self.path} holds other data than this configuration makes; delete it or choose another `path`")
        part = self.path.with_name(self.path.name + ".part")
        if _content(part / RECIPE) != self.recipe:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            (part / RECIPE).write_text(json.dumps(self.recipe))
        facts = fill(part)
        (part / MARKER).write_text(json.dumps({"recipe": self.recipe, **facts}, indent=1))
        (part / RECIPE).unlink()
        if self.path.exists():
            self.path.rmdir()
        part.rename(self.path)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is whole or as before, whenever the process dies."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def _content(path: Path) -> dict[str, Any]:
    """A JSON file, empty when there is none or it is broken."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
