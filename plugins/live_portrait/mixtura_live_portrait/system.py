"""LivePortrait as a system (arXiv 2407.03168): networks, losses of both stages, inference.

Seven networks as published, and two of our own: the critics (second player), which only training has, and the reader, which
measures how far eyes and lips are open. What a stage trains decides its terms, see `losses.terms`. Pictures are (b, 3, S, S) in
0..1; F and M see S = `image` pixels, G paints S = `image` x `shuffle`, and so large are the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura.data.source import Sample, Source
from mixtura.errors import BadSample, ConfigError
from mixtura.metrics.perceptual import build_perceptual
from mixtura.rng import KeyedRng
from mixtura.system import Batch, LossTerm, StepContext, System
from mixtura_live_portrait import calibration, published, reenact
from mixtura_live_portrait.config import LivePortraitConfig
from mixtura_live_portrait.faces.layouts import GUIDES
from mixtura_live_portrait.losses.first import FirstStage, Totals
from mixtura_live_portrait.losses.identity import ArcFace, load_arcface
from mixtura_live_portrait.losses.regions import patches
from mixtura_live_portrait.losses.second import SecondStage
from mixtura_live_portrait.losses.terms import BASE, CRITIC, PAINTER, SECOND, terms_of, valid
from mixtura_live_portrait.nets import NETWORKS, build
from mixtura_live_portrait.nets.appearance import Appearance
from mixtura_live_portrait.nets.blocks import ResBlock3d, SpadeBlock, SpectralConv2d
from mixtura_live_portrait.nets.discriminator import Critic
from mixtura_live_portrait.nets.generator import Generator
from mixtura_live_portrait.nets.motion import MotionExtractor
from mixtura_live_portrait.nets.reader import Reader
from mixtura_live_portrait.nets.retargeting import Retargeting
from mixtura_live_portrait.nets.warping import Warping

LABELS = {"guide": (2, GUIDES, 2), "boxes": (2, 3, 4), "pose": (2, 3), "ratios": (2, 3)}
"""Shapes of what a sample may know; NaN where it doesn't."""
STATISTICS = "batch_norms.safetensors"


