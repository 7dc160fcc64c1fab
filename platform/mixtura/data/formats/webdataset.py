"""webdataset shards as a source with random access, and writing them.

`WebdatasetSource` reads single samples from tar files through an index (see `tar_index.py`) and decodes them with
webdataset's own decoders; `write_shards` writes with its `ShardWriter`. Members that can run code when they are
loaded (pickles) are refused. For shards on a server see `shard_stream.py`.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import webdataset
from braceexpand import braceexpand
from pydantic import Field
from webdataset import autodecode

from mixtura.data.formats.video import decode_bytes
from mixtura.data.source import Sample, SourceConfig, SourceInfo, part_of
from mixtura.data.tar_index import TarIndex, open_index
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng

Decoder = Callable[[bytes], Any]
PICKLES = frozenset({"pkl", "pickle", "pyd", "pth", "pt", "joblib", "dill"})
"""Extensions that are never decoded: loading them can run code."""
VIDEOS = frozenset({"mp4", "avi", "mov", "webm", "mkv", "m4v"})
PLAIN = frozenset(
    {
        "txt",
        "text",
        "transcript",
        "cls",
        "cls2",
        "index",
        "inx",
        "id",
        "json",
        "jsn",
        "npy",
        "npz",
        "ten",
        "tb",
        "mp",
        "msg",
        "cbor",
    }
)
IMAGES = frozenset({"png", "jpg", "jpeg", "webp", "bmp", "ppm", "pgm", "gif", "tif", "tiff", "jfif", "jpe"})
OPEN_FILES = 256
"""Shards that a process keeps open at most."""


class WebdatasetConfig(SourceConfig):
    """`sources: {NAME: {type: webdataset, path: data/shard-{000000..000009}.tar}}`."""

    path: str | list[str] = Field(description="tar files; braces {0..9}, {a,b} and wildcards * ? are expanded")
    fields: list[str] | None = Field(None, description="members to read, by extension (or field name); all when left out")
    names: Literal["extensions", "fields"] = Field(
        "extensions",
        description="extensions: member K.a.png is field `a.png`; fields: it is `a`, and K.a.0.png, K.a.1.png are the list `a`",
    )
    videos: Literal["frames", "bytes"] = Field("frames", description="videos as uint8 frames, or as they are")
    cache: str | None = Field(None, description="folder for the indices; beside the shards when left out")


class WebdatasetSource:
    """Samples of tar shards in the order of `path` and of the archives; `key` is "SHARD.tar/KEY".

    Fields by extension: png, jpg, … uint8 (H, W, 3); mp4, … uint8 (T, H, W, 3); json; txt str; cls int; npy array; npz
    dict of arrays; everything else bytes. Raises DataError for shards that are missing or cut off, BadSample for
    members that can't be decoded.
    """

    Config = WebdatasetConfig

    def __init__(self, config: WebdatasetConfig, name: str, root: Path) -> None:
        self.config, self.name = config, name
        cache = None if config.cache is None else Path(root) / config.cache
        self.shards: list[TarIndex] = [open_index(path, cache) for path in expand(config.path, Path(root))]
        self.starts = np.concatenate([[0], np.cumsum([len(shard) for shard in self.shards])]).astype(np.int64)
        self.members = [[self._member(shard, extension) for extension in shard.extensions] for shard in self.shards]
        self._refuse_missing()
        digest = hashlib.blake2b(digest_size=16)
        for shard in self.shards:
            _, size, _, ends = shard.mark.split(":")  # what the shard holds, not when it was copied
            digest.update(f"{shard.path.name}:{size}:{ends}".encode() + shard.offset.tobytes() + shard.size.tobytes())
        self.info = SourceInfo(
            name, int(self.starts[-1]), digest.hexdigest(), max_epochs=config.max_epochs, extra={"shards": len(self.shards)}
        )
        self._files: dict[int, int] = {}

    def _member(self, shard: TarIndex, extension: str) -> tuple[str, Decoder] | None:
        """Field name and decoder of an extension; None when it isn't wanted."""
        field = field_of(extension) if self.config.names == "fields" else extension
        if (
            self.config.fields is not None
            and field not in self.config.fields
            and re.sub(r"\.\d+$", "", field) not in self.config.fields
        ):
            return None
        return field, decoder(extension, self.config.videos, f"{shard.path}")

    def _refuse_missing(self) -> None:
        have = {re.sub(r"\.\d+$", "", member[0]) for shard in self.members for member in shard if member}
        have |= {member[0] for shard in self.members for member in shard if member}
        missing = [field for field in self.config.fields or () if field not in have]
        if missing:
            known = sorted({extension for shard in self.shards for extension in shard.extensions})
            raise DataError(f"source '{self.name}': no member '{missing[0]}' in the shards; they hold {', '.join(known)}")

    def __len__(self) -> int:
        return self.info.size

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """The sample at `index`, with one read of its shard; `rng` is not used."""
        number, sample = part_of(self.starts, index, self.name)
        shard, wanted = self.shards[number], self.members[number]
        key = f"{shard.path.name}/{shard.key(sample)}"
        first, last = shard.first[sample : sample + 2].tolist()
        rows = zip(*(column[first:last].tolist() for column in (shard.kind, shard.offset, shard.size)), strict=True)
        chosen = [(wanted[kind], kind, offset, size) for kind, offset, size in rows if wanted[kind] is not None]
        fields: dict[str, Any] = {}
        if chosen:
            begin, end = chosen[0][2], chosen[-1][2] + chosen[-1][3]
            data = self._pread(number, end - begin, begin)  # members lie side by side, so one read gets all of them
        for (field, decode), kind, offset, size in chosen:
            try:
                fields[field] = decode(data[offset - begin : offset - begin + size])
            except Exception as error:  # decoders raise whatever they like; all of it means a bad sample
                raise BadSample(
                    f"{shard.path}: {shard.key(sample)}.{shard.extensions[kind]} can't be decoded ({error!r})"
                ) from error
        return Sample(gathered(fields) if self.config.names == "fields" else fields, key=key)

    def _pread(self, number: int, size: int, offset: int) -> bytes:
        path = self.shards[number].path
        if number not in self._files:
            if len(self._files) >= OPEN_FILES:
                os.close(self._files.pop(next(iter(self._files))))
            try:
                self._files[number] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise DataError(f"{path}: can't be opened any more ({error.strerror})") from error
        parts: list[bytes] = []
        while size > 0:
            part = os.pread(self._files[number], size, offset)
            if not part:
                raise DataError(f"{path}: ends before byte {offset + size}; it has changed since it was indexed, start again")
            parts.append(part)
            size, offset = size - len(part), offset + len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the shards; the next read opens them again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        for handle in getattr(self, "_files", {}).values():
            try:
                os.close(handle)
            except OSError:
                continue

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key != "members"}
        return {**state, "_files": {}}  # decoders and file handles are made anew

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self.members = [[self._member(shard, extension) for extension in shard.extensions] for shard in self.shards]


