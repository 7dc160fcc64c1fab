"""`mixtura data check`, `preview`, `convert` and `index` on small data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixtura.config.schema import DataSection, RunConfig, RunSection, Stage
from mixtura.data import verbs
from mixtura.data.formats.lerobot import LeRobotConfig, LeRobotSource
from mixtura.data.formats.lerobot_write import LeRobotWriter
from mixtura.data.formats.qa import QAConfig
from mixtura.data.formats.webdataset import WebdatasetConfig, WebdatasetSource, write_shards
from mixtura.data.mixers.base import MixerConfig
from mixtura.errors import DataError
from mixtura.rng import KeyedRng
from mixtura.testing import ToyConfig, ToySourceConfig

RNG = KeyedRng(0)
FEATURES = {
    "observation.images.top": {"dtype": "video", "shape": (16, 16, 3)},
    "action": {"dtype": "float32", "shape": (2,)},
    "next.done": {"dtype": "bool", "shape": (1,)},
}


@pytest.fixture
def robot(tmp_path: Path) -> Path:
    with LeRobotWriter(tmp_path / "robot", 10, FEATURES, "arm") as writer:
        for episode in range(2):
            for k in range(4):
                frame = {
                    "observation.images.top": np.full((16, 16, 3), 20 * k, np.uint8),
                    "action": [k, 1.5],
                    "next.done": k == 3,
                }
                writer.add_frame(frame, f"task {episode}")
            writer.save_episode()
    return tmp_path / "robot"


@pytest.fixture
def qa(tmp_path: Path) -> Path:
    (tmp_path / "qa-images").mkdir()
    Image.fromarray(np.full((4, 6, 3), 9, np.uint8)).save(tmp_path / "qa-images/a.jpg", quality=90)
    turns = [{"from": "human", "value": "<image> What is <b>it</b>?"}, {"from": "gpt", "value": "A cube."}]
    records: list[dict[str, Any]] = [{"id": "1", "image": "a.jpg", "conversations": turns}]
    records.append({"id": "2", "conversations": [{"from": "human", "value": "Hi"}]})
    records.append({"id": "3", "image": "gone.jpg", "conversations": turns})
    (tmp_path / "qa.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tmp_path / "qa.jsonl"


def config() -> RunConfig:
    sources = {
        "robot": LeRobotConfig(type="lerobot", path="robot", windows={"action": [0, 1]}),
        "qa": QAConfig(type="qa", path="qa.jsonl", images="qa-images", max_epochs=2),
        "points": ToySourceConfig(type="toy", size=50),
    }
    stage = Stage(name="all", steps=20, mixture={"robot": 3, "qa": 1, "points": 0}, mixer=MixerConfig(type="static"))
    return RunConfig(
        system=ToyConfig(type="toy"), run=RunSection(name="r"), sources=sources, stages=(stage,), data=DataSection(global_batch=8)
    )


def test_check_tells_sizes_shares_epochs_and_speed(tmp_path: Path, robot: Path, qa: Path) -> None:
    said: list[str] = []
    verbs.check(config(), tmp_path, said.append)
    text = "\n".join(said)
    assert "source robot: 8 samples" in text
    assert "action float32[2, 2]" in text
    assert "gone.jpg: can't be decoded" in text
    assert "robot: share 75.00%, 120 samples, 15 epochs at the end" in text
    assert (
        "qa: share 25.00%, 40 samples, 13.3 epochs at the end (reaches max_epochs 2 first; when_exhausted: redistribute)" in text
    )
    assert "points: share 0.00%, 0 samples, 0 epochs at the end (off)" in text
    assert "samples/s" in text


def test_preview_writes_one_page_without_foreign_markup(tmp_path: Path, robot: Path, qa: Path) -> None:
    page = verbs.preview(config(), tmp_path, tmp_path / "out", lambda _: None)
    text = page.read_text()
    assert page.name == "index.html"
    assert "data:image/jpeg;base64," in text
    assert "&lt;b&gt;it&lt;/b&gt;" in text
    assert "<b>it</b>" not in text
    assert "http" not in text
    assert 'class="bad"' in text


def test_robot_data_goes_to_shards_and_back(tmp_path: Path, robot: Path) -> None:
    verbs.convert(robot, tmp_path / "shards", "webdataset", lambda _: None)
    shards = WebdatasetSource(WebdatasetConfig(type="webdataset", path="shards/*.tar", names="fields"), name="s", root=tmp_path)
    source = LeRobotSource(LeRobotConfig(type="lerobot", path="robot"), name="r", root=tmp_path)
    for k in range(8):
        one, other = source.read(k, RNG).fields, shards.read(k, RNG).fields
        assert set(one) == set(other)
        assert all(np.array_equal(one[name], other[name]) for name in one)
    verbs.convert(tmp_path / "shards", tmp_path / "again", "lerobot", lambda _: None)
    again = LeRobotSource(LeRobotConfig(type="lerobot", path="again"), name="a", root=tmp_path)
    assert again.meta.info["robot_type"] == "arm"
    for name in ("action", "next.done", "task", "timestamp", "episode_index"):
        assert np.array_equal(again.column(name), source.column(name))
    images = "observation.images.top"
    assert np.abs(again.frames(images).astype(int) - source.frames(images)).max() <= 3


def test_questions_go_to_shards_with_the_bytes_of_their_images(tmp_path: Path, qa: Path) -> None:
    said: list[str] = []
    verbs.convert(qa, tmp_path / "shards", "webdataset", said.append)
    shards = WebdatasetSource(WebdatasetConfig(type="webdataset", path="shards/*.tar", names="fields"), name="s", root=tmp_path)
    fields = shards.read(0, RNG).fields
    assert fields["conversations"][1]["value"] == "A cube."
    assert fields["images"][0].shape == (4, 6, 3)
    assert shards.read(1, RNG).fields["images"] == []
    assert "2 records, 1 left out because an image can't be decoded" in said
    image = (tmp_path / "qa-images/a.jpg").read_bytes()
    assert image in (tmp_path / "shards/shard-000000.tar").read_bytes()


def test_convert_says_what_is_possible(tmp_path: Path, robot: Path, qa: Path) -> None:
    with pytest.raises(DataError, match="qa to lerobot is not possible"):
        verbs.convert(qa, tmp_path / "x", "lerobot", lambda _: None)
    with pytest.raises(DataError, match="exists already"):
        verbs.convert(robot, tmp_path, "webdataset", lambda _: None)
    with pytest.raises(DataError, match=r"expected a LeRobot folder"):
        verbs.convert(tmp_path / "none", tmp_path / "x", "lerobot", lambda _: None)
    write_shards([{"__key__": "a", "txt": "x"}], str(tmp_path / "plain/a-%d.tar"))
    with pytest.raises(DataError, match=r"mixtura\.json: no such file; LeRobot needs to know"):
        verbs.convert(tmp_path / "plain", tmp_path / "x", "lerobot", lambda _: None)
    assert not (tmp_path / "x").exists()


def test_index_counts_samples(tmp_path: Path) -> None:
    write_shards([{"__key__": f"{k}", "txt": "x"} for k in range(5)], str(tmp_path / "a-%d.tar"), per_shard=2)
    said: list[str] = []
    verbs.index([tmp_path / "a-{0..2}.tar"], said.append)
    assert said[-1] == "5 samples"
    assert (tmp_path / "a-2.tar.idx").is_file()
