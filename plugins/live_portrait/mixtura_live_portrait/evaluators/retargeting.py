"""The evaluator `retargeting`: eyes and lips are told how far to open; how far do they open in the picture?

Source frames of drawn people that training never saw; eyes and lips are set to some openings each, everything else stays. The
opening in the painted picture is read by `meter`. It also reads the same person drawn about as far open, whose landmarks tell the
true opening: that shows what of the error is the meter's own. With `corrections` all is painted once more, what is told being
corrected by what the system's own reader, not the meter, finds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from mixtura.data.sources import open_sources, sections_of
from mixtura.errors import ConfigError
from mixtura.evaluate import EvalContext, EvalResult, EvaluatorConfig
from mixtura_live_portrait.data.drawn.clip import DrawnClip
from mixtura_live_portrait.data.drawn.render import Drawn
from mixtura_live_portrait.data.procedural import Faces
from mixtura_live_portrait.data.sample import Frame
from mixtura_live_portrait.evaluators.meter import Meter, Places, meter_for
from mixtura_live_portrait.evaluators.reenactment import WORTH, sheet
from mixtura_live_portrait.faces.crop import as_tensor
from mixtura_live_portrait.faces.layouts import OPENINGS

if TYPE_CHECKING:
    from mixtura_live_portrait.system import LivePortrait

Values = NDArray[np.floating]

ROWS = 6


class Opened(NamedTuple):
    """Openings (n,) that the meter reads in painted pictures, and its own errors (n,) on drawn ones.

    `corrected` (n,): what it reads where the system corrected what it was told. `row`: source and painted pictures, the corrected
    ones if there are any.
    """

    painted: Values
    own_error: Values
    row: Tensor
    corrected: Values | None = None


class RetargetingConfig(EvaluatorConfig):
    """An entry of `evaluate:`."""

    type: Literal["retargeting"] = "retargeting"
    source: dict[str, Any] = Field(description="drawn people that training never sees, a section of type `faces`")
    items: int = Field(24, ge=1, description="source frames, each of another item")
    eyes: tuple[float, ...] = Field((0.0, 0.15, 0.3, 0.45), description="openings that eyes are set to")
    lips: tuple[float, ...] = Field((0.0, 0.2, 0.4, 0.6), description="openings that lips are set to")
    corrections: int = Field(0, ge=0, description="also measure with so many corrections (see `reenact.Request`)")

    @model_validator(mode="after")
    def _readable(self) -> RetargetingConfig:
        if self.source.get("type", "faces") != "faces":
            raise ValueError("source: openings are known exactly of drawn faces alone; give a section of type `faces`")
        sections_of({"source": self.source}, "faces")
        return self


class Retargeting:
    """Scalars `eyes/error`, `eyes/own_error`, `eyes/slope` (see `scalars_of`), the same of lips; a table by opening, pictures.

    With corrections `eyes/corrected_error`, too.
    """

    Config: ClassVar[type[RetargetingConfig]] = RetargetingConfig

    def __init__(self, config: RetargetingConfig, *, root: Path) -> None:
        self.config, self.root = config, Path(root)

    def run(self, system: LivePortrait, context: EvalContext) -> EvalResult:
        """Open and shut eyes and lips of all source frames."""
        result = EvalResult()
        faces = open_sources(sections_of({"source": self.config.source}, "faces"), self.root)["source"]
        if not isinstance(faces, Faces):
            raise ConfigError("evaluate: retargeting: source must be of type `faces`")
        meter = meter_for(system.sizes.output, context.cache)
        count = min(self.config.items, len(faces))
        chosen = np.linspace(0, len(faces) - 1, count).round().astype(int).tolist()
        table = result.tables["Retargeting: openings told and found (means over source frames)"] = []
        for part in OPENINGS:
            found = [self._opened(system, faces, index, part, meter) for index in chosen]
            strips = [opened.row for opened in found[:ROWS]]
            result.media[f"{part}: source, then painted at each opening"] = sheet(strips, context.out / f"{part}.png")
            told = np.array(getattr(self.config, part))
            painted, own = np.stack([opened.painted for opened in found]), np.stack([opened.own_error for opened in found])
            corrected = [opened.corrected for opened in found if opened.corrected is not None]
            again = np.stack(corrected) if corrected else None
            for number, opening in enumerate(told.tolist()):
                corrected_one = None if again is None else again[:, number]
                table.append(row_of(part, opening, painted[:, number], own[:, number], corrected_one))
            result.scalars |= scalars_of(part, told, painted, own)
            if again is not None:
                result.scalars[f"{part}/corrected_error"] = float(abs(again - told).mean())
        result.tables[WORTH] = [{key: round(value, 3) for key, value in meter.worth.items()}]
        return result

    def _opened(self, system: LivePortrait, faces: Faces, index: int, part: str, meter: Meter) -> Opened:
        """One source frame at every opening."""
        clip, told, places = faces.clip(index), getattr(self.config, part), OPENINGS[part]
        size, device = faces.config.size, next(system.parameters()).device
        start = _frame(clip.doing(clip.state(0), size))
        source, ratios = as_tensor(start.image[None]), torch.from_numpy(start.ratios[None])
        wanted = {part: torch.tensor(told)[:, None].to(device)}
        known = {"ratios": ratios.to(device), "guide": torch.from_numpy(start.guide[None]).to(device)}
        asked = {"source": source.to(device), **known, **wanted}
        painted = system.infer(**asked)["frames"].cpu()
        drawn = [_frame(_doing(clip, part, opening, size)) for opening in told]
        true = np.stack([frame.ratios for frame in drawn])
        own = meter.read(as_tensor(np.stack([frame.image for frame in drawn])), Places.of(drawn)).ratios.numpy() - true

        def found(pictures: Tensor) -> Values:
            return meter.read(pictures, Places.of([start] * len(told))).ratios.numpy()[:, places].mean(1)

        own_error, times = abs(own[:, places]).mean(1), self.config.corrections
        if not times:
            return Opened(found(painted), own_error, torch.cat([source[0], *painted], -1))
        again = system.infer(**asked, corrections=times)["frames"].cpu()
        return Opened(found(painted), own_error, torch.cat([source[0], *again], -1), found(again))


def _doing(clip: DrawnClip, part: str, opening: float, size: int) -> Drawn:
    """The person of a clip in its first pose, with eyes or lips as far open as told."""
    return clip.doing(clip.state(0).opened(**{part: opening}), size)


def _frame(drawn: Drawn) -> Frame:
    return Frame.of(drawn.image, drawn.landmarks)


def row_of(part: str, told: float, painted: Values, own: Values, again: Values | None = None) -> dict[str, Any]:
    """A row of the table; `again` is what was painted where the system corrected what it was told."""
    mean, error, near = _reached(told, painted)
    row = {
        "part": part,
        "told": f"{told:g}",
        "painted": mean,
        "error": error,
        "within 0.05": near,
        "the meter's own error": round(float(own.mean()), 3),
    }
    if again is not None:
        row |= zip(("corrected", "error, corrected", "within 0.05, corrected"), _reached(told, again), strict=True)
    return row


def _reached(told: float, found: Values) -> tuple[float, float, str]:
    """Mean opening, mean error, share of faces within 0.05."""
    off = abs(found - told)
    return round(float(found.mean()), 3), round(float(off.mean()), 3), f"{float((off <= 0.05).mean()):.0%}"


def scalars_of(part: str, told: Values, painted: Values, own: Values) -> dict[str, float]:
    """Mean error, the meter's own, and how much the mean opening found grows with the one told (1 is right)."""
    around = told - told.mean()
    spread = float(around @ around)
    return {
        f"{part}/error": float(abs(painted - told).mean()),
        f"{part}/own_error": float(own.mean()),
        f"{part}/slope": float(painted.mean(0) @ around) / spread if spread else 0.0,
    }
