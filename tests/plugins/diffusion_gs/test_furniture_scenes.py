"""Furniture: the catalogue, scenes with their cameras, files that are written."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("embreex", reason="furniture is drawn with embreex: pip install embreex")

from mixtura_diffusion_gs.furniture import cameras, export, models, rooms, scenes
from mixtura_diffusion_gs.furniture.render import Renderer
from tests.plugins.diffusion_gs.cards import RED, card

installed = pytest.mark.skipif(
    not list(models.FOLDER.glob("*.sh3f")), reason="no models: apt-get install --no-install-recommends sweethome3d-furniture"
)


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
        "mixtura_diffusion_gs.furniture",
        "--out",
        str(tmp_path),
        "--size",
        "24",
        "--views",
        "3",
        "--held-out",
        "1",
    ]
    subprocess.run([*command, "--objects", "teddyBear", "--rooms"], check=True, capture_output=True)
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
    command = [sys.executable, "-m", "mixtura_diffusion_gs.furniture", "--out", str(tmp_path), "--objects", "tedyBear", "--rooms"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no model is called 'tedyBear'")
