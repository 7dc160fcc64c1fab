"""Clips as frames at a constant rate."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mixtura.errors import DataError
from mixtura_live_portrait.faces.clips import at_rate, open_clip
from mixtura_live_portrait.faces.crop import Frame
from mixtura_live_portrait.faces.examples import example


def grey(level: int, height: int = 48, width: int = 64) -> Frame:
    return np.full((height, width, 3), level, np.uint8)


def written(path: Path, times: list[float], frames: list[Frame] | None = None, rate: int = 25) -> Path:
    """A video with one frame at each time (seconds), by default ever brighter ones: 20, 30, 40, …"""
    frames = frames or [grey(20 + 10 * number) for number in range(len(times))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "1", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, frame in zip(times, frames, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def levels(frames: Iterator[Frame] | list[Frame]) -> list[int]:
    return [round((int(frame[frame.shape[0] // 2, frame.shape[1] // 2, 1]) - 20) / 10) for frame in frames]


def test_a_clip_of_constant_rate_comes_frame_by_frame(tmp_path: Path) -> None:
    clip = open_clip(written(tmp_path / "a.mp4", [number / 25 for number in range(8)]))
    assert clip.fps == pytest.approx(25)
    assert levels(iter(clip)) == list(range(8))
    assert levels(iter(clip)) == list(range(8)), "each iteration starts anew"


def test_the_example_has_its_120_frames_with_square_pixels() -> None:
    clip = open_clip(example("clip"))
    frames = list(clip)
    assert len(frames) == clip.frames == 120
    assert clip.fps == pytest.approx(30000 / 1001)
    assert frames[0].shape == (144, 192, 3)  # 176 pixels, each 128/117 wide


def test_the_rate_can_be_chosen() -> None:
    clip = open_clip(example("clip"), fps=10)
    assert (clip.fps, clip.frames, len(list(clip))) == (10, 40, 40)


def test_frames_at_irregular_times_are_shown_when_they_were(tmp_path: Path) -> None:
    clip = open_clip(written(tmp_path / "a.mp4", [0.0, 0.04, 0.4, 0.44, 0.48]), fps=25)
    assert levels(iter(clip)) == [0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 4]


@pytest.mark.parametrize(
    ("times", "fps", "expected"),
    [
        ([0.0, 0.1, 0.2], 10, [0, 1, 2]),
        ([0.0, 0.1, 0.2, 0.3], 5, [0, 2]),
        ([0.0, 0.1], 30, [0, 0, 1, 1, 1, 1]),
        ([0.0, 0.01, 0.02, 0.5], 10, [0, 2, 2, 3, 3, 3, 3, 3, 3, 3]),
        ([0.0], 25, [0]),
        ([0.0, 0.0, 0.0], 25, [2]),
        ([], 25, []),
    ],
)
def test_each_tick_shows_the_nearest_frame(times: list[float], fps: float, expected: list[int]) -> None:
    frames = at_rate(iter([(time, grey(20 + 10 * number)) for number, time in enumerate(times)]), fps)
    assert levels(frames) == expected


def test_a_video_of_one_frame_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    clip = open_clip(written(tmp_path / "one.mp4", [0.0]))
    assert (clip.fps, clip.frames) == (25, 1)
    assert len(list(clip)) == 1


def test_a_picture_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    Image.fromarray(grey(90)).save(tmp_path / "a.PNG")
    clip = open_clip(tmp_path / "a.PNG")
    assert (clip.is_picture, clip.fps, clip.frames) == (True, 25, 1)
    assert [frame.shape for frame in clip] == [(48, 64, 3)]


def test_an_animation_is_a_clip(tmp_path: Path) -> None:
    pictures = [Image.fromarray(grey(20 + 100 * number)) for number in range(2)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=40)
    assert levels(iter(open_clip(tmp_path / "a.gif", fps=25))) == [0, 10]


def test_large_clips_are_reduced_to_even_sides(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp4", [0.0, 0.04], [grey(20, 100, 150), grey(30, 100, 150)])
    assert {frame.shape for frame in open_clip(path, longest=64)} == {(42, 64, 3)}


IDENTITY = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
"""What an mp4 track says of how it is shown."""


def test_a_phones_rotation_is_applied(tmp_path: Path) -> None:
    picture = grey(20)
    picture[:24, :32] = 220  # bright upper left corner
    data = written(tmp_path / "a.mp4", [0.0, 0.04], [picture, picture]).read_bytes()
    place = data.index(IDENTITY, data.index(b"tkhd"))
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data[:place] + clockwise + data[place + len(clockwise) :])
    frame = next(iter(open_clip(tmp_path / "turned.mp4")))
    assert frame.shape == (64, 48, 3)
    assert frame[5, -5].min() > 180, "shown clockwise, the corner is at the upper right"
    assert frame[5, 5].max() < 60


def test_only_one_frame_is_held_at_a_time(tmp_path: Path) -> None:
    frames = iter(open_clip(example("clip")))
    first, second = next(frames), next(frames)
    assert not np.shares_memory(first, second)
    frames.close()  # type: ignore[attr-defined]  # a generator: closes the file


@pytest.mark.parametrize("name", ["gone.mp4", "gone.png", "text.mp4", "sound.wav", "cut.mp4"])
def test_what_cant_be_read_is_one_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    data = written(tmp_path / "whole.mp4", [number / 25 for number in range(20)]).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "sound.wav").write_bytes(
        b"RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\x08\0\0\0" + bytes(8)
    )
    with pytest.raises(DataError, match=name):
        list(open_clip(tmp_path / name))


def test_senseless_rates_are_refused() -> None:
    with pytest.raises(DataError, match="0 frames a second"):
        open_clip(example("clip"), fps=0)
