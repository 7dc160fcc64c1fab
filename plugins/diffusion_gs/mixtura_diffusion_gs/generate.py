"""Inference: what is asked for, checked, and the walk from noise to Gaussians.

`Request.of` takes the inputs of `DiffusionGS.infer`; `denoising` yields every step, the last of which holds the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mixtura.errors import DataError
from mixtura.rng import KeyedRng
from mixtura_diffusion_gs import diffusion
from mixtura_diffusion_gs.cameras import rays
from mixtura_diffusion_gs.config import DiffusionGSConfig
from mixtura_diffusion_gs.gaussians import RawGaussians

if TYPE_CHECKING:
    from mixtura_diffusion_gs.system import DiffusionGS

BLANK = 0.5
"""What a view without content holds: 0 in the network's scale."""


@dataclass(frozen=True)
class Request:
    """Checked inputs: `image` (B, 3, S, S), `c2w` (B, N, 4, 4), `intrinsics` (B, N, 4), all float32 on the system's device."""

    image: Tensor
    c2w: Tensor
    intrinsics: Tensor
    kind: str
    steps: int
    sampler: diffusion.Sampler
    guidance: float
    seed: int

    @staticmethod
    def of(config: DiffusionGSConfig, device: torch.device, **inputs: Any) -> Request:
        """Raises DataError for what the system can't use, KeyError for what is missing, TypeError for what it doesn't know."""
        image, c2w, intrinsics = (_tensor(name, inputs.pop(name), device) for name in ("image", "c2w", "intrinsics"))
        size, b = config.image_size, len(image)
        _expect("image", image, (b, 3, size, size))
        n = c2w.shape[1] if c2w.ndim == 4 else config.views
        _expect("c2w", c2w, (b, n, 4, 4))
        _expect("intrinsics", intrinsics, (b, n, 4))
        if n < 2:
            raise DataError("one camera given; the network needs the condition's and at least one more")
        kind, sampler = str(inputs.pop("kind", config.kinds[0])), inputs.pop("sampler", None) or config.sampler
        if kind not in config.kinds:
            raise DataError(f"kind '{kind}': this system knows {', '.join(config.kinds)}")
        if sampler not in ("ancestral", "ddim"):
            raise DataError(f"sampler '{sampler}': expected ancestral or ddim")
        steps, guidance = inputs.pop("steps", None) or config.steps, inputs.pop("guidance", None)
        if not 1 <= int(steps) <= diffusion.STEPS:
            raise DataError(f"steps {steps}: expected 1 to {diffusion.STEPS}")
        guidance = config.guidance if guidance is None else float(guidance)
        if guidance != 1 and not config.condition_dropout:
            raise DataError(f"guidance {guidance:g} needs a network trained with condition_dropout; this one wasn't")
        seed = int(inputs.pop("seed", 0) or 0)
        if inputs:
            raise TypeError(f"unknown input '{next(iter(inputs))}'")
        if config.objective == "regression":
            steps = 1
        return Request(image, c2w, intrinsics, kind, int(steps), sampler, guidance, seed)


def _tensor(name: str, value: Any, device: torch.device) -> Tensor:
    tensor = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value).to(device, torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{name} holds NaN or infinity")
    return tensor


def _expect(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise DataError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")


def denoising(system: DiffusionGS, request: Request, c2w: Tensor, kinds: Tensor) -> Iterator[diffusion.Moment]:
    """Every step from noise to the result; `result` of a moment is (RawGaussians, renders (B, N, 3, S, S)).

    `c2w` (B, N, 4, 4) are the cameras as the network knows them. Noise is keyed by seed, item and call, so an item doesn't depend
    on its batch.
    """
    condition, (b, n) = request.image[:, None], request.c2w.shape[:2]
    size = request.image.shape[-1]
    origins, directions = rays(c2w, request.intrinsics, size, size)
    root, device = KeyedRng(request.seed, "generate"), condition.device

    def noise(call: int) -> Tensor:
        rows = [torch.randn(n - 1, 3, size, size, generator=root.at(call, item).torch()) for item in range(b)]
        return torch.stack(rows).to(device)

    def once(shown: Tensor, noisy: Tensor, t: int) -> tuple[RawGaussians, Tensor]:
        times = torch.full((b,), t, device=device)
        raw, _ = system.gaussians(torch.cat([shown, noisy], 1), times, origins, directions, kinds)
        return raw, raw.render(c2w, request.intrinsics, size, size, system.config.compat)

    def predict(noisy: Tensor, t: int) -> tuple[Tensor, tuple[RawGaussians, Tensor]]:
        raw, renders = once(condition, noisy, t)
        clean = renders[:, 1:]
        if request.guidance != 1:
            _, blank = once(torch.full_like(condition, BLANK), noisy, t)
            clean = blank[:, 1:] + request.guidance * (clean - blank[:, 1:])
        return clean, (raw, renders)

    is_regression = system.config.objective == "regression"
    start = torch.full((b, n - 1, 3, size, size), BLANK, device=device) if is_regression else noise(-1)
    yield from diffusion.sample(predict, start, diffusion.spaced(request.steps), request.sampler, noise)
