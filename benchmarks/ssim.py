"""Structural similarity on the CPU: the kernels raced against convolutions, forward and forward + backward, in one run.

    python benchmarks/ssim.py [--sizes 128 256 1024] [--batches 1 8] [--threads 1 2] [--repeats 9]

Images have three channels, one is an even pattern with noise of its own and the other that with more noise; borders are left
out (padding "valid"), as pytorch-msssim does. Contenders take turns in one process on the same values; the first run of each
isn't counted. Backward is the gradient of the first image. Contenders: ours on [B, C, H, W] and on [B, H, W, C] (the default,
which it copies to planes first); "conv2d", the same function in plain PyTorch, as it runs where nothing is compiled; and
pytorch-msssim where it can be imported. Beside times: how far values and gradients are from conv2d in float64.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from common import keep, say
from torch import Tensor

from mixtura_splat import ssim

MODES = ("forward", "forward + backward")
Contender = Callable[[Tensor, Tensor], Tensor]


def make_images(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """Two batches [B, 3, H, W] in [0, 1] with a similarity somewhere in the middle."""
    generator = torch.Generator().manual_seed(0)
    waves = torch.linspace(0, 12, size)
    pattern = 0.5 + 0.3 * torch.sin(waves)[:, None] * torch.cos(waves)
    a = pattern + 0.05 * torch.randn(batch, 3, size, size, generator=generator)
    b = a + 0.05 * torch.randn(a.shape, generator=generator)
    return a.clamp(0, 1), b.clamp(0, 1)


def contenders() -> dict[str, Contender]:
    """{name: similarity of [B, 3, H, W] or, for ours on channels last, [B, H, W, 3]}."""
    named: dict[str, Contender] = {
        "ours": lambda a, b: ssim(a, b, padding="valid", layout="channels_first", kernels=True),
        "ours, channels last": lambda a, b: ssim(a, b, padding="valid", kernels=True),
        "conv2d": lambda a, b: ssim(a, b, padding="valid", layout="channels_first", kernels=False),
    }
    if find_spec("pytorch_msssim"):
        import pytorch_msssim

        named["pytorch-msssim"] = lambda a, b: pytorch_msssim.ssim(a, b, data_range=1.0)
    return named


def timed(contender: Contender, mode: str, a: Tensor, b: Tensor) -> tuple[float, list[Tensor]]:
    """Seconds of one call, its value and the gradient of a if it made one."""
    leaf = a.detach().requires_grad_(mode == MODES[1])
    begin = time.perf_counter()
    value = contender(leaf, b)
    gradients = torch.autograd.grad(value, leaf) if mode == MODES[1] else ()
    return time.perf_counter() - begin, [value.detach(), *gradients]


def race(mode: str, images: dict[str, tuple[Tensor, Tensor]], repeats: int) -> tuple[dict[str, Any], dict[str, list[Tensor]]]:
    """Rows by contender, and the results of the uncounted first runs."""
    named = contenders()
    results = {name: timed(contender, mode, *images[name])[1] for name, contender in named.items()}
    times: dict[str, list[float]] = {name: [] for name in named}
    names = list(named)
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(timed(named[name], mode, *images[name])[0])
    best = min(times["ours"])
    rows = {
        name: {"best_ms": 1e3 * min(t), "median_ms": 1e3 * statistics.median(t), "ratio": min(t) / best}
        for name, t in times.items()
    }
    return rows, results


def agreement(results: dict[str, list[Tensor]], a: Tensor, b: Tensor) -> dict[str, dict[str, float]]:
    """How far each value is from conv2d's in float64, and each gradient, relative to its norm."""
    value, exact = timed(contenders()["conv2d"], MODES[1], a.double(), b.double())[1]
    planes = {name: v.movedim(-1, 1) if "last" in name else v for name, (_, v) in results.items()}
    return {
        name: {
            "value": abs(float(results[name][0]) - float(value)),
            "gradient": float((v.double() - exact).norm() / exact.norm()),
        }
        for name, v in planes.items()
    }


def line(*cells: object, head: bool = False) -> None:
    """A line of a table, with the rule below if it is the head."""
    say("| " + " | ".join(map(str, cells)) + " |" + ("\n|" + " --- |" * len(cells) if head else ""))


def main() -> None:
    """Race, compare, print a table, write results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    times, near = [], []
    say(f"Milliseconds, best (median) of {given.repeats}, and best over our best.\n")
    line("images", "threads", "what", *contenders(), head=True)
    for size, batch in itertools.product(given.sizes, given.batches):
        a, b = make_images(batch, size)
        last = a.movedim(1, -1).contiguous(), b.movedim(1, -1).contiguous()
        images = {name: last if "last" in name else (a, b) for name in contenders()}
        for threads, mode in itertools.product(given.threads, MODES):
            torch.set_num_threads(threads)
            rows, results = race(mode, images, given.repeats)
            times.append({"size": size, "batch": batch, "threads": threads, "what": mode, "contenders": rows})
            cells = [f"{r['best_ms']:.2f} ({r['median_ms']:.2f}), {r['ratio']:.1f}x" for r in rows.values()]
            line(f"{batch} x {size}²", threads, mode, *cells)
        near.append({"size": size, "batch": batch, "contenders": agreement(results, a, b)})
    say("\nDistance from conv2d in float64: value, gradient (relative).\n")
    line("images", *contenders(), head=True)
    for facts in near:
        cells = [f"{x['value']:.0e}, {x['gradient']:.0e}" for x in facts["contenders"].values()]
        line(f"{facts['batch']} x {facts['size']}²", *cells)
    keep("ssim", {"repeats": given.repeats, "times": times, "agreement": near})


if __name__ == "__main__":
    main()
