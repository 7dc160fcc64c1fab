"""The evaluator `reenactment`: a source frame moved by frames that it has to follow, compared with what they truly show.

Self: source and driving are frames of one clip, and the driving frames are the truth. Cross: the driving frames are somebody
else's, and the truth is drawn, the source's person in the driving pose and expression. Beside the system stand the same networks
without warping (all keypoints stay), the source frame shown again, and the truth itself, on which the meter's own error shows.

Figures: PSNR, SSIM, GMSD of frames and PSNR of faces; where faces are drawn in the plain style also errors of pose (degrees),
expression and openings against the labels, and the distance of identity from the source's person (1 - cosine), read by `meter`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from mixtura.data.sources import open_sources, sections_of
from mixtura.evaluate import EvalContext, EvalResult, EvaluatorConfig
from mixtura.metrics.image import gmsd, psnr, ssim
from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.procedural import Faces
from mixtura_live_portrait.data.sample import Frame
from mixtura_live_portrait.evaluators.meter import Meter, Places, meter_for
from mixtura_live_portrait.faces.crop import as_frames, as_tensor
from mixtura_live_portrait.losses.regions import FACE, cut, known

if TYPE_CHECKING:
    from mixtura.data.source import Source
    from mixtura_live_portrait.system import LivePortrait

OURS, STILL, SHOWN, TRUE = "ours", "without warping", "source shown again", "the truth"
HIGHEST = 100.0
"""dB that equal pictures count as."""
ROWS = 6
"""Items of a source and task that the report shows."""
MEASURES = ("psnr", "ssim", "gmsd", "face_psnr", "pose", "expression", "eyes", "lips", "identity")
FACE_SIDE = 64
WORTH = "What the meter is worth: its errors on drawn people it never saw, and how far apart it puts people"
Method = Callable[[Tensor, Tensor], Tensor]


class ReenactmentConfig(EvaluatorConfig):
    """An entry of `evaluate:`; `sources` are sections as under `sources:`, of people that training never sees."""

    type: Literal["reenactment"] = "reenactment"
    sources: dict[str, dict[str, Any]] = Field(min_length=1, description="name -> source of held-out people; `faces` by default")
    items: int = Field(24, ge=1, description="items of each source, evenly spread")
    frames: int = Field(4, ge=1, description="driving frames of an item of drawn faces")
    cross: bool = Field(True, description="also let somebody else drive, where faces are drawn")

    @model_validator(mode="after")
    def _readable(self) -> ReenactmentConfig:
        sections_of(self.sources, "faces")
        return self


class Case(NamedTuple):
    """One item: pictures (n, 3, S, S) in 0..1, the source's n = 1; boxes of true faces (n, 4); what is known of drawn ones."""

    source: Tensor
    driving: Tensor
    truth: Tensor
    boxes: Tensor
    frames: tuple[Frame, ...] = ()
    start: Frame | None = None


@dataclass
class Scores:
    """Figures of every frame by (task, method): measure -> values."""

    values: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)

    def add(self, task: str, method: str, found: Mapping[str, Tensor]) -> None:
        """Figures of some frames (n,); those that aren't known are left out."""
        mine = self.values.setdefault((task, method), {})
        for name, values in found.items():
            mine.setdefault(name, []).extend(values[values.isfinite()].tolist())

    def mean(self, task: str, method: str, name: str) -> float | None:
        """Mean over frames; None where nothing is known."""
        found = self.values[task, method].get(name)
        return float(np.mean(found)) if found else None

    def rows(self, source: str) -> list[dict[str, Any]]:
        """One row a task and method for the report."""
        rows = []
        for task, method in self.values:
            row: dict[str, Any] = {"source": source, "task": task, "method": method}
            row["frames"] = len(self.values[task, method]["psnr"])
            figures = {name: self.mean(task, method, name) for name in MEASURES}
            rows.append(row | {name: round(value, 3) for name, value in figures.items() if value is not None})
        return rows

    def scalars(self, source: str) -> dict[str, float]:
        """`SOURCE/TASK/MEASURE` of the system, `SOURCE/TASK/METHOD/MEASURE` of the others."""
        found = {}
        for task, method in self.values:
            label = f"{source}/{task}" if method == OURS else f"{source}/{task}/{method}"
            for name in MEASURES:
                value = self.mean(task, method, name)
                if value is not None:
                    found[f"{label}/{name}"] = value
        return found


