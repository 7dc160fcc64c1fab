"""Reads pickles of numbers, texts, lists, dicts and NumPy arrays, without running anything that is in them.

A pickle is a program: it names functions and has them called. Here no name is ever looked up. Those that arrays and NumPy's
numbers are made by stand for inert objects of this module, which keep what they are given; every other name ends the reading.
Arrays are built afterwards, by us, from checked shapes and bytes.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixtura.errors import DataError

LARGEST = 1 << 28
"""Bytes of the largest file that is read."""
KINDS = {
    f"{order}{kind}" for order in ("", "<", "|", "=") for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "b1")
}
"""Types of numbers that are read, little-endian."""
MODULES = ("numpy.core", "numpy._core")
"""Before and since NumPy 2."""
MAKERS = {
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "class",
    **{(f"{module}.multiarray", "_reconstruct"): "empty" for module in MODULES},
    **{(f"{module}.multiarray", "scalar"): "scalar" for module in MODULES},
    **{(f"{module}.numeric", "_frombuffer"): "buffer" for module in MODULES},
    ("_codecs", "encode"): "bytes",
}
"""Names in a pickle -> what our inert object gives when it is called."""


class Refused(Exception):
    """Something other than numbers, texts, lists, dicts and arrays."""


class Kind:
    """Type of an array's numbers, by its text."""

    def __init__(self, text: Any) -> None:
        self.text = text

    def __setstate__(self, state: Any) -> None:
        """(version, byte order, …); big-endian isn't read, the rest says nothing about plain numbers."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|", "="):
            raise Refused("numbers of another byte order")


class Stored:
    """An array as it lies in the file: kind, shape, bytes."""

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        """(version, shape, kind, is_fortran, bytes)."""
        self.state = state

    def array(self) -> NDArray[Any]:
        """The array, checked. Raises Refused."""
        state = self.state
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("an array without content")
        _, shape, kind, is_fortran, content = state
        if not isinstance(kind, Kind) or not isinstance(kind.text, str) or kind.text not in KINDS:
            raise Refused("an array of something else than plain numbers")
        if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 8:
            raise Refused("an array with an impossible shape")
        dtype = np.dtype(kind.text)
        if not isinstance(content, bytes | bytearray) or len(content) != math.prod(shape) * dtype.itemsize:
            raise Refused("an array whose bytes don't fit its shape")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C").copy()


class Maker:
    """What a name stands for; calling it keeps what it is called with."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        raise Refused("a change of NumPy itself")

    def __call__(self, *given: Any) -> Any:
        if self.name == "dtype":
            return Kind(given[0] if given else None)
        if self.name == "empty":
            return Stored()
        if self.name == "bytes" and len(given) == 2 and isinstance(given[0], str) and given[1] == "latin1":
            return given[0].encode("latin1")  # how old pickles hold bytes
        stored = Stored()
        if self.name == "scalar" and len(given) == 2:
            stored.state = (1, (), given[0], False, given[1])
        elif self.name == "buffer" and len(given) == 4:
            stored.state = (1, given[2], given[1], given[3] == "F", given[0])
        else:
            raise Refused(f"a call of {self.name} that no array needs")
        return stored


class Reader(pickle.Unpickler):
    """An unpickler that looks up no name."""

    def find_class(self, module: str, name: str, /) -> Any:
        """An inert object for the few names that arrays need; Refused for all others."""
        if (module, name) not in MAKERS:
            raise Refused(f"'{module}.{name}', which it wants to be run")
        return Maker(MAKERS[module, name])

    def persistent_load(self, pid: Any, /) -> Any:
        """No object lies outside the file."""
        raise Refused("an object outside of the file")


def read_pickle(path: Path) -> Any:
    """Content of a pickle; arrays are `Stored` (see `numbers`). Raises DataError for all that isn't plain, and runs nothing."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path}: larger than {LARGEST >> 20} MB; that can't be a motion template")
    try:
        return Reader(io.BytesIO(path.read_bytes())).load()
    except Refused as refused:
        raise DataError(f"{path}: holds {refused}; expected numbers, lists and arrays alone. Nothing of it was run") from None
    except Exception as error:  # a broken or hostile file may raise anything
        raise DataError(
            f"{path}: not a pickle that can be read ({type(error).__name__}: {error}). Nothing of it was run"
        ) from None


def numbers(value: Any) -> NDArray[np.float32]:
    """An array or a number as float32. Raises Refused, or OverflowError for whole numbers beyond all floats."""
    if isinstance(value, Stored):
        return value.array().astype(np.float32)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"{type(value).__name__} where an array or a number is expected")
    return np.asarray(float(value), np.float32)
