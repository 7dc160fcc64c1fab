"""Wrong arguments get one error that names the argument, what was given, and what is needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mixtura_splat import rasterize
from tests.kernels.sample_scenes import Scene, make_scene


def refused(scene: Scene, match: str, error: type[Exception] = ValueError, **changes: Any) -> None:
    with pytest.raises(error, match=match):
        rasterize(**scene | changes)


one = make_scene(10, views=2)
batch = make_scene(10, scenes=3, views=2, degree=1)


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "viewmats", "Ks", "colors", "background"])
def test_arrays_must_be_tensors(name: str) -> None:
    refused(one, rf"^{name}: a tensor is needed, got list", TypeError, **{name: one[name].tolist()})


@pytest.mark.parametrize("name", ["means", "quats", "scales", "opacities", "viewmats", "Ks", "colors", "background"])
def test_arrays_must_be_of_floats(name: str) -> None:
    match = rf"^{name}: a floating-point tensor is needed, got torch.int64. Remedy: {name}.float\(\)"
    refused(one, match, TypeError, **{name: one[name].long()})


@pytest.mark.parametrize("name", ["quats", "scales", "opacities", "viewmats", "Ks", "colors", "background"])
def test_arrays_must_be_on_one_device(name: str) -> None:
    match = rf"^{name} is on meta but means is on cpu. Remedy: {name}.to\(means.device\)"
    refused(one, match, **{name: one[name].to("meta")})


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("means", (10, 2), r"\[10, 3\]"),
        ("means", (10,), r"\[N, 3\] or \[B, N, 3\]"),
        ("quats", (10, 3), r"\[10, 4\]"),
        ("quats", (9, 4), r"\[10, 4\]"),
        ("scales", (1, 10, 3), r"\[10, 3\]"),
        ("opacities", (10, 1), r"\[10\]"),
        ("viewmats", (2, 3, 4), r"\[V, 4, 4\]"),
        ("viewmats", (1, 2, 4, 4), r"\[V, 4, 4\]"),
        ("Ks", (1, 3, 3), r"\[2, 3, 3\]"),
        ("Ks", (3, 3), r"\[2, 3, 3\]"),
    ],
)
def test_shapes_are_told_as_they_were_given(name: str, shape: tuple[int, ...], wanted: str) -> None:
    given = ", ".join(map(str, shape))
    refused(one, rf"^{name}: a tensor of shape {wanted} is needed, got \[{given}\]", **{name: torch.rand(shape)})


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("quats", (10, 4), r"\[3, 10, 4\]"),
        ("opacities", (3, 10, 1), r"\[3, 10\]"),
        ("viewmats", (2, 4, 4), r"\[3, V, 4, 4\]"),
        ("viewmats", (2, 2, 4, 4), r"\[3, V, 4, 4\]"),
        ("Ks", (3, 1, 3, 3), r"\[3, 2, 3, 3\]"),
        ("sh", (10, 4, 3), r"\[3, 10, K, 3\]"),
        ("sh", (3, 10, 4, 1), r"\[3, 10, K, 3\]"),
        ("counts", (2,), r"\[3\]"),
    ],
)
def test_shapes_of_batches_are_told_as_they_were_given(name: str, shape: tuple[int, ...], wanted: str) -> None:
    value = torch.rand(shape) if name != "counts" else torch.ones(shape, dtype=torch.int64)
    given = ", ".join(map(str, shape))
    refused(batch, rf"^{name}: a tensor of shape {wanted} is needed, got \[{given}\]", **{name: value})


@pytest.mark.parametrize("shape", [(9, 3), (3, 10, 3), (2, 2, 10, 3), (10,)])
@pytest.mark.parametrize("name", ["colors", "features"])
def test_values_of_gaussians_say_which_shapes_there_are(name: str, shape: tuple[int, ...]) -> None:
    given = ", ".join(map(str, shape))
    refused(one, rf"^{name}: .*B=1, V=2, N=10 is needed, got \[{given}\]", **{name: torch.rand(shape)})


@pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 3), (1, 2, 3), (2, 1)])
def test_backgrounds_say_which_shapes_there_are(shape: tuple[int, ...]) -> None:
    refused(one, r"^background: \[C\], \[V, C\] or \[B, V, C\] with B=1, V=2, C=3 is needed", background=torch.rand(shape))


@pytest.mark.parametrize("size", [0, -1, 2**20, 16.0, None])
@pytest.mark.parametrize("name", ["width", "height"])
def test_sizes_are_positive_integers(name: str, size: object) -> None:
    refused(one, r"^width and height: positive integers below 2\^20 are needed, got", **{name: size})


def test_either_colours_or_harmonics() -> None:
    refused(one, "^give either colors or sh", colors=None)
    refused(one, "^give either colors or sh", sh=torch.rand(10, 4, 3))
    refused(one, "^sh_degree goes with sh", sh_degree=1)


@pytest.mark.parametrize("coefficients", [0, 2, 15, 36])
def test_coefficients_make_whole_degrees(coefficients: int) -> None:
    refused(one, rf"^sh: .*\(1, 4, 9, 16, 25\).* got {coefficients}", colors=None, sh=torch.rand(10, coefficients, 3))


@pytest.mark.parametrize("degree", [-1, 2, 5])
def test_a_degree_needs_its_coefficients(degree: int) -> None:
    refused(batch, rf"^sh_degree: 0 to 1 with 4 coefficients, got {degree}", sh_degree=degree)


@pytest.mark.parametrize("counts", [[1, 2, 3], torch.tensor([1.0, 2, 3]), torch.tensor([True, False, True])])
def test_counts_are_integers(counts: object) -> None:
    refused(batch, r"^counts: a tensor of integers is needed. Remedy: torch.tensor", TypeError, counts=counts)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_counts_may_be_any_integers(dtype: torch.dtype) -> None:
    counts = torch.tensor([3, 10, 0])
    assert torch.equal(rasterize(**batch, counts=counts.to(dtype)).image, rasterize(**batch, counts=counts).image)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mode": "Classic"}, r'^mode: "classic" or "antialiased", not \'Classic\''),
        ({"depth": True}, r'^depth: "none", "accumulated" or "expected", not True'),
        ({"compat": "official"}, r'^compat: None or "graphdeco", not \'official\''),
        ({"near": 0.0}, "^near and far: 0 < near < far is needed, got near=0.0"),
        ({"near": 2.0, "far": 1.0}, "^near and far: .* got near=2.0, far=1.0"),
        ({"far": float("nan")}, "^near and far: .* far=nan"),
        ({"eps2d": -0.1}, "^eps2d >= 0 .* got eps2d=-0.1"),
        ({"eps2d": float("nan")}, "^eps2d >= 0 .* got eps2d=nan"),
        ({"alpha_limit": 0.0}, "0 < alpha_limit <= 1 are needed, got .*alpha_limit=0.0"),
        ({"alpha_limit": 1.5}, "0 < alpha_limit <= 1 are needed, got .*alpha_limit=1.5"),
    ],
)
def test_options_say_what_they_may_be(changes: dict[str, Any], match: str) -> None:
    refused(one, match, **changes)
