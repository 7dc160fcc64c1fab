"""Motion templates: what a driving clip does, without its pictures, to be used again on any source.

    save(template, path)
    template = load(path, keypoints=21)        # raises DataError for anything but a whole template of that many keypoints

A template is one safetensors file: `scale` (n, 1), `R` (n, 3, 3), `exp`, `kp`, `x_s` (n, k, 3), `t` (n, 3), `eyes` (n, 2) and
`lips` (n, 1), all float32, of each frame; and JSON in the header: format, version, frames, keypoints, fps, and `networks`, which
tells the motion network that saw the clip. Keypoints of other networks mean other places, so a template that is known to come
from another motion network is refused. Nothing in such a file can run. Official templates are pickles: see `official`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mixtura.errors import DataError
from mixtura_live_portrait.animate.movement import Movement

ENDING = ".safetensors"
FORMAT, VERSION = "mixtura-live-portrait-motion", 1
LARGEST = 1 << 30
"""Bytes of the largest file that is read: hours of frames."""
CLOSE = 1e-3
"""By how much `x_s` may differ from the keypoints that the rest gives."""
SMALLEST = 1e-6
SLOWEST, FASTEST = 0.1, 1000.0


@dataclass(frozen=True, eq=False)
class Template:
    """`movement` and `ratios` (n, 3) of left eye, right eye, lips (NaN where unknown) of n frames at `fps` a second.

    `networks` is the `fingerprint` of the motion network, empty where it isn't known.
    """

    movement: Movement
    ratios: Tensor
    fps: float
    networks: str = ""

    def __len__(self) -> int:
        return self.movement.frames

    @property
    def is_picture(self) -> bool:
        """Whether it is one frame: an expression rather than a motion."""
        return len(self) == 1

    def first(self, frames: int) -> Template:
        """The first frames alone."""
        return Template(self.movement.at(slice(frames)), self.ratios[:frames], self.fps, self.networks)

    def at_rate(self, fps: float) -> Template:
        """At another rate, by the nearest frame."""
        if fps == self.fps:
            return self
        count = max(1, round(len(self) * fps / self.fps))
        nearest = (torch.arange(count) * (self.fps / fps)).round().long().clamp(max=len(self) - 1)
        return Template(self.movement.at(nearest), self.ratios[nearest], fps, self.networks)

    def to(self, device: torch.device | str) -> Template:
        """On another device."""
        return Template(self.movement.to(device), self.ratios.to(device), self.fps, self.networks)


def fingerprint(motion: nn.Module) -> str:
    """Sixteen digits that tell motion networks apart, from the weights that give their keypoints."""
    digest = hashlib.sha256()
    for name, value in sorted(motion.state_dict().items()):
        if ".fc_" in f".{name}":
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _shapes(frames: int, keypoints: int) -> dict[str, tuple[int, ...]]:
    points = (frames, keypoints, 3)
    return {
        "scale": (frames, 1), "R": (frames, 3, 3), "exp": points, "t": (frames, 3), "kp": points, "x_s": points,
        "eyes": (frames, 2), "lips": (frames, 1),
    }  # fmt: skip


def save(template: Template, path: Path) -> None:
    """Write a template; under its name only when complete."""
    kp, rotation, exp, t, scale = template.movement
    ratios = template.ratios
    values = {"scale": scale, "R": rotation, "exp": exp, "t": t, "kp": kp, "x_s": template.movement.keypoints()}
    tensors = {name: value.detach().float().cpu().clone() for name, value in values.items()}
    tensors |= {"eyes": ratios[:, :2].float().cpu().clone(), "lips": ratios[:, 2:].float().cpu().clone()}
    about: dict[str, Any] = {"version": VERSION, "frames": len(template), "keypoints": kp.shape[1]}
    about |= {"fps": template.fps, "networks": template.networks}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, part, {FORMAT: json.dumps(about)})
    os.replace(part, path)


def load(path: Path, keypoints: int | None = None, networks: str = "") -> Template:
    """Read a template. With `keypoints` and `networks` (a `fingerprint`) it must fit those networks. Raises DataError."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a motion template, or a driving picture or clip")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path}: larger than {LARGEST >> 20} MB; that can't be a motion template")
    try:
        with safe_open(path, "pt") as file:
            about = _about(path, file.metadata())
            tensors = _tensors(path, file, _shapes(about["frames"], about["keypoints"]))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a whole safetensors file ({error}); make the template again from its clip") from error
    _check_fit(path, about, keypoints, networks)
    movement = Movement(*(tensors[name] for name in ("kp", "R", "exp", "t", "scale")))
    _check_values(path, movement, tensors)
    return Template(movement, torch.cat([tensors["eyes"], tensors["lips"]], -1), float(about["fps"]), about["networks"])


