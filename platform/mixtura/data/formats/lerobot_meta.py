"""The metadata of a LeRobot v3 dataset: info.json, tasks, the table of episodes, and where their files lie.

`LeRobotMeta.load` reads and checks them; everything that does not fit is a `DataError` that names the file and the
remedy. It reads no frames: see `lerobot.py` for rows and images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixtura.errors import DataError

VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
FILES_PER_CHUNK, DATA_FILE_MB, VIDEO_FILE_MB = 1000, 100, 200
INDEX_FEATURES: dict[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}
"""Columns that every dataset has, filled in by the writer."""
VISUAL = ("image", "video")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A parquet file; DataError when it is missing, has no footer (a writer that was not finalized) or lacks a column."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; the dataset is incomplete, copy it again")
    try:
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            missing = [name for name in columns or () if name not in present]
            if missing:
                raise DataError(f"{path}: no column '{missing[0]}'; it has {', '.join(present)}. meta/info.json promises it")
            return file.read(columns=list(columns) if columns is not None else None)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: not a readable parquet file ({error}); a writer that isn't finalized leaves it without its end"
        ) from error


def image_shape(name: str, feature: dict[str, Any]) -> tuple[int, int]:
    """Height and width of an image feature whose shape is (H, W, 3) or (3, H, W)."""
    shape = [int(n) for n in feature["shape"]]
    names = feature.get("names") or []
    if len(shape) != 3:
        raise DataError(f"feature '{name}': shape {shape} isn't an image, expected (height, width, 3)")
    first = shape[0] == 3 and (shape[2] != 3 or (bool(names) and names[0] in ("channels", "channel")))
    height, width, channels = (shape[1], shape[2], shape[0]) if first else (shape[0], shape[1], shape[2])
    if channels != 3:
        raise DataError(f"feature '{name}': {channels} channels, only RGB images are read; leave it out with `fields:`")
    return height, width


def to_numpy(column: pa.ChunkedArray, feature: dict[str, Any], where: str) -> np.ndarray:
    """A parquet column as (N, *shape): float32, int64, bool or object (str); missing numbers become NaN."""
    shape = tuple(int(n) for n in feature["shape"])
    if feature["dtype"] in ("string", "language"):
        return np.array(column.to_pylist(), dtype=object)
    values: Any = column.combine_chunks()
    rows = len(values)
    while pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or pa.types.is_fixed_size_list(values.type):
        values = values.flatten()
    if isinstance(values, pa.ExtensionArray):
        return to_numpy(pa.chunked_array([values.storage]), feature, where)
    flat = values.to_numpy(zero_copy_only=False)
    if len(flat) != rows * int(np.prod(shape)):
        raise DataError(f"{where}: {len(flat)} values in {rows} rows, meta/info.json says shape {shape}; rows differ in length")
    if flat.dtype == object:
        raise DataError(f"{where}: holds {values.type} with empty entries, expected numbers")
    kind = flat.dtype.kind
    flat = flat.astype(np.float32) if kind == "f" else flat.astype(np.int64) if kind in "iu" else flat
    shaped: np.ndarray = flat.reshape(rows, *shape)
    return shaped


@dataclass
class LeRobotMeta:
    """What `meta/` holds. `episodes` maps columns to arrays with one entry per episode, ordered by `episode_index`."""

    root: Path
    info: dict[str, Any]
    tasks: list[str]
    episodes: dict[str, np.ndarray]
    stats: dict[str, Any]
    fingerprint: str

    @staticmethod
    def load(root: Path) -> LeRobotMeta:
        """Read `meta/` below `root`; raises DataError for anything missing or contradictory."""
        info = read_info(root)
        tasks = read_tasks(root, info)
        episodes, parts = read_episodes(root, info)
        stats_path = root / "meta/stats.json"
        stats_bytes = stats_path.read_bytes() if stats_path.is_file() else b""
        try:
            stats = json.loads(stats_bytes or b"{}")
        except ValueError as error:
            raise DataError(f"{stats_path}: not valid JSON ({error})") from error
        meta = LeRobotMeta(root, info, tasks, episodes, stats, "")
        heads = [(root / "meta/info.json").read_bytes(), (root / "meta/tasks.parquet").read_bytes(), stats_bytes]
        meta.fingerprint = meta._fingerprint([*heads, *(path.read_bytes() for path in parts)])
        return meta

    @property
    def fps(self) -> float:
        """Rows (frames) per second."""
        return float(self.info["fps"])

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Feature name -> {dtype, shape, names, ...}."""
        return dict(self.info["features"])

    def names(self, *dtypes: str) -> list[str]:
        """Features of the given dtypes."""
        return [name for name, feature in self.features.items() if feature["dtype"] in dtypes]

    def data_file(self, episode: int) -> Path:
        """The parquet file that holds the rows of an episode (position in `episodes`)."""
        return self._place(self.info["data_path"], "data", episode)

    def video_file(self, name: str, episode: int) -> Path:
        """The video file that holds the frames of an episode."""
        return self._place(self.info["video_path"], f"videos/{name}", episode, video_key=name)

    def _place(self, template: str, group: str, episode: int, **values: str) -> Path:
        columns = self.episodes[f"{group}/chunk_index"], self.episodes[f"{group}/file_index"]
        chunk, file = (int(column[episode]) for column in columns)
        return inside(self.root, template, chunk_index=chunk, file_index=file, **values)

    def files(self) -> list[Path]:
        """All data and video files, each once, sorted."""
        count = range(len(self.episodes["length"]))
        found = {self.data_file(k) for k in count}
        return sorted(found | {self.video_file(name, k) for name in self.names("video") for k in count})

    def _fingerprint(self, contents: Sequence[bytes]) -> str:
        """Hash of the metadata's bytes and of the sizes of the files; DataError when a file is missing."""
        digest = hashlib.blake2b(digest_size=16)
        for content in contents:
            digest.update(hashlib.blake2b(content).digest())
        for path in self.files():
            if not path.is_file():
                raise DataError(f"{path}: no such file, but meta/episodes refers to it; the dataset is incomplete, copy it again")
            digest.update(f"{path.relative_to(self.root)}:{path.stat().st_size}\n".encode())
        return digest.hexdigest()


