"""Frames: cameras of files to cameras of the network, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtura.errors import DataError
from mixtura_diffusion_gs import frames
from tests.plugins.diffusion_gs.posed_folders import ring, upright

GOOD = np.array([20.0, 20.0, 8.0, 8.0])
angles = st.floats(-180, 180)
heights = st.floats(-85, 85)


def refused(pose: np.ndarray, intrinsics: np.ndarray = GOOD, width: int = 16, height: int = 16) -> str:
    """What is said of a camera."""
    with pytest.raises(DataError) as caught:
        frames.check_cameras(pose[None], intrinsics[None], width, height, "a/transforms.json")
    return str(caught.value)


# The object frame


@given(angles, heights, angles, heights, st.floats(0.5, 9))
def test_the_condition_comes_to_azimuth_zero_and_the_radius(first, low, second, high, distance):
    turned, scale = frames.object_frame(np.stack([upright(first, low, distance), upright(second, high, 2 * distance)]), 3.0)
    assert np.allclose(turned[0], upright(0, low, 3.0), atol=1e-6)
    assert np.allclose(turned[1], upright(second - first, high, 6.0), atol=1e-6)
    assert scale == pytest.approx(3 / distance)


def test_roll_is_kept_and_the_world_stays_right_handed():
    roll = np.eye(4)
    roll[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    turned, _ = frames.object_frame(np.stack([upright(40, 20) @ roll]))
    assert np.allclose(turned[0], upright(0, 20, 3.0) @ roll)
    assert np.linalg.det(turned[0, :3, :3]) == pytest.approx(1)


def test_a_camera_from_above_has_its_right_towards_x():
    above = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 2], [0, 0, 0, 1]])
    assert np.allclose(frames.object_frame(above[None])[0][0, :3, 0], [1, 0, 0])


def test_a_condition_at_the_centre_is_refused():
    with pytest.raises(DataError, match="stands at the object's centre"):
        frames.object_frame(np.eye(4)[None])


# The scene frame


def scattered(seed: int, count: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    poses = np.stack([upright(azimuth, elevation) for azimuth, elevation in rng.uniform(-30, 30, (count, 2))])
    poses[:, :3, 3] += rng.normal(size=(count, 3))
    return poses


@given(st.integers(0, 99))
def test_a_scene_is_seen_from_its_mean_camera_and_fits(seed):
    moved, _ = frames.scene_frame(scattered(seed), 4)
    assert np.allclose(moved[:4, :3, 3].mean(0), 0, atol=1e-9)
    forward = moved[:4, :3, 2].mean(0)
    assert np.allclose(forward[:2], 0, atol=1e-9)
    assert np.abs(moved[:4, :3, 3]).max() == pytest.approx(1 / 1.35)


@given(st.integers(0, 99), st.integers(0, 99))
def test_a_scene_does_not_depend_on_where_its_world_lies(seed, other):
    poses, world = scattered(seed), scattered(other)[0]
    apart = [frames.scene_frame(c2w, 4)[0] for c2w in (poses, world @ poses)]
    assert np.allclose(*apart, atol=1e-6)


def test_targets_do_not_move_our_frame_but_the_official_one():
    poses = scattered(1)
    changed = poses.copy()
    changed[5, :3, 3] += 3
    assert np.allclose(frames.scene_frame(poses, 4)[0][:4], frames.scene_frame(changed, 4)[0][:4])
    assert not np.allclose(frames.official_scene_frame(poses)[:4], frames.official_scene_frame(changed)[:4])


def test_a_number_scales_a_scene():
    poses = scattered(2)
    moved, factor = frames.scene_frame(poses, 4, 0.25)
    assert factor == 0.25
    apart = [np.linalg.norm(c2w[0, :3, 3] - c2w[1, :3, 3]) for c2w in (moved, poses)]
    assert apart[0] == pytest.approx(0.25 * apart[1])


def test_scenes_without_size_or_direction_are_refused():
    with pytest.raises(DataError, match="stand in one place"):
        frames.scene_frame(np.stack([np.eye(4)] * 4))
    with pytest.raises(DataError, match="opposite directions"):
        frames.scene_frame(ring(4, 0.0))


# The published frames


def golden() -> dict[str, np.ndarray]:
    return dict(np.load(Path(__file__).parents[2] / "parity" / "diffusion_gs" / "cameras" / "golden.npz"))


def test_the_published_loaders_cameras_are_reproduced():
    kept = golden()
    c2w, scale = frames.official_object_frame(kept["json_c2w"][kept["view_ids"]])
    assert np.allclose(c2w, kept["object_c2w"], atol=1e-6)
    assert np.allclose(scale, kept["depth_scaled"], rtol=1e-6)
    assert np.allclose(frames.official_scene_frame(kept["scene_in_c2w"]), kept["scene_out_c2w"], atol=1e-6)


@given(angles, heights, heights)
def test_the_official_object_frame_is_ours_in_a_mirror(azimuth, low, high):
    poses = np.stack([upright(azimuth, low, 2.0), upright(azimuth + 70, high, 2.0)])
    official, scale = frames.official_object_frame(poses)
    ours, ours_scale = frames.object_frame(poses)
    assert np.allclose(official, np.diag([1, -1, 1, 1]) @ ours, atol=1e-6)
    assert scale == pytest.approx(ours_scale)
    assert np.linalg.det(official[0, :3, :3]) == pytest.approx(-1)


# Conventions and where cameras look


def test_opengl_and_opencv_differ_by_two_axes():
    pose = upright(30, 20)
    assert np.allclose(frames.from_opengl(frames.from_opengl(pose)), pose)
    assert np.allclose(frames.from_opengl(pose)[:3, 1:3], -pose[:3, 1:3])


def test_optical_axes_meet_at_what_they_look_at():
    moved = ring(8)
    moved[:, :3, 3] += [1, 2, 3]
    assert np.allclose(frames.meeting_point(moved), [1, 2, 3])


def test_parallel_or_parting_axes_meet_nowhere():
    side_by_side = np.stack([np.eye(4)] * 3)
    side_by_side[:, 0, 3] = [0, 1, 2]
    assert frames.meeting_point(side_by_side) is None
    outwards = ring(8)
    outwards[:, :3, :3] = outwards[:, :3, :3] @ np.diag([-1, 1, -1])  # turned by half a turn
    assert frames.meeting_point(outwards) is None


# Checks


def test_a_good_camera_passes():
    frames.check_cameras(ring(4), np.stack([GOOD] * 4), 16, 16, "a.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pose: pose @ np.diag([1.1, 1.1, 1.1, 1]), "not orthonormal"),
        (lambda pose: pose @ np.array([[1, 0.01, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "not orthonormal"),
        (lambda pose: pose @ np.diag([-1, 1, 1, 1]), "mirrored"),
        (lambda pose: pose * np.nan, "NaN"),
        (lambda pose: pose[:3], "4 x 4"),
    ],
)
def test_cameras_that_are_none_are_refused(change, said):
    text = refused(change(upright(10, 20)))
    assert said in text
    assert text.startswith("a/transforms.json: frame 0: ")


@pytest.mark.parametrize(
    ("intrinsics", "said"),
    [
        ([0, 20, 8, 8], "focals above 0"),
        ([20, -1, 8, 8], "focals above 0"),
        ([20, np.inf, 8, 8], "finite"),
        ([20, 20, 32, 8], "mismatched intrinsics"),
        ([20, 20, 8, -1], "outside the picture"),
        ([0.7, 0.7, 0.5, 0.5], "not as parts of it"),
    ],
)
def test_intrinsics_that_do_not_fit_are_refused(intrinsics, said):
    assert said in refused(upright(10, 20), np.array(intrinsics, float))


def test_another_size_than_told_is_mismatched():
    frames.check_size((16, 16), (16, 16), "a")
    with pytest.raises(DataError, match="mismatched intrinsics: they are given for 32 x 16 pixels, the picture has 16 x 16"):
        frames.check_size((32, 16), (16, 16), "a")
