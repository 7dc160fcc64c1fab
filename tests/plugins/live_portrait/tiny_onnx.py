"""Writes small .onnx files by hand: each output is a constant times the largest number of the input."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _value(name: str, shape: list[int | str]) -> bytes:
    sizes = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, sizes)))


def _node(kind: str, inputs: list[str], output: str) -> bytes:
    return b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, kind)


def _constant(name: str, values: np.ndarray) -> bytes:
    sizes = b"".join(_field(1, size) for size in values.shape)
    return sizes + _field(2, 1) + _field(8, name) + _field(9, values.astype("<f4").tobytes())


def write(path: Path, name: str, side: int, outputs: list[np.ndarray]) -> Path:
    """A model that takes `name` (1, 3, side, side) and gives each of `outputs` times the input's maximum."""
    graph = _field(1, _node("ReduceMax", [name], "max")) + _field(2, "tiny")
    graph += _field(11, _value(name, [1, 3, side, side]))
    for number, values in enumerate(outputs):
        graph += _field(5, _constant(f"c{number}", values)) + _field(
            12, _value(f"o{number}", ["a", "b", *["c", "d"][: 4 - values.ndim]])
        )
        graph += _field(1, _node("Mul", [f"c{number}", "max"], f"o{number}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_field(1, 8) + _field(8, _field(1, "") + _field(2, 13)) + _field(7, graph))
    return path
