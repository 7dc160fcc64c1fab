"""Gaussians as a network leaves them -> Gaussians worth keeping: faint ones out, strays out."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from mixtura.errors import DataError
from mixtura_splat import Gaussians

FAINTEST = {"object": 0.02, "scene": 0.05}
"""Opacity that a Gaussian must exceed, by kind (published code)."""
BOX = 0.91
"""Objects' Gaussians are kept within this distance of the origin along every axis (published code)."""


def cleaned(scene: Gaussians, kind: str, box: float = BOX) -> Gaussians:
    """Without Gaussians that are faint, not finite, or, for objects, farther than `box` from the origin along an axis.

    Raises DataError when none is left.
    """
    keep = (scene.opacities > FAINTEST[kind]) & _is_finite(scene)
    if kind == "object":
        keep &= (scene.means.abs() < box).all(-1)
    if not bool(keep.any()):
        where = f" and lies within {box:g} of the origin" if kind == "object" else ""
        raise DataError(
            f"none of {len(scene)} Gaussians is more opaque than {FAINTEST[kind]}{where}; the network has not learnt enough for "
            "this picture: train longer, try another seed, or see whether the object is cut out well (condition.png)"
        )
    return Gaussians(*(getattr(scene, field.name)[keep] for field in fields(scene)))


def _is_finite(scene: Gaussians) -> Tensor:
    parts = [getattr(scene, field.name).reshape(len(scene), -1) for field in fields(scene)]
    finite: Tensor = torch.cat(parts, 1).isfinite().all(-1)
    return finite


def y_up(points: Tensor) -> Tensor:
    """Points (..., 3) of our world, z up, with y up as glTF has it; the condition camera then looks along -z."""
    x, y, z = points.unbind(-1)
    return torch.stack([x, z, -y], -1)