def _about(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    """The header, checked."""
    if not metadata or FORMAT not in metadata:
        raise DataError(f"{path}: a safetensors file, but no motion template; give one that `mixtura infer` wrote")
    try:
        about = json.loads(metadata[FORMAT])
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the template's header isn't JSON ({error}); make it again from its clip") from error
    version = about.get("version") if isinstance(about, dict) else None
    if version != VERSION:
        raise DataError(f"{path}: a motion template of version {version!r}, expected {VERSION}; make it again from its clip")
    wrong = [name for name in ("frames", "keypoints") if type(about.get(name)) is not int or about[name] < 1]
    fps = about.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not SLOWEST <= fps <= FASTEST:
        wrong.append("fps")
    if not isinstance(about.get("networks"), str):
        wrong.append("networks")
    if wrong:
        raise DataError(f"{path}: the template's header has no right {', '.join(wrong)}; make it again from its clip")
    return about


def _tensors(path: Path, file: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    names = set(file.keys())
    if names != set(shapes):
        missing, more = sorted(set(shapes) - names), sorted(names - set(shapes))
        raise DataError(f"{path}: a motion template without {missing or 'nothing'}, with {more or 'nothing'} unknown")
    for name, shape in shapes.items():
        found = file.get_slice(name)
        if tuple(found.get_shape()) != shape or found.get_dtype() != "F32":
            raise DataError(f"{path}: `{name}` is {found.get_dtype()} {found.get_shape()}; the header says F32 {list(shape)}")
    return {name: file.get_tensor(name) for name in shapes}


def _check_fit(path: Path, about: dict[str, Any], keypoints: int | None, networks: str) -> None:
    if keypoints is not None and about["keypoints"] != keypoints:
        raise DataError(
            f"{path}: a motion template of {about['keypoints']} keypoints, but these networks have {keypoints}; make it with "
            "them, from its driving clip"
        )
    if networks and about["networks"] and about["networks"] != networks:
        raise DataError(
            f"{path}: made with another motion network ({about['networks']}, here {networks}), whose keypoints lie elsewhere; "
            "make it again from its driving clip"
        )


def _check_values(path: Path, movement: Movement, tensors: dict[str, Tensor]) -> None:
    check_movement(path, movement)
    if not torch.allclose(movement.keypoints(), tensors["x_s"], CLOSE, CLOSE):
        raise DataError(f"{path}: `x_s` isn't where the other tensors put it; the template is damaged, make it again")


def check_movement(path: Path, movement: Movement) -> None:
    """Raises DataError for values that no motion has."""
    for name, value in movement._asdict().items():
        if not value.isfinite().all():
            raise DataError(f"{path}: NaN or infinity in the template's {name}; make it again from its clip")
    if (movement.scale.abs() < SMALLEST).any():
        raise DataError(f"{path}: a scale of 0 in the template; make it again from its clip")
    unit = movement.rotation @ movement.rotation.mT
    if not torch.allclose(unit, torch.eye(3).expand_as(unit), atol=0.05):
        raise DataError(f"{path}: matrices in the template that are no rotations; make it again from its clip")
