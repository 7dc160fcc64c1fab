"""The generator of furniture views: its split, its files, what a killed run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

pytest.importorskip("embreex", reason="furniture is drawn with embreex: pip install embreex")

from mixtura.data.generator import Generator
from mixtura.errors import DataError
from mixtura.rng import KeyedRng
from mixtura_diffusion_gs.data import synth
from mixtura_diffusion_gs.data.folders import ViewFolders
from mixtura_diffusion_gs.data.synth import FurnitureViews, is_held_out, room_models, split
from mixtura_diffusion_gs.data.write import steps
from mixtura_diffusion_gs.furniture import models

pytestmark = pytest.mark.skipif(
    not list(models.FOLDER.glob("*.sh3f")), reason="no models: apt-get install --no-install-recommends sweethome3d-furniture"
)
SMALL = {
    "objects": 2, "held_out_objects": 1, "held_out_collection": None, "rooms": 0, "held_out_rooms": 0,
    "size": 24, "views": 12, "samples": 1, "processes": 0,
}  # fmt: skip


def generator(root: Path, seed: int = 1, **settings: Any) -> FurnitureViews:
    values = {"type": "furniture_views", "path": "data", **SMALL, **settings}
    return FurnitureViews(FurnitureViews.Config.model_validate(values), root=root, seed=seed)


def run(made: FurnitureViews) -> list[str]:
    """Run a generator; gives what it said."""
    said: list[str] = []
    made.run(said.append)
    return said


def source(root: Path, path: str, **settings: Any) -> ViewFolders:
    values = {"type": "views", "path": path, "size": 24, "depth": "require", **settings}
    return ViewFolders(ViewFolders.Config.model_validate(values), name="a", root=root)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# The split


def test_what_is_held_out_never_trains_and_never_stands_in_a_room():
    config = FurnitureViews.Config(path="a")
    parts = {part.folder: part for part in split(config, 17)}
    training, held_out, collection = (
        set(parts[name].candidates) for name in ("objects", "held-out-objects", "held-out-collection")
    )
    assert not training & held_out
    assert not (training | held_out) & collection
    assert not room_models() & (held_out | collection)
    assert len(collection) == 25
    assert len(held_out) >= 40
    assert len(training | held_out | collection) == len(models.catalogue())
    assert not set(parts["rooms"].candidates) & set(parts["held-out-rooms"].candidates)


def test_seeds_change_the_order_but_not_what_is_held_out():
    first, second = ({part.folder: part.candidates for part in split(FurnitureViews.Config(path="a"), seed)} for seed in (1, 2))
    assert first["objects"] != second["objects"]
    assert set(first["objects"]) == set(second["objects"])
    assert all(map(is_held_out, map(str, first["held-out-objects"])))
    assert not set(first["rooms"]) & set(second["rooms"])


def test_more_than_there_is_is_refused():
    with pytest.raises(DataError, match="objects: 5000 are asked for, the catalogue has"):
        split(FurnitureViews.Config(path="a", objects=5000), 1)
    with pytest.raises(DataError, match="none is called 'Ikea'; take one of BlendSwap-CC-0"):
        split(FurnitureViews.Config(path="a", held_out_collection="Ikea"), 1)
    with pytest.raises(DataError, match="rooms use .* models of Scopia"):
        split(FurnitureViews.Config(path="a", held_out_collection="Scopia"), 1)
    with pytest.raises(ValidationError, match="multiple of 3"):
        FurnitureViews.Config(path="a", rig="rings", views=40)
    with pytest.raises(ValidationError, match="at least one scene"):
        FurnitureViews.Config(path="a", objects=0, rooms=0)


# The data


def test_a_run_writes_folders_that_the_source_reads(tmp_path):
    made = generator(tmp_path)
    assert isinstance(made, Generator)
    assert not made.done()
    folders = made.run(lambda text: None)
    assert made.done()
    assert [folder.name for folder in folders] == ["objects", "held-out-objects"]
    chairs = source(tmp_path, "data/objects", views={"rule": "all", "network": 2})
    assert len(chairs) == 2
    fields = chairs.read(0, KeyedRng(1)).fields
    assert fields["images"].shape == (12, 24, 24, 3)
    seen = fields["depths"][fields["masks"]]
    assert (seen > 1.9).all()
    assert (seen < 4.1).all()
    assert (tmp_path / "data" / "CREDITS.txt").read_text().count("from sweethome3d-furniture") == 3
    with Image.open(tmp_path / "data" / "contact.png") as sheet:
        assert sheet.size[0] == 16 * 24
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_depths_and_cameras_of_a_sample_agree(tmp_path):
    generator(tmp_path, views=30, size=48, objects=1, held_out_objects=0).run(lambda text: None)
    fields = (
        source(tmp_path, "data/objects", size=48, views={"rule": "angles", "network": 2, "novel": 0}).read(0, KeyedRng(2)).fields
    )
    fx, fy, cx, cy = fields["intrinsics"][0]
    rows, columns = np.nonzero(fields["depths"][0] * fields["masks"][0])
    depth = fields["depths"][0][rows, columns]
    camera = np.stack([(columns + 0.5 - cx) / fx * depth, (rows + 0.5 - cy) / fy * depth, depth, np.ones_like(depth)])
    other = np.linalg.inv(fields["c2w"][1]) @ fields["c2w"][0] @ camera
    at = np.floor(np.stack([other[0] / other[2] * fx + cx, other[1] / other[2] * fy + cy])).astype(int)
    there = fields["depths"][1][np.clip(at[1], 0, 47), np.clip(at[0], 0, 47)]
    visible = np.abs(there - other[2]) < 0.05 * other[2]
    assert visible.mean() > 0.5
    gap = fields["images"][0][rows, columns].astype(int) - fields["images"][1][np.clip(at[1], 0, 47), np.clip(at[0], 0, 47)]
    assert np.median(np.abs(gap[visible])) < 25


def test_the_same_seed_gives_the_same_files_in_any_number_of_processes(tmp_path):
    generator(tmp_path / "a").run(lambda text: None)
    generator(tmp_path / "b", processes=2).run(lambda text: None)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_done_is_for_exactly_this_configuration_and_seed(tmp_path):
    run(generator(tmp_path))
    assert generator(tmp_path, processes=3).done()
    assert not generator(tmp_path, seed=2).done()
    assert not generator(tmp_path, samples=2).done()
    assert run(generator(tmp_path)) == []
    with pytest.raises(DataError, match="holds other data"):
        run(generator(tmp_path, seed=2))


def test_a_killed_run_looks_unfinished_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    made, drawn = generator(tmp_path), []

    def dies_at_the_second(job: synth.Job) -> synth.Scene:
        drawn.append(job.what)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return original(job)

    original = synth.scene_of
    monkeypatch.setattr(synth, "scene_of", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        made.run(lambda text: None)
    assert not made.done()
    assert not (tmp_path / "data").exists()
    run(made)
    assert made.done()
    assert drawn[1] == drawn[2]
    assert drawn.count(drawn[0]) == 1


def test_what_another_configuration_left_is_thrown_away(tmp_path):
    left = tmp_path / "data.part" / "objects" / "old"
    left.mkdir(parents=True)
    (tmp_path / "data.part" / "recipe.json").write_text(json.dumps({"seed": 9}))
    run(generator(tmp_path))
    assert not (tmp_path / "data" / "objects" / "old").exists()


def test_models_that_show_almost_nothing_are_left_out(tmp_path, monkeypatch):
    keys = [str(key) for key in split(generator(tmp_path).config, 1)[0].candidates[:3]]
    original = synth.posed_views

    def thin(scene: Any, *arguments: Any, **options: Any) -> dict[str, np.ndarray]:
        drawn = original(scene, *arguments, **options)
        return {**drawn, "alphas": drawn["alphas"] * 1e-3} if scene.name == keys[0] else drawn

    monkeypatch.setattr(synth, "posed_views", thin)
    said = run(generator(tmp_path))
    assert f"objects: {keys[0]} is left out, it covers less than 1% of its pictures" in said
    names = {path.name for path in (tmp_path / "data" / "objects").iterdir()}
    assert names == {key.replace("#", "-") for key in keys[1:]}


def test_depths_that_do_not_fit_into_sixteen_bits_are_unknown():
    assert steps(np.array([[0.0, 1.0, 6.5535, 7.0]]), 1e-4).tolist() == [[0, 10000, 65535, 0]]


@pytest.mark.slow
def test_rooms_are_written_as_scenes_with_depth_everywhere(tmp_path):
    run(generator(tmp_path, objects=0, held_out_objects=0, rooms=1, views=40))
    rooms = source(tmp_path, "data/rooms", kind="scene", frame={"type": "scene", "scale": 0.4})
    for seed in range(20):
        fields = rooms.read(0, KeyedRng(seed)).fields
        assert "masks" not in fields
        assert (fields["depths"] > 0).mean() > 0.97
