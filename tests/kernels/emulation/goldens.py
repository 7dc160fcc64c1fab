"""The recorded scenes of tests/parity/splatting_kernels as inputs of the driver, with their cotangents."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.kernels.emulation.driver import ANTIALIASED, DEPTH, Scene, floats
from tests.parity.fill import make_input

FOLDER = Path(__file__).resolve().parents[2] / "parity" / "splatting_kernels"

# folder: prefix, prefixes of its scenes, N, width, height, degree, K, flags, scale bounds, opacity offset
CASES = {
    "classic": (["splat/classic/"], 300, 40, 28, 3, 16, 0, (-3.6, -1.6), 0.5),
    "antialiased": (["splat/aa/"], 300, 40, 28, 2, 16, ANTIALIASED, (-5.5, -2.5), 0.5),
    "batched": (["splat/batched/0/", "splat/batched/1/"], 150, 33, 20, 1, 4, 0, (-3.6, -1.6), 0.5),
    "near_and_opaque": (["splat/near/"], 200, 36, 24, 0, 1, 0, (-2.5, -0.7), 4.0),
}


def golden(case: str) -> dict[str, np.ndarray]:
    """Reference outputs, each with a leading scene axis."""
    with np.load(FOLDER / case / "golden.npz") as stored:
        arrays = dict(stored)
    return arrays if len(CASES[case][0]) > 1 else {name: array[None] for name, array in arrays.items()}


def golden_scene(case: str) -> Scene:
    prefixes, n, width, height, degree, k, flags, bounds, offset = CASES[case]
    stored = golden(case)
    c = stored["viewmats"].shape[1]

    def stack(name: str, shape: tuple[int, ...], *limits: float) -> np.ndarray:
        return np.stack([make_input(p + name, shape, *limits) for p in prefixes])

    logits = stack("opacity_logits", (n,)).astype(np.float64)
    return Scene(
        means=stack("means", (n, 3), -1, 1),
        quats=stack("quats", (n, 4)),
        scales=floats(np.exp(stack("log_scales", (n, 3), *bounds).astype(np.float64))),
        opacities=floats(1 / (1 + np.exp(-(1.5 * logits + offset)))),
        viewmats=floats(stored["viewmats"]),
        ks=floats(stored["Ks"]),
        width=width,
        height=height,
        sh=np.float32(0.3) * stack("sh", (n, k, 3)),
        degree=degree,
        background=stack("backgrounds", (c, 3), 0, 1),
        flags=flags | DEPTH,
    )


def golden_cotangents(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the image, the depth and the transmittance (the negative of alpha's)."""
    prefixes, _, width, height, *_ = CASES[case]
    c = golden(case)["viewmats"].shape[1]

    def stack(name: str, channels: int) -> np.ndarray:
        return np.stack([make_input(p + name, (c, height, width, channels)) for p in prefixes])

    return stack("v_rgb", 3), np.ascontiguousarray(stack("v_depth", 1)[..., 0]), -stack("v_alpha", 1)[..., 0]
