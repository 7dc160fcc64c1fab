"""Networks made ready for inference give the pictures of the plain ones, and say what they can't do."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura.errors import ConfigError
from mixtura_live_portrait import fast
from mixtura_live_portrait.fast import Ready, has_bfloat16, ready
from mixtura_live_portrait.keypoints import Motion
from mixtura_live_portrait.lean.enlarged import Enlarged
from mixtura_live_portrait.lean.filtering import filtering
from mixtura_live_portrait.lean.folding import fold_
from mixtura_live_portrait.lean.fourier import Fourier
from mixtura_live_portrait.lean.tiled import Tiled, as_tiles
from mixtura_live_portrait.lean.workspace import Workspace, inside
from mixtura_live_portrait.nets import Networks
from mixtura_live_portrait.nets.blocks import SpectralConv2d
from mixtura_live_portrait.nets.sizes import TINY, Sizes

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="the processor has no bfloat16")
SIZES = {"tiny": TINY, "deep": replace(TINY, depth=9, keypoints=12, shuffle=2), "shallow": replace(TINY, downs=1, dense_blocks=2)}


def lived_in(sizes: Sizes) -> Networks:
    """Networks whose norms and biases are not as they begin, with spectral norms that hold."""
    torch.manual_seed(0)
    networks = Networks(sizes).eval()
    for name, value in networks.state_dict().items():
        if value.ndim == 1 and not name.endswith(("_u", "_v")):
            value.add_(0.2 * torch.rand_like(value))
    for module in networks.modules():
        if isinstance(module, SpectralConv2d):
            module.refresh(30)
    return networks


def inputs(sizes: Sizes, count: int = 3) -> dict[str, Tensor]:
    """Images, and keypoints of a source and of driving frames."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, 3, sizes.image, sizes.image, generator=generator)
    points = torch.rand(1 + count, sizes.keypoints, 3, generator=generator) * 1.2 - 0.6
    return {"image": image, "x_source": points[:1], "x_driving": points[1:]}


