"""The stages as PyTorch operators: registered in full, and careful with arrays that do not belong together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mixtura_splat import ops, rasterize
from mixtura_splat.backend import DEPTH
from tests.kernels.sample_scenes import distance, make_scene

LENS = (0.3, 0.01, 1e10)


def project_inputs(degree: int | None = None) -> list[Any]:
    """Arguments of ops.project: 2 scenes of 2 views, 36 x 28 pixels."""
    scene = make_scene(20, scenes=2, views=2, degree=degree)
    arrays = [scene[name] for name in ("means", "quats", "scales", "opacities", "viewmats", "Ks")]
    return [*arrays, scene.get("sh"), None, 36, 28, degree or 0, *LENS, 0]


def composite_inputs(channels: int = 3, flags: int = 0) -> list[Any]:
    """Arguments of ops.composite."""
    splats, extents, tiles, _, _ = ops.project(*project_inputs())
    random = torch.Generator().manual_seed(1)
    features, background = (torch.rand(*shape, generator=random) for shape in ((2, 1, 20, channels), (2, 2, channels)))
    return [splats, features, background, extents, tiles, None, 36, 28, 0.99, flags]


def with_gradients(arguments: list[Any]) -> tuple[Any, ...]:
    """The same with float arrays as leaves."""
    return tuple(a.requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments)


@pytest.mark.parametrize("degree", [None, 2])
def test_project_is_registered_in_full(degree: int | None) -> None:
    torch.library.opcheck(ops.project, with_gradients(project_inputs(degree)))


def test_project_with_counts_is_registered_in_full() -> None:
    arguments = project_inputs()
    arguments[7] = torch.tensor([5, 20])
    torch.library.opcheck(ops.project, with_gradients(arguments))


def test_shade_is_registered_in_full() -> None:
    means, _, _, _, viewmats, _, sh, *_ = project_inputs(3)
    torch.library.opcheck(ops.shade, (*with_gradients([means, viewmats, sh]), 2))


@pytest.mark.parametrize("flags", [0, DEPTH])
def test_composite_is_registered_in_full(flags: int) -> None:
    torch.library.opcheck(ops.composite, with_gradients(composite_inputs(4, flags)))


def test_composite_with_a_probe_is_registered_in_full() -> None:
    arguments = composite_inputs()
    arguments[5] = torch.zeros(2, 2, 20, 4)
    torch.library.opcheck(ops.composite, with_gradients(arguments))


def test_the_stages_together_are_rasterize() -> None:
    scene = make_scene(30, scenes=2, views=2, degree=2)
    arrays = [scene[name] for name in ("means", "quats", "scales", "opacities", "viewmats", "Ks", "sh")]
    splats, extents, tiles, _, _ = ops.project(*arrays[:6], None, None, 36, 28, 0, *LENS, 0)
    colors = ops.shade(arrays[0], arrays[4], arrays[6], 2)
    image, *_ = ops.composite(splats, colors, scene["background"].expand(2, 2, 3), extents, tiles, None, 36, 28, 0.99, 0)
    assert distance(image, rasterize(**scene).image) < 1e-6


def test_something_may_be_put_between_the_stages() -> None:
    splats, features, background, extents, tiles, *rest = composite_inputs()
    dimmed = torch.cat([splats[..., :5], splats[..., 5:6] * 0.5, splats[..., 6:]], -1)
    bright, dim = (1 - ops.composite(s, features, background, extents, tiles, *rest)[2] for s in (splats, dimmed))
    assert (dim <= bright + 1e-6).all()
    assert (dim < bright).any()


def test_too_many_list_entries_are_refused_before_memory_is_taken() -> None:
    arguments = composite_inputs()
    arguments[4] = torch.full_like(arguments[4], 2**31 // 20 + 1)
    with pytest.raises(RuntimeError, match=r"tiles: 2147483660 list entries .* Remedy: fewer or smaller Gaussians"):
        ops.composite(*arguments)


def test_tiles_of_other_splats_are_refused() -> None:
    arguments = composite_inputs()
    for change in (1, -1):
        wrong = arguments[4] + change * (arguments[4] > 1).int()
        with pytest.raises(RuntimeError, match="do not belong together"):
            ops.composite(*arguments[:4], wrong, *arguments[5:])


def test_negative_tiles_are_refused() -> None:
    arguments = composite_inputs()
    tiles = arguments[4].clone()
    tiles[0, 0, :2] = torch.tensor([-1, int(tiles[0, 0, :2].sum()) + 1])
    with pytest.raises(RuntimeError, match="do not belong together"):
        ops.composite(*arguments[:4], tiles, *arguments[5:])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("field", range(8))
def test_splats_that_were_spoiled_between_the_stages_do_no_harm(field: int, value: float) -> None:
    arguments = composite_inputs()
    splats = arguments[0].clone()
    splats[:, :, ::3, field] = value
    try:
        ops.composite(splats.requires_grad_(), *arguments[1:])[0].sum().backward()
    except RuntimeError as refusal:
        assert "do not belong together" in str(refusal)  # noqa: PT017


@pytest.mark.parametrize(
    ("place", "change", "name"),
    [
        (0, lambda splats: splats[..., :7], "splats"),
        (1, lambda features: features[:, :, 1:], "features"),
        (1, lambda features: features.double(), "features"),
        (2, lambda background: background[..., :1], "background"),
        (3, lambda extents: extents[:1], "extents"),
        (4, lambda tiles: tiles.long(), "tiles"),
    ],
)
def test_composite_names_an_array_that_does_not_fit(place: int, change: Any, name: str) -> None:
    arguments = composite_inputs()
    arguments[place] = change(arguments[place])
    with pytest.raises(ValueError, match=f"^{name}: torch.* is needed, got"):
        ops.composite(*arguments)


@pytest.mark.parametrize(
    ("place", "change", "name"),
    [
        (0, lambda means: means[..., :2], "means"),
        (1, lambda quats: quats[:, 1:], "quats"),
        (2, lambda scales: scales.double(), "scales"),
        (3, lambda opacities: opacities[..., None], "opacities"),
        (5, lambda ks: ks[:, :1], "ks"),
        (6, lambda sh: sh[..., :2], "sh"),
        (7, lambda _: torch.tensor([1, 2], dtype=torch.int32), "counts"),
    ],
)
def test_project_names_an_array_that_does_not_fit(place: int, change: Any, name: str) -> None:
    arguments = project_inputs(1)
    arguments[place] = change(arguments[place])
    with pytest.raises(ValueError, match=f"^{name}: torch.* is needed, got"):
        ops.project(*arguments)


def test_a_degree_needs_its_coefficients() -> None:
    arguments = project_inputs(1)
    arguments[10] = 2
    with pytest.raises(ValueError, match="sh_degree: 0 to 4 .* got 2 with 4"):
        ops.project(*arguments)
    with pytest.raises(ValueError, match="sh_degree"):
        ops.shade(arguments[0], arguments[4], arguments[6], 2)


# ---- the backward operators ------------------------------------------------------------------------------------------

CHECKS = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.mark.parametrize("camera", [True, False])
@pytest.mark.parametrize("degree", [None, 1])
def test_the_backward_of_project_is_registered(degree: int | None, camera: bool) -> None:
    arguments = project_inputs(degree)
    splats, _, _, colors, _ = ops.project(*arguments)
    cotangents = torch.randn_like(splats), torch.randn_like(colors) if degree else None
    given = (*arguments[:7], splats, colors, *cotangents, *arguments[8:], camera)
    torch.library.opcheck(torch.ops.mixtura_splat.project_backward, given, test_utils=CHECKS)


@pytest.mark.parametrize("camera", [True, False])
def test_the_backward_of_shade_is_registered(camera: bool) -> None:
    means, _, _, _, viewmats, _, sh, *_ = project_inputs(2)
    colors = ops.shade(means, viewmats, sh, 2)
    given = (means, viewmats, sh, colors, torch.randn_like(colors), 2, camera)
    torch.library.opcheck(torch.ops.mixtura_splat.shade_backward, given, test_utils=CHECKS)


@pytest.mark.parametrize("absolute", [True, False])
def test_the_backward_of_composite_is_registered(absolute: bool) -> None:
    splats, features, background, extents, tiles, *rest = composite_inputs(4, DEPTH)
    image, depth, *kept = ops.composite(splats, features, background, extents, tiles, *rest)
    cotangents = torch.randn_like(image), torch.randn_like(depth), None
    given = (splats, features, background, tiles, *kept, *cotangents, *rest[1:], absolute)
    torch.library.opcheck(torch.ops.mixtura_splat.composite_backward, given, test_utils=CHECKS)
