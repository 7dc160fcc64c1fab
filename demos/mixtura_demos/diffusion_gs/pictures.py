"""Pictures for the demo: examples, what a user uploads, and the object cut out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mixtura.errors import MixturaError
from mixtura_demos.diffusion_gs import drawn
from mixtura_demos.shared.errors import Refused
from mixtura_demos.shared.uploads import picture
from mixtura_demos.shared.work import fresh

if TYPE_CHECKING:
    from mixtura_diffusion_gs.use.pictures import Rgba

REMOVERS = ("auto", "alpha", "border", "rembg")
"""Methods that the page offers; the command line also takes a function of the user's, which a page must not name."""
DRAWN: dict[str, tuple[str, Callable[[Path], None]]] = {"Table": ("object", drawn.table), "Room": ("scene", drawn.room)}
"""Title -> kind, and what draws it."""


def examples() -> dict[str, str]:
    """Title -> kind of the pictures that can be had here: pictures of furniture where they are installed, and drawn ones."""
    from mixtura_diffusion_gs.furniture.models import FOLDER
    from mixtura_diffusion_gs.use.examples import EXAMPLES

    icons = {name.capitalize(): "object" for name in EXAMPLES} if FOLDER.is_dir() else {}
    return {**icons, **{title: kind for title, (kind, _) in DRAWN.items()}}


def example(title: str, request: gr.Request) -> Path:
    """An example as a file of the session. Raises MixturaError."""
    path = fresh(request, ".png")
    if title in DRAWN:
        DRAWN[title][1](path)
        return path
    from mixtura_diffusion_gs.use.examples import write_example

    folder = fresh(request, ".made")
    return write_example(title.lower(), folder).rename(path)


def unread(field: gr.Image) -> gr.Image:
    """An image field that hands over the path of what was uploaded, so that we look at it first and say what is wrong with it."""
    vars(field)["preprocess"] = lambda payload: None if payload is None else payload.path
    return field


def given(upload: Any) -> Rgba:
    """What was uploaded, (H, W, 4) uint8. Raises MixturaError for what is no picture, too large, too small or shows nothing."""
    from mixtura_diffusion_gs.use.pictures import load_picture

    picture(upload)
    path = Path(upload)
    try:
        return load_picture(path)
    except MixturaError as error:
        raise Refused(str(error).replace(str(path), "the picture")) from error


def cut_out(rgba: Rgba, remover: Any, say: Callable[[str], None]) -> Rgba:
    """The picture with an alpha that shows the object only. Raises MixturaError."""
    from mixtura_diffusion_gs.use.removal import foreground

    if remover not in REMOVERS:
        raise Refused(f"background removal {remover!r} isn't offered; take one of {', '.join(REMOVERS)}")
    return foreground(rgba, remover, say, "the picture")