class Reenactment:
    """Scalars as `Scores.scalars` names them; a table of all methods, one of what the meter is worth, and pictures."""

    Config: ClassVar[type[ReenactmentConfig]] = ReenactmentConfig

    def __init__(self, config: ReenactmentConfig, *, root: Path) -> None:
        self.config, self.root = config, Path(root)

    def run(self, system: LivePortrait, context: EvalContext) -> EvalResult:
        """Measure `system`, and the others beside it."""
        result = EvalResult()
        table = result.tables["Reenactment of held-out people (means over frames)"] = []
        sources = open_sources(sections_of(self.config.sources, "faces"), self.root)
        readable = {name for name, s in sources.items() if isinstance(s, Faces) and s.config.style == "plain"}
        meter = meter_for(system.sizes.output, context.cache) if readable else None
        for name, source in sources.items():
            scores = Scores()
            for task in ("self", "cross") if self.config.cross and isinstance(source, Faces) else ("self",):
                reader = meter if name in readable else None
                strips = [self._measured(system, case, task, scores, reader) for case in self._cases(source, name, task)]
                file = sheet(strips[:ROWS], context.out / f"{name}-{task}.png")
                result.media[f"{name}, {task}: source, and for each frame driving, truth, painted"] = file
            table.extend(scores.rows(name))
            result.scalars |= scores.scalars(name)
        if meter is not None:
            row = {key: round(value, 3) for key, value in meter.worth.items()}
            result.tables[WORTH] = [row]
        return result

    def _cases(self, source: Source, name: str, task: str) -> Iterator[Case]:
        count = min(self.config.items, len(source))
        for index in np.linspace(0, len(source) - 1, count).round().astype(int).tolist():
            if isinstance(source, Faces):
                yield drawn_case(source, index, self.config.frames, is_cross=task == "cross")
            else:
                yield read_case(source, index, name)

    def _measured(self, system: LivePortrait, case: Case, task: str, scores: Scores, meter: Meter | None) -> Tensor:
        """Figures of all methods on one item; its pictures in a row."""
        device = next(system.parameters()).device
        count = len(case.driving)
        inputs = {"source": case.source.to(device), "driving": case.driving.to(device), "motion": "whole"}
        painted = system.infer(**inputs)["frames"].cpu()
        made = {
            OURS: painted,
            STILL: system.infer(source=inputs["source"])["frames"].cpu().expand(count, -1, -1, -1),
            SHOWN: case.source.expand(count, -1, -1, -1),
            TRUE: case.truth,
        }
        for method, pictures in made.items():
            scores.add(task, method, compared(pictures, case, meter))
        each = torch.stack([case.driving, case.truth, painted], 1).flatten(0, 1)
        return torch.cat([case.source[0], *each], -1)


def drawn_case(faces: Faces, index: int, frames: int, is_cross: bool) -> Case:
    """A drawn person and frames to follow: other ones of the clip, or of somebody else's, evenly spread after the first."""
    length = faces.config.frames
    places = np.linspace(0, length - 1, frames + 1).round().astype(int)
    doing = (index + max(1, len(faces) // 2)) % len(faces) if is_cross else index
    source = faces.stretch(index, places[:1])
    truth = faces.stretch(index, places[1:], doing)
    driving = faces.stretch(doing, places[1:]) if is_cross else truth
    told = tuple(Frame.of(*one) for one in zip(*truth, strict=True))
    boxes = torch.from_numpy(np.stack([frame.boxes[FACE] for frame in told]))
    first, seen, true = (as_tensor(stretch.images) for stretch in (source, driving, truth))
    return Case(first, seen, true, boxes, told, Frame.of(source.images[0], source.landmarks[0]))


def read_case(source: Source, index: int, name: str) -> Case:
    """Two frames as a source of samples gives them."""
    fields = source.read(index, KeyedRng("reenactment", name, index)).fields
    first, second = as_tensor(fields["source"][None]), as_tensor(fields["driving"][None])
    return Case(first, second, second, torch.from_numpy(fields["boxes"][1:, FACE]))


def compared(pictures: Tensor, case: Case, meter: Meter | None) -> dict[str, Tensor]:
    """Figures (n,) of pictures that should be the truth; NaN where unknown."""
    shown = pictures.clamp(0, 1)
    faces, true_faces = (cut(one, case.boxes, FACE_SIDE) for one in (shown, case.truth))
    found = {
        "psnr": psnr(shown, case.truth).clamp(max=HIGHEST),
        "ssim": ssim(shown, case.truth),
        "gmsd": gmsd(shown, case.truth),
        "face_psnr": torch.where(known(case.boxes), psnr(faces, true_faces).clamp(max=HIGHEST), float("nan")),
    }
    return found if meter is None or case.start is None else found | read_errors(shown, case, case.start, meter)


def read_errors(shown: Tensor, case: Case, start: Frame, meter: Meter) -> dict[str, Tensor]:
    """What the meter reads in pictures, against the labels of the truth (n,)."""
    reading = meter.read(shown, Places.of(list(case.frames)))
    person = meter.read(case.source, Places.of([start])).identity
    pose, expression, ratios = (
        torch.from_numpy(np.stack([getattr(frame, name) for frame in case.frames])) for name in ("pose", "expression", "ratios")
    )
    openings = (reading.ratios - ratios).abs()
    return {
        "pose": (reading.pose - pose).abs().mean(1),
        "expression": (reading.expression - expression).abs().mean(1),
        "eyes": openings[:, :2].mean(1),
        "lips": openings[:, 2],
        "identity": 1 - (reading.identity * person).sum(1),
    }


def sheet(strips: list[Tensor], path: Path) -> str:
    """Rows of pictures (3, h, w) below each other in one PNG, enlarged where they are small; returns its name."""
    picture = Image.fromarray(as_frames(torch.cat(strips, -2)))
    if strips[0].shape[-2] < 128:
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    picture.save(path)
    return path.name
