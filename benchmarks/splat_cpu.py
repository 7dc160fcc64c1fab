"""Gaussian splatting on the CPU: mixtura-splat raced against other rasterisers, forward and forward + backward, in one run.

    python benchmarks/splat_cpu.py [--peers FILE.py] [--points 10000 100000 1000000] [--sizes 256 1024] [--threads 1 2]

Scenes follow a rule (`tests/parity/fill.py`): means uniform in a cube of side 2, one camera at distance 3, colours given (no
harmonics), no background, loss = <image, v>. Contenders take turns in one process, on the same tensors; the first run of each
isn't counted. Beside times: how far images and gradients are from ours, whether ours has the same bits for every number of
threads, and our peak memory per Gaussian. FILE.py is yours; it defines `peers()`, which returns {name: object} with

    forward(scene) -> image [H, W, 3]
    forward_backward(scene, v) -> (image, {"means", "quats", "scales", "opacities", "colors": gradient})

where scene holds these five, viewmat, K, width and height. If the object has `phases`, {name: seconds} of its last call, those
of its best run are kept. Peers are no part of this repository; these are worth racing:

OpenSplat: `rasterizer/gsplat-cpu/gsplat_cpu.cpp` alone as a PyTorch extension, with the flags of its release build (-O3
-DNDEBUG) and again with -march=native; `project_gaussians_forward_tensor_cpu` under autograd, then
`rasterize_forward_tensor_cpu` and `rasterize_backward_tensor_cpu`. Right results need three things: `.contiguous()` on its
depths (a strided view that it reads as contiguous), near 1 and far 10 in the projection matrix (with its own 0.001 and 1000
depths tie in float32), and twice its gradient of the conic's off-diagonal. The lists it keeps per pixel are freed within the
clock.

gsplat: `_fully_fused_projection` and `accumulate` of `gsplat/cuda/_torch_impl.py`, unchanged. What finds the contributing pairs
is CUDA: they are found once a scene, outside the clock, so its times are lower bounds. nerfacc's weights are CUDA too: they
become a segmented exclusive product in PyTorch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import runpy
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import keep, say

NAMES = ("means", "quats", "scales", "opacities", "colors")
LOG_SCALES = {10_000: (-4.6, -3.0), 100_000: (-5.5, -3.9), 1_000_000: (-6.4, -4.8)}
MODES = ("forward", "forward + backward")
Scene = dict[str, Any]


def make_scene(count: int, size: int) -> tuple[Scene, torch.Tensor]:
    """Scene of `count` Gaussians seen at size x size pixels, and the cotangent of its image [size, size, 3]."""
    make_input = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "parity" / "fill.py"))["make_input"]

    def given(name: str, shape: tuple[int, ...], *bounds: float) -> torch.Tensor:
        return torch.from_numpy(make_input(f"bench/{name}", shape, *bounds))

    view = torch.eye(4)
    view[2, 3] = 3.0
    scene = {
        "means": given(f"{count}/means", (count, 3), -1, 1),
        "quats": given(f"{count}/quats", (count, 4)),
        "scales": given(f"{count}/log_scales", (count, 3), *LOG_SCALES[count]).exp(),
        "opacities": torch.sigmoid(1.5 * given(f"{count}/opacity_logits", (count,)) + 0.5),
        "colors": given(f"{count}/colors", (count, 3), 0, 1),
        "viewmat": view,
        "K": torch.tensor([[size, 0.0, size / 2], [0.0, size, size / 2], [0.0, 0.0, 1.0]]),
        "width": size,
        "height": size,
    }
    return scene, given("v", (size, size, 3))


class Ours:
    """mixtura-splat as a contender."""

    def image(self, scene: Scene, leaves: list[torch.Tensor]) -> torch.Tensor:
        import mixtura_splat

        cameras = scene["viewmat"][None], scene["K"][None], scene["width"], scene["height"]
        image: torch.Tensor = mixtura_splat.rasterize(*leaves[:4], *cameras, colors=leaves[4]).image[0]
        return image

    def forward(self, scene: Scene) -> torch.Tensor:
        with torch.no_grad():
            return self.image(scene, [scene[name] for name in NAMES])

    def forward_backward(self, scene: Scene, v: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        leaves = [scene[name].detach().requires_grad_() for name in NAMES]
        image = self.image(scene, leaves)
        return image.detach(), dict(zip(NAMES, torch.autograd.grad(image, leaves, v), strict=True))


def timed(contender: Any, mode: str, scene: Scene, v: torch.Tensor) -> tuple[float, Any]:
    """Seconds and result of one call of the contender."""
    begin = time.perf_counter()
    result = contender.forward(scene) if mode == MODES[0] else contender.forward_backward(scene, v)
    return time.perf_counter() - begin, result


class Race:
    """All contenders over all scenes; who is too slow for one scene is left out of the larger ones."""

    def __init__(self, contenders: dict[str, Any], repeats: int, budget: float) -> None:
        self.contenders, self.repeats, self.budget = contenders, repeats, budget
        self.out: dict[tuple[str, str, int], tuple[int, int, str]] = {}

    def first(self, mode: str, scene: Scene, v: torch.Tensor) -> tuple[dict[str, Any], dict[str, str]]:
        """Results of the uncounted first runs, and why who is left out."""
        results, left_out = {}, {}
        count, size = len(scene["means"]), scene["width"]
        for name, contender in self.contenders.items():
            key = name, mode, torch.get_num_threads()
            points, pixels, why = self.out.get(key, (count + 1, 0, ""))
            if count < points or size < pixels:
                try:
                    seconds, results[name] = timed(contender, mode, scene, v)
                    why = f"skipped: {seconds:.0f} s at {count:,}, {size}²" if seconds > self.budget and name != "ours" else ""
                except (MemoryError, RuntimeError) as problem:
                    if name == "ours":
                        raise
                    why = f"failed at {count:,}, {size}²: {problem}"
            if why:
                results.pop(name, None)
                left_out[name] = why
                self.out.setdefault(key, (count, size, why))
        return results, left_out

    def run(self, mode: str, scene: Scene, v: torch.Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rows by contender, and the result of its first run."""
        results, left_out = self.first(mode, scene, v)
        times: dict[str, list[float]] = {name: [] for name in results}
        rows: dict[str, Any] = {name: {"left_out": why} for name, why in left_out.items()}
        names = list(results)
        for turn in range(self.repeats):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                times[name].append(timed(self.contenders[name], mode, scene, v)[0])
                if times[name][-1] == min(times[name]):
                    phases = getattr(self.contenders[name], "phases", {})
                    rows[name] = {"best_ms": 1e3 * times[name][-1], "phases_ms": {k: 1e3 * s for k, s in phases.items()}}
        for name in names:
            rows[name]["median_ms"] = 1e3 * statistics.median(times[name])
            rows[name]["ratio"] = rows[name]["best_ms"] / rows["ours"]["best_ms"]
        return rows, results


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    """||a - b|| / ||b|| in float64."""
    return float((a.double() - b.double()).norm() / b.double().norm())


