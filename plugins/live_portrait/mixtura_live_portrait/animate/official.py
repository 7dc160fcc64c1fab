"""Official motion templates (pickles) as our own.

    python -m mixtura_live_portrait.animate.official --unsafe driving.pkl driving.safetensors

A pickle is a program, and whoever made it may have put anything in. So nothing else here opens one, and this does only when told
`--unsafe`. Even then the file isn't run: `inert` reads numbers, lists and arrays, and refuses everything else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixtura.errors import DataError, MixturaError
from mixtura_live_portrait.animate.inert import Refused, numbers, read_pickle
from mixtura_live_portrait.animate.movement import Movement
from mixtura_live_portrait.animate.templates import FASTEST, SLOWEST, Template, check_movement, save

PICKLES = (".pkl", ".pickle")
REMEDY = "python -m mixtura_live_portrait.animate.official --unsafe TEMPLATE.pkl TEMPLATE.safetensors"
LONGEST, WIDEST = 1 << 17, 256
"""Frames and keypoints that are believed."""
FPS = 25.0


def convert(path: Path, out: Path, unsafe: bool = False) -> Template:
    """Read an official template and write it as ours. Raises DataError unless `unsafe`, and for files that aren't one."""
    template = read(path, unsafe)
    save(template, out)
    return template


def read(path: Path, unsafe: bool = False) -> Template:
    """An official template; its `networks` aren't known. Raises DataError unless `unsafe`, and for files that aren't one."""
    if not unsafe:
        raise DataError(
            f"{path}: official templates are pickles, files that can run programs; if you know its maker, run: {REMEDY}"
        )
    content = read_pickle(path)
    try:
        return _template(content)
    except Refused as refused:
        raise DataError(f"{path}: holds {refused}. Nothing of it was run") from None
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: not an official motion template: {said}") from None
    except DataError as error:
        raise DataError(str(error).replace(str(NAME), str(path))) from None


NAME = Path("this file")


def _template(content: Any) -> Template:
    motion = _value(content, "motion")
    if not isinstance(motion, list) or not 0 < len(motion) <= LONGEST:
        raise ValueError("`motion` must be a list of frames")
    frames = len(motion)
    if "n_frames" in content and int(numbers(content["n_frames"])) != frames:
        raise ValueError(f"`n_frames` is {content['n_frames']}, but there are {frames}; the file is cut off")
    keypoints = numbers(_value(motion[0], "kp")).size // 3
    if not 0 < keypoints <= WIDEST:
        raise ValueError(f"{keypoints} keypoints")
    shapes = {"kp": (keypoints, 3), "R": (3, 3), "exp": (keypoints, 3), "t": (3,), "scale": (1,)}
    movement = Movement(*(_stacked(motion, name, shape) for name, shape in shapes.items()))
    check_movement(NAME, movement)
    fps = float(numbers(content.get("output_fps", FPS)))
    if not SLOWEST <= fps <= FASTEST:
        raise ValueError(f"{fps} frames a second")
    eyes, lips = (_ratios(content, name, frames, width) for name, width in (("eyes", 2), ("lip", 1)))
    return Template(movement, torch.from_numpy(np.concatenate([eyes, lips], -1)), fps)


def _value(frame: Any, name: str) -> Any:
    """An entry; `R` and the ratios are `R_d` and `c_d_…` in older files."""
    if not isinstance(frame, Mapping):
        raise TypeError(f"{type(frame).__name__} where names are expected")
    older = {"R": "R_d"}.get(name, name.replace("c_", "c_d_", 1))
    if name not in frame and older not in frame:
        raise KeyError(name)
    return frame[name if name in frame else older]


def _stacked(motion: list[Any], name: str, shape: tuple[int, ...]) -> Tensor:
    rows = [numbers(_value(frame, name)).reshape(shape) for frame in motion]
    return torch.from_numpy(np.stack(rows))


def _ratios(content: Any, name: str, frames: int, width: int) -> NDArray[np.float32]:
    """(frames, width); NaN where the template has none."""
    try:
        rows = _value(content, f"c_{name}_lst")
    except KeyError:
        return np.full((frames, width), np.nan, np.float32)
    if not isinstance(rows, list) or len(rows) < frames:
        raise ValueError(f"`c_{name}_lst` must have one entry for each frame")
    return np.stack([numbers(row).reshape(width) for row in rows[:frames]])


def main(words: Sequence[str] | None = None) -> None:
    """Convert a file that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m mixtura_live_portrait.animate.official", description=__doc__.split("\n")[0])
    parser.add_argument("--unsafe", action="store_true", help="I know who made the pickle, and that pickles can run programs")
    parser.add_argument("template", type=Path, help="official template (.pkl)")
    parser.add_argument("out", type=Path, help="our template (.safetensors)")
    given = parser.parse_args(words)
    try:
        template = convert(given.template, given.out, given.unsafe)
    except MixturaError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"written: {given.out} ({len(template)} frames at {template.fps:g} a second)\n")


if __name__ == "__main__":
    main()
