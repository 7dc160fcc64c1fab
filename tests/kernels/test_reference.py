"""The compiled kernels and the plain PyTorch ones give the same images and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixtura_splat import backend, ops, reference
from tests.kernels.sample_scenes import Scene, differentiate, distance, images, make_scene, worst

OPTIONS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["classic", "antialiased"]),
        "depth": st.sampled_from(["none", "accumulated", "expected"]),
        "normals": st.booleans(),
        "compat": st.sampled_from([None, "graphdeco"]),
        "eps2d": st.sampled_from([0.3, 0.1, 1.0]),
        "alpha_limit": st.sampled_from([0.99, 0.999, 0.5]),
    }
)
SCENES = st.builds(
    make_scene,
    gaussians=st.integers(1, 60),
    seed=st.integers(0, 10_000),
    views=st.sampled_from([None, 1, 2]),
    scenes=st.sampled_from([None, 1, 2]),
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    degree=st.sampled_from([None, 0, 2, 4]),
    scale=st.sampled_from([0.001, 0.05, 0.3, 1.0]),
    dtype=st.just(torch.float64),
)


def agree(scene: Scene, options: dict[str, Any], limit: float) -> None:
    ours, gradients = differentiate(scene, kernels=True, **options)
    plain, expected = differentiate(scene, kernels=False, **options)
    assert max(distance(a, b) for a, b in zip(images(ours), images(plain), strict=True)) < limit
    assert worst(gradients, expected) < limit
    assert torch.equal(ours.info.seen, plain.info.seen)
    assert distance(ours.info.extents, plain.info.extents) < limit


@settings(max_examples=40)
@given(scene=SCENES, options=OPTIONS)
@example(scene=make_scene(60, seed=5, scale=1.0, dtype=torch.float64), options={"compat": "graphdeco", "mode": "antialiased"})
def test_kernels_and_reference_agree_in_float64(scene: Scene, options: dict[str, Any]) -> None:
    agree(scene, options, 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_kernels_and_reference_agree_in_float32(seed: int) -> None:
    agree(make_scene(seed=seed, scenes=2, views=2, degree=3), {"depth": "expected", "normals": True, "mode": "antialiased"}, 1e-4)


def test_the_stages_have_the_same_results() -> None:
    scene = make_scene(degree=2, scenes=2, views=2, dtype=torch.float64)
    inputs = [scene[name] for name in ("means", "quats", "scales", "opacities", "viewmats", "Ks", "sh")]
    options = (None, scene["width"], scene["height"], 2, 0.3, 0.01, 1e10, backend.ANTIALIASED)
    ours, plain = ops.project(*inputs, *options), reference.project(*inputs, *options)
    assert all(distance(ours[i], plain[i]) < 1e-12 for i in (0, 1, 3))
    assert ours[4][1] == plain[4][1] == 0
    assert distance(ops.shade(inputs[0], inputs[4], inputs[6], 2), plain[3]) < 1e-12


def test_the_reference_works_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene()
    whole = differentiate(scene, kernels=False)
    monkeypatch.setattr(reference, "PIXELS_AT_ONCE", 1000)
    pieces = differentiate(scene, kernels=False)
    assert distance(pieces[0].image, whole[0].image) < 1e-6
    assert worst(pieces[1], whole[1]) < 1e-5
