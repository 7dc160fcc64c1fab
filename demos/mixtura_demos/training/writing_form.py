"""The page's part about a run to come: start from a ready configuration, change values, see problems and YAML, write a file."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from mixtura_demos.shared.errors import Refused, shown
from mixtura_demos.training import starts, writing
from mixtura_demos.training.document import Document
from mixtura_demos.training.form_page import form
from mixtura_demos.training.layout import layout
from mixtura_demos.training.looks import FORM_CSS, FORM_SCRIPT, PROBLEMS_SCRIPT

# Changes of one page must come in order, and so must those of writing after them.
ORDERED: dict[str, Any] = {
    "concurrency_id": "training-form",
    "concurrency_limit": 1,
    "trigger_mode": "multiple",
    "show_progress": "hidden",
    "api_visibility": "private",
}
INTRODUCTION = (
    "Start from a ready configuration, change a few values, write the file, run the command. What you leave empty has its "
    "default; names in bold are set in the file. `${run.name}` refers to another setting."
)
NONE_YET = "<p class='fine'>Load a configuration first.</p>"
ASIDE = "<style>@media (min-width: 900px) { #form-aside { position: sticky; top: 8px; align-self: start; } }</style>"


def build_form() -> None:
    """Lay out the part and wire it."""
    gr.Markdown(INTRODUCTION, elem_classes="mx-note")
    names = starts.systems()
    with gr.Row(equal_height=True, elem_classes="mx-picker"):
        system = gr.Dropdown(names, value=next(iter(names), None), label="System", scale=2)
        begin = gr.Dropdown([], label="Start from", scale=4)
        load = gr.Button("Load into the form", variant="primary", scale=1, min_width=160)
    document = gr.State(None)
    revision = gr.State(0)
    with gr.Row():
        with gr.Column(scale=3, min_width=420):
            page = gr.HTML(NONE_YET, css_template=FORM_CSS, js_on_load=FORM_SCRIPT, apply_default_css=False, elem_id="run-form")
        with gr.Column(scale=2, min_width=360, elem_id="form-aside"):
            gr.HTML(ASIDE)
            problems = gr.HTML(
                "", css_template=FORM_CSS, js_on_load=PROBLEMS_SCRIPT, apply_default_css=False, elem_id="form-problems"
            )
            preview = gr.Code("", language="yaml", label="YAML", lines=12, max_lines=28, interactive=False, elem_id="form-yaml")
            name = _build_writing(document)
    outputs = [document, revision, page, problems, preview]
    system.input(shown(_offer), system, begin, trigger_mode="always_last", show_progress="hidden", api_visibility="private")
    block = gr.context.Context.root_block
    if block is not None:
        block.load(shown(_offer), system, begin, show_progress="hidden", api_visibility="private")
    load.click(shown(_load), [system, begin, revision], [*outputs, name], **{**ORDERED, "show_progress": "minimal"})
    page.edit(shown(_edit), document, [document, problems, preview], **ORDERED)
    page.act(shown(_act), [document, revision], outputs, **ORDERED)


def _build_writing(document: gr.State) -> gr.Textbox:
    """Download for everybody; a file in the working folder for those who sit at the machine. Returns the name's field."""
    download = gr.Button("Make a file to download")
    file = gr.File(label="Configuration", interactive=False, visible=False)
    with gr.Group(visible=False) as local:
        folder = gr.Dropdown([], label="Folder", info="in the folder in which the demos were started")
        name = gr.Textbox(label="File name", info="a plain word; .yaml is added", max_lines=1, max_length=80)
        replace = gr.Checkbox(label="Replace a file of this name")
        write = gr.Button("Write the file", variant="primary")
    command = gr.Code(label="Command", language="shell", interactive=False, visible=False, lines=1, elem_id="form-command")
    download.click(shown(_download), document, [file, command], **ORDERED)
    write.click(shown(_write), [document, folder, name, replace], [command, replace], **ORDERED)
    block = gr.context.Context.root_block
    if block is not None:
        block.load(_offer_folders, None, [local, folder], show_progress="hidden", api_visibility="private")
    return name


# -- handlers ------------------------------------------------------------------------------------------------
def _offer(system: str) -> Any:
    if system not in starts.systems():
        raise Refused(f"no system is called so; installed: {', '.join(starts.systems())}")
    labels = [start.label for start in starts.starts(system)]
    return gr.Dropdown(labels, value=labels[0])


def _load(system: str, label: str, revision: int) -> tuple[Any, ...]:
    document = Document.begin(starts.start(system, label))
    return *_whole(document, revision), writing.plain_word(document.value(("run", "name")))


