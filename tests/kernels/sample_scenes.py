"""Small random scenes, and what the tests do with them: render, take all gradients, compare.

A scene is a dict of the arguments of `rasterize`, so that a test changes what it is about: `rasterize(**scene | {...})`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mixtura_splat import Rendering, rasterize

Scene = dict[str, Any]
ARRAYS = ("means", "quats", "scales", "opacities", "viewmats", "Ks", "colors", "sh", "features", "background")


def camera(angle: float, distance: float = 3.0) -> Tensor:
    """A camera on a tilted circle around the origin, looking at it: world to camera [4,4], float64."""
    tilt = torch.tensor([[1, 0, 0], [0, math.cos(0.3), -math.sin(0.3)], [0, math.sin(0.3), math.cos(0.3)]]).double()
    turn = torch.tensor([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]).double()
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[2, 3] = tilt @ turn, distance
    return pose


def intrinsics(width: int, height: int, zoom: float = 1.2) -> Tensor:
    """[3,3], float64; the axes differ and the principal point is off the centre."""
    return torch.tensor([[zoom * width, 0, 0.52 * width], [0, 1.1 * zoom * width, 0.47 * height], [0, 0, 1]]).double()


def make_scene(
    gaussians: int = 40, *, seed: int = 0, views: int | None = None, scenes: int | None = None, size: tuple[int, int] = (36, 28),
    degree: int | None = None, channels: int = 3, scale: float = 0.12, dtype: torch.dtype = torch.float32,
) -> Scene:  # fmt: skip
    """Gaussians in a cube of side 2; `degree` makes spherical harmonics instead of colours."""
    random = torch.Generator().manual_seed(seed)
    lead = () if scenes is None else (scenes,)
    width, height = size

    def uniform(*shape: int, low: float = 0, high: float = 1) -> Tensor:
        return (torch.rand(*lead, *shape, generator=random, dtype=torch.float64) * (high - low) + low).to(dtype)

    count = (scenes or 1) * (views or 1)
    poses = torch.stack([camera(0.7 * i + 0.2) for i in range(count)]).to(dtype)
    ks = torch.stack([intrinsics(width, height, 1.2 + 0.1 * i) for i in range(count)]).to(dtype)
    axes = (*lead, *(() if views is None and scenes is None else (views or 1,)))
    scene = {
        "means": uniform(gaussians, 3, low=-1),
        "quats": uniform(gaussians, 4, low=-1),
        "scales": scale * uniform(gaussians, 3, low=-1).exp(),
        "opacities": uniform(gaussians, low=0.2, high=0.95),
        "viewmats": poses.reshape(*axes, 4, 4),
        "Ks": ks.reshape(*axes, 3, 3),
        "width": width,
        "height": height,
        "background": uniform(channels if degree is None else 3) if scenes is None else uniform(1, 3)[0, 0],
    }
    if degree is None:
        return scene | {"colors": uniform(gaussians, channels)}
    return scene | {"sh": uniform(gaussians, (degree + 1) ** 2, 3, low=-0.6, high=0.6)}


def leaves(scene: Scene, *names: str) -> Scene:
    """A copy whose arrays (those called `names`, else all) want gradients."""
    wanted = names or ARRAYS
    copies = {name: scene[name].detach().clone().requires_grad_(name in wanted) for name in ARRAYS if scene.get(name) is not None}
    return scene | copies


def images(rendering: Rendering) -> list[Tensor]:
    """The images that there are."""
    parts = (rendering.image, rendering.alpha, rendering.depth, rendering.features, rendering.info.normals)
    return [part for part in parts if part is not None]


def score(rendering: Rendering, seed: int = 7) -> Tensor:
    """A loss with a different weight for every number of every image, the same ones in every precision."""
    random = torch.Generator().manual_seed(seed)
    weights = [torch.randn(part.shape, generator=random, dtype=torch.float64).to(part.dtype) for part in images(rendering)]
    return sum((part * weight).sum() for part, weight in zip(images(rendering), weights, strict=True))


def differentiate(scene: Scene, **options: Any) -> tuple[Rendering, dict[str, Tensor]]:
    """The rendering and the gradient of `score` for every array."""
    ready = leaves(scene)
    rendering = rasterize(**ready, **options)
    score(rendering).backward()
    return rendering, {name: ready[name].grad for name in ARRAYS if scene.get(name) is not None}


def distance(actual: Tensor, expected: Tensor) -> float:
    """Relative error |a - e| / |e| in float64; infinite when shapes differ."""
    if actual.shape != expected.shape:
        return math.inf
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-12))


def worst(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest distance of arrays with the same names."""
    assert actual.keys() == expected.keys()
    return max(distance(actual[name], expected[name]) for name in expected)
