"""What demos share: uploads that are looked at first, weights that are found, a line of jobs, files of a session."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from mixtura.errors import MixturaError
from mixtura_demos.names import HostileName, check
from mixtura_demos.shared import checkpoints, examples, jobs, uploads, work
from mixtura_demos.shared.errors import Refused, shown, without_folders
from mixtura_demos.shared.limits import LIMITS
from tests.demos.conftest import plain_run
from tests.demos.videos import endless_video, write_video


def request(session: str | None) -> Any:
    """A request of a browser session."""
    return SimpleNamespace(session_hash=session)


# -- uploads
def test_a_picture_comes_as_colours_and_keeps_its_transparency(tmp_path: Path) -> None:
    for mode, channels in (("RGB", 3), ("L", 3), ("RGBA", 4), ("P", 3), ("LA", 4), ("CMYK", 3)):
        file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
        Image.new(mode, (5, 4)).save(file)
        assert uploads.picture(file).shape == (4, 5, channels)


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert uploads.picture(tmp_path / "a.jpg").shape == (6, 4, 3)


@pytest.mark.parametrize("size", [(20_000, 20_000), (7_000, 6_000)])
def test_a_picture_of_too_many_pixels_is_refused_undecoded(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("1", size).save(tmp_path / "bomb.png")
    with pytest.raises(Refused, match="megapixels"):
        uploads.picture(tmp_path / "bomb.png")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"<svg/>", b"\x89PNG\r\n\x1a\n" + bytes(50), b"%!PS-Adobe\n"])
def test_what_is_no_picture_or_video_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file.png"
    file.write_bytes(content)
    with pytest.raises(Refused, match="can't be read as a picture"):
        uploads.picture(file)
    with pytest.raises(Refused, match="video"):
        uploads.checked_video(file)


@pytest.mark.parametrize("path", [None, "", "/nowhere/a.png"])
def test_no_file_is_told(path: str | None) -> None:
    for read in (uploads.picture, uploads.checked_video):
        with pytest.raises(Refused, match="upload"):
            read(path)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(LIMITS.bytes + 1)
    with pytest.raises(Refused, match="more than 64 MiB"):
        uploads.picture(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_good_video_passes(name: str, tmp_path: Path) -> None:
    file = write_video(tmp_path / name)
    assert uploads.checked_video(file) == file


def test_a_video_longer_than_it_may_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="seconds"):
        uploads.checked_video(endless_video(tmp_path / "a.mp4"))


def test_a_video_of_too_many_frames_is_refused(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mkv", frames=LIMITS.frames + 1, size=(16, 16), rate=60)
    assert file.stat().st_size < 500_000
    with pytest.raises(Refused, match="frames"):
        uploads.checked_video(file)


def test_a_video_of_large_frames_is_refused(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4", frames=2, size=(8000, 4500), flat=True)
    with pytest.raises(Refused, match="8000 × 4500"):
        uploads.checked_video(file)


def test_a_video_whose_frames_outgrow_its_header_is_refused(tmp_path: Path) -> None:
    """The sizes in the container say 320 x 192; the stream itself says 8000 x 4500."""
    large = write_video(tmp_path / "a.mp4", frames=2, size=(8000, 4500), flat=True).read_bytes()
    small = bytearray(large)
    for place in (large.index(b"avc1") + 28, large.index(b"tkhd") + 80):
        step = 2 if large[place : place + 2] == (8000).to_bytes(2, "big") else 4
        small[place : place + step] = (320).to_bytes(2, "big") + bytes(step - 2)
        small[place + step : place + 2 * step] = (192).to_bytes(2, "big") + bytes(step - 2)
    (tmp_path / "b.mp4").write_bytes(bytes(small))
    with pytest.raises(Refused, match=r"large|pixels"):
        uploads.checked_video(tmp_path / "b.mp4")


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.mp4")
    for text in ("#EXTM3U\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile secret.mp4\n"):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(Refused, match="can't be read as a video"):
            uploads.checked_video(tmp_path / "list.mp4")


@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", "-rf", ".bashrc", "a;b", "a$b", "`a`", "a\nb", "%05d.png", "", "x" * 200])
def test_names_that_are_paths_commands_or_patterns_are_hostile(name: str) -> None:
    with pytest.raises(HostileName):
        check(name)
    check("Grandma's photo (2) – ümlaut, 100 %.jpeg")


# -- files of a session
def test_a_sessions_files_have_names_of_ours_and_go_with_it() -> None:
    first, second = request("../../etc"), request("b")
    file, other = work.fresh(first, ".png"), work.fresh(second, ".png")
    for path in (file, other):
        path.write_bytes(b"x")
        assert work.root() == path.parents[1]
    assert work.session_folder(first) == file.parent != other.parent
    work.end_session("../../etc")
    assert not file.parent.exists()
    assert other.exists()
    with pytest.raises(ValueError, match="suffix"):
        work.fresh(second, "/../a.png")
    with pytest.raises(Refused, match="no browser session"):
        work.session_folder(request(None))


def test_an_upload_goes_with_the_last_session_that_used_it() -> None:
    file, example = work.root() / "upload.png", work.root() / "example.png"
    for path in (file, example):
        path.write_bytes(b"x")
    work.note_upload(str(file))
    for session in ("a", "b"):
        for path in (file, example):
            work.note_use(session, str(path))
    work.end_session("a")
    assert file.exists()
    work.end_session("b")
    assert not file.exists()
    assert example.exists()


# -- weights
def test_weights_are_found_newest_first_and_the_named_one_before_all(tmp_path: Path) -> None:
    import os

    older, newer, named = (
        plain_run(tmp_path / place, name) for place, name in ((".", "older"), (".", "newer"), ("far", "named"))
    )
    for age, run in ((100, older), (50, newer)):
        for path in (run, *run.glob("step-*")):
            os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "config.yaml").write_text("system: [")
    found = checkpoints.found("plain_system", named, tmp_path)
    assert [(choice.label, choice.kind) for choice in found] == [("named", "run"), ("newer", "run"), ("older", "run")]
    assert checkpoints.found("another", None, tmp_path) == []


def test_exports_and_published_folders_are_found(tmp_path: Path) -> None:
    export, published = tmp_path / "exports" / "small", tmp_path / "weights" / "official"
    for folder in (export, published):
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("system: {type: plain_system}")
    (export / "DONE").write_text("{}")
    (published / "net.pth").write_bytes(b"x")
    kinds = {choice.label: choice.kind for choice in checkpoints.found("plain_system", None, tmp_path)}
    assert kinds == {"small (export)": "export", "official (published)": "published"}


def test_a_choice_is_one_that_was_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = plain_run(tmp_path, "alpha")
    monkeypatch.chdir(tmp_path)
    with gr.Blocks():
        field = checkpoints.picker("plain_system", None)
    assert checkpoints.chosen(field.value, "plain_system").path == run
    for forged in (str(run), "/etc", "0" * 16, 3, ["a"]):
        with pytest.raises(Refused, match="not among those offered"):
            checkpoints.chosen(forged)
    with pytest.raises(Refused, match="not among those offered"):
        checkpoints.chosen(field.value, "another_system")
    with pytest.raises(Refused, match="train some first: make gaussians"):
        checkpoints.chosen(None, "diffusion_gs")


# -- errors
def test_errors_for_the_page_hold_no_folders() -> None:
    assert without_folders("/home/me/runs/a/config.yaml: bad, see ~/x/y.txt and http://a.b/c") == (
        "config.yaml: bad, see y.txt and http://a.b/c"
    )

    @shown
    def plain() -> None:
        raise MixturaError("/a/b/c.png: too large")

    @shown
    def stepwise() -> Iterator[int]:
        yield 1
        raise KeyError("/a/b/c")

    with pytest.raises(gr.Error, match=r"^'c.png: too large'$"):
        plain()
    steps = stepwise()
    assert next(steps) == 1
    with pytest.raises(gr.Error, match="something went wrong: KeyError"):
        next(steps)


# -- jobs
def test_a_job_hands_over_what_it_yields_and_what_it_raises() -> None:
    def good(n: int) -> Iterator[int]:
        yield from range(n)

    def bad() -> int:
        raise Refused("no")

    assert list(jobs.as_job(good)(3)) == [0, 1, 2]
    assert list(jobs.as_job(lambda: 5)()) == [5]
    with pytest.raises(gr.Error, match="no"):
        list(jobs.as_job(bad)())


def test_jobs_run_one_at_a_time_and_a_stopped_one_makes_room() -> None:
    running, most, begun = 0, 0, threading.Event()

    def heavy(rounds: int) -> Iterator[int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        begun.set()
        try:
            for number in range(rounds):
                jobs.tick()
                yield number
        finally:
            running -= 1

    endless = jobs.as_job(heavy)(10**9)
    assert next(endless) == 0
    done: list[list[int]] = []
    others = [threading.Thread(target=lambda: done.append(list(jobs.as_job(heavy)(3)))) for _ in range(3)]
    for other in others:
        other.start()
    endless.close()  # what gradio does when its page presses Cancel or goes away
    for other in others:
        other.join(timeout=60)
    assert done == [[0, 1, 2]] * 3
    assert most == 1


def test_a_job_that_waits_can_be_stopped() -> None:
    hold, waiting = jobs.Job("a"), jobs.Job("b")
    jobs.LINE.wait(hold, lambda before: None)
    told: list[int] = []
    stopped: list[bool] = []

    def wait() -> None:
        try:
            jobs.LINE.wait(waiting, told.append)
        except jobs.Stop:
            stopped.append(True)
            jobs.LINE.leave(waiting)

    thread = threading.Thread(target=wait)
    thread.start()
    while not told:
        thread.join(timeout=0.01)
    jobs.stop_session("b")
    thread.join(timeout=60)
    jobs.LINE.leave(hold)
    assert (told[0], stopped, jobs.LINE.all()) == (1, [True], [])


# -- examples
def test_examples_are_files_that_can_be_used() -> None:
    for file in (*examples.pictures().values(), *examples.portraits().values()):
        assert uploads.picture(file).ndim == 3
    for file in examples.clips().values():
        assert uploads.checked_video(file) == file
    assert np.all([file.parent.parent == work.root() for file in examples.pictures().values()])
