"""DiffusionGS as a system: diffusion of views through Gaussians that are drawn (paper, sections 3.1 to 3.4).

One clean condition view and some noisy ones go through the denoiser, which gives a Gaussian for every pixel; what is drawn of
them at the same cameras is the prediction of the clean views, and at further cameras it is compared with views that the network
never saw. Objects and scenes share the denoiser and have a decoder and a depth rule each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from mixtura.data.source import Sample, Source
from mixtura.errors import BadSample, DataError
from mixtura.metrics.perceptual import build_perceptual
from mixtura.system import Batch, LossTerm, StepContext, System
from mixtura_diffusion_gs import diffusion, losses, published
from mixtura_diffusion_gs.cameras import mirrored, rays
from mixtura_diffusion_gs.config import DiffusionGSConfig, Kind
from mixtura_diffusion_gs.gaussians import DepthRule, RawGaussians, assemble
from mixtura_diffusion_gs.generate import BLANK, Request, denoising
from mixtura_diffusion_gs.nets.denoiser import Block, Denoiser, Sizes, network_input


class DiffusionGS(System):
    """The denoiser with its losses; see the module's docstring."""

    Config = DiffusionGSConfig
    config: DiffusionGSConfig

    def __init__(self, config: DiffusionGSConfig) -> None:
        super().__init__(config)
        names = ("width", "layers", "head_dim", "patch", "free", "sh_degree")
        self.sizes = Sizes(**{name: getattr(config, name) for name in names})
        self.image_size = int(config.image_size or 0)  # filled in by the configuration
        self.denoiser = Denoiser(self.sizes, config.kinds)
        self.rules = [DepthRule(**config.depth[kind].model_dump()) for kind in config.kinds]
        self.schedule = diffusion.whole()
        self.judge: list[nn.Module] = []  # in a list, for it is no part of the system's weights

    def start_stage(self, stage: str, sources: Mapping[str, Source], cache: Path) -> None:
        """Refuse sources of a kind that the network has no decoder for, and a judge of pictures whose weights are missing."""
        if "perceptual" in self.config.terms:
            self._build_judge()
        for name, source in sources.items():
            strange = set(source.info.tags) & set(get_args(Kind)) - set(self.config.kinds)
            if strange:
                raise DataError(
                    f"source '{name}' holds views of kind '{strange.pop()}', the system knows {', '.join(self.config.kinds)}; "
                    "add it to system.kinds, or set the source's `kind`"
                )

    # -- data ----------------------------------------------------------------------------------------------------
    def bucket(self, sample: Sample) -> str:
        return "x".join(map(str, sample.fields["images"].shape[:3]))

    def check(self, sample: Sample) -> None:
        """Views too few, of another size than the network's, or cameras that aren't numbers make a bad sample."""
        fields, size = sample.fields, self.image_size
        shape = fields["images"].shape
        if shape[0] < self.config.views or shape[1:] != (size, size, 3):
            raise BadSample(
                f"{sample.key}: images {shape}; the system needs {self.config.views} views or more of {size} x {size} pixels "
                "(`views.network` and `size` of the source, `views` and `image_size` of the system)"
            )
        for name in ("c2w", "intrinsics"):
            if not np.isfinite(fields[name]).all():
                raise BadSample(f"{sample.key}: {name} holds NaN or infinity")
        if fields["kind"] not in self.config.kinds:
            raise BadSample(f"{sample.key}: kind '{fields['kind']}'; the system knows {', '.join(self.config.kinds)}")

    def collate(self, samples: Sequence[Sample]) -> Batch:
        fields, n, size = [sample.fields for sample in samples], self.config.views, self.image_size
        nothing = np.zeros((n, size, size), np.float32)
        depths = np.stack([np.asarray(f.get("depths", nothing)[:n], np.float32) for f in fields])
        return {
            "images": torch.from_numpy(np.stack([f["images"] for f in fields])).permute(0, 1, 4, 2, 3).contiguous(),
            "c2w": torch.from_numpy(np.stack([np.asarray(f["c2w"], np.float32) for f in fields])),
            "intrinsics": torch.from_numpy(np.stack([np.asarray(f["intrinsics"], np.float32) for f in fields])),
            "depths": torch.from_numpy(depths),
            "kinds": torch.tensor([self.config.kind_number(f["kind"]) for f in fields]),
        }

    def counts(self, batch: Batch) -> dict[str, Tensor | float]:
        items = float(len(batch["images"]))
        known = {"points": float((batch["depths"] > 0).sum()), "spread": float(self._objects(batch["kinds"]).sum())}
        return {term: known.get(term, items) for term in self.config.terms}

    def _objects(self, kinds: Tensor) -> Tensor:
        """Which items are objects (B,) bool."""
        return kinds == (self.config.kinds.index("object") if "object" in self.config.kinds else -1)

    # -- training ------------------------------------------------------------------------------------------------
    def wrap_blocks(self) -> list[type[nn.Module]]:
        return [Block]

    def losses(self, batch: Batch, ctx: StepContext) -> dict[str, LossTerm]:
        n, kinds = self.config.views, batch["kinds"]
        target = batch["images"].float() / 255
        c2w, intrinsics = self.inside(batch["c2w"], kinds), batch["intrinsics"]
        views, t = self._noised(target[:, :n], ctx)
        height, width = views.shape[-2:]
        origins, directions = rays(c2w[:, :n], intrinsics[:, :n], height, width)
        raw, points = self.gaussians(views, t, origins, directions, kinds)
        rendered = raw.render(c2w, intrinsics, height, width, self.config.compat, self.config.deferred)
        values = {
            "image": lambda: (losses.image_error(rendered, target), None),
            "perceptual": lambda: (self._judged(rendered, target), None),
            "ssim": lambda: (losses.dissimilarity(rendered, target), None),
            "points": lambda: self._known_points(points, origins, directions, c2w[:, :n], batch["depths"]),
            "spread": lambda: self._spread(points, origins, kinds),
        }
        return self._terms(values, ctx)

    def _terms(self, values: Mapping[str, Callable[[], tuple[Tensor, Tensor | None]]], ctx: StepContext) -> dict[str, LossTerm]:
        """The terms whose ramp isn't 0 now; a value without counts counts items."""
        terms: dict[str, LossTerm] = {}
        for term in self.config.terms:
            rule = self.config.ramps.get(term)
            factor = losses.ramp(rule, ctx.stage_step) if rule else 1.0
            if factor:
                totals, counts = values[term]()
                if ctx.sample_weight is not None:
                    totals = totals * ctx.sample_weight
                terms[term] = LossTerm.of(totals, torch.ones_like(totals) if counts is None else counts, factor)
        return terms

    def _noised(self, clean: Tensor, ctx: StepContext) -> tuple[Tensor, Tensor]:
        """Views (B, N, 3, H, W) as the network sees them and the times (B,); view 0, the condition, stays clean."""
        condition, rest = clean[:, :1], clean[:, 1:]
        last = diffusion.STEPS - 1
        if self.config.objective == "regression":
            return torch.cat([condition, torch.full_like(rest, BLANK)], 1), torch.full((len(clean),), last, device=clean.device)
        t = (ctx.noise.uniform("t") * diffusion.STEPS).long().clamp(max=last)
        noisy = self.schedule.noised(rest, ctx.noise.normal("noise", *rest.shape[1:]), t)
        if self.config.condition_dropout and ctx.training:
            is_blank = ctx.noise.uniform("drop") < self.config.condition_dropout
            condition = torch.where(is_blank[:, None, None, None, None], BLANK, condition)
        return torch.cat([condition, noisy], 1), t

    def gaussians(
        self, views: Tensor, t: Tensor, origins: Tensor, directions: Tensor, kinds: Tensor
    ) -> tuple[RawGaussians, Tensor]:
        """Gaussians of a batch and their centres as pictures, from views (B, N, 3, H, W), times (B,) and the views' rays."""
        encodings = [self.config.rays[kind] for kind in self.config.kinds]
        if len(set(encodings)) == 1:
            seen = network_input(views, origins, directions, encodings[0])
        else:
            each = [network_input(views, origins, directions, encoding) for encoding in encodings]
            seen = torch.stack([each[kind][i] for i, kind in enumerate(kinds.tolist())])
        free, pixels = self.denoiser(seen, t, kinds)
        rules = self.rules if len(set(self.rules)) == 1 else [self.rules[kind] for kind in kinds.tolist()]
        return assemble(free, pixels, origins, directions, rules, self.sizes)

    def inside(self, c2w: Tensor, kinds: Tensor) -> Tensor:
        """Cameras (B, V, 4, 4) as the network knows them: those of objects mirrored where it was trained on mirrored worlds."""
        return torch.where(self._mirror(kinds)[:, None, None, None], mirrored(c2w), c2w)

    def _mirror(self, kinds: Tensor) -> Tensor:
        return self._objects(kinds) & (self.config.mirrored and self.config.compat == "fixed")

    def _build_judge(self) -> nn.Module:
        """What judges pictures; its weights are asked for where losses are, not by inference."""
        if not self.judge:
            self.judge = [build_perceptual(self.config.perceptual)]
        return self.judge[0]

    def _judged(self, rendered: Tensor, target: Tensor) -> Tensor:
        judge = self._build_judge().to(rendered.device)
        return judge(rendered.flatten(0, 1), target.flatten(0, 1)).view(rendered.shape[:2]).mean(1)

    def _known_points(
        self, points: Tensor, origins: Tensor, directions: Tensor, c2w: Tensor, depths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Distance to the points that depth maps (B, N, H, W) along z tell, where they tell any."""
        slope = (directions * c2w[..., :3, 2, None, None]).sum(2)
        true = origins + directions * (depths / slope.clamp(min=1e-6))[:, :, None]
        return losses.point_error(points, true, (depths > 0)[:, :, None])

    def _spread(self, points: Tensor, origins: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        is_object = self._objects(kinds).to(points.dtype)
        return losses.point_spread(points, origins) * is_object, is_object

    # -- use ---------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def infer(self, **inputs: Any) -> dict[str, Any]:
        """One picture to Gaussians.

        `image` (B, 3, S, S) in 0..1 over white, `kind` "object" or "scene", `c2w` (B, N, 4, 4) and `intrinsics` (B, N, 4) of the
        condition camera and the noisy ones, in the frame that the data has; optional: `steps`, `sampler` ("ancestral", "ddim"),
        `guidance`, `seed`. Gives means (B, G, 3), quats (B, G, 4), scales (B, G, 3), opacities (B, G), sh (B, G, K, 3) and
        renders (B, N, 3, S, S). Raises DataError for shapes that don't fit.
        """
        raw, renders = None, None
        for moment in self.denoise(**inputs):
            raw, renders = moment.result
        assert raw is not None
        return {**raw.activated(), "renders": renders}

    @torch.no_grad()
    def denoise(self, **inputs: Any) -> Any:
        """The same step by step: an iterator of `diffusion.Moment`, whose `result` is (RawGaussians, renders)."""
        request = Request.of(self.config, next(self.parameters()).device, **inputs)
        kinds = torch.full((len(request.image),), self.config.kind_number(request.kind), device=request.image.device)
        c2w = self.inside(request.c2w, kinds)
        for moment in denoising(self, request, c2w, kinds):
            raw, renders = moment.result
            yield moment._replace(result=(raw.mirrored(self._mirror(kinds)), renders))

    def infer_files(
        self, inputs: Sequence[Path], out: Path, settings: Mapping[str, Any], say: Callable[[str], None]
    ) -> list[Path]:
        """Pictures or prompts to .ply, mesh and turntable; see `mixtura_diffusion_gs.use.files`."""
        from mixtura_diffusion_gs.use.files import infer_files

        return infer_files(self, inputs, out, settings, say)

    # -- published weights -------------------------------------------------------------------------------------
    def load_published(self, path: Path) -> Mapping[str, list[str]]:
        """Weights of a published object or scene model, all of it or nothing; see `published`."""
        return published.load(self, path)

    def check_published(self, path: Path) -> str:
        """What fits, in words; reads names and shapes only where the file allows it."""
        return str(published.dry_run(self.config, path))

    def save_published(self, path: Path) -> None:
        """Write each kind's model in the published layout (`NAME-KIND.ckpt` where there are two)."""
        published.save(self, path)
