"""Checks that LeRobot's own library and Mixtura read each other's datasets; run by hand, see docs/lerobot.md.

    write-ours DIR        with Mixtura       write-theirs DIR         with lerobot
    read-ours DIR FILE    with Mixtura       read-theirs DIR FILE     with lerobot
    compare FILE FILE [--truth]              either: are frames, tables, tasks, windows equal?

Each command imports only the library that it is named after, so the two may live in different environments. FILE is .npz.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FPS, LENGTHS, WINDOW = 10, (12, 2, 150, 7), [-1, 0, 1, 2]
TASKS = ("push the block", "öffne die Schublade", "push the block", "reach")
FEATURES: dict[str, dict[str, Any]] = {
    "observation.images.top": {"dtype": "video", "shape": (96, 128, 3), "names": ["height", "width", "channels"]},
    "observation.images.wrist": {"dtype": "video", "shape": (64, 64, 3), "names": ["height", "width", "channels"]},
    "observation.images.still": {"dtype": "image", "shape": (32, 48, 3), "names": ["height", "width", "channels"]},
    "observation.state": {"dtype": "float32", "shape": (6,), "names": [f"joint{k}" for k in range(6)]},
    "action": {"dtype": "float32", "shape": (7,), "names": [f"a{k}" for k in range(7)]},
    "observation.pose": {"dtype": "float32", "shape": (2, 3), "names": None},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
    "count": {"dtype": "int64", "shape": (1,), "names": None},
}


def picture(rng: np.random.Generator, height: int, width: int, k: int) -> np.ndarray:
    """A smooth scene that differs from frame to frame."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    phase = rng.uniform(0, 6.28, 3)
    channels = [127 + 120 * np.sin(x / (9 + c) + y / (13 - c) + phase[c] + k / 3) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def episodes() -> Iterator[Iterator[tuple[dict[str, Any], str]]]:
    """The same episodes for both writers."""
    for number, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        yield frames(np.random.default_rng(number), length, task)


def frames(rng: np.random.Generator, length: int, task: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The frames of an episode and its task."""
    for k in range(length):
        frame: dict[str, Any] = {}
        for name, feature in FEATURES.items():
            shape = feature["shape"]
            if feature["dtype"] in ("video", "image"):
                frame[name] = picture(rng, shape[0], shape[1], k)
            elif feature["dtype"] == "bool":
                frame[name] = np.array([k == length - 1])
            else:
                frame[name] = (
                    rng.normal(size=shape).astype(np.float32) if feature["dtype"] == "float32" else np.array([k], np.int64)
                )
        yield frame, task


def save(out: Path, rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Stack the rows of a reader."""
    tasks = json.dumps([str(row.pop("task")) for row in rows])
    np.savez(
        out,
        **{name: np.stack([row[name] for row in rows]) for name in rows[0]},
        task=np.array(tasks),
        facts=np.array(json.dumps(facts)),
    )


def write_ours(folder: Path) -> None:
    from mixtura.data.formats.lerobot_write import LeRobotWriter

    with LeRobotWriter(folder, FPS, FEATURES, robot_type="check") as writer:
        for episode in episodes():
            for frame, task in episode:
                writer.add_frame(frame, task)
            writer.save_episode()


def read_ours(folder: Path, out: Path) -> None:
    from mixtura.data.formats.lerobot import LeRobotConfig, LeRobotSource
    from mixtura.rng import KeyedRng

    config = LeRobotConfig(type="lerobot", path=str(folder), windows={"action": WINDOW, "observation.images.wrist": WINDOW})
    source = LeRobotSource(config, name="check", root=Path())
    rows = []
    for k in range(len(source)):
        fields = source.read(k, KeyedRng(0)).fields
        rows.append({**fields, "timestamp": np.float32(fields["timestamp"])})
    save(out, rows, {"fps": source.meta.fps, "episodes": len(source.episodes), "frames": len(source)})


def write_theirs(folder: Path) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset.create("mixtura/check", FPS, features=FEATURES, root=folder, robot_type="check", use_videos=True)
    for episode in episodes():
        for frame, task in episode:
            dataset.add_frame({**frame, "task": task})
        dataset.save_episode()
    dataset.finalize()


def read_theirs(folder: Path, out: Path, backend: str = "pyav") -> None:
    import torch
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    seconds = [k / FPS for k in WINDOW]
    windows = {"action": seconds, "observation.images.wrist": seconds}
    dataset = LeRobotDataset("mixtura/check", root=folder, delta_timestamps=windows, video_backend=backend, return_uint8=True)
    rows = []
    for k in range(len(dataset)):
        row: dict[str, Any] = {}
        for name, value in dataset[k].items():
            if name in ("index", "task_index"):
                continue
            array = value.numpy() if isinstance(value, torch.Tensor) else value
            if name in FEATURES and FEATURES[name]["dtype"] in ("video", "image"):
                array = np.moveaxis(array, -3, -1)
                array = np.rint(array * 255).astype(np.uint8) if array.dtype != np.uint8 else array
            if name.endswith("_is_pad"):
                name, array = name.replace("_is_pad", "_valid"), ~array
            row[name] = np.asarray(array).reshape(1) if name in FEATURES and FEATURES[name]["shape"] == (1,) else array
        rows.append(row)
    save(out, rows, {"fps": float(dataset.meta.fps), "episodes": dataset.meta.total_episodes, "frames": len(dataset)})


def truth() -> dict[str, np.ndarray]:
    """What was written, before any video codec."""
    rows = [frame for episode in episodes() for frame, _ in episode]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def compare(first: Path, second: Path) -> int:
    """Print a line for every field; the exit code is 1 unless all are equal."""
    a, b = np.load(first), np.load(second)
    original = truth()
    differ = sorted(set(a.files) ^ set(b.files))
    print(f"fields in one only: {', '.join(differ) or 'none'}")
    for name in sorted(set(a.files) & set(b.files)):
        equal = a[name].shape == b[name].shape and np.array_equal(a[name], b[name])
        note = ""
        if a[name].shape == b[name].shape and a[name].dtype == np.uint8:
            gap = np.abs(a[name].astype(int) - b[name].astype(int))
            codec = np.abs((a[name] if a[name].ndim == 4 else a[name][:, 1]).astype(int) - original[name].astype(int)).mean()
            note = f"  largest difference {gap.max()}, {(gap > 0).mean():.2%} differ; mean change by the codec {codec:.2f}"
        elif name in original:
            rows = a[name] if a[name].ndim == original[name].ndim else a[name][:, 1]
            note = f"  as written: {np.array_equal(rows, original[name])}"
        print(f"{'equal    ' if equal else 'DIFFERENT'} {name} {a[name].dtype}{a[name].shape}{note}")
        differ += [] if equal else [name]
    return 1 if differ else 0


def main(arguments: list[str]) -> int:
    commands = {"write-ours": write_ours, "write-theirs": write_theirs, "read-ours": read_ours, "read-theirs": read_theirs}
    if arguments and arguments[0] == "compare":
        return compare(Path(arguments[1]), Path(arguments[2]))
    if not arguments or arguments[0] not in commands:
        print(__doc__)
        return 2
    paths: list[Any] = [Path(text) for text in arguments[1:3]]
    commands[arguments[0]](*paths, *arguments[3:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
