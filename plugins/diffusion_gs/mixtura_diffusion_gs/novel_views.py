"""The evaluator `novel_views`: one held-out picture in, views that nothing was told of out, compared with the true ones.

Every item of the given sources is a condition view, the cameras of the network's noisy views, and further cameras. Figures, for
each source: PSNR, SSIM and GMSD of the further views (the headline), of all views, and of the condition view alone. Beside the
system's own: the condition picture shown again at every camera, a single step from noise, and other runs (`against`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from mixtura.data.sources import open_sources, sections_of
from mixtura.errors import ConfigError
from mixtura.evaluate import EvalContext, EvalResult, EvaluatorConfig
from mixtura.metrics.image import gmsd, psnr, ssim
from mixtura.rng import KeyedRng
from mixtura_diffusion_gs.gaussians import RawGaussians

if TYPE_CHECKING:
    from mixtura.data.source import Sample, Source
    from mixtura_diffusion_gs.system import DiffusionGS

MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim, "gmsd": gmsd}
HIGHEST = 100.0
"""dB that equal pictures count as."""
SHOWN = 6
"""Items of a source that the report shows."""


class NovelViewsConfig(EvaluatorConfig):
    """An entry of `evaluate:`; `sources` are sections as under `sources:`, of data that training never sees."""

    type: Literal["novel_views"] = "novel_views"
    sources: dict[str, dict[str, Any]] = Field(min_length=1, description="name -> source of held-out views")
    items: int = Field(40, ge=1, description="items of each source, evenly spread")
    batch: int = Field(8, ge=1, description="items that are denoised together")
    steps: int | None = Field(None, ge=1, le=1000, description="denoising steps; the system's own when left out")
    single_step: bool = Field(True, description="also measure one step from noise")
    against: dict[str, str] = Field(
        {}, description="name -> run or export folder of another system that is measured too, once it is there"
    )

    @model_validator(mode="after")
    def _readable(self) -> NovelViewsConfig:
        sections_of(self.sources, "views")
        return self


@dataclass
class Scores:
    """Per-picture figures by (method, part); part is novel, all or condition."""

    values: dict[tuple[str, str], dict[str, list[float]]] = field(default_factory=dict)

    def add(self, method: str, views: int, shown: Tensor, true: Tensor) -> None:
        """Compare views (V, 3, H, W), of which the first `views` were the network's own."""
        figures = {name: measure(shown.clamp(0, 1), true).clamp(max=HIGHEST).tolist() for name, measure in MEASURES.items()}
        parts = {"novel": slice(views, None), "all": slice(None), "condition": slice(0, 1)}
        for part, where in parts.items():
            mine = self.values.setdefault((method, part), {name: [] for name in MEASURES})
            for name, found in figures.items():
                mine[name].append(float(np.mean(found[where])))

    def mean(self, method: str, part: str, name: str) -> float:
        """Mean over items."""
        return float(np.mean(self.values[method, part][name]))

    def rows(self, source: str) -> list[dict[str, Any]]:
        """One row a method for the report."""
        rows = []
        for method in dict.fromkeys(method for method, _ in self.values):
            row: dict[str, Any] = {"source": source, "method": method, "items": len(self.values[method, "novel"]["psnr"])}
            for name in MEASURES:
                row[name] = round(self.mean(method, "novel", name), 3)
            spread = np.std(self.values[method, "novel"]["psnr"], ddof=1) if row["items"] > 1 else 0.0
            row["psnr ±"] = round(1.96 * float(spread) / row["items"] ** 0.5, 2)
            row["psnr, all views"] = round(self.mean(method, "all", "psnr"), 2)
            row["psnr, condition"] = round(self.mean(method, "condition", "psnr"), 2)
            rows.append(row)
        return rows


