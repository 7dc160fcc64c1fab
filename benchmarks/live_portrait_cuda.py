"""LivePortrait at its published size on a GPU: milliseconds a frame, memory, and what half precision costs.

    python benchmarks/live_portrait_cuda.py [--peer LivePortrait] [--batches 1 16] [--repeats 20] [--compile] [--dry]

A frame is M, W and G of one driving picture, 256 x 256 in and 512 x 512 out; F runs once a source and isn't counted. Contenders
are the official code under autocast to float16, as it comes (with --peer, a checkout of KwaiVGI/LivePortrait), and ours in
float32 and bfloat16, launched kernel by kernel, recorded as CUDA graphs, and with --compile compiled. Weights and inputs follow
the rule of tests/parity. They take turns, the first runs aren't counted; memory is the peak that PyTorch allocated meanwhile.
PSNR is that of a picture against float32. Published: 12.8 ms on an RTX 4090. Writes results/live_portrait_cuda.json; `--dry` runs
small networks on any machine, to see that this script works, and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from common import keep, middle, say
from live_portrait import filled, inputs, official
from torch import Tensor

from mixtura_live_portrait.fast import has_bfloat16, ready
from mixtura_live_portrait.nets import Networks
from mixtura_live_portrait.nets.sizes import TINY

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EXACT = "ours, float32"
WARM = 3
"""Runs of each contender that aren't counted."""
Frame = Callable[[], Tensor]


def ours(networks: Networks, given: Mapping[str, Tensor], **settings: Any) -> Frame:
    """A frame of our networks."""
    engine = ready(networks, lean=False, **settings)

    def frame() -> Tensor:
        engine.motion(given["image"])
        return engine.animate(given["volume"], given["source"], given["driving"])

    return frame


def theirs(folder: Path, networks: Networks, given: Mapping[str, Tensor]) -> Frame:
    """A frame of the official networks under autocast to float16."""
    with DEVICE:
        contender = official(folder, networks, False)
    b = len(given["driving"])

    @torch.inference_mode()
    def frame() -> Tensor:
        with torch.autocast(DEVICE.type, torch.float16):
            contender.m(given["image"])
            volume, source = given["volume"].expand(b, -1, -1, -1, -1), given["source"].expand(b, -1, -1)
            return contender.g(contender.w(volume, given["driving"], source)).float()

    return frame


def contenders_of(networks: Networks, given: Mapping[str, Tensor], peer: Path | None, is_compiled: bool) -> dict[str, Frame]:
    """All of them by name; what this device can't do is left out."""
    found: dict[str, Frame] = {EXACT: ours(networks, given)}
    if peer and DEVICE.type == "cuda":
        found["official, float16"] = theirs(peer, networks, given)
    ways: dict[str, dict[str, Any]] = {"": {}}
    if DEVICE.type == "cuda":
        ways[", graphs"] = {"cuda_graphs": True}
    if is_compiled:
        ways[", compiled"] = {"compile": True}
    for precision in ("float32", *(("bfloat16",) if has_bfloat16(DEVICE) else ())):
        for way, settings in ways.items():
            name = f"ours, {precision}{way}"
            if name not in found:
                found[name] = ours(networks, given, precision=precision, **settings)
    return found


def finished() -> None:
    """Wait for the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(frame: Frame) -> float:
    """Of one run."""
    finished()
    begin = time.perf_counter()
    frame()
    finished()
    return 1e3 * (time.perf_counter() - begin)


def measured(contenders: Mapping[str, Frame], repeats: int) -> dict[str, dict[str, Any]]:
    """Milliseconds, peak memory and PSNR of every contender; they take turns."""
    pictures, memory = {}, {}
    for name, frame in contenders.items():
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(WARM):
            pictures[name] = frame()
        finished()
        memory[name] = torch.cuda.max_memory_allocated() / 2**20 if DEVICE.type == "cuda" else None
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, frame in contenders.items():
            times[name].append(milliseconds(frame))
    return {
        name: {
            "ms": middle(times[name]),
            "fastest": min(times[name]),
            "memory_mib": memory[name],
            "psnr": None if name == EXACT else float(-10 * (pictures[name] - pictures[EXACT]).square().mean().log10()),
        }
        for name in contenders
    }


def main() -> int:
    """Measure every batch, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, metavar="FOLDER")
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 16])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--dry", action="store_true")
    chosen = parser.parse_args()
    if DEVICE.type != "cuda" and not chosen.dry:
        parser.error("torch sees no GPU; with --dry this script runs small networks here")
    networks = (Networks(TINY).eval() if chosen.dry else filled()).to(DEVICE)
    if chosen.dry and chosen.peer:
        parser.error("--dry has no official networks of its size; leave --peer out")
    rows: list[dict[str, Any]] = []
    say("| batch | method | ms a frame | frames a second | MiB | PSNR, dB |\n| ---: | --- | ---: | ---: | ---: | ---: |")
    for batch in chosen.batches:
        given = {name: tensor.to(DEVICE) for name, tensor in inputs(batch, networks.sizes).items()}
        contenders = contenders_of(networks, given, chosen.peer.resolve() if chosen.peer else None, chosen.compile)
        for name, figures in measured(contenders, chosen.repeats).items():
            each = figures["ms"] / batch
            rows.append({"batch": batch, "method": name, **figures, "ms_a_frame": each, "repeats": chosen.repeats})
            memory, psnr = (f"{v:.{n}f}" if v is not None else "" for v, n in ((figures["memory_mib"], 0), (figures["psnr"], 1)))
            say(f"| {batch} | {name} | {each:.2f} | {1e3 / each:.1f} | {memory} | {psnr} |")
    if not chosen.dry:
        keep("live_portrait_cuda", {"gpu": torch.cuda.get_device_name(), "published_ms": 12.8, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