def plain(networks: Networks, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the networks themselves make of it."""
    with torch.no_grad():
        volume = networks.appearance(given["image"])
        driving = given["x_driving"]
        warped = networks.warping(volume[:1].expand_as(volume), driving, given["x_source"].expand_as(driving))
        motion = Motion.of(networks.motion(given["image"])).keypoints()
        return {"volume": volume, "picture": networks.generator(warped.out), "motion": motion}


def quick(engine: Ready, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same from a ready engine."""
    volume = engine.volume(given["image"])
    picture = engine.animate(volume[:1], given["x_source"], given["x_driving"])
    return {"volume": volume, "picture": picture, "motion": engine.motion(given["image"]).keypoints()}


def distance(ours: Tensor, expected: Tensor) -> float:
    """Relative error."""
    return float((ours - expected).norm() / expected.norm())


def check_equal(networks: Networks, engine: Ready, limit: float) -> None:
    given = inputs(networks.sizes)
    expected, ours = plain(networks, given), quick(engine, given)
    assert {name: distance(ours[name], value) < limit for name, value in expected.items()} == dict.fromkeys(expected, True)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("lean", [True, False])
def test_ready_networks_give_the_same_in_float32(size: str, lean: bool) -> None:
    networks = lived_in(SIZES[size])
    before = copy.deepcopy(networks.state_dict())
    check_equal(networks, ready(networks, lean=lean), 1e-4)
    assert all(torch.equal(value, before[name]) for name, value in networks.state_dict().items())


@needs_bfloat16
@pytest.mark.parametrize("lean", [True, False])
def test_ready_networks_give_nearly_the_same_in_bfloat16(lean: bool) -> None:
    networks = lived_in(TINY)
    check_equal(networks, ready(networks, "bfloat16", lean=lean), 2e-2)


@pytest.mark.slow
@needs_bfloat16
def test_the_published_size_gives_the_same() -> None:
    networks = lived_in(Sizes())
    given = inputs(networks.sizes, 1)
    expected = plain(networks, given)
    for precision, limit in (("float32", 1e-4), ("bfloat16", 2e-2)):
        ours = quick(ready(networks, precision), given)
        assert distance(ours["picture"], expected["picture"]) < limit
        assert (ours["picture"] - expected["picture"]).square().mean() < 1e-4  # PSNR over 40 dB


@pytest.mark.slow
def test_compiled_networks_give_the_same() -> None:
    networks = lived_in(replace(TINY, resblocks=1, middle=1, dense_blocks=1))
    check_equal(networks, ready(networks, compile=True), 1e-4)


def test_frames_do_not_depend_on_those_beside_them_or_on_earlier_calls() -> None:
    networks = lived_in(TINY)
    engine, given = ready(networks), inputs(TINY, 3)
    volume = engine.volume(given["image"])
    together = engine.animate(volume[:1], given["x_source"], given["x_driving"])
    kept = together.clone()
    alone = torch.cat([engine.animate(volume[:1], given["x_source"], x[None]) for x in given["x_driving"]])
    torch.testing.assert_close(alone, together)
    assert torch.equal(together, kept)
    own = engine.animate(volume, given["x_source"].expand_as(given["x_driving"]), given["x_driving"])
    assert not torch.allclose(own[1:], together[1:])
    torch.testing.assert_close(own[1:2], engine.animate(volume[1:2], given["x_source"], given["x_driving"][1:2]))


def test_the_lean_networks_take_several_frames_at_once() -> None:
    path, given = ready(lived_in(TINY)).path, inputs(TINY, 3)
    assert isinstance(path, fast.Lean)
    with torch.inference_mode():
        volume = path.appearance(given["image"])
        together = path.generator(path.warping(volume, given["x_driving"], given["x_source"]).out)
        alone = [path.picture(v[None], x[None], given["x_source"]) for v, x in zip(volume, given["x_driving"], strict=True)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_threads_share_an_engine() -> None:
    engine, given = ready(lived_in(TINY)), inputs(TINY, 4)
    volume = engine.volume(given["image"][:1])
    expected = [engine.animate(volume, given["x_source"], x[None]) for x in given["x_driving"]]
    found: dict[int, Tensor] = {}

    def work(i: int) -> None:
        found[i] = engine.animate(volume, given["x_source"], given["x_driving"][i : i + 1])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(4))


def test_folding_leaves_no_norm_that_could_go() -> None:
    networks = lived_in(TINY)
    kinds = [
        type(m).__name__ for part in ("appearance", "warping", "generator") for m in fold_(getattr(networks, part)).modules()
    ]
    assert kinds.count("SteadyNorm3d") == TINY.resblocks  # those before a convolution and after a sum
    assert not {"SteadyNorm2d", "SpectralConv2d"} & set(kinds)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "float16", "layout": "rows"}, "precision 'float16', expected one of .*; layout 'rows', expected"),
        ({"cuda_graphs": True}, "cuda_graphs: the networks are on cpu; only NVIDIA GPUs record graphs"),
        ({"lean": True, "compile": True}, "only the direct way can be compiled"),
    ],
)
def test_what_cannot_be_had_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ready(lived_in(TINY), **options)


