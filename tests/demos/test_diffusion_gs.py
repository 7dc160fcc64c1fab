"""The demo of DiffusionGS: a picture becomes Gaussians, the viewer draws what our rasteriser draws, errors are named."""

from __future__ import annotations

import base64
import configparser
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.errors import ConfigError, MixturaError
from mixtura_demos.diffusion_gs import drawn, fields, job, pictures, viewer
from mixtura_demos.diffusion_gs.about import about
from mixtura_demos.shared import checkpoints, jobs
from mixtura_demos.shared.errors import Refused
from mixtura_diffusion_gs.cameras import matrices, orbit, viewmats
from mixtura_splat import Gaussians
from tests.demos import browser
from tests.demos.conftest import Runs, Server

ROOT = Path(__file__).parents[2]
REAL = ROOT / "runs"
RECORD = """() => {
  window.steps = []; window.pictures = new Set();
  const look = () => {
    const text = document.querySelector(".gs-status [role=status]").innerText.trim();
    if (window.steps.at(-1) !== text) window.steps.push(text);
    for (const image of document.querySelectorAll(".gs-live img")) window.pictures.add(image.src);
  };
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
}"""
"""Keeps every status and every picture of the denoising that the page shows."""


# -- in the browser -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(served: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The hub of all tests; for pictures of the docs one that has the trained runs, where there are any."""
    names = ("diffusion-gs-quickstart", "diffusion-gs-regressor")
    if not os.environ.get("MIXTURA_SCREENSHOTS") or not all((REAL / name / "latest").exists() for name in names):
        yield served
        return
    folder = tmp_path_factory.mktemp("trained")
    (folder / "runs").mkdir()
    for name in names:
        (folder / "runs" / name).symlink_to(REAL / name)
    server = Server(folder, "diffusion_gs")
    yield server
    server.stop()


def opened(page: Any, server: Server) -> Any:
    """The demo's page, with few voxels so that a mesh takes no time."""
    browser.open_demo(page, server.url, "diffusion_gs")
    page.get_by_text("These weights know").wait_for()
    page.get_by_role("button", name=re.compile("^Settings")).click()
    setting(page, "Voxels along the mesh's longest side", 32)
    page.evaluate(RECORD)
    return page


def setting(page: Any, label: str, value: float) -> None:
    field = page.get_by_role("spinbutton", name=re.compile(re.escape(label)))
    field.fill(str(value))
    field.press("Tab")


def example(page: Any, name: str) -> None:
    page.get_by_role("button", name=f"Example: {name}").click()
    page.wait_for_function("() => document.querySelector('.gs-picture img')?.naturalWidth > 0")


def choose(page: Any, weights: str) -> None:
    page.get_by_role("combobox", name="Weights").click()
    page.get_by_role("option", name=weights).click()


def make(page: Any) -> None:
    page.get_by_role("button", name="Make Gaussians").click()


def reached(page: Any, text: str) -> None:
    page.locator(".gs-status [role=status]", has_text=re.compile(text)).wait_for()


def pixels(page: Any) -> np.ndarray:
    """What the viewer's canvas shows, (H, W, 3) uint8."""
    url = page.locator("canvas[data-state=shown]").evaluate(
        "canvas => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(canvas.toDataURL()))))"
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


def press(page: Any, key: str, times: int = 1) -> None:
    canvas = page.locator("canvas[data-state=shown]")
    for _ in range(times):
        before = canvas.get_attribute("data-view")
        canvas.press(key)
        page.wait_for_function("view => document.querySelector('canvas').dataset.view !== view", arg=before)


def downloaded(page: Any, button: str) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path())


