"""The source of meshes that are drawn on reading, and the readers of mesh files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

pytest.importorskip("embreex", reason="meshes are drawn with embreex: pip install embreex")

from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng
from mixtura_diffusion_gs.data.mesh_files import read_mesh
from mixtura_diffusion_gs.data.meshes import MeshViews
from mixtura_diffusion_gs.furniture import models

installed = pytest.mark.skipif(
    not list(models.FOLDER.glob("*.sh3f")), reason="no models: apt-get install --no-install-recommends sweethome3d-furniture"
)
SQUARE = "v -1 0 -1\nv 1 0 -1\nv 1 0 1\nv -1 0 1\nf 1 2 3 4\n"
RED = (200, 10, 20)


def source(root: Path, **settings: Any) -> MeshViews:
    around = {"rule": "angles", "network": 2, "novel": 1}
    values = {"type": "mesh_views", "size": 24, "cameras": 12, "samples": 1, "views": around, **settings}
    return MeshViews(MeshViews.Config.model_validate(values), name="meshes", root=root)


def red_box(file: Path) -> Path:
    """A box, twice as long along the file's y as along the others."""
    trimesh = pytest.importorskip("trimesh")
    box = trimesh.creation.box(extents=(1, 2, 1))
    box.visual.face_colors = [*RED, 255]
    box.export(str(file))
    return file


@pytest.mark.parametrize("ending", ["ply", "glb", "off"])
def test_files_keep_shape_and_colour(tmp_path, ending):
    mesh = read_mesh(red_box(tmp_path / f"box.{ending}"), "y")
    assert np.allclose(np.ptp(mesh.vertices, axis=0), [1, 1, 2], atol=1e-5)
    assert len(mesh.triangles) == 12
    assert np.allclose(np.linalg.norm(mesh.normals, axis=-1), 1, atol=1e-4)
    texture = mesh.materials[0].texture
    assert texture is not None
    if ending != "off":
        assert texture[0, 0, :3].tolist() == list(RED)


def test_the_axis_that_is_up_is_a_setting(tmp_path):
    assert np.allclose(np.ptp(read_mesh(red_box(tmp_path / "box.stl"), "z").vertices, axis=0), [1, 2, 1], atol=1e-5)


def test_a_textured_file_keeps_its_picture(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    from PIL import Image

    image = Image.new("RGB", (4, 4), RED)
    visual = trimesh.visual.TextureVisuals(uv=np.zeros((4, 2)), image=image)
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False).export(str(tmp_path / "card.glb"))
    texture = read_mesh(tmp_path / "card.glb", "y").materials[0].texture
    assert texture is not None
    assert texture.shape == (4, 4, 4)
    assert texture[0, 0, :3].tolist() == list(RED)


def test_files_are_drawn_with_depths_and_masks(tmp_path):
    (tmp_path / "card.obj").write_text(SQUARE)
    red_box(tmp_path / "box.ply")
    meshes = source(tmp_path, what="files", files="*.[op][bl][jy]")
    assert [item.name for item in meshes.items] == ["box.ply", "card.obj"]
    fields = meshes.read(0, KeyedRng(1)).fields
    assert fields["images"].shape == (3, 24, 24, 3)
    middle = fields["images"][0, 12, 12].astype(int)
    assert middle[0] > 80 > middle[1:].max()
    assert fields["masks"][:, 12, 12].all()
    assert not fields["masks"][:, 0].any()
    assert (np.abs(fields["depths"][:, 12, 12] - 2.5) < 0.5).all()
    assert np.linalg.norm(fields["c2w"][0, :3, 3]) == pytest.approx(3)


def test_reading_is_pure_whatever_is_kept_and_survives_pickling(tmp_path):
    for name in ("a", "b", "c"):
        red_box(tmp_path / f"{name}.ply")
    meshes = source(tmp_path, what="files", files="*.ply", keep=1)
    first = [meshes.read(index, KeyedRng(index)) for index in (0, 1, 2)]
    again = pickle.loads(pickle.dumps(meshes))
    assert again.info == meshes.info
    for index in (2, 0, 1):
        second = again.read(index, KeyedRng(index))
        assert all(np.array_equal(first[index].fields[name], second.fields[name]) for name in second.fields)
        assert second.key == first[index].key


@pytest.mark.parametrize(("name", "text"), [("points.obj", "v 0 0 0\nv 1 0 0\n"), ("broken.obj", "f 1 2 3"), ("empty.obj", "")])
def test_an_empty_mesh_is_one_clear_error(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadSample, match=f"{name}: the mesh is empty, it has no triangles to draw"):
        source(tmp_path, what="files", files="*.obj").read(0, KeyedRng(1))


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(DataError, match="no file has this name"):
        source(tmp_path, what="files", files="*.glb")
    with pytest.raises(DataError, match="no such mesh file"):
        read_mesh(tmp_path / "none.obj", "y")
    (tmp_path / "bad.glb").write_bytes(b"nothing of this kind")
    with pytest.raises(BadSample, match="bad.glb: can't be read as a mesh"):
        source(tmp_path, what="files", files="bad.glb").read(0, KeyedRng(1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"what": "files"}, "give both or neither"),
        ({"what": "objects", "files": "*.obj"}, "give both or neither"),
        ({"what": "rooms", "kind": "object"}, "can't be of kind object"),
        ({"rig": "rings", "cameras": 13}, "must be a multiple of 3"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, settings, said):
    with pytest.raises(ValidationError, match=said):
        source(tmp_path, **settings)


@installed
def test_objects_are_picked_by_name_collection_and_part(tmp_path):
    assert source(tmp_path, models=["teddyBear"]).items == ["BlendSwap-CC-0#teddyBear"]
    assert len(source(tmp_path, collections=["Reallusion"])) == 25
    both = [set(source(tmp_path, part=part).items) for part in ("training", "held-out")]
    assert not both[0] & both[1]
    assert len(both[0] | both[1]) == len(models.catalogue())
    assert 0.05 < len(both[1]) / len(models.catalogue()) < 0.12
    with pytest.raises(DataError, match="none is called 'Ikea'; take some of BlendSwap"):
        source(tmp_path, collections=["Ikea"])
    with pytest.raises(DataError, match="none of the models"):
        source(tmp_path, models=["oakChair"], part="held-out")


@installed
def test_rings_are_two_level_rings(tmp_path):
    chairs = source(tmp_path, models=["oakChair"], rig="rings", views={"rule": "all", "network": 2})
    eyes = chairs.read(0, KeyedRng(1)).fields["c2w"][:, :3, 3]
    elevation = np.degrees(np.arcsin(eyes[:, 2] / np.linalg.norm(eyes, axis=1)))
    assert np.ptp(elevation[:8]) < 0.01 > np.ptp(elevation[8:])
    assert 5 <= elevation[0] <= 30
    assert abs(elevation[8]) <= 5


@installed
@pytest.mark.slow
def test_rooms_are_scenes_without_masks(tmp_path):
    rooms = source(tmp_path, what="rooms", first_room=3, rooms=2, cameras=24, frame={"type": "scene", "scale": 0.4})
    fields = rooms.read(1, KeyedRng(1)).fields
    assert fields["kind"] == "scene"
    assert "masks" not in fields
    assert 0 < np.median(fields["depths"]) < 4
