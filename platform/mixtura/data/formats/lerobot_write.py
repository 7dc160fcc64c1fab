"""Writing LeRobot v3 datasets: episodes of frames into parquet tables and h264 videos.

`LeRobotWriter` writes beside the goal, to `PATH.tmp`, and renames at `finalize`: a killed writer leaves nothing that looks
finished. The layout is the one that `lerobot` itself writes (see docs/lerobot.md for the check).
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mixtura.data.formats.lerobot_meta import (
    DATA_FILE_MB,
    DATA_PATH,
    EPISODES_PATH,
    FILES_PER_CHUNK,
    INDEX_FEATURES,
    VERSION,
    VIDEO_FILE_MB,
    VIDEO_PATH,
    VISUAL,
    image_shape,
    to_numpy,
)  # fmt: skip
from mixtura.data.formats.lerobot_stats import Stats, aggregate, as_lists, column_stats, image_stats
from mixtura.data.formats.video import CRF, GOP, VideoWriter, check_even, check_frame
from mixtura.errors import DataError

MB = 2**20


class _Numbered:
    """Chunk and file number of a growing series of files."""

    def __init__(self) -> None:
        self.chunk = self.file = 0

    def advance(self) -> None:
        self.file += 1
        if self.file == FILES_PER_CHUNK:
            self.chunk, self.file = self.chunk + 1, 0


class LeRobotWriter:
    """Writes a dataset frame by frame.

    `features` maps names to {dtype: video | image | string | float32 | int64 | bool | …, shape, names}; images are given as
    uint8 (H, W, 3). Use: `add_frame` for each frame, `save_episode` after each episode, `finalize` once. As a context
    manager it finalizes at the end, and removes what it wrote when the block raises. The frames of one episode are held in
    memory. Raises DataError when `path` exists already or a frame does not fit the features.
    """

    def __init__(
        self,
        path: Path | str,
        fps: int,
        features: Mapping[str, Mapping[str, Any]],
        robot_type: str = "",
        *,
        crf: int = CRF,
        gop: int = GOP,
    ) -> None:
        self.path, self.fps, self.robot_type, self.crf, self.gop = Path(path), fps, robot_type, crf, gop
        if self.path.exists():
            raise DataError(f"{self.path}: exists already; give another folder or remove it")
        if not isinstance(fps, int) or fps < 1:
            raise DataError(f"{self.path}: fps is {fps!r}, expected a whole number of frames per second")
        self.features = checked_features(features)
        self.shapes = {name: image_shape(name, f) for name, f in self.features.items() if f["dtype"] in VISUAL}
        self.videos = [name for name in self.shapes if self.features[name]["dtype"] == "video"]
        for name in self.videos:
            check_even(self.shapes[name], f"feature '{name}'")
        self.part = self.path.with_name(self.path.name + ".tmp")
        shutil.rmtree(self.part, ignore_errors=True)
        (self.part / "meta").mkdir(parents=True)
        self.tasks: dict[str, int] = {}
        self.frames: list[dict[str, Any]] = []
        self.frame_tasks: list[str] = []
        self.records: list[dict[str, Any]] = []
        self.stats: list[dict[str, Stats]] = []
        self.total = 0
        self._table: pq.ParquetWriter | None = None
        self._table_rows = 0
        self._place = {name: _Numbered() for name in ("data", *self.videos)}
        self._movie: dict[str, VideoWriter] = {}

    # -- frames ------------------------------------------------------------------------------------------------------
    def add_frame(self, frame: Mapping[str, Any], task: str) -> None:
        """Append one frame to the current episode: a value for every feature, and the instruction in words."""
        where = f"{self.path}: episode {len(self.records)}, frame {len(self.frames)}"
        if set(frame) != set(self.features):
            missing, extra = set(self.features) - set(frame), set(frame) - set(self.features)
            raise DataError(f"{where}: missing {sorted(missing)}, unknown {sorted(extra)}; give exactly the declared features")
        if not isinstance(task, str):
            raise DataError(f"{where}: task is {task!r}, expected text")
        kept: dict[str, Any] = {}
        for name, value in frame.items():
            feature = self.features[name]
            if name in self.shapes:
                check_frame(np.asarray(value), self.shapes[name], f"{where}: '{name}'")
                kept[name] = np.array(value)
            elif feature["dtype"] == "string":
                kept[name] = str(value)
            else:
                array = np.asarray(value)
                if array.shape != tuple(feature["shape"]) and not (array.shape == () and feature["shape"] == [1]):
                    raise DataError(f"{where}: '{name}' has shape {array.shape}, expected {tuple(feature['shape'])}")
                kept[name] = np.array(array, dtype=feature["dtype"]).reshape(feature["shape"])
        self.frames.append(kept)
        self.frame_tasks.append(task)

    def clear_episode(self) -> None:
        """Forget the frames since the last `save_episode`."""
        self.frames, self.frame_tasks = [], []

    def save_episode(self) -> None:
        """Write the frames since the last call as one episode."""
        if not self.frames:
            raise DataError(f"{self.path}: episode {len(self.records)} has no frame; call add_frame first")
        count, episode = len(self.frames), len(self.records)
        for task in self.frame_tasks:
            self.tasks.setdefault(task, len(self.tasks))
        columns: dict[str, Any] = {name: [frame[name] for frame in self.frames] for name in self.features}
        index = {
            "timestamp": np.arange(count, dtype=np.float64) / self.fps, "frame_index": np.arange(count),
            "episode_index": np.full(count, episode), "index": self.total + np.arange(count),
            "task_index": np.array([self.tasks[task] for task in self.frame_tasks]),
        }  # fmt: skip
        columns |= {name: rows.astype(INDEX_FEATURES[name]["dtype"])[:, None] for name, rows in index.items()}
        every = {**self.features, **INDEX_FEATURES}
        stats = {n: image_stats(columns[n]) for n in self.shapes}
        stats |= {n: column_stats(np.stack(columns[n])) for n, f in every.items() if f["dtype"] not in (*VISUAL, "string")}
        record = {"episode_index": episode, "tasks": list(dict.fromkeys(self.frame_tasks)), "length": count}
        record |= self._write_rows(columns, every, count)
        for name in self.videos:
            record |= self._write_video(name, columns[name])
        self.records.append(record)
        self.stats.append(stats)
        self.total += count
        self.clear_episode()

    def _write_rows(self, columns: Mapping[str, Any], every: Mapping[str, Any], count: int) -> dict[str, int]:
        """Append one row group; starts a new file when this one would pass the size limit."""
        place = self._place["data"]
        if self._table is not None:
            size = self._data_file().stat().st_size
            if size * (1 + count / self._table_rows) >= DATA_FILE_MB * MB:
                self._table.close()
                self._table = None
                place.advance()
        table = pa.table({name: to_arrow(columns[name], f) for name, f in every.items() if f["dtype"] != "video"})
        if self._table is None:
            self._data_file().parent.mkdir(parents=True, exist_ok=True)
            self._table, self._table_rows = pq.ParquetWriter(self._data_file(), table.schema, compression="snappy"), 0
        self._table.write_table(table)
        self._table_rows += count
        first = self.total
        numbers = {"data/chunk_index": place.chunk, "data/file_index": place.file}
        return numbers | {"dataset_from_index": first, "dataset_to_index": first + count}

    def _data_file(self) -> Path:
        place = self._place["data"]
        return self.part / DATA_PATH.format(chunk_index=place.chunk, file_index=place.file)

    def _write_video(self, name: str, frames: Sequence[np.ndarray]) -> dict[str, Any]:
        """Append an episode to the camera's current file, or to a new one when that would grow too large."""
        place, movie = self._place[name], self._movie.get(name)
        if movie is not None and movie.bytes * (1 + len(frames) / movie.frames) >= VIDEO_FILE_MB * MB:
            movie.close()
            place.advance()
            movie = None
        if movie is None:
            path = self.part / VIDEO_PATH.format(video_key=name, chunk_index=place.chunk, file_index=place.file)
            movie = self._movie[name] = VideoWriter(path, self.fps, self.shapes[name], self.crf, self.gop)
        first = movie.frames
        for k, frame in enumerate(frames):
            movie.append(frame, key=k == 0)
        values = (place.chunk, place.file, first / self.fps, movie.frames / self.fps)
        return {
            f"videos/{name}/{field}": v
            for field, v in zip(("chunk_index", "file_index", "from_timestamp", "to_timestamp"), values, strict=True)
        }

    # -- the end -----------------------------------------------------------------------------------------------------
    def finalize(self) -> Path:
        """Write the metadata and give the dataset its name; returns its path."""
        if self.frames:
            raise DataError(
                f"{self.path}: {len(self.frames)} frames were added and not saved; call save_episode or clear_episode"
            )
        if not self.records:
            raise DataError(f"{self.path}: holds no episode; nothing to finalize")
        self._close_files()
        self._write_meta()
        os.replace(self.part, self.path)
        return self.path

    def _close_files(self) -> None:
        for movie in self._movie.values():
            movie.close()
        if self._table is not None:
            self._table.close()
            self._table = None

    def _write_meta(self) -> None:
        meta = self.part / "meta"
        write_tasks(meta / "tasks.parquet", self.tasks)
        write_episodes(self.part, self.records, self.stats)
        (meta / "stats.json").write_text(json.dumps(as_lists(self._whole_stats()), indent=4))
        info = {
            "codebase_version": VERSION, "fps": self.fps, "features": self._described(), "total_episodes": len(self.records),
            "total_frames": self.total, "total_tasks": len(self.tasks), "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB, "data_path": DATA_PATH, "video_path": VIDEO_PATH if self.videos else None,
            "robot_type": self.robot_type or None, "splits": {"train": f"0:{len(self.records)}"},
        }  # fmt: skip
        (meta / "info.json").write_text(json.dumps(info, indent=4, ensure_ascii=False))

    def _whole_stats(self) -> dict[str, Stats]:
        """Statistics of the dataset; quantiles of table columns are exact, for the tables are read once more."""
        result = {name: aggregate([stats[name] for stats in self.stats]) for name in self.stats[0]}
        files = sorted((self.part / "data").glob("*/*.parquet"))
        for name in (n for n in self.stats[0] if n not in self.shapes):
            feature = {**self.features, **INDEX_FEATURES}[name]
            rows = [to_numpy(pq.read_table(file, columns=[name])[name], feature, f"{file}: column '{name}'") for file in files]
            result[name] = column_stats(np.concatenate(rows))
        return result

    def _described(self) -> dict[str, Any]:
        """Features as info.json lists them, with the facts of the videos."""
        listed: dict[str, Any] = {}
        for name, feature in {**self.features, **INDEX_FEATURES}.items():
            listed[name] = dict(feature)
            if name in self.videos:
                height, width = self.shapes[name]
                facts = {
                    "height": height,
                    "width": width,
                    "codec": "h264",
                    "pix_fmt": "yuv420p",
                    "fps": self.fps,
                    "channels": 3,
                    "g": self.gop,
                    "crf": self.crf,
                }
                listed[name]["info"] = {
                    **{f"video.{key}": value for key, value in facts.items()},
                    "has_audio": False,
                    "is_depth_map": False,
                }
        return listed

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.finalize()
        else:
            self._close_files()
            shutil.rmtree(self.part, ignore_errors=True)


