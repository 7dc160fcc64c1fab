"""A system small enough for tests, drawn samples, and contexts of a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixtura.data.source import Sample
from mixtura.rng import KeyedRng, SampleNoise
from mixtura.system import StepContext
from mixtura_live_portrait.config import LivePortraitConfig
from mixtura_live_portrait.data.procedural import Faces, FacesConfig
from mixtura_live_portrait.system import LivePortrait

SMALL: dict[str, Any] = {
    "image": 16, "keypoints": 11, "base": 4, "downs": 1, "channels": 4, "depth": 2, "resblocks": 1, "motion_depths": [1, 1],
    "motion_dims": [8, 16], "bins": 16, "compress": 2, "dense_base": 4, "dense_max": 8, "dense_blocks": 2, "generator": 8,
    "middle": 1, "painted": 4, "shared": 4, "shuffle": 1, "stitching": [8], "eyes": [8], "lips": [8], "crop": 16,
    "patch": 8, "reader": [4, 8], "critics": {"width": 4, "widest": 8, "blocks": 2}, "calibration": 4,
}  # fmt: skip
"""Settings of the smallest system that has every part."""
ALL_OF_ONE = ("appearance", "motion", "warping", "generator", "critics", "reader")
SIZE = 16


def config_of(**settings: Any) -> LivePortraitConfig:
    """The small configuration with other settings on top."""
    return LivePortraitConfig.model_validate({"type": "live_portrait", **SMALL, **settings})


def system_of(**settings: Any) -> LivePortrait:
    """The small system; its small networks adjust something, as if they had learnt."""
    torch.manual_seed(3)
    system = LivePortrait(config_of(**settings))
    with torch.no_grad():
        for part in (system.stitching, system.eyes, system.lips):
            for parameter in part.parameters():
                parameter.normal_(std=0.1)
    return system.eval()


def training(system: LivePortrait, *parts: str) -> LivePortrait:
    """The system in a stage that trains these parts."""
    system.requires_grad_(False).eval()
    for part in parts:
        system.get_submodule(part).requires_grad_(True).train()
    system.start_stage("stage", {}, Path())
    return system


def faces(size: int = SIZE, **settings: Any) -> Faces:
    """Drawn faces in clips."""
    config = {"type": "faces", "identities": 4, "clips": 1, "frames": 20, "cross": True, "size": size, **settings}
    return Faces(FacesConfig.model_validate(config), "faces", Path())


def samples_of(count: int = 4, blank: tuple[int, ...] = (), **settings: Any) -> list[Sample]:
    """Drawn samples; of those whose number is in `blank` nothing is known but the frames."""
    source = faces(**settings)
    samples = [source.read(i % len(source), KeyedRng("test", i)) for i in range(count)]
    for number in blank:
        fields = samples[number].fields
        for name in ("guide", "boxes", "pose", "ratios", "expression"):
            fields[name] = np.full_like(fields[name], np.nan)
        fields.pop("other", None)
    return samples


def context_of(places: list[int], **settings: Any) -> StepContext:
    """The context of step 7 for samples at these places of the global batch; all players unless one is named."""
    noise = SampleNoise(KeyedRng(1, "step", 7), places)
    ids = torch.zeros(len(places), dtype=torch.long)
    given: dict[str, Any] = {"step": 7, "stage": "train", "stage_step": 7, "stage_steps": 100, "player": "", **settings}
    return StepContext(rng=KeyedRng(1), noise=noise, source_ids=ids, sources=("faces",), **given)
