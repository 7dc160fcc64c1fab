"""Gaussian splatting on a GPU: mixtura-splat raced against gsplat in one run, and each stage against the roofline.

    python -m mixtura_splat.build --cuda && pytest -m gpu tests/kernels
    python benchmarks/splat_cuda.py [--repeats 20] [--peer] [--dry]

Scenes: those of splat_cpu.py (one view, colours given), a random scene with harmonics of degree 3, and the batch of DiffusionGS
(8 scenes x 4 views x 262,144 Gaussians at 256 x 256, each scene its own). Times are CUDA events around forward and forward +
backward, contenders in turns, median and best; memory is the peak that PyTorch allocated beyond the inputs. The roofline table
gives, for every call of ours, the bytes it must move at least and how close it comes to the bandwidth of a plain copy.
`--peer` needs gsplat (pip install gsplat) in the same environment. Writes results/splat_cuda.json. `--dry` runs everything on a
CPU with tiny scenes, to see that this script works; it writes nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import keep, say
from splat_cpu import make_scene
from torch import Tensor

import mixtura_splat
from mixtura_splat import backend

Scene = dict[str, Any]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("means", "quats", "scales", "opacities", "colors")


def sheet_scene(count: int, size: int) -> Scene:
    """A scene of splat_cpu.py with a view axis."""
    scene, v = make_scene(count, size)
    scene = {name: value.to(DEVICE) if isinstance(value, Tensor) else value for name, value in scene.items()}
    scene["viewmat"], scene["K"] = scene["viewmat"][None], scene["K"][None]
    return {**scene, "v": v[None].to(DEVICE), "degree": None}


def random_scene(batch: tuple[int, ...], views: int, count: int, size: int, degree: int | None, log_scale: float) -> Scene:
    """Normal positions around the origin, cameras on a circle of radius 3 that look at it."""
    generator = torch.Generator(DEVICE).manual_seed(17)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*batch, *shape, generator=generator, device=DEVICE)

    angles = torch.arange(views) * (2 * torch.pi / views)
    poses = torch.eye(4).repeat(views, 1, 1)
    poses[:, 0, 0], poses[:, 0, 2], poses[:, 2, 0], poses[:, 2, 2] = angles.cos(), angles.sin(), -angles.sin(), angles.cos()
    poses[:, 2, 3] = 3.0
    k = torch.tensor([[size, 0.0, size / 2], [0.0, size, size / 2], [0.0, 0.0, 1.0]]).repeat(views, 1, 1)
    color = normal(count, 3).sigmoid() if degree is None else 0.3 * normal(count, (degree + 1) ** 2, 3)
    return {
        "means": 0.5 * normal(count, 3),
        "quats": normal(count, 4),
        "scales": (log_scale + 0.5 * normal(count, 3)).exp(),
        "opacities": normal(count).sigmoid(),
        "colors": color,
        "viewmat": poses.to(DEVICE).expand(*batch, -1, -1, -1).contiguous(),
        "K": k.to(DEVICE).expand(*batch, -1, -1, -1).contiguous(),
        "width": size,
        "height": size,
        "v": torch.randn(*batch, views, size, size, 3, generator=generator, device=DEVICE),
        "degree": degree,
    }


def ours(scene: Scene, leaves: list[Tensor]) -> Tensor:
    """Our image."""
    color = {"colors": leaves[4]} if scene["degree"] is None else {"sh": leaves[4], "sh_degree": scene["degree"]}
    cameras = scene["viewmat"], scene["K"], scene["width"], scene["height"]
    return mixtura_splat.rasterize(*leaves[:4], *cameras, **color).image


def gsplat(scene: Scene, leaves: list[Tensor]) -> Tensor:
    """gsplat's image; per-scene harmonics go through its own function, since its dense mode wants colours then."""
    from gsplat import rasterization, spherical_harmonics

    colors = leaves[4]
    degree = scene["degree"]
    if degree is not None and colors.ndim > 3:
        centres = torch.linalg.inv(scene["viewmat"])[..., :3, 3]
        directions = leaves[0].unsqueeze(-3) - centres.unsqueeze(-2)
        expanded = colors.unsqueeze(-4).expand(*directions.shape[:-1], *colors.shape[-2:])
        colors, degree = (spherical_harmonics(degree, directions, expanded) + 0.5).clamp(min=0), None
    cameras = scene["viewmat"], scene["K"], scene["width"], scene["height"]
    image: Tensor = rasterization(*leaves[:4], colors, *cameras, sh_degree=degree, packed=False)[0]
    return image


