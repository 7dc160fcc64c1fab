"""Reading LeRobot v3 datasets: one sample per frame, with windows of frames around it.

`LeRobotSource` reads tables with pyarrow and decodes every video once, into a memory-mapped cache. It checks that tables,
videos and metadata agree, because a dataset whose rows and frames are shifted trains without complaint.
NaN in the table passes through; the system that trains counts such a sample as bad.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from mixtura.data.formats.frame_cache import cached_frames
from mixtura.data.formats.lerobot_meta import INDEX_FEATURES, VISUAL, LeRobotMeta, image_shape, read_table, to_numpy
from mixtura.data.formats.video import read_frames
from mixtura.data.source import Sample, SourceConfig, SourceInfo
from mixtura.errors import DataError
from mixtura.rng import KeyedRng, key64

CACHE = ".mixtura-cache"
TOLERANCE = 0.1
"""A frame belongs to a row when their times differ by less than this share of a frame."""


class LeRobotConfig(SourceConfig):
    """`sources: {NAME: {type: lerobot, path: FOLDER}}`."""

    path: str = Field(description="folder of a LeRobot v3 dataset, or a path relative to the project's root")
    windows: dict[str, list[int]] = Field({}, description="field -> frame offsets, e.g. action: [0, 1, 2]")
    fields: list[str] | None = Field(None, description="features to read; all when left out")
    episodes: list[int] | None = Field(None, description="episodes to read; all when left out")
    cache: str | None = Field(None, description="folder for decoded frames; .mixtura-cache in the dataset by default")


class LeRobotSource:
    """Samples of a LeRobot v3 dataset, one per row, `key` "ep000012/frame000034".

    Fields: tables as declared (float32, int64, bool; (D,)), images uint8 (H, W, 3), `task` str, and `episode_index`,
    `frame_index` (int), `timestamp` (float, s). A field with a window gains a leading axis T and a companion
    `FIELD_valid` (T,) bool: past the ends of the episode the nearest frame is repeated and marked False.
    """

    Config = LeRobotConfig

    def __init__(self, config: LeRobotConfig, name: str, root: Path) -> None:
        self.config, self.name, self.root = config, name, Path(root) / config.path
        self.meta = LeRobotMeta.load(self.root)
        self.episodes = self._chosen_episodes()
        lengths = self.meta.episodes["length"][self.episodes]
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.fields = self._chosen_fields()
        self.shapes = {f: image_shape(f, self.meta.features[f]) for f in self.fields if self._dtype(f) in VISUAL}
        self._columns: dict[str, np.ndarray] = {}
        self._maps: dict[str, np.ndarray] = {}
        seen = [len(config.windows[f]) for f in self.shapes if f in config.windows]
        subset = "" if config.episodes is None else f"-{key64(*config.episodes):016x}"
        extra = {
            "fps": self.meta.fps,
            "features": self.meta.features,
            "stats": self.meta.stats,
            "tasks": self.meta.tasks,
            "episodes": len(lengths),
        }
        self.info = SourceInfo(
            name, int(self.starts[-1]), self.meta.fingerprint + subset, unit="frames", unit_size=float(max(seen, default=1)),
            max_epochs=config.max_epochs, extra=extra,
        )  # fmt: skip

    # -- what the configuration asks for ------------------------------------------------------------------------
    def _dtype(self, field: str) -> str:
        return str(self.meta.features[field]["dtype"])

    def _chosen_episodes(self) -> np.ndarray:
        total = len(self.meta.episodes["length"])
        if self.config.episodes is None:
            return np.arange(total)
        wrong = [k for k in self.config.episodes if not 0 <= k < total]
        if wrong or len(set(self.config.episodes)) < len(self.config.episodes):
            raise DataError(
                f"source '{self.name}': episodes {wrong or self.config.episodes}: expected each once, from 0 to {total - 1}"
            )
        return np.array(sorted(self.config.episodes), dtype=np.int64)

    def _chosen_fields(self) -> list[str]:
        known = [f for f in self.meta.features if f not in INDEX_FEATURES]
        chosen = known if self.config.fields is None else self.config.fields
        for origin, names in (("fields", chosen), ("windows", self.config.windows)):
            unknown = [f for f in names if f not in self.meta.features or (origin == "windows" and f not in chosen)]
            if unknown:
                have = chosen if origin == "windows" else known
                raise DataError(f"source '{self.name}': `{origin}` names '{unknown[0]}', {self.root} has {', '.join(have)}")
        empty = [f for f, offsets in self.config.windows.items() if not offsets]
        if empty:
            raise DataError(f"source '{self.name}': the window of '{empty[0]}' is empty; give offsets in frames, e.g. [0, 1]")
        for field in chosen:
            facts = {**(self.meta.features[field].get("video_info") or {}), **(self.meta.features[field].get("info") or {})}
            if facts.get("is_depth_map") or facts.get("video.is_depth_map"):
                raise DataError(
                    f"source '{self.name}': '{field}' is a depth map, which isn't read; list the other features in `fields:`"
                )
        return list(chosen)

    # -- whole columns --------------------------------------------------------------------------------------------
    def column(self, field: str) -> np.ndarray:
        """All rows of a feature that isn't an image: (N, *shape), or (N,) for `task` (str) and the index columns."""
        if field == "task":
            texts: np.ndarray = np.array(self.meta.tasks, dtype=object)[self.column("task_index")]
            return texts
        if not self._columns:
            self._columns = self._read_columns()
        if field not in self._columns:
            raise DataError(f"{self.root}: no table column '{field}'; it has {', '.join(self._columns)} (images: `frames`)")
        return self._columns[field]

    def _read_columns(self) -> dict[str, np.ndarray]:
        tables = [f for f in self.fields if self._dtype(f) not in VISUAL]
        names = [*dict.fromkeys([*tables, *(f for f in INDEX_FEATURES if f in self.meta.features)])]
        for needed in ("timestamp", "frame_index", "episode_index", "task_index"):
            if needed not in names:
                raise DataError(f"{self.root}/meta/info.json: feature '{needed}' is missing")
        table = self._rows(names)
        columns = {f: to_numpy(table[f], self.meta.features[f], f"{self.root}: column '{f}'") for f in names}
        columns |= {f: columns[f].reshape(-1) for f in INDEX_FEATURES if f in columns}
        indices = columns["task_index"]
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self.meta.tasks)):
            raise DataError(f"{self.root}: task_index up to {indices.max()}, meta/tasks.parquet has {len(self.meta.tasks)} tasks")
        return columns

    def _rows(self, names: list[str]) -> pa.Table:
        """The rows of the chosen episodes, in order; DataError unless every episode has as many as meta/episodes says."""
        files: dict[Path, list[int]] = {}
        for episode in self.episodes:
            files.setdefault(self.meta.data_file(int(episode)), []).append(int(episode))
        parts = []
        for path, episodes in files.items():
            table = read_table(path, list(dict.fromkeys([*names, "episode_index"])))
            of_row = table["episode_index"].to_numpy()
            numbers, begins, counts = np.unique(of_row, return_index=True, return_counts=True)
            where = {int(n): (int(b), int(c)) for n, b, c in zip(numbers, begins, counts, strict=True)}
            for episode in episodes:
                (begin, count), length = where.get(episode, (0, 0)), int(self.meta.episodes["length"][episode])
                if count != length or not (of_row[begin : begin + count] == episode).all():
                    raise DataError(
                        f"{path}: episode {episode} has {count} rows in a piece, meta/episodes says {length}; copy the data again"
                    )
                parts.append(table.slice(begin, length))
        return pa.concat_tables(parts)

    # -- frames --------------------------------------------------------------------------------------------------
    def frames(self, field: str) -> np.ndarray:
        """All images of a feature: read-only memmap (N, H, W, 3) uint8, decoded once into the cache folder."""
        if field not in self.shapes:
            raise DataError(f"{self.root}: no image feature '{field}'; it has {', '.join(self.shapes) or 'none'}")
        if field not in self._maps:
            folder = (Path(self.config.cache) if self.config.cache else self.root / CACHE) / self.info.fingerprint
            fill = self._decode_videos if self._dtype(field) == "video" else self._decode_images
            shape = (self.info.size, *self.shapes[field], 3)
            self._maps[field] = cached_frames(folder, field.replace("/", "_"), shape, lambda array: fill(field, array))
        return self._maps[field]

    def _decode_videos(self, field: str, out: np.ndarray) -> None:
        """Decode each file once and give every row the frame of its time."""
        files: dict[Path, list[int]] = {}
        for place, episode in enumerate(self.episodes):
            files.setdefault(self.meta.video_file(field, int(episode)), []).append(place)
        table, seconds = self.meta.episodes, self.column("timestamp").astype(np.float64)
        begin, finish = table[f"videos/{field}/from_timestamp"], table[f"videos/{field}/to_timestamp"]
        for path, places in files.items():
            rows = np.concatenate([np.arange(self.starts[p], self.starts[p + 1]) for p in places])
            offsets = np.concatenate([np.full(self.starts[p + 1] - self.starts[p], begin[self.episodes[p]]) for p in places])
            spans = [(float(begin[self.episodes[p]]), float(finish[self.episodes[p]])) for p in places]
            counts = self._decode_file(path, field, rows, seconds[rows] + offsets, spans, out)
            for place, (found, extra) in zip(places, counts, strict=True):
                length = int(self.starts[place + 1] - self.starts[place])
                if found != length or extra:
                    raise DataError(
                        f"{path}: episode {self.episodes[place]} has {length} rows, its part of the video {found + extra}, "
                        f"{found} of them at the times of rows; video and table don't match, record or convert the dataset again"
                    )

    def _decode_file(
        self, path: Path, field: str, rows: np.ndarray, times: np.ndarray, spans: list[tuple[float, float]], out: np.ndarray
    ) -> list[tuple[int, int]]:
        """Fill `out` from one file. Per span: (rows that got a frame, frames of the span that no row wants)."""
        order = np.argsort(times, kind="stable")
        rows, times = rows[order], times[order]
        half, near, last = 0.5 / self.meta.fps, TOLERANCE / self.meta.fps, max(end for _, end in spans)
        taken, spare = np.zeros(len(times), bool), []
        for time, frame in read_frames(path, float(times[0]) if len(times) else 0.0):
            if time >= last - half:
                break
            low, high = np.searchsorted(times, [time - near, time + near])
            if low == high:
                spare.append(time)
                continue
            if frame.shape != out.shape[1:]:
                raise DataError(f"{path}: frames are {frame.shape}, meta/info.json says {tuple(out.shape[1:])} for '{field}'")
            out[rows[low:high]] = frame
            taken[low:high] = True
        extra = np.array(spare)
        return [
            (int(taken[(times >= a - half) & (times < b - half)].sum()), int(((extra >= a - half) & (extra < b - half)).sum()))
            for a, b in spans
        ]

    def _decode_images(self, field: str, out: np.ndarray) -> None:
        """Decode images that are stored in the table as PNG or JPEG bytes."""
        for row, cell in enumerate(self._rows([field])[field].to_pylist()):
            data = (cell or {}).get("bytes") if isinstance(cell, dict) or cell is None else None
            if data is None:
                raise DataError(
                    f"{self.root}: row {row} of '{field}' holds no image bytes; embed the images when the dataset is written"
                )
            try:
                with Image.open(io.BytesIO(data)) as image:
                    frame = np.asarray(image.convert("RGB"))
            except (UnidentifiedImageError, OSError, SyntaxError) as error:
                raise DataError(f"{self.root}: row {row} of '{field}' is a damaged image ({error})") from error
            if frame.shape != out.shape[1:]:
                raise DataError(
                    f"{self.root}: row {row} of '{field}' is {frame.shape}, meta/info.json says {tuple(out.shape[1:])}"
                )
            out[row] = frame

    # -- samples -------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return self.info.size

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """The row at `index` with its windows; `rng` is not used."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no sample {index}, it has {len(self)}")
        place = int(np.searchsorted(self.starts, index, side="right")) - 1
        first, last = int(self.starts[place]), int(self.starts[place + 1]) - 1
        fields: dict[str, Any] = {}
        for field in self.fields:
            rows = self.frames(field) if field in self.shapes else self.column(field)
            offsets = self.config.windows.get(field)
            if offsets is None:
                fields[field] = np.array(rows[index]) if isinstance(rows[index], np.ndarray) else rows[index]
            else:
                wanted = index + np.asarray(offsets)
                fields[field] = rows[np.clip(wanted, first, last)]
                fields[f"{field}_valid"] = (wanted >= first) & (wanted <= last)
        episode, frame = int(self.episodes[place]), index - first
        fields["task"] = self.meta.tasks[int(self.column("task_index")[index])]
        fields |= {"episode_index": episode, "frame_index": frame, "timestamp": float(self.column("timestamp")[index])}
        return Sample(fields, key=f"ep{episode:06d}/frame{frame:06d}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_columns": {}, "_maps": {}}  # each process opens its own
