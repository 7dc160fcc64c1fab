"""The loader: groups of samples, replacement of bad ones, errors of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixtura.data.loader import Reader, StageLoader
from mixtura.data.mixers.base import MixerConfig
from mixtura.data.mixers.static import Static
from mixtura.data.parcel import pack, unpack
from mixtura.data.plan import Planner, Slot
from mixtura.data.source import Sample
from mixtura.errors import DataError
from mixtura.testing import ToyConfig, ToySource, ToySourceConfig, ToySystem


class ByLength(ToySystem):
    """Samples of equally many points share a batch."""

    def bucket(self, sample: Sample) -> str:
        return str(len(sample.fields["y"]))


def sources(**options: Any) -> dict[str, ToySource]:
    """Two toy sources."""
    return {name: ToySource(ToySourceConfig(type="toy", size=20, **options), name) for name in ("a", "b")}


def loader(workers: int, batching: str = "bucket", **options: Any) -> StageLoader:
    """Five steps of twelve samples."""
    made = sources(**options)
    planner = Planner(
        [s.info for s in made.values()],
        Static(MixerConfig(type="static")),
        np.array([0.5, 0.5]),
        seed=1,
        stage="x",
        stage_steps=5,
        global_batch=12,
    )
    system = ByLength(ToyConfig(type="toy"))
    return StageLoader(planner, made, system, seed=1, stage="x", start=0, workers=workers, prefetch=2, batching=batching)


def keys(made: StageLoader) -> list[list[list[str]]]:
    """Keys of every micro-batch of every step."""
    return [[micro.keys for micro in step.micros] for step in made]


@pytest.mark.parametrize("batching", ["bucket", "by_source", "mixed"])
def test_workers_change_nothing(batching: str) -> None:
    assert keys(loader(0, batching, bad=(3, 4))) == keys(loader(2, batching, bad=(3, 4)))


def test_buckets_hold_equal_shapes_and_sources_can_be_kept_apart() -> None:
    for step in loader(0):
        for micro in step.micros:
            assert len(set(np.bincount(micro.batch["owner"]).tolist())) == 1
    for step in loader(0, "by_source"):
        assert all(len(set(micro.source_ids.tolist())) == 1 for micro in step.micros)
    assert all(len(step.micros) == 1 for step in loader(0, "mixed"))


def test_a_bad_sample_is_replaced_by_the_next_item() -> None:
    reader = Reader(sources(bad=(3, 4)), ToySystem(ToyConfig(type="toy")), 0, "x", "mixed", None, None)
    bad: list[tuple[str, int, str]] = []
    sample = reader.read(Slot(0, 0, 3, 0), bad)
    assert sample.index == 5
    assert [(source, item) for source, item, _ in bad] == [("a", 3), ("a", 4)]


def test_an_error_in_a_worker_reaches_the_user_whole() -> None:
    with pytest.raises(DataError, match="source 'a'|source 'b'"):
        keys(loader(1, bad=tuple(range(20))))


def test_missing_sources_are_told_all_at_once(tmp_path: Path) -> None:
    from mixtura.data.formats.lerobot import LeRobotConfig
    from mixtura.data.formats.qa import QAConfig
    from mixtura.data.sources import open_sources

    sections = {
        "robot": LeRobotConfig(type="lerobot", path="nowhere"),
        "qa": QAConfig(type="qa", path="no.jsonl", images="none"),
    }
    with pytest.raises(DataError) as caught:
        open_sources(sections, tmp_path)
    assert "nowhere" in str(caught.value)
    assert "no.jsonl" in str(caught.value)


def test_a_parcel_gives_back_what_was_put_in() -> None:
    view = torch.arange(12.0).reshape(3, 4).T
    value = {
        "a": view,
        "b": [torch.tensor(True), torch.zeros(0, 3), None],
        "c": ("text", np.arange(3)),
        "d": torch.ones(5).half(),
    }
    parcel = pack(value)
    back = unpack(parcel)
    assert torch.equal(back["a"], view)
    assert back["b"][0].item() is True
    assert back["b"][1].shape == (0, 3)
    assert back["b"][2] is None
    assert back["c"][0] == "text"
    assert np.array_equal(back["c"][1], np.arange(3))
    assert torch.equal(back["d"], value["d"])
    assert back["d"].dtype == torch.float16
    assert all(offset % 64 == 0 for offset, *_ in parcel.places)


def test_all_tensors_of_a_step_from_a_worker_share_one_block() -> None:
    for workers, shared in ((0, False), (1, True)):
        micros = next(iter(loader(workers))).micros
        tensors = [m.source_ids for m in micros] + [v for m in micros for v in m.batch.values() if isinstance(v, torch.Tensor)]
        blocks = {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}
        assert len(tensors) > 2
        assert (len(blocks) == 1) == shared
