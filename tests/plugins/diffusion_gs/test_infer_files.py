"""`mixtura infer` on pictures and prompts: what is written, that others can read it, and what is refused before any work."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from plyfile import PlyData

from mixtura.errors import ConfigError, DataError
from mixtura_diffusion_gs.furniture.models import FOLDER, FurnitureError
from mixtura_diffusion_gs.system import DiffusionGS
from mixtura_diffusion_gs.use import files
from mixtura_diffusion_gs.use.examples import EXAMPLES, write_example

Build = Callable[..., DiffusionGS]
QUICK = {"frames": 2, "size": 32, "resolution": 24}
FILES = {"condition.png", "gaussians.ply", "info.json", "turntable.mp4", "views.png"}


def ball(path: Path) -> Path:
    """A red disc on white."""
    y, x = np.mgrid[:64, :64] - 31.5
    pixels = np.full((64, 64, 3), 255, np.uint8)
    pixels[x * x + y * y < 400] = (200, 30, 30)
    Image.fromarray(pixels).save(path)
    return path


def quiet(text: str) -> None:
    """Nobody listens."""


@pytest.fixture
def solid(build: Build, monkeypatch: pytest.MonkeyPatch) -> DiffusionGS:
    """A system whose Gaussians are a ball: random weights make none that a mesh could be found of."""
    system = build()
    directions = torch.nn.functional.normalize(torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)), dim=-1)

    def infer(**inputs: Any) -> dict[str, Any]:
        many = {"means": 0.5 * directions, "quats": torch.eye(4)[:1].expand(4000, 4), "scales": torch.full((4000, 3), 0.03),
                "opacities": torch.full((4000,), 0.95), "sh": torch.full((4000, 1, 3), 0.5)}  # fmt: skip
        return {
            **{name: value[None] for name, value in many.items()},
            "renders": inputs["image"][:, None].expand(-1, 4, -1, -1, -1),
        }

    monkeypatch.setattr(system, "infer", infer)
    return system


def test_a_picture_becomes_gaussians_a_mesh_and_a_clip(solid: DiffusionGS, tmp_path: Path) -> None:
    written = files.infer_files(solid, [ball(tmp_path / "ball.png")], tmp_path / "out", QUICK, quiet)
    folder = tmp_path / "out" / "ball"
    assert {path.name for path in folder.iterdir()} == FILES | {"mesh.glb"}
    assert {path.name for path in written} == FILES | {"mesh.glb"}
    mesh = trimesh.load(folder / "mesh.glb", force="mesh")
    assert np.linalg.norm(mesh.vertices, axis=1).mean() == pytest.approx(0.53, abs=0.05)
    with av.open(str(folder / "turntable.mp4")) as clip:
        assert sum(1 for _ in clip.decode(video=0)) == 2


def test_other_programs_read_the_ply_with_the_same_count(build: Build, tmp_path: Path) -> None:
    files.infer_files(build(), [ball(tmp_path / "ball.png")], tmp_path / "out", {**QUICK, "mesh": False}, quiet)
    path = tmp_path / "out/ball/gaussians.ply"
    kept = json.loads((path.parent / "info.json").read_text())["Gaussians kept"]
    assert len(PlyData.read(str(path))["vertex"]) == kept
    assert len(trimesh.load(path).vertices) == kept


def test_several_seeds_lie_side_by_side(build: Build, tmp_path: Path) -> None:
    settings = {**QUICK, "mesh": False, "clip": False, "seeds": [1, 2]}
    files.infer_files(build(), [ball(tmp_path / "ball.png")], tmp_path / "out", settings, quiet)
    one, two = ((tmp_path / f"out/ball/seed-{seed}/views.png").read_bytes() for seed in (1, 2))
    assert one != two


def test_a_scene_is_seen_whole_and_flown_through(build: Build, tmp_path: Path) -> None:
    files.infer_files(build(), [ball(tmp_path / "room.png")], tmp_path / "out", {**QUICK, "kind": "scene", "mesh": False}, quiet)
    shown = np.asarray(Image.open(tmp_path / "out/room/condition.png"))
    assert (shown[0, 0] == 255).all()
    assert (tmp_path / "out/room/turntable.mp4").is_file()


def test_faint_gaussians_have_no_mesh_and_the_rest_is_written(build: Build, tmp_path: Path) -> None:
    said: list[str] = []
    files.infer_files(build(), [ball(tmp_path / "ball.png")], tmp_path / "out", {**QUICK, "clip": False}, said.append)
    folder = tmp_path / "out/ball"
    assert (folder / "gaussians.ply").is_file()
    assert (folder / "mesh.glb").is_file() or any("no mesh" in line for line in said)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On a busy machine sums over several threads may be split in other ways, which bytes show."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_watching_the_steps_gives_what_inference_gives(build: Build, tmp_path: Path) -> None:
    system, chosen = build(), files.Settings(**{**QUICK, "mesh": False, "steps": 3})
    cameras, rgba = files.cameras_of(system, chosen, quiet), files.load_picture(ball(tmp_path / "ball.png"))
    results = []
    for name in ("watched", "whole"):
        (tmp_path / name).mkdir()
        results.append(files.Result(system, chosen, cameras, tmp_path / name, quiet))
    watched, whole = results
    numbers = []
    for moment in system.denoise(**watched.request(watched.condition(rgba).image, 5)):
        numbers.append(moment.number)
        raw, renders = moment.result
    written = list(watched.finishing({**raw.activated(), "renders": renders}, 5))
    assert numbers == [0, 1, 2]
    assert {path.name for path in whole.make(rgba, 5)} == {path.name for path in written} | {"condition.png"} == FILES
    for name in FILES - {"info.json"}:
        assert (tmp_path / "watched" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_wider_view_has_a_shorter_focal_length(build: Build) -> None:
    usual, wide = (files.cameras_of(build(), files.Settings(fov=fov), quiet).intrinsics[0, 0] for fov in (None, 90.0))
    assert wide == pytest.approx(8)
    assert wide < usual


def test_two_fields_of_view_are_one_too_many(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave one out"):
        files.infer_files(build(), [ball(tmp_path / "b.png")], tmp_path / "out", {"fov": 50, "cameras": "c.json"}, quiet)


def test_a_prompt_becomes_a_picture_first(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Pipeline:
        def __call__(self, prompt: str, generator: torch.Generator | None = None) -> Any:
            asked.append(prompt)
            return type("Out", (), {"images": [Image.open(ball(tmp_path / "drawn.png"))]})()

    monkeypatch.setattr(files.text, "open_pipeline", lambda folder: Pipeline())
    (tmp_path / "chair.txt").write_text("a red\nchair\n")
    settings = {**QUICK, "mesh": False, "clip": False}
    files.infer_files(build(), [tmp_path / "chair.txt"], tmp_path / "out", settings, quiet)
    assert asked[0].startswith("a red chair, one object")
    assert (tmp_path / "out/chair/gaussians.ply").is_file()


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"elevaton": 3}, ConfigError, "elevation"),
        ({"kind": "planet"}, ConfigError, "kind"),
        ({"steps": 0}, ConfigError, "steps"),
        ({"cameras": "none.json"}, DataError, "none.json"),
        ({"remover": "magic"}, ConfigError, "magic"),
    ],
)
def test_wrong_settings_stop_before_any_work(
    build: Build, settings: dict[str, Any], error: type[Exception], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        files.infer_files(build(), [ball(tmp_path / "ball.png")], tmp_path / "out", settings, quiet)
    assert not (tmp_path / "out").exists()


def test_two_inputs_of_one_name_are_refused(build: Build, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    inputs = [ball(tmp_path / "x.png"), ball(tmp_path / "a" / "x.png")]
    with pytest.raises(ConfigError, match="two inputs are called 'x'"):
        files.infer_files(build(), inputs, tmp_path / "out", {}, quiet)


def test_a_picture_without_an_object_is_refused(build: Build, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(tmp_path / "blank.png")
    with pytest.raises(DataError, match="blank.png"):
        files.infer_files(build(), [tmp_path / "blank.png"], tmp_path / "out", {}, quiet)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs Debian's sweethome3d-furniture")
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_pictures_with_transparency(name: str, tmp_path: Path) -> None:
    with Image.open(write_example(name, tmp_path)) as image:
        assert (image.size, image.mode) == ((128, 128), "RGBA")
        assert np.asarray(image)[..., 3].min() == 0


def test_an_unknown_example_is_named(tmp_path: Path) -> None:
    with pytest.raises(FurnitureError, match="sofa, chair, lamp"):
        write_example("car", tmp_path)
