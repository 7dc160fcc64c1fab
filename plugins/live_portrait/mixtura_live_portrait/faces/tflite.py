"""A TensorFlow Lite model as a PyTorch module: the weights come from the user's file, the arithmetic is PyTorch's.

`load(data)` reads the bytes of a .tflite file and gives a `Network`, an `nn.Module` that takes (B, 3, H, W) and returns one
tensor for each output of the file. It knows the operators of small convolutional networks in float16 or float32, which is what
face detectors are made of; anything else raises `UnknownModel`. So detection needs no runtime of its own, works on batches and
moves to a GPU like every other module. Nothing in a model file is code: it lists operators, shapes and numbers.

The numbers of fields, types and operators are those of TensorFlow Lite's public schema, version 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura_live_portrait.faces.flatbuffer import Damaged, Table, array

FLOAT32, FLOAT16, INT32 = 0, 1, 2
TYPES = {FLOAT32: "<f4", FLOAT16: "<f2", INT32: "<i4"}
RELU, RELU6 = 1, 3
"""Activations fused into a layer; 0 is none."""
SAME = 0
"""Padding that keeps ceil(size / stride); 1 is none at all."""

Values = list[Tensor | None]
Step = Callable[[Values], None]


class UnknownModel(ValueError):
    """A file that is no TensorFlow Lite model, or one with operators that aren't known here."""


class Operator(NamedTuple):
    """One line of a model: `inputs` and `outputs` are numbers of tensors, `options` depends on `code`."""

    code: int
    inputs: list[int]
    outputs: list[int]
    options: Table | None


class Spec(NamedTuple):
    """What a file says of one tensor: its shape (channels last), type and bytes (none unless constant)."""

    shape: tuple[int, ...]
    kind: int
    raw: memoryview


class Graph(NamedTuple):
    """A model's tensors and operators, in the order in which they run."""

    specs: list[Spec]
    operators: list[Operator]
    inputs: list[int]
    outputs: list[int]


def read(data: bytes) -> Graph:
    """The graph of a .tflite file. Raises UnknownModel when it isn't one."""
    if data[4:8] != b"TFL3":
        raise UnknownModel("not a TensorFlow Lite model (no TFL3 at byte 4)")
    try:
        model = Table.root(data)
        codes = [max(code.number(0, "<b"), code.number(3)) for code in model.tables(1)]
        buffers = [buffer.bytes(0) for buffer in model.tables(4)]
        main = model.tables(2)[0]
        specs = [
            Spec(tuple(int(n) for n in tensor.numbers(0)), tensor.number(1, "<b"), buffers[tensor.number(2, "<I")])
            for tensor in main.tables(0)
        ]
        operators = [
            Operator(codes[line.number(0, "<I")], line.numbers(1).tolist(), line.numbers(2).tolist(), line.table(4))
            for line in main.tables(3)
        ]
        return Graph(specs, operators, main.numbers(1).tolist(), main.numbers(2).tolist())
    except (Damaged, IndexError) as error:
        raise UnknownModel(f"the model is damaged: {error}") from error


def load(data: bytes) -> Network:
    """A .tflite file as a module in float32 and eval mode. Raises UnknownModel."""
    try:
        return Network(read(data)).eval().requires_grad_(False)
    except UnknownModel:
        raise
    except (ValueError, IndexError, KeyError, RuntimeError) as error:
        raise UnknownModel(f"the model can't be used: {type(error).__name__}: {error}") from error


