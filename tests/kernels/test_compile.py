"""torch.compile takes a whole training step in one graph and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mixtura_splat import rasterize
from tests.kernels.sample_scenes import ARRAYS, Scene, distance, leaves, make_scene, worst


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def step(arrays: dict[str, Tensor], target: Tensor, options: dict[str, Any]) -> Tensor:
    """A loss on colours, alpha and depth."""
    made = rasterize(**arrays, width=target.shape[-2], height=target.shape[-3], depth="expected", **options)
    return (made.image - target).square().mean() + 0.1 * made.alpha.mean() + 0.01 * made.depth.mean()


def run(function: Any, scene: Scene, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and all gradients."""
    ready = leaves(scene)
    arrays = {name: ready[name] for name in ARRAYS if name in scene}
    loss = function(arrays, torch.zeros(scene["height"], scene["width"], 3), options)
    loss.backward()
    return loss.detach(), {name: array.grad for name, array in arrays.items()}


def agree(compiled: Any, scene: Scene, **options: Any) -> None:
    (loss, found), (wanted, expected) = run(compiled, scene, **options), run(step, scene, **options)
    assert distance(loss, wanted) < 1e-6
    assert worst(found, expected) < 1e-5


@pytest.mark.parametrize("options", [{}, {"mode": "antialiased", "normals": True}, {"compat": "graphdeco"}])
@pytest.mark.parametrize("degree", [None, 2])
def test_a_step_is_one_graph(degree: int | None, options: dict[str, Any]) -> None:
    agree(torch.compile(step, fullgraph=True, backend="aot_eager"), make_scene(30, degree=degree), **options)


def test_a_batch_with_counts_and_features_is_one_graph() -> None:
    scene = make_scene(30, scenes=2, views=2, degree=1) | {"features": torch.rand(2, 30, 5)}
    agree(torch.compile(step, fullgraph=True, backend="aot_eager"), scene, counts=torch.tensor([20, 30]))


def test_a_growing_scene_is_compiled_at_most_twice() -> None:
    graphs: list[int] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(1)
        return graph.forward

    compiled = torch.compile(step, fullgraph=True, backend=count)
    for gaussians in (30, 41, 57, 120):
        agree(compiled, make_scene(gaussians, degree=1))
    assert len(graphs) <= 2


def test_without_gradients_it_is_one_graph() -> None:
    scene = make_scene(30)
    with torch.no_grad():
        compiled = torch.compile(lambda: rasterize(**scene).image, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(), rasterize(**scene).image)


def test_absolute_gradients_break_the_graph_and_work() -> None:
    scene = make_scene(30)
    compiled = torch.compile(lambda means: rasterize(**scene | {"means": means}, absgrad=True), backend="aot_eager")
    infos = []
    for function in (compiled, compiled._torchdynamo_orig_callable):
        made = function(scene["means"].clone().requires_grad_())
        made.image.sum().backward()
        infos.append(made.info)
    assert torch.equal(infos[0].absgrad, infos[1].absgrad)


@pytest.mark.slow
def test_inductor_compiles_a_step() -> None:
    agree(torch.compile(step, fullgraph=True), make_scene(30, degree=1))


@pytest.mark.slow
def test_inductor_compiles_a_growing_scene() -> None:
    compiled = torch.compile(step, fullgraph=True, dynamic=True)
    for gaussians in (30, 41):
        agree(compiled, make_scene(gaussians, degree=1))