def measure(run: Callable[[], Any]) -> float:
    """Milliseconds of one call, by events on a GPU."""
    if DEVICE == "cpu":
        began = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - began)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def peak_memory(run: Callable[[], Any]) -> float:
    """MiB that PyTorch allocated on the GPU beyond what was there before; nan on a CPU."""
    if DEVICE == "cpu":
        return float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    run()
    return (torch.cuda.max_memory_allocated() - base) / 2**20


def race(scene: Scene, contenders: dict[str, Callable[[Scene, list[Tensor]], Tensor]], repeats: int) -> dict[str, Any]:
    """Times and peak memory of every contender on one scene, in turns."""
    leaves = [scene[name].clone().requires_grad_() for name in NAMES]

    def forward(contender: str) -> None:
        with torch.no_grad():
            contenders[contender](scene, leaves)

    def both(contender: str) -> None:
        torch.autograd.grad(contenders[contender](scene, leaves), leaves, scene["v"])

    result: dict[str, Any] = {name: {"forward": [], "forward + backward": []} for name in contenders}
    for name in contenders:
        for _ in range(3):
            both(name)
        result[name]["peak MiB"] = peak_memory(lambda name=name: both(name))  # type: ignore[misc]
    for _ in range(repeats):
        for name in contenders:
            result[name]["forward"].append(measure(lambda name=name: forward(name)))  # type: ignore[misc]
            result[name]["forward + backward"].append(measure(lambda name=name: both(name)))  # type: ignore[misc]
    images = {name: contenders[name](scene, leaves).detach() for name in contenders}
    for name, times in result.items():
        for mode in ("forward", "forward + backward"):
            times[mode] = {"best": min(times[mode]), "median": statistics.median(times[mode])}
        times["relative difference from ours"] = float((images[name] - images["ours"]).norm() / images["ours"].norm())
    return result


def copy_bandwidth() -> float:
    """Bytes per second read and written by a large copy on this GPU."""
    source = torch.empty(2**28 if DEVICE == "cuda" else 2**24, dtype=torch.float32, device=DEVICE)
    target = torch.empty_like(source)
    best = min(measure(lambda: target.copy_(source)) for _ in range(10))
    return 2 * source.numel() * 4 / (best * 1e-3)


def least_bytes(scene: Scene, entries: int, visible: int) -> dict[str, float]:
    """What each call must at least read and write, from sizes alone (docs/splatting-cuda.md)."""
    n = scene["means"].numel() // 3
    views = scene["viewmat"].numel() // 16
    per_scene = n // max(1, scene["means"].numel() // 3 // scene["means"].shape[-2])
    pairs = views * per_scene
    pixels = views * scene["width"] * scene["height"]
    color = 4 * scene["colors"].numel()
    shaded = 12 * pairs if scene["degree"] is not None else 0
    used = color if scene["degree"] is None else shaded
    return {
        "project": 44 * n + (color + shaded if shaded else 0) + 44 * pairs,
        "bin": 44 * visible + 12 * entries,
        "composite": 4 * entries + 32 * entries + used + (12 + 8) * pixels,
        "composite_backward": 4 * entries + 32 * entries + 2 * used + 32 * pairs + (12 + 8) * pixels,
        "project_backward": 88 * n + 32 * pairs + (2 * color + 2 * shaded if shaded else 0),
    }


