"""Gaussians as a network leaves them -> Gaussians worth keeping: faint ones out, strays out, mirrored worlds put right."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from mixtura.errors import DataError
from mixtura_splat import Gaussians

FAINTEST = {"object": 0.02, "scene": 0.05}
"""Opacity that a Gaussian must exceed, by kind (published code)."""
BOX = 0.91
"""Objects' Gaussians are kept within this distance of the origin along every axis (published code)."""


def cleaned(scene: Gaussians, kind: str) -> Gaussians:
    """Without Gaussians that are faint, not finite, or, for objects, outside of the box around the origin.

    Raises DataError when none is left.
    """
    keep = (scene.opacities > FAINTEST[kind]) & _is_finite(scene)
    if kind == "object":
        keep &= (scene.means.abs() < BOX).all(-1)
    if not bool(keep.any()):
        where = f" and lies within {BOX} of the origin" if kind == "object" else ""
        raise DataError(
            f"none of {len(scene)} Gaussians is more opaque than {FAINTEST[kind]}{where}; the network has not learnt enough for "
            "this picture: train longer, try another seed, or see whether the object is cut out well (condition.png)"
        )
    return Gaussians(*(getattr(scene, field.name)[keep] for field in fields(scene)))


def _is_finite(scene: Gaussians) -> Tensor:
    parts = [getattr(scene, field.name).reshape(len(scene), -1) for field in fields(scene)]
    finite: Tensor = torch.cat(parts, 1).isfinite().all(-1)
    return finite


def unmirrored(scene: Gaussians) -> Gaussians:
    """A scene of the published object world, which is a mirror image, in our right-handed one: y points the other way.

    Harmonics of degree 0 have no direction; those of higher degrees are mirrored as well.
    """
    flip = scene.means.new_tensor([1, -1, 1])
    # For a mirror M, M R(w, x, y, z) M is again a turn; with M = diag(1, -1, 1) that of (w, -x, y, -z). The axes' lengths stay.
    turn = scene.quats.new_tensor([1, -1, 1, -1])
    return Gaussians(scene.means * flip, scene.quats * turn, scene.scales, scene.opacities, scene.sh * _odd_in_y(scene.sh))


def _odd_in_y(sh: Tensor) -> Tensor:
    """-1 for the harmonics (K, 1) that change their sign with y, those of negative order; 1 for the others."""
    degrees = int(sh.shape[-2] ** 0.5)
    signs: list[Any] = [-1.0 if order < 0 else 1.0 for degree in range(degrees) for order in range(-degree, degree + 1)]
    return sh.new_tensor(signs)[:, None]


def y_up(points: Tensor) -> Tensor:
    """Points (..., 3) of our world, z up, with y up as glTF has it; the condition camera then looks along -z."""
    x, y, z = points.unbind(-1)
    return torch.stack([x, z, -y], -1)
