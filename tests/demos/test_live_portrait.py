"""The demo of LivePortrait: animate, drive by a template, edit by sliders, follow a camera, find faces; errors are named."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from mixtura import checkpoint
from mixtura_demos.live_portrait import animating, directions, edit, engines, form, inputs, seeing, sitting, webcam
from mixtura_demos.shared import jobs
from mixtura_demos.shared.errors import Refused
from mixtura_live_portrait.animate.animator import Animator
from mixtura_live_portrait.animate.editing import Edit
from mixtura_live_portrait.animate.settings import Settings
from mixtura_live_portrait.animate.stream import Stream
from mixtura_live_portrait.animate.templates import FORMAT, Template, save
from mixtura_live_portrait.faces.clips import open_clip
from mixtura_live_portrait.faces.detector import NoFace, make
from mixtura_live_portrait.faces.examples import example
from tests.demos import browser
from tests.demos.conftest import Runs, Server
from tests.plugins.live_portrait.animate_tools import movement, picture, write_clip

REAL = Path(__file__).parents[2] / "runs"
QUICKSTART = "live-portrait-quickstart"


# -- in the browser -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(served: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Where the example is animated: the hub of all tests; for pictures of the docs one that has the trained run."""
    if not os.environ.get("MIXTURA_SCREENSHOTS") or not (REAL / QUICKSTART / "latest").exists():
        yield served
        return
    folder = tmp_path_factory.mktemp("trained")
    (folder / "runs").mkdir()
    (folder / "runs" / QUICKSTART).symlink_to(REAL / QUICKSTART)
    server = Server(folder, "live_portrait")
    yield server
    server.stop()


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def told(page: Any, place: str, text: str) -> str:
    """Wait for a text in the page; returns all that stands in its place."""
    from playwright.sync_api import expect

    expect(page.locator(place)).to_contain_text(text)
    found: str = page.locator(place).inner_text()
    return found


def example_given(page: Any, frames: int) -> None:
    """The example portrait and clip, of which so many frames are animated."""
    press(page, "Load the example")
    page.wait_for_function("(document.querySelector('#lp-portrait-picture img') || {}).naturalWidth === 512")
    page.wait_for_function("(document.querySelector('#lp-driving-clip video') || {}).duration > 3")
    field = page.get_by_label("number input for Most frames")
    field.fill(str(frames))
    field.press("Tab")


def another(page: Any, place: str, before: str) -> str:
    """The source of a picture or clip once it isn't `before` any more."""
    page.wait_for_function(
        "([p, s]) => { const e = document.querySelector(p); return e && e.src && e.src !== s; }", arg=[place, before]
    )
    return str(page.locator(place).first.get_attribute("src"))


def give(page: Any, place: str, path: Path) -> None:
    """Upload a file to an empty field."""
    page.locator(f"{place} input[type=file]").first.set_input_files(path)
    page.locator(f"{place} :is(img, video, a)").first.wait_for(state="attached")


def test_the_example_is_animated_and_its_template_drives_again(page: Any, hub: Server, tmp_path: Path) -> None:
    browser.open_demo(page, hub.url, "live_portrait")
    trained = bool(os.environ.get("MIXTURA_SCREENSHOTS"))
    example_given(page, 30 if trained else 3)
    page.get_by_label("Side by side").check()
    press(page, "Animate")
    assert "s a frame" in told(page, "#lp-told", "frames at 29.97 a second")
    first = another(page, "#lp-animation video", "")
    page.wait_for_function("document.querySelector('#lp-animation video').readyState >= 2")
    clip = tmp_path / "seen.mp4"
    clip.write_bytes(page.request.get(page.locator("#lp-animation video").evaluate("video => video.currentSrc")).body())
    frames = list(open_clip(clip))
    assert (len(frames), frames[0].shape) == (30 if trained else 3, (512, 512, 3))
    page.locator("#lp-comparison video").first.wait_for()
    if trained:
        page.set_viewport_size({"width": 1200, "height": 1250})
        show = "video => { video.muted = true; return video.play().then(() => video.pause()); }"
        page.locator("#lp-driving-clip video").evaluate(show)
        page.evaluate("window.scrollTo(0, 0)")
    browser.screenshot(page, "live-portrait")

    with page.expect_download() as download:
        page.locator("#lp-template a").first.click()
    template = tmp_path / "motion.safetensors"
    download.value.save_as(template)
    with safe_open(template, "pt") as stored:
        assert stored.get_tensor("exp").shape[0] == len(frames)
    press(page, "Drive with this template")
    page.locator("#lp-motion-template a").first.wait_for()
    press(page, "Animate")
    told(page, "#lp-told", "a template of")
    another(page, "#lp-animation video", first)


