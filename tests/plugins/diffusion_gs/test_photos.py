"""A user's picture becomes the condition view: what is read, what is refused in one line, and how an object is framed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixtura.errors import DataError
from mixtura_diffusion_gs.use import pictures
from mixtura_diffusion_gs.use.pictures import Rgba, framed, load_picture, squared


def rectangle(height: int = 60, width: int = 80, top: int = 10, bottom: int = 40, left: int = 20, right: int = 60) -> Rgba:
    """Red within the given rows and columns, transparent outside of them."""
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[top:bottom, left:right] = (200, 30, 30, 255)
    return rgba


def saved(path: Path, values: Any, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGB"])
def test_pictures_of_any_mode_are_read(mode: str, tmp_path: Path) -> None:
    path = saved(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"), noise(20, 30, 3), mode)
    rgba = load_picture(path)
    assert (rgba.shape, rgba.dtype) == ((20, 30, 4), np.uint8)
    assert (rgba[..., 3] == 255).all()


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(np.uint16)
    assert np.abs(load_picture(saved(tmp_path / "x.png", values))[..., 0] - values / 257.0).max() < 0.51


def test_a_camera_held_upright_is_honoured(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert load_picture(saved(tmp_path / "x.jpg", noise(20, 30, 3), exif=exif)).shape == (30, 20, 4)


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    assert load_picture(saved(tmp_path / "x.png", noise(30, 4096, 3))).shape == (15, 2048, 4)


def cut_short(path: Path) -> Path:
    path.write_bytes(saved(path, noise(64, 64, 3)).read_bytes()[:2000])
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


STENCIL = np.zeros((32, 32, 4), np.uint8)
STENCIL[8:24, 8:24, 3] = 255


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p, "no such file"),
        (lambda p: written(p, b"hello"), "not a picture that can be read"),
        (cut_short, "damaged or incomplete"),
        (lambda p: saved(p, noise(8, 40, 3)), "40 x 8 pixels are too few; each side needs 16"),
        (lambda p: saved(p, np.zeros((20, 20, 4), np.uint8)), "all of the picture is transparent"),
        (lambda p: saved(p, STENCIL), "one colour with a shape in its alpha"),
    ],
)
def test_what_is_no_good_picture_is_refused_in_one_line(make: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_picture(make(tmp_path / "x.png"))
    assert str(caught.value).startswith(str(tmp_path / "x.png"))
    assert "\n" not in str(caught.value)


def test_huge_pictures_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LARGEST", 1000)
    with pytest.raises(DataError, match="40 x 40 pixels; at most"):
        load_picture(saved(tmp_path / "x.png", noise(40, 40, 3)))


def test_an_object_fills_its_share_of_the_frame_in_the_middle() -> None:
    shown = framed(rectangle(), 64, 0.75)
    rows, columns = (np.flatnonzero((shown.alpha[0] > 0.5).any(axis).numpy()) for axis in (1, 0))
    assert (columns[0], columns[-1]) == (8, 55)  # 48 of 64, for it is wider than high
    assert (rows[0], rows[-1]) == (14, 49)
    assert shown.image[:, 0, 0].tolist() == [1, 1, 1]
    assert shown.image[:, 32, 32].tolist() == pytest.approx([200 / 255, 30 / 255, 30 / 255])


def test_hidden_colours_do_not_bleed_into_the_edge() -> None:
    rgba = rectangle()
    rgba[rgba[..., 3] == 0] = (0, 255, 0, 0)
    shown = framed(rgba, 64)
    assert (shown.image[1] <= shown.image[0] + 1e-6).all()  # green nowhere


@pytest.mark.parametrize(
    ("rgba", "said"),
    [(rectangle(left=0), "touches the left edge"), (rectangle(top=20, bottom=30, left=30, right=38), "only 10 pixels long")],
)
def test_doubtful_objects_are_told(rgba: Rgba, said: str) -> None:
    told: list[str] = []
    framed(rgba, 64, say=told.append)
    assert any(said in line for line in told)


def test_a_good_object_is_not_commented_on() -> None:
    told: list[str] = []
    framed(rectangle(), 40, say=told.append)
    assert told == []


def test_the_middle_of_a_scene_is_its_condition() -> None:
    rgba = np.zeros((20, 60, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[:, 20:40, 2] = 255
    shown = squared(rgba, 10)
    assert shown.image[:, 5, 5].tolist() == [0, 0, 1]
    assert shown.image.shape == (3, 10, 10)
