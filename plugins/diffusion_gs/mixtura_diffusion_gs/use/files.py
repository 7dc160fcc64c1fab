"""What `mixtura infer` does for DiffusionGS: pictures or prompts in; for each `.ply`, mesh and clip out.

    OUT/NAME/  condition.png  gaussians.ply  mesh.glb  turntable.mp4  views.png  info.json

With several seeds these lie in OUT/NAME/seed-N. Files get their names when they are complete.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mixtura.errors import ConfigError, DataError
from mixtura.inference import settings_of
from mixtura_diffusion_gs.use import text
from mixtura_diffusion_gs.use.cleaning import cleaned
from mixtura_diffusion_gs.use.pictures import Framed, Rgba, Say, framed, load_picture, squared
from mixtura_diffusion_gs.use.removal import foreground
from mixtura_diffusion_gs.use.surface import Mesh, object_mesh, save_mesh, scene_mesh
from mixtura_diffusion_gs.use.trajectories import Cameras, Route, object_cameras, read_cameras, scene_cameras
from mixtura_diffusion_gs.use.turntable import flight, turntable
from mixtura_splat import Gaussians

if TYPE_CHECKING:
    from mixtura_diffusion_gs.system import DiffusionGS

PROMPT = ".txt"
BOX, WIDE_BOX = 0.91, 1.1
"""Objects are kept within this of the origin along each axis: by the published code, and where objects fill the unit ball."""


class Settings(BaseModel):
    """Words `name=value` of `mixtura infer`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["object", "scene"] | None = Field(None, description="what the picture shows; the system's first kind")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="one result for each")
    steps: int | None = Field(None, ge=1, le=1000)
    sampler: Literal["ancestral", "ddim"] | None = None
    guidance: float | None = Field(None, ge=0)
    elevation: float = Field(20.0, gt=-90, lt=90, description="degrees from which the picture looks down on the object")
    fov: float | None = Field(None, gt=1, lt=170, description="degrees that the picture shows; the system's")
    route: Route = Field("arc", description="where the views of a scene are")
    cameras: Path | None = Field(None, description="JSON file with cameras, the condition's first")
    foreground_ratio: float = Field(0.825, gt=0.1, le=1)
    remover: str = Field("auto", description="auto, alpha, border, rembg, or module:function")
    box: float | None = Field(None, gt=0, description="Gaussians of objects farther from the origin along an axis are left out")
    mesh: bool = True
    resolution: int = Field(128, ge=16, le=512, description="voxels along the mesh's longest side")
    faces: int = Field(100_000, ge=100)
    clip: bool = Field(True, description="write turntable.mp4")
    frames: int = Field(72, ge=2)
    size: int = Field(256, ge=16, multiple_of=2, description="pixels of the clip")
    pipeline: str | None = Field(None, description="folder of a diffusers text-to-image pipeline, for prompts")
    negative_prompt: str | None = None


def infer_files(system: DiffusionGS, inputs: Sequence[Path], out: Path, settings: Mapping[str, Any], say: Say) -> list[Path]:
    """All inputs one after the other; returns the files written.

    Every input and setting is looked at before the first is worked on. Raises MixturaError.
    """
    chosen = settings_of(Settings, settings)
    kind = kind_of(system, chosen)
    names = [path.stem for path in inputs]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two inputs are called '{doubled[0]}'; results go to OUT/{doubled[0]}, so rename one")
    cameras = cameras_of(system, chosen, say)
    pictures = _pictures(inputs, chosen, kind, say)
    written = []
    for name, read in pictures:
        for seed in chosen.seeds:
            folder = out / name / f"seed-{seed}" if len(chosen.seeds) > 1 else out / name
            folder.mkdir(parents=True, exist_ok=True)
            say(f"{name}, seed {seed}")
            written += Result(system, chosen, cameras, folder, say).make(read(seed), seed)
    return written


