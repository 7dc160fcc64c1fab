"""DiffusionGS at its published size on a GPU: seconds an image, memory, and seconds of a training step.

    python -m mixtura_splat.build --cuda
    python benchmarks/diffusion_gs_cuda.py [--sizes 256 512] [--steps 30] [--batches 1 4] [--compile] [--dry]

An image is one condition view and three noisy ones through all denoising steps, drawn at every step, ancestral sampling, bfloat16
with the Gaussians in float32. A training step is losses (image, perceptual stand-in, points) of the four views and two novel
ones, backward and AdamW, with blocks recomputed and views drawn one by one (`deferred`), as configs/full has it. Weights are
random: time doesn't depend on them, but for how far Gaussians reach. Memory is the peak that PyTorch allocated. Published for
comparison: about 6 s an image on an A100 (paper), 24 s (open version, hardware not stated). Writes a JSON file to results/;
`--dry` runs all of it at a small size on any machine, to see that this script works, and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import keep, middle, say
from torch import Tensor

from mixtura.precision import checkpoint_blocks
from mixtura.rng import KeyedRng, SampleNoise
from mixtura.system import StepContext
from mixtura_diffusion_gs.cameras import orbit
from mixtura_diffusion_gs.config import DiffusionGSConfig
from mixtura_diffusion_gs.nets.denoiser import Block
from mixtura_diffusion_gs.system import DiffusionGS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PUBLISHED: dict[str, Any] = {"size": "full"}
SMALL: dict[str, Any] = {"size": "tiny", "width": 64, "layers": 2}
WEIGHTS = {"image": 1.0, "perceptual": 0.5, "points": 0.025}


def build(size: int, is_dry: bool) -> DiffusionGS:
    """An object model with random weights, the same every time."""
    torch.manual_seed(0)
    settings = SMALL if is_dry else PUBLISHED
    terms = tuple(WEIGHTS)
    config = DiffusionGSConfig(type="diffusion_gs", kinds=("object",), image_size=size, deferred=True, terms=terms, **settings)
    with torch.device(DEVICE):
        return DiffusionGS(config)


def cameras(views: int, size: int) -> tuple[Tensor, Tensor]:
    """Cameras (1, V, 4, 4) around an object and their intrinsics (1, V, 4)."""
    c2w, lenses = orbit([360 / views * i for i in range(views)], [20.0] * views, 3.0, 39.6, size)
    return c2w[None].to(DEVICE), lenses[None].to(DEVICE)


def batch_of(count: int, size: int) -> dict[str, Tensor]:
    """What `DiffusionGS.collate` would give for `count` objects with four views and two novel ones."""
    c2w, lenses = cameras(6, size)
    return {
        "images": torch.randint(0, 256, (count, 6, 3, size, size), dtype=torch.uint8, device=DEVICE),
        "c2w": c2w.expand(count, -1, -1, -1),
        "intrinsics": lenses.expand(count, -1, -1),
        "depths": torch.full((count, 4, size, size), 3.0, device=DEVICE),
        "kinds": torch.zeros(count, dtype=torch.long, device=DEVICE),
    }


def half() -> Any:
    """bfloat16 where the system lets it."""
    return torch.autocast(DEVICE, torch.bfloat16)


def timed(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Seconds of `run` after a first, uncounted one, and the peak of memory in GiB (0 without a GPU)."""
    seconds = []
    for turn in range(repeats + 1):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        run()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        if turn:
            seconds.append(time.perf_counter() - began)
    return middle(seconds), torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0.0


def image(size: int, steps: int, repeats: int, is_dry: bool, is_compiled: bool) -> dict[str, Any]:
    """One picture to Gaussians."""
    system = build(size, is_dry).eval()
    if is_compiled:
        system.denoiser.compile()
    c2w, lenses = cameras(4, size)
    picture = torch.rand(1, 3, size, size, device=DEVICE)

    def run() -> None:
        with half():
            system.infer(image=picture, c2w=c2w, intrinsics=lenses, kind="object", steps=steps)

    seconds, memory = timed(run, repeats)
    return {"what": "image", "pixels": size, "batch": 1, "steps": steps, "seconds": seconds, "GiB": memory}


def training(size: int, count: int, repeats: int, is_dry: bool) -> dict[str, Any]:
    """One training step."""
    system = build(size, is_dry).train()
    checkpoint_blocks(system, (Block,))
    optimizer, batch = torch.optim.AdamW(system.parameters(), lr=1e-5), batch_of(count, size)
    root, ids = KeyedRng(0, "bench"), torch.zeros(count, dtype=torch.long)
    noise = SampleNoise(root, list(range(count)), torch.device(DEVICE))
    context = StepContext(0, "bench", 500, 1000, root, noise, ids, ("objects",))

    def run() -> None:
        with half():
            terms = system.losses(batch, context)
        torch.stack([WEIGHTS[name] * term.total / term.count for name, term in terms.items()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds, memory = timed(run, repeats)
    return {"what": "training step", "pixels": size, "batch": count, "steps": 1, "seconds": seconds, "GiB": memory}


def main() -> int:
    """Time everything that was asked for; sizes that don't fit into memory are told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", type=int, default=[256, 512])
    parser.add_argument("--steps", type=int, default=30, help="denoising steps of an image")
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 4], help="objects of a training step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="the denoiser through torch.compile as well")
    parser.add_argument("--dry", action="store_true")
    chosen = parser.parse_args()
    if DEVICE == "cpu" and not chosen.dry:
        raise SystemExit("torch sees no GPU; `--dry` tries this script at a small size")
    sizes, batches, steps, repeats = (
        ([32], [1, 2], 2, 1) if chosen.dry else (chosen.sizes, chosen.batches, chosen.steps, chosen.repeats)
    )
    jobs: list[tuple[str, Callable[[], dict[str, Any]]]] = []
    for size in sizes:
        jobs.append(("", lambda s=size: image(s, steps, repeats, chosen.dry, False)))
        if chosen.compile:
            jobs.append((", compiled", lambda s=size: image(s, steps, repeats, chosen.dry, True)))
        jobs += [("", lambda s=size, b=count: training(s, b, repeats, chosen.dry)) for count in batches]
    say("| what | pixels | batch | denoising steps | seconds | GiB |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    rows = []
    for note, job in jobs:
        try:
            row = job()
        except torch.OutOfMemoryError:
            say("| out of memory | | | | | |")
            torch.cuda.empty_cache()
            continue
        row["what"] += note
        rows.append(row)
        say(f"| {row['what']} | {row['pixels']} | {row['batch']} | {row['steps']} | {row['seconds']:.3f} | {row['GiB']:.1f} |")
    if not chosen.dry:
        keep("diffusion_gs_cuda", {"device": torch.cuda.get_device_name(), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
