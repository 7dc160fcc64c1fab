"""webdataset shards: indexed reading agrees with webdataset's own, and damage is named."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from mixtura.data import tar_index
from mixtura.data.formats.shard_stream import ShardStream
from mixtura.data.formats.video import VideoWriter
from mixtura.data.formats.webdataset import WebdatasetConfig, WebdatasetSource, write_shards
from mixtura.data.source import Sample, Source
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng

RNG = KeyedRng(0)


def plain(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "__key__": f"dir/{k:04d}",
            "png": rng.integers(0, 255, (6, 8, 3), dtype=np.uint8),
            "json": {"k": k},
            "txt": f"text {k}",
            "cls": k % 3,
            "action.npy": rng.normal(size=(2, 3)).astype(np.float32),
        }
        for k in range(count)
    ]


def source(path: Any, **options: Any) -> WebdatasetSource:
    return WebdatasetSource(WebdatasetConfig(type="webdataset", path=path, **options), name="shards", root=Path("/"))


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> str:
    write_shards(plain(25), str(tmp_path / "s-%03d.tar"), per_shard=10)
    return str(tmp_path / "s-{000..002}.tar")


def test_samples_equal_those_of_webdataset(shards: str) -> None:
    ours = source(shards)
    theirs = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    assert isinstance(ours, Source)
    assert len(ours) == len(theirs) == 25
    for k, record in enumerate(theirs):
        fields = ours.read(k, RNG).fields
        assert set(fields) == {name for name in record if not name.startswith("__")}
        assert np.array_equal(fields["png"], record["png"])
        assert np.array_equal(fields["action.npy"], record["action.npy"])
        assert (fields["json"], fields["txt"], fields["cls"]) == (record["json"], record["txt"], record["cls"])
    assert ours.read(13, RNG).key == "s-001.tar/dir/0013"


def test_any_order_and_a_pickled_source_give_the_same_samples(shards: str) -> None:
    ours = source(shards)
    again = pickle.loads(pickle.dumps(ours))
    for k in (24, 0, 12, 3):
        assert again.read(k, RNG).fields["json"] == {"k": k}
    ours.close()
    assert ours.read(7, RNG).fields["txt"] == "text 7"


def test_only_the_wanted_members_are_read(shards: str) -> None:
    assert set(source(shards, fields=["txt", "cls"]).read(0, RNG).fields) == {"txt", "cls"}
    with pytest.raises(DataError, match=r"no member 'jpg' in the shards; they hold action\.npy, cls, json, png, txt"):
        source(shards, fields=["jpg"])


def test_fields_of_any_kind_survive_a_shard(tmp_path: Path) -> None:
    fields = {
        "observation.state": np.arange(3, dtype=np.float32),
        "image": np.full((4, 4, 3), 7, np.uint8),
        "clip": np.zeros((2, 4, 4, 3), np.uint8),
        "task": "öffne die Tür",
        "index": 5,
        "done": True,
        "turns": [{"from": "human", "value": "?"}],
        "views": [np.full((2, 2, 3), k, np.uint8) for k in range(11)],
    }
    write_shards([Sample(fields, key="ep/0")], str(tmp_path / "a-%d.tar"))
    back = source(str(tmp_path / "a-0.tar"), names="fields").read(0, RNG).fields
    assert set(back) == set(fields)
    for name, value in fields.items():
        assert np.array_equal(np.stack(back[name]), np.stack(value)) if name == "views" else np.array_equal(back[name], value)


def test_videos_come_as_frames_or_bytes(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", 10, (16, 16)) as video:
        for _ in range(5):
            video.append(np.full((16, 16, 3), 99, np.uint8))
    data = (tmp_path / "v.mp4").read_bytes()
    path = str(tar(tmp_path / "v.tar", {"a.mp4": data}))
    assert source(path).read(0, RNG).fields["mp4"].shape == (5, 16, 16, 3)
    assert source(path, videos="bytes").read(0, RNG).fields["mp4"] == data


def test_equal_samples_give_equal_files(tmp_path: Path) -> None:
    first = write_shards(plain(3), str(tmp_path / "a-%d.tar"))
    second = write_shards(plain(3), str(tmp_path / "b-%d.tar"))
    assert first[0].read_bytes() == second[0].read_bytes()


def test_a_writer_that_fails_leaves_no_shard(tmp_path: Path) -> None:
    def samples() -> Any:
        yield from plain(2)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_shards(samples(), str(tmp_path / "a-%d.tar"))
    assert list(tmp_path.iterdir()) == []


# -- the index -----------------------------------------------------------------------------------------------------


def test_the_index_is_stored_and_made_anew_when_the_shard_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_shards(plain(4), str(tmp_path / "a-%d.tar"))[0]
    before = source(str(path)).info
    assert (tmp_path / "a-0.tar.idx").is_file()
    monkeypatch.setattr(tar_index, "scan", lambda *_: pytest.fail("scanned although the index fits"))
    assert source(str(path)).info == before
    monkeypatch.undo()
    write_shards(plain(5), str(tmp_path / "a-%d.tar"))
    assert len(source(str(path))) == 5
    assert source(str(path)).info.fingerprint != before.fingerprint


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    path = write_shards(plain(4), str(tmp_path / "a-%d.tar"))[0]
    for junk in (b"", b"junk", b"PK\x03\x04junk"):
        (tmp_path / "a-0.tar.idx").write_bytes(junk)
        assert len(source(str(path))) == 4


def test_the_index_can_lie_elsewhere(tmp_path: Path) -> None:
    path = write_shards(plain(4), str(tmp_path / "a-%d.tar"))[0]
    source(str(path), cache=str(tmp_path / "cache"))
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".idx"] == []
    assert len(list((tmp_path / "cache").glob("*.idx"))) == 1


def test_members_are_grouped_as_webdataset_groups_them(tmp_path: Path) -> None:
    members = {
        "a/b.c/x.JPG": b"1",
        "a/b.c/x.seg.png": b"2",
        "__meta__/z.txt": b"m",
        "noending": b"n",
        ".hidden": b"h",
        "y.txt": b"3",
        "x.txt": b"4",
    }
    path = tar(tmp_path / "g.tar", members)
    index = tar_index.open_index(path)
    theirs = [{k for k in r if not k.startswith("__")} for r in webdataset.WebDataset(str(path), shardshuffle=False)]
    ours = [{index.extensions[k] for k in index.kind[a:b]} for a, b in itertools.pairwise(index.first)]
    assert ours == theirs
    assert [index.key(s) for s in range(len(index))] == ["a/b.c/x", "y", "x"]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_layout_is_indexed(tmp_path: Path, layout: int) -> None:
    names = [
        "a.txt",
        "d/b.txt",
        f"{'p' * 90}/{'q' * 60}.txt",
        *([] if layout == tarfile.USTAR_FORMAT else [f"{'r' * 300}.txt", "ü" * 60 + ".txt"]),
        "z.txt",
    ]
    with tarfile.open(tmp_path / "t.tar", "w", format=layout) as archive:
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for k, name in enumerate(names):
            entry = tarfile.TarInfo(name)
            entry.size = len(str(k) * 700)
            archive.addfile(entry, io.BytesIO(str(k).encode() * 700))
    shard = source(str(tmp_path / "t.tar"))
    assert [shard.read(k, RNG).key for k in range(len(shard))] == [f"t.tar/{name[:-4]}" for name in names]
    assert [shard.read(k, RNG).fields["txt"] for k in range(len(shard))] == [str(k) * 700 for k in range(len(names))]


# -- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [700, 1024, 2000, 10240])
def test_a_cut_shard_is_named_with_the_byte(tmp_path: Path, cut: int) -> None:
    path = write_shards(plain(9), str(tmp_path / "a-%d.tar"))[0]
    os.truncate(path, path.stat().st_size // 2 // 512 * 512 + cut)
    with pytest.raises(DataError, match=r"a-0\.tar: is (cut off|damaged).* byte \d+"):
        source(str(path))


def test_a_compressed_shard_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    with pytest.raises(DataError, match="compressed"):
        source(str(tmp_path / "a.tar"))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = str(tar(tmp_path / "p.tar", {"a.pkl": pickle.dumps(1), "a.txt": b"x"}))
    with pytest.raises(DataError, match="pickles, which can run code"):
        source(path)
    assert source(path, fields=["txt"]).read(0, RNG).fields == {"txt": "x"}
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BadSample, match=r"a\.npy can't be decoded"):
        source(str(tar(tmp_path / "n.tar", {"a.npy": buffer.getvalue()}))).read(0, RNG)
    with pytest.raises(DataError, match="would be a pickle"):
        write_shards([{"__key__": "a", "x.pkl": {}}], str(tmp_path / "w-%d.tar"))


def test_a_damaged_member_is_a_bad_sample(tmp_path: Path) -> None:
    path = tar(tmp_path / "b.tar", {"a.png": b"\x89PNG junk", "b.json": b"{}"})
    with pytest.raises(BadSample, match=r"b\.tar: a\.png can't be decoded"):
        source(str(path)).read(0, RNG)
    assert source(str(path)).read(1, RNG).fields == {"json": {}}


def test_paths_that_match_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"path 's-\*\.tar': no such file"):
        WebdatasetSource(WebdatasetConfig(type="webdataset", path="s-*.tar"), name="x", root=tmp_path)
    with pytest.raises(DataError, match="only local files"):
        source("pipe:echo hello")


# -- streams -------------------------------------------------------------------------------------------------------


def take(stream: ShardStream, count: int) -> list[int]:
    return [sample.fields["json"]["k"] for sample in itertools.islice(iter(stream), count)]


def test_a_stream_goes_on_where_it_was(shards: str) -> None:
    straight = take(ShardStream(shards, seed=3), 60)
    for stop in (0, 7, 10, 25, 31):
        first = ShardStream(shards, seed=3)
        begin = take(first, stop)
        second = ShardStream(shards, seed=3)
        second.load_state_dict(first.state_dict())
        assert begin + take(second, 60 - stop) == straight
    assert sorted(straight[:25]) == sorted(straight[25:50]) == list(range(25))


def test_workers_of_a_stream_share_the_shards(shards: str) -> None:
    parts = [ShardStream(shards, seed=1, worker=w, workers=3) for w in range(3)]
    sizes = [{0: 10, 1: 10, 2: 5}[int(part._order()[0][-5])] for part in parts]
    assert sorted(k for part, size in zip(parts, sizes, strict=True) for k in take(part, size)) == list(range(25))
    with pytest.raises(DataError, match="a shard of its own"):
        ShardStream(shards, seed=1, worker=0, workers=4)
    with pytest.raises(DataError, match="only with the same workers"):
        ShardStream(shards, seed=1, worker=0, workers=2).load_state_dict(parts[0].state_dict())


def test_a_stream_runs_no_commands(tmp_path: Path) -> None:
    for url in (f"pipe:touch {tmp_path}/x", f"http://host/a';touch {tmp_path}/x;'", "http://host/$(id)", "https://host/a`id`"):
        with pytest.raises(DataError, match="commands are never run"):
            ShardStream([url], seed=0)


def test_a_stream_names_damage(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"a.json": b"{", "b.json": b'{"k": 1}'})
    stream = ShardStream(str(path), seed=0)
    assert take(stream, 1) == [1]
    assert "a.json" in stream.bad[0]
    os.truncate(path, 700)
    with pytest.raises(DataError, match="breaks off after 0 samples"):
        take(ShardStream(str(path), seed=0), 1)
