"""A picture to Gaussians, step by step: what the page's button starts.

`making` yields `Shown` moments from reading the picture to the last file; the page maps them to its fields. All files of one
result lie in a folder of their own within the session's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from mixtura_demos.diffusion_gs.pictures import cut_out, given
from mixtura_demos.diffusion_gs.viewer import scene
from mixtura_demos.shared.checkpoints import Choice, load
from mixtura_demos.shared.errors import Refused
from mixtura_demos.shared.jobs import tick
from mixtura_demos.shared.work import fresh

if TYPE_CHECKING:
    from mixtura_diffusion_gs.diffusion import Moment
    from mixtura_diffusion_gs.system import DiffusionGS
    from mixtura_diffusion_gs.use.files import Result, Settings
    from mixtura_diffusion_gs.use.trajectories import Cameras

Picture = NDArray[np.uint8]
PREVIEW = 256
"""Pixels of the views that are drawn while it denoises."""
UP = {"object": (0.0, 0.0, 1.0), "scene": (0.0, -1.0, 0.0)}
"""Objects have z up; the frame of scenes has y down."""


@dataclass(frozen=True)
class Shown:
    """What has changed in the page; None where nothing has."""

    status: str
    share: float | None = None
    """Of the denoising that is done, 0..1."""
    cut: Picture | None = None
    views: tuple[Picture, Picture] | None = None
    """From the picture's camera, and from one that the network doesn't have."""
    scene: dict[str, Any] | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    facts: Mapping[str, str] | None = None


class Order(NamedTuple):
    """What is asked for: weights, the uploaded picture, fields of the plugin's `Settings` with one `seed` instead of `seeds`."""

    choice: Choice
    upload: Any
    settings: Mapping[str, Any]

    @property
    def seed(self) -> Any:
        """The one seed."""
        return self.settings["seed"]

    def checked(self) -> Settings:
        """As the plugin has them. Raises ConfigError for what is out of range."""
        from mixtura.inference import settings_of
        from mixtura_diffusion_gs.use.files import Settings

        rest = {name: value for name, value in self.settings.items() if name != "seed"}
        return settings_of(Settings, {**rest, "seeds": [self.seed]})


def making(order: Order, request: gr.Request) -> Iterator[Shown]:
    """Everything from the picture to the files. Raises MixturaError."""
    from mixtura_diffusion_gs.use.files import Result, cameras_of, kind_of
    from mixtura_diffusion_gs.use.pictures import squared

    chosen = order.checked()
    notes: list[str] = []
    rgba = given(order.upload)
    if chosen.kind != "scene":
        rgba = cut_out(rgba, chosen.remover, notes.append)
        yield Shown("The object is cut out.", cut=rgba)
    else:
        yield Shown("The picture is cut to a square.", cut=_bytes(squared(rgba, PREVIEW).image.movedim(0, -1)))
    yield Shown(f"Loading {order.choice.label} …")
    system = cast("DiffusionGS", load(order.choice))
    kind_of(system, chosen)
    folder = fresh(request, ".made")
    folder.mkdir()
    result = Result(system, chosen, cameras_of(system, chosen, notes.append), folder, notes.append)
    made = yield from _denoised(result, result.condition(rgba).image, order.seed)
    yield from _finished(result, made, order, notes)


def _denoised(result: Result, image: Any, seed: int) -> Any:
    """Show the Gaussians after every step; returns what `infer` would."""
    asked, cameras = result.request(image, seed), preview_cameras(result)
    walk, spent = result.system.denoise(**asked), 0.0
    steps = _steps(result.system, result.chosen)
    last: Moment | None = None
    while True:
        tick()
        began = time.perf_counter()
        moment = next(walk, None)
        spent += time.perf_counter() - began
        if moment is None:
            break
        last = moment
        done = moment.number + 1
        yield Shown(f"Step {done} of {steps}", share=done / steps, views=_views(result, moment.result[0], cameras))
    result.seconds["denoising"] = spent
    if last is None:
        raise Refused("no step was made; ask for one step or more")
    raw, renders = last.result
    return {**raw.activated(), "renders": renders}


def _steps(system: DiffusionGS, chosen: Settings) -> int:
    return 1 if system.config.objective == "regression" else chosen.steps or system.config.steps


def preview_cameras(result: Result) -> Cameras:
    """The picture's camera and one between those of the network, for pictures of `PREVIEW` pixels."""
    import torch

    from mixtura_diffusion_gs.use.files import field_of_view
    from mixtura_diffusion_gs.use.trajectories import Cameras, interpolated, object_cameras

    first = Cameras(*(part[:1] for part in result.cameras))
    if result.kind == "scene":
        other = Cameras(*(part[1:2] for part in interpolated(result.cameras, 5)))
    else:
        chosen, config = result.chosen, result.system.config
        fov = field_of_view(result.system, chosen, "object")
        around = object_cameras(2 * config.views, chosen.elevation, config.radius, fov, result.system.image_size)
        other = Cameras(*(part[1:2] for part in around))
    scale = PREVIEW / result.system.image_size
    return Cameras(torch.cat([first.c2w, other.c2w]), torch.cat([first.intrinsics, other.intrinsics]) * scale)


def _views(result: Result, raw: Any, cameras: Cameras) -> tuple[Picture, Picture]:
    from mixtura_diffusion_gs.use.turntable import drawn

    one, other = (_bytes(view) for view in drawn(raw.scene(0), cameras, PREVIEW, result.is_official))
    return one, other


def _bytes(values: Any) -> Picture:
    """A tensor (H, W, 3) in 0..1 as bytes."""
    return cast("Picture", (values.clamp(0, 1) * 255).round().byte().cpu().numpy())


def _finished(result: Result, made: Any, order: Order, notes: list[str]) -> Iterator[Shown]:
    """Files one after the other, and at the end what there is to say."""
    files: dict[str, Path] = {}
    for path in result.finishing(made, order.seed):
        tick()
        files[path.name] = path
        ready = {path.name: path}
        if path.name == "gaussians.ply":
            yield Shown("The Gaussians are ready; the mesh and the clip come next.", scene=_scene(result, path), files=ready)
        elif path.name == "info.json":
            yield Shown(_done(result, order), files=ready, facts=facts(result, order, path, notes))
        else:
            yield Shown(f"Written: {path.name}", files=ready)


def _scene(result: Result, path: Path) -> dict[str, Any]:
    c2w = result.cameras.c2w[0]
    distance = float(c2w[:3, 3].norm()) if result.kind == "object" else None
    return scene(path, c2w.tolist(), float(result.cameras.intrinsics[0, 0]), result.system.image_size, UP[result.kind], distance)


def _done(result: Result, order: Order) -> str:
    return f"Done with seed {order.seed} in {sum(result.seconds.values()):.1f} s."


def facts(result: Result, order: Order, info: Path, notes: list[str]) -> dict[str, str]:
    """What the page's table says of a result."""
    import json

    told = json.loads(info.read_text())
    steps = _steps(result.system, result.chosen)
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in told["seconds"].items())
    faces = told["faces"]
    return {
        "Weights": order.choice.label,
        "Gaussians": f"{told['Gaussians kept']:,} of {told['Gaussians made']:,} are kept",
        "Mesh": f"{faces:,} faces" if faces else "none",
        "Seed": str(order.seed),
        "Steps": str(steps),
        "Seconds": seconds,
        **({"Notes": "; ".join(notes)} if notes else {}),
    }
