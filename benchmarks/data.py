"""Samples per second: our loader mixing three shard sources, plain webdataset, and a PyTorch DataLoader over files.

    python benchmarks/data.py [--samples 6000] [--side 128] [--workers 0 1]

All three read the same pictures (JPEG) with the same labels, decode with Pillow to uint8 arrays, and give batches of 32
lists. webdataset mixes with `RandomMix` (in order within a shard, its fast case); files are chosen by WeightedRandomSampler;
ours draws in a new random order from all shards. Rounds take turns; figures are means of the middle half.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds
from common import keep, middle, say
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, WeightedRandomSampler

from mixtura.data.formats.webdataset import WebdatasetSource
from mixtura.data.loader import StageLoader
from mixtura.data.mixers.base import MixerConfig
from mixtura.data.mixers.static import Static
from mixtura.data.plan import Planner
from mixtura.data.source import Sample
from mixtura.system import System, SystemConfig

WEIGHTS = np.array([5.0, 2.0, 1.0]) / 8
NAMES = ("a", "b", "c")
BATCH = 32


def make(root: Path, count: int, side: int) -> None:
    """Three sources: `count` pictures each, as shards and as files."""
    for k, name in enumerate(NAMES):
        numbers = np.random.default_rng(k)
        (root / "files" / name).mkdir(parents=True)
        with wds.ShardWriter(str(root / f"{name}-%03d.tar"), maxcount=500, verbose=0) as shards:
            for i in range(count):
                small = numbers.integers(0, 255, (8, 8, 3), np.uint8)
                file = io.BytesIO()
                Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(file, "jpeg", quality=90)
                label = json.dumps({"source": name, "number": i})
                shards.write({"__key__": f"{i:06d}", "jpg": file.getvalue(), "json": label.encode()})
                (root / "files" / name / f"{i:06d}.jpg").write_bytes(file.getvalue())
                (root / "files" / name / f"{i:06d}.json").write_text(label)


class Files(Dataset[Any]):
    """Pictures and labels in a folder."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        path = self.paths[index]
        return np.asarray(Image.open(path).convert("RGB")), json.loads(path.with_suffix(".json").read_text())


class Lists(System):
    """Gives batches as lists."""

    def collate(self, samples: Sequence[Sample]) -> Any:
        return {"items": [sample.fields for sample in samples]}

    def counts(self, batch: Any) -> Any:
        return {}


def identity(batch: Any) -> Any:
    """Batches stay lists."""
    return batch


def ours(root: Path, samples: int, workers: int) -> Iterator[int]:
    """Our plan and loader over three webdataset sources."""
    config = [WebdatasetSource.Config(type="webdataset", path=str(root / f"{name}-*.tar")) for name in NAMES]
    sources = {name: WebdatasetSource(c, name=name, root=root) for name, c in zip(NAMES, config, strict=True)}
    planner = Planner(
        [s.info for s in sources.values()],
        Static(MixerConfig(type="static")),
        WEIGHTS,
        seed=time.perf_counter_ns() % 1000,
        stage="x",
        stage_steps=samples // BATCH,
        global_batch=BATCH,
    )
    loader = StageLoader(
        planner,
        sources,
        Lists(SystemConfig(type="lists")),
        seed=0,
        stage="x",
        start=0,
        workers=workers,
        prefetch=2 * max(workers, 1),
        batching="mixed",
    )
    for data in loader:
        yield sum(len(micro.batch["items"]) for micro in data.micros)


def plain(root: Path, samples: int, workers: int) -> Iterator[int]:
    """webdataset's own pipeline with RandomMix."""

    def one(name: str) -> Any:
        urls = sorted(str(path) for path in root.glob(f"{name}-*.tar"))
        return wds.WebDataset(urls, resampled=True, shardshuffle=False, nodesplitter=None).decode("rgb8").to_tuple("jpg", "json")

    mixed = wds.RandomMix([one(name) for name in NAMES], WEIGHTS.tolist())
    options: dict[str, Any] = {"prefetch_factor": 2} if workers else {}
    loader = DataLoader(mixed, batch_size=BATCH, num_workers=workers, collate_fn=identity, **options)
    for number, batch in enumerate(loader):
        if number >= samples // BATCH:
            return
        yield len(batch)


def files(root: Path, samples: int, workers: int) -> Iterator[int]:
    """A DataLoader over single files."""
    parts = [Files(root / "files" / name) for name in NAMES]
    weights = np.repeat(WEIGHTS / [len(p) for p in parts], [len(p) for p in parts])
    sampler = WeightedRandomSampler(weights.tolist(), samples)
    options: dict[str, Any] = {"prefetch_factor": 2} if workers else {}
    loader = DataLoader(ConcatDataset(parts), BATCH, sampler=sampler, num_workers=workers, collate_fn=identity, **options)
    for batch in loader:
        yield len(batch)


def speed(run: Callable[[Path, int, int], Iterator[int]], root: Path, samples: int, workers: int) -> float:
    """Samples per second once the first batches are there."""
    began, done = 0.0, 0
    for number, count in enumerate(run(root, samples, workers)):
        if number == 4:
            began = time.perf_counter()
        done += count if number > 4 else 0
    return done / (time.perf_counter() - began)


def main() -> None:
    """Measure all three, in turns."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, 2000, given.side)
        for workers in given.workers:
            measured: dict[str, list[float]] = {"mixtura": [], "webdataset": [], "files": []}
            for _ in range(given.rounds):
                for name, run in (("mixtura", ours), ("webdataset", plain), ("files", files)):
                    measured[name].append(speed(run, root, given.samples, workers))
            mine = {name: middle(values) for name, values in measured.items()}
            ratios = {name: mine["mixtura"] / mine[name] for name in ("webdataset", "files")}
            figures[f"{workers} workers"] = {"samples_per_s": mine, "ratio": ratios, "rounds": measured}
            told = "  ".join(f"{name} {value:,.0f}/s" for name, value in mine.items())
            say(
                f"{workers} workers, {given.side} px: {told}  ours over webdataset {ratios['webdataset']:.2f}, over "
                f"files {ratios['files']:.2f}"
            )
    keep("data", figures)


if __name__ == "__main__":
    main()
