"""The source of RealEstate10K: resizing, cropping, intrinsics, the evaluation index."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng
from mixtura_diffusion_gs.data.re10k import RealEstate
from mixtura_diffusion_gs.frames import official_scene_frame
from tests.plugins.diffusion_gs.posed_folders import upright, views_of, write_clip


def walk(count: int = 10) -> np.ndarray:
    """Cameras of a clip: forwards, turning a little."""
    poses = np.stack([upright(3 * number, -90 + 90.01) for number in range(count)])
    poses[:, :3, 3] = np.linspace([0, 0, 0], [1, 3, 0.2], count)
    return poses


def source(root: Path, **settings: Any) -> RealEstate:
    config = RealEstate.Config.model_validate({"type": "re10k", "path": "clips", "size": 16, **settings})
    return RealEstate(config, name="clips", root=root)


def changed(file: Path, frame: int, **entries: Any) -> None:
    data = json.loads(file.read_text())
    data["frames"][frame].update(entries)
    file.write_text(json.dumps(data))


ALL = {"rule": "all", "network": 4}


def test_seven_views_in_random_order_are_the_default(tmp_path):
    write_clip(tmp_path / "clips", "a", walk())
    clips = pickle.loads(pickle.dumps(source(tmp_path)))
    sample = clips.read(0, KeyedRng(1))
    assert sample.fields["images"].shape == (7, 16, 16, 3)
    assert sample.fields["kind"] == "scene"
    assert not {"depths", "masks"} & set(sample.fields)
    assert len(set(views_of(sample))) == 7
    again, other = (clips.read(0, KeyedRng(seed)) for seed in (1, 2))
    assert all(np.array_equal(sample.fields[name], again.fields[name]) for name in ("images", "c2w", "intrinsics"))
    assert views_of(other) != views_of(sample)


def test_the_middle_is_kept_and_intrinsics_follow(tmp_path):
    write_clip(tmp_path / "clips", "a", walk(), width=64, height=32)
    ours = source(tmp_path, views=ALL).read(0, KeyedRng(1)).fields["intrinsics"]
    assert np.allclose(ours, [10, 10.5, 8, 8])
    official = source(tmp_path, views=ALL, compat="official").read(0, KeyedRng(1)).fields["intrinsics"]
    assert np.allclose(official, [10, 10.5, 8, 8])


def test_the_official_width_is_a_multiple_of_eight(tmp_path):
    write_clip(tmp_path / "clips", "a", walk(), width=40, height=30)
    fields = source(tmp_path, views=ALL, compat="official").read(0, KeyedRng(1)).fields
    assert fields["images"].shape[1:3] == (16, 16)
    assert np.allclose(fields["intrinsics"][0], [20 * 24 / 40, 21 * 16 / 30, 8, 8])  # 21.3 columns become 24


def test_the_official_frame_is_that_of_all_views(tmp_path):
    poses = walk()
    write_clip(tmp_path / "clips", "a", poses)
    fields = source(tmp_path, views=ALL, compat="official").read(0, KeyedRng(1)).fields
    assert np.allclose(fields["c2w"], official_scene_frame(poses), atol=1e-5)


def test_an_evaluation_index_names_scenes_and_views(tmp_path):
    for name in ("a", "b", "c"):
        write_clip(tmp_path / "clips", name, walk())
    (tmp_path / "index.json").write_text('{"a": null, "c": {"context": [2, 9], "target": [5, 4, 7]}}')
    clips = source(tmp_path, index="index.json")
    assert len(clips) == 1
    assert views_of(clips.read(0, KeyedRng(1))) == [2, 5, 4, 7]
    (tmp_path / "index.json").write_text('{"c": {"context": [2], "target": [50]}}')
    with pytest.raises(DataError, match="names frame 50, it has 10"):
        source(tmp_path, index="index.json")
    for text, said in (('{"d": {"context": [2], "target": [5]}}', "`index` has views for"), ('{"c": 3}', "context, target")):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(DataError, match=said):
            source(tmp_path, index="index.json")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"w2c": (2 * np.eye(4)).tolist()}, "not orthonormal"),
        ({"w2c": np.diag([1.0, -1, 1, 1]).tolist()}, "mirrored"),
        ({"w2c": "no"}, "a 4 x 4 w2c is needed"),
    ],
)
def test_broken_cameras_are_named_at_once(tmp_path, entries, said):
    changed(write_clip(tmp_path / "clips", "a", walk()) / "a.json", 3, **entries)
    with pytest.raises(DataError, match=f"a.json: frame 3: .*{said}"):
        source(tmp_path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"image_path": "none.png"}, "there is no picture"),
        ({"fxfycxcy": [20, 20, 8]}, "four numbers fxfycxcy"),
        ({"fxfycxcy": [0.5, 0.9, 0.5, 0.5]}, "mismatched intrinsics"),
        ({"fxfycxcy": [40, 40, 32, 18]}, "mismatched intrinsics"),
    ],
)
def test_broken_frames_are_bad_samples(tmp_path, entries, said):
    changed(write_clip(tmp_path / "clips", "a", walk()) / "a.json", 3, **entries)
    with pytest.raises(BadSample, match=said):
        source(tmp_path, views=ALL).read(0, KeyedRng(1))


def test_short_clips_upright_pictures_and_missing_files_are_said(tmp_path):
    with pytest.raises(DataError, match="no scene's JSON file"):
        source(tmp_path)
    write_clip(tmp_path / "clips", "a", walk(1))
    with pytest.raises(BadSample, match="a: 7 views are needed .* it has 1"):
        source(tmp_path).read(0, KeyedRng(1))
    write_clip(tmp_path / "clips", "a", walk(4), width=16, height=32)
    with pytest.raises(BadSample, match="a: view 0: a picture of 16 x 32 pixels is higher than wide"):
        source(tmp_path, views=ALL, compat="official").read(0, KeyedRng(1))
    (tmp_path / "clips" / "a.json").write_text('{"frames": []}')
    with pytest.raises(DataError, match="must be a list of frames"):
        source(tmp_path)