def old_template(path: Path) -> Path:
    """A template whose header says that it is of another version."""
    save(Template(movement(2), torch.zeros(2, 3), 25.0), path)
    with safe_open(path, "pt") as stored:
        about, tensors = json.loads(stored.metadata()[FORMAT]), {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    save_file(tensors, path, {FORMAT: json.dumps(about | {"version": 2})})
    return path


def test_what_cannot_be_animated_is_named(page: Any, served: Server, tmp_path: Path) -> None:
    browser.open_demo(page, served.url, "live_portrait")
    press(page, "Animate")
    assert "the portrait is missing" in browser.error_in(page)
    give(page, "#lp-portrait-picture", example("portrait"))

    (tmp_path / "notes.mp4").write_text("these are words\n" * 99)
    give(page, "#lp-driving-clip", tmp_path / "notes.mp4")
    assert "not playable" in browser.error_in(page), "the browser says so, and then we do"
    press(page, "Animate")
    assert "can't be read as a video" in browser.error_in(page)

    Image.fromarray(picture(0)).save(tmp_path / "waves.png")
    kind(page, "picture").check()
    give(page, "#lp-driving-picture", tmp_path / "waves.png")
    press(page, "Animate")
    assert "no face found in frame 0 of the driving; pass landmarks or a crop" in browser.error_in(page)

    kind(page, "motion template").check()
    give(page, "#lp-motion-template", old_template(tmp_path / "old.safetensors"))
    press(page, "Animate")
    assert "the driving: a motion template of version 2, expected 1" in browser.error_in(page)


def kind(page: Any, word: str) -> Any:
    """The choice of a kind of driving."""
    return page.get_by_role("group").filter(has_text="Kind of driving").get_by_role("radio", name=word, exact=True)


def test_a_clip_of_one_frame_makes_a_picture(page: Any, served: Server, tmp_path: Path) -> None:
    browser.open_demo(page, served.url, "live_portrait")
    give(page, "#lp-portrait-picture", example("portrait"))
    give(page, "#lp-driving-clip", write_clip(tmp_path / "one.mp4", [next(iter(open_clip(example("clip"))))]))
    press(page, "Animate")
    assert "the driving: 1 frame" in told(page, "#lp-told", "1 frame,")
    width = "image => image.decode().then(() => image.naturalWidth)"
    assert page.locator("#lp-animated-picture img").first.evaluate(width) == 512


def test_an_animation_can_be_cancelled_and_another_one_started(page: Any, served: Server) -> None:
    browser.open_demo(page, served.url, "live_portrait")
    example_given(page, 120)
    press(page, "Animate")
    page.get_by_text(re.compile("looking at the driving|painting")).first.wait_for()
    press(page, "Cancel")
    page.get_by_text("Cancelled.").first.wait_for()
    assert page.locator("#lp-animation video").count() == 0
    field = page.get_by_label("number input for Most frames")
    field.fill("2")
    field.press("Tab")
    press(page, "Animate")
    told(page, "#lp-told", "2 frames at")


def test_sliders_change_the_portrait_and_reset_brings_it_back(page: Any, served: Server, tmp_path: Path) -> None:
    browser.open_demo(page, served.url, "live_portrait")
    page.get_by_role("tab", name="Edit").click()
    press(page, "Load the example portrait")
    told(page, "#lp-edit-told", "Face found")
    seen = [another(page, "#lp-edited img", "")]
    assert page.get_by_label("number input for Eyes open").input_value() == "0.36", "as the landmarks say"
    for label in ("Yaw", "Lips open", "Smile"):
        slider = page.get_by_label(f"range slider for {label}")
        slider.focus()
        slider.press("End")
        seen.append(another(page, "#lp-edited img", seen[-1]))
        told(page, "#lp-edit-told", "Painted in")
    assert len(set(seen)) == 4
    with page.expect_download() as download:
        page.locator("#lp-edited").get_by_role("link").or_(page.locator("#lp-edited").get_by_label("Download")).first.click()
    download.value.save_as(tmp_path / "edited.png")
    assert Image.open(tmp_path / "edited.png").format == "PNG"
    press(page, "Reset the sliders")
    page.wait_for_function("document.querySelector('[aria-label=\"range slider for Yaw\"]').value === '0'")
    assert another(page, "#lp-edited img", seen[-1]) == seen[0]


@pytest.fixture(scope="module")
def camera(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Another browser, whose camera sees the man in the car."""
    film = tmp_path_factory.mktemp("camera") / "carphone.y4m"
    with av.open(str(film), "w", format="yuv4mpegpipe") as container:
        stream: Any = container.add_stream("wrapped_avframe", rate=30)
        stream.width, stream.height, stream.pix_fmt = 352, 288, "yuv420p"
        for number, frame in zip(range(40), open_clip(example("clip")), strict=False):
            shown: Any = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(352, 288, "yuv420p")
            shown.pts = number
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", f"--use-file-for-fake-video-capture={film}")
    started = chromium.browser_type.launch(executable_path=browser.EXECUTABLE, args=[*browser.FLAGS, *fake])
    yield started
    started.close()


def test_the_portrait_follows_the_camera(camera: Any, served: Server) -> None:
    visit = browser.visit(camera, permissions=["camera"])
    page = browser.open_demo(visit.page, served.url, "live_portrait")
    page.get_by_role("tab", name="Webcam").click()
    press(page, "Load the example as portrait")
    told(page, "#lp-live-told", "Ready")
    still = page.locator("#lp-live img").get_attribute("src")
    page.get_by_role("button", name="Click to Access Webcam").click()
    page.get_by_role("button", name="capture photo").click()
    told(page, "#lp-live-told", "face in sight")
    first = another(page, "#lp-live img", still)
    another(page, "#lp-live img", first)
    assert float(re.findall(r"([\d.]+) frames a second", told(page, "#lp-live-told", "frames a second"))[0]) > 0
    page.context.close()
    assert (visit.foreign, visit.complaints) == ([], [])


def test_faces_are_found_marked_and_measured(page: Any, served: Server) -> None:
    browser.open_demo(page, served.url, "live_portrait")
    page.get_by_role("tab", name="Faces").click()
    press(page, "Load the example picture")
    page.locator("#lp-picture-with-faces img").first.wait_for()
    press(page, "Find faces")
    told(page, "#lp-faces-told", "1 face in")
    page.get_by_text("faces: crop of face 0").first.wait_for()
    page.get_by_text("478", exact=True).locator("visible=true").first.wait_for()


# -- without a browser --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks(runs: Runs) -> engines.Loaded:
    system, _ = checkpoint.load_system(runs / "live_portrait")
    return engines.of_system(system, "tiny")


@pytest.fixture(scope="module")
def portrait(networks: engines.Loaded) -> sitting.Sitting:
    return sitting.sit(example("portrait"), {}, networks, ("key",))


REQUEST: Any = SimpleNamespace(session_hash="test-live-portrait")


def test_building_the_page_imports_no_torch() -> None:
    code = "import sys; from mixtura_demos.live_portrait import build; build(None); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_form_offers_what_the_plugin_knows() -> None:
    schema, filled = Settings.model_json_schema()["properties"], Settings()
    fields = [name for _, _, group in form.GROUPS for name in group()]
    assert set(fields) <= set(schema)
    for name in set(fields) & set(form.WORDS) - {"detector", *form.RATIOS}:
        meant = list(form.WORDS[name].values())
        assert meant[0] == getattr(filled, name), "what is chosen at first is the plugin's default"
        assert set(meant) == set(schema[name].get("enum", [True, False]))
    built = {name: component.value for _, _, group in form.GROUPS for name, component in group().items()}
    assert Settings.model_validate(form.settings_of(built)) == Settings(max_frames=form.FRAMES, comparison=False)


def test_eyes_and_lips_follow_the_driving_or_a_ratio() -> None:
    moved, driving, ratio = form.OPENINGS
    given = {"eyes": moved, "eye_ratio": 0.3, "lips": ratio, "lip_ratio": 0.2}
    assert form.settings_of(given) == {"lips": True, "lip_ratio": 0.2}
    assert form.settings_of(given | {"eyes": driving, "lips": moved}) == {"eyes": True}


@pytest.mark.parametrize("given", [{"detector": "os:system"}, {"relative": "sideways"}, {"face": 1.5}])
def test_what_the_form_does_not_offer_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=next(iter(given))):
        form.settings_of(given)


def test_the_sliders_are_those_of_the_plugin() -> None:
    rest = Edit()
    assert set(edit.EDITS) == set(Edit.model_fields) - {"offsets"}
    for name, (_, _, least, most, start, _) in edit.EDITS.items():
        Edit.model_validate({name: least})
        Edit.model_validate({name: most})
        assert name in ("eye_ratio", "lip_ratio") or start == getattr(rest, name)


def test_uploads_are_kept_under_names_of_ours(tmp_path: Path) -> None:
    given = tmp_path / "my name; rm.safetensors"
    given.write_bytes(b"x")
    kept = inputs.given(str(given), "template", "the driving", REQUEST)
    assert re.fullmatch(r"[0-9a-f]+\.safetensors", kept.name)
    official = tmp_path / "d0.PKL"
    official.write_bytes(b"x")
    assert inputs.given(str(official), "template", "the driving", REQUEST).suffix == ".pkl", "so that the plugin says why not"


def test_what_is_not_what_it_seems_is_refused(tmp_path: Path) -> None:
    words = tmp_path / "film.mp4"
    words.write_text("words")
    for kind in ("clip", "picture"):
        with pytest.raises(Refused, match="can't be read"):
            inputs.given(str(words), kind, "the driving", REQUEST)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="the driving is missing: give a clip"):
        inputs.given(None, "clip", "the driving", REQUEST)


def test_errors_name_what_users_know(tmp_path: Path) -> None:
    path = tmp_path / "3f2a.png"
    with pytest.raises(Refused, match="^no face found in frame 0 of the portrait;"), inputs.named({path: "the portrait"}):
        raise NoFace(0, path)


def test_the_volume_is_computed_once_for_all_edits(networks: engines.Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = networks.engine.volume
    monkeypatch.setattr(networks.engine, "volume", lambda crops: calls.append("volume") or real(crops))
    mine = sitting.sit(example("portrait"), {}, networks, ("key",))
    seen = [sitting.edited(mine, {"yaw": float(yaw)}, {}, True, True) for yaw in (0, 10, 20)]
    assert calls == ["volume"]
    assert (seen[0] == mine.frame).all(), "at rest the picture is left as it is"
    assert (seen[1] != seen[2]).any()


def test_eyes_and_lips_at_what_they_are_change_nothing(portrait: sitting.Sitting) -> None:
    eyes, lips = (round(float(own or 0), 2) for own in portrait.openings)
    assert (sitting.edited(portrait, {"eye_ratio": eyes, "lip_ratio": lips}, {}, True, True) == portrait.frame).all()
    assert (sitting.edited(portrait, {"eye_ratio": eyes, "lip_ratio": 0.7}, {}, True, True) != portrait.frame).any()


def test_a_smile_is_measured_once_and_half_of_it_is_half(networks: engines.Loaded) -> None:
    half, whole = (directions.offsets(networks, {"smile": amount, "brow": 0}) for amount in (0.5, 1.0))
    assert directions.direction(networks, "smile") is directions.direction(networks, "smile")
    assert "brow" not in networks.directions
    assert directions.hardly_known(networks, {"smile": 0, "brow": 0}) == []
    networks.directions["pucker"] = torch.zeros(21, 3)
    assert directions.hardly_known(networks, {"smile": 0, "pucker": 0.5}) == ["Pucker"]
    amounts = [{(index, axis): amount for index, axis, amount in some} for some in (half, whole)]
    assert whole
    assert all(amount == pytest.approx(2 * amounts[0].get(place, 0), abs=4e-6) for place, amount in amounts[1].items())
    Edit(offsets=whole).check(networks.engine.sizes.keypoints)


def test_every_frame_is_told_and_may_end_the_work(networks: engines.Loaded, tmp_path: Path) -> None:
    files, heard = [example("portrait"), example("clip")], []
    settings = {"max_frames": 3, "comparison": False}
    made = animating.animate(files, settings, networks, tmp_path / "out", lambda *words: heard.append(words))
    assert [words for words in heard if words[0] == "painting"] == [("painting", number, 3) for number in range(4)]
    assert ("looking at the driving", 2, 3) in heard
    assert made.info["frames"] == 3

    def stop(what: str, done: int, count: int) -> None:
        if (what, done) == ("painting", 2):
            raise jobs.Stop

    with pytest.raises(jobs.Stop):
        animating.animate(files, settings, networks, tmp_path / "stopped", stop)
    assert not list((tmp_path / "stopped").glob("*.mp4")), "half a clip is none"


def test_crops_show_the_landmarks_that_were_found() -> None:
    seen = seeing.see(example("portrait"), {}, "source", everyone=True)
    assert len(seen.rows) == len(seen.crops) == 1
    assert dict(zip(seeing.HEADER, seen.rows[0], strict=True))["landmarks"] == 478
    plain = seeing.see(example("portrait"), {"source_crop": "whole"}, "source")
    assert plain.rows[0][3] == 512
    assert (seen.crops[0] != plain.crops[0]).any()


def test_a_camera_of_another_size_begins_anew(portrait: sitting.Sitting) -> None:
    stream = Stream(Animator(portrait.networks.engine), portrait.portrait, portrait.frame, make(search="first"))
    live = webcam.Live(portrait, stream)
    frames = [frame for _, frame in zip(range(3), open_clip(example("clip")), strict=False)]
    shown = [live.step(frame) for frame in frames]
    assert (shown[1] != shown[2]).any()
    assert (live.shown, stream.has_face) == (3, True)
    assert live.rate > 0
    live.step(frames[0].repeat(2, 0).repeat(2, 1))
    assert live.rate == 0
    assert "4 shown; face in sight" in live.told()


def data_url(picture: Image.Image, kind: str = "JPEG") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def test_frames_of_a_camera_are_checked_before_they_are_decoded() -> None:
    frame = inputs.snapshot(data_url(Image.fromarray(picture(0))))
    assert frame is not None
    assert frame.shape == (160, 200, 3)
    assert frame.dtype == np.uint8
    assert inputs.snapshot("http://127.0.0.1/me.png") is None
    for url, text in (
        (data_url(Image.new("L", (4096, 2400)), "PNG"), "4096 × 2400 pixels"),
        ("data:image/png;base64," + "A" * (12 << 20), "more than 8 MiB"),
        ("data:image/png;base64,AAAA", "no picture"),
    ):
        with pytest.raises(Refused, match=text):
            inputs.snapshot(url)