class Network(nn.Module):
    """A TensorFlow Lite graph; built by `load`. Takes (B, 3, H, W), returns a list of (B, …) with channels last.

    `size` is the (H, W) that it was made for.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        if len(graph.inputs) != 1 or len(graph.specs[graph.inputs[0]].shape) != 4:
            raise UnknownModel("expected one input of shape (1, height, width, channels)")
        self.graph = graph
        shape = graph.specs[graph.inputs[0]].shape
        self.size = (shape[1], shape[2])
        self.layers = nn.ModuleList()
        self._constants: dict[int, NDArray[Any]] = {}
        self._steps: list[Step] = []
        for operator in graph.operators:
            step = BUILDERS.get(operator.code)
            if step is None:
                raise UnknownModel(f"operator {operator.code} is not known here; known are {sorted(BUILDERS)}")
            built = step(self, operator)
            if built is not None:
                self._steps.append(built)

    def constant(self, tensor: int) -> NDArray[Any] | None:
        """The numbers of a constant tensor, float16 widened; None when the tensor is computed."""
        if tensor not in self._constants:
            spec = self.graph.specs[tensor]
            if not len(spec.raw):
                return None
            values = array(spec.raw, TYPES[spec.kind], spec.shape)
            self._constants[tensor] = values.astype(np.float32) if spec.kind == FLOAT16 else values
        return self._constants[tensor]

    def weights(self, tensor: int) -> Tensor:
        """A constant that an operator needs; UnknownModel when it is computed."""
        values = self.constant(tensor)
        if values is None:
            raise UnknownModel("weights that are computed are not known here")
        return torch.from_numpy(values)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image (B, 3, H, W) in the range that the model wants -> its outputs, channels last, B first."""
        values: Values = [None] * len(self.graph.specs)
        values[self.graph.inputs[0]] = image.contiguous(memory_format=torch.channels_last)
        for step in self._steps:
            step(values)
        results = []
        for output in self.graph.outputs:
            value = _given(values, output)
            results.append(value.permute(0, 2, 3, 1) if value.ndim == 4 else value)
        return results


def _given(values: Values, tensor: int) -> Tensor:
    value = values[tensor]
    if value is None:
        raise UnknownModel("an operator uses a tensor that none before it has computed")
    return value


def _activated(value: Tensor, activation: int) -> Tensor:
    if activation == RELU:
        return F.relu(value)
    if activation == RELU6:
        return F.relu6(value)
    if activation:
        raise UnknownModel(f"fused activation {activation} is not known here")
    return value