def _edit(document: Document | None, event: gr.EventData) -> tuple[Any, ...]:
    """A field's content changed."""
    document = _given(document)
    path = _path(event, "path")
    setting = layout(document).fields().get(path)
    if setting is None:
        raise Refused("the form has no such field; load the configuration again")
    changed = document.put(setting, event._data.get("value"))
    return changed, _problems(changed), changed.text()


def _act(document: Document | None, revision: int, event: gr.EventData) -> tuple[Any, ...]:
    """A button or a switch changed what the form holds."""
    document = _given(document)
    action = ACTIONS.get(event._data.get("action"))
    if action is None:
        raise Refused("the form has no such button; load the page again")
    return _whole(action(document, _path(event, "at"), event._data), revision)


def _add(document: Document, path: tuple[str | int, ...], data: dict[str, Any]) -> Document:
    if path == ("stages",):
        return document.with_stage()
    kind = str(data.get("type", ""))
    if path == ("sources",):
        return document.with_source(str(data.get("name", "")).strip(), kind)
    if path in (("evaluate",), ("synth",)):
        return document.with_entry(str(path[0]), kind)
    raise Refused("nothing can be added there")


def _retype(document: Document, path: tuple[str | int, ...], data: dict[str, Any]) -> Document:
    section = layout(document).typed().get(path)
    if section is None or data.get("type") not in section.types:
        raise Refused("nothing of this type is installed; choose one from the list")
    return document.retyped(path, str(data["type"]))


def _switch(document: Document, path: tuple[str | int, ...], data: dict[str, Any]) -> Document:
    if path not in layout(document).optional():
        raise Refused("this section can't be switched on or off")
    return document.switched(path, bool(data.get("on")))


ACTIONS: dict[Any, Callable[[Document, tuple[str | int, ...], dict[str, Any]], Document]] = {
    "add": _add,
    "remove": lambda document, path, _: document.without(path),
    "earlier": lambda document, path, _: document.earlier(path),
    "retype": _retype,
    "switch": _switch,
}


def _download(document: Document | None, request: gr.Request) -> tuple[Any, Any]:
    file = writing.to_download(request, _valid(document))
    return gr.File(str(file), visible=True), gr.Code(writing.command(Path(file.name)), visible=True)


def _write(document: Document | None, folder: str, name: str, replace: bool, request: gr.Request) -> tuple[Any, Any]:
    if not writing.is_local(request):
        raise Refused("files are written only for those who sit at the machine that serves this page; download the file instead")
    file = writing.write(folder, name, _valid(document), bool(replace))
    gr.Info(f"Written: {html.escape(str(file))}")
    return gr.Code(writing.command(file), visible=True), False


def _offer_folders(request: gr.Request) -> tuple[Any, Any]:
    if not writing.is_local(request):
        return gr.Group(visible=False), gr.Dropdown([])
    folders = writing.folders()
    return gr.Group(visible=True), gr.Dropdown(folders, value=folders[0])


# -- pieces --------------------------------------------------------------------------------------------------
def _whole(document: Document, revision: int) -> tuple[Any, ...]:
    """All outputs after what the form holds has changed."""
    page = form(document, layout(document), revision + 1)
    return document, revision + 1, page, _problems(document), document.text()


def _problems(document: Document) -> str:
    """The list of what is wrong; each entry leads to its field."""
    found = document.problems()
    if not found:
        return '<p class="fine" role="status">Valid: <code>mixtura config show</code> takes this file.</p>'
    items = []
    for problem in found:
        at = html.escape(json.dumps(problem.path), quote=True)
        where = f" (line {problem.line})" if problem.line else ""
        key = f"<code>{html.escape(problem.key)}</code>: " if problem.path else ""
        told = f"<button type='button'>{key}<span>{html.escape(problem.text)}</span>{where}</button>"
        items.append(f'<li data-problem="{at}">{told}</li>')
    count = f"{len(found)} problem{'s' if len(found) > 1 else ''}"
    return f'<div role="status"><p class="wrong">{count}:</p><ul class="problems">{"".join(items)}</ul></div>'


def _given(document: Document | None) -> Document:
    if document is None:
        raise Refused("nothing is loaded; choose a system and a configuration to start from, and press 'Load into the form'")
    return document


def _valid(document: Document | None) -> str:
    """The file's text. Raises Refused while the core finds something wrong."""
    document = _given(document)
    found = document.problems()
    if found:
        first = f"{found[0].key}: {found[0].text}" if found[0].path else found[0].text
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise Refused(f"the configuration isn't valid yet: {first}{more}; mend what is listed above the YAML first")
    return document.text()


def _path(event: gr.EventData, key: str) -> tuple[str | int, ...]:
    """The path that a field or button sent."""
    given = event._data.get(key)
    steps = given if isinstance(given, list) and len(given) <= 20 else []
    if not steps or not all(isinstance(step, str) or type(step) is int for step in steps):
        raise Refused("the form sent no setting; load the page again")
    return tuple(steps)
