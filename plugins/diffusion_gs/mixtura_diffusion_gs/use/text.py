"""A prompt to a picture, through any text-to-image pipeline of diffusers, or a function of yours. Nothing is downloaded."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mixtura.errors import ConfigError, DataError
from mixtura_diffusion_gs.use.pictures import Rgba

Pipeline = Callable[..., Any]
"""Called with `prompt` and, where it takes them, `negative_prompt` and `generator`; returns something with `.images`."""
ASIDE = "one object, whole, centred, on a plain white background"
"""What is added to prompts of objects: the network wants them alone."""


def read_prompt(path: Path) -> str:
    """The text of a file, in one line. Raises DataError when there is none."""
    try:
        prompt = " ".join(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read as UTF-8 text ({error})") from error
    if not prompt:
        raise DataError(f"{path}: holds no prompt; write what the picture shall show")
    return prompt


def open_pipeline(folder: str | None) -> Pipeline:
    """The diffusers pipeline saved in a folder. Raises ConfigError when it is missing, incomplete or takes no prompt."""
    if not folder:
        raise ConfigError("a prompt needs a pipeline: pipeline=FOLDER with a text-to-image pipeline saved by diffusers")
    if not (Path(folder) / "model_index.json").is_file():
        raise ConfigError(
            f"pipeline {folder}: no model_index.json in it; expected a folder that a diffusers pipeline was saved to"
        )
    try:
        diffusers = importlib.import_module("diffusers")
    except ImportError as error:
        raise ConfigError("prompts need diffusers: pip install 'mixtura-diffusion-gs[text]'") from error
    try:
        pipeline: Pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"pipeline {folder}: can't be opened ({str(error).splitlines()[0]})") from error
    if "prompt" not in _parameters(pipeline):
        raise ConfigError(f"pipeline {folder}: {type(pipeline).__name__} takes no prompt; a text-to-image pipeline is needed")
    return pipeline


def picture_of(prompt: str, pipeline: Pipeline, seed: int, negative_prompt: str | None = None) -> Rgba:
    """(H, W, 4) uint8, opaque; the same seed gives the same picture. Raises DataError for what isn't a picture."""
    wanted: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative_prompt}
    wanted["generator"] = torch.Generator().manual_seed(seed)
    known = _parameters(pipeline)
    given = {name: value for name, value in wanted.items() if value is not None and (name in known or "kwargs" in known)}
    if negative_prompt and "negative_prompt" not in given:
        raise ConfigError(f"{type(pipeline).__name__} takes no negative_prompt; leave it out")
    images = getattr(pipeline(**given), "images", None)
    if images is None or not len(images) or not isinstance(images[0], Image.Image):
        raise DataError(f"{type(pipeline).__name__} gave no picture for '{prompt}'")
    return np.array(images[0].convert("RGB").convert("RGBA"))


def _parameters(pipeline: Pipeline) -> set[str]:
    return set(inspect.signature(pipeline).parameters)
