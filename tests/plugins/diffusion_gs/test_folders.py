"""The source of view folders: what a sample holds, and what is said of broken folders."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from mixtura.data.source import Source
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng
from mixtura_diffusion_gs.data.folders import ViewFolders
from tests.plugins.diffusion_gs.posed_folders import colour, ring, upright, views_of, write_folder

RANDOM = {"rule": "random", "network": 3, "novel": 2}


def source(root: Path, path: str = "data", **settings: Any) -> ViewFolders:
    config = ViewFolders.Config.model_validate({"type": "views", "path": path, "size": 16, "views": RANDOM, **settings})
    return ViewFolders(config, name="chairs", root=root)


def changed(folder: Path, frame: int | None = None, **entries: Any) -> None:
    """Put other entries into transforms.json, of one frame or for all; None takes an entry away."""
    file = folder / "transforms.json"
    data = json.loads(file.read_text())
    place = data if frame is None else data["frames"][frame]
    place.update(entries)
    for key in [key for key, value in entries.items() if value is None]:
        del place[key]
    file.write_text(json.dumps(data))


def whole(view: int = 0) -> dict[str, Any]:
    """Settings that take all views of a folder, beginning with one."""
    return {"views": {"rule": "all", "network": 3, "condition": view}}


# Samples


def test_a_sample_holds_what_the_system_expects(tmp_path):
    write_folder(tmp_path / "data" / "chair", ring(8))
    chairs = source(tmp_path)
    assert isinstance(chairs, Source)
    sample = chairs.read(0, KeyedRng(1))
    shapes = {name: (value.dtype.name, value.shape) for name, value in sample.fields.items() if name != "kind"}
    assert shapes == {
        "images": ("uint8", (5, 16, 16, 3)), "c2w": ("float32", (5, 4, 4)), "intrinsics": ("float32", (5, 4)),
        "depths": ("float32", (3, 16, 16)), "masks": ("bool", (3, 16, 16)),
    }  # fmt: skip
    assert sample.fields["kind"] == "object"
    assert sample.key == f"chair@{views_of(sample)[0]:03d}"


def test_pictures_belong_to_their_cameras_and_depths_are_scaled_with_them(tmp_path):
    write_folder(tmp_path / "data", ring(8, elevation=20))
    sample = source(tmp_path).read(0, KeyedRng(5))
    order = views_of(sample)
    expected = [upright(45 * (view - order[0]), 20, 3.0) for view in order]
    assert np.allclose(sample.fields["c2w"], expected, atol=1e-5)
    assert np.allclose(sample.fields["depths"], 3.0)  # 2 at a distance of 2


def test_reading_is_pure_and_survives_pickling(tmp_path):
    write_folder(tmp_path / "data", ring(8))
    chairs = source(tmp_path)
    again = pickle.loads(pickle.dumps(chairs))
    assert again.info == chairs.info
    first, second, other = (s.read(0, KeyedRng(seed)) for s, seed in ((chairs, 3), (again, 3), (chairs, 4)))
    assert all(np.array_equal(first.fields[name], second.fields[name]) for name in first.fields)
    assert views_of(first) != views_of(other)


def test_fixed_rules_choose_the_same_views_every_time(tmp_path):
    write_folder(tmp_path / "data", ring(8))
    chairs = source(tmp_path, views={**RANDOM, "fixed": True})
    assert views_of(chairs.read(0, KeyedRng(1))) == views_of(chairs.read(0, KeyedRng(2)))


def test_folders_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path):
    for name in ("b", "a/two", "a/one", "c.part", ".hidden"):
        write_folder(tmp_path / "data" / name, ring(5))
    chairs = source(tmp_path)
    assert [folder.as_posix() for folder in chairs.folders] == ["a/one", "a/two", "b"]
    assert chairs.read(1, KeyedRng(1)).key.startswith("a/two@")


def test_the_fingerprint_changes_with_the_content(tmp_path):
    write_folder(tmp_path / "data" / "a", ring(5))
    before = source(tmp_path).info.fingerprint
    assert source(tmp_path).info.fingerprint == before
    write_folder(tmp_path / "data" / "b", ring(5))
    assert source(tmp_path).info.fingerprint != before


def test_only_pictures_of_chosen_views_are_opened(tmp_path):
    folder = write_folder(tmp_path / "data", ring(8))
    (folder / "7.png").unlink()
    chairs = source(tmp_path, views={**RANDOM, "exclude": [7]})
    assert all(chairs.read(0, KeyedRng(seed)) for seed in range(10))


def test_a_split_takes_the_frames_that_it_names(tmp_path):
    write_folder(tmp_path / "data", ring(8), train_filenames=["1.png", "3.png", "6.png"], test_filenames=["0.png"])
    assert views_of(source(tmp_path, split="train", **whole()).read(0, KeyedRng(1))) == [1, 3, 6]
    with pytest.raises(BadSample, match="it has 1"):
        source(tmp_path, split="test").read(0, KeyedRng(1))


def test_intrinsics_may_be_an_angle_or_differ_by_frame(tmp_path):
    folder = write_folder(tmp_path / "data", ring(3), fl_x=None, fl_y=None, cx=None, cy=None, camera_angle_x=np.pi / 2)
    assert np.allclose(source(tmp_path, **whole()).read(0, KeyedRng(1)).fields["intrinsics"], [8, 8, 8, 8])
    changed(folder, 2, fl_x=12.0, cx=7.0)
    assert np.allclose(source(tmp_path, **whole(2)).read(0, KeyedRng(1)).fields["intrinsics"][0], [12, 12, 7, 8])


def test_transparent_pictures_come_over_white_with_masks(tmp_path):
    folder = write_folder(tmp_path / "data", ring(3))
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:, :8] = [200, 0, 0, 255]
    rgba[:, 8:12] = [0, 0, 0, 51]
    Image.fromarray(rgba).save(folder / "0.png")
    fields = source(tmp_path, **whole()).read(0, KeyedRng(1)).fields
    assert fields["images"][0, 0, [0, 8, 15]].tolist() == [[200, 0, 0], [204] * 3, [255] * 3]
    assert fields["masks"][0].sum(1).tolist() == [8] * 16


def test_there_are_no_masks_or_depths_where_the_data_have_none(tmp_path):
    folder = write_folder(tmp_path / "data", ring(3), depth=None)
    Image.new("RGB", (16, 16), colour(1)).save(folder / "1.png")
    fields = source(tmp_path, **whole()).read(0, KeyedRng(1)).fields
    assert not {"masks", "depths"} & set(fields)
    with pytest.raises(BadSample, match="3 of 3 views have no depth"):
        source(tmp_path, depth="require", **whole()).read(0, KeyedRng(1))


def test_scenes_are_cropped_objects_padded_and_intrinsics_follow(tmp_path):
    write_folder(tmp_path / "data", ring(3), width=32, height=16)
    padded = source(tmp_path, **whole()).read(0, KeyedRng(1)).fields
    assert np.allclose(padded["intrinsics"][0], [10, 10, 8, 8])
    assert (padded["images"][0, 0] == 255).all()
    assert padded["masks"][0].any(1).tolist() == [False] * 4 + [True] * 8 + [False] * 4
    cropped = source(tmp_path, square="crop", **whole()).read(0, KeyedRng(1)).fields
    assert np.allclose(cropped["intrinsics"][0], [20, 20, 8, 8])
    assert cropped["masks"].all()


def test_an_object_may_lie_where_the_axes_meet(tmp_path):
    away = ring(8)
    away[:, :3, 3] += [4, 5, 6]
    write_folder(tmp_path / "data", away)
    fields = source(tmp_path, frame={"type": "object", "centre": "axes"}).read(0, KeyedRng(1)).fields
    assert np.allclose(np.linalg.norm(fields["c2w"][:, :3, 3], axis=1), 3, atol=1e-4)


def test_official_objects_are_mirrored_and_have_no_frame_of_ours(tmp_path):
    write_folder(tmp_path / "data", ring(8))
    fields = source(tmp_path, compat="official").read(0, KeyedRng(1)).fields
    assert np.allclose(np.linalg.det(fields["c2w"][:, :3, :3]), -1, atol=1e-5)
    with pytest.raises(ValidationError, match="leave `frame` out"):
        source(tmp_path, compat="official", frame={"type": "object"})


# What is refused


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"transform_matrix": (2 * np.eye(4)).tolist()}, "frame 1: the camera's axes are not orthonormal"),
        ({"transform_matrix": np.diag([1.0, 1, -1, 1]).tolist()}, "frame 1: the camera's axes are mirrored"),
        ({"transform_matrix": [[1, 2], [3, 4]]}, r"frame 1: camera-to-world must be 4 x 4 finite numbers, got shape \[2, 2\]"),
        ({"transform_matrix": None}, "frame 1: a 4 x 4 transform_matrix is needed"),
        ({"k1": 0.1}, "frame 1: the lens bends"),
    ],
)
def test_broken_cameras_are_named_at_once(tmp_path, entries, said):
    changed(write_folder(tmp_path / "data", ring(3)), 1, **entries)
    with pytest.raises(DataError, match=f"transforms.json: {said}"):
        source(tmp_path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"w": 32, "h": 32}, "mismatched intrinsics: they are given for 32 x 32 pixels, the picture has 16 x 16"),
        ({"cx": 16.0}, "mismatched intrinsics"),
        ({"fl_x": 0.7}, "mismatched intrinsics"),
        ({"fl_x": "wide"}, "must be numbers"),
        ({"file_path": "none.png"}, "there is no picture"),
        ({"file_path": "../../secret.png"}, "leaves the folder"),
        ({"file_path": "transforms.json"}, "can't be decoded"),
        ({"file_path": 3}, "file_path must name a file"),
        ({"depth_file_path": "none.png"}, "there is no depth picture"),
        ({"depth_file_path": "1.png"}, "one channel of 16-bit depths"),
    ],
)
def test_broken_frames_are_bad_samples_that_name_the_frame(tmp_path, entries, said):
    changed(write_folder(tmp_path / "data", ring(3)), 1, **entries)
    with pytest.raises(BadSample, match=f"(frame|view) 1: .*{said}"):
        source(tmp_path, **whole()).read(0, KeyedRng(1))


def test_missing_intrinsics_are_said(tmp_path):
    write_folder(tmp_path / "data", ring(3), fl_x=None)
    with pytest.raises(BadSample, match="frame 0: no intrinsics: fl_x .pixels. or camera_angle_x"):
        source(tmp_path, **whole()).read(0, KeyedRng(1))


def test_one_view_only_is_a_bad_sample(tmp_path):
    write_folder(tmp_path / "data" / "chair", ring(1))
    with pytest.raises(BadSample, match="chair: 5 views are needed .* it has 1"):
        source(tmp_path).read(0, KeyedRng(1))


def test_pictures_and_depths_of_two_sizes_are_refused(tmp_path):
    folder = write_folder(tmp_path / "data", ring(3))
    Image.fromarray(np.ones((8, 8), np.uint16)).save(folder / "0_depth.png")
    with pytest.raises(BadSample, match="depths of 8 x 8 pixels for a picture of 16 x 16"):
        source(tmp_path, **whole()).read(0, KeyedRng(1))


@pytest.mark.parametrize("text", ["{", "[]", '{"frames": []}', '{"frames": [1]}', "{}"])
def test_files_that_are_no_cameras_are_named(tmp_path, text):
    (write_folder(tmp_path / "data", ring(3)) / "transforms.json").write_text(text)
    with pytest.raises(DataError, match="transforms.json: "):
        source(tmp_path)


def test_missing_folders_and_splits_are_said(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        source(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="neither it nor a folder below it has a transforms.json"):
        source(tmp_path)
    write_folder(tmp_path / "data", ring(3))
    with pytest.raises(DataError, match="it has no train_filenames"):
        source(tmp_path, split="train")
    with pytest.raises(IndexError, match="no sample 1, it has 1"):
        source(tmp_path).read(1, KeyedRng(1))
