"""What `mixtura infer` is given, opened and checked before any work: source, drivings, detectors, settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from mixtura.errors import ConfigError, DataError
from mixtura_live_portrait.animate.looking import How
from mixtura_live_portrait.animate.official import PICKLES, REMEDY
from mixtura_live_portrait.animate.regions import check_region
from mixtura_live_portrait.animate.settings import Settings
from mixtura_live_portrait.animate.templates import ENDING, Template, load
from mixtura_live_portrait.faces.clips import FPS, PICTURES, open_clip
from mixtura_live_portrait.faces.crop import DRIVING, SOURCE, Frame
from mixtura_live_portrait.faces.detector import Detector, make
from mixtura_live_portrait.faces.given import Given, read_given
from mixtura_live_portrait.faces.pictures import read_picture
from mixtura_live_portrait.faces.tracking import Tracking

Kind = Literal["picture", "clip", "template"]


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames that begin anew with each iteration: of a picture, or of a clip of which one frame at a time is in memory."""

    of: Iterable[Frame]
    limit: int | None = None

    def __iter__(self) -> Iterator[Frame]:
        return islice(iter(self.of), self.limit)


@dataclass(frozen=True, eq=False)
class Input:
    """A file: its frames and their rate, or the template in it. A picture's rate is 0, for it has none."""

    path: Path
    kind: Kind
    fps: float = 0.0
    frames: Frames | list[Frame] | None = None
    template: Template | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that an animation needs but the networks. Without drivings a source picture is edited by sliders."""

    chosen: Settings
    source: Input
    drivings: tuple[Input, ...]
    fps: float
    detector: Detector | None
    source_how: How
    driving_how: How

    @property
    def faces(self) -> int | None:
        """Faces of the source to be animated; None: all."""
        if self.chosen.all_faces:
            return None
        return max(1, len(self.drivings))


def kind_of(path: Path) -> Kind:
    """By the file's name. Raises DataError for files that aren't there, and for official templates, which are pickles."""
    ending = path.suffix.lower()
    if ending in PICKLES:
        raise DataError(
            f"{path}: official templates are pickles, which can run programs; convert it, if you know its maker: {REMEDY}"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a picture, a clip or a motion template ({ENDING})")
    if ending == ENDING:
        return "template"
    return "picture" if ending in PICTURES else "clip"


def plan(inputs: Sequence[Path], chosen: Settings, keypoints: int, networks: str = "") -> Plan:
    """Open and check everything. `networks` is the fingerprint that templates must have. Raises MixturaError."""
    check_region(chosen.region, keypoints, chosen.lists)
    chosen.edit.check(keypoints, chosen.lists)
    kinds = [kind_of(path) for path in inputs]
    _check_kinds(inputs, kinds, chosen)
    rates = [_rate(path, kind, keypoints, networks) for path, kind in zip(inputs, kinds, strict=True)]
    fps = chosen.fps or next((rate for rate in [*rates[1:], rates[0]] if rate), FPS)
    source, *drivings = (_opened(path, kind, fps, chosen, keypoints, networks) for path, kind in zip(inputs, kinds, strict=True))
    source_how = _how(chosen, "source", source.path)
    driving_how = _how(chosen, "driving", drivings[0].path if drivings else "")
    by_hand = source_how.given is not None and all(
        entry.kind == "template" or driving_how.given is not None for entry in drivings
    )
    return Plan(chosen, source, tuple(drivings), fps, None if by_hand else _detector(chosen), source_how, driving_how)


def _check_kinds(inputs: Sequence[Path], kinds: Sequence[Kind], chosen: Settings) -> None:
    """Which files go together."""
    if not inputs:
        raise DataError("no input; give a source (picture or clip) and what drives it (picture, clip or template)")
    if kinds[0] == "template":
        raise DataError(f"{inputs[0]}: a motion template has no face; the first input is the source, a picture or a clip")
    if len(inputs) == 1 and (chosen.edit.is_at_rest or kinds[0] != "picture"):
        raise DataError(
            f"{inputs[0]}: nothing drives it; give a driving (picture, clip or template) as second input, or a picture with "
            "sliders, as edit.yaw=10"
        )
    if len(inputs) > 1 and not chosen.edit.is_at_rest:
        raise ConfigError("edit: sliders are for a picture without a driving; leave out one of the two")
    if len(inputs) > 2 and (chosen.driving_landmarks is not None or chosen.source_landmarks is not None):
        raise ConfigError("landmarks by hand go with one source face and one driving; leave them out, or give one driving")
    if chosen.all_faces and chosen.source_landmarks is not None:
        raise ConfigError("all_faces: landmarks by hand are those of one face; leave out one of the two")


def _rate(path: Path, kind: Kind, keypoints: int, networks: str) -> float:
    if kind == "template":
        template = load(path, keypoints, networks)
        return 0.0 if template.is_picture else template.fps
    return 0.0 if kind == "picture" else open_clip(path).fps


def _opened(path: Path, kind: Kind, fps: float, chosen: Settings, keypoints: int, networks: str) -> Input:
    if kind == "template":
        template = load(path, keypoints, networks)
        if not template.is_picture:
            template = template.at_rate(fps).first(chosen.max_frames or len(template))
        return Input(path, kind, fps, template=template)
    if kind == "picture":
        return Input(path, kind, frames=[read_picture(path, chosen.longest)])
    return Input(path, kind, fps, Frames(open_clip(path, fps, chosen.longest), chosen.max_frames))


def _how(chosen: Settings, side: Literal["source", "driving"], path: Path | str) -> How:
    """How faces of one side are looked for."""
    by_hand, index = getattr(chosen, f"{side}_landmarks"), chosen.face if side == "source" else chosen.driving_face
    given: Given | None = None if by_hand is None else read_given(by_hand)
    framing = SOURCE if side == "source" else DRIVING
    return How(framing, getattr(chosen, f"{side}_crop"), Tracking(chosen.order, index, gaps=chosen.gaps), given, path)


def _detector(chosen: Settings) -> Detector:
    """The detector that is asked for, with the models that are given."""
    settings: dict[str, Any] = {}
    if chosen.models is not None:
        if not chosen.models.exists():
            raise DataError(f"models: {chosen.models}: no such file or folder")
        settings["folder" if chosen.models.is_dir() else "models"] = chosen.models
    return make(chosen.detector, **settings)
