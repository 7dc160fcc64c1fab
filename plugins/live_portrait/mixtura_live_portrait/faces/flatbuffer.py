"""Reads FlatBuffers: tables whose fields are found through a table of offsets, all little-endian.

Only what a TensorFlow Lite model needs: scalars, strings, vectors of scalars, of bytes and of tables. Everything read lies
inside the buffer, or `Damaged` is raised: nothing of the file is trusted.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 1 << 24
"""Elements that a vector of numbers or tables may have; weights are read as bytes and have no such limit."""


class Damaged(ValueError):
    """The buffer ends early or an offset leaves it."""


class Table:
    """One table of a buffer. Fields have numbers (their place in the schema); absent fields give the default."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place
        self._fields = place - self._number(place, "<i")
        self._size = self._number(self._fields, "<H")

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The table that the buffer's first word points to."""
        (place,) = struct.unpack_from("<I", data, 0) if len(data) >= 8 else (0,)
        if place == 0:
            raise Damaged("no root table")
        return cls(data, place)

    def _number(self, place: int, kind: str) -> int:
        if not 0 <= place <= len(self.data) - struct.calcsize(kind):
            raise Damaged(f"an offset of {place} in {len(self.data)} bytes")
        return int(struct.unpack_from(kind, self.data, place)[0])

    def _field(self, field: int) -> int:
        """Where a field lies; 0 when it is absent."""
        slot = 4 + 2 * field
        if slot + 2 > self._size:
            return 0
        offset = self._number(self._fields + slot, "<H")
        return self.place + offset if offset else 0

    def number(self, field: int, kind: str = "<i", default: int = 0) -> int:
        """A whole number; `kind` is its struct format (`<i` int32, `<I` uint32, `<b` int8, `<B` uint8)."""
        place = self._field(field)
        return self._number(place, kind) if place else default

    def _pointed(self, place: int) -> int:
        return place + self._number(place, "<I")

    def table(self, field: int) -> Table | None:
        """A table of its own, or None."""
        place = self._field(field)
        return Table(self.data, self._pointed(place)) if place else None

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        """(first byte, number of elements) of a vector; (0, 0) when it is absent."""
        place = self._field(field)
        if not place:
            return 0, 0
        start = self._pointed(place)
        count = self._number(start, "<I")
        if (width > 1 and count > LONGEST) or start + 4 + count * width > len(self.data):
            raise Damaged(f"a vector of {count} elements leaves the buffer")
        return start + 4, count

    def bytes(self, field: int) -> memoryview:
        """A vector of bytes (also a string), without copying."""
        start, count = self._vector(field, 1)
        return memoryview(self.data)[start : start + count]

    def numbers(self, field: int) -> NDArray[np.int32]:
        """A vector of int32."""
        start, count = self._vector(field, 4)
        return np.frombuffer(self.data, "<i4", count, start)

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        start, count = self._vector(field, 4)
        return [Table(self.data, self._pointed(start + 4 * index)) for index in range(count)]

    def text(self, field: int) -> str:
        """A string, empty when absent."""
        return bytes(self.bytes(field)).decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"Table(at {self.place} of {len(self.data)} bytes)"


def array(raw: Any, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Bytes as an array (a copy) of that dtype and shape; Damaged when their number is wrong."""
    values = np.frombuffer(raw, kind) if len(raw) % np.dtype(kind).itemsize == 0 else np.empty(0)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise Damaged(f"{len(raw)} bytes for a tensor of shape {shape}")
    return values.reshape(shape).copy()
