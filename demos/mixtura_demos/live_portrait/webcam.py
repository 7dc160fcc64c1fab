"""The part "Webcam": a portrait that follows a camera, frame by frame.

The browser sends a frame every few hundredths of a second. While one is worked on, each that comes takes the place of the one
that waits: what is late is dropped, and nothing queues up. `Live` tells how many frames a second are shown.
"""

from __future__ import annotations

import base64
import html
import io
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from mixtura_demos.live_portrait import form
from mixtura_demos.live_portrait.engines import loaded
from mixtura_demos.live_portrait.fields import Values, example_portrait, picture_field
from mixtura_demos.live_portrait.inputs import as_seen, given, named
from mixtura_demos.live_portrait.sitting import Sitting, sit
from mixtura_demos.shared import jobs
from mixtura_demos.shared.errors import shown
from mixtura_demos.shared.look import note, section

if TYPE_CHECKING:
    from mixtura_live_portrait.animate.stream import Stream
    from mixtura_live_portrait.faces.crop import Frame

EVERY, LONGEST = 0.05, 600
"""Seconds between frames that the browser sends, and of a stream."""
WATCHED = 20
"""Frames over which the rate is measured."""
JITTER = {"off": None, "some": 3e-7, "strong": 3e-6}
"""Word -> variance that the filter assumes."""
WAITING = "No portrait yet: give a picture with a face, or take the example."


class Live:
    """One portrait that follows one camera."""

    def __init__(self, sitting: Sitting, stream: Stream) -> None:
        self.sitting, self.stream, self.shown = sitting, stream, 0
        self.times: deque[float] = deque(maxlen=WATCHED)
        self.shape: tuple[int, ...] = ()
        self.lock = threading.Lock()

    def step(self, frame: Frame) -> Frame:
        """The portrait as the next frame moves it. A frame of another size begins anew."""
        with self.lock:
            if frame.shape != self.shape:
                self.shape = frame.shape
                self.restart()
            picture = self.stream.frame(frame)
            self.shown += 1
            self.times.append(time.perf_counter())
            return picture

    def restart(self) -> None:
        """Let motion begin from the next frame with a face."""
        self.stream.restart()
        self.times.clear()

    @property
    def rate(self) -> float:
        """Frames a second of late; 0 before there are two."""
        spent = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        return (len(self.times) - 1) / spent if spent > 0 else 0.0

    def told(self) -> str:
        """How it goes, in a line."""
        face = "face in sight" if self.stream.has_face else "no face in sight, the last picture stays"
        return f"{self.rate:.1f} frames a second, {self.shown} shown; {face}."


class Page:
    """The fields and what they do. `weights` is the picker."""

    def __init__(self, weights: gr.Dropdown) -> None:
        self.weights = weights
        self.live = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                self._inputs()
            with gr.Column(scale=1, min_width=300):
                with section("Camera"):
                    note("Look straight ahead when you start it: the first frame with a face is what motion is measured from.")
                    options = gr.WebcamOptions(mirror=True)
                    self.camera = as_seen(
                        gr.Image(label="Camera", sources=["webcam"], streaming=True, webcam_options=options, height=260)
                    )
                    self.restart = gr.Button("Start from the next frame")
                with section("Following portrait"):
                    self.picture = gr.HTML(picture_html(None), elem_id="lp-live")
                    self.told = gr.Markdown(WAITING, elem_id="lp-live-told")
        self._wire()

    def _inputs(self) -> None:
        with section("Portrait that follows"):
            self.upload = picture_field("Portrait for the camera")
            self.example = gr.Button("Load the example as portrait")
            self.relative = gr.Radio(list(form.MOTIONS), value=next(iter(form.MOTIONS)), label="Motion of the camera")
            self.region = gr.Radio(list(form.REGIONS), value="everything", label="What the portrait takes over")
            self.jitter = gr.Radio(list(JITTER), value="off", label="Smoothing", info="against trembling; lags a little")
            self.stitching = gr.Checkbox(True, label="Keep its shoulders", info="stitching")
            self.paste = gr.Checkbox(True, label="Whole portrait", info="otherwise the crop alone")

    def _wire(self) -> None:
        choices: list[Any] = [self.relative, self.region, self.jitter, self.stitching, self.paste]
        events = [self.upload.change, self.weights.change, *(field.input for field in choices)]
        gr.on(
            events,
            jobs.as_job(self.prepare),
            {self.live, self.weights, self.upload, *choices},
            [self.live, self.picture, self.told],
            trigger_mode="always_last",
            concurrency_id="compute",
            concurrency_limit=1,
            api_visibility="private",
        )
        self.camera.stream(
            shown(self.follow),
            [self.camera, self.live],
            [self.picture, self.told],
            stream_every=EVERY,
            time_limit=LONGEST,
            show_progress="hidden",
            concurrency_id="webcam",
            concurrency_limit=2,
            api_visibility="private",
        )
        self.restart.click(begin_anew, self.live, None, **jobs.QUICK)
        self.example.click(shown(example_portrait), None, self.upload, **jobs.QUICK)

    # -- handlers ------------------------------------------------------------------------------------------------
    def prepare(self, values: Values, request: gr.Request) -> list[Any]:
        """Get a portrait ready to follow, with the chosen settings."""
        from mixtura.inference import settings_of
        from mixtura_live_portrait.animate.animator import Animator
        from mixtura_live_portrait.animate.settings import Settings
        from mixtura_live_portrait.animate.stream import Stream
        from mixtura_live_portrait.faces.detector import make

        upload = values[self.upload]
        if not upload:
            return [None, picture_html(None), WAITING]
        words = {"relative": values[self.relative], "region": values[self.region], "stitching": values[self.stitching]}
        settings, networks = form.settings_of(words), loaded(values[self.weights])
        chosen = settings_of(Settings, settings)
        animator = Animator(networks.engine, chosen.rules(), chosen.adjust())
        sitting = self._sitting(values, request)
        variance = JITTER[values[self.jitter]]
        detector = make(search="first")
        stream = Stream(animator, sitting.portrait, sitting.frame, detector, pastes=values[self.paste], variance=variance)
        live = Live(sitting, stream)
        return [live, picture_html(stream.shown), f"Ready: start the camera. Weights: {networks.label}."]

    def _sitting(self, values: Values, request: gr.Request) -> Sitting:
        """The portrait, kept while picture and weights stay the same."""
        key = (str(values[self.upload]), str(values[self.weights]))
        before: Live | None = values[self.live]
        if before is not None and before.sitting.key == key:
            return before.sitting
        path = given(values[self.upload], "picture", "the picture", request)
        with named({path: "the picture"}):
            return sit(path, {}, loaded(values[self.weights]), key)

    def follow(self, frame: Any, live: Any) -> tuple[Any, Any]:
        """The next frame of the camera."""
        if frame is None or live is None:
            return gr.skip(), WAITING if live is None else gr.skip()
        return picture_html(live.step(frame)), live.told()


def begin_anew(live: Any) -> None:
    """Let motion begin from the next frame with a face."""
    if live is not None:
        with live.lock:
            live.restart()


def picture_html(frame: Frame | None) -> str:
    """A picture within the page, so that no file is written for each frame."""
    if frame is None:
        return '<p class="mx-note">The portrait appears here.</p>'
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    alternative = html.escape("the portrait as it follows the camera")
    return f'<img src="data:image/jpeg;base64,{data}" alt="{alternative}" style="max-width: 100%">'
