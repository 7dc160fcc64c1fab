"""The whole way with the real portrait, the real clip and the default detector, and tiny untrained networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixtura_live_portrait.animate.animator import Animator
from mixtura_live_portrait.animate.files import infer_files
from mixtura_live_portrait.animate.looking import look
from mixtura_live_portrait.animate.portrait import picture_portrait
from mixtura_live_portrait.animate.stream import Stream
from mixtura_live_portrait.faces.clips import open_clip
from mixtura_live_portrait.faces.crop import Frame
from mixtura_live_portrait.faces.detector import make
from mixtura_live_portrait.faces.examples import example
from mixtura_live_portrait.faces.pictures import read_picture
from mixtura_live_portrait.nets.sizes import TINY
from tests.plugins.live_portrait.animate_tools import TinyEngine

ENGINE = TinyEngine(TINY)
SYSTEM: Any = ENGINE.networks
FACE = (170, 60, 290, 190)
"""Where the face of the portrait is: left, top, right, bottom."""


def infer(out: Path, *inputs: Path, **settings: Any) -> dict[str, Path]:
    return {path.name: path for path in infer_files(SYSTEM, inputs, out, settings, lambda line: None)}


def inside(frame: Frame, box: tuple[int, int, int, int] = FACE) -> Frame:
    left, top, right, bottom = box
    return frame[top:bottom, left:right]


def test_the_portrait_follows_the_talking_head(tmp_path: Path) -> None:
    files = infer(tmp_path / "out", example("portrait"), example("clip"), max_frames=3)
    frames = list(open_clip(files["animated.mp4"]))
    assert len(frames) == 3
    assert frames[0].shape == (512, 512, 3)
    source = read_picture(example("portrait"))
    changes = [
        np.abs(part.astype(int) - own).mean()
        for part, own in ((inside(frames[0]), inside(source)), (frames[0][300:], source[300:]))
    ]
    assert changes[0] > 20 > 5 > changes[1], "the face is painted anew, the rest is what it was"


def test_the_talking_head_follows_the_portrait(tmp_path: Path) -> None:
    files = infer(tmp_path / "out", example("clip"), example("portrait"), max_frames=3, region="exp")
    assert len(list(open_clip(files["animated.mp4"]))) == 3


def test_the_webcam_shows_the_portrait() -> None:
    source, detector = read_picture(example("portrait")), make(search="first")
    portrait = picture_portrait(ENGINE, source, look([source], detector))
    stream = Stream(Animator(ENGINE), portrait, source, detector)
    for number, frame in zip(range(3), open_clip(example("clip")), strict=False):
        assert stream.frame(frame).shape == source.shape, number
        assert stream.has_face


@pytest.mark.slow
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_photo_that_lies_on_its_side_is_animated_where_it_lies(tmp_path: Path, turns: int) -> None:
    source = read_picture(example("portrait"))
    Image.fromarray(np.rot90(source, turns)).save(tmp_path / "turned.png")
    found = []
    for path in (example("portrait"), tmp_path / "turned.png"):
        files = infer(tmp_path / path.stem, path, edit={"yaw": 10}, comparison=False)
        found.append(np.array(Image.open(files["animated.png"])))
    back = np.rot90(found[1], -turns)
    assert np.abs(inside(back).astype(int) - inside(found[0])).mean() < 10
    assert np.abs(inside(back).astype(int) - inside(source)).mean() > 20


@pytest.mark.slow
def test_a_photo_that_the_camera_turned_is_put_upright(tmp_path: Path) -> None:
    shown = Image.open(example("portrait"))
    exif = shown.getexif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    shown.rotate(90, expand=True).save(tmp_path / "phone.png", exif=exif)
    files = infer(tmp_path / "out", tmp_path / "phone.png", edit={"yaw": 10}, comparison=False)
    plain = infer(tmp_path / "plain", example("portrait"), edit={"yaw": 10}, comparison=False)
    assert files["animated.png"].read_bytes() == plain["animated.png"].read_bytes()