def test_a_picture_becomes_gaussians_that_turn_and_can_be_taken_away(page: Any, hub: Server) -> None:
    page = opened(page, hub)
    choose(page, "diffusion-gs-quickstart")
    example(page, "sofa" if page.get_by_role("button", name="Example: sofa").count() else "table")
    make(page)
    reached(page, "Done with seed 0")
    told = [int(found[1]) for text in page.evaluate("window.steps") if (found := re.match(r"Step (\d+) of \d+", text))]
    assert len(told) >= 3
    assert told == sorted(told)
    assert page.evaluate("window.pictures.size") >= 6

    front = pixels(page)
    assert (front < 250).mean() > 0.02
    press(page, "ArrowRight", 9)
    side = pixels(page)
    assert np.abs(side.astype(int) - front).mean() > 0.5
    press(page, "Home")
    assert np.array_equal(pixels(page), front)

    scene = Gaussians.load_ply(downloaded(page, "Download Gaussians"))
    assert page.locator(".splat-line").inner_text().startswith(f"{len(scene):,} Gaussians, drawn by WebGL")
    assert psnr(front, ours(scene, 20.0, 40.0, front)) > 45
    info = json.loads(downloaded(page, "Download settings").read_text())
    assert info["Gaussians kept"] == len(scene)
    if info["faces"]:
        assert downloaded(page, "Download mesh").read_bytes()[:4] == b"glTF"
    page.locator("video").wait_for()
    page.wait_for_function("() => document.querySelector('video').duration > 2")
    page.get_by_role("button", name=re.compile("^Settings")).click()
    page.set_viewport_size({"width": 1200, "height": 1480})
    page.evaluate("window.scrollTo(0, 0)")
    assert (pixels(page) < 250).mean() > 0.02
    browser.screenshot(page, "diffusion-gs")


def test_the_one_step_regressor_makes_a_room_in_one_step(page: Any, served: Server) -> None:
    page = opened(page, served)
    choose(page, "diffusion-gs-regressor")
    page.get_by_text("in one step, as a regressor").wait_for()
    page.wait_for_function("() => document.querySelector('.gs-steps input').disabled")
    example(page, "room")
    page.get_by_text("Path of the views through the scene").wait_for()
    make(page)
    reached(page, "Done with seed 0")
    assert "Step 1 of 1" in page.evaluate("window.steps")
    assert (pixels(page) < 250).mean() > 0.02


def test_a_cancelled_job_lets_the_next_one_in(page: Any, served: Server) -> None:
    page = opened(page, served)
    example(page, "table")
    setting(page, "Denoising steps", 100)
    make(page)
    reached(page, r"Step \d+ of 100")
    page.get_by_role("button", name="Cancel").click()
    reached(page, "Cancelled")
    setting(page, "Denoising steps", 2)
    setting(page, "Seed", 7)
    make(page)
    reached(page, "Done with seed 7")
    assert not [text for text in page.evaluate("window.steps") if text.startswith("Done with seed 0")]


BAD = {
    "notes.png": (b"these are no pixels", "can't be read as a picture"),
    "nothing.png": (b"", "can't be read as a picture|no picture|empty"),
    "clear.png": (None, "all of the picture is transparent"),
}


def test_what_is_no_picture_is_named(page: Any, served: Server, tmp_path: Path) -> None:
    page = opened(page, served)
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    for name, (content, said) in BAD.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        page.locator(".gs-picture input[type=file]").set_input_files(tmp_path / name)
        page.locator(".gs-picture img").wait_for(state="attached")
        make(page)
        assert re.search(said, browser.error_in(page)), name
        page.locator(".gs-picture").get_by_role("button", name=re.compile("Remove|Clear")).click()
        page.locator(".gs-picture img").wait_for(state="detached")
    make(page)
    assert "no picture was given" in browser.error_in(page)


# -- the viewer ---------------------------------------------------------------------------------------------------

PLACE = "http://127.0.0.1:9/"


@pytest.fixture
def alone(page: Any, tmp_path: Path) -> Callable[..., Any]:
    """A page that holds the viewer alone and shows a .ply file; without WebGL where told so."""

    def show(content: bytes, has_webgl: bool = True) -> Any:
        scripts = "\n".join((viewer.HERE / name).read_text() for name in viewer.SCRIPTS)
        c2w = orbit([0.0], [20.0], 3.0, 40.0, 64)[0][0].tolist()
        value = viewer.scene(tmp_path / "scene.ply", c2w, 64 / 2 / np.tan(np.radians(20)), 64, (0, 0, 1), 3.0)
        value = {**value, "file": {"url": PLACE + "scene.ply"}}
        lost = "" if has_webgl else (
            "const real = HTMLCanvasElement.prototype.getContext;"
            "HTMLCanvasElement.prototype.getContext = function (kind, ...more) {"
            "return kind === 'webgl2' ? null : real.call(this, kind, ...more); };"
        )  # fmt: skip
        attach = f"const element = document.body, props = {{value: {json.dumps(value)}}}, watch = () => {{}};"
        style = "<style>canvas { width: 300px; height: 200px; display: block }</style>"
        html = f"<!doctype html>{style}<body>{viewer.PAGE}<script>{{{lost}{attach}{scripts}{viewer.ATTACH}}}</script></body>"
        page.route(PLACE, lambda route: route.fulfill(body=html, content_type="text/html"))
        page.route(PLACE + "scene.ply", lambda route: route.fulfill(body=content))
        page.goto(PLACE)
        return page

    return show


