"""The hub: a page with one tab for each demo that the registry knows, ours and those of third parties.

The page is made from the registry alone, so it is there before gradio is imported. A demo is imported and built when its
tab is first opened, served below its own path, and fails there alone. See `serve` for the server.
"""

from __future__ import annotations

import ast
import html
import importlib.util
import logging
import re
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixtura.errors import MixturaError
from mixtura.plugins import PluginInfo, registry

if TYPE_CHECKING:
    import gradio as gr

LOG = logging.getLogger("mixtura_demos")
HERE = Path(__file__).parent
PATIENCE = 60.0
_building = threading.Lock()


class BrokenDemo(MixturaError):
    """A demo can't be imported or built."""


@dataclass(frozen=True)
class Entry:
    """A demo as the hub lists it. `slug` is its place in addresses."""

    name: str
    slug: str
    title: str
    summary: str
    origin: str


def entries(only: str | None = None) -> list[Entry]:
    """All demos, training first, or the one called `only` (which must exist); nothing is imported."""
    names = registry().names("demo")
    if only is not None:
        info, _ = registry().find("demo", only)
        names = {only: info}
    listed: list[Entry] = []
    for name, info in sorted(names.items(), key=lambda item: (item[0] != "training", item[1].name != "demos", item[0])):
        slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "demo"
        while slug in [entry.slug for entry in listed]:
            slug += "-"
        listed.append(Entry(name, slug, title_of(name), summary_of(name, info), f"{info.distribution} {info.version}".strip()))
    return listed


def summary_of(name: str, info: PluginInfo) -> str:
    """What the system of this name is, else what the demo's plugin is."""
    system = registry().names("system").get(name)
    return (system or info).plugin.summary


def title_of(name: str) -> str:
    """The title that the demo's module gives (`title = "…"`), read without importing it; else its name.

    A module with several demos can't name them all: those go by their names.
    """
    info, place = registry().find("demo", name)
    module = place.partition(":")[0]
    title = None
    if sum(other.partition(":")[0] == module for other in info.plugin.demos.values()) == 1:
        try:
            found = importlib.util.find_spec(module)
            source = Path(found.origin).read_text() if found and found.origin else ""
            title = _assigned_title(ast.parse(source))
        except (Exception, SystemExit):
            title = None  # opening its tab tells what is wrong
    return title or name.rpartition(":")[2].replace("_", " ").capitalize()


def _assigned_title(tree: ast.Module) -> str | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        value = getattr(node, "value", None)
        is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
        if is_text and any(isinstance(target, ast.Name) and target.id == "title" for target in targets):
            return str(value.value).strip()[:40] or None  # type: ignore[union-attr]
    return None


def build(entry: Entry, run: Path | None) -> gr.Blocks:
    """Import and build a demo. Raises BrokenDemo with one line; the log has the rest."""
    import gradio as gr
    from gradio.context import Context

    try:
        builder = registry().get("demo", entry.name)
        if not _building.acquire(timeout=PATIENCE):
            raise BrokenDemo(f"another demo has been under construction for {PATIENCE:.0f} seconds; start the hub without it")
        try:
            blocks = builder(run)
        finally:
            Context.root_block = None
            _building.release()
        if not isinstance(blocks, gr.Blocks):
            raise BrokenDemo(f"build must return a gradio.Blocks, not {type(blocks).__name__}")
        return blocks
    except (Exception, SystemExit) as error:
        LOG.error("demo '%s' of %s can't be opened\n%s", entry.name, entry.origin, traceback.format_exc())
        reason = str(error) if isinstance(error, MixturaError) else f"{type(error).__name__}: {error}"
        raise BrokenDemo(f"'{entry.name}' of {entry.origin} can't be opened: {reason}") from error


def page(listed: list[Entry]) -> str:
    """The hub's page."""
    tabs = "".join(_tab(entry.slug, entry.title) for entry in listed)
    panels = "".join(_panel(entry) for entry in listed)
    values = {
        "TABS": (_tab("overview", "Overview") if len(listed) != 1 else "") + tabs,
        "PANELS": panels,
        "CARDS": "".join(_card(entry) for entry in listed) or "<p>No demo is installed.</p>",
        "BROKEN": "".join(_broken()),
    }
    text = (HERE / "page.html").read_text()
    return re.sub(r"@([A-Z]+)@", lambda mark: values[mark[1]], text)


def error_page(title: str, message: str) -> str:
    """What a demo's tab shows when it can't be opened."""
    text = (HERE / "broken.html").read_text()
    values = {"TITLE": html.escape(title), "MESSAGE": html.escape(message)}
    return re.sub(r"@([A-Z]+)@", lambda mark: values[mark[1]], text)


def _tab(slug: str, title: str) -> str:
    return (
        f'<button role="tab" id="tab-{slug}" data-slug="{slug}" aria-controls="panel-{slug}" aria-selected="false" '
        f'tabindex="-1">{html.escape(title)}</button>'
    )


def _panel(entry: Entry) -> str:
    title = html.escape(entry.title, quote=True)
    return (
        f'<section role="tabpanel" id="panel-{entry.slug}" aria-labelledby="tab-{entry.slug}" hidden>'
        f'<p class="opening" role="status">Opening {title} …</p>'
        f'<iframe title="{title}" data-src="demo/{entry.slug}/"></iframe></section>'
    )


def _card(entry: Entry) -> str:
    return (
        f'<li><a href="#{entry.slug}" data-slug="{entry.slug}"><strong>{html.escape(entry.title)}</strong>'
        f"<span>{html.escape(entry.summary)}</span><small>{html.escape(entry.origin)}</small></a></li>"
    )


def _broken() -> list[str]:
    """Plugins that couldn't be read at all, whose demos are therefore unknown."""
    return [
        f'<p class="broken" role="note">Plugin {html.escape(found.name)} of {html.escape(found.distribution)} is broken: '
        f"{html.escape(found.error)}. <code>mixtura doctor</code> tells more.</p>"
        for found in registry().broken()
    ]


def facts(listed: list[Entry]) -> list[dict[str, Any]]:
    """What the hub lists, for programs."""
    return [{"name": entry.name, "slug": entry.slug, "title": entry.title, "origin": entry.origin} for entry in listed]
