"""Random access to tar shards: one scan finds every member, later reads are single `pread` calls.

`open_index` gives the `TarIndex` of a shard: samples (members with one key, grouped as webdataset groups them), their
extensions, offsets and sizes. It is stored beside the shard as `SHARD.idx` and made anew when the shard has changed
(size, time of change, first and last bytes). Nothing is ever unpacked to disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixtura.errors import DataError

BLOCK = 512
FORMAT = 1
"""Changes whenever the layout of an index file changes."""
META = re.compile(r"__[^/]*__($|/)")
KEY = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$", re.DOTALL)


@dataclass
class TarIndex:
    """Where the members of a shard lie.

    Sample s has the members `first[s] : first[s + 1]`; member m has extension `extensions[kind[m]]`, and its bytes are
    `offset[m]` to `offset[m] + size[m]` of the file. `mark` tells the state of the shard that was scanned.
    """

    path: Path
    keys: np.ndarray
    first: np.ndarray
    kind: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    extensions: list[str]
    mark: str

    def __len__(self) -> int:
        return len(self.first) - 1

    def key(self, sample: int) -> str:
        """The key of a sample: path in the archive up to the first dot of its last part."""
        return bytes(self.keys[sample]).decode()


def mark_of(path: Path) -> str:
    """State of a file: size, time of change, hash of its first block and of its last two."""
    try:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            head = os.pread(file.fileno(), BLOCK, 0)
            tail = os.pread(file.fileno(), 2 * BLOCK, max(0, facts.st_size - 2 * BLOCK))
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); `path:` must name tar files") from error
    digest = hashlib.blake2b(head + tail, digest_size=16).hexdigest()
    return f"{FORMAT}:{facts.st_size}:{facts.st_mtime_ns}:{digest}"


def open_index(path: Path, cache: Path | None = None) -> TarIndex:
    """The index of a shard: read when it is stored and fits, else made and stored.

    It is stored beside the shard, or in `cache` when that is given; where neither can be written, it is made each time.
    """
    mark = mark_of(path)
    stored = index_path(path, cache)
    index = _load(stored, path, mark)
    if index is None:
        index = scan(path, mark)
        with contextlib.suppress(OSError):  # a read-only folder costs time, not the run
            _store(stored, index)
    return index


def index_path(path: Path, cache: Path | None = None) -> Path:
    """Where the index of a shard is stored."""
    if cache is None:
        return path.with_name(path.name + ".idx")
    return cache / f"{hashlib.blake2b(str(path.resolve()).encode(), digest_size=8).hexdigest()}-{path.name}.idx"


def members(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) of the regular files of a tar archive, from its headers; DataError when it is cut off.

    Plain headers are read here, ten times as fast as by `tarfile`, which reads all others (long names, extensions).
    """
    offset, total = 0, path.stat().st_size
    with open(path, "rb") as file:
        while True:
            header = os.pread(file.fileno(), BLOCK, offset)
            if header == bytes(BLOCK):
                return
            plain = _plain(header)
            if plain is None:
                yield from _others(path, offset, total)
                return
            name, size, regular = plain
            end = offset + BLOCK + (-(-size // BLOCK) * BLOCK if regular else 0)
            if end > total:
                raise _cut(path, total, f"inside '{name}', which ends at byte {end}")
            if regular:
                yield name, offset + BLOCK, size
            offset = end


def _plain(header: bytes) -> tuple[str, int, bool] | None:
    """(name, size, is it a regular file) of a simple header, None for all that needs more care."""
    kind = header[156:157]
    if len(header) < BLOCK or kind not in (b"0", b"\0", b"5") or header[257:262] != b"ustar" or header[124] & 0x80:
        return None
    try:
        size, checksum = int(header[124:136].strip(b" \0") or b"0", 8), int(header[148:156].strip(b" \0") or b"0", 8)
        name, prefix = (part.split(b"\0", 1)[0].decode() for part in (header[:100], header[345:500]))
    except ValueError:
        return None
    if checksum != sum(header) - sum(header[148:156]) + 8 * 32 or (name.endswith("/") and kind != b"5"):
        return None
    return f"{prefix}/{name}" if prefix else name, size, kind != b"5"


def _others(path: Path, start: int, total: int) -> Iterator[tuple[str, int, int]]:
    """`members` from byte `start` on, by `tarfile`."""
    end = start
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise DataError(f"{path}: is compressed, so it has no random access; unpack it with gunzip")
        file.seek(start)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    end = member.offset_data + (-(-member.size // BLOCK) * BLOCK if member.isreg() else 0)
                    if end > total:
                        raise _cut(path, total, f"inside '{member.name}', which ends at byte {end}")
                    archive.members = []  # type: ignore[attr-defined]  # otherwise every header stays in memory
                    if member.isreg() and not member.issparse():
                        yield member.name, member.offset_data, member.size
        except tarfile.TarError as error:
            raise DataError(f"{path}: is damaged at byte {end} ({error}); copy or write the shard again") from error
        if os.pread(file.fileno(), BLOCK, end) != bytes(BLOCK):
            raise _cut(path, end, f"of {total}, where the end mark of a tar archive is missing")


def _cut(path: Path, byte: int, where: str) -> DataError:
    return DataError(f"{path}: is cut off or damaged at byte {byte} {where}; copy or write the shard again")


def scan(path: Path, mark: str) -> TarIndex:
    """Index a shard from its headers; members with the same key must follow each other, as webdataset writes them."""
    keys: list[str] = []
    first: list[int] = []
    table: dict[str, int] = {}
    rows: list[tuple[int, int, int]] = []
    seen: set[str] = set()
    for name, offset, size in members(path):
        match = None if META.match(name) else KEY.match(name)
        if match is None:
            continue
        key, extension = match.group(1), match.group(2).lower()
        if not keys or key != keys[-1]:
            keys.append(key)
            first.append(len(rows))
            seen.clear()
        if extension in seen:
            raise DataError(f"{path}: '{name}' at byte {offset} comes twice in one sample; keys must be unique within a shard")
        seen.add(extension)
        rows.append((table.setdefault(extension, len(table)), offset, size))
    columns = np.array(rows, np.int64).reshape(-1, 3)
    begins = np.array([*first, len(rows)], np.int64)
    return TarIndex(
        path,
        np.array([key.encode() for key in keys], np.bytes_),
        begins,
        columns[:, 0],
        columns[:, 1],
        columns[:, 2],
        list(table),
        mark,
    )


def _store(target: Path, index: TarIndex) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    arrays: dict[str, Any] = {"first": index.first, "kind": index.kind, "offset": index.offset, "size": index.size}
    try:
        with open(part, "wb") as file:
            np.savez(file, keys=index.keys, extensions=np.array(index.extensions, np.str_), mark=np.array(index.mark), **arrays)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _load(stored: Path, path: Path, mark: str) -> TarIndex | None:
    """The stored index, or None when there is none, it is damaged, or the shard has changed since."""
    if not stored.is_file():
        return None
    try:
        with np.load(stored, allow_pickle=False) as data:
            if str(data["mark"]) != mark:
                return None
            keys, first, kind, offset, size = (data[name] for name in ("keys", "first", "kind", "offset", "size"))
            return TarIndex(path, keys, first, kind, offset, size, [str(name) for name in data["extensions"]], mark)
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return None