def cloud(bands: int, count: int = 400) -> Gaussians:
    """Random Gaussians of all shapes around the origin."""
    random = torch.Generator().manual_seed(bands)
    return Gaussians(
        means=torch.randn(count, 3, generator=random) * 0.4,
        quats=torch.randn(count, 4, generator=random),
        scales=(torch.randn(count, 3, generator=random) * 0.7 - 2.5).exp(),
        opacities=torch.rand(count, generator=random),
        sh=torch.randn(count, bands, 3, generator=random) * 0.4,
    )


def content(scene: Gaussians, folder: Path) -> bytes:
    scene.save_ply(folder / "cloud.ply")
    return (folder / "cloud.ply").read_bytes()


def ours(scene: Gaussians, elevation: float, fov: float, like: np.ndarray, azimuth: float = 0.0) -> np.ndarray:
    """Our rasteriser's picture of the size of another."""
    height, width = like.shape[:2]
    c2w, _ = orbit([azimuth], [elevation], 3.0, fov, 64)
    focal = min(width, height) / 2 / np.tan(np.radians(fov) / 2)
    lens = matrices(torch.tensor([[focal, focal, width / 2, height / 2]]))
    image = scene.render(viewmats(c2w), lens, width, height, background=torch.ones(3), near=0.01).image[0]
    return (image.clamp(0, 1) * 255).round().byte().numpy()


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one.astype(float) - other) ** 2) / 255**2 + 1e-12))


@pytest.mark.parametrize("has_webgl", [True, False], ids=["webgl", "canvas"])
@pytest.mark.parametrize("bands", [1, 16])
def test_the_viewer_draws_what_the_rasteriser_draws(alone: Any, tmp_path: Path, bands: int, has_webgl: bool) -> None:
    scene = cloud(bands)
    page = alone(content(scene, tmp_path), has_webgl)
    front = pixels(page)
    assert front.shape == (200, 300, 3)
    assert psnr(front, ours(scene, 20.0, 40.0, front)) > 50
    press(page, "ArrowRight", 7)
    press(page, "ArrowUp", 2)
    assert page.locator("canvas").get_attribute("data-view") == "35.0 30.0 3.000"
    assert psnr(pixels(page), ours(scene, 30.0, 40.0, front, azimuth=35.0)) > 50
    assert ("by WebGL" if has_webgl else "without WebGL") in page.locator(".splat-line").inner_text()


def test_the_viewer_turns_by_dragging_and_zooms_by_the_wheel(alone: Any, tmp_path: Path) -> None:
    page = alone(content(cloud(1), tmp_path))
    canvas = page.locator("canvas[data-state=shown]")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 50, box["y"] + 125)
    page.mouse.up()
    page.wait_for_function("() => document.querySelector('canvas').dataset.view === '20.0 30.0 3.000'")
    page.mouse.wheel(0, -100)
    page.wait_for_function("() => document.querySelector('canvas').dataset.view === '20.0 30.0 2.727'")
    page.get_by_role("button", name="Reset the view").press("Enter")
    page.wait_for_function("() => document.querySelector('canvas').dataset.view === '0.0 20.0 3.000'")


def test_the_viewer_draws_again_after_the_browser_lost_its_context(alone: Any, tmp_path: Path) -> None:
    page = alone(content(cloud(1), tmp_path))
    before = pixels(page)
    page.evaluate("""() => new Promise(done => {
        const canvas = document.querySelector("canvas");
        const control = canvas.getContext("webgl2").getExtension("WEBGL_lose_context");
        canvas.addEventListener("webglcontextlost", () => setTimeout(() => control.restoreContext(), 0));
        canvas.addEventListener("webglcontextrestored", () => done());
        control.loseContext();
    })""")
    assert np.array_equal(pixels(page), before)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda whole: b"no pixels", "not a .ply file"),
        (lambda whole: whole[:-100], "cut short"),
        (lambda whole: whole.replace(b"property float opacity", b"property float shininess"), "lack opacity"),
        (lambda whole: whole.replace(b"binary_little_endian", b"ascii"), "as ascii"),
    ],
)
def test_the_viewer_says_what_is_wrong_with_a_file(alone: Any, tmp_path: Path, damage: Any, said: str) -> None:
    page = alone(damage(content(cloud(1), tmp_path)))
    page.locator(".splat-line", has_text=said).wait_for()


# -- without a browser --------------------------------------------------------------------------------------------


