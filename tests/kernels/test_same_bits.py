"""Threads never change a bit of the results, and instruction sets hardly do."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from mixtura_splat import backend
from tests.kernels.sample_scenes import Scene, differentiate, distance, images, make_scene, worst

EVERYTHING: dict[str, Any] = {"mode": "antialiased", "depth": "expected", "normals": True}
SCENES: dict[str, Scene] = {
    "one view": make_scene(700, scale=0.2, size=(150, 90), degree=2),
    "many views": make_scene(150, scenes=3, views=4, size=(50, 40), degree=1),
    "wide features": make_scene(300, size=(70, 50), channels=9),
    "more than a piece": make_scene(9000, size=(90, 60), scale=0.02, degree=1),
    "one channel, one row": make_scene(50, size=(900, 1), channels=1),
}


def bits(scene: Scene, threads: int, **options: Any) -> list[Tensor]:
    """All results with so many threads."""
    torch.set_num_threads(threads)
    made, gradients = differentiate(scene, **EVERYTHING | options)
    return [*images(made), made.info.splats, *gradients.values()]


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_results_do_not_depend_on_the_number_of_threads(scene: Scene) -> None:
    one = bits(scene, 1)
    for threads in (2, 3):
        assert all(torch.equal(a, b) for a, b in zip(one, bits(scene, threads), strict=True))


def test_sharing_a_large_view_between_threads_changes_nothing() -> None:
    scene = make_scene(40_000, size=(64, 48), scale=0.01)  # more than it takes for threads to share the lists of a view
    results = [bits(scene, threads, normals=False) for threads in (1, 2, 3)]
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_a_second_run_gives_the_same_bits() -> None:
    first, second = (bits(SCENES["one view"], 2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("scene", ["many views", "wide features"])
def test_every_number_of_every_result_is_written(scene: str) -> None:
    plain = bits(SCENES[scene], 1)
    torch.use_deterministic_algorithms(True)  # fresh memory is then filled with NaN
    try:
        filled = bits(SCENES[scene], 1)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(plain, filled, strict=True))


def test_scenes_may_be_rendered_at_the_same_time() -> None:
    scenes = [make_scene(200, seed=seed, degree=1) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda scene: bits(scene, 2), scenes))
    for scene, found in zip(scenes, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found, bits(scene, 2), strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_renders_the_same() -> None:
    scene = make_scene(200)
    expected = bits(scene, 2)[0]
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    worker = context.Process(target=lambda: answers.put(bits(scene, 1)[0].detach().numpy().tobytes()))  # as data loaders do
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert answers.get() == expected.detach().numpy().tobytes()


def available_levels() -> list[str]:
    """The x86-64 levels that this processor runs and that were built."""
    names = [name.removeprefix("cpu-") for name in backend.processor_levels()]
    return [name for name in names if (backend.LIBRARIES / f"cpu-{name}.so").is_file()]


@pytest.mark.parametrize("level", available_levels())
@pytest.mark.parametrize("scene", ["one view", "wide features"])
def test_all_instruction_sets_agree(level: str, scene: str, fresh_backend: pytest.MonkeyPatch) -> None:
    exact, _ = differentiate(SCENES[scene], kernels=False, **EVERYTHING)
    _, expected = differentiate(SCENES[scene], kernels=True, **EVERYTHING)
    backend.load.cache_clear()
    fresh_backend.setenv("MIXTURA_SPLAT_LEVEL", level)
    assert level in backend.load("cpu").name
    made, found = differentiate(SCENES[scene], kernels=True, **EVERYTHING)
    assert max(distance(a, b) for a, b in zip(images(made), images(exact), strict=True)) < 1e-5
    assert worst(found, expected) < 2e-5
