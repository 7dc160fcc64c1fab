"""Clips of Gaussians."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mixtura.data.formats.video import read_frames
from mixtura_diffusion_gs.use.trajectories import object_cameras
from mixtura_diffusion_gs.use.turntable import FPS, drawn, flight, turntable, write_clip
from mixtura_splat import Gaussians


def dot(place: tuple[float, float, float], size: float = 0.1) -> Gaussians:
    """One red Gaussian."""
    red = torch.tensor([[[1.0, -1, -1]]]) * 0.5 / 0.2821
    return Gaussians(torch.tensor([place]), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), size), torch.tensor([0.99]), red)


def frames_of(path: Path) -> np.ndarray:
    """All frames (F, H, W, 3) in 0..1."""
    return np.stack([frame for _, frame in read_frames(path)]) / 255


def column(frame: np.ndarray) -> float:
    """Where the red lies, -1 left to 1 right."""
    red = frame[..., 0] - frame[..., 1]
    return float((red.sum(0) * np.linspace(-1, 1, red.shape[1])).sum() / red.sum())


def test_a_turntable_goes_around_the_object_counter_clockwise(tmp_path: Path) -> None:
    turntable(dot((0.5, 0, 0)), tmp_path / "t.mp4", frames=8, size=64, elevation=0.0)
    frames = frames_of(tmp_path / "t.mp4")
    assert frames.shape == (8, 64, 64, 3)
    assert frames[:, 0, 0].min() > 0.98
    places = [column(frame) for frame in frames]
    # From the -y side +x is on the right; a quarter turn later the camera stands at +x, in front of the dot.
    assert places[0] == pytest.approx(0.5 / 3 / np.tan(np.deg2rad(19.8)), abs=0.05)
    assert abs(places[2]) < 0.05
    assert places[4] == pytest.approx(-places[0], abs=0.05)
    assert list(tmp_path.iterdir()) == [tmp_path / "t.mp4"]


def test_a_flight_through_a_scene_uses_the_scenes_cameras(tmp_path: Path) -> None:
    cameras = object_cameras(4, 0.0, 3.0, 39.6, 16)
    flight(dot((0.5, 0, 0)), tmp_path / "f.mp4", cameras, seen=16, frames=6, size=64)
    assert column(frames_of(tmp_path / "f.mp4")[0]) == pytest.approx(0.5 / 3 / np.tan(np.deg2rad(19.8)), abs=0.05)


def test_the_published_rules_leave_out_what_is_close_to_the_camera() -> None:
    cameras, scene = object_cameras(5, 0.0, 3.0, 39.6, 32), dot((0.0, -2.85, 0.0), 0.01)
    ours, theirs = (torch.stack(list(drawn(scene, cameras, 32, is_official=flag))) for flag in (False, True))
    assert ours.shape == (5, 32, 32, 3)
    assert float(ours[0].min()) < 0.1
    assert float(theirs[0].min()) == 1


def test_a_clip_that_breaks_off_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield torch.zeros(16, 16, 3)
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        write_clip(tmp_path / "c.mp4", broken(), 16)
    assert not (tmp_path / "c.mp4").exists()
    assert FPS == 24
