"""Parity runners of the splatting kernels against gsplat; splatting_kernels/README.md says what the arrays are.

`outputs` is also what tests/kernels holds to stricter limits, in both precisions, with and without compiled kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixtura_splat import Rendering, backend, ops, rasterize, reference
from tests.parity.fill import make_input

Outputs = Iterator[tuple[str, Any, Any]]


@dataclass(frozen=True)
class Case:
    """A row of the README's table; several prefixes are several scenes of a batch."""

    prefixes: tuple[str, ...]
    gaussians: int
    views: int
    width: int
    height: int
    degree: int
    coefficients: int
    mode: str
    log_scales: tuple[float, float]
    logit: float


TABLE = {
    "classic": Case(("splat/classic/",), 300, 2, 40, 28, 3, 16, "classic", (-3.6, -1.6), 0.5),
    "antialiased": Case(("splat/aa/",), 300, 2, 40, 28, 2, 16, "antialiased", (-5.5, -2.5), 0.5),
    "batched": Case(("splat/batched/0/", "splat/batched/1/"), 150, 2, 33, 20, 1, 4, "classic", (-3.6, -1.6), 0.5),
    "near_and_opaque": Case(("splat/near/",), 200, 3, 36, 24, 0, 1, "classic", (-2.5, -0.7), 4.0),
}


def make_scene(case: Case, prefix: str) -> dict[str, np.ndarray]:
    """The inputs of one scene, by the README's rules."""
    n, make = case.gaussians, lambda name, *rest: make_input(prefix + name, *rest)
    logits = 1.5 * make("opacity_logits", (n,)).astype(np.float64) + case.logit
    shape = (case.views, case.height, case.width)
    return {
        "means": make("means", (n, 3), -1, 1),
        "quats": make("quats", (n, 4)),
        "scales": np.exp(make("log_scales", (n, 3), *case.log_scales).astype(np.float64)).astype(np.float32),
        "opacities": (1 / (1 + np.exp(-logits))).astype(np.float32),
        "sh": np.float32(0.3) * make("sh", (n, case.coefficients, 3)),
        "backgrounds": make("backgrounds", (case.views, 3), 0, 1),
        "v_rgb": make("v_rgb", (*shape, 3)),
        "v_alpha": make("v_alpha", (*shape, 1)),
        "v_depth": make("v_depth", (*shape, 1)),
    }


def make_inputs(case: Case, want: dict[str, np.ndarray], dtype: torch.dtype) -> dict[str, Tensor]:
    """All inputs, the recorded cameras among them, as leaves that want gradients."""
    scenes = [make_scene(case, prefix) for prefix in case.prefixes]
    arrays = {name: np.stack([scene[name] for scene in scenes]) for name in scenes[0]}
    if len(scenes) == 1:
        arrays = {name: array[0] for name, array in arrays.items()}
    arrays |= {"viewmats": want["viewmats"], "Ks": want["Ks"]}
    return {name: torch.tensor(array, dtype=dtype).requires_grad_(name[:2] != "v_") for name, array in arrays.items()}


def render(case: Case, given: dict[str, Tensor], kernels: bool | None) -> tuple[Rendering, Tensor]:
    """The rendering and the loss of each scene; gradients are in place afterwards."""
    made = rasterize(
        *(given[name] for name in ("means", "quats", "scales", "opacities", "viewmats", "Ks")), case.width, case.height,
        sh=given["sh"], sh_degree=case.degree, background=given["backgrounds"], mode=case.mode, depth="accumulated",
        absgrad=True, kernels=kernels,
    )  # fmt: skip
    made.info.splats.retain_grad()
    parts = ((made.image, "v_rgb"), (made.alpha, "v_alpha"), (made.depth, "v_depth"))
    loss = sum((image * given[name]).sum((-4, -3, -2, -1)) for image, name in parts)
    loss.sum().backward()
    return made, loss


def conic_gradients(splats: Tensor, v_splats: Tensor) -> Tensor:
    """[.., 8] and its gradient -> the gradient of (a, b, c) with a = u11^2, b = u11 u12, c = u12^2 + u22^2: [.., 3]."""
    u11, u12, u22 = splats[..., 2:5].unbind(-1)
    v11, v12, v22 = v_splats[..., 2:5].unbind(-1)
    v_c = v22 / (2 * u22)
    v_b = (v12 - 2 * u12 * v_c) / u11
    return torch.stack([(v11 - u12 * v_b) / (2 * u11), v_b, v_c], -1)


