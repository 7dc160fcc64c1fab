"""How a step travels from a loader worker: one block of shared memory for all its tensors and arrays.

torch sends every tensor of a batch through a file descriptor of its own, which costs both processes more than the copy.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

ALIGN = 64
"""Bytes; every tensor begins at a multiple of them."""


@dataclass(frozen=True)
class Parcel:
    """A value without its tensors and arrays, and where these lie in `block` (n,) uint8.

    `places` of tensors: (offset, bytes, dtype, shape); `buffers` of numpy arrays and the like: (offset, bytes).
    """

    value: bytes
    places: list[tuple[int, int, torch.dtype, tuple[int, ...]]]
    buffers: list[tuple[int, int]]
    block: Tensor


class _Packer(pickle.Pickler):
    def __init__(self, file: BytesIO) -> None:
        self.tensors: list[Tensor] = []
        self.buffers: list[memoryview] = []
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=lambda b: self.buffers.append(b.raw()))

    def persistent_id(self, obj: Any) -> int | None:
        """Plain tensors in main memory go into the block, everything else is pickled."""
        if type(obj) is not Tensor or obj.device.type != "cpu" or obj.layout != torch.strided or obj.requires_grad:
            return None
        self.tensors.append(obj)
        return len(self.tensors) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, parcel: Parcel) -> None:
        memory = parcel.block.numpy().data
        super().__init__(BytesIO(parcel.value), buffers=[memory[offset : offset + size] for offset, size in parcel.buffers])
        self.parcel = parcel

    def persistent_load(self, pid: int) -> Tensor:
        """A view of the block."""
        offset, size, dtype, shape = self.parcel.places[pid]
        return self.parcel.block[offset : offset + size].view(dtype).view(shape)


def pack(value: Any) -> Parcel:
    """Put any picklable value into a parcel; its tensors and arrays are copied once."""
    packer = _Packer(file := BytesIO())
    packer.dump(value)
    places, buffers, end = [], [], 0
    for tensor in packer.tensors:
        size = tensor.numel() * tensor.element_size()
        places.append((end, size, tensor.dtype, tuple(tensor.shape)))
        end += -(-size // ALIGN) * ALIGN
    for raw in packer.buffers:
        buffers.append((end, raw.nbytes))
        end += -(-raw.nbytes // ALIGN) * ALIGN
    block: Tensor = torch.empty(end, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
    for tensor, (offset, size, dtype, shape) in zip(packer.tensors, places, strict=True):
        block[offset : offset + size].view(dtype).view(shape).copy_(tensor)
    memory = block.numpy().data
    for raw, (offset, size) in zip(packer.buffers, buffers, strict=True):
        memory[offset : offset + size] = raw
    return Parcel(file.getvalue(), places, buffers, block)


def unpack(parcel: Parcel) -> Any:
    """The value again; its tensors and arrays share the parcel's block."""
    return _Unpacker(parcel).load()
