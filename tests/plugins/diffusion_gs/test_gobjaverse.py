"""The source of G-Objaverse: its layout, its published choice of views, its depths."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng
from mixtura_diffusion_gs.data.gobjaverse import FOCAL, GObjaverse
from tests.plugins.diffusion_gs.posed_folders import ring, upright, views_of, write_object

ALL = {"rule": "all", "network": 2}


def source(root: Path, **settings: Any) -> GObjaverse:
    config = GObjaverse.Config.model_validate({"type": "gobjaverse", "path": "data", "size": 16, **settings})
    return GObjaverse(config, name="objects", root=root)


def with_depths(folder: Path, monkeypatch: pytest.MonkeyPatch, depth: float) -> None:
    """Put depth files beside the pictures, and a reader of EXR in the place of the package."""
    for file in folder.rglob("*.png"):
        file.with_name(file.stem + "_nd.exr").touch()
    content = {"A": SimpleNamespace(pixels=np.full((16, 16), depth, np.float32))}
    reader = SimpleNamespace(File=lambda path, separate_channels: SimpleNamespace(channels=lambda: content))
    monkeypatch.setitem(sys.modules, "OpenEXR", reader)


def test_forty_views_give_the_published_choice(tmp_path):
    c2w = np.concatenate([ring(24, 15), [upright(0, 20), upright(0, 89), upright(0, -89)], ring(12, 0), [upright(0, 3)]])
    write_object(tmp_path / "data", "0/17", c2w)
    objects = pickle.loads(pickle.dumps(source(tmp_path)))
    for seed in range(20):
        sample = objects.read(0, KeyedRng(seed))
        order = views_of(sample)
        first, count = (0, 24) if order[0] < 24 else (27, 12)
        assert order[:4] == [first + (order[0] - first + step * count // 4) % count for step in range(4)]
        assert len(set(order)) == 10
        assert not {25, 26} & set(order)
        assert sample.key == f"0/17@{order[0]:03d}"


def test_cameras_and_field_of_view_are_those_of_the_file(tmp_path):
    write_object(tmp_path / "data", "0/1", ring(4, 20))
    fields = source(tmp_path, views=ALL).read(0, KeyedRng(1)).fields
    assert np.allclose(fields["c2w"], [upright(90 * view, 20, 3.0) for view in range(4)], atol=1e-5)
    assert np.allclose(fields["intrinsics"], [8 / np.tan(0.6911 / 2)] * 2 + [8, 8])
    official = source(tmp_path, views=ALL, compat="official").read(0, KeyedRng(1)).fields
    assert np.allclose(official["intrinsics"], [FOCAL * 16] * 2 + [8, 8])
    assert "depths" not in fields


def test_depths_are_along_z_and_what_is_before_the_cube_is_nothing(tmp_path, monkeypatch):
    write_object(tmp_path / "data", "0/1", ring(4, 20))
    with_depths(tmp_path / "data", monkeypatch, 1.5)
    assert np.allclose(source(tmp_path, views=ALL).read(0, KeyedRng(1)).fields["depths"], 2.25)  # cameras move from 2 to 3
    with_depths(tmp_path / "data", monkeypatch, 1.0)
    assert not source(tmp_path, views=ALL).read(0, KeyedRng(1)).fields["depths"].any()


def test_a_real_exr_file_is_read(tmp_path):
    exr = pytest.importorskip("OpenEXR", reason="reads depths of G-Objaverse: pip install OpenEXR")
    write_object(tmp_path / "data", "0/1", ring(2, 20))
    for file in (tmp_path / "data").rglob("*.png"):
        channels = {name: np.full((16, 16), depth, np.float32) for name, depth in zip("RGBA", (9, 9, 9, 1.5), strict=True)}
        exr.File({"type": exr.scanlineimage}, channels).write(str(file.with_name(file.stem + "_nd.exr")))
    assert np.allclose(source(tmp_path, views=ALL).read(0, KeyedRng(1)).fields["depths"], 2.25)


def test_depths_that_are_required_need_files_and_a_reader(tmp_path, monkeypatch):
    write_object(tmp_path / "data", "0/1", ring(2, 20))
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(DataError, match="pip install OpenEXR"):
        source(tmp_path, views=ALL, depth="require")
    with_depths(tmp_path / "data", monkeypatch, 1.5)
    objects = source(tmp_path, views=ALL, depth="require")
    assert objects.read(0, KeyedRng(1)).fields["depths"].all()
    next((tmp_path / "data").rglob("*.exr")).unlink()
    with pytest.raises(BadSample, match="_nd.exr is missing"):
        objects.read(0, KeyedRng(1))


def test_items_name_what_is_taken(tmp_path):
    for item in ("0/1", "0/2", "1/1"):
        write_object(tmp_path / "data", item, ring(2))
    assert source(tmp_path, views=ALL).items == ["0/1", "0/2", "1/1"]
    (tmp_path / "train.json").write_text('["1/1", "0/2"]')
    assert source(tmp_path, views=ALL, items="train.json").items == ["1/1", "0/2"]
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(DataError, match="`items` must name a JSON list"):
        source(tmp_path, items="train.json")


def test_broken_objects_are_named(tmp_path):
    with pytest.raises(DataError, match="no objects in it; they are expected as GROUP/ITEM/campos_512_v4"):
        source(tmp_path)
    folder = write_object(tmp_path / "data", "0/1", ring(2)) / "0/1/campos_512_v4"
    (folder / "00001" / "00001.png").unlink()
    with pytest.raises(BadSample, match="there is no picture"):
        source(tmp_path, views=ALL).read(0, KeyedRng(1))
    with pytest.raises(BadSample, match="0/1: 10 views are needed|names views"):
        source(tmp_path).read(0, KeyedRng(1))
    (folder / "00001" / "00001.json").write_text(
        json.dumps({"x": [1, 0, 0], "y": [0, 2, 0], "z": [0, 0, 1], "origin": [0, 0, 0]})
    )
    with pytest.raises(DataError, match="00001.json: the camera's axes are not orthonormal"):
        source(tmp_path)
    (folder / "00001" / "00001.json").write_text("{}")
    with pytest.raises(DataError, match="x, y, z and origin of a camera are needed"):
        source(tmp_path)


def test_pictures_that_are_not_square_are_padded(tmp_path):
    folder = write_object(tmp_path / "data", "0/1", ring(2)) / "0/1/campos_512_v4"
    Image.new("RGBA", (32, 16), (9, 9, 9, 255)).save(folder / "00000" / "00000.png")
    assert (source(tmp_path, views=ALL).read(0, KeyedRng(1)).fields["images"][0, 0] == 255).all()


def test_only_objects_are_in_it(tmp_path):
    with pytest.raises(ValueError, match="kind can't be scene"):
        source(tmp_path, kind="scene")
