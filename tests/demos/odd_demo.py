"""A demo that does a little of everything that demos do: weights, pictures, videos, long jobs, results of a session."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from mixtura_demos.shared import checkpoints, jobs, uploads, work
from mixtura_demos.shared.errors import Refused, shown
from mixtura_demos.shared.look import note, section

title = "Plain"


def build(run: Path | None = None) -> gr.Blocks:
    """One field and button for each thing that is tried."""
    demo: gr.Blocks
    with gr.Blocks(title=title) as demo:
        note("A demo of the tests.")
        weights = checkpoints.picker("plain_system", run)
        which = gr.Textbox(label="What was chosen")
        gr.Button("Tell").click(shown(_tell), weights, which)
        with section("Files"):
            picture = gr.Image(label="Picture", type="filepath")
            size = gr.Textbox(label="Size")
            gr.Button("Measure").click(shown(_measure), picture, size)
            video = gr.File(label="Video", type="filepath")
            frames = gr.Textbox(label="Checked")
            gr.Button("Check").click(shown(_check), video, frames)
        with section("Job"):
            word = gr.Textbox("a", label="Word")
            rounds = gr.Number(3, label="Rounds", precision=0)
            start, cancel = gr.Button("Start"), gr.Button("Cancel")
            said, drawn = gr.Textbox(label="Said"), gr.Image(label="Drawn", type="filepath")
            jobs.run(start, _say, [word, rounds], [said, drawn], cancel)
            gr.Button("Fail").click(shown(_fail), word, said)
            gr.Button("Paint").click(shown(_paint), word, drawn, queue=False)
    return demo


def _tell(value: Any) -> str:
    return checkpoints.chosen(value, "plain_system").label


def _measure(path: str | None) -> str:
    return " x ".join(map(str, uploads.picture(path).shape))


def _check(path: str | None) -> str:
    return f"fine: {uploads.checked_video(path).suffix}"


def _say(word: str, rounds: int, request: gr.Request, progress: gr.Progress = gr.Progress()) -> Iterator[tuple[str, str]]:  # noqa: B008
    """Say the word again and again, a fifth of a second each; paint it."""
    path = _paint(word, request)
    for number in range(int(rounds)):
        for _ in range(4):
            jobs.tick()
            time.sleep(0.05)
        progress(number / rounds)
        yield f"{word} {number + 1}", path


def _paint(word: str, request: gr.Request) -> str:
    """A square whose colour the word gives."""
    path = work.fresh(request, ".png")
    Image.new("RGB", (8, 8), (sum(word.encode()) % 256, 0, 0)).save(path)
    return str(path)


def _fail(word: str) -> str:
    if word == "refuse":
        raise Refused("the word 'refuse' is refused; write another one")
    raise RuntimeError(f"secret things in /home/somebody/{word}.txt")
