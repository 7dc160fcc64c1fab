"""Writes small .tflite files: a FlatBuffer writer of 40 lines, and a network of every operator that is known."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

Fields = dict[int, Any]
"""Field number -> int (int32), ("b", int) and other struct letters, bytes, int32 array, Fields, or list of Fields."""


def flatbuffer(root: Fields, identifier: bytes = b"TFL3") -> bytes:
    """A buffer with that root table."""
    out = bytearray(struct.pack("<I", 0) + identifier)
    struct.pack_into("<I", out, 0, _table(out, root))
    return bytes(out)


def _table(out: bytearray, fields: Fields) -> int:
    slots = max(fields, default=-1) + 1
    vtable = len(out)
    out += bytes(4 + 2 * slots)
    out += bytes(-len(out) % 8)
    place = len(out)
    out += struct.pack("<i", place - vtable) + bytes(8 * slots + 4)
    struct.pack_into("<HH", out, vtable, 4 + 2 * slots, 8 * slots + 8)
    for number, value in fields.items():
        struct.pack_into("<H", out, vtable + 4 + 2 * number, 8 + 8 * number)
        here = place + 8 + 8 * number
        if isinstance(value, int):
            struct.pack_into("<i", out, here, value)
        elif isinstance(value, tuple):
            struct.pack_into("<" + value[0], out, here, value[1])
        else:
            struct.pack_into("<I", out, here, _pointed(out, value) - here)
    return place


def _pointed(out: bytearray, value: Any) -> int:
    if isinstance(value, dict):
        return _table(out, value)
    out += bytes(-len(out) % 8)
    start = len(out)
    out += struct.pack("<I", len(value))
    if isinstance(value, bytes):
        out += value
    elif isinstance(value, np.ndarray):
        out += value.astype("<i4").tobytes()
    else:
        out += bytes(4 * len(value))
        for index, entry in enumerate(value):
            here = start + 4 + 4 * index
            struct.pack_into("<I", out, here, _table(out, entry) - here)
    return start


class Model:
    """Collects tensors and operators; `data` writes them."""

    def __init__(self, size: int = 8, channels: int = 3) -> None:
        self.tensors: list[Fields] = []
        self.buffers: list[Fields] = [{}]
        self.lines: list[tuple[int, list[int], int, Fields | None]] = []
        self.input = self.computed((1, size, size, channels))

    def computed(self, shape: tuple[int, ...]) -> int:
        self.tensors.append({0: np.array(shape), 1: ("b", 0), 2: ("I", 0)})
        return len(self.tensors) - 1

    def constant(self, values: np.ndarray) -> int:
        kind = {"float32": 0, "float16": 1, "int32": 2}[values.dtype.name]
        self.buffers.append({0: values.tobytes()})
        self.tensors.append({0: np.array(values.shape), 1: ("b", kind), 2: ("I", len(self.buffers) - 1)})
        return len(self.tensors) - 1

    def add(self, code: int, inputs: list[int], shape: tuple[int, ...], options: Fields | None = None) -> int:
        output = self.computed(shape)
        self.lines.append((code, inputs, output, options))
        return output

    def data(self, outputs: list[int]) -> bytes:
        codes = sorted({line[0] for line in self.lines})
        operators = [
            {
                0: ("I", codes.index(code)),
                1: np.array(inputs),
                2: np.array([output]),
                **({4: options} if options is not None else {}),
            }
            for code, inputs, output, options in self.lines
        ]
        graph = {0: self.tensors, 1: np.array([self.input]), 2: np.array(outputs), 3: operators}
        return flatbuffer({0: 3, 1: [{0: ("b", min(code, 127)), 3: code} for code in codes], 2: [graph], 4: self.buffers})
