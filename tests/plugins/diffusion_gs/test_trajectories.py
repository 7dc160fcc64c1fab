"""Cameras of a generation: around objects, through scenes, from files, and in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mixtura.errors import DataError
from mixtura_diffusion_gs.frames import scene_frame
from mixtura_diffusion_gs.use.trajectories import Cameras, Route, interpolated, object_cameras, read_cameras, scene_cameras


def is_rigid(cameras: Cameras) -> bool:
    """Whether all cameras are turns and shifts of a right-handed world."""
    turns = cameras.c2w[:, :3, :3].double()
    whole = torch.eye(3, dtype=torch.float64).expand_as(turns)
    return torch.allclose(turns @ turns.mT, whole, atol=1e-5) and bool((torch.linalg.det(turns) > 0.999).all())


def test_an_object_is_seen_from_all_sides_beginning_with_the_condition() -> None:
    cameras = object_cameras(4, 20.0, 3.0, 39.6, 64)
    centres = cameras.c2w[:, :3, 3]
    cos, sin = np.cos(np.deg2rad(20)), np.sin(np.deg2rad(20))
    expected = 3 * torch.tensor([[0, -cos, sin], [cos, 0, sin], [0, cos, sin], [-cos, 0, sin]])
    assert torch.allclose(centres, expected.float(), atol=1e-5)
    assert is_rigid(cameras)
    assert torch.allclose(centres + 3 * cameras.c2w[:, :3, 2], torch.zeros(4, 3), atol=1e-5)
    assert float(cameras.intrinsics[0, 0]) == pytest.approx(1422.222 / 1024 * 64, rel=1e-3)


@pytest.mark.parametrize("route", ["forward", "sideways", "arc"])
def test_scenes_are_crossed_in_the_frame_of_the_training_data(route: Route) -> None:
    cameras = scene_cameras(4, route, 60.0, 64)
    assert is_rigid(cameras)
    again, scale = scene_frame(cameras.c2w.double().numpy())
    assert np.allclose(again, cameras.c2w, atol=1e-5)
    assert scale == pytest.approx(1, rel=1e-5)
    moved = (cameras.c2w[-1, :3, 3] - cameras.c2w[0, :3, 3]) @ cameras.c2w[0, :3, :3]
    ahead = {"forward": (0, 0, 1), "sideways": (1, 0, 0), "arc": (0.97, 0, 0.26)}[route]
    assert torch.allclose(moved / moved.norm(), torch.tensor(ahead).float(), atol=0.01)


def test_an_arc_looks_at_one_point() -> None:
    c2w = scene_cameras(5, "arc", 60.0, 64).c2w
    reach = float((c2w[-1, :3, 3] - c2w[0, :3, 3]).norm()) / (2 * np.sin(np.deg2rad(15)))
    points = c2w[:, :3, 3] + reach * c2w[:, :3, 2]
    assert torch.allclose(points, points[:1].expand_as(points), atol=1e-4)


def written(path: Path, **changes: Any) -> Path:
    """A file with four cameras around an object."""
    cameras = object_cameras(4, 10.0, 3.0, 39.6, 512)
    values = {"c2w": cameras.c2w.tolist(), "fxfycxcy": cameras.intrinsics.tolist(), "size": 512} | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
    return path


def test_cameras_of_a_file_are_scaled_to_the_network(tmp_path: Path) -> None:
    told: list[str] = []
    cameras = read_cameras(written(tmp_path / "c.json"), "object", 3.0, 64, told.append)
    expected = object_cameras(4, 10.0, 3.0, 39.6, 64)
    assert torch.allclose(cameras.c2w, expected.c2w)
    assert torch.allclose(cameras.intrinsics, expected.intrinsics)
    assert told == []


def test_cameras_of_a_scene_come_into_its_frame_and_may_share_a_lens(tmp_path: Path) -> None:
    c2w = scene_cameras(4, "arc", 60.0, 512).c2w
    c2w[:, :3, 3] *= 7
    path = written(tmp_path / "c.json", c2w=c2w.tolist(), fxfycxcy=[711.0, 711.0, 256.0, 256.0])
    cameras = read_cameras(path, "scene", 3.0, 64)
    assert cameras.intrinsics.shape == (4, 4)
    assert float(cameras.c2w[:, :3, 3].abs().max()) == pytest.approx(1 / 1.35, rel=1e-5)


def test_a_condition_at_another_place_is_told(tmp_path: Path) -> None:
    c2w = object_cameras(4, 10.0, 3.0, 39.6, 512).c2w
    told: list[str] = []
    read_cameras(written(tmp_path / "c.json", c2w=c2w.roll(1, 0).tolist()), "object", 3.0, 64, told.append)
    assert "stands at azimuth -90 degrees, 3.00 from the origin" in told[0]


def mirror() -> list[Any]:
    """Cameras of a mirrored world."""
    return (object_cameras(4, 10.0, 3.0, 39.6, 512).c2w * torch.tensor([1, -1, 1, 1])[:, None]).tolist()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"c2w": mirror()}, "frame 0: .*mirrored"),
        ({"c2w": (2 * np.eye(4)[None].repeat(4, 0)).tolist()}, "not orthonormal"),
        ({"c2w": np.eye(4).tolist()}, "1 cameras and 4 rows"),
        ({"c2w": [[1, 2], [3]]}, "c2w must be numbers"),
        ({"c2w": None}, "expected"),
        ({"fxfycxcy": None}, "fxfycxcy"),
        ({"fxfycxcy": [[711, 711, 256]] * 4}, r"shape \[4, 3\], expected N x 4"),
        ({"fxfycxcy": [[711, 711, 900, 256]] * 4}, "principal point"),
        ({"size": None}, "size must be the pixels"),
        ({"fov": 40}, "expected"),
    ],
)
def test_wrong_cameras_are_told(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"c.json: .*{reason}"):
        read_cameras(written(tmp_path / "c.json", **changes), "object", 3.0, 64)


def test_a_file_that_is_no_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("cameras!")
    with pytest.raises(DataError, match="c.json: cameras can't be read"):
        read_cameras(tmp_path / "c.json", "scene", 3.0, 64)


def test_flights_go_along_all_cameras_and_back_in_even_turns() -> None:
    cameras = object_cameras(4, 30.0, 3.0, 40.0, 64)
    way = interpolated(cameras, 12)
    assert is_rigid(way)
    assert torch.allclose(way.c2w[[0, 2, 4, 6]], cameras.c2w, atol=1e-5)
    assert torch.allclose(way.c2w[1:6], way.c2w[7:].flip(0), atol=1e-5)
    half = way.c2w[1, :3, :3]
    angles = [torch.arccos(((half.T @ end[:3, :3]).trace() - 1) / 2) for end in cameras.c2w[:2]]
    assert float(angles[0]) == pytest.approx(float(angles[1]), abs=1e-4)