def kind_of(system: DiffusionGS, chosen: Settings) -> str:
    """What the picture shows. Raises ConfigError for what the system doesn't know."""
    kind = chosen.kind or system.config.kinds[0]
    if kind not in system.config.kinds:
        raise ConfigError(f"kind={kind}: this system knows {', '.join(system.config.kinds)}")
    return kind


def cameras_of(system: DiffusionGS, chosen: Settings, say: Say) -> Cameras:
    """The cameras of the views, the picture's first. Raises MixturaError."""
    config, size, kind = system.config, system.image_size, kind_of(system, chosen)
    if chosen.cameras is not None:
        if chosen.fov is not None:
            raise ConfigError(f"fov={chosen.fov:g} and cameras={chosen.cameras} both tell the field of view; leave one out")
        return read_cameras(chosen.cameras, kind, config.radius, size, say)
    fov = field_of_view(system, chosen, kind)
    if kind == "scene":
        return scene_cameras(config.views, chosen.route, fov, size)
    return object_cameras(config.views, chosen.elevation, config.radius, fov, size)


def field_of_view(system: DiffusionGS, chosen: Settings, kind: str) -> float:
    """Degrees that pictures of a kind show, where no file of cameras tells it."""
    return chosen.fov or float(dict(system.config.fov)[kind])  # type: ignore[index]


def _pictures(inputs: Sequence[Path], chosen: Settings, kind: str, say: Say) -> list[tuple[str, Callable[[int], Rgba]]]:
    """Name and picture by seed of every input: files are read now, prompts become pictures when their turn comes."""
    has_prompt = any(path.suffix.lower() == PROMPT for path in inputs)
    pipeline = text.open_pipeline(chosen.pipeline) if has_prompt else None
    found: list[tuple[str, Callable[[int], Rgba]]] = []
    for path in inputs:
        if pipeline is not None and path.suffix.lower() == PROMPT:
            prompt = text.read_prompt(path)
            full = f"{prompt}, {text.ASIDE}" if kind == "object" else prompt
            found.append((path.stem, partial(text.picture_of, full, pipeline, negative_prompt=chosen.negative_prompt)))
        else:
            rgba = load_picture(path)
            if kind == "object":
                rgba = foreground(rgba, chosen.remover, say, str(path))
            found.append((path.stem, partial(_same, rgba)))
    return found


def _same(rgba: Rgba, seed: int) -> Rgba:
    """A picture that was given is the same for every seed."""
    return rgba


