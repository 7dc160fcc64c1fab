"""Degrees, rotations and the keypoint equation."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation

from mixtura_live_portrait.keypoints import Motion, degrees, rotation, transform
from mixtura_live_portrait.nets.motion import Heads, MotionExtractor
from mixtura_live_portrait.nets.sizes import TINY


@pytest.mark.parametrize(("bin_", "angle"), [(0, -97.5), (32, -1.5), (33, 1.5), (65, 97.5)])
def test_a_certain_bin_is_its_angle(bin_: int, angle: float) -> None:
    logits = torch.full((1, 66), -100.0)
    logits[0, bin_] = 100
    assert degrees(logits).item() == pytest.approx(angle, abs=1e-4)


def test_undecided_bins_mean_straight_ahead_whatever_their_number() -> None:
    for bins in (66, 24, 5):
        assert degrees(torch.zeros(1, bins)).item() == pytest.approx(0, abs=1e-4)


def test_rotation_is_the_transpose_of_roll_yaw_pitch() -> None:
    pitch, yaw, roll = (torch.tensor(a) for a in ([20.0, -5], [-35.0, 60], [10.0, 170]))
    angles = torch.stack([roll, yaw, pitch], -1).double().numpy()
    expected = torch.from_numpy(Rotation.from_euler("ZYX", angles, degrees=True).as_matrix()).mT
    torch.testing.assert_close(rotation(pitch, yaw, roll), expected.float())


def test_rotation_has_gradients() -> None:
    angles = [torch.tensor([a], requires_grad=True) for a in (3.0, 4.0, 5.0)]
    rotation(*angles)[0, 0, 0].backward()
    assert angles[1].grad is not None


def test_expression_is_scaled_and_depth_is_not_shifted() -> None:
    kp, exp = torch.tensor([[[1.0, 2, 3]]]), torch.tensor([[[0.5, 0, 0]]])
    moved = transform(kp, torch.eye(3)[None], exp, torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[2.0]]))
    torch.testing.assert_close(moved, torch.tensor([[[3.1, 4.2, 6.0]]]))


def test_heads_become_a_motion() -> None:
    motion = Motion.of(MotionExtractor(TINY)(torch.rand(2, 3, 64, 64)))
    k = TINY.keypoints
    assert [tuple(part.shape) for part in motion] == [(2, k, 3), (2,), (2,), (2,), (2, 3), (2, k, 3), (2, 1)]
    direct = motion.scale[..., None] * (motion.kp @ motion.rotation() + motion.exp)
    torch.testing.assert_close(motion.keypoints()[..., 2], direct[..., 2])
    torch.testing.assert_close(motion.keypoints()[..., :2], direct[..., :2] + motion.t[:, None, :2])


def test_half_precision_heads_give_float32() -> None:
    shapes = {"kp": 30, "pitch": 66, "yaw": 66, "roll": 66, "t": 3, "exp": 30, "scale": 1}
    motion = Motion.of(Heads(**{name: torch.randn(1, width, dtype=torch.bfloat16) for name, width in shapes.items()}))
    assert {part.dtype for part in motion} == {torch.float32}
