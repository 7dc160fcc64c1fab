"""Users' pictures: any mode that Pillow reads, clear refusals, backgrounds removed, objects centred on white."""

from __future__ import annotations

import struct
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixtura.errors import ConfigError, DataError
from mixtura_diffusion_gs.use.pictures import LARGEST, LONGEST, Rgba, framed, load_picture, squared
from mixtura_diffusion_gs.use.removal import by_border, foreground

RED, BLUE = (200, 40, 30), (30, 60, 200)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    """The path, after an image was written there."""
    image.save(path, **options)
    return path


def disc(size: int = 96, colour: tuple[int, int, int] = RED, radius: float = 0.3, centre: float = 0.5) -> Rgba:
    """A shaded disc with a soft alpha, transparent around it."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    distance = np.hypot(x - centre, y - 0.5)
    alpha = np.clip((radius - distance) * size + 0.5, 0, 1)
    shade = 1 - 0.3 * distance / radius
    return np.dstack([np.clip(np.array(colour) * shade[..., None], 0, 255), alpha * 255]).astype(np.uint8)


def shown_on(rgba: Rgba, background: np.ndarray) -> Rgba:
    """Composited on a background (H, W, 3) or a colour, opaque."""
    alpha = rgba[..., 3:] / 255
    colours = rgba[..., :3] * alpha + background * (1 - alpha)
    return np.dstack([colours, np.full(rgba.shape[:2], 255)]).round().clip(0, 255).astype(np.uint8)


def overlap(one: Rgba, other: Rgba) -> float:
    """Intersection over union of two alphas."""
    a, b = one[..., 3] / 255.0, other[..., 3] / 255.0
    return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())


# -- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "YCbCr"])
def test_pictures_of_every_mode_become_rgba(mode: str, tmp_path: Path) -> None:
    source = Image.fromarray(disc()).convert(mode)
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    rgba = load_picture(saved(tmp_path / f"picture.{suffix}", source))
    assert rgba.shape == (96, 96, 4)
    assert rgba.dtype == np.uint8
    assert (rgba[0, 0, 3] == 0) == (mode in ("RGBA", "LA", "P"))


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    rgba = load_picture(saved(tmp_path / "deep.png", Image.fromarray(values)))
    assert np.abs(rgba[..., 0].astype(float) - values / 257).max() <= 1
    assert (rgba[..., 3] == 255).all()


def test_a_palette_with_a_transparent_colour_keeps_it(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 1)
    image.putpalette([255, 0, 255, *RED, *BLUE])
    image.paste(0, (0, 0, 32, 8))
    image.paste(2, (0, 24, 32, 32))
    rgba = load_picture(saved(tmp_path / "p.gif", image, transparency=0))
    assert (rgba[:8, :, 3] == 0).all()
    assert (rgba[8:24] == (*RED, 255)).all()


def test_the_camera_held_upright_is_understood(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 32), RED)
    image.paste(BLUE, (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    rgba = load_picture(saved(tmp_path / "photo.jpg", image, exif=exif, quality=95))
    assert rgba.shape == (64, 32, 4)
    assert rgba[8, 16, 2] > 150 > rgba[56, 16, 2]


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    rgba = load_picture(saved(tmp_path / "wide.png", Image.new("RGB", (3000, 100), RED)))
    assert rgba.shape[1] == LONGEST


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is large and holds nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8001, 60000])
def test_pictures_that_would_fill_the_memory_are_refused_unread(side: int, tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(side, side))
    assert side * side > LARGEST
    with pytest.raises(DataError, match="bomb.png: .*pixels; at most 64 million"):
        load_picture(tmp_path / "bomb.png")


def test_tiny_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="200 x 12 pixels are too few"):
        load_picture(saved(tmp_path / "line.png", Image.new("RGB", (200, 12))))


def test_damaged_files_and_no_pictures_are_told(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.png", Image.fromarray(disc()))
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "text.png").write_text("no picture")
    for name, reason in (("half.png", "damaged"), ("text.png", "not a picture"), ("none.png", "no such file")):
        with pytest.raises(DataError, match=f"{name}: .*{reason}"):
            load_picture(tmp_path / name)


def test_a_stencil_is_refused_and_so_is_nothing(tmp_path: Path) -> None:
    stencil = disc()
    stencil[..., :3] = 0
    with pytest.raises(DataError, match="stencil, one colour"):
        load_picture(saved(tmp_path / "icon.png", Image.fromarray(stencil)))
    with pytest.raises(DataError, match="transparent"):
        load_picture(saved(tmp_path / "clear.png", Image.new("RGBA", (32, 32))))


def test_grey_values_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="grey values"):
        load_picture(saved(tmp_path / "heights.tif", Image.fromarray(np.full((32, 32), np.nan, np.float32))))


# -- backgrounds --------------------------------------------------------------------------------------------------


def backdrop(kind: str, size: int = 96) -> np.ndarray:
    """A background (H, W, 3): white, shaded grey with noise, or green."""
    y, x = np.mgrid[:size, :size] / size
    if kind == "white":
        return np.full((size, size, 3), 255.0)
    if kind == "green":
        return np.stack([60 + 20 * x, 180 - 40 * y, 70 + 0 * x], -1)
    noise = np.random.default_rng(0).normal(0, 3, (size, size, 3))
    return np.stack([170 + 50 * y - 30 * x, 175 + 45 * y, 180 - 30 * x], -1) + noise


@pytest.mark.parametrize("kind", ["white", "grey", "green"])
def test_plain_backgrounds_are_removed_without_any_weights(kind: str) -> None:
    true = disc()
    found = foreground(shown_on(true, backdrop(kind)), "auto")
    assert overlap(found, true) > 0.95
    inside = (true[..., 3] > 0) & (found[..., 3] > 60)
    assert np.abs(found[inside][:, :3].astype(float) - true[inside][:, :3]).mean() < 4


def test_soft_shadows_belong_to_the_background() -> None:
    true, ground = disc(), backdrop("grey")
    y, x = np.mgrid[:96, :96] / 96
    shadow = 1 - 0.1 * np.exp(-(((x - 0.6) / 0.25) ** 2 + ((y - 0.8) / 0.15) ** 2))
    assert overlap(by_border(shown_on(true, ground * shadow[..., None])), true) > 0.93


def test_gaps_count_as_background_where_it_is_vivid() -> None:
    ring = disc()
    ring[disc(radius=0.15)[..., 3] > 127] = 0
    assert overlap(by_border(shown_on(ring, backdrop("green"))), ring) > 0.9
    assert overlap(by_border(shown_on(ring, backdrop("white"))), disc()) > 0.9


def test_alpha_that_tells_something_is_used() -> None:
    told: list[str] = []
    assert (foreground(disc(), "auto", told.append) == disc()).all()
    assert told == ["background removed by: alpha"]


def test_an_object_in_front_of_a_busy_background_needs_help() -> None:
    busy = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(float)
    with pytest.raises(DataError, match="chair.png: no transparency.*remover"):
        foreground(shown_on(disc(), busy), "auto", name="chair.png")
    with pytest.raises(DataError, match="no plain colour"):
        foreground(shown_on(disc(), busy), "border")


def test_a_picture_of_nothing_and_a_picture_without_background_are_told() -> None:
    blank = shown_on(disc(), backdrop("white"))
    blank[..., :3] = 255
    with pytest.raises(DataError, match="no object found"):
        foreground(blank, "auto")
    with pytest.raises(DataError, match="no background found"):
        foreground(blank, "alpha")


def test_a_function_of_the_users_removes_backgrounds(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_remover")
    module.soft = lambda rgba: disc()[..., 3] / 255  # type: ignore[attr-defined]
    module.wrong = lambda rgba: rgba  # type: ignore[attr-defined]
    module.broken = lambda rgba: 1 / 0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_remover", module)
    busy = shown_on(disc(), np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(float))
    assert overlap(foreground(busy, "my_remover:soft"), disc()) > 0.99
    with pytest.raises(DataError, match="expected an alpha"):
        foreground(busy, "my_remover:wrong")
    with pytest.raises(DataError, match="failed: ZeroDivisionError"):
        foreground(busy, "my_remover:broken")
    with pytest.raises(ConfigError, match="can't be imported"):
        foreground(busy, "my_remover:absent")
    with pytest.raises(ConfigError, match="remover 'magic': expected auto"):
        foreground(busy, "magic")


def test_rembg_is_used_only_with_weights_that_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(ConfigError, match="pip install 'rembg"):
        foreground(disc(), "rembg")
    module = types.ModuleType("rembg")
    module.new_session = lambda name: name  # type: ignore[attr-defined]
    module.remove = lambda rgb, session, only_mask: disc()[..., 3]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rembg", module)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    opaque = shown_on(disc(), backdrop("grey"))
    with pytest.raises(ConfigError, match="rembg d u2net"):
        foreground(opaque, "rembg")
    (tmp_path / "u2net.onnx").write_bytes(b"weights")
    assert overlap(foreground(opaque, "rembg"), disc()) == 1


# -- framing ------------------------------------------------------------------------------------------------------


def test_the_object_fills_its_share_and_is_centred_on_white() -> None:
    image, alpha = framed(disc(radius=0.15, centre=0.3), 64, 0.75)
    assert image.shape == (3, 64, 64)
    assert alpha.shape == (1, 64, 64)
    rows, columns = (alpha[0] > 0.5).any(1).nonzero()[:, 0], (alpha[0] > 0.5).any(0).nonzero()[:, 0]
    for line in (rows, columns):
        assert abs(len(line) - 48) <= 2
        assert abs(float(line.float().mean()) - 31.5) <= 1
    assert bool((image[:, alpha[0] == 0] == 1).all())
    assert image.min() >= 0
    assert image.max() <= 1


def test_hidden_colours_do_not_bleed_into_the_edge() -> None:
    picture = disc(256, colour=(255, 255, 255))
    picture[..., :3] = np.where(picture[..., 3:] > 0, 255, 0)
    image, _ = framed(picture, 64)
    assert float(image.min()) > 0.98


def test_objects_that_are_cut_off_or_tiny_are_told() -> None:
    told: list[str] = []
    framed(disc(centre=0.1), 64, say=told.append)
    framed(disc(radius=0.05), 64, say=told.append)
    assert [line.split(";")[0] for line in told] == [
        "the object touches the left edge of the picture and may be cut off there",
        "the object is only 10 pixels long and is enlarged to 53",
    ]


def test_nothing_visible_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing of the picture is visible"):
        framed(np.zeros((32, 32, 4), np.uint8), 64)


def test_scenes_show_the_middle_of_the_picture() -> None:
    picture = np.full((40, 80, 4), 255, np.uint8)
    picture[:, 20:60, :3] = RED
    image, _ = squared(picture, 32)
    assert image.shape == (3, 32, 32)
    assert float((image[0] - RED[0] / 255).abs().max()) < 0.01
