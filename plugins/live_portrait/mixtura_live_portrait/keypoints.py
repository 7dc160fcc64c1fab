"""Geometry of implicit keypoints: degrees from bins, rotations, and x = s (x_c R + δ) + t.

Shapes: b batch, k keypoints. Angles are in degrees. Rotations stand transposed, for keypoints are rows: x_c @ R.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mixtura_live_portrait.nets.motion import Heads

BIN = 3.0
"""Degrees that one bin is wide."""


def degrees(logits: Tensor) -> Tensor:
    """The expected angle in degrees (b,) from the logits of bins (b, bins), which lie symmetrically around 0."""
    bins = torch.arange(logits.shape[-1], device=logits.device, dtype=torch.float32)
    return (logits.float().softmax(-1) * bins).sum(-1) * BIN - BIN * (logits.shape[-1] - 1) / 2


def rotation(pitch: Tensor, yaw: Tensor, roll: Tensor) -> Tensor:
    """(Rz(roll) Ry(yaw) Rx(pitch)) transposed, from degrees (b,): (b, 3, 3)."""
    (sx, sy, sz), (cx, cy, cz) = ([f(torch.deg2rad(a)) for a in (pitch, yaw, roll)] for f in (torch.sin, torch.cos))
    columns = (
        (cz * cy, sz * cy, -sy),
        (cz * sy * sx - sz * cx, sz * sy * sx + cz * cx, cy * sx),
        (cz * sy * cx + sz * sx, sz * sy * cx - cz * sx, cy * cx),
    )
    return torch.stack([torch.stack(column, -1) for column in columns], -2)


def transform(kp: Tensor, rotation: Tensor, exp: Tensor, t: Tensor, scale: Tensor) -> Tensor:
    """The keypoint equation, paper section 3.1: kp, exp (b, k, 3), rotation (b, 3, 3), t (b, 3), scale (b, 1) -> (b, k, 3).

    t moves x and y alone: depth is what the rotation makes of it.
    """
    shift = torch.cat([t[..., :2], torch.zeros_like(t[..., 2:])], -1)
    return scale[..., None] * (kp @ rotation + exp) + shift[..., None, :]


def placed(x: Tensor, landmarks: Tensor, chosen: Tensor | None = None) -> Tensor:
    """Keypoints (b, k, 3), of which the first lie where landmarks (b, n, 2) do; z stays.

    Only in the items chosen (b,) bool, all by default, and where landmarks are known.
    """
    count = min(x.shape[1], landmarks.shape[1])
    true = landmarks[:, :count]
    is_known = true.isfinite().all(-1, keepdim=True)
    if chosen is not None:
        is_known = is_known & chosen[:, None, None]
    flat = torch.where(is_known, true.nan_to_num(), x[:, :count, :2])
    return torch.cat([torch.cat([flat, x[:, :count, 2:]], -1), x[:, count:]], 1)


class Motion(NamedTuple):
    """What M reads off an image.

    Canonical `kp` (b, k, 3), `pitch`, `yaw`, `roll` (b,), `t` (b, 3), the expression's offsets `exp` (b, k, 3), `scale` (b, 1).
    """

    kp: Tensor
    pitch: Tensor
    yaw: Tensor
    roll: Tensor
    t: Tensor
    exp: Tensor
    scale: Tensor

    @staticmethod
    def of(heads: Heads) -> Motion:
        """From the raw outputs of the motion extractor; always float32."""
        pitch, yaw, roll = (degrees(logits) for logits in (heads.pitch, heads.yaw, heads.roll))
        kp, exp = (points.float().unflatten(-1, (-1, 3)) for points in (heads.kp, heads.exp))
        return Motion(kp, pitch, yaw, roll, heads.t.float(), exp, heads.scale.float())

    def rotation(self) -> Tensor:
        """The head's rotation (b, 3, 3), to be multiplied from the right."""
        return rotation(self.pitch, self.yaw, self.roll)

    def keypoints(self) -> Tensor:
        """Where the keypoints are (b, k, 3)."""
        return transform(self.kp, self.rotation(), self.exp, self.t, self.scale)