def checked_features(features: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Features with shapes as lists and names filled in; DataError for reserved names and unknown types."""
    result: dict[str, dict[str, Any]] = {}
    for name, feature in features.items():
        if name in INDEX_FEATURES:
            raise DataError(f"feature '{name}': the writer fills it in; leave it out")
        if "/" in name or not name:
            raise DataError(f"feature '{name}': '/' can't be part of a name")
        dtype = str(feature.get("dtype"))
        known = dtype in (*VISUAL, "string")
        try:
            known = known or np.dtype(dtype).kind in "fiub"
        except TypeError:
            known = False
        if not known or "shape" not in feature:
            raise DataError(
                f"feature '{name}': needs `shape` and `dtype` (video, image, string, float32, int64, bool), got {dict(feature)}"
            )
        names = feature.get("names") or (["height", "width", "channels"] if dtype in VISUAL else None)
        result[name] = {"dtype": dtype, "shape": [int(n) for n in feature["shape"]], "names": names}
    return result


def to_arrow(rows: Sequence[Any] | np.ndarray, feature: Mapping[str, Any]) -> pa.Array:
    """A column as LeRobot stores it: scalars for shape (1,), fixed-size lists for vectors, nested lists beyond, PNG images."""
    shape, dtype = list(feature["shape"]), feature["dtype"]
    if dtype == "image":
        cells = [{"bytes": png(frame), "path": f"frame-{k:06d}.png"} for k, frame in enumerate(rows)]
        return pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    if dtype == "string":
        return pa.array(list(rows), pa.string())
    values = np.stack(list(rows)).reshape(len(rows), *shape)
    array = pa.array(values.reshape(-1), pa.from_numpy_dtype(np.dtype(dtype)))
    if shape == [1]:
        return array
    if len(shape) == 1:
        return pa.FixedSizeListArray.from_arrays(array, shape[0])
    for size in reversed(shape):
        array = pa.ListArray.from_arrays(np.arange(0, len(array) + 1, size, dtype=np.int32), array)
    return array


def png(frame: np.ndarray) -> bytes:
    """PNG bytes of (H, W, 3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def write_tasks(path: Path, tasks: Mapping[str, int]) -> None:
    """tasks.parquet as pandas writes a table whose index is the task text: column `task_index`, row k is task k."""
    described = [{"name": n, "field_name": n, "pandas_type": p, "numpy_type": t, "metadata": None} for n, p, t in
                 (("task_index", "int64", "int64"), ("task", "unicode", "object"))]  # fmt: skip
    frame = {"index_columns": ["task"], "column_indexes": [], "columns": described, "pandas_version": "2.0.0"}
    ordered = sorted(tasks, key=lambda text: tasks[text])
    table = pa.table({"task_index": pa.array(range(len(ordered)), pa.int64()), "task": pa.array(ordered, pa.string())})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(frame)}), path)


def write_episodes(root: Path, records: Sequence[Mapping[str, Any]], stats: Sequence[Mapping[str, Stats]]) -> None:
    """The table of episodes, with the statistics of each in columns `stats/FEATURE/NAME`."""
    rows = []
    for record, parts in zip(records, stats, strict=True):
        flat = {f"stats/{feature}/{name}": value.tolist() for feature, found in parts.items() for name, value in found.items()}
        rows.append({**record, **flat, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
    path = root / EPISODES_PATH.format(chunk_index=0, file_index=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), path, compression="snappy")
