"""Every gradient of the kernels against finite differences in float64: 12 Gaussians on 16 x 16 pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from mixtura_splat import ops, rasterize
from mixtura_splat.backend import ANTIALIASED, DEPTH
from tests.kernels.sample_scenes import ARRAYS, Scene, images, make_scene

OPTIONS: dict[str, dict[str, Any]] = {
    "classic": {},
    "antialiased": {"mode": "antialiased"},
    "accumulated depth": {"depth": "accumulated"},
    "expected depth": {"depth": "expected"},
    "normals": {"normals": True},
    "everything": {"mode": "antialiased", "depth": "expected", "normals": True},
}


def tiny(**options: Any) -> Scene:
    """Small enough for finite differences; the seed keeps every pixel away from thresholds."""
    return make_scene(12, seed=3, size=(16, 16), dtype=torch.float64, **options)


def holds(function: Callable[..., Iterable[Tensor]], *inputs: Tensor) -> bool:
    """gradcheck of three random weightings of all outputs, by every number of every input."""
    leaves = tuple(tensor.detach().clone().requires_grad_() for tensor in inputs)

    def weighted(*given: Tensor) -> Tensor:
        random = torch.Generator().manual_seed(5)
        flat = torch.cat([output.flatten() for output in function(*given)])
        return torch.randn(3, len(flat), generator=random, dtype=flat.dtype) @ flat

    return torch.autograd.gradcheck(weighted, leaves, eps=1e-6, atol=1e-6, rtol=1e-5)


def check_rendering(scene: Scene, **options: Any) -> None:
    """All float arguments at once."""
    names = [name for name in ARRAYS if name in scene]

    def render(*arrays: Tensor) -> tuple[Tensor, ...]:
        return tuple(images(rasterize(**scene | dict(zip(names, arrays, strict=True)), kernels=True, **options)))

    assert holds(render, *(scene[name] for name in names))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_of_all_arguments(options: dict[str, Any]) -> None:
    scene = tiny()
    scene["features"] = torch.rand(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    check_rendering(scene, **options)


@pytest.mark.parametrize("degree", range(5))
def test_gradients_through_harmonics(degree: int) -> None:
    check_rendering(tiny(degree=degree))


def test_gradients_of_batches_with_colours_of_each_view() -> None:
    scene = make_scene(5, seed=1, scenes=2, views=2, size=(16, 16), dtype=torch.float64)
    scene["colors"] = torch.rand(2, 2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    check_rendering(scene, depth="accumulated")


@pytest.mark.parametrize("compat", [None, "graphdeco"])
def test_gradients_where_the_jacobian_is_clamped(compat: str | None) -> None:
    scene = tiny(scale=0.6)
    scene["means"][:, 0] *= 3
    info = rasterize(**scene, compat=compat).info
    beyond = (info.means2d - 8).abs() > 0.7 * 16  # more than 15 % of the size outside of the image
    assert (beyond.any(-1) & info.seen).sum() >= 3
    check_rendering(scene, compat=compat)


def stage_inputs(scene: Scene) -> list[Tensor]:
    """means, quats, scales, opacities [1,N,..], viewmats, ks [1,1,..]."""
    alone = [scene[name][None] for name in ("means", "quats", "scales", "opacities")]
    return [*alone, scene["viewmats"][None, None], scene["Ks"][None, None]]


@pytest.mark.parametrize("flags", [0, ANTIALIASED], ids=["classic", "antialiased"])
def test_gradients_of_project(flags: int) -> None:
    scene = tiny(degree=1)

    def project(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        splats, _, _, colors, _ = ops.project(*inputs, None, 16, 16, 1, 0.3, 0.01, 1e10, flags)
        return splats[..., [0, 1, 2, 3, 4, 5, 7]], colors  # tau follows from the opacity and has no gradient of its own

    assert holds(project, *stage_inputs(scene), scene["sh"][None])


@pytest.mark.parametrize("degree", range(5))
def test_gradients_of_shade(degree: int) -> None:
    scene = tiny(degree=4)
    inputs = scene["means"][None], scene["viewmats"][None, None], scene["sh"][None]
    assert holds(lambda *given: [ops.shade(*given, degree)], *inputs)


def test_gradients_of_composite() -> None:
    scene = tiny()
    splats, extents, tiles, _, _ = ops.project(*stage_inputs(scene), None, None, 16, 16, 0, 0.3, 0.01, 1e10, 0)

    def composite(splats: Tensor, features: Tensor, background: Tensor) -> tuple[Tensor, ...]:
        return ops.composite(splats, features, background, extents, tiles, None, 16, 16, 0.99, DEPTH)[:3]

    assert holds(composite, splats, scene["colors"][None, None], scene["background"][None, None])


def test_the_alpha_limit_stops_gradients_of_what_is_opaque() -> None:
    scene = tiny(scale=0.5)
    scene["opacities"] = torch.full_like(scene["opacities"], 0.999)
    check_rendering(scene, alpha_limit=0.9)
