"""A value comes out of a parcel as it went in, with tensors and arrays in one block."""

from __future__ import annotations

import numpy as np
import torch

from mixtura.data.parcel import pack, unpack


def test_arrays_of_every_layout_come_back_equal_and_writable() -> None:
    grid = np.arange(12.0).reshape(3, 4)
    value = {"c": grid, "f": np.asfortranarray(grid), "strided": grid[:, ::2], "empty": grid[:0], "text": np.array(["a", "bc"])}
    back = unpack(pack(value))
    for name, array in value.items():
        assert np.array_equal(back[name], array)
        assert back[name].flags.writeable


def test_arrays_and_tensors_lie_in_the_block_and_not_in_the_pickle() -> None:
    parcel = pack([np.zeros(1000), torch.ones(1000)])
    assert len(parcel.value) < 500
    assert parcel.block.numel() == 8000 + 4032
    array, tensor = unpack(parcel)
    assert not array.any()
    assert tensor.all()


def test_what_has_no_arrays_needs_no_block() -> None:
    assert unpack(pack({"a": [1, "x", None]})) == {"a": [1, "x", None]}
