"""Critics judge patches at several sizes, sample by sample."""

from __future__ import annotations

import torch

from mixtura_live_portrait.nets.blocks import SpectralConv2d
from mixtura_live_portrait.nets.discriminator import Critic


def test_each_scale_gives_scores_of_patches_and_features_of_all_layers() -> None:
    judged = Critic(width=4, widest=8, blocks=3, scales=2)(torch.rand(2, 3, 32, 32))
    assert judged.scores.shape == (2, 4 * 4 + 2 * 2)
    assert [tuple(feature.shape[1:]) for feature in judged.features[:3]] == [(4, 32, 32), (8, 16, 16), (8, 8, 8)]
    assert len(judged.features) == 6


def test_a_picture_is_judged_the_same_in_any_batch_and_in_training() -> None:
    critic, pictures = Critic(4, 8, 2, 1).train(), torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(critic(pictures).scores[:1], critic(pictures[:1]).scores)
    first, second = critic(pictures[[0, 1]]).halves()
    torch.testing.assert_close(first.scores, critic(pictures[:1]).scores)
    torch.testing.assert_close(second.features[1], critic(pictures[1:2]).features[1])


def test_all_weights_of_a_critic_are_normalised() -> None:
    critic = Critic(4, 8, 2, 2)
    weights = [module.weight().detach() for module in critic.modules() if isinstance(module, SpectralConv2d)]
    assert len(weights) == 6
    assert all(abs(float(torch.linalg.matrix_norm(weight.flatten(1), 2)) - 1) < 0.1 for weight in weights)
