"""A batch is its scenes and views one by one, forward and backward; ragged scenes and shared colours included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mixtura_splat import rasterize
from tests.kernels.sample_scenes import ARRAYS, Scene, differentiate, distance, images, leaves, make_scene, worst

GAUSSIANS = ("means", "quats", "scales", "opacities", "colors", "sh", "features")
SEEDS = st.integers(0, 10_000)


def alone(scene: Scene, index: int, view: int) -> Scene:
    """One view of one scene of a batch, with no axis for either."""
    single = {name: scene[name][index] for name in GAUSSIANS if scene.get(name) is not None}
    single |= {name: scene[name][index, view] for name in ("viewmats", "Ks")}
    single |= {name: values[view] for name, values in single.items() if name in ("colors", "features") and values.ndim == 3}
    return scene | single


@settings(max_examples=10)
@given(seed=SEEDS, degree=st.sampled_from([None, 2]), options=st.sampled_from([{}, {"depth": "expected", "normals": True}]))
def test_a_batch_is_its_views_one_by_one(seed: int, degree: int | None, options: dict[str, Any]) -> None:
    scene = make_scene(30, seed=seed, scenes=3, views=2, degree=degree)
    whole = images(rasterize(**scene, **options))
    for index in range(3):
        for view in range(2):
            single = images(rasterize(**alone(scene, index, view), **options))
            assert all(torch.equal(batch[index, view], image) for batch, image in zip(whole, single, strict=True))


def weighted(scene: Scene, weights: Tensor) -> dict[str, Tensor]:
    """Gradients of <image, weights>."""
    ready = leaves(scene)
    (rasterize(**ready).image * weights).sum().backward()
    return {name: ready[name].grad for name in ARRAYS if scene.get(name) is not None}


@pytest.mark.parametrize("degree", [None, 2])
def test_gradients_of_a_batch_are_sums_of_single_ones(degree: int | None) -> None:
    scene = make_scene(30, scenes=2, views=3, degree=degree, dtype=torch.float64)
    weights = torch.randn(2, 3, scene["height"], scene["width"], 3, dtype=torch.float64)
    whole = weighted(scene, weights)
    background = torch.zeros(3, dtype=torch.float64)
    for index in range(2):
        parts = [weighted(alone(scene, index, view), weights[index, view]) for view in range(3)]
        for name in parts[0].keys() - {"viewmats", "Ks", "background"}:
            assert distance(whole[name][index], sum(part[name] for part in parts)) < 1e-12
        for name in ("viewmats", "Ks"):
            assert distance(whole[name][index], torch.stack([part[name] for part in parts])) < 1e-12
        background += sum(part["background"] for part in parts)
    assert distance(whole["background"], background) < 1e-12


def test_an_axis_of_length_one_adds_nothing_but_itself() -> None:
    scene = make_scene(30, degree=1)
    plain, expected = differentiate(scene)
    given = scene | {name: scene[name][None] for name in ("means", "quats", "scales", "opacities", "sh")}
    given |= {name: scene[name][None, None] for name in ("viewmats", "Ks")}
    made, found = differentiate(given)
    assert made.image.shape == (1, 1, 28, 36, 3)
    assert torch.equal(made.image[0, 0], plain.image)
    assert all(torch.equal(found[name].reshape(expected[name].shape), expected[name]) for name in expected)


@settings(max_examples=15)
@given(counts=st.lists(st.integers(0, 33), min_size=3, max_size=3))
def test_ragged_scenes_are_their_first_gaussians(counts: list[int]) -> None:
    scene = make_scene(33, scenes=3, views=2, degree=1)
    made, gradients = differentiate(scene | {"counts": torch.tensor(counts)})
    for index, count in enumerate(counts):
        cut = {name: scene[name][index, :count] for name in ("means", "quats", "scales", "opacities", "sh")}
        cut |= {name: scene[name][index] for name in ("viewmats", "Ks")}
        assert torch.equal(made.image[index], rasterize(**scene | cut).image)
        assert not made.info.seen[index, :, count:].any()
        assert all(not gradients[name][index, count:].any() for name in ("means", "quats", "scales", "opacities", "sh"))


def test_counts_beyond_the_ends_mean_none_or_all() -> None:
    scene = make_scene(20, scenes=2)
    beyond, exact = (rasterize(**scene, counts=torch.tensor(counts)).image for counts in ([-3, 99], [0, 20]))
    assert torch.equal(beyond, exact)


def test_rows_beyond_the_count_may_hold_anything() -> None:
    scene = make_scene(33, scenes=2, degree=1)
    counts = torch.tensor([20, 33])
    _, expected = differentiate(scene | {"counts": counts})
    for name in ("means", "quats", "scales", "opacities", "sh"):
        scene[name][0, 20:] = float("nan")
    made, found = differentiate(scene | {"counts": counts})
    assert made.info.not_finite == 0
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "reference"])
def test_colours_of_each_view_that_are_equal_are_shared_ones(kernels: bool) -> None:
    scene = make_scene(30, scenes=2, views=2, dtype=torch.float64)
    shared, expected = differentiate(scene, kernels=kernels)
    repeated = scene["colors"][:, None].expand(2, 2, 30, 3)
    each, found = differentiate(scene | {"colors": repeated}, kernels=kernels)
    assert distance(each.image, shared.image) < 1e-12
    assert worst(found | {"colors": found["colors"].sum(1)}, expected) < 1e-12


def test_colours_of_each_view_show_in_that_view() -> None:
    scene = make_scene(30, scenes=2, views=2)
    scene["colors"] = torch.rand(2, 2, 30, 3)
    whole = rasterize(**scene).image
    for index, view in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert torch.equal(whole[index, view], rasterize(**alone(scene, index, view)).image)


def test_without_scenes_colours_may_be_of_each_view() -> None:
    scene = make_scene(30, views=2)
    each = torch.rand(2, 30, 3)
    whole = rasterize(**scene | {"colors": each}).image
    single = [scene | {"colors": each[v], "viewmats": scene["viewmats"][v], "Ks": scene["Ks"][v]} for v in range(2)]
    assert torch.equal(whole, torch.stack([rasterize(**one).image for one in single]))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 3)])
def test_backgrounds_are_of_all_views_or_of_each(shape: tuple[int, ...]) -> None:
    scene = make_scene(30, scenes=2, views=2)
    background = torch.rand(shape)
    each = background.expand(2, 2, 3)
    whole, (image, alpha) = rasterize(**scene | {"background": background}).image, rasterize(**scene | {"background": None})[:2]
    assert distance(whole, image + (1 - alpha) * each[:, :, None, None]) < 1e-6


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 32, 40])
def test_wide_features_are_several_renderings(width: int) -> None:
    features = torch.randn(30, width, generator=torch.Generator().manual_seed(width))
    scene = make_scene(30) | {"background": None}
    wide = rasterize(**scene, features=features)
    pieces = [rasterize(**scene | {"colors": features[:, i : i + 3]}).image for i in range(0, width, 3)]
    assert distance(wide.features, torch.cat(pieces, -1)) < 1e-6
    assert distance(wide.image, rasterize(**scene).image) < 1e-6


@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_colours_have_any_number_of_channels(width: int) -> None:
    scene = make_scene(30, channels=width, dtype=torch.float64)
    made, gradients = differentiate(scene)
    plain, expected = differentiate(scene, kernels=False)
    assert made.image.shape == (28, 36, width)
    assert distance(made.image, plain.image) < 1e-10
    assert worst(gradients, expected) < 1e-10


def test_gradients_of_wide_features_are_those_of_the_reference() -> None:
    scene = make_scene(30, scenes=2, views=2, dtype=torch.float64)
    scene["features"] = torch.randn(2, 2, 30, 11, dtype=torch.float64)
    assert worst(*(differentiate(scene, kernels=kernels, depth="accumulated")[1] for kernels in (True, False))) < 1e-10
