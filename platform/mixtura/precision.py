"""Device and precision: what accelerate decides for us, and the switches that make a run repeatable."""

from __future__ import annotations

import os
import warnings

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from mixtura.config.schema import TrainSection
from mixtura.errors import ConfigError


def make_accelerator(train: TrainSection) -> Accelerator:
    """An Accelerator that neither scales losses nor touches data: weights in float32, autocast for bf16 and fp16."""
    if train.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("train.device: cuda asked for, but torch sees no GPU; use auto or cpu")
    on_cpu = train.device == "cpu" or (train.device == "auto" and not torch.cuda.is_available())
    if train.precision == "fp16" and on_cpu:
        raise ConfigError("train.precision: fp16 needs a GPU; use bf16 or fp32 on the CPU")
    on_gpu = not on_cpu and torch.cuda.is_available()
    has_fast_bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else on_cpu and has_bf16()
    if train.precision == "bf16" and on_cpu and not has_fast_bf16:
        warnings.warn("bf16 on a CPU without bf16 instructions is slower than fp32; train.precision=auto chooses", stacklevel=2)
    if train.threads:
        torch.set_num_threads(train.threads)
    if train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    precision = {"fp32": "no", "auto": "bf16" if has_fast_bf16 else "no"}.get(train.precision, train.precision)
    return Accelerator(mixed_precision=precision, cpu=on_cpu, gradient_accumulation_steps=1, kwargs_handlers=[ddp])


def has_bf16() -> bool:
    """Whether the processor computes in bf16 (AVX-512 or AMX), as far as torch can tell."""
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def repeat_from(key: int) -> None:
    """Seed the global generators that third-party layers (dropout) draw from."""
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(key)


def checkpoint_blocks(system: torch.nn.Module, blocks: tuple[type[torch.nn.Module], ...]) -> None:
    """Trade time for memory: blocks of these classes are computed again in the backward pass."""
    from functools import partial

    from torch.utils.checkpoint import checkpoint

    for module in system.modules():
        if blocks and isinstance(module, blocks) and not isinstance(module.forward, partial):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)
