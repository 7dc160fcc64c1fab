"""LeRobot v3: what is written is read back, and damage is named instead of trained on."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtura.data.formats.lerobot import LeRobotConfig, LeRobotSource
from mixtura.data.formats.lerobot_write import LeRobotWriter
from mixtura.data.formats.video import VideoWriter, probe, read_span
from mixtura.data.source import Source
from mixtura.errors import DataError
from mixtura.rng import KeyedRng

RNG = KeyedRng(0)
FEATURES = {
    "observation.images.top": {"dtype": "video", "shape": (32, 48, 3)},
    "observation.images.still": {"dtype": "image", "shape": (8, 6, 3)},
    "observation.state": {"dtype": "float32", "shape": (3,)},
    "action": {"dtype": "float32", "shape": (2,)},
    "next.reward": {"dtype": "float32", "shape": (1,)},
}
LENGTHS = (5, 1, 9)


def grey(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def write(path: Path, lengths: tuple[int, ...] = LENGTHS) -> Path:
    with LeRobotWriter(path, 10, FEATURES) as writer:
        for episode, length in enumerate(lengths):
            for k in range(length):
                frame = {
                    "observation.images.top": grey(32, 48, 40 * episode + 4 * k),
                    "observation.images.still": grey(8, 6, 10 * episode + k),
                    "observation.state": np.array([episode, k, 0.5]),
                    "action": np.array([k, -k]),
                    "next.reward": 0.1 * k,
                }
                writer.add_frame(frame, task=f"task {episode % 2}")
            writer.save_episode()
    return path


def source(path: Path, **options: Any) -> LeRobotSource:
    return LeRobotSource(LeRobotConfig(type="lerobot", path=str(path), **options), name="robot", root=Path("/"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lerobot") / "data")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data")


def test_a_written_dataset_reads_back_row_by_row(shared: Path) -> None:
    robot = source(shared)
    assert isinstance(robot, Source)
    assert len(robot) == robot.info.size == 15
    sample = robot.read(5 + 1 + 3, RNG)
    assert sample.key == "ep000002/frame000003"
    assert sample.fields["task"] == "task 0"
    assert (sample.fields["episode_index"], sample.fields["frame_index"]) == (2, 3)
    assert sample.fields["timestamp"] == pytest.approx(0.3)
    assert sample.fields["observation.state"].tolist() == [2, 3, 0.5]
    assert sample.fields["observation.state"].dtype == np.float32
    assert sample.fields["next.reward"].shape == (1,)
    assert np.abs(sample.fields["observation.images.top"].astype(int) - 92).max() <= 3
    assert (sample.fields["observation.images.still"] == 23).all()


def test_a_window_repeats_the_last_frame_and_marks_it_invalid(shared: Path) -> None:
    robot = source(shared, windows={"action": [-1, 0, 1, 2], "observation.images.still": [0, 3]})
    fields = robot.read(4, RNG).fields
    assert fields["action"][:, 0].tolist() == [3, 4, 4, 4]
    assert fields["action_valid"].tolist() == [True, True, False, False]
    assert fields["observation.images.still"].shape == (2, 8, 6, 3)
    assert fields["observation.images.still_valid"].tolist() == [True, False]
    assert robot.read(0, RNG).fields["action_valid"].tolist() == [False, True, True, True]


def test_chosen_episodes_and_fields_keep_their_numbers(shared: Path) -> None:
    robot = source(shared, episodes=[2], fields=["observation.images.top"])
    sample = robot.read(0, RNG)
    assert (len(robot), sample.key, sample.fields["task"]) == (9, "ep000002/frame000000", "task 0")
    assert "action" not in sample.fields
    assert np.abs(robot.frames("observation.images.top")[:, 0, 0, 0].astype(int) - (80 + 4 * np.arange(9))).max() <= 3
    assert robot.info.fingerprint != source(shared).info.fingerprint


def test_columns_hold_all_rows(shared: Path) -> None:
    robot = source(shared)
    assert robot.column("observation.state").shape == (15, 3)
    assert robot.column("task").tolist()[4:7] == ["task 0", "task 1", "task 0"]
    assert robot.info.extra["fps"] == 10
    assert robot.info.extra["stats"]["action"]["max"] == [8, 0]
    assert np.shape(robot.info.extra["stats"]["observation.images.top"]["mean"]) == (3, 1, 1)


def test_the_source_can_be_pickled(shared: Path) -> None:
    robot = source(shared)
    robot.read(0, RNG)
    again = pickle.loads(pickle.dumps(robot))
    assert np.array_equal(
        again.read(3, RNG).fields["observation.images.top"], robot.read(3, RNG).fields["observation.images.top"]
    )


def _first_pixel(path: Path) -> int:
    return int(source(path).read(14, RNG).fields["observation.images.top"][0, 0, 0])


def test_processes_that_race_for_the_cache_get_the_same_frames(data: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        values = pool.map(_first_pixel, [data] * 4)
    assert len(set(values)) == 1
    assert abs(values[0] - 112) <= 3
    assert not list(data.rglob("*.part"))


def test_missing_numbers_pass_through_as_nan(data: Path) -> None:
    edit(data, "action", lambda column: pa.array([[np.nan, 1.0]] * len(column), column.type))
    assert np.isnan(source(data).read(0, RNG).fields["action"][0])


def test_a_writer_that_is_not_finalized_leaves_no_dataset(tmp_path: Path) -> None:
    writer = LeRobotWriter(tmp_path / "data", 10, {"action": {"dtype": "float32", "shape": (2,)}})
    writer.add_frame({"action": np.zeros(2)}, task="t")
    writer.save_episode()
    with pytest.raises(DataError, match=r"data\.tmp is the rest of a writer"):
        source(tmp_path / "data")
    write(tmp_path / "data")  # the next writer clears the rest away
    assert not (tmp_path / "data.tmp").exists()


def test_the_writer_refuses_what_does_not_fit(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(DataError, match="exists already"):
        LeRobotWriter(shared, 10, FEATURES)
    with pytest.raises(DataError, match="even sizes"):
        LeRobotWriter(tmp_path / "odd", 10, {"v": {"dtype": "video", "shape": (5, 4, 3)}})
    with (
        pytest.raises(DataError, match=r"'action' has shape \(3,\), expected \(2,\)"),
        LeRobotWriter(tmp_path / "wide", 10, {"action": {"dtype": "float32", "shape": (2,)}}) as writer,
    ):
        writer.add_frame({"action": np.zeros(3)}, task="t")
    assert not list(tmp_path.iterdir())


def test_large_episodes_go_to_further_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixtura.data.formats.lerobot_write.MB", 1)
    robot = source(write(tmp_path / "data"))
    assert (tmp_path / "data/data/chunk-000/file-002.parquet").is_file()
    assert (tmp_path / "data/videos/observation.images.top/chunk-000/file-001.mp4").is_file()
    assert robot.column("index").tolist() == list(range(15))
    assert abs(int(robot.frames("observation.images.top")[14, 0, 0, 0]) - 112) <= 3


# -- damage --------------------------------------------------------------------------------------------------------


def edit(path: Path, column: str, change: Any) -> None:
    file = path / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, change(table[column].combine_chunks())), file)


def info(path: Path, **changes: Any) -> None:
    file = path / "meta/info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v2.1"}, "convert_dataset_v21_to_v30"),
        ({"fps": 0}, "fps is 0"),
        ({"total_frames": 16}, "total_frames is 16, meta/episodes has 15"),
        ({"data_path": "../{chunk_index}/{file_index}"}, "leaves the dataset's folder"),
        ({"features": {"action": {"dtype": "float32"}}}, "feature 'action' needs"),
    ],
)
def test_a_wrong_info_file_is_named(data: Path, changes: dict[str, Any], message: str) -> None:
    info(data, **changes)
    with pytest.raises(DataError, match=message) as error:
        source(data)
    assert "info.json" in str(error.value)


def test_broken_json_is_named(data: Path) -> None:
    (data / "meta/info.json").write_text("{")
    with pytest.raises(DataError, match=r"info\.json: not valid JSON"):
        source(data)


def test_missing_files_are_named(data: Path) -> None:
    (data / "videos/observation.images.top/chunk-000/file-000.mp4").unlink()
    with pytest.raises(DataError, match=r"file-000\.mp4: no such file"):
        source(data)


def test_a_parquet_file_without_its_end_is_named(data: Path) -> None:
    file = data / "data/chunk-000/file-000.parquet"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(DataError, match="isn't finalized"):
        source(data).column("action")


def test_a_missing_column_is_named(data: Path) -> None:
    file = data / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["action"]), file)
    with pytest.raises(DataError, match="no column 'action'"):
        source(data).read(0, RNG)


def test_lost_rows_are_noticed(data: Path) -> None:
    file = data / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).slice(0, 14), file)
    with pytest.raises(DataError, match="episode 2 has 8 rows in a piece, meta/episodes says 9"):
        source(data).read(0, RNG)


@pytest.mark.parametrize("frames", [14, 16])
def test_a_video_of_another_length_is_noticed(data: Path, frames: int) -> None:
    """One frame less is lost at the end; one more in the middle shifts the rest against the rows."""
    file = data / "videos/observation.images.top/chunk-000/file-000.mp4"
    file.unlink()
    with VideoWriter(file, 10 if frames < 15 else 20, (32, 48)) as video:
        for k in range(frames if frames < 15 else 30):
            video.append(grey(32, 48, k))
    with pytest.raises(DataError, match="video and table don't match"):
        source(data).frames("observation.images.top")


def test_a_cut_video_is_named(data: Path) -> None:
    file = data / "videos/observation.images.top/chunk-000/file-000.mp4"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"file-000\.mp4: .*(can't be decoded|don't match)"):
        source(data).frames("observation.images.top")


def test_unknown_fields_and_episodes_are_named(shared: Path) -> None:
    with pytest.raises(DataError, match="`windows` names 'actoin'"):
        source(shared, windows={"actoin": [0]})
    with pytest.raises(DataError, match="from 0 to 2"):
        source(shared, episodes=[3])


# -- video files ---------------------------------------------------------------------------------------------------


def test_a_span_of_a_video_is_counted(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 10, (16, 16)) as video:
        for k in range(20):
            video.append(grey(16, 16, 10 * k))
    frames = read_span(tmp_path / "a.mp4", 0.5, 1.2, 10, expected=7)
    assert np.abs(frames[:, 0, 0, 0].astype(int) - 10 * np.arange(5, 12)).max() <= 3
    assert probe(tmp_path / "a.mp4")["frames"] == 20
    with pytest.raises(DataError, match="5 frames in"):
        read_span(tmp_path / "a.mp4", 1.5, 3.0, 10, expected=15)