class Result:
    """One picture and seed to files in one folder.

    `make` does all of it. Whoever wants to watch takes its parts: `condition`, `request` for `DiffusionGS.denoise`, `finishing`.
    """

    def __init__(self, system: DiffusionGS, chosen: Settings, cameras: Cameras, folder: Path, say: Say) -> None:
        self.system, self.chosen, self.cameras, self.folder, self.say = system, chosen, cameras, folder, say
        self.kind = kind_of(system, chosen)
        self.is_official = system.config.compat == "official"
        self.seconds: dict[str, float] = {}
        self.written: list[Path] = []

    def make(self, rgba: Rgba, seed: int) -> list[Path]:
        """All files; the mesh is left out, and said, where there is no surface."""
        shown = self.condition(rgba)
        with self.timed("denoising"):
            made = self.system.infer(**self.request(shown.image, seed))
        for _ in self.finishing(made, seed):
            pass
        return self.written

    def finishing(self, made: Mapping[str, Tensor], seed: int) -> Iterator[Path]:
        """The files of what `infer` gave, each as soon as it is written. Raises DataError when no Gaussian is worth keeping."""
        yield self._save_picture("views.png", torch.cat(list(made["renders"][0]), -1))
        whole = Gaussians(*(made[name][0].cpu() for name in ("means", "quats", "scales", "opacities", "sh")))
        scene = cleaned(whole, self.kind, self.box())
        yield self._save_gaussians(scene)
        faces = self._mesh(scene) if self.chosen.mesh else None
        if faces is not None:
            yield self.folder / "mesh.glb"
        if self.chosen.clip:
            yield self._clip(scene)
        yield self._info(seed, {"Gaussians made": len(whole), "Gaussians kept": len(scene), "faces": faces})

    def condition(self, rgba: Rgba) -> Framed:
        """What the network sees of the picture, which is also written."""
        if self.kind == "scene":
            shown = squared(rgba, self.system.image_size)
        else:
            if (rgba[..., 3] == 255).all():  # from a prompt
                rgba = foreground(rgba, self.chosen.remover, self.say)
            shown = framed(rgba, self.system.image_size, self.chosen.foreground_ratio, self.say)
        self._save_picture("condition.png", shown.image)
        return shown

    def request(self, image: Tensor, seed: int) -> dict[str, Any]:
        """What `DiffusionGS.infer` and `DiffusionGS.denoise` take, for a condition (3, S, S)."""
        chosen = self.chosen
        return {
            "image": image[None],
            "kind": self.kind,
            "c2w": self.cameras.c2w[None],
            "intrinsics": self.cameras.intrinsics[None],
            "steps": chosen.steps,
            "sampler": chosen.sampler,
            "guidance": chosen.guidance,
            "seed": seed,
        }

    def box(self) -> float:
        """Gaussians of an object farther than this from the origin along an axis are left out."""
        config = self.system.config
        return self.chosen.box or (BOX if config.mirrored or self.is_official else WIDE_BOX)

    def _mesh(self, scene: Gaussians) -> int | None:
        """Faces of the mesh; None where there is no surface to be found."""
        chosen, size = self.chosen, self.system.image_size
        with self.timed("mesh"):
            try:
                mesh: Mesh
                if self.kind == "object":
                    mesh = object_mesh(scene, chosen.resolution, faces=chosen.faces, is_official=self.is_official)
                else:
                    mesh = scene_mesh(
                        scene,
                        self.cameras,
                        size,
                        chosen.resolution,
                        faces=chosen.faces,
                        is_official=self.is_official,
                    )
            except DataError as error:
                self.say(f"no mesh: {error}")
                return None
            save_mesh(mesh, self._path("mesh.glb"), self.kind)
        return len(mesh.faces)

    def _clip(self, scene: Gaussians) -> Path:
        chosen, config, path = self.chosen, self.system.config, self._path("turntable.mp4")
        with self.timed("clip"):
            if self.kind == "scene":
                flight(scene, path, self.cameras, self.system.image_size, chosen.frames, chosen.size, self.is_official)
            else:
                fov = field_of_view(self.system, chosen, "object")
                turntable(scene, path, chosen.frames, chosen.size, chosen.elevation, config.radius, fov, self.is_official)
        return path

    # -- writing -------------------------------------------------------------------------------------------------
    def _path(self, name: str) -> Path:
        path = self.folder / name
        self.written.append(path)
        return path

    def _save_gaussians(self, scene: Gaussians) -> Path:
        path = self._path("gaussians.ply")
        part = path.with_name("gaussians.part.ply")
        scene.save_ply(part)
        part.rename(path)
        return path

    def _save_picture(self, name: str, image: Tensor) -> Path:
        """(3, H, W) in 0..1."""
        values = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        path = self._path(name)
        part = path.with_name(f"{path.name}.part")
        Image.fromarray(values).save(part, format="PNG")
        part.rename(path)
        return path

    def _info(self, seed: int, counts: Mapping[str, Any]) -> Path:
        settings = self.chosen.model_dump(mode="json", exclude_none=True) | {"seed": seed, "kind": self.kind}
        content = {"settings": settings, **counts, "seconds": {name: round(value, 3) for name, value in self.seconds.items()}}
        path = self._path("info.json")
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(content, indent=1))
        part.rename(path)
        return path

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long something takes, for `info.json`."""
        began = time.perf_counter()
        yield
        self.seconds[what] = time.perf_counter() - began