def expand(path: str | Sequence[str], root: Path) -> list[Path]:
    """Shard files from patterns with braces and wildcards, in order; DataError for patterns that match nothing."""
    found: list[Path] = []
    for pattern in [path] if isinstance(path, str) else path:
        try:
            names = list(braceexpand(pattern))
        except ValueError as error:
            raise DataError(f"path '{pattern}': braces don't match ({error})") from error
        for name in names:
            if re.match(r"[a-z0-9+]+:", name):
                raise DataError(
                    f"path '{name}': only local files have random access; copy the shards, or read them with ShardStream"
                )
            place = str(Path(root) / name)
            hits = sorted(glob.glob(place)) if re.search(r"[*?\[]", name) else [place]
            if not hits or not all(Path(hit).is_file() for hit in hits):
                raise DataError(
                    f"path '{pattern}': no such file {place}; `path:` must name tar shards, as data/s-{{000..009}}.tar"
                )
            found += [Path(hit) for hit in hits]
    return found


# -- fields -------------------------------------------------------------------------------------------------------


def field_of(extension: str) -> str:
    """Field name of a member: without the last extension, where there is more than one."""
    return extension.rsplit(".", 1)[0] if "." in extension else extension


def gathered(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Join `a.0`, `a.1`, … to the list `a`."""
    result: dict[str, Any] = {}
    lists: dict[str, dict[int, Any]] = {}
    for name, value in fields.items():
        match = re.fullmatch(r"(.+)\.(\d+)", name)
        if match:
            lists.setdefault(match.group(1), {})[int(match.group(2))] = value
        else:
            result[name] = value
    return result | {name: [parts[k] for k in sorted(parts)] for name, parts in lists.items()}


def decoder(extension: str, videos: str, where: str) -> Decoder:
    """What turns the bytes of a member into a value; DataError for members that could run code."""
    last = extension.rsplit(".", 1)[-1]
    if last in PICKLES:
        raise DataError(
            f"{where}: members .{extension} are pickles, which can run code; "
            "convert them to npy or json, or list the other members in `fields:`"
        )
    if last in IMAGES:
        handler = autodecode.imagehandler("rgb8")
        return lambda data: handler(extension, data)
    if last in VIDEOS and videos == "frames":
        return decode_bytes
    if last in PLAIN:
        plain: Decoder = autodecode.decoders[last]
        return plain
    return bytes


def encoded(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Members of a sample from its fields: images png, arrays npy, text txt, numbers and structures json.

    Lists of arrays become numbered members; `names: fields` reads all of it back. DataError for anything else.
    """
    members: dict[str, Any] = {}
    for name, value in fields.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", name) or name != name.lower():
            raise DataError(f"field '{name}': names in shards are lower-case letters, digits, '.', '_', '-'; rename it")
        if isinstance(value, list) and value and all(isinstance(part, np.ndarray) for part in value):
            members |= {f"{name}.{k}.{_kind(part)}": part for k, part in enumerate(value)}
        elif isinstance(value, str):
            members[f"{name}.txt"] = value
        elif isinstance(value, (np.ndarray, np.generic)) and np.asarray(value).dtype.kind in "biuf":
            members[f"{name}.{_kind(np.asarray(value))}"] = np.asarray(value)
        elif value is None or isinstance(value, (bool, int, float, list, tuple, dict)):
            members[f"{name}.json"] = value
        else:
            raise DataError(f"field '{name}': {type(value).__name__} can't be stored in a shard")
    return members


def _kind(array: np.ndarray) -> str:
    return "png" if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 else "npy"


def write_shards(samples: Iterable[Sample | Mapping[str, Any]], pattern: str, per_shard: int = 1000) -> list[Path]:
    """Write samples to `pattern` (e.g. "out/shard-%06d.tar"), `per_shard` in each; returns the shards.

    A `Sample` is stored field by field (see `encoded`); a mapping is given to webdataset as it is, with `__key__` and
    extensions. Equal samples give equal files. Shards get their name when they are complete.
    """
    Path(pattern).parent.mkdir(parents=True, exist_ok=True)
    done: list[Path] = []

    def rename(part: str) -> None:
        os.replace(part, part.removesuffix(".part"))
        done.append(Path(part.removesuffix(".part")))

    options: dict[str, Any] = {"mtime": 0, "format": "PAX_FORMAT", "compress": False}
    folder = str(Path(pattern).parent.resolve()).replace("%", "%%")
    writer = webdataset.ShardWriter(f"{folder}/{Path(pattern).name}.part", maxcount=per_shard, verbose=0, post=rename, **options)
    try:
        for number, sample in enumerate(samples):
            record = (
                {"__key__": sample.key or f"{number:09d}", **encoded(sample.fields)}
                if isinstance(sample, Sample)
                else dict(sample)
            )
            _check_record(record)
            writer.write(record)
    except BaseException:
        Path(writer.fname).unlink(missing_ok=True)
        writer.post = None
        raise
    finally:
        writer.close()
    return done


def _check_record(record: Mapping[str, Any]) -> None:
    key = record.get("__key__")
    if not isinstance(key, str) or not key or "." in key.rsplit("/", 1)[-1] or key.startswith("/") or ".." in key.split("/"):
        raise DataError(f"key {key!r}: expected text without a dot in its last part and without '..'")
    for name in record:
        if name.rsplit(".", 1)[-1] in PICKLES:
            raise DataError(f"{key}: member '{name}' would be a pickle, which can run code; store it as npy or json")
