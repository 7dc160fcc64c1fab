"""What hostile clients can't do: read files outside the work folder, fill the memory, make names, fetch from elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.demos.client import Client, as_file
from tests.demos.conftest import ODD, Server
from tests.demos.videos import endless_video, write_video


@pytest.fixture
def client(odd: Server) -> Client:
    """A program's session with the odd plugin's working demo."""
    return Client(odd.url, "plain")


def error_of(message: dict[str, object]) -> str:
    """The error that a handler's answer holds."""
    assert message["success"] is False, message
    return str(message["output"])


def memory(server: Server) -> int:
    """The most memory that the server ever took, in MiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]


def zeros(mebibytes: int) -> Iterator[bytes]:
    """So much, bit by bit."""
    for _ in range(mebibytes):
        yield bytes(2**20)


def test_an_upload_that_announces_half_a_gigabyte_is_refused_before_it_is_read(odd: Server, client: Client) -> None:
    before = memory(odd)
    status, text = client.request("POST", "/gradio_api/upload", b"", Content_Length=str(500 * 2**20))
    assert (status, text) == (413, b"This is larger than 64 MiB; give a smaller file.")
    assert memory(odd) - before < 50


def test_an_upload_without_an_announced_size_is_cut_off(odd: Server, client: Client) -> None:
    client.config()
    before = memory(odd)
    try:
        status, text = client.upload("large.png", zeros(500))
        assert (status, text) == (413, "This is larger than 64 MiB; give a smaller file.")
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server hung up while we were still sending
    assert memory(odd) - before < 100
    assert [file for file in odd.temporary.rglob("*") if file.is_file() and file.stat().st_size > 65 * 2**20] == []
    assert client.request("GET", "/config")[0] == 200


def test_a_large_request_of_another_kind_is_refused(client: Client) -> None:
    status, _ = client.request("POST", "/gradio_api/queue/join", bytes(9 * 2**20), Content_Type="application/json")
    assert status == 413


@pytest.mark.parametrize(
    "name", ["../../../../tmp/evil.png", "/etc/evil.png", "a/b.png", "..", "x\\..\\y.png", "a;rm -rf $HOME;.png"]
)
def test_a_hostile_file_name_is_refused(name: str, odd: Server, client: Client) -> None:
    status, text = client.upload(name, b"no picture")
    assert status == 400
    assert "rename the file" in text
    assert list(odd.temporary.rglob("*evil*")) == []
    assert client.upload("a plain name (2), with ümlaut & all.png", b"no picture")[0] == 200


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../../../etc/passwd", "~/.bashrc", "/proc/self/environ"])
def test_a_path_in_a_file_field_is_refused(path: str, client: Client) -> None:
    for button in ("Measure", "Check"):
        text = error_of(client.press(button, [as_file(path)]))
        assert "root:" not in text
        assert "not uploaded" in text or "error" in text.lower()


def test_a_file_elsewhere_is_not_fetched(client: Client) -> None:
    message = client.press("Measure", [as_file("http://127.0.0.1:9/picture.png")])
    assert message["status"] == 400
    assert "fetches nothing from elsewhere" in error_of(message)
    assert client.file("http://127.0.0.1:9/picture.png") == 403
    assert client.request("GET", "/gradio_api/proxy=http://127.0.0.1:9/x")[0] == 403


@pytest.mark.parametrize("value", ["/etc", "../..", "0" * 16, {"path": "/etc"}, ["/etc"], 3])
def test_a_forged_choice_of_weights_is_refused(value: object, client: Client) -> None:
    assert "alpha" not in error_of(client.press("Tell", [value]))


def test_only_the_work_folder_is_served(odd: Server, client: Client) -> None:
    run = odd.root / "runs" / "alpha" / "config.yaml"
    inside = client.upload("mine.txt", b"mine")[1]
    assert client.file(inside) == 200
    link = Path(inside).with_name("link.txt")
    link.symlink_to("/etc/passwd")
    outside = ["/etc/passwd", str(run), "runs/alpha/config.yaml", f"{Path(inside).parent}/../../../runs/alpha/config.yaml"]
    for path in (*outside, f"{odd.temporary}/../runs/alpha/config.yaml", str(link), "/proc/self/environ"):
        assert client.file(path) == 403, path


def test_programs_are_offered_no_interface(client: Client) -> None:
    assert b'"named_endpoints":{}' in client.request("GET", "/gradio_api/info")[1].replace(b" ", b"")
    for path in ("/docs", "/openapi.json", "//docs", "//openapi.json"):
        assert client.request("GET", path)[0] == 404


def test_a_page_of_another_name_reaches_no_demo(client: Client) -> None:
    assert client.request("GET", "//", Host="evil.example")[0] == 403
    assert client.request("GET", "/config", Host="evil.example:80")[0] == 403


def test_a_video_that_claims_too_much_is_refused(client: Client, tmp_path: Path) -> None:
    bomb = endless_video(tmp_path / "bomb.mp4")
    assert bomb.stat().st_size < 200_000
    _, path = client.upload("bomb.mp4", bomb.read_bytes())
    assert "seconds" in error_of(client.press("Check", [as_file(path)]))
    _, path = client.upload("good.mp4", write_video(tmp_path / "good.mp4", frames=5).read_bytes())
    assert client.press("Check", [as_file(path)])["output"]["data"] == ["fine: .mp4"]


def test_everything_is_removed_when_the_server_is_told_to_end(serve: Callable[..., Server], odd_folder: Path) -> None:
    server = serve(odd_folder, **ODD)
    client = Client(server.url, "plain")
    client.press("Start", ["word", 1])
    assert list(server.temporary.glob("mixtura-demos-*/session-*/*.png"))
    assert server.stop() == 143
    assert os.listdir(server.temporary) == []