class LivePortrait(System):
    """The networks with their losses; see the module's docstring."""

    Config = LivePortraitConfig
    config: LivePortraitConfig
    players: ClassVar[Mapping[str, tuple[str, ...]]] = {PAINTER: (*NETWORKS, "reader"), CRITIC: ("critics",)}

    appearance: Appearance
    motion: MotionExtractor
    warping: Warping
    generator: Generator
    stitching: Retargeting
    eyes: Retargeting
    lips: Retargeting

    def __init__(self, config: LivePortraitConfig) -> None:
        super().__init__(config)
        self.sizes = config.sizes()
        for name, network in build(self.sizes).items():
            self.add_module(name, network)
        self.reader = Reader(int(config.patch or 0), config.reader)
        shape = config.critics.model_dump(exclude={"regions"})
        self.critics = nn.ModuleDict({region: Critic(**shape) for region in config.critics.regions})
        self.terms = terms_of(config, (*BASE, "critics", "reader"))
        self.judges: dict[str, nn.Module] = {}  # given weights, no part of the system's own

    # -- before training -----------------------------------------------------------------------------------------
    def prepare(self, sources: Mapping[str, Source], assets: Path) -> None:
        """Measure the batch norms of the untrained networks on pictures of all sources."""
        if not sources:
            return
        samples = calibration.some_samples(sources, self.config.calibration, KeyedRng("calibration"))
        for sample in samples:
            self.check(sample)
        pictures = self.shrunk(self.pictures(self.collate(samples)["source"]))
        save_file(calibration.calibrate(self, pictures, self.sizes.keypoints), assets / STATISTICS)

    def load_assets(self, assets: Path) -> None:
        """Take the measured statistics; a run that starts from other weights overwrites them."""
        if (assets / STATISTICS).exists():
            calibration.take(self, load_file(assets / STATISTICS))

    def start_stage(self, stage: str, sources: Mapping[str, Source], cache: Path) -> None:
        """Find out which terms the stage has, and read the weights that these need."""
        parts = self.parts()
        trained = [name for name, part in parts.items() if any(p.requires_grad for p in part.parameters())]
        try:
            self.terms = terms_of(self.config, trained)
        except ConfigError as error:
            raise ConfigError(f"stage '{stage}': {error}") from error
        if "image" in self.terms:
            self.judge()
            if "identity" in self.terms:
                self.identifier()

    # -- data ----------------------------------------------------------------------------------------------------
    def check(self, sample: Sample) -> None:
        """Frames of another size than the system's, or labels of another shape or infinite, make a bad sample."""
        side = self.sizes.output
        for name in ("source", "driving", "driving_seen", "other"):
            if name != "other" or name in sample.fields:
                shape = np.shape(sample.fields[name])
                if shape != (side, side, 3):
                    raise BadSample(
                        f"{sample.key}: {name} {shape}; the system needs ({side}, {side}, 3): set the source's `size` to {side}"
                    )
        for name, expected in LABELS.items():
            value = np.asarray(sample.fields[name])
            if value.shape != expected or np.isinf(value).any():
                raise BadSample(f"{sample.key}: {name} {value.shape}; expected {expected}, NaN where unknown, and no infinity")

    def collate(self, samples: Sequence[Sample]) -> Batch:
        fields, side = [sample.fields for sample in samples], self.sizes.output
        nobody = np.zeros((side, side, 3), np.uint8)
        batch: Batch = {name: _stacked(f[name] for f in fields) for name in ("source", "driving", "driving_seen")}
        batch["other"] = _stacked(f.get("other", nobody) for f in fields)
        batch["has_other"] = torch.tensor(["other" in f for f in fields])
        for name in LABELS:
            batch[name] = torch.from_numpy(np.stack([np.asarray(f[name], np.float32) for f in fields]))
        return batch

    def valid(self, batch: Batch) -> dict[str, Tensor]:
        """Items (b,) of each term in each sample."""
        return valid(self.config, batch)

    def counts(self, batch: Batch) -> dict[str, Tensor | float]:
        found = self.valid(batch)
        return {term: float(found[term].sum()) for term in self.terms}

    # -- training ------------------------------------------------------------------------------------------------
    def wrap_blocks(self) -> list[type[nn.Module]]:
        return [SpadeBlock, ResBlock3d]

    def start_step(self, step: int) -> None:
        """One power iteration for each spectral norm whose weight trains."""
        for module in self.modules():
            if isinstance(module, SpectralConv2d) and module.weight_orig.requires_grad:
                module.refresh()

    def losses(self, batch: Batch, ctx: StepContext) -> dict[str, LossTerm]:
        wanted = {term: player for term, player in self.terms.items() if ctx.wants(term, player)}
        counts, totals = self.valid(batch), self._totals(batch, ctx, frozenset(wanted))
        terms = {}
        for term, player in wanted.items():
            total = torch.where(counts[term] > 0, totals[term], 0.0)
            if ctx.sample_weight is not None:
                total = total * ctx.sample_weight
            terms[term] = LossTerm.of(total, counts[term], player=player)
        return terms

    def _totals(self, batch: Batch, ctx: StepContext, terms: frozenset[str]) -> Totals:
        if terms.intersection(SECOND):
            return SecondStage(self, batch, ctx, terms).totals() | (
                FirstStage(self, batch, ctx, terms & {"ratios"}).totals() if "ratios" in terms else {}
            )
        return FirstStage(self, batch, ctx, terms).totals()

    def judge(self) -> nn.Module:
        """What judges pictures besides their pixels; its weights are asked for where losses are, not by inference."""
        return self._helper("judge", lambda: build_perceptual(self.config.perceptual))

    def identifier(self) -> ArcFace:
        """What tells people apart, from the weights that are given."""
        network = self._helper("identifier", lambda: load_arcface(Path(str(self.config.identity.weights))))
        assert isinstance(network, ArcFace)
        return network

    def _helper(self, name: str, build: Callable[[], nn.Module]) -> nn.Module:
        if name not in self.judges:
            self.judges[name] = build()
        return self.judges[name].to(next(self.parameters()).device)

    # -- networks ------------------------------------------------------------------------------------------------
    def pictures(self, frames: Tensor) -> Tensor:
        """Frames (b, S, S, 3) uint8 -> (b, 3, S, S) in 0..1."""
        return frames.movedim(-1, 1).float() / 255

    def shrunk(self, pictures: Tensor) -> Tensor:
        """Pictures as large as F and M see them: means over `shuffle` x `shuffle` pixels of those that G paints."""
        return pictures if pictures.shape[-1] == self.sizes.image else F.avg_pool2d(pictures, self.sizes.shuffle)

    def volume(self, pictures: Tensor) -> Tensor:
        """Appearance of pictures of either size."""
        return self.appearance(self.shrunk(pictures))

    def paint(self, volume: Tensor, x_source: Tensor, x_driving: Tensor) -> Tensor:
        """The picture of a volume whose keypoints go from x_source to x_driving (b, k, 3)."""
        return self.generator(self.warping(volume, x_driving, x_source).out).float()

    def read(self, pictures: Tensor, ends: Tensor) -> Tensor:
        """Opening of left eye, right eye, lips (b, 3) in pictures where their corners (b, 3, 2, 2) are known."""
        return self.reader(patches(pictures, ends, self.reader.side)).float()

    # -- use -----------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def infer(self, **inputs: Any) -> dict[str, Any]:
        """Frames of the source as the driving frames move it; see `reenact.Request` for inputs and `reenact.run` for outputs."""
        return reenact.run(self, reenact.Request.of(self.sizes, next(self.parameters()).device, **inputs))

    def infer_files(
        self, inputs: Sequence[Path], out: Path, settings: Mapping[str, Any], say: Callable[[str], None]
    ) -> list[Path]:
        """Pictures, clips and templates to animated pictures and clips; see `mixtura_live_portrait.animate.files`."""
        from mixtura_live_portrait.animate.files import infer_files

        return infer_files(self, inputs, out, settings, say)

    # -- published weights -----------------------------------------------------------------------------------------
    def load_published(self, path: Path) -> Mapping[str, list[str]]:
        """The seven networks of a published folder (or of a file in it), all of them or nothing; see `published`."""
        return published.load(self, path)

    def check_published(self, path: Path) -> str:
        """What fits, in words."""
        return published.dry_run(self, path)

    def save_published(self, path: Path) -> None:
        """Write the five published files."""
        published.save(self, path)


def _stacked(frames: Any) -> Tensor:
    return torch.from_numpy(np.stack(list(frames)))