def _same(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Padding before and after; an odd pixel goes behind."""
    total = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return total // 2, total - total // 2


def _padded(value: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], fill: float) -> Tensor:
    top, bottom = _same(value.shape[2], kernel[0], stride[0], dilation[0])
    left, right = _same(value.shape[3], kernel[1], stride[1], dilation[1])
    return F.pad(value, (left, right, top, bottom), value=fill) if top or bottom or left or right else value


def _options(operator: Operator) -> Table:
    if operator.options is None:
        raise UnknownModel("an operator lacks its options")
    return operator.options


def _convolution(network: Network, operator: Operator, weight: Tensor, groups: int, shift: int) -> Step:
    """Both kinds of convolution; `shift` is how many fields their options differ by."""
    options, source, target = _options(operator), operator.inputs[0], operator.outputs[0]
    is_same, stride = options.number(0, "<b") == SAME, (options.number(2), options.number(1))
    activation, dilation = (
        options.number(3 + shift, "<b"),
        (options.number(5 + shift, "<i", 1), options.number(4 + shift, "<i", 1)),
    )
    layer = nn.Conv2d(weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]), stride, 0, dilation, groups)  # type: ignore[arg-type]
    layer.weight.data = weight.contiguous(memory_format=torch.channels_last)
    has_bias = len(operator.inputs) > 2 and operator.inputs[2] >= 0
    layer.bias.data = network.weights(operator.inputs[2]) if has_bias else torch.zeros(weight.shape[0])  # type: ignore[union-attr]
    network.layers.append(layer)
    kernel = (weight.shape[2], weight.shape[3])

    def run(values: Values) -> None:
        value = _given(values, source)
        if is_same:
            value = _padded(value, kernel, stride, dilation, 0.0)
        values[target] = _activated(layer(value), activation)

    return run


def conv(network: Network, operator: Operator) -> Step:
    """CONV_2D; weights (out, kh, kw, in)."""
    return _convolution(network, operator, network.weights(operator.inputs[1]).permute(0, 3, 1, 2), 1, 0)


def depthwise(network: Network, operator: Operator) -> Step:
    """DEPTHWISE_CONV_2D with one filter for each channel; weights (1, kh, kw, channels)."""
    if _options(operator).number(3, "<i", 1) not in (0, 1):
        raise UnknownModel("depthwise convolutions with several filters for each channel are not known here")
    weight = network.weights(operator.inputs[1]).permute(3, 0, 1, 2)
    return _convolution(network, operator, weight, weight.shape[0], 1)


def max_pool(network: Network, operator: Operator) -> Step:
    """MAX_POOL_2D."""
    options, source, target = _options(operator), operator.inputs[0], operator.outputs[0]
    is_same, stride = options.number(0, "<b") == SAME, (options.number(2), options.number(1))
    kernel, activation = (options.number(4), options.number(3)), options.number(5, "<b")

    def run(values: Values) -> None:
        value = _given(values, source)
        if is_same:
            value = _padded(value, kernel, stride, (1, 1), float("-inf"))
        values[target] = _activated(F.max_pool2d(value, kernel, stride), activation)

    return run


def dequantize(network: Network, operator: Operator) -> Step | None:
    """DEQUANTIZE: float16 weights become float32, once."""
    values = network.constant(operator.inputs[0])
    if values is None or values.dtype != np.float32:
        raise UnknownModel("only float16 weights are dequantized here")
    network._constants[operator.outputs[0]] = values
    return None


def add(network: Network, operator: Operator) -> Step:
    """ADD of two computed tensors of one shape."""
    (first, second), target = operator.inputs, operator.outputs[0]
    activation = operator.options.number(0, "<b") if operator.options else 0

    def run(values: Values) -> None:
        values[target] = _activated(_given(values, first) + _given(values, second), activation)

    return run


def prelu(network: Network, operator: Operator) -> Step:
    """PRELU with one slope for each channel."""
    source, target = operator.inputs[0], operator.outputs[0]
    slopes = network.weights(operator.inputs[1])
    if slopes.numel() != slopes.shape[-1]:
        raise UnknownModel("slopes that differ between pixels are not known here")
    layer = nn.PReLU(slopes.numel())
    layer.weight.data = slopes.reshape(-1)
    network.layers.append(layer)

    def run(values: Values) -> None:
        values[target] = layer(_given(values, source))

    return run


def pad(network: Network, operator: Operator) -> Step:
    """PAD with zeros; (before, after) for batch, height, width, channels."""
    source, target = operator.inputs[0], operator.outputs[0]
    batch, height, width, channels = network.weights(operator.inputs[1]).tolist()
    if any(batch):
        raise UnknownModel("padding the batch is not known here")

    def run(values: Values) -> None:
        values[target] = F.pad(_given(values, source), (*width, *height, *channels))

    return run


def reshape(network: Network, operator: Operator) -> Step:
    """RESHAPE to the output's shape; its first size is the batch."""
    source, target = operator.inputs[0], operator.outputs[0]
    shape = network.graph.specs[target].shape
    if len(shape) == 4:
        raise UnknownModel("reshaping to four dimensions is not known here")

    def run(values: Values) -> None:
        value = _given(values, source)
        flat = value.permute(0, 2, 3, 1) if value.ndim == 4 else value
        values[target] = flat.reshape(len(value), *shape[1:])

    return run


def concatenate(network: Network, operator: Operator) -> Step:
    """CONCATENATION along any axis but the batch."""
    sources, target = operator.inputs, operator.outputs[0]
    dims = len(network.graph.specs[target].shape)
    axis = _options(operator).number(0) % dims
    if dims == 4:
        axis = (0, 2, 3, 1)[axis]

    def run(values: Values) -> None:
        values[target] = torch.cat([_given(values, source) for source in sources], axis)

    return run


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Network, Operator], Step]:
    def build(network: Network, operator: Operator) -> Step:
        source, target = operator.inputs[0], operator.outputs[0]

        def run(values: Values) -> None:
            values[target] = function(_given(values, source))

        return run

    return build


BUILDERS: dict[int, Callable[[Network, Operator], Step | None]] = {
    0: add,
    2: concatenate,
    3: conv,
    4: depthwise,
    6: dequantize,
    14: _unary(torch.sigmoid),
    17: max_pool,
    19: _unary(F.relu),
    22: reshape,
    34: pad,
    54: prelu,
}  # fmt: skip
"""Code of an operator -> what builds its step."""
