"""Furniture: files to meshes, meshes to pictures, pictures with the cameras that go with them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("embreex", reason="furniture is drawn with embreex: pip install embreex")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.furniture import cameras, export, models, obj, polygons, rooms, scenes  # noqa: E402
from benchmarks.furniture.mesh import Material, Mesh, box, merged, placed, quad  # noqa: E402
from benchmarks.furniture.render import Lights, Renderer  # noqa: E402

installed = pytest.mark.skipif(
    not list(models.FOLDER.glob("*.sh3f")), reason="no models: apt-get install --no-install-recommends sweethome3d-furniture"
)
EVEN = Lights(1.0, ())  # colours come out as they are
RED, GREEN, BLUE = (Material(name, colour) for name, colour in (("r", (1.0, 0, 0)), ("g", (0, 1.0, 0)), ("b", (0, 0, 1.0))))


def parsed(text: str, **files: bytes) -> Mesh:
    """The mesh of an OBJ text; files beside it are named with `_` for the dot."""
    known = {"a.obj": text.encode(), **{name.replace("_", "."): data for name, data in files.items()}}
    return obj.read_obj("a.obj", known.get)


def png(*rows: list[tuple[int, ...]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.array(rows, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def view(
    mesh: Mesh, size: int = 33, samples: int = 1, focal: float = 33.0, viewmat: np.ndarray | None = None, lights: Lights = EVEN
):
    """What a camera at the origin, looking along +z, sees."""
    matrix = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return Renderer(mesh, lights).render(np.eye(4) if viewmat is None else viewmat, matrix, size, size, samples)


def card(x: float, y: float, z: float, side: float, material: Material) -> Mesh:
    """A square across the line of sight whose picture stands upright there (y is down)."""
    return quad([x - side / 2, y + side / 2, z], [side, 0, 0], [0, -side, 0], material)


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
    good = card(0, 0, 1, 1, RED)
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


# Pictures


def test_colour_depth_and_normal_at_the_centre_are_exact():
    picture = view(card(0, 0, 2.5, 1, GREEN))
    assert picture.rgb[16, 16].tolist() == [0, 1, 0]
    assert picture.depth[16, 16] == pytest.approx(2.5, abs=1e-4)
    assert np.allclose(picture.normals[16, 16], [0, 0, -1], atol=1e-6)
    assert picture.alpha[0, 0] == picture.depth[0, 0] == 0
    assert picture.rgb[0, 0].tolist() == [1, 1, 1]


def test_depth_is_along_z_everywhere_on_a_plane():
    depth = view(card(0, 0, 3, 20, RED), samples=2).depth
    assert np.abs(depth - 3).max() < 1e-4


def test_x_is_right_and_y_is_down():
    picture = view(merged([card(0.5, 0, 2, 0.4, RED), card(0, 0.5, 2, 0.4, GREEN), card(0, 0, 2, 0.4, BLUE)]))
    assert picture.rgb[16, 24].tolist() == [1, 0, 0]
    assert picture.rgb[24, 16].tolist() == [0, 1, 0]
    assert picture.rgb[8, 16].tolist() == [1, 1, 1]


def test_a_camera_of_the_world_sees_plus_x_right_and_plus_z_up():
    viewmat = cameras.looking_at([0, -4, 0], [0, 0, 0])
    cubes = [box(np.subtract(at, 0.2), np.add(at, 0.2), [material]) for at, material in (((1, 0, 0), RED), ((0, 0, 1), GREEN))]
    picture = view(merged(cubes), viewmat=viewmat)
    assert picture.rgb[16, 24].tolist() == [1, 0, 0]
    assert picture.rgb[8, 16].tolist() == [0, 1, 0]


def test_points_appear_where_the_matrices_put_them():
    rng = np.random.default_rng(3)
    for _ in range(10):
        eye, point = rng.normal(size=3) * 2, rng.uniform(-0.3, 0.3, 3)
        viewmat = cameras.looking_at(eye, rng.uniform(-0.2, 0.2, 3))
        picture = view(box(point - 0.03, point + 0.03, [RED]), 64, 4, 80.0, viewmat)
        seen = viewmat[:3, :3] @ point + viewmat[:3, 3]
        rows, columns = np.mgrid[:64, :64] + 0.5
        centre = [(picture.alpha * axis).sum() / picture.alpha.sum() for axis in (columns, rows)]
        assert np.allclose(centre, 80 * seen[:2] / seen[2] + 32, atol=0.25)


def test_pixels_are_means_of_their_samples():
    half = quad([-5, 5, 1], [5, 0, 0], [0, -10, 0], RED)  # covers the left half, its edge in the middle of pixel 16
    picture = view(half, samples=4)
    assert picture.alpha[16, [15, 16, 17]].tolist() == [1, 0.5, 0]
    assert np.allclose(picture.rgb[16, 16], [1, 0.5, 0.5])


def test_a_texture_stands_upright_and_is_not_mirrored():
    image = np.array([[[255, 0, 0, 255], [0, 255, 0, 255]], [[0, 0, 255, 255], [255, 255, 0, 255]]], np.uint8)
    rgb = view(card(0, 0, 1, 0.9, Material("t", texture=image))).rgb
    quarters = rgb[[9, 9, 24, 24], [9, 24, 9, 24]]
    assert np.allclose(quarters, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], atol=0.1)


def test_textures_are_blended_between_texels_and_wrap():
    image = np.zeros((1, 2, 4), np.uint8)
    image[..., 3], image[0, 1, :3] = 255, 255
    wide = quad([-1, 1, 1], [2, 0, 0], [0, -2, 0], Material("t", texture=image), repeat=(2, 1))
    row = view(wide, 64, focal=32.0).rgb[32, :, 0]
    assert np.allclose(row[:32], row[32:], atol=1e-5)
    assert row[0] == pytest.approx(0.5 - 0.5 / 16, abs=1e-3)
    assert row[8] == pytest.approx(0.5 / 16, abs=1e-3)


def test_fine_textures_turn_grey_in_the_distance():
    squares = np.indices((256, 256)).sum(0)[..., None] % 2 * np.array([255, 255, 255, 0]) + np.array([0, 0, 0, 255])
    rgb = view(card(0, 0, 1, 0.9, Material("t", texture=squares.astype(np.uint8)))).rgb[4:29, 4:29]
    assert np.abs(rgb - 0.5).max() < 0.01


def test_what_is_behind_glass_shines_through():
    glass = Material("glass", (1.0, 0, 0), opacity=0.25)
    picture = view(merged([card(0, 0, 1, 0.5, glass), card(0, 0, 2, 1, BLUE)]))
    assert np.allclose(picture.rgb[16, 16], [0.25, 0, 0.75], atol=0.01)
    assert picture.depth[16, 16] == pytest.approx(2, abs=1e-4)
    alone = view(card(0, 0, 1, 0.5, glass))
    assert alone.alpha[16, 16] == pytest.approx(0.25, abs=0.01)
    assert alone.depth[16, 16] == 0


def test_holes_in_a_texture_are_empty_and_hide_their_colour():
    image = np.array([[[0, 255, 0, 0], [255, 0, 0, 255]]], np.uint8)
    picture = view(card(0, 0, 1, 0.9, Material("t", texture=image)))
    assert picture.alpha[16, 8] < 0.1
    assert picture.rgb[..., 1].min() >= 0
    assert np.allclose(picture.rgb[16, 24], [1, 0, 0], atol=0.06)
    assert (picture.rgb[16, 2:31, 1] <= picture.rgb[16, 2:31, 2] + 1e-6).all()  # no green rim


def test_both_sides_of_a_surface_are_lit_and_light_does_not_move_with_the_camera():
    lights = Lights(0.3, (((0, 0, -1), 0.7),))
    assert view(card(0, 0, 1, 0.5, RED), lights=lights).rgb[16, 16, 0] == pytest.approx(1)
    wall = quad([-1, 0, -1], [2, 0, 0], [0, 0, 2], RED)
    lights = Lights(0.3, (((0, -0.6, 0.8), 0.7),))
    seen = [
        view(wall, viewmat=cameras.looking_at(eye, [0, 0, 0]), lights=lights).rgb[16, 16, 0] for eye in ([0, -3, 1], [2, -3, 0])
    ]
    assert seen == pytest.approx([0.3 + 0.7 * 0.6] * 2, abs=1e-4)
    assert view(wall, viewmat=cameras.looking_at([0, 3, 1], [0, 0, 0]), lights=lights).rgb[16, 16, 0] == pytest.approx(
        0.3, abs=1e-4
    )


def test_nothing_is_background():
    nothing = parsed("v 0 0 0")
    picture = view(nothing)
    assert (picture.rgb == 1).all()
    assert not picture.alpha.any()
    assert Renderer(nothing).distances(np.zeros((1, 3)), np.ones((1, 3))).tolist() == [np.inf]


def test_impossible_views_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        view(card(0, 0, 1, 1, RED), size=0)
    with pytest.raises(ValueError, match="straight up"):
        cameras.looking_at([0, 0, 0], [0, 0, 1])
    with pytest.raises(ValueError, match="no split 'test': take one of train, held_out"):
        cameras.phase("test")


# The catalogue


def test_a_missing_package_is_named_with_its_remedy(tmp_path):
    with pytest.raises(models.FurnitureError, match="apt-get install -y --no-install-recommends sweethome3d-furniture"):
        models.catalogue(tmp_path)


@installed
def test_the_catalogue_names_models_makers_and_licences():
    catalogue = models.catalogue()
    assert len(catalogue) > 800
    assert len({model.key for model in catalogue}) == len(catalogue)
    assert all(model.creator and model.licence and model.name and min(model.size) > 0 for model in catalogue)
    assert models.credit(models.find("plaidChair")).startswith(
        "Chair (BlendSwap-CC-BY#plaidChair) by Cezar, Creative Commons Attr"
    )
    # The notice beside a model binds, where its library says less.
    assert models.find("winchesterSofa").licence == "Creative Commons Attribution 3.0"


@installed
def test_models_are_found_by_number_key_and_short_name():
    assert models.find(models.find("teddyBear").key) == models.find("teddyBear")
    assert models.find(3) == models.catalogue()[3]
    with pytest.raises(
        models.FurnitureError, match="more than one model is called 'bed1': take one of BlendSwap-CC-0#bed1, Scopia#bed1"
    ):
        models.find("bed1")
    with pytest.raises(models.FurnitureError, match="no model is called 'Scopia#bed9': take one of"):
        models.find("Scopia#bed9")
    with pytest.raises(models.FurnitureError, match="0 to"):
        models.find(10_000)


@installed
def test_a_model_stands_on_the_floor_at_its_real_size():
    model = models.find("oakChair")
    low, high = models.load(model).bounds
    width, depth, height = model.size
    assert np.allclose(low, [-width / 2, -depth / 2, 0], atol=1e-5)
    assert np.allclose(high, [width / 2, depth / 2, height], atol=1e-5)


@installed
def test_the_front_of_a_chair_looks_towards_minus_y():
    mesh = models.load(models.find("plaidChair"))
    assert mesh.vertices[mesh.vertices[:, 2] > 0.6, 1].mean() > 0.1  # its back rest


# Scenes


@installed
def test_objects_fill_the_unit_ball_and_fit_into_every_picture():
    scene = scenes.object_scene("teddyBear")
    assert np.linalg.norm(scene.mesh.vertices, axis=1).max() == pytest.approx(1, abs=1e-5)
    views = scenes.posed_views(scene, 6, 48)
    alphas = views["alphas"]
    assert not alphas[:, [0, -1]].any()
    assert not alphas[:, :, [0, -1]].any()
    assert (alphas.mean((1, 2)) > 0.05).all()
    assert {name: array.shape for name, array in views.items()} == {
        "images": (6, 48, 48, 3), "alphas": (6, 48, 48), "depths": (6, 48, 48), "viewmats": (6, 4, 4), "Ks": (6, 3, 3),
    }  # fmt: skip
    assert all(array.dtype == np.float32 for array in views.values())


def warped(views: dict[str, np.ndarray], a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours [N, 3] of picture `a` and of the same points in picture `b`, carried over by depth and matrices."""
    matrix, size = views["Ks"][0].astype(float), views["depths"].shape[1]
    rows, columns = np.nonzero(views["depths"][a])
    depth = views["depths"][a][rows, columns]
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
    camera = np.concatenate([np.linalg.inv(matrix) @ pixels * depth, np.ones((1, len(rows)))])
    other = (views["viewmats"][b].astype(float) @ np.linalg.inv(views["viewmats"][a].astype(float)) @ camera)[:3]
    at = np.floor((matrix @ other)[:2] / other[2]).astype(int)
    is_inside = (other[2] > 0) & (at >= 0).all(0) & (at < size).all(0)
    rows, columns, at, z = rows[is_inside], columns[is_inside], at[:, is_inside], other[2, is_inside]
    is_same = np.abs(views["depths"][b][at[1], at[0]] - z) < 0.02 * z  # the rest is hidden from `b`
    return views["images"][a][rows, columns][is_same], views["images"][b][at[1], at[0]][is_same]


