"""What users give: pictures, clips, templates and landmarks, checked and kept under names of ours."""

from __future__ import annotations

import base64
import binascii
import io
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixtura.errors import MixturaError
from mixtura_demos.shared.errors import Refused
from mixtura_demos.shared.limits import LIMITS
from mixtura_demos.shared.uploads import checked_video, picture
from mixtura_demos.shared.work import fresh

Kind = Literal["picture", "clip", "template", "landmarks"]
PICKLES = (".pkl", ".pickle")
"""Official templates; the plugin tells why they are refused and what to do."""
SNAPSHOT = 8 * 2**20
"""Bytes of the largest frame that a camera may send."""


def given(upload: str | None, kind: Kind, what: str, request: gr.Request) -> Path:
    """An upload as a file of the session. `what` names it in errors. Raises Refused for what is too large, or of another kind."""
    if not upload:
        raise Refused(f"{what} is missing: give a {kind}, or take the example")
    path = Path(upload)
    with named({path: what}):
        ending = _checked(path, kind)
    kept = fresh(request, ".in").with_suffix(ending)
    shutil.copyfile(path, kept)
    return kept


def _checked(path: Path, kind: Kind) -> str:
    """The ending that the file gets."""
    if kind == "picture":
        picture(path)
        return ".png"
    if kind == "clip":
        checked_video(path)
        return ".mp4"
    if not path.is_file():
        raise Refused(f"{path} is gone from the server; upload it again")
    if path.stat().st_size > LIMITS.bytes:
        raise Refused(f"{path} is larger than {LIMITS.bytes >> 20} MiB; give a smaller file")
    if kind == "landmarks":
        return ".npz" if path.suffix.lower() == ".npz" else ".json"
    return ".pkl" if path.suffix.lower() in PICKLES else ".safetensors"


@contextmanager
def named(names: Mapping[Path, str]) -> Iterator[None]:
    """Errors within say what users know instead of file names of ours: "the driving clip: not a whole safetensors file"."""
    try:
        yield
    except MixturaError as error:
        text = in_words(str(error), names)
        if text == str(error):
            raise
        raise Refused(text) from error


def in_words(text: str, names: Mapping[Path, str]) -> str:
    """A text with files of ours by their names for users."""
    for path, name in names.items():
        text = text.replace(str(path), name)
    return text


def as_uploaded(component: gr.Image) -> gr.Image:
    """Let handlers get the path of what was uploaded, so that we look at it first and say what is wrong with it."""
    vars(component)["preprocess"] = lambda payload: None if payload is None else payload.path
    return component


def as_seen(component: gr.Image) -> gr.Image:
    """Let handlers of a camera's stream get frames (H, W, 3), or None for what isn't one."""
    vars(component)["preprocess"] = lambda payload: None if payload is None else snapshot(payload.url)
    return component


def snapshot(url: Any) -> NDArray[np.uint8] | None:
    """The frame in a data URL. Raises Refused for frames that are too large, or none."""
    if not isinstance(url, str) or not url.startswith("data:image/"):
        return None
    if len(url) > SNAPSHOT * 4 // 3:
        raise Refused(f"the camera sends frames of more than {SNAPSHOT >> 20} MiB; choose a smaller resolution")
    try:
        with Image.open(
            io.BytesIO(base64.b64decode(url.partition(",")[2], validate=True)), formats=("JPEG", "PNG", "WEBP")
        ) as opened:
            if opened.width * opened.height > LIMITS.frame_pixels:
                raise Refused(f"the camera sends {opened.width} × {opened.height} pixels; choose a smaller resolution")
            return np.asarray(opened.convert("RGB"))
    except (OSError, ValueError, SyntaxError, binascii.Error, Image.DecompressionBombError) as error:
        raise Refused("the camera sent something that is no picture; stop it and start it again") from error
