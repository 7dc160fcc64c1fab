"""How the operators go with the rest of PyTorch: precisions, strides, hooks, checkpointing, partial gradients."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mixtura_splat import backend, rasterize
from tests.kernels.sample_scenes import ARRAYS, Scene, differentiate, distance, images, leaves, make_scene, score, worst


@pytest.fixture(params=[True, False], ids=["kernels", "reference"])
def kernels(request: pytest.FixtureRequest) -> bool:
    return request.param


def cast(scene: Scene, dtype: torch.dtype) -> Scene:
    return scene | {name: scene[name].to(dtype) for name in ARRAYS if name in scene}


# ---- precisions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_up_to_float32(dtype: torch.dtype, kernels: bool) -> None:
    scene = cast(make_scene(30, degree=1), dtype)
    made, gradients = differentiate(scene, kernels=kernels)
    same, expected = differentiate(cast(scene, torch.float32), kernels=kernels)
    assert made.image.dtype == torch.float32
    assert torch.equal(made.image, same.image)
    assert all(gradients[name].dtype == dtype for name in gradients)
    assert all(torch.equal(gradients[name], expected[name].to(dtype)) for name in gradients)


def test_precisions_may_be_mixed() -> None:
    scene = make_scene(30)
    mixed = scene | {"means": scene["means"].half().float(), "colors": scene["colors"].half(), "Ks": scene["Ks"].double()}
    assert rasterize(**mixed).image.dtype == torch.float32
    assert rasterize(**mixed | {"means": mixed["means"].double()}).image.dtype == torch.float64


def test_autocast_changes_nothing(kernels: bool) -> None:
    scene = make_scene(30, degree=2)
    expected, wanted = differentiate(scene, kernels=kernels, normals=True, depth="expected")
    ready = leaves(scene)
    with torch.autocast("cpu", torch.bfloat16):
        made = rasterize(**ready, kernels=kernels, normals=True, depth="expected")
    score(made).backward()
    assert all(torch.equal(a, b) for a, b in zip(images(made), images(expected), strict=True))
    assert all(torch.equal(ready[name].grad, wanted[name]) for name in wanted)


def test_even_backward_may_run_under_autocast() -> None:
    scene = make_scene(30, degree=2)
    _, expected = differentiate(scene, kernels=True)
    with torch.autocast("cpu", torch.bfloat16):
        _, found = differentiate(scene, kernels=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_inputs_made_under_autocast_are_taken() -> None:
    scene = make_scene(30)
    with torch.autocast("cpu", torch.bfloat16):
        means = scene["means"] @ torch.eye(3)
        assert means.dtype == torch.bfloat16
        assert rasterize(**scene | {"means": means}).image.dtype == torch.float32


# ---- strides ---------------------------------------------------------------------------------------------------------


def scattered(tensor: Tensor) -> Tensor:
    """The same values with gaps between them, last axis first in memory."""
    wide = tensor.new_zeros(*tensor.shape[::-1], 2)
    view = wide[..., 1].permute(*reversed(range(tensor.ndim)))
    return view.copy_(tensor)


@pytest.mark.parametrize("degree", [None, 2])
def test_strides_do_not_matter(degree: int | None) -> None:
    scene = make_scene(30, scenes=2, views=2, degree=degree)
    odd = scene | {name: scattered(scene[name]) for name in ARRAYS if name in scene}
    assert not odd["means"].is_contiguous()
    expected, wanted = differentiate(scene)
    ready = odd | {name: odd[name].requires_grad_() for name in ARRAYS if name in scene}
    made = rasterize(**ready)
    score(made).backward()
    assert torch.equal(made.image, expected.image)
    assert all(torch.equal(ready[name].grad, wanted[name]) for name in wanted)


def test_expanded_inputs_get_summed_gradients() -> None:
    scene = make_scene(30)
    one = torch.tensor([0.1], requires_grad=True)
    score(rasterize(**scene | {"scales": one.expand(30, 3)})).backward()
    _, each = differentiate(scene | {"scales": torch.full((30, 3), 0.1)})
    assert distance(one.grad, each["scales"].sum()[None]) < 1e-4


def test_strided_cotangents_do_not_matter() -> None:
    scene = leaves(make_scene(30))
    image = rasterize(**scene).image
    weights = torch.randn(3, 28, 36).permute(1, 2, 0)
    first = torch.autograd.grad(image, scene["means"], weights, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(image, scene["means"], weights.contiguous())[0])


# ---- which gradients -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "viewmats", "Ks", "sh", "background"])
def test_one_gradient_alone_is_the_same(name: str, kernels: bool) -> None:
    scene = make_scene(30, degree=1)
    _, expected = differentiate(scene, kernels=kernels)
    ready = leaves(scene, name)
    score(rasterize(**ready, kernels=kernels)).backward()
    assert distance(ready[name].grad, expected[name]) < 1e-6
    assert all(ready[other].grad is None for other in expected if other != name)


def calls_of(scene: Scene) -> dict[str, tuple[Any, ...]]:
    """{function: arguments} of the library during a forward and backward pass."""
    seen: dict[str, tuple[Any, ...]] = {}
    original = backend.call

    def note(function: str, like: Tensor, opts: backend.Options, *arguments: Any, **rest: Any) -> None:
        seen[function] = arguments
        original(function, like, opts, *arguments, **rest)

    with mock.patch.object(backend, "call", note):
        score(rasterize(**scene, kernels=True)).backward()
    return seen


def test_camera_gradients_are_computed_only_when_somebody_wants_them() -> None:
    fixed = calls_of(leaves(make_scene(10), "means"))["project_backward"]
    assert fixed[-2:] == (None, None)
    moving = calls_of(leaves(make_scene(10), "viewmats"))["project_backward"]
    assert None not in moving[-2:]


def test_colours_alone_need_no_projection_backward() -> None:
    calls = calls_of(leaves(make_scene(10), "colors"))
    assert "composite_backward" in calls
    assert "project_backward" not in calls


def test_without_gradients_nothing_is_remembered(kernels: bool) -> None:
    scene = leaves(make_scene(10))
    with torch.no_grad():
        made = rasterize(**scene, kernels=kernels, depth="expected", normals=True)
    assert not any(image.requires_grad for image in images(made))
    assert torch.equal(made.image, rasterize(**scene, kernels=kernels).image)


def test_a_loss_on_one_output_alone_works(kernels: bool) -> None:
    scene = make_scene(30, dtype=torch.float64)
    for part in ("image", "alpha", "depth"):
        ready = leaves(scene)
        getattr(rasterize(**ready, depth="accumulated", kernels=kernels), part).square().sum().backward()
        assert ready["means"].grad.any()


def test_projected_splats_have_gradients_even_off_the_image() -> None:
    scene = make_scene(40, views=2, degree=1, dtype=torch.float64)
    scene["means"] *= torch.tensor([3.0, 3, 3.5])  # some beside the image, some behind the camera
    weights = torch.randn(2, 40, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weights[..., 6] = 0  # tau follows from the opacity
    gradients = []
    for kernels in (True, False):
        ready = leaves(scene)
        info = rasterize(**ready, kernels=kernels).info
        (info.splats * weights).sum().backward()
        gradients.append([ready[name].grad for name in ("means", "quats", "scales", "opacities", "viewmats", "Ks")])
    assert (~info.seen & (info.depths > 0)).any()
    assert max(distance(a, b) for a, b in zip(*gradients, strict=True)) < 1e-9


# ---- the engine ------------------------------------------------------------------------------------------------------


def test_saved_tensors_may_live_elsewhere() -> None:
    scene = make_scene(30, degree=1)
    _, expected = differentiate(scene)
    with torch.autograd.graph.save_on_cpu():
        _, found = differentiate(scene)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_saved_tensors_may_be_packed_and_unpacked() -> None:
    scene, packed = make_scene(30), []
    _, expected = differentiate(scene)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.shape) or t.clone(), lambda t: t):
        _, found = differentiate(scene)
    assert len(packed) > 10
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    scene = make_scene(30)
    _, expected = differentiate(scene)
    ready = leaves(scene)
    names = [name for name in ARRAYS if name in scene]

    def render(*arrays: Tensor) -> Tensor:
        return score(rasterize(**ready | dict(zip(names, arrays, strict=True))))

    checkpoint(render, *(ready[name] for name in names), use_reentrant=reentrant).backward()
    assert worst({name: ready[name].grad for name in names}, expected) == 0


def test_backward_may_run_twice() -> None:
    ready = leaves(make_scene(30))
    loss = score(rasterize(**ready))
    loss.backward(retain_graph=True)
    once = ready["means"].grad.clone()
    loss.backward()
    assert torch.equal(ready["means"].grad, 2 * once)


def test_second_derivatives_are_refused_in_words() -> None:
    ready = leaves(make_scene(10))
    (gradient,) = torch.autograd.grad(score(rasterize(**ready, kernels=True)), ready["means"], create_graph=True)
    with pytest.raises(RuntimeError, match="first derivatives only. Remedy: kernels=False"):
        gradient.sum().backward()


def test_the_reference_has_second_derivatives() -> None:
    ready = leaves(make_scene(10, dtype=torch.float64), "means")
    (gradient,) = torch.autograd.grad(score(rasterize(**ready, kernels=False)), ready["means"], create_graph=True)
    gradient.square().sum().backward()
    assert ready["means"].grad.isfinite().all()
    assert ready["means"].grad.any()


# ---- what comes besides images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [{}, {"views": 2}, {"scenes": 2, "views": 2}])
def test_info_has_the_axes_that_were_given(shape: dict[str, int], kernels: bool) -> None:
    made, _ = differentiate(make_scene(10, **shape), kernels=kernels, absgrad=True, normals=True)
    lead = tuple(shape.values())
    assert made.info.splats.shape == (*lead, 10, 8)
    assert made.info.means2d.shape == made.info.extents.shape == made.info.absgrad.shape == (*lead, 10, 2)
    assert made.info.depths.shape == made.info.seen.shape == made.info.tiles.shape == (*lead, 10)
    assert made.info.conics.shape == (*lead, 10, 3)
    assert made.info.normals.shape == made.image.shape == (*lead, 28, 36, 3)
    assert made.info.not_finite.shape == ()


def test_the_probe_has_the_gradients_of_projected_means() -> None:
    ready = leaves(make_scene(30, views=2))
    made = rasterize(**ready, absgrad=True)
    made.info.splats.retain_grad()
    score(made).backward()
    assert torch.equal(made.info.probe.grad[..., :2], made.info.splats.grad[..., :2])
    assert (made.info.absgrad >= made.info.splats.grad[..., :2].abs() - 1e-4).all()


def test_absolute_gradients_do_not_change_the_others() -> None:
    scene = make_scene(30)
    _, expected = differentiate(scene)
    _, found = differentiate(scene, absgrad=True)
    assert worst(found, expected) < 1e-6


def test_absolute_gradients_are_there_after_backward_only() -> None:
    scene = leaves(make_scene(10))
    for made in (rasterize(**scene), rasterize(**scene, absgrad=True)):
        with pytest.raises(RuntimeError, match="absgrad=True"):
            _ = made.info.absgrad
