"""What `mixtura infer` does for LivePortrait: a source and what drives it in; an animated clip or picture out.

    mixtura infer RUN --input portrait.png --input driving.mp4 --output OUT [setting=value …]

The first input is the source: a picture or a clip. The second drives it: a picture, a clip, or a template from an earlier run.
More drivings move as many faces, in their order. Without a driving a picture is edited by sliders (`edit.yaw=10`). Settings are
in `settings`.

    OUT/  animated.mp4 | .png  comparison.mp4 | .png  template.safetensors  faces_source.png  faces_driving.png  info.json

`comparison` shows driving crop, source crop and result; `faces_…` where faces were found. Files get their names when complete.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import nn

from mixtura.data.formats.video import VideoWriter
from mixtura.inference import settings_of
from mixtura_live_portrait.animate.animator import Animator, Shot, shared_length
from mixtura_live_portrait.animate.editing import edited
from mixtura_live_portrait.animate.engine import Engine, device_of
from mixtura_live_portrait.animate.inputs import Input, Plan, plan
from mixtura_live_portrait.animate.looking import Looked, look, look_for_several
from mixtura_live_portrait.animate.portrait import Portrait, clip_portrait
from mixtura_live_portrait.animate.settings import Settings
from mixtura_live_portrait.animate.showing import beside, cropped, crops, marked
from mixtura_live_portrait.animate.templates import Template, fingerprint, save
from mixtura_live_portrait.animate.video import add_sound, has_sound, writing
from mixtura_live_portrait.faces.crop import Frame
from mixtura_live_portrait.fast import has_bfloat16, ready

if TYPE_CHECKING:
    from mixtura_live_portrait.system import LivePortrait

Say = Callable[[str], None]
PATIENCE = 10.0
"""Seconds between two words about progress."""


def infer_files(system: LivePortrait, inputs: Sequence[Path], out: Path, settings: Mapping[str, Any], say: Say) -> list[Path]:
    """Animate or edit; returns the files written. Inputs and settings are checked before any work. Raises MixturaError."""
    chosen = settings_of(Settings, settings)
    networks = fingerprint(system.get_submodule("motion"))
    planned = plan(inputs, chosen, system.sizes.keypoints, networks)
    began = time.perf_counter()
    result = Result(planned, engine_of(system, chosen), networks, out, say)
    result.seconds["networks"] = time.perf_counter() - began
    return result.make()


def engine_of(system: nn.Module, chosen: Settings) -> Engine:
    """A system's networks, moved to the device that is set and made ready. Raises ConfigError for what can't be had there."""
    device = device_of(chosen.device)
    precision = chosen.precision
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" and has_bfloat16(device) else "float32"
    return ready(system.to(device), precision, compile=chosen.compile, cuda_graphs=chosen.cuda_graphs)


class Result:
    """One plan to files in one folder."""

    def __init__(self, planned: Plan, engine: Engine, networks: str, out: Path, say: Say) -> None:
        self.plan, self.chosen, self.engine, self.networks = planned, planned.chosen, engine, networks
        self.animator = Animator(engine, self.chosen.rules(), self.chosen.adjust(), self.chosen.batch)
        self.out, self.say = out, say
        self.seconds: dict[str, float] = {}
        self.written: list[Path] = []
        self.stills: dict[int, Frame] = {}

    def make(self) -> list[Path]:
        """All files."""
        self.out.mkdir(parents=True, exist_ok=True)
        with self._timed("source"):
            found, portraits = self._source()
        with self._timed("driving"):
            drivings = [self._driving(number, entry) for number, entry in enumerate(self.plan.drivings)]
        with self._timed("keypoints"):
            places = self._places(portraits, [template for template, _ in drivings])
        rows = [looked for _, looked in drivings]
        shots = self.animator.paint(self._frames(portraits), portraits, places)
        count = len(places[0])
        with self._timed("painting"):
            self._write(shots, count, found, rows * len(found) if len(rows) == 1 else rows)
        self._sound(count)
        self._info(count, len(found))
        return self.written

    # -- seeing --------------------------------------------------------------------------------------------------
    def _source(self) -> tuple[list[Looked], list[Portrait]]:
        """Faces of the source."""
        planned = self.plan
        assert planned.source.frames is not None
        found = look_for_several(planned.source.frames, planned.detector, planned.source_how, planned.faces)
        self._save_picture("faces_source.png", marked(self._first(planned.source), found))
        self.say(f"{planned.source.path}: {_times(len(found), 'face')}, {_times(len(found[0]), 'frame')}")
        for face in found:
            self.animator.check_ratios(source=face.ratios)
        if self.chosen.lip_normalise and self.chosen.relative and not found[0].ratios[:, 2].isfinite().any():
            self.say("lips aren't normalised, for these landmarks don't tell how far they are open")
        return found, [clip_portrait(self.engine, planned.source.frames, face, self.chosen.batch) for face in found]

    def _driving(self, number: int, entry: Input) -> tuple[Template, Looked | None]:
        """What a driving does, and where its face was seen; a template has been seen before."""
        if entry.template is not None:
            self.say(f"{entry.path}: a template of {_times(len(entry.template), 'frame')}")
            self.animator.check_ratios(driving=entry.template.ratios)
            return entry.template, None
        assert entry.frames is not None
        looked = look(entry.frames, self.plan.detector, replace(self.plan.driving_how, file=entry.path)).still()
        suffix = f"_{number + 1}" if len(self.plan.drivings) > 1 else ""
        self._save_picture(f"faces_driving{suffix}.png", marked(self._first(entry), [looked]))
        self.say(f"{entry.path}: {_times(len(looked), 'frame')}")
        self.animator.check_ratios(driving=looked.ratios)
        template = self.animator.template(entry.frames, looked, self.plan.fps, self.networks)
        save(template, self._path(f"template{suffix}.safetensors"))
        return template, looked

    def _places(self, portraits: Sequence[Portrait], drivings: Sequence[Template]) -> list[torch.Tensor]:
        """Keypoints of every face, for as many frames as the result has."""
        if not drivings:
            small, chosen = self.engine.small, self.chosen
            with torch.inference_mode():
                return [
                    edited(p.movement, p.ratios, chosen.edit, small, chosen.stitching, chosen.lists, p.told) for p in portraits
                ]
        moves = list(drivings) * len(portraits) if len(drivings) == 1 else list(drivings)
        count = shared_length(*portraits, *moves)
        places = [self.animator.keypoints(portrait, move) for portrait, move in zip(portraits, moves, strict=True)]
        return [x[:count].expand(count, -1, -1) for x in places]

    def _frames(self, portraits: Sequence[Portrait]) -> Frame | Iterable[Frame]:
        """The source's frames as `Animator.paint` takes them: those of a clip, or the one of a picture for every moment."""
        source = self.plan.source
        return source.frames if portraits[0].is_clip and source.frames is not None else self._first(source)

    @staticmethod
    def _first(entry: Input) -> Frame:
        assert entry.frames is not None
        return next(iter(entry.frames))

    # -- painting ------------------------------------------------------------------------------------------------
    def _write(self, shots: Iterator[Shot], count: int, found: Sequence[Looked], rows: Sequence[Looked | None]) -> None:
        """The animation and the comparison, frame by frame."""
        driven = self._driving_crops(rows)
        said = time.monotonic()
        with ExitStack() as open_files:
            animated = compared = None
            for shot in shots:
                result = shot.pasted if self.chosen.paste else beside([[crop] for crop in shot.crops])
                animated = animated or open_files.enter_context(self._sink("animated", count, result))
                animated(result)
                if self.chosen.comparison:
                    table = self._comparison(shot, found, [next(each) for each in driven])
                    compared = compared or open_files.enter_context(self._sink("comparison", count, table))
                    compared(table)
                if time.monotonic() - said > PATIENCE:
                    said = time.monotonic()
                    self.say(f"{shot.number + 1} of {count} frames")

    def _driving_crops(self, rows: Sequence[Looked | None]) -> list[Iterator[Frame | None]]:
        """For each face the crops of what drives it; None where that is a template."""
        side, entries = self.engine.sizes.output, self.plan.drivings
        found: list[Iterator[Frame | None]] = []
        for number, looked in enumerate(rows):
            entry = entries[number if len(entries) > 1 else 0]
            if looked is None or entry.frames is None:
                found.append(repeat(None))
            elif len(looked) == 1:
                found.append(repeat(cropped(self._first(entry), looked, side)))
            else:
                found.append(crops(iter(entry.frames), looked, side))
        return found

    def _comparison(self, shot: Shot, found: Sequence[Looked], driven: Sequence[Frame | None]) -> Frame:
        side = self.engine.sizes.output
        has_driving = any(crop is not None for crop in driven)
        rows = []
        for number, (face, result) in enumerate(zip(found, shot.crops, strict=True)):
            source = self.stills.get(number)
            if source is None:
                source = cropped(shot.frame, face, side, shot.number)
            if len(face) == 1:
                self.stills[number] = source  # the crop of a picture stays what it is
            rows.append([driven[number], source, result] if has_driving else [source, result])
        return beside(rows)

    # -- writing -------------------------------------------------------------------------------------------------
    def _path(self, name: str) -> Path:
        path = self.out / name
        self.written.append(path)
        return path

    @contextmanager
    def _sink(self, name: str, count: int, first: Frame) -> Iterator[Callable[[Frame], None]]:
        """Takes frames of a clip, or the only one, which becomes a picture."""
        if count == 1:
            yield lambda frame: self._save_picture(f"{name}.png", frame)
            return
        writer: VideoWriter
        with writing(self._path(f"{name}.mp4"), self.plan.fps, first.shape[:2]) as writer:
            yield writer.append

    def _save_picture(self, name: str, picture: Frame) -> None:
        path = self._path(name)
        part = path.with_name(f"{path.name}.part")
        Image.fromarray(picture).save(part, format="PNG")
        part.replace(path)

    def _sound(self, count: int) -> None:
        """Carry over the sound, where there is one; a sound that can't be is told, for the pictures are worth having alone."""
        sides = {"driving": self.plan.drivings, "source": (self.plan.source,), "none": ()}
        sides["auto"] = (*self.plan.drivings, self.plan.source)
        files = [entry.path for entry in sides[self.chosen.sound] if entry.kind == "clip" and has_sound(entry.path)]
        if count > 1 and files:
            problem = add_sound(self.out / "animated.mp4", files[0])
            self.say(f"no sound: {problem}" if problem else f"sound of {files[0]}")

    def _info(self, count: int, faces: int) -> None:
        settings = self.chosen.model_dump(mode="json", exclude_defaults=True)
        painting = self.seconds["painting"]
        content = {
            "inputs": [str(entry.path) for entry in (self.plan.source, *self.plan.drivings)],
            "settings": settings,
            "faces": faces,
            "frames": count,
            "fps": self.plan.fps,
            "device": str(self.engine.device),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "frames a second": round(count / painting, 3) if painting else None,
        }
        path = self._path("info.json")
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(content, indent=1))
        part.replace(path)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[what] = time.perf_counter() - began


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