@installed
def test_a_picture_carried_over_by_its_depth_matches_the_other_picture():
    views = scenes.posed_views(scenes.object_scene("teddyBear"), 40, 96)
    for a, b in ((0, 8), (20, 28), (25, 33)):
        mine, theirs = warped(views, a, b)
        assert len(mine) > 300
        assert np.median(np.abs(mine - theirs)) < 0.03


@installed
def test_the_same_arguments_give_the_same_pictures():
    first, second = (scenes.posed_views(scenes.object_scene("shopping-basket"), 3, 40) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_cameras_of_an_object_look_at_it_and_splits_differ():
    renderer = Renderer(card(0, 0, 0, 1, RED))
    both = np.concatenate([cameras.on_sphere(renderer, count, split, 3.0) for split, count in (("train", 48), ("held_out", 8))])
    eyes = -np.einsum("vji,vj->vi", both[:, :3, :3], both[:, :3, 3])
    assert np.allclose(both[:, :3, 3], [0, 0, 3], atol=1e-12)
    elevation = np.degrees(np.arcsin(eyes[:, 2] / 3))
    assert elevation.min() >= -10
    assert elevation.max() <= 70
    distance = np.linalg.norm(eyes[:, None] - eyes[None], axis=-1) + 9 * np.eye(len(eyes))
    assert distance.min() > 0.1


def _gap(first: rooms.Piece, second: rooms.Piece) -> float:
    return float((np.abs(np.subtract(first.position[:2], second.position[:2])) - first.footprint - second.footprint).max())


@installed
def test_rooms_hold_six_to_twelve_pieces_that_do_not_overlap():
    for seed in range(25):
        room = rooms.plan_room(seed)
        assert room == rooms.plan_room(seed)
        assert 6 <= len(room.pieces) <= 12
        assert all((np.abs(piece.position[:2]) + piece.footprint <= np.array(room.size) / 2).all() for piece in room.pieces)
        assert all(piece.height < rooms.HEIGHT for piece in room.pieces + room.ornaments)
        assert min(_gap(a, b) for i, a in enumerate(room.pieces) for b in room.pieces[:i]) > 0.03


@installed
def test_furniture_along_a_wall_turns_its_back_to_it():
    bed = next(piece for piece in rooms.plan_room(12).pieces if piece.role == "bed")
    back = bed.matrix @ [0, bed.model.size[1] / 2, 0, 1]
    assert min(np.array(rooms.plan_room(12).size) / 2 - np.abs(back[:2])) == pytest.approx(0.03, abs=1e-6)


@installed
def test_seeds_are_checked():
    with pytest.raises(ValueError, match="seed is -1"):
        rooms.plan_room(-1)
    with pytest.raises(ValueError, match="0 views of 8 pixels"):
        scenes.posed_views(scenes.object_scene("teddyBear"), 0, 8)


@installed
@pytest.mark.slow
def test_cameras_of_a_room_have_space_around_them_and_something_to_see():
    scene = scenes.room_scene(scenes.ROOMS[0])
    for split in cameras.SPLITS:
        views = scenes.posed_views(scene, 8, 48, split)
        eyes = -np.einsum("vji,vj->vi", views["viewmats"][:, :3, :3], views["viewmats"][:, :3, 3])
        assert ((eyes[:, 2] > 1.2) & (eyes[:, 2] < 1.8)).all()
        assert views["depths"].min() > 0.15
        assert (np.median(views["depths"], (1, 2)) > 0.8).all()
        assert views["alphas"].min() > 0.98
        assert views["images"].std((1, 2)).max(1).min() > 0.1  # not flat


@installed
@pytest.mark.slow
def test_rooms_are_the_same_each_time():
    first, second = (scenes.posed_views(scenes.room_scene(16), 2, 32) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@installed
@pytest.mark.slow
def test_every_model_of_the_catalogue_can_be_drawn():
    for number in range(len(models.catalogue())):
        scene = scenes.object_scene(number)
        assert np.isfinite(scene.mesh.vertices[scene.mesh.triangles]).all(), scene.name
        views = scenes.posed_views(scene, 2, 32)
        assert all(np.isfinite(array).all() for array in views.values()), scene.name
        assert views["alphas"].any(), scene.name


# Files that are written


def test_straight_alpha_gives_back_the_colour():
    rgba = export.over_nothing(np.array([[[1, 0.5, 0.5], [1, 1, 1]]]), np.array([[0.5, 0.0]]))
    assert rgba.tolist() == [[[1, 0, 0, 0.5], [0, 0, 0, 0]]]


def test_camera_to_world_uses_axes_of_opengl():
    matrix = export.camera_to_world(cameras.looking_at([0, -4, 0], [0, 0, 0]))
    assert np.allclose(matrix, [[1, 0, 0, 0], [0, 0, -1, -4], [0, 1, 0, 0], [0, 0, 0, 1]])


@installed
def test_the_command_writes_pictures_cameras_and_credits(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.furniture",
        "--out",
        str(tmp_path),
        "--size",
        "24",
        "--views",
        "3",
        "--held-out",
        "1",
    ]
    subprocess.run([*command, "--objects", "teddyBear", "--rooms"], cwd=ROOT, check=True, capture_output=True)
    folder = tmp_path / "BlendSwap-CC-0-teddyBear"
    cameras_file = json.loads((folder / "transforms.json").read_text())
    assert cameras_file["test_filenames"] == ["images/held_out_000.png"]
    assert len(cameras_file["frames"]) == 4
    assert (cameras_file["w"], cameras_file["cx"]) == (24, 12.0)
    with Image.open(folder / cameras_file["frames"][0]["file_path"]) as image:
        assert (image.mode, image.size) == ("RGBA", (24, 24))
    assert "Manitislate" in (tmp_path / "CREDITS.txt").read_text()
    assert (tmp_path / "contact.png").exists()


@installed
def test_the_command_says_which_name_is_wrong(tmp_path):
    command = [sys.executable, "-m", "benchmarks.furniture", "--out", str(tmp_path), "--objects", "tedyBear", "--rooms"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no model is called 'tedyBear'")


def test_placing_turns_counter_clockwise_from_above():
    assert np.allclose(placed(np.pi / 2, [1, 2, 3]) @ [1, 0, 0, 1], [1, 3, 3, 1])
