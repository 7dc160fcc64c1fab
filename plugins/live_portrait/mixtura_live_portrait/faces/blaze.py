"""BlazeFace (arXiv 1907.05047): boxes and six keypoints of faces in a square picture of 128 pixels.

`decode` turns the network's raw outputs into candidates, `suppressed` merges those that overlap. The anchors are those of the
short-range model: two at each of 16 x 16 places, six at each of 8 x 8, all of one size, so that only their centres matter.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIDE = 128
STRIDES = ((8, 2), (16, 6))
"""(pixels from one place to the next, anchors at each place)."""
CLIPPED = 100.0
"""Logits beyond this are cut off, as in training."""
OVERLAP = 0.3
"""Intersection over union from which two boxes are one face."""
RIGHT_EYE, LEFT_EYE = 0, 1
"""Keypoints: eyes, as the person has them; then nose, mouth, ears."""

Candidates = NDArray[np.float32]
"""(N, 17): x0, y0, x1, y1, twelve coordinates of six keypoints, score; pixels of the input."""


def anchors() -> Tensor:
    """(896, 2): centres x, y in pixels of the input."""
    centres = []
    for stride, count in STRIDES:
        line = (torch.arange(SIDE // stride) + 0.5) * stride
        y, x = torch.meshgrid(line, line, indexing="ij")
        centres.append(torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, count, 2).reshape(-1, 2))
    return torch.cat(centres)


def decode(regressors: Tensor, logits: Tensor, threshold: float) -> list[Candidates]:
    """Raw outputs (B, 896, 16) and (B, 896, 1) -> candidates of each picture with at least that score."""
    places = anchors().to(regressors)
    scores = logits[..., 0].float().clamp(-CLIPPED, CLIPPED).sigmoid()
    values = regressors.float()
    centre, half = values[..., :2] + places, values[..., 2:4] / 2
    keypoints = values[..., 4:].unflatten(-1, (6, 2)) + places[:, None]
    rows = torch.cat([centre - half, centre + half, keypoints.flatten(-2), scores[..., None]], -1).cpu().numpy()
    return [picture[picture[:, -1] >= threshold] for picture in rows]


def overlap(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of a box (4,) with boxes (N, 4)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    inside = np.prod(np.clip(high - low, 0, None), -1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
    return np.asarray(inside / np.maximum(np.prod(box[2:] - box[:2]) + areas - inside, 1e-9), np.float32)


def suppressed(candidates: Candidates) -> Candidates:
    """One row for each face: candidates that overlap the best one are averaged by their scores."""
    rest, kept = candidates[np.argsort(-candidates[:, -1], kind="stable")], []
    while len(rest):
        is_same = overlap(rest[0, :4], rest[:, :4]) > OVERLAP
        is_same[0] = True
        same = rest[is_same]
        merged = (same * same[:, -1:]).sum(0) / same[:, -1].sum()
        merged[-1] = same[0, -1]
        kept.append(merged)
        rest = rest[~is_same]
    return np.stack(kept) if kept else candidates
