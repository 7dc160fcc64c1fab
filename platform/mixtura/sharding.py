"""Several processes as one: who we are, sums over ranks, one object for all, gradients through DDP.

Borrowed from torch.distributed and accelerate; this file only gives their calls the meaning that the trainer needs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def total(values: Tensor) -> Tensor:
    """Sum over ranks, in place."""
    if world() > 1:
        dist.all_reduce(values)
    return values


def share(value: Any) -> Any:
    """The object of rank 0, on every rank."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any) -> list[Any]:
    """The objects of all ranks, in order, on every rank."""
    if world() == 1:
        return [value]
    boxes: list[Any] = [None] * world()
    dist.all_gather_object(boxes, value)
    return boxes


def wait() -> None:
    """All ranks meet here."""
    if world() > 1:
        dist.barrier()


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors of a nested batch on `device`; other values as they are."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(item, device) for item in value)
    return value
