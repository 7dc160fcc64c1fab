"""On a GPU: the CUDA kernels give what the CPU gives, and the same bits when asked to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixtura_splat import rasterize
from mixtura_splat.ssim import ssim
from tests.kernels import sample_scenes as samples
from tests.kernels.sample_scenes import Scene

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
CASES: dict[str, tuple[Scene, dict[str, object]]] = {
    "colours": (samples.make_scene(), {}),
    "harmonics": (samples.make_scene(degree=3, views=2), {"mode": "antialiased", "depth": "expected", "normals": True}),
    "batch": (samples.make_scene(scenes=2, views=3, degree=4), {"depth": "accumulated"}),
    "wide": (samples.make_scene(channels=9, views=2), {}),
    "many": (samples.make_scene(20_000, scale=0.02, size=(200, 130)), {"depth": "accumulated"}),
    "original": (samples.make_scene(degree=1), {"compat": "graphdeco"}),
}


def on_gpu(scene: Scene) -> Scene:
    return {name: value.cuda() if isinstance(value, Tensor) else value for name, value in scene.items()}


def run(scene: Scene, **options: object) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Images and gradients, on the CPU again; the weights of the loss are drawn there."""
    ready = samples.leaves(scene)
    rendering = rasterize(**ready, kernels=True, **options)
    parts = samples.images(rendering)
    random = torch.Generator().manual_seed(7)
    sum((part * torch.randn(part.shape, generator=random).to(part.device)).sum() for part in parts).backward()
    grads = {name: ready[name].grad.cpu() for name in samples.ARRAYS if scene.get(name) is not None}
    return [part.detach().cpu() for part in parts], grads


@pytest.mark.parametrize("deterministic", [False, True], ids=["atomics", "deterministic"])
@pytest.mark.parametrize("case", CASES)
def test_images_and_gradients_are_those_of_the_cpu(case: str, deterministic: bool) -> None:
    scene, options = CASES[case]
    images, grads = run(scene, **options)
    gpu_images, gpu_grads = run(on_gpu(scene), deterministic=deterministic, **options)
    assert max(map(samples.distance, gpu_images, images)) < 1e-5
    assert samples.worst(gpu_grads, grads) < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_deterministic_runs_have_the_same_bits(case: str) -> None:
    scene, options = CASES[case]
    first, second = (run(on_gpu(scene), deterministic=True, **options) for _ in range(2))
    assert all(map(torch.equal, first[0], second[0]))
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


def test_absolute_gradients_are_those_of_the_cpu() -> None:
    found = []
    for scene in (samples.make_scene(), on_gpu(samples.make_scene())):
        rendering = rasterize(**samples.leaves(scene), absgrad=True)
        rendering.image.square().sum().backward()
        found.append(rendering.info.absgrad.cpu())
    assert samples.distance(found[1], found[0]) < 1e-4


def test_a_compiled_step_is_the_eager_one() -> None:
    scene = on_gpu(samples.make_scene(degree=2))
    compiled = torch.compile(lambda s: rasterize(**s).image, fullgraph=True)
    assert samples.distance(compiled(scene), rasterize(**scene).image) < 1e-6


def test_a_side_stream_is_respected() -> None:
    scene = on_gpu(samples.make_scene())
    expected = rasterize(**scene).image
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        image = rasterize(**scene).image
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(image, expected)


def test_structural_similarity_is_that_of_the_cpu() -> None:
    random = torch.Generator().manual_seed(3)
    a, b = (torch.rand(2, 45, 70, 3, generator=random) for _ in range(2))
    results = []
    for device in ("cpu", "cuda"):
        left, right = a.to(device).requires_grad_(), b.to(device).requires_grad_()
        value = ssim(left, right)
        value.backward()
        results.append([value.detach().cpu(), left.grad.cpu(), right.grad.cpu()])
    assert max(map(samples.distance, results[1], results[0])) < 1e-5