def agreement(results: dict[str, Any]) -> dict[str, Any]:
    """How far peers' images and gradients are from ours."""
    image, grads = results["ours"]
    return {
        name: {
            "image": error(other, image),
            "image_mean_abs": float((other - image).abs().mean()),
            "gradients": {key: error(theirs[key], grads[key]) for key in NAMES},
        }
        for name, (other, theirs) in results.items()
        if name != "ours"
    }


def memory(count: int, size: int) -> dict[str, float | None]:
    """Peak bytes per Gaussian beyond the inputs, of ours in a process of its own. Needs Linux; None elsewhere."""
    if not Path("/proc/self/clear_refs").exists():
        return dict.fromkeys(MODES)
    command = [sys.executable, __file__, "--memory", str(count), str(size)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {mode: grown / count for mode, grown in json.loads(done.stdout.splitlines()[-1]).items()}


def measure_memory(count: int, size: int) -> None:
    """Growth of resident memory by one forward, then by one forward and backward: what `memory` calls."""
    ours, (scene, v) = Ours(), make_scene(count, size)
    small = scene | {name: scene[name][:64] for name in NAMES}
    ours.forward_backward(small | {"width": 16, "height": 16}, v[:16, :16].contiguous())

    def resident(field: str) -> int:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
        return 1024 * int(line.split()[1])

    before, grown = resident("VmRSS"), {}
    for mode in MODES:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
        timed(ours, mode, scene, v)
        grown[mode] = resident("VmHWM") - before
    say(json.dumps(grown))


def cell(row: dict[str, Any]) -> str:
    """Times and ratio of one contender."""
    return row.get("left_out") or f"{row['best_ms']:.1f} ({row['median_ms']:.1f}), {row['ratio']:.1f}x"


def line(*cells: object, head: bool = False) -> None:
    """A line of a table, with the rule below if it is the head."""
    say("| " + " | ".join(map(str, cells)) + " |" + ("\n|" + " --- |" * len(cells) if head else ""))


def main() -> None:
    """Race, compare, measure memory, print tables, write results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peers", help="Python file that defines peers()")
    parser.add_argument("--points", type=int, nargs="+", default=list(LOG_SCALES), choices=list(LOG_SCALES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds; a peer whose first run takes longer is left out")
    parser.add_argument("--memory", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        return measure_memory(*given.memory)
    contenders = {"ours": Ours()} | (runpy.run_path(given.peers)["peers"]() if given.peers else {})
    race, times, scenes = Race(contenders, given.repeats, given.budget), [], []
    say(f"Milliseconds, best (median) of {given.repeats}, and best over our best.\n")
    line("Gaussians", "image", "threads", "what", *contenders, head=True)
    for count, size in itertools.product(given.points, given.sizes):
        scene, v = make_scene(count, size)
        facts: dict[str, Any] = {"points": count, "size": size, "same_bits": True, "agreement": {}}
        ours = None
        for threads in given.threads:
            torch.set_num_threads(threads)
            for mode in MODES:
                rows, results = race.run(mode, scene, v)
                times.append({"points": count, "size": size, "threads": threads, "what": mode, "contenders": rows})
                line(f"{count:,}", f"{size}²", threads, mode, *(cell(rows[name]) for name in contenders))
            facts["agreement"] |= agreement(results)
            image, grads = results["ours"]
            ours = ours or (image, grads)
            facts["same_bits"] &= torch.equal(image, ours[0]) and all(torch.equal(grads[n], ours[1][n]) for n in NAMES)
        scenes.append(facts | {"bytes_per_gaussian": memory(count, size)})
    say("\nOurs: peak bytes per Gaussian beyond the inputs. Peers: relative and mean absolute difference of images to ours.\n")
    peers = [name for name in contenders if name != "ours"]
    line("Gaussians", "image", "same bits for all threads", *MODES, *peers, head=True)
    for facts in scenes:
        grown = ["?" if x is None else f"{x:.0f}" for x in facts["bytes_per_gaussian"].values()]
        near = [facts["agreement"].get(name) for name in peers]
        images = [f"{a['image']:.1e}, {a['image_mean_abs']:.1e}" if a else "-" for a in near]
        line(f"{facts['points']:,}", f"{facts['size']}²", "yes" if facts["same_bits"] else "NO", *grown, *images)
    keep("splat_cpu", {"repeats": given.repeats, "times": times, "scenes": scenes})


if __name__ == "__main__":
    main()