@pytest.fixture
def visitor() -> Any:
    """A request of a session."""
    return SimpleNamespace(session_hash="visitor")


@pytest.fixture
def order(runs: Runs, tmp_path: Path) -> Callable[..., job.Order]:
    """An order of the drawn table, with other settings on top."""

    def made(**settings: Any) -> job.Order:
        drawn.table(tmp_path / "table.png")
        choice = checkpoints.Choice("tiny", runs / "diffusion_gs", "run", "diffusion_gs")
        given = {"kind": "object", "seed": 3, "remover": "auto", "mesh": False, **settings}
        return job.Order(choice, str(tmp_path / "table.png"), given)

    return made


def test_the_page_makes_what_the_command_line_makes(order: Any, visitor: Any, tmp_path: Path) -> None:
    moments = list(job.making(order(), visitor))
    files = {name: path for moment in moments for name, path in moment.files.items()}
    system = checkpoints.load(order().choice)
    system.infer_files([tmp_path / "table.png"], tmp_path / "out", {"seeds": [3], "mesh": False}, lambda text: None)
    for name in ("gaussians.ply", "turntable.mp4"):
        assert files[name].read_bytes() == (tmp_path / "out/table" / name).read_bytes()
    assert [moment.share for moment in moments if moment.share] == [n / 6 for n in range(1, 7)]
    assert moments[-1].facts["Seed"] == "3"


def test_a_job_that_is_cancelled_stops_between_steps(order: Any, visitor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([False, False, True])

    def tick() -> None:
        if next(ticks):
            raise jobs.Stop

    monkeypatch.setattr(job, "tick", tick)
    seen: list[job.Shown] = []
    with pytest.raises(jobs.Stop):
        seen.extend(job.making(order(), visitor))
    assert [moment.status for moment in seen[-2:]] == ["Step 1 of 6", "Step 2 of 6"]


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"steps": 0}, ConfigError, "steps"),
        ({"kind": "planet"}, ConfigError, "kind"),
        ({"seed": "now"}, ConfigError, "seeds"),
        ({"guidance": 2.0}, MixturaError, "condition_dropout"),
        ({"remover": "os:system"}, Refused, "isn't offered"),
    ],
)
def test_fields_out_of_range_are_named(order: Any, visitor: Any, settings: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        list(job.making(order(**settings), visitor))


def test_without_weights_the_page_says_how_to_make_some() -> None:
    with pytest.raises(Refused, match="make gaussians"):
        checkpoints.chosen(None, fields.SYSTEM)
    assert about(Path("nowhere")).kinds == ("object", "scene")


def test_what_weights_can_do_is_read_without_the_system(runs: Runs) -> None:
    run = runs / "diffusion_gs"
    assert (about(run).steps, about(run).is_one_step, about(run).has_guidance) == (6, False, False)
    regressor = about(run.with_name("diffusion-gs-regressor"))
    assert (regressor.steps, regressor.is_one_step) == (1, True)


def test_the_drawn_pictures_show_a_table_cut_out_and_a_room_without_gaps(tmp_path: Path) -> None:
    drawn.table(tmp_path / "table.png")
    drawn.room(tmp_path / "room.png")
    table, room = (np.asarray(Image.open(tmp_path / name)) for name in ("table.png", "room.png"))
    assert 0.1 < (table[..., 3] > 127).mean() < 0.6
    assert table[[0, -1, 0, -1], [0, 0, -1, -1], 3].max() == 0
    assert room[..., 3].min() == 255
    assert room[..., :3].std() > 20


def test_every_example_is_a_picture_of_its_kind(visitor: Any) -> None:
    for name, kind in pictures.examples().items():
        rgba = pictures.given(pictures.example(name, visitor))
        assert (rgba[..., 3].min() == 0) == (kind == "object")


def test_scripts_and_styles_of_all_demos_ship_with_the_package() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "demos" / "setup.cfg")
    patterns = settings["options.package_data"]["*"].split()
    files = [
        path for path in (ROOT / "demos" / "mixtura_demos").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert {path.name for path in files} >= {*viewer.SCRIPTS, "viewer.css", "look.css"}
    assert [path.name for path in files if not any(path.match(pattern) for pattern in patterns)] == []
    assert [path.name for path in files if not (path.parent / "__init__.py").is_file()] == []


def test_importing_the_demo_imports_no_network() -> None:
    code = "import sys, mixtura_demos.diffusion_gs; print('torch' in sys.modules, 'mixtura_diffusion_gs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
