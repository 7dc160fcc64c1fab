"""Meshes of Gaussians: where the surface is, which way it faces, its colours, and the files."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from mixtura.errors import ConfigError, DataError
from mixtura_diffusion_gs.use.surface import Mesh, object_mesh, save_mesh, scene_mesh
from mixtura_diffusion_gs.use.trajectories import scene_cameras
from mixtura_splat import Gaussians

CENTRE, RADIUS = np.array([0.1, 0, -0.05]), 0.6
ABOVE, BELOW = (0.9, 0.2, 0.1), (0.1, 0.3, 0.8)


def gaussians(points: torch.Tensor, colours: torch.Tensor, size: float, opacity: float = 0.9) -> Gaussians:
    """Round Gaussians at points (N, 3) with colours (N, 3)."""
    n = len(points)
    turns = torch.tensor([1.0, 0, 0, 0]).repeat(n, 1)
    sh = ((colours - 0.5) / 0.28209479)[:, None]
    return Gaussians(points.float(), turns, torch.full((n, 3), size), torch.full((n,), opacity), sh)


def sphere(n: int = 9000, opacity: float = 0.9) -> Gaussians:
    """A sphere, red above and blue below."""
    i = torch.arange(n) + 0.5
    z, turn = 1 - 2 * i / n, i * 2.399963
    flat = (1 - z * z).sqrt()
    directions = torch.stack([flat * turn.cos(), flat * turn.sin(), z], -1)
    colours = torch.where(z[:, None] > 0, torch.tensor(ABOVE), torch.tensor(BELOW))
    return gaussians(directions * RADIUS + torch.from_numpy(CENTRE), colours, 0.01, opacity)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Many short operations: several threads would wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def ball() -> Mesh:
    """The mesh of the sphere."""
    return object_mesh(sphere(), resolution=56, views=24, size=128)


def as_trimesh(mesh: Mesh) -> trimesh.Trimesh:
    """The same for trimesh, untouched."""
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def test_the_surface_lies_where_the_gaussians_are() -> None:
    distances = np.linalg.norm(ball().vertices - CENTRE, axis=1)
    voxel = 2 * RADIUS / 56
    assert np.abs(distances - RADIUS).max() < voxel
    assert np.abs(distances - RADIUS).mean() < voxel / 2  # opaque from one standard deviation, 0.01, outside of the centres on


def test_it_is_closed_in_one_piece_and_faces_outwards() -> None:
    mesh = as_trimesh(ball())
    assert mesh.is_watertight
    assert mesh.body_count == 1
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.06)
    outwards = mesh.triangles_center - CENTRE
    assert ((mesh.face_normals * outwards).sum(1) > 0).mean() > 0.999


def test_it_has_the_colours_of_the_gaussians() -> None:
    height = ball().vertices[:, 2] - CENTRE[2]
    for part, colour in ((height > 0.1, ABOVE), (height < -0.1, BELOW)):
        assert np.abs(ball().colours[part] / 255 - colour).max() < 0.05


def test_specks_are_dropped() -> None:
    scene = sphere()
    scene.means[:5] = torch.tensor([0.1, 0.0, 0.75])
    assert as_trimesh(object_mesh(scene, resolution=56, views=24, size=128)).body_count == 1


def test_gaussians_that_are_too_faint_have_no_surface() -> None:
    with pytest.raises(DataError, match="no surface found: .*alpha 0.* use the .ply"):
        object_mesh(sphere(opacity=0.004), resolution=32, views=6, size=64)


def test_a_scene_is_open_where_no_camera_looked() -> None:
    y, x = torch.meshgrid(torch.linspace(-3, 3, 90), torch.linspace(-3, 3, 90), indexing="ij")
    colours = torch.where(x.reshape(-1, 1) > 0, torch.tensor(ABOVE), torch.tensor(BELOW))
    wall = gaussians(torch.stack([x, y, 0 * x + 3], -1).reshape(-1, 3), colours, 0.05)
    cameras = scene_cameras(4, "sideways", 50.0, 32)
    mesh = scene_mesh(wall, cameras, seen=32, resolution=64, size=64)
    assert np.abs(mesh.vertices[:, 2] - 3).max() < 0.1
    assert not as_trimesh(mesh).is_watertight
    assert as_trimesh(mesh).face_normals[:, 2].mean() < -0.95
    right = mesh.vertices[:, 0] > 0.15
    assert np.abs(mesh.colours[right] / 255 - ABOVE).max() < 0.05
    with pytest.raises(DataError, match="no surface found"):
        scene_mesh(wall.__class__(wall.means - 9, wall.quats, wall.scales, wall.opacities, wall.sh), cameras, seen=32)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_files_hold_the_same_mesh(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"ball{suffix}"
    save_mesh(ball(), path)
    plain: dict[str, Any] = {"skip_materials": True} if suffix == ".glb" else {}
    mesh = trimesh.load(path, process=False, force="mesh", **plain)
    assert len(mesh.vertices) == len(ball().vertices)
    assert len(mesh.faces) == len(ball().faces)
    assert list(tmp_path.iterdir()) == [path]
    # glTF has y up and linear light.
    x, y, z = ball().vertices.T
    expected = np.stack([x, z, -y], -1) if suffix == ".glb" else ball().vertices
    assert np.allclose(mesh.vertices, expected, atol=1e-4)
    top = expected[:, 1 if suffix == ".glb" else 2] > CENTRE[2] + 0.1
    red = mesh.visual.vertex_colors[top, 0].mean() / 255
    assert red == pytest.approx(((0.9 + 0.055) / 1.055) ** 2.4 if suffix == ".glb" else 0.9, abs=0.02)


def test_a_scene_stands_upright_in_gltf(tmp_path: Path) -> None:
    save_mesh(ball(), tmp_path / "s.glb", "scene")
    vertices = trimesh.load(tmp_path / "s.glb", process=False, force="mesh").vertices
    assert np.allclose(vertices, ball().vertices * [1, -1, -1], atol=1e-4)


def test_gltf_gets_a_material_without_gloss(tmp_path: Path) -> None:
    save_mesh(ball(), tmp_path / "ball.glb")
    material = trimesh.load(tmp_path / "ball.glb", force="mesh").visual.material
    assert material.metallicFactor == 0
    assert material.roughnessFactor == 1


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"written as .glb, .ply, .obj"):
        save_mesh(ball(), tmp_path / "ball.fbx")


def test_too_many_faces_are_reduced() -> None:
    few = object_mesh(sphere(), resolution=56, views=24, size=128, faces=1000)
    assert 900 < len(few.faces) < 1100
    assert np.abs(np.linalg.norm(few.vertices - CENTRE, axis=1) - RADIUS).max() < 0.05
    height = few.vertices[:, 2] - CENTRE[2]
    assert np.abs(few.colours[height > 0.15] / 255 - ABOVE).max() < 0.05
