"""BlazeFace's outputs as boxes."""

from __future__ import annotations

import numpy as np
import torch

from mixtura_live_portrait.faces import blaze


def outputs(index: int, score: float = 0.9) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw outputs with one candidate: 20 wide, 30 high, 3 right of its place; keypoints at 0, 1, 2, … from it."""
    regressors, logits = torch.zeros(1, 896, 16), torch.full((1, 896, 1), -200.0)
    regressors[0, index] = torch.tensor([3.0, 0.0, 20.0, 30.0, *range(12)])
    logits[0, index] = float(np.log(score / (1 - score)))
    return regressors, logits


def test_places_cover_the_picture_in_two_steps() -> None:
    places = blaze.anchors()
    assert places.shape == (896, 2)
    assert places[:4].tolist() == [[4, 4], [4, 4], [12, 4], [12, 4]]
    assert places[512:519].tolist() == [[8, 8]] * 6 + [[24, 8]]
    assert places[-1].tolist() == [120, 120]


def test_boxes_and_keypoints_are_relative_to_their_place() -> None:
    (rows,) = blaze.decode(*outputs(2), 0.5)
    np.testing.assert_allclose(rows[0, :8], [5, -11, 25, 19, 12, 5, 14, 7], atol=1e-4)
    assert rows[0, -1] == np.float32(0.9)
    (none,) = blaze.decode(*outputs(2, 0.4), 0.5)
    assert none.shape == (0, 17)


def test_overlapping_candidates_become_one_mean_by_score() -> None:
    def row(x: float, score: float) -> list[float]:
        return [x, 0, x + 10, 10, *[x] * 12, score]

    merged = blaze.suppressed(np.array([row(1, 0.6), row(0, 0.9), row(50, 0.7)], np.float32))
    assert merged[:, -1].tolist() == [np.float32(0.9), np.float32(0.7)]
    assert merged[0, 0] == np.float32(0.4)
    assert blaze.suppressed(np.zeros((0, 17), np.float32)).shape == (0, 17)


def test_overlap_is_intersection_over_union() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6], [0, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(blaze.overlap(boxes[0], boxes), [1, 1 / 3, 0, 0])
