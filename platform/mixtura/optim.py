"""Optimizers and schedules: parameter groups by name, AdamW, learning rates as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mixtura.config.schema import OptimSection, ScheduleSection
from mixtura.errors import ConfigError


def lr_factor(schedule: ScheduleSection, step: int, steps: int) -> float:
    """What the base learning rate is multiplied by at `step` (from 0) of a stage of `steps`.

    constant; cosine from 1 to `final`; wsd: constant, then linear to `final` over the last `decay` share. All three warm up
    linearly over `warmup` steps.
    """
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    if schedule.type == "constant":
        return 1.0
    if schedule.type == "cosine":
        share = (step - schedule.warmup) / max(1, steps - schedule.warmup)
        return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    falling = max(1, round(schedule.decay * steps))
    share = min(1.0, max(0.0, (step - (steps - falling)) / falling))
    return 1 - (1 - schedule.final) * share


def parameter_groups(
    named: Sequence[tuple[str, Tensor]], optim: OptimSection, others: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Groups with their own `lr_scale` and decay: the first `match` (a shell pattern on the full name) wins.

    Vectors and scalars (norms, biases) are never decayed. Raises ConfigError for a group without parameters, also among `others`:
    names that train in another stage, or for another player.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    used: set[int] = set()
    for name, parameter in named:
        scale, decay = 1.0, optim.weight_decay
        for i, group in enumerate(optim.groups):
            if group.matches(name):
                used.add(i)
                scale = group.lr_scale
                decay = decay if group.weight_decay is None else group.weight_decay
                break
        decay = decay if parameter.ndim > 1 else 0.0
        entry = groups.setdefault((scale, decay), {"params": [], "names": [], "lr_scale": scale, "weight_decay": decay})
        entry["params"].append(parameter)
        entry["names"].append(name)
    idle = [g.match for i, g in enumerate(optim.groups) if i not in used and not any(map(g.matches, others))]
    if idle:
        known = sorted({name.split(".")[0] for name in (*others, *(name for name, _ in named))})
        raise ConfigError(f"optim.groups: no trained parameter matches {idle[0]!r}; names begin with {', '.join(known)}")
    return list(groups.values())


def build_optimizer(
    named: Sequence[tuple[str, Tensor]], optim: OptimSection, others: Sequence[str] = ()
) -> torch.optim.Optimizer:
    """AdamW over the trained parameters; the fused kernel on every device that has one. `others` as in `parameter_groups`."""
    groups = parameter_groups(named, optim, others)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, weight_decay=optim.weight_decay, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of this step in every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def names_in_order(optimizer: torch.optim.Optimizer) -> list[str]:
    """Parameter names in the order of the optimizer's own numbering."""
    return [name for group in optimizer.param_groups for name in group["names"]]


def pack_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Optimizer state as flat tensors called `NAME/slot`."""
    names = names_in_order(optimizer)
    state = optimizer.state_dict()["state"]
    return {f"{names[i]}/{slot}": torch.as_tensor(value) for i, slots in state.items() for slot, value in slots.items()}


def unpack_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimizer back what `pack_state` took; raises KeyError for a name it doesn't have."""
    number = {name: i for i, name in enumerate(names_in_order(optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, slot = key.rsplit("/", 1)
        state.setdefault(number[name], {})[slot] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def trained(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Named parameters that require a gradient."""
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]