def inside(root: Path, template: str, **values: Any) -> Path:
    """A path below `root` from a template of info.json; DataError when it points elsewhere or can't be filled."""
    try:
        relative = PurePosixPath(template.format(**values))
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"{root}/meta/info.json: path template '{template}' can't be filled ({error!r})") from error
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"{root}/meta/info.json: path template '{template}' leaves the dataset's folder")
    return root / relative


def read_info(root: Path) -> dict[str, Any]:
    """meta/info.json with defaults filled in; checks version, fps, features."""
    path = root / "meta/info.json"
    if not path.is_file():
        unfinished = root.with_name(root.name + ".tmp")
        hint = f"; {unfinished} is the rest of a writer that was stopped" if unfinished.is_dir() else ""
        raise DataError(f"{path}: no such file; `path:` must name the folder of a LeRobot v3 dataset{hint}")
    try:
        info = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(info, dict):
        raise DataError(f"{path}: expected an object, got {type(info).__name__}")
    missing = [key for key in ("codebase_version", "fps", "features", "total_episodes", "total_frames") if key not in info]
    if missing:
        raise DataError(f"{path}: key '{missing[0]}' is missing")
    if not str(info["codebase_version"]).startswith("v3."):
        raise DataError(
            f"{path}: codebase_version is {info['codebase_version']!r}, only v3 is read; "
            "convert it with `python -m lerobot.scripts.convert_dataset_v21_to_v30`"
        )
    if not isinstance(info["fps"], (int, float)) or not info["fps"] > 0:
        raise DataError(f"{path}: fps is {info['fps']!r}, expected a positive number")
    if not isinstance(info["features"], dict):
        raise DataError(f"{path}: features must be an object of name -> {{dtype, shape}}")
    for name, feature in info["features"].items():
        if not isinstance(feature, dict) or "dtype" not in feature or not isinstance(feature.get("shape"), list):
            raise DataError(f"{path}: feature '{name}' needs `dtype` and `shape` (a list)")
    return {**info, "data_path": info.get("data_path") or DATA_PATH, "video_path": info.get("video_path") or VIDEO_PATH}


def read_tasks(root: Path, info: dict[str, Any]) -> list[str]:
    """Task texts by task_index."""
    path = root / "meta/tasks.parquet"
    table = read_table(path, None)
    texts = [name for name in table.column_names if pa.types.is_string(table.schema.field(name).type)]
    texts += [name for name in table.column_names if pa.types.is_large_string(table.schema.field(name).type)]
    if "task_index" not in table.column_names or not texts:
        raise DataError(f"{path}: expected the columns `task_index` and `task`, got {', '.join(table.column_names)}")
    rows = dict(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))
    if sorted(rows) != list(range(len(rows))):
        raise DataError(f"{path}: task_index must count 0, 1, 2, …, got {sorted(rows)[:5]}")
    return [str(rows[k]) for k in range(len(rows))]


def read_episodes(root: Path, info: dict[str, Any]) -> tuple[dict[str, np.ndarray], list[Path]]:
    """The table of episodes (without statistics) and the files that it comes from."""
    folder = root / "meta/episodes"
    parts = sorted(folder.glob("*/*.parquet"))
    if not parts:
        raise DataError(f"{folder}: no parquet file; the writer was not finalized, or the dataset is incomplete")
    videos = [name for name, feature in info["features"].items() if feature["dtype"] == "video"]
    fields = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
    columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    columns += [f"videos/{name}/{field}" for name in videos for field in fields]
    table = pa.concat_tables([read_table(path, columns) for path in parts], promote_options="permissive")
    if any(table[name].null_count for name in columns):
        empty = next(name for name in columns if table[name].null_count)
        raise DataError(f"{folder}: column '{empty}' has empty entries; its videos were not all encoded, write the dataset again")
    order = np.argsort(table["episode_index"].to_numpy(), kind="stable")
    episodes = {name: table[name].to_numpy()[order] for name in columns}
    if not np.array_equal(episodes["episode_index"], np.arange(len(order))):
        raise DataError(f"{folder}: episode_index must count 0 to {len(order) - 1}, each once")
    for key, have in (("total_episodes", len(order)), ("total_frames", int(episodes["length"].sum()))):
        if info[key] != have:
            raise DataError(f"{root}/meta/info.json: {key} is {info[key]}, meta/episodes has {have}; the dataset is incomplete")
    return episodes, parts
