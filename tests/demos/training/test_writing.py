"""Files are written where they may be, under plain names, and nothing is lost."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr

from mixtura_demos.shared.errors import Refused
from mixtura_demos.training import writing


def test_a_file_is_written_once_and_replaced_only_when_told(tmp_path: Path) -> None:
    assert writing.write("configs", "mine", "a: 1\n", False, tmp_path) == Path("configs/mine.yaml")
    with pytest.raises(Refused, match="tick 'Replace"):
        writing.write("configs", "mine", "a: 2\n", False, tmp_path)
    assert (tmp_path / "configs" / "mine.yaml").read_text() == "a: 1\n"
    writing.write("configs", "mine", "a: 2\n", True, tmp_path)
    assert (tmp_path / "configs" / "mine.yaml").read_text() == "a: 2\n"
    assert [file.name for file in (tmp_path / "configs").iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".hidden", "-rf", "x" * 65, "a;rm", "A", None])
def test_a_file_name_that_is_no_plain_word_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(Refused, match="plain word"):
        writing.write("configs", name, "", False, tmp_path)


@pytest.mark.parametrize("folder", ["..", "/tmp", "runs", "configs/../..", "outside", ".git", "", None])
def test_a_folder_that_was_not_offered_is_refused(tmp_path: Path, folder: Any) -> None:
    for name in ("runs", ".git", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text("")
    (tmp_path / "outside").symlink_to("/tmp")
    assert writing.folders(tmp_path) == ["configs", "plain"]
    with pytest.raises(Refused, match="choose one from the list"):
        writing.write(folder, "mine", "", False, tmp_path)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "configs" / "mine.yaml").symlink_to(tmp_path / "victim")
    with pytest.raises(Refused, match="no plain file"):
        writing.write("configs", "mine", "lost", True, tmp_path)
    assert (tmp_path / "victim").read_text() == "kept"


def test_the_command_is_quoted_for_the_shell() -> None:
    assert shlex.split(writing.command(Path("a b/it's.yaml"))) == ["mixtura", "train", "a b/it's.yaml"]


@pytest.mark.parametrize(
    ("client", "server", "headers", "local"),
    [
        ("127.0.0.1", "127.0.0.1", {"host": "localhost:7860"}, True),
        ("::1", "::1", {"host": "[::1]:7860"}, True),
        ("10.0.0.2", "10.0.0.1", {"host": "10.0.0.1:7860"}, False),
        ("127.0.0.1", "127.0.0.1", {"host": "evil.example"}, False),
        ("127.0.0.1", "127.0.0.1", {"host": "localhost", "X-Forwarded-For": "10.0.0.9"}, False),
        ("127.0.0.1", "127.0.0.1", {}, False),
    ],
)
def test_files_are_written_only_for_the_machine_itself(client: str, server: str, headers: dict[str, str], local: bool) -> None:
    class Inner:
        scope = {"client": (client, 1), "server": (server, 2)}  # noqa: RUF012

    Inner.headers = headers  # type: ignore[attr-defined]
    assert writing.is_local(gr.Request(Inner())) is local  # type: ignore[arg-type]
