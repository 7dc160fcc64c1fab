"""Decode once: frames of a dataset as one uint8 array on disk that every process maps into memory.

`cached_frames` fills the array the first time and maps it afterwards. A file lock lets one process decode while the others
wait; the array appears under its name only when complete, so a killed process leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mixtura.errors import DataError


def cached_frames(folder: Path, name: str, shape: tuple[int, int, int, int], fill: Callable[[np.ndarray], None]) -> np.ndarray:
    """Read-only memmap (N, H, W, 3) uint8 of `folder/name.npy`; when it isn't there, `fill(array)` makes it.

    Raises DataError when the folder can't be written or the disk is too small; whatever `fill` raises goes through.
    """
    path = folder / f"{name}.npy"
    found = _map(path, shape)
    if found is not None:
        return found
    size = int(np.prod(shape))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(
            f"{folder}: decoded frames can't be kept there ({error}); set `cache:` of the source to a folder that can be written"
        ) from error
    if free < size:
        raise DataError(
            f"{folder}: {size / 1e9:.1f} GB of decoded frames, {free / 1e9:.1f} GB free; set `cache:` to a larger disk"
        )
    with locked(path.with_suffix(".lock")):
        found = _map(path, shape)  # another process may have made it while this one waited
        if found is None:
            _write(path, shape, fill)
            found = _map(path, shape)
    if found is None:
        raise DataError(f"{path}: was removed while it was written; keep the cache folder until the run ends")
    return found


def _write(path: Path, shape: tuple[int, int, int, int], fill: Callable[[np.ndarray], None]) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
        fill(array)
        array.flush()
        del array
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _map(path: Path, shape: tuple[int, int, int, int]) -> np.ndarray | None:
    """The array of `path`, or None when there is none of this shape."""
    if not path.is_file():
        return None
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; freed when the process ends, however it ends."""
    try:
        handle = open(path, "ab")  # noqa: SIM115
    except OSError as error:
        raise DataError(
            f"{path}: can't be written ({error}); set `cache:` of the source to a folder that can be written"
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