def stages(scene: Scene, bandwidth: float, repeats: int) -> list[dict[str, Any]]:
    """Time of every kernel call of a training step, with the share of the copy bandwidth that its least traffic makes."""
    leaves = [scene[name].clone().requires_grad_() for name in NAMES]
    times: dict[str, list[float]] = {}
    original = backend.call

    def timed(function: str, *arguments: Any, **options: Any) -> None:
        times.setdefault(function, []).append(measure(lambda: original(function, *arguments, **options)))

    info = None
    backend.call = timed
    try:
        for _ in range(repeats):
            torch.autograd.grad(ours(scene, leaves), leaves, scene["v"])
        color = {"colors": leaves[4]} if scene["degree"] is None else {"sh": leaves[4]}
        cameras = scene["viewmat"], scene["K"], scene["width"], scene["height"]
        info = mixtura_splat.rasterize(*leaves[:4], *cameras, **color).info
    finally:
        backend.call = original
    least = least_bytes(scene, int(info.tiles.sum(dtype=torch.int64)), int(info.seen.sum()))
    rows = []
    for name, values in times.items():
        best = min(values)
        rows.append({"call": name, "ms": best, "least MB": least[name] / 1e6, "share": least[name] / bandwidth / (best * 1e-3)})
    return rows


def full_scenes() -> dict[str, Callable[[], Scene]]:
    """What is measured."""
    scenes: dict[str, Callable[[], Scene]] = {
        f"sheet {n // 1000}k {size}": (lambda n=n, size=size: sheet_scene(n, size))  # type: ignore[misc]
        for n in (10_000, 100_000, 1_000_000)
        for size in (256, 1024)
    }
    scenes["random 500k 1080 SH3"] = lambda: random_scene((), 1, 500_000, 1080, 3, -4.5)
    scenes["DiffusionGS 8x4x262144 256"] = lambda: random_scene((8,), 4, 262_144, 256, 0, -5.0)
    return scenes


def dry_scenes() -> dict[str, Callable[[], Scene]]:
    """One scene of each kind, tiny."""
    return {
        "sheet 10k 256": lambda: sheet_scene(10_000, 256),
        "random SH3": lambda: random_scene((), 1, 500, 64, 3, -3.0),
        "batch": lambda: random_scene((2,), 3, 200, 32, 0, -3.0),
    }


def main() -> int:
    """Race on all scenes, then the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--peer", action="store_true", help="race gsplat too")
    parser.add_argument("--dry", action="store_true", help="tiny scenes on a CPU")
    chosen = parser.parse_args()
    if DEVICE == "cpu" and not chosen.dry:
        parser.error("no GPU here; --dry tries this script on a CPU")
    contenders = {"ours": ours, **({"gsplat": gsplat} if chosen.peer else {})}
    scenes = dry_scenes() if chosen.dry else full_scenes()
    bandwidth = copy_bandwidth()
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU (dry run)",
        "copy GB/s": bandwidth / 1e9,
        "race": {},
        "stages": {},
    }
    say(f"{figures['device']}, copy {figures['copy GB/s']:.0f} GB/s\n")
    say("| scene | contender | forward ms | forward + backward ms | peak MiB | off ours |")
    say("| --- | --- | ---: | ---: | ---: | ---: |")
    for name, make in scenes.items():
        scene = make()
        figures["race"][name] = race(scene, contenders, chosen.repeats)
        for contender, row in figures["race"][name].items():
            times = " | ".join(
                f"{row[mode]['best']:.3f} ({row[mode]['median']:.3f})" for mode in ("forward", "forward + backward")
            )
            say(f"| {name} | {contender} | {times} | {row['peak MiB']:.0f} | {row['relative difference from ours']:.1e} |")
        figures["stages"][name] = stages(scene, bandwidth, chosen.repeats)
    say("\n| scene | call | ms | least MB | share of copy bandwidth |\n| --- | --- | ---: | ---: | ---: |")
    for name, rows in figures["stages"].items():
        for row in rows:
            say(f"| {name} | {row['call']} | {row['ms']:.3f} | {row['least MB']:.1f} | {row['share']:.0%} |")
    if not chosen.dry:
        keep("splat_cuda", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
