"""TensorFlow Lite files as PyTorch modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mixtura_live_portrait.faces import bundle
from mixtura_live_portrait.faces.tflite import Network, UnknownModel, load
from tests.plugins.live_portrait.tiny_tflite import Model, flatbuffer

ADD, CONCATENATION, CONV, DEPTHWISE, DEQUANTIZE, LOGISTIC, MAX_POOL, RELU, RESHAPE, PAD, PRELU = (
    0,
    2,
    3,
    4,
    6,
    14,
    17,
    19,
    22,
    34,
    54,
)
SAME, VALID = ("b", 0), ("b", 1)
RNG = np.random.default_rng(5)


def numbers(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def run(model: Model, outputs: list[int], image: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return load(model.data(outputs))(image)


def image(batch: int = 2, size: int = 8) -> Tensor:
    return torch.from_numpy(numbers(batch, 3, size, size))


@pytest.mark.parametrize(("size", "before", "after"), [(8, 0, 1), (7, 1, 1)])
def test_same_padding_puts_the_odd_pixel_behind(size: int, before: int, after: int) -> None:
    model, weight, bias = Model(size), numbers(5, 3, 3, 3), numbers(5)
    small = (size + 1) // 2
    options = {0: SAME, 1: 2, 2: 2, 3: ("b", 1)}
    output = model.add(CONV, [0, model.constant(weight), model.constant(bias)], (1, small, small, 5), options)
    picture = image(size=size)
    expected = F.conv2d(
        F.pad(picture, (before, after) * 2), torch.from_numpy(weight).permute(0, 3, 1, 2), torch.from_numpy(bias), 2
    )
    torch.testing.assert_close(run(model, [output], picture)[0], F.relu(expected).permute(0, 2, 3, 1))


def test_depthwise_filters_each_channel_alone() -> None:
    model, weight = Model(), numbers(1, 3, 3, 3)
    output = model.add(DEPTHWISE, [0, model.constant(weight), -1], (1, 6, 6, 3), {0: VALID, 1: 1, 2: 1, 3: 1})
    picture = image()
    expected = F.conv2d(picture, torch.from_numpy(weight).permute(3, 0, 1, 2), groups=3)
    torch.testing.assert_close(run(model, [output], picture)[0], expected.permute(0, 2, 3, 1))


def test_half_precision_weights_are_widened() -> None:
    model, weight = Model(), numbers(4, 1, 1, 3).astype(np.float16)
    wide = model.add(DEQUANTIZE, [model.constant(weight)], (4, 1, 1, 3))
    output = model.add(CONV, [0, wide, -1], (1, 8, 8, 4), {0: VALID, 1: 1, 2: 1})
    picture = image()
    expected = F.conv2d(picture, torch.from_numpy(weight.astype(np.float32)).permute(0, 3, 1, 2))
    torch.testing.assert_close(run(model, [output], picture)[0], expected.permute(0, 2, 3, 1))


def test_a_residual_block_pools_pads_channels_and_adds() -> None:
    model, slopes = Model(), np.abs(numbers(1, 1, 5))
    pooled = model.add(MAX_POOL, [0], (1, 4, 4, 3), {0: SAME, 1: 2, 2: 2, 3: 2, 4: 2})
    padded = model.add(PAD, [pooled, model.constant(np.array([[0, 0], [0, 0], [0, 0], [0, 2]], np.int32))], (1, 4, 4, 5))
    summed = model.add(ADD, [padded, padded], (1, 4, 4, 5), {0: ("b", 0)})
    output = model.add(PRELU, [summed, model.constant(slopes)], (1, 4, 4, 5))
    picture = image()
    expected = F.prelu(F.pad(F.max_pool2d(picture, 2), (0, 0, 0, 0, 0, 2)) * 2, torch.from_numpy(slopes).reshape(-1))
    torch.testing.assert_close(run(model, [output], picture)[0], expected.permute(0, 2, 3, 1))


def test_pooling_at_an_odd_edge_takes_the_largest_of_what_is_there() -> None:
    model = Model(7)
    output = model.add(MAX_POOL, [0], (1, 4, 4, 3), {0: SAME, 1: 2, 2: 2, 3: 2, 4: 2})
    picture = -image(size=7).abs()
    expected = F.max_pool2d(picture, 2, ceil_mode=True).permute(0, 2, 3, 1)
    torch.testing.assert_close(run(model, [output], picture)[0], expected)


def test_outputs_are_laid_out_channels_last_for_every_picture_of_a_batch() -> None:
    model = Model()
    flat = model.add(RESHAPE, [0], (1, 64, 3))
    both = model.add(CONCATENATION, [flat, flat], (1, 128, 3), {0: 1})
    scores = model.add(LOGISTIC, [both], (1, 128, 3))
    positive = model.add(RELU, [0], (1, 8, 8, 3))
    picture = image()
    result = run(model, [both, scores, positive], picture)
    expected = picture.permute(0, 2, 3, 1).reshape(2, 64, 3)
    torch.testing.assert_close(result[0], torch.cat([expected, expected], 1))
    torch.testing.assert_close(result[1], result[0].sigmoid())
    torch.testing.assert_close(result[2], picture.relu().permute(0, 2, 3, 1))


def test_channels_are_concatenated_as_channels() -> None:
    model = Model()
    output = model.add(CONCATENATION, [0, 0], (1, 8, 8, 6), {0: 3})
    picture = image()
    torch.testing.assert_close(run(model, [output], picture)[0], torch.cat([picture, picture], 1).permute(0, 2, 3, 1))


def small_model() -> bytes:
    model = Model()
    return model.data([model.add(CONV, [0, model.constant(numbers(2, 1, 1, 3)), -1], (1, 8, 8, 2), {0: VALID, 1: 1, 2: 1})])


def test_an_unknown_operator_is_named() -> None:
    model = Model()
    with pytest.raises(UnknownModel, match="operator 999"):
        load(model.data([model.add(999, [0], (1, 8, 8, 3))]))


def test_other_files_are_refused() -> None:
    with pytest.raises(UnknownModel, match="TFL3"):
        load(b"PK\x03\x04 something else")
    with pytest.raises(UnknownModel, match="damaged"):
        load(flatbuffer({0: 3}))


def test_a_damaged_model_never_gets_further_than_an_error() -> None:
    whole = small_model()
    for length in range(8, len(whole), 7):
        with pytest.raises(UnknownModel):
            load(whole[:length])
    rng = np.random.default_rng(1)
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(8, len(whole), 4):
            broken[place] = rng.integers(256)
        try:
            network = load(bytes(broken))
        except UnknownModel:
            continue
        assert isinstance(network, Network)


GOLDEN = {
    "detector": [
        [1.3114949, -4.6050606, -3.7866733, -3.8590505, 4.9252667, 2.7946548],
        [-5.6394272, -3.5720134, -4.799048, -4.7887592, -4.0115671, -4.266019],
    ],
    "landmarks": [[121.144615, -22.024124, 83.292748, 109.161659, -19.127609, 88.183273], [-8.341688]],
}
"""Some outputs of LiteRT 2.3.0 for the same files and the same picture."""


@pytest.mark.parametrize(("which", "lowest"), [("detector", -1), ("landmarks", 0)])
def test_the_installed_models_give_what_their_own_runtime_gives(which: str, lowest: int) -> None:
    try:
        networks = dict(zip(("detector", "landmarks"), bundle.load_bundle(), strict=True))
    except bundle.NoModels as missing:
        pytest.skip(str(missing))
    size = networks[which].size[0]
    y, x = np.mgrid[:size, :size] / size
    picture = np.stack([x, y, (x + y) / 2]).astype(np.float32) * (1 - lowest) + lowest
    with torch.inference_mode():
        outputs = networks[which](torch.from_numpy(picture)[None])
    for output, expected in zip(outputs, GOLDEN[which], strict=False):
        flat = output.reshape(-1)
        torch.testing.assert_close(flat[:: max(1, len(flat) // 6)][: len(expected)], torch.tensor(expected), rtol=1e-4, atol=1e-3)