def whole(case: Case, given: dict[str, Tensor], *names: str) -> list[Tensor]:
    """Inputs without gradients, with the axis of the scenes."""
    tensors = (given[name].detach() for name in names)
    return [tensor if len(case.prefixes) > 1 else tensor[None] for tensor in tensors]


@torch.no_grad()
def compensations(case: Case, given: dict[str, Tensor], kernels: bool | None) -> Tensor:
    """What the antialiased mode multiplies opacities by: the opacity of a splat that began with 1. [B,V,N]."""
    means, quats, scales, opacities, viewmats, ks = whole(case, given, "means", "quats", "scales", "opacities", "viewmats", "Ks")
    stage = reference.project if kernels is False else ops.project
    ones, size = torch.ones_like(opacities), (case.width, case.height)
    flags = backend.ANTIALIASED
    return stage(means, quats, scales, ones, viewmats, ks, None, None, *size, 0, 0.3, 0.01, 1e10, flags)[0][..., 5]


@torch.no_grad()
def colours(case: Case, given: dict[str, Tensor], kernels: bool | None) -> Tensor:
    """Harmonics at each Gaussian and view, + 0.5 and cut at 0: [B,V,N,3]."""
    stage = reference.shade if kernels is False else ops.shade
    return stage(*whole(case, given, "means", "viewmats", "sh"), case.degree)


def forward(case: Case, given: dict[str, Tensor], made: Rendering, want: dict[str, np.ndarray], kernels: bool | None) -> Outputs:
    """Images, and what is recorded of single Gaussians where they are on the image."""
    for name, image in (("rgb", made.image), ("alpha", made.alpha), ("depth", made.depth)):
        yield name, image.detach(), want[name]
    valid, info = want["valid"], made.info
    yield "seen_are_valid", (info.seen.numpy() & ~valid).sum(), 0
    found = {"means2d": info.means2d, "depths": info.depths, "conics": info.conics}
    if case.mode == "antialiased":
        found["compensations"] = compensations(case, given, kernels).reshape(valid.shape)
    for name, values in found.items():
        yield name, values.detach().numpy()[valid], want[name][valid]
    raw = np.maximum(want["sh_raw"] + 0.5, 0)
    yield "colours", colours(case, given, kernels).numpy().reshape(raw.shape), raw


def backward(given: dict[str, Tensor], made: Rendering, want: dict[str, np.ndarray], kernels: bool | None) -> Outputs:
    """Gradients of the inputs and of the projected quantities."""
    for name in ("means", "quats", "scales", "opacities", "sh", "backgrounds"):
        yield f"v_{name}", given[name].grad, want[f"v_{name}"]
    yield "v_viewmats", given["viewmats"].grad[..., :3, :], want["v_viewmats"][..., :3, :]
    rows, columns = [0, 1, 0, 1], [0, 1, 2, 2]  # fx, fy, cx, cy: the record also has the skew, which rasterize does not read
    yield "v_Ks", given["Ks"].grad[..., rows, columns], want["v_Ks"][..., rows, columns]
    splats, valid = made.info.splats, want["valid"]
    yield "v_means2d", splats.grad[..., :2], want["v_means2d"]
    yield "v_conics", conic_gradients(splats.detach(), splats.grad).numpy()[valid], want["v_conics"][valid]
    if kernels is not False:  # the reference has no absolute sums
        yield "absgrad", made.info.absgrad, want["absgrad"]


def outputs(folder: Path, dtype: torch.dtype = torch.float32, kernels: bool | None = None) -> Outputs:
    """Everything recorded of a case, forward first, then the loss, then gradients."""
    case = TABLE[folder.name]
    with np.load(folder / "golden.npz") as arrays:
        want = dict(arrays)
    given = make_inputs(case, want, dtype)
    made, loss = render(case, given, kernels)
    yield from forward(case, given, made, want, kernels)
    yield "loss", loss.detach(), want["loss"]
    yield from backward(given, made, want, kernels)


CASES = dict.fromkeys(TABLE, outputs)
