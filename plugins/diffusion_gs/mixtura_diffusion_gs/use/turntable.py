"""Pictures and clips of Gaussians: once around an object, or a flight through a scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixtura.data.formats.video import VideoWriter
from mixtura_diffusion_gs.cameras import matrices, orbit, viewmats
from mixtura_diffusion_gs.use.trajectories import Cameras, interpolated
from mixtura_splat import Gaussians

FPS = 24
AT_ONCE = 4
"""Views drawn in one call; more would take more memory and save no time."""


def drawn(scene: Gaussians, cameras: Cameras, size: int, is_official: bool = False) -> Iterator[Tensor]:
    """Pictures (size, size, 3) in 0..1 over white, one for each camera, on the CPU.

    `is_official` draws by the rules of the published rasteriser, as the networks that learnt with it expect.
    """
    options: dict[str, Any] = {"compat": "graphdeco"} if is_official else {}
    device = scene.means.device
    white = torch.ones(3, device=device)
    poses, lenses = viewmats(cameras.c2w), matrices(cameras.intrinsics)
    for start in range(0, len(poses), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        with torch.no_grad():
            images = scene.render(poses[some].to(device), lenses[some].to(device), size, size, background=white, **options).image
        yield from images.clamp(0, 1).cpu().unbind()


def turntable(
    scene: Gaussians,
    path: Path,
    frames: int = 72,
    size: int = 256,
    elevation: float = 20.0,
    radius: float = 3.0,
    fov: float = 39.6,
    is_official: bool = False,
) -> None:
    """A clip (.mp4) of one turn around an object, from the condition's side on; angles in degrees, `size` even."""
    azimuths = [360 * frame / frames for frame in range(frames)]
    cameras = Cameras(*orbit(azimuths, [elevation] * frames, radius, fov, size))
    write_clip(path, drawn(scene, cameras, size, is_official), size)


def flight(
    scene: Gaussians, path: Path, cameras: Cameras, seen: int, frames: int = 72, size: int = 256, is_official: bool = False
) -> None:
    """A clip (.mp4) along cameras and back. Their intrinsics belong to pictures of `seen` pixels, the clip has `size`."""
    way = interpolated(cameras, frames)
    way = way._replace(intrinsics=way.intrinsics * (size / seen))
    write_clip(path, drawn(scene, way, size, is_official), size)


def write_clip(path: Path, pictures: Iterator[Tensor], size: int) -> None:
    """An h264 file of pictures (size, size, 3) in 0..1; under its name only when complete."""
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    with VideoWriter(part, FPS, (size, size), gop=FPS) as writer:
        for picture in pictures:
            writer.append((picture * 255).round().byte().numpy())
    part.rename(path)