def test_processors_without_bfloat16_refuse_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "has_bfloat16", lambda device: False)
    with pytest.raises(ConfigError, match="precision bfloat16: this cpu has no such instructions, .*take float32"):
        ready(lived_in(TINY), "bfloat16")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda e, g: e.volume(g["image"][:, :2]), r"images: shape \(3, 2, 64, 64\), expected \(b, 3, 64, 64\)"),
        (lambda e, g: e.motion(g["image"][:0]), r"images: shape \(0, 3, 64, 64\)"),
        (
            lambda e, g: e.animate(torch.zeros(2, *TINY.volume), g["x_source"], g["x_driving"]),
            r"volume: shape .*, expected \(3 or 1, 8, 8, 16, 16\)",
        ),
        (
            lambda e, g: e.animate(torch.zeros(1, *TINY.volume), g["x_source"][:, :4], g["x_driving"]),
            r"x_source: shape \(1, 4, 3\), expected \(3 or 1, 10, 3\)",
        ),
    ],
)
def test_wrong_shapes_are_one_error(call: Callable[[Ready, dict[str, Tensor]], Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        call(ready(lived_in(TINY)), inputs(TINY))


# -- the arithmetic -----------------------------------------------------------------------------------------------
def volume_of(padded: Tensor) -> Tensor:
    """(b, d, h, w, c) as (b, c, d, h, w)."""
    return padded.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("outputs", [2, 4])
def test_minimal_filtering_is_correlation(outputs: int) -> None:
    a, g, b = filtering(outputs)
    data, taps = torch.randn(outputs + 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    torch.testing.assert_close(a @ ((g @ taps) * (b @ data)), data.unfold(0, 3, 1) @ taps)


@pytest.mark.parametrize(("tile", "h", "w"), [(4, 8, 12), (2, 4, 2)])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("chunk", [1, 2**20])
def test_tiles_are_the_convolution(tile: int, h: int, w: int, depth: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixtura_live_portrait.lean.tiled.CHUNK", chunk)
    space, weight = Workspace(), torch.randn(6, 5, 3, 3, 3) if depth > 1 else torch.randn(6, 5, 3, 3)
    padded = space.bordered("x", (2, depth, h, w, 5))
    inside(padded).copy_(torch.randn(2, depth, h, w, 5))
    out = torch.empty(2, depth, h, w, 6)
    tiled = Tiled(weight, tile)
    for rows, values in tiled.tiles(space, padded):
        as_tiles(out, tile, rows).copy_(values)
    filters = weight if depth > 1 else weight[:, :, None]
    expected = F.conv3d(volume_of(inside(padded)), filters, padding=(depth // 2, 1, 1))
    torch.testing.assert_close(volume_of(out), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("depth", [1, 2])
def test_enlarged_maps_need_not_be_enlarged(factor: int, depth: int) -> None:
    space, weight, bias = Workspace(), torch.randn(6, 5, 3, 3, 3), torch.randn(6)
    weight = weight if depth > 1 else weight[:, :, 1]
    padded = space.bordered("x", (2, depth, 3, 4, 5))
    inside(padded).copy_(torch.randn(2, depth, 3, 4, 5))
    out = torch.empty(2, depth, 3 * factor, 4 * factor, 6)
    Enlarged(weight, factor).into(space, padded, bias, out)
    large = volume_of(inside(padded)).repeat_interleave(factor, 3).repeat_interleave(factor, 4)
    filters = weight if depth > 1 else weight[:, :, None]
    expected = F.conv3d(large, filters, bias, padding=(depth // 2, 1, 1)).relu()
    torch.testing.assert_close(volume_of(out), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("depth", [2, 9])
@pytest.mark.parametrize("side", [4, 32])
def test_fourier_transforms_are_the_convolution(depth: int, side: int) -> None:
    space, weight = Workspace(), torch.randn(3, 5, 7, 7, 7)
    padded = space.bordered("x", (2, depth, side, side, 5), 3)
    inside(padded, 3).copy_(torch.randn(2, depth, side, side, 5))
    out, filters = torch.empty(2, depth, side, side, 3), Fourier(weight, side)
    for rows, values in filters.tiles(space, padded):
        as_tiles(out, filters.m, rows).copy_(values)
    expected = F.conv3d(volume_of(inside(padded, 3)), weight, padding=3)
    torch.testing.assert_close(volume_of(out), expected, atol=1e-3, rtol=1e-4)


def test_memory_is_taken_once_and_borders_are_zero_again() -> None:
    space = Workspace()
    first = space.take("a", (2, 3)).fill_(1)
    assert space.take("a", (3, 2)).data_ptr() == first.data_ptr()
    assert space.take("a", (6,), torch.float64).dtype == torch.float64
    space.take("b", (100,)).fill_(1)
    bordered = space.bordered("b", (2, 3, 1))
    assert bordered.sum() == 6
    assert inside(bordered).eq(1).all()


def test_an_engine_is_copied_without_its_memory() -> None:
    space = copy.deepcopy(Workspace())
    space.take("a", (1,))
    assert copy.deepcopy(space).held == {}


def test_plain_convolutions_of_spectral_ones() -> None:
    conv = SpectralConv2d(3, 5, 1, has_bias=False)
    x = torch.randn(1, 3, 4, 4)
    assert isinstance(conv.plain(), nn.Conv2d)
    torch.testing.assert_close(conv.plain()(x), conv(x))
