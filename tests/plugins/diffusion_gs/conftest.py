"""A network small enough for tests, samples, and inputs of `infer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mixtura.data.source import Sample
from mixtura.rng import KeyedRng, SampleNoise
from mixtura.system import StepContext
from mixtura_diffusion_gs.cameras import orbit
from mixtura_diffusion_gs.config import DiffusionGSConfig
from mixtura_diffusion_gs.system import DiffusionGS

SMALL: dict[str, Any] = {"width": 32, "layers": 2, "head_dim": 16, "patch": 4, "image_size": 16, "steps": 3}
SIZE = 16


@pytest.fixture
def build() -> Callable[..., DiffusionGS]:
    """A small system with other settings on top."""

    def make(**settings: Any) -> DiffusionGS:
        torch.manual_seed(3)
        system = DiffusionGS(DiffusionGSConfig(type="diffusion_gs", **{**SMALL, **settings}))
        system.load_assets(None)  # type: ignore[arg-type] - has none
        return system.eval()

    return make


@pytest.fixture
def sample_of() -> Callable[..., Sample]:
    """A sample of six random views around the origin; every second one an object."""

    def make(number: int, views: int = 6, **fields: Any) -> Sample:
        rng = np.random.default_rng(number)
        c2w, intrinsics = orbit(rng.uniform(0, 360, views).tolist(), [20.0] * views, 3.0, 40.0, SIZE)
        given: dict[str, Any] = {
            "images": rng.integers(0, 256, (views, SIZE, SIZE, 3), dtype=np.uint8),
            "c2w": c2w.numpy(),
            "intrinsics": intrinsics.numpy(),
            "kind": ("object", "scene")[number % 2],
            "depths": np.where(rng.random((4, SIZE, SIZE)) < 0.5, 3.0, 0.0).astype(np.float32),
        }
        return Sample({**given, **fields}, key=f"item {number}")

    return make


@pytest.fixture
def context_of() -> Callable[..., StepContext]:
    """The context of step 7 for items at the given places of the global batch."""

    def make(places: list[int], **settings: Any) -> StepContext:
        noise = SampleNoise(KeyedRng(1, "step", 7), places)
        ids = torch.zeros(len(places), dtype=torch.long)
        given: dict[str, Any] = {"step": 7, "stage": "train", "stage_step": 7, "stage_steps": 100, **settings}
        return StepContext(rng=KeyedRng(1), noise=noise, source_ids=ids, sources=("views",), **given)

    return make


@pytest.fixture
def inputs_of() -> Callable[..., dict[str, Any]]:
    """Inputs of `infer` for a batch of random pictures."""

    def make(batch: int = 1, views: int = 4, **given: Any) -> dict[str, Any]:
        c2w, intrinsics = orbit([360 / views * i for i in range(views)], [20.0] * views, 3.0, 40.0, SIZE)
        image = torch.rand(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
        cameras = {"c2w": c2w.repeat(batch, 1, 1, 1), "intrinsics": intrinsics.repeat(batch, 1, 1)}
        return {"image": image, "kind": "object", **cameras, **given}

    return make
