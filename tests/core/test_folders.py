"""Folders of images and videos as sources."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixtura.data.formats.folders import ClipFolder, ClipFolderConfig, ImageFolder, ImageFolderConfig
from mixtura.data.formats.video import VideoWriter
from mixtura.data.source import Source
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng

RNG = KeyedRng(0)


def image(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)


def images(folder: Path) -> ImageFolder:
    return ImageFolder(ImageFolderConfig(type="images", path="."), name="photos", root=folder)


def clips(folder: Path, frames: int = 4, **options: Any) -> ClipFolder:
    return ClipFolder(ClipFolderConfig(type="clips", path=".", frames=frames, **options), name="clips", root=folder)


def movie(path: Path, frames: int, fps: int = 10) -> None:
    with VideoWriter(path, fps, (16, 16)) as video:
        for k in range(frames):
            video.append(np.full((16, 16, 3), 10 * k % 250, np.uint8))


def test_sub_folders_are_labels(tmp_path: Path) -> None:
    image(tmp_path / "dog/b.png", 2)
    image(tmp_path / "cat/deep/a.png", 1)
    (tmp_path / "notes.txt").write_text("not an image")
    source = images(tmp_path)
    assert isinstance(source, Source)
    assert source.info.extra["labels"] == ["cat", "dog"]
    fields = source.read(0, RNG).fields
    assert (fields["label"], fields["label_name"], fields["path"], int(fields["image"][0, 0, 0])) == (
        0,
        "cat",
        "cat/deep/a.png",
        1,
    )


def test_images_beside_each_other_have_no_label(tmp_path: Path) -> None:
    image(tmp_path / "a.png", 1)
    image(tmp_path / "dog/b.png", 2)
    assert set(images(tmp_path).read(0, RNG).fields) == {"image", "path"}


def test_a_damaged_image_is_a_bad_sample(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"junk")
    with pytest.raises(BadSample, match=r"a\.png"):
        images(tmp_path).read(0, RNG)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image file below it"):
        images(tmp_path)


def test_videos_are_cut_into_windows(tmp_path: Path) -> None:
    movie(tmp_path / "a.mp4", 12)
    movie(tmp_path / "b.mp4", 3)
    movie(tmp_path / "sub/c.mp4", 20)
    source = clips(tmp_path, frames=3, stride=2, every=5)
    assert source.info.extra == {"videos": 3, "too_short": 1}
    starts = [(s.fields["path"], s.fields["start"]) for s in (source.read(k, RNG) for k in range(len(source)))]
    assert starts == [("a.mp4", 0), ("a.mp4", 5), ("sub/c.mp4", 0), ("sub/c.mp4", 5), ("sub/c.mp4", 10), ("sub/c.mp4", 15)]
    sample = source.read(4, RNG)
    assert np.abs(sample.fields["video"][:, 0, 0, 0].astype(int) - [100, 120, 140]).max() <= 3
    assert (sample.fields["fps"], sample.fields["video"].shape) == (5.0, (3, 16, 16, 3))
    assert pickle.loads(pickle.dumps(source)).read(4, RNG).key == sample.key


def test_windows_touch_unless_told_otherwise(tmp_path: Path) -> None:
    movie(tmp_path / "a.mp4", 12)
    assert len(clips(tmp_path, frames=4)) == 3
    assert len(clips(tmp_path, frames=1)) == 12


def test_videos_are_probed_once_and_again_when_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    movie(tmp_path / "a.mp4", 12)
    before = clips(tmp_path).info
    with monkeypatch.context() as patch:
        patch.setattr("mixtura.data.formats.folders.probe", lambda *_: pytest.fail("probed again"))
        assert clips(tmp_path).info == before
    movie(tmp_path / "a.mp4", 20)
    assert len(clips(tmp_path)) == 5


def test_a_cut_video_is_a_bad_sample(tmp_path: Path) -> None:
    movie(tmp_path / "a.mp4", 40)
    file = tmp_path / "a.mp4"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(BadSample, match=r"a\.mp4"):
        clips(tmp_path).read(9, RNG)


def test_windows_longer_than_every_video_are_an_error(tmp_path: Path) -> None:
    movie(tmp_path / "a.mp4", 5)
    with pytest.raises(DataError, match="takes 11 frames, the longest video has 5"):
        clips(tmp_path, frames=3, stride=5)