class NovelViews:
    """Scalars `SOURCE/psnr` (and ssim, gmsd) of the system, `SOURCE/METHOD/psnr` of the others; a table and pictures."""

    Config: ClassVar[type[NovelViewsConfig]] = NovelViewsConfig

    def __init__(self, config: NovelViewsConfig, *, root: Path) -> None:
        self.config, self.root = config, Path(root)

    def run(self, system: DiffusionGS, context: EvalContext) -> EvalResult:
        """Measure `system`, and the others beside it."""
        result = EvalResult()
        methods = self._methods(system, result)
        table = result.tables["Novel views of held-out data (means over items; ± is a 95 % interval)"] = []
        for name, source in open_sources(sections_of(self.config.sources, "views"), self.root).items():
            scores, strips = self._measure(methods, source, name, system, context)
            table.extend(scores.rows(name))
            for method in methods:
                label = name if method == "ours" else f"{name}/{method}"
                result.scalars |= {f"{label}/{measure}": scores.mean(method, "novel", measure) for measure in MEASURES}
            result.media |= {f"{name}: condition, true and drawn novel views": save_strips(strips, context.out / f"{name}.png")}
        return result

    def _methods(self, system: DiffusionGS, result: EvalResult) -> dict[str, Callable[..., Tensor]]:
        """Name -> (batch of fields, seed) -> pictures (B, V, 3, H, W). Runs that aren't there yet are told in `result`."""
        methods: dict[str, Callable[..., Tensor]] = {"ours": lambda **given: drawn(system, self.config.steps, **given)}
        if self.config.single_step and system.config.objective == "diffusion":
            methods["single step"] = lambda **given: drawn(system, 1, **given)
        for name, folder in self.config.against.items():
            if (self.root / folder).is_dir():
                methods[name] = self._other(name, self.root / folder, system)
            else:
                missing = result.tables.setdefault("Not measured", [])
                missing.append({"method": name, "why": f"no run in {folder}; train it, then `mixtura eval` this run again"})
        methods["input repeated"] = lambda **given: given["images"][:, :1].expand_as(given["images"])
        return methods

    def _other(self, name: str, folder: Path, system: DiffusionGS) -> Callable[..., Tensor]:
        from mixtura import checkpoint

        other: Any = checkpoint.load_system(folder)[0]
        for setting in ("views", "image_size"):
            mine, theirs = getattr(system.config, setting), getattr(other.config, setting)
            if mine != theirs:
                raise ConfigError(f"evaluate: novel_views: against.{name} has {setting} {theirs}, this system {mine}")
        other.eval()
        return lambda **given: drawn(other, self.config.steps, **given)

    def _measure(
        self, methods: Mapping[str, Callable[..., Tensor]], source: Source, name: str, system: DiffusionGS, context: EvalContext
    ) -> tuple[Scores, list[Tensor]]:
        """All items of one source; figures, and rows of pictures (3, H, W') to look at."""
        count = min(self.config.items, len(source))
        numbers = [round(i) for i in np.linspace(0, len(source) - 1, count)]
        scores, n = Scores(), system.config.views
        strips: list[Tensor] = []
        for first in range(0, count, self.config.batch):
            some = numbers[first : first + self.config.batch]
            samples = [source.read(i, KeyedRng("novel_views", name, i)) for i in some]
            self._check(samples, n, name, system)
            given = batch_of(samples, context.device)
            for method, draw in methods.items():
                pictures = draw(**given, seed=context.seed + first)
                for shown, true in zip(pictures, given["images"], strict=True):
                    scores.add(method, n, shown, true)
                if method == "ours":
                    wanted = slice(0, max(0, SHOWN - len(strips)))
                    strips += [strip(s, t, n) for s, t in zip(pictures[wanted], given["images"][wanted], strict=True)]
        return scores, strips

    def _check(self, samples: list[Sample], n: int, name: str, system: DiffusionGS) -> None:
        for sample in samples:
            system.check(sample)
            if len(sample.fields["images"]) <= n:
                raise ConfigError(
                    f"evaluate: novel_views: sources.{name} gives {len(sample.fields['images'])} views, all of which the network "
                    "sees; set `views.novel` to 1 or more"
                )


def batch_of(samples: list[Sample], device: Any) -> dict[str, Any]:
    """`images` (B, V, 3, H, W) in 0..1, `c2w`, `intrinsics` and the `kind` of samples of one source."""
    fields = [sample.fields for sample in samples]
    images = torch.from_numpy(np.stack([f["images"] for f in fields])).permute(0, 1, 4, 2, 3).float() / 255
    return {
        "images": images.to(device),
        "c2w": torch.from_numpy(np.stack([f["c2w"] for f in fields])).float().to(device),
        "intrinsics": torch.from_numpy(np.stack([f["intrinsics"] for f in fields])).float().to(device),
        "kind": fields[0]["kind"],
    }


def drawn(
    system: DiffusionGS, steps: int | None, images: Tensor, c2w: Tensor, intrinsics: Tensor, kind: str, seed: int
) -> Tensor:
    """What a system makes of the condition views, drawn at all cameras (B, V, 3, H, W)."""
    n, size = system.config.views, system.image_size
    made = system.infer(image=images[:, 0], c2w=c2w[:, :n], intrinsics=intrinsics[:, :n], kind=kind, steps=steps, seed=seed)
    raw = RawGaussians(
        made["means"], made["sh"], made["scales"].log(), made["quats"], made["opacities"].logit(eps=1e-7)[..., None]
    )
    return raw.render(c2w, intrinsics, size, size, system.config.compat)


def strip(shown: Tensor, true: Tensor, n: int) -> Tensor:
    """(3, 2 H, W'): the condition, then true novel views above the drawn ones."""
    blank = torch.ones_like(true[0])
    top = torch.cat([true[0], *true[n:]], -1)
    return torch.cat([top, torch.cat([blank, *shown[n:].clamp(0, 1)], -1)], -2)


def save_strips(strips: list[Tensor], path: Path) -> str:
    """All strips below each other in one PNG, enlarged where they are small; returns its name."""
    sheet = (torch.cat(strips, -2).permute(1, 2, 0).cpu().numpy() * 255 + 0.5).astype(np.uint8)
    picture = Image.fromarray(sheet)
    if strips[0].shape[-2] < 256:
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
    picture.save(path)
    return path.name
