"""The object of a picture: by its alpha, before a plain background, by others' methods; and one error where there is none."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest

from mixtura.errors import ConfigError, DataError
from mixtura_diffusion_gs.use import removal
from mixtura_diffusion_gs.use.pictures import Rgba
from mixtura_diffusion_gs.use.removal import foreground

SIZE = 96


def places() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2


def is_disc(radius: float = 30) -> np.ndarray[Any, Any]:
    y, x = places()
    return x * x + y * y < radius * radius


def picture(background: Any, is_object: np.ndarray[Any, Any] | None = None) -> Rgba:
    """A blue disc before a background, opaque."""
    rgba = np.full((SIZE, SIZE, 4), 255, np.uint8)
    rgba[..., :3] = background
    rgba[is_disc() if is_object is None else is_object, :3] = (30, 60, 160)
    return rgba


def share_wrong(result: Rgba, is_object: np.ndarray[Any, Any]) -> float:
    return float(((result[..., 3] > 127) != is_object).mean())


def shaded() -> np.ndarray[Any, Any]:
    y, x = places()
    return np.clip(215 + 0.3 * y + 0.2 * x + np.random.default_rng(0).normal(0, 2, (SIZE, SIZE)), 0, 255)[..., None]


@pytest.mark.parametrize("background", [(255, 255, 255), (40, 120, 60), shaded()])
def test_plain_backgrounds_are_removed_shaded_ones_too(background: Any) -> None:
    assert share_wrong(foreground(picture(background)), is_disc()) < 0.01


def test_a_soft_shadow_belongs_to_the_background() -> None:
    y, x = places()
    shadow = 1 - 0.15 * np.exp(-((y - 34) ** 2 + x**2 / 9) / 60)
    grain = np.random.default_rng(0).normal(0, 2.5, (SIZE, SIZE))  # as a photograph has
    assert share_wrong(foreground(picture(np.round(240 * shadow + grain)[..., None])), is_disc()) < 0.02


def test_gaps_inside_stay_unless_the_background_is_vivid() -> None:
    ring = is_disc() & ~is_disc(12)
    for background, is_object in (((250, 250, 250), is_disc()), ((20, 220, 40), ring)):
        assert share_wrong(foreground(picture(background, ring)), is_object) < 0.02


def test_specks_are_dropped() -> None:
    rgba = picture((255, 255, 255))
    rgba[4:6, 4:6, :3] = 0
    large = rgba.repeat(4, 0).repeat(4, 1)
    assert foreground(large)[:40, :40, 3].max() == 0


def test_alpha_that_tells_something_is_taken() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), np.uint8)
    rgba[..., 3] = np.where(is_disc(), 255, 0)
    told: list[str] = []
    assert (foreground(rgba, say=told.append) == rgba).all()
    assert told == ["background removed by: alpha"]


def noisy() -> Rgba:
    rgba = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), np.uint8)
    rgba[..., 3] = 255
    return rgba


@pytest.mark.parametrize(
    ("rgba", "remover", "said"),
    [
        (picture((255, 255, 255), np.zeros((SIZE, SIZE), bool)), "auto", "photo.png: no object found"),
        (noisy(), "border", "photo.png: the border of the picture has no plain colour"),
        (noisy(), "alpha", "photo.png: no background found"),
    ],
)
def test_without_an_object_there_is_one_clear_error(rgba: Rgba, remover: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        foreground(rgba, remover, name="photo.png")


def test_unknown_removers_are_refused() -> None:
    for remover, said in (("magic", "expected auto, alpha, border, rembg"), ("nowhere:cut", "can't be imported")):
        with pytest.raises(ConfigError, match=said):
            foreground(noisy(), remover)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_a_function_of_the_users_may_decide(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = (is_disc() * (255 if kind is np.uint8 else 1)).astype(kind)
    module = types.ModuleType("my_removers")
    module.cut = lambda rgba: mask  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_removers", module)
    assert share_wrong(foreground(noisy(), "my_removers:cut"), is_disc()) == 0


@pytest.mark.parametrize(
    ("result", "said"),
    [(np.ones((3, 3)), r"gave shape \(3, 3\)"), (np.full((SIZE, SIZE), 7.0), "expected uint8, bool, or float in 0..1")],
)
def test_results_that_are_no_alpha_are_refused(result: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_removers")
    module.cut = lambda rgba: result  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_removers", module)
    with pytest.raises(DataError, match=said):
        foreground(noisy(), "my_removers:cut")


def test_rembg_is_never_made_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setitem(sys.modules, "rembg", types.ModuleType("rembg"))
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="no weights in .*u2net.onnx, and we don't fetch any"):
        foreground(noisy(), "rembg")


def test_rembg_cuts_where_it_is_installed_with_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    module: Any = types.ModuleType("rembg")
    module.new_session = lambda name: name
    module.remove = lambda rgb, session, only_mask: np.where(is_disc(), 255, 0).astype(np.uint8)
    monkeypatch.setitem(sys.modules, "rembg", module)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    (tmp_path / removal.WEIGHTS).touch()
    assert share_wrong(foreground(noisy(), "rembg"), is_disc()) == 0
