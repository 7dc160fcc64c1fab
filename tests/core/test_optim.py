"""Schedules, parameter groups, optimizer state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mixtura.config import OptimSection, ScheduleSection
from mixtura.errors import ConfigError
from mixtura.optim import build_optimizer, lr_factor, pack_state, parameter_groups, set_lr, trained, unpack_state


def test_schedules_are_functions_of_the_step() -> None:
    cosine = ScheduleSection(type="cosine", warmup=10, final=0.1)
    assert lr_factor(cosine, 0, 110) == pytest.approx(0.1)
    assert lr_factor(cosine, 9, 110) == 1.0
    assert lr_factor(cosine, 60, 110) == pytest.approx(0.55)
    assert lr_factor(cosine, 110, 110) == pytest.approx(0.1)
    wsd = ScheduleSection(type="wsd", warmup=0, decay=0.2, final=0.0)
    assert [round(lr_factor(wsd, s, 100), 3) for s in (0, 79, 80, 90, 100)] == [1.0, 1.0, 1.0, 0.5, 0.0]
    assert lr_factor(ScheduleSection(), 5, 10) == 1.0


def test_the_first_matching_group_counts_and_vectors_are_not_decayed() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optim = OptimSection(
        lr=0.1, weight_decay=0.5, groups=({"match": "0.*", "lr_scale": 0.1}, {"match": "*.weight", "weight_decay": 0.0})
    )
    groups = {tuple(g["names"]): (g["lr_scale"], g["weight_decay"]) for g in parameter_groups(trained(net), optim)}
    assert groups == {("0.weight",): (0.1, 0.5), ("0.bias",): (0.1, 0.0), ("1.weight", "1.bias"): (1.0, 0.0)}
    with pytest.raises(ConfigError, match="no trained parameter matches 'x"):
        parameter_groups(trained(net), OptimSection(groups=({"match": "x*"},)))


def test_optimizer_state_survives_a_round_trip() -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(3, 2)

    def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            module(torch.ones(1, 3)).sum().backward()
            set_lr(optimizer, 0.1)
            optimizer.step()
            optimizer.zero_grad()

    whole, part = net(), net()
    first, second = (build_optimizer(trained(m), OptimSection()) for m in (whole, part))
    train(whole, first, 4)
    train(part, second, 2)
    third = build_optimizer(trained(part), OptimSection())
    unpack_state(third, pack_state(second))
    train(part, third, 2)
    assert torch.equal(whole.weight, part.weight)
