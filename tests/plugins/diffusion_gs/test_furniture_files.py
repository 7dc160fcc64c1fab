"""Furniture: OBJ and material files to meshes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mixtura_diffusion_gs.furniture import obj, polygons
from mixtura_diffusion_gs.furniture.mesh import Material, Mesh, box, placed, quad

RED = Material("r", (1.0, 0, 0))


def parsed(text: str, **files: bytes) -> Mesh:
    """The mesh of an OBJ text; files beside it are named with `_` for the dot."""
    known = {"a.obj": text.encode(), **{name.replace("_", "."): data for name, data in files.items()}}
    return obj.read_obj("a.obj", known.get)


def png(*rows: list[tuple[int, ...]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.array(rows, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


# Files


TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


def test_corners_count_from_the_end_where_negative():
    mesh = parsed("v 9 9 9\n" + TRIANGLE + "f -3 -2 -1\nv 2 2 2\nf -3 -2 -1\n")
    assert mesh.triangles.tolist() == [[1, 2, 3], [2, 3, 4]]


@pytest.mark.parametrize("corners", ["1 2 3", "1/1 2/2 3/3", "1//1 2//1 3//1", "1/1/1 2/2/1 3/3/1", "1/ 2/9 3/x/"])
def test_corners_name_points_and_perhaps_texture_points_and_normals(corners):
    mesh = parsed(TRIANGLE + "vt 0 0\nvt 1 0\nvt 0 1\nvn 0 0 -2\nf " + corners)
    assert mesh.triangles.tolist() == [[0, 1, 2]]
    assert mesh.uvs[0].tolist() == (
        [[0, 0], [1, 0], [0, 1]] if corners.count("/") in (3, 6) and "//" not in corners else [[0, 0]] * 3
    )
    assert np.allclose(mesh.normals, [0, 0, -1 if corners.count("/") == 6 else 1])


def test_broken_faces_are_left_out():
    mesh = parsed(TRIANGLE + "v nan 0 0\nv x 0 0\nf 1 2\nf 1 2 9\nf 1 2 4\nf 1 2 5\nf 1 1 2\nf 1 2 0\nl 1 2\nf 1 2 3")
    assert mesh.triangles.tolist() == [[0, 1, 2]]


def test_lines_go_on_after_a_backslash_and_comments_are_skipped():
    assert len(parsed("# v 1 1 1\n" + TRIANGLE + "f 1 \\\n 2 3").triangles) == 1


def test_a_file_without_faces_is_an_empty_mesh():
    assert len(parsed("v 0 0 0").triangles) == 0
    with pytest.raises(FileNotFoundError, match=r"a\.obj"):
        obj.read_obj("a.obj", {}.get)


def test_materials_have_colour_opacity_and_texture():
    text = "mtllib m.mtl\n" + TRIANGLE + "usemtl glass pane\nf 1 2 3\nusemtl wood\nf 1 2 3"
    library = b"newmtl glass pane\nKd 0.2 2 -1\nd 0.25\nnewmtl wood\nTr 0.5\nmap_Kd -s 1 1 1 -clamp on t.png\n"
    _, glass, wood = parsed(text, m_mtl=library, t_png=png([(1, 2, 3)])).materials
    assert (glass.diffuse, glass.opacity, glass.texture) == ((0.2, 1.0, 0.0), 0.25, None)
    assert wood.opacity == 0.5
    assert wood.texture is not None
    assert wood.texture.tolist() == [[[1, 2, 3, 255]]]


def test_missing_or_broken_materials_and_textures_leave_a_plain_surface():
    text = "mtllib none.mtl\nmtllib m.mtl\n" + TRIANGLE + "f 1 2 3\nusemtl other\nf 1 2 3\nusemtl a\nf 1 2 3\nusemtl b\nf 1 2 3"
    mesh = parsed(text, m_mtl=b"newmtl a\nKd 1 0 0\nmap_Kd no.png\nnewmtl b\nKd 0 1 0\nmap_Kd bad.png", bad_png=b"not a picture")
    assert [material.texture for material in mesh.materials] == [None] * 4
    assert [mesh.materials[i].diffuse for i in mesh.material_ids] == [(0.8, 0.8, 0.8)] * 2 + [(1.0, 0, 0), (0, 1.0, 0)]


# Polygons


def area(points: np.ndarray, triangles: np.ndarray) -> float:
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


@given(st.lists(st.floats(0.2, 1.0), min_size=3, max_size=12), st.integers(0, 2))
def test_triangles_cover_a_polygon_exactly(radii, axis):
    angle = 2 * np.pi * np.arange(len(radii)) / len(radii)
    outline = np.roll(np.stack([np.array(radii) * np.cos(angle), np.array(radii) * np.sin(angle), 0 * angle], 1), axis, 1)
    triangles = polygons.triangulate(outline[None])[0]
    assert len(triangles) == len(radii) - 2
    expected = np.linalg.norm(np.cross(outline, np.roll(outline, -1, 0)).sum(0)) / 2
    assert area(outline, triangles) == pytest.approx(expected, rel=1e-6)


def test_normals_are_shared_across_blunt_edges_only():
    sphere_like = parsed("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 2 0 -0.5\nv 2 1 -0.5\ns 1\nf 1 2 3 4\nf 2 5 6 3").normals
    assert np.allclose(np.linalg.norm(sphere_like, axis=-1), 1)
    assert np.allclose(sphere_like[0, 1], sphere_like[2, 0], atol=1e-6)
    cube_like = parsed("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 1 0 -1\nv 1 1 -1\ns 1\nf 1 2 3 4\nf 2 5 6 3").normals
    assert np.allclose(cube_like[:2], [0, 0, 1])


def test_without_a_smoothing_group_faces_are_flat():
    normals = parsed("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 2 0 -0.5\nv 2 1 -0.5\ns off\nf 1 2 3 4\nf 2 5 6 3").normals
    assert np.allclose(normals[0], [0, 0, 1])
    assert not np.allclose(normals[2], normals[0])


# Meshes


def test_a_mesh_refuses_arrays_that_do_not_fit():
    good = quad([0, 0, 1], [1, 0, 0], [0, 1, 0], RED)
    with pytest.raises(ValueError, match="indices from 0 to 4"):
        Mesh(good.vertices, [[0, 1, 4]], good.uvs[:1], good.normals[:1], good.material_ids[:1], good.materials)
    with pytest.raises(ValueError, match="uvs has shape"):
        Mesh(good.vertices, good.triangles, good.uvs[:1], good.normals, good.material_ids, good.materials)
    with pytest.raises(ValueError, match="read-only"):
        good.vertices[0] = 0


def test_normals_stay_upright_when_a_mesh_is_squeezed():
    slope = quad([0, 0, 0], [1, 0, 1], [0, 1, 0], RED).transformed(np.diag([1, 1, 0.1, 1]))
    edge = slope.vertices[1] - slope.vertices[0]
    assert np.allclose(slope.normals @ edge, 0, atol=1e-6)


def test_the_sides_of_a_box_point_outwards():
    cube = box([-1, -2, -3], [1, 2, 3], [RED])
    centres = cube.vertices[cube.triangles].mean(1)
    assert (np.einsum("fi,fi->f", centres, cube.normals[:, 0]) > 0).all()
    assert np.allclose(cube.bounds, [[-1, -2, -3], [1, 2, 3]])


def test_placing_turns_counter_clockwise_from_above():
    assert np.allclose(placed(np.pi / 2, [1, 2, 3]) @ [1, 0, 0, 1], [1, 3, 3, 1])
