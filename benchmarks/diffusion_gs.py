"""DiffusionGS beside the public re-implementation: same weights, same inputs; how far outputs are, and seconds a denoising step.

    python benchmarks/diffusion_gs.py [--peer FOLDER] [--sizes small middle published] [--kinds object scene] [--repeats 5]
        [--threads 2] [--views 64 128 256] [--compile]

FOLDER is a checkout of caiyuanhao1998/Open-DiffusionGS (commit 216af4f was used), which is no part of this repository and has no
licence to be; it needs timm 0.9.16, einops, easydict, omegaconf, jaxtyping and typeguard. What it imports besides and a step
doesn't use (xformers, Lightning, its CUDA rasteriser) is replaced by empty modules while it is imported. Without FOLDER only ours
is measured. A step is what the network does between pictures with their rays and the parameters of all Gaussians, without
gradients; both get one picture and three noisy views. Contenders take turns in one process, the first run of each isn't
counted; bfloat16 (autocast) is measured where the processor multiplies it.

Then the seconds of a rendered view. The peer's rasteriser is CUDA only, so there ours stands beside plain PyTorch
(mixtura_splat.reference). Drawn is what a trained network gives: a Gaussian for every pixel of four views of a ball, as wide as
the pixel, all but clear where the ball isn't. Prints tables, writes results/diffusion_gs.json.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.abc
import importlib.machinery
import runpy
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from common import keep, middle, say
from torch import Tensor, nn

from mixtura_diffusion_gs.cameras import nearest, orbit, rays
from mixtura_diffusion_gs.config import Kind
from mixtura_diffusion_gs.gaussians import DepthRule, RawGaussians, assemble, into_order
from mixtura_diffusion_gs.nets.denoiser import Denoiser, Sizes, network_input
from mixtura_diffusion_gs.published_files import to_ours, to_published
from mixtura_splat import backend

FILL = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "parity" / "fill.py"))
SIZES = {"small": (256, 6, 64), "middle": (512, 12, 128), "published": (1024, 24, 256)}
"""Width, blocks and pixels along a side; heads have 64 channels, patches 8 x 8 pixels."""
SLOWEST = 20.0
"""Seconds of a view from which on plain PyTorch is left out."""
REGISTERED: dict[Kind, str] = {"object": "diffusion-gs-model", "scene": "diffusion-gs-model-scene"}
ENCODINGS: dict[Kind, str] = {"object": "reference", "scene": "pluecker"}
RULES: dict[Kind, DepthRule] = {"object": DepthRule("centred"), "scene": DepthRule("range")}
NEEDED = ("timm", "einops", "easydict", "omegaconf", "jaxtyping", "typeguard")
UNUSED = ("diffusionGS.data", "diffusionGS.systems", "diffusionGS.models.scheduler", "diffusionGS.models.gsrenderer")
OUTSIDE = ("pytorch_lightning", "torchvision", "xformers")
"""What the peer imports and a step doesn't use: parts of itself, and packages, blank where they aren't installed."""
Step = Callable[[], dict[str, Tensor]]


# -- the two networks ---------------------------------------------------------------------------------------------
class Anything(type(nn.Module)):  # type: ignore[misc]
    """Classes that have whatever is asked of them, none of which does anything."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (nn.Module,), {"__init__": lambda self, *_, **__: nn.Module.__init__(self)})


class Blank(types.ModuleType):
    """A module with such classes."""

    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(Anything("Root", (nn.Module,), {}), name)


class Blanks(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds blank modules wherever the name begins with one of `names`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        mine = any(name == own or name.startswith(own + ".") for own in self.names)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if mine else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = Blank(spec.name)
        if spec.name.endswith("rank_zero"):
            module.rank_zero_only = lambda function: function  # a decorator
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def load_peer(folder: Path) -> Callable[[str, dict[str, Any]], nn.Module]:
    """A function that builds the peer's network of a registered name from its settings."""
    missing = [name for name in NEEDED if not find_spec(name)]
    if missing or not (folder / "diffusionGS").is_dir():
        raise SystemExit(
            f"the peer needs: pip install {' '.join(missing)}" if missing else f"{folder}: has no folder diffusionGS"
        )
    sys.meta_path.insert(0, Blanks([*UNUSED, *(name for name in OUTSIDE if not find_spec(name))]))
    sys.path.insert(0, str(folder))
    find = importlib.import_module("diffusionGS").find
    return lambda name, settings: find(name)(settings)


def build(kind: Kind, width: int, layers: int, make_peer: Any) -> tuple[Denoiser, nn.Module | None]:
    """Our network and the peer's with the same filling, by published names and shapes."""
    sizes = Sizes(width, layers, 64, 8, 2, 0)
    with torch.device("meta"):
        ours = Denoiser(sizes, [kind])
    shapes = {name: tensor.shape for name, tensor in to_published(ours.state_dict(), kind).items()}
    weights = {name: torch.from_numpy(FILL["param_value"](name, tuple(shape))) for name, shape in shapes.items()}
    ours.load_state_dict(to_ours(weights, kind), assign=True)
    if make_peer is None:
        return ours.eval(), None
    settings: dict[str, Any] = {"width": width, "in_channels": 9, "patch_size": 8, "dim_heads": 64, "num_layers": layers}
    if kind == "scene":
        settings["ray_pe_type"] = "plk"
    peer: nn.Module = make_peer(REGISTERED[kind], settings)
    peer.load_state_dict(weights, strict=True)
    return ours.eval(), peer.eval()


def steps_of(kind: Kind, ours: Denoiser, peer: nn.Module | None, size: int, is_compiled: bool) -> dict[str, Step]:
    """{contender: one denoising step}, all from the same pictures, cameras and time."""
    c2w, lenses = orbit([0, 90, 180, 270], [20.0] * 4, 3.0, 39.6, size)
    origins, directions = (value.contiguous() for value in rays(c2w[None], lenses[None], size, size))
    clean, noise = (
        torch.from_numpy(FILL["make_input"](f"bench/{n}", (1, v, 3, size, size))) for n, v in (("one", 1), ("rest", 3))
    )
    images, t = torch.cat([clean.sigmoid(), noise], 1), torch.tensor([437])

    def step(network: Any) -> dict[str, Tensor]:
        free, pixels = network(network_input(images, origins, directions, ENCODINGS[kind]), t)
        raw, points = assemble(free, pixels, origins, directions, [RULES[kind]], ours.sizes)
        return {**raw._asdict(), "points": points}

    def of_peer() -> dict[str, Tensor]:
        assert peer is not None
        found, points = peer.image_to_gaussians(images, origins, directions, t)
        return {**{name: found[name] for name in RawGaussians._fields}, "points": points}

    steps: dict[str, Step] = {"ours": lambda: step(ours)}
    if is_compiled:
        compiled = torch.compile(ours)
        steps["ours, compiled"] = lambda: step(compiled)
    if peer is not None:
        steps["Open-DiffusionGS"] = of_peer
    return steps


# -- measuring ----------------------------------------------------------------------------------------------------
def take_turns(steps: dict[str, Step], repeats: int, dtype: torch.dtype) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every contender, and the results of the first runs, which aren't counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    results: dict[str, Any] = {}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            half = nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)
            with torch.no_grad(), half:
                begin = time.perf_counter()
                result = step()
                passed = time.perf_counter() - begin
            if turn == 0:
                results[name] = result
            else:
                seconds[name].append(passed)
    return seconds, results


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest relative error of any quantity."""
    return max(FILL["compare"](one[name].float(), other[name].float(), name) for name in one)


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 by itself."""
    try:
        return "bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def race(name: str, kind: Kind, make_peer: Any, repeats: int, is_compiled: bool) -> list[dict[str, Any]]:
    """One row for every contender and precision."""
    width, layers, size = SIZES[name]
    ours, peer = build(kind, width, layers, make_peer)
    steps, rows, exact = steps_of(kind, ours, peer, size, is_compiled), [], None
    for dtype in (torch.float32, *([torch.bfloat16] if has_bfloat16() else [])):
        seconds, results = take_turns(steps, repeats, dtype)
        exact = exact or results["ours"]
        for contender, values in seconds.items():
            row = {"size": name, "kind": kind, "width": width, "blocks": layers, "pixels": size, "precision": str(dtype)[6:]}
            row |= {"method": contender, "seconds": middle(values), "fastest": min(values), "repeats": repeats}
            row["from ours, float32"] = furthest(results[contender], exact)
            row["ours / it"] = middle(seconds["ours"]) / middle(values)
            rows.append(row)
            say(
                f"| {name}: {width} wide, {layers} blocks, {size}² | {kind} | {row['precision']} | {contender} | "
                f"{row['seconds']:.3f} | {row['ours / it']:.2f} | {row['from ours, float32']:.1e} |"
            )
    return rows


def ball(size: int) -> tuple[RawGaussians, Tensor, Tensor]:
    """Gaussians of four views' pixels on a ball of radius 0.8, and the cameras (1, 4, 4, 4), (1, 4, 4)."""
    c2w, lenses = (value[None] for value in orbit([0, 90, 180, 270], [20.0] * 4, 3.0, 39.6, size))
    origins, directions = rays(c2w, lenses, size, size)
    k = nearest(origins, directions)
    away = (origins + k * directions).square().sum(2, keepdim=True)
    hit = away < 0.64
    depth = k - (0.64 - away).clamp(min=0).sqrt()
    values = [
        origins + depth * directions,  # centres
        0.5 * directions,  # some colour
        (depth / lenses[..., None, None, None, 0]).clamp(min=1e-4).log().expand_as(directions) - 0.7,
        torch.ones_like(directions[:, :, :1]).expand(-1, -1, 4, -1, -1),
        torch.where(hit, 2.0, -8.0),
    ]
    xyz, colour, scaling, rotation, opacity = (into_order(value.contiguous(), 8) for value in values)
    return RawGaussians(xyz, colour[:, :, None], scaling, rotation, opacity), c2w, lenses


def views(size: int, repeats: int) -> dict[str, Any]:
    """Seconds of a view for ours and plain PyTorch, and how far their pictures are from each other."""
    from mixtura_diffusion_gs.cameras import matrices, viewmats

    raw, c2w, lenses = ball(size)
    scene = raw.scene(0)
    row: dict[str, Any] = {"pixels": size, "gaussians": len(scene)}

    def draw(has_kernels: bool) -> dict[str, Tensor]:
        cameras = viewmats(c2w[0, 1]), matrices(lenses[0, 1])
        return {"image": scene.render(*cameras, size, size, background=torch.ones(3), kernels=has_kernels).image}

    images = {}
    for method, has_kernels, times in (("ours", True, max(repeats, 5)), ("plain PyTorch", False, repeats)):
        if has_kernels and not backend.wants_kernels(raw.xyz, None):
            continue
        seconds, result = take_turns({method: lambda k=has_kernels: draw(k)}, 1, torch.float32)
        if seconds[method][0] < SLOWEST and times > 1:
            seconds, result = take_turns({method: lambda k=has_kernels: draw(k)}, times, torch.float32)
        images[method], row[method] = result[method], statistics.median(seconds[method])
        if seconds[method][0] >= SLOWEST:
            break
    if len(images) == 2:
        row["difference"] = furthest(images["ours"], images["plain PyTorch"])
    return row


def main() -> int:
    """Race and draw, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, metavar="FOLDER")
    parser.add_argument("--sizes", nargs="*", default=["small", "middle"], choices=list(SIZES))
    parser.add_argument("--kinds", nargs="*", default=["object", "scene"], choices=list(REGISTERED))
    parser.add_argument("--views", nargs="*", type=int, default=[64, 128], help="sizes of rendered views")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile as well")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    make_peer = load_peer(chosen.peer.resolve()) if chosen.peer else None
    say("| size | kind | precision | method | seconds a step | ours / it | from ours, float32 |")
    say("| --- | --- | --- | --- | ---: | ---: | ---: |")
    rows: list[dict[str, Any]] = []
    for size in chosen.sizes:
        for kind in chosen.kinds:
            rows += race(size, kind, make_peer, chosen.repeats, chosen.compile)
    say("\n| view | Gaussians | ours, s | plain PyTorch, s | difference |\n| --- | ---: | ---: | ---: | ---: |")
    drawn = []
    for size in chosen.views:
        row = views(size, chosen.repeats)
        drawn.append(row)
        shown = [f"{row[name]:.3g}" if name in row else "" for name in ("ours", "plain PyTorch", "difference")]
        say(f"| {size}² | {row['gaussians']:,} | {' | '.join(shown)} |")
    keep("diffusion_gs", {"threads": chosen.threads, "steps": rows, "views": drawn})
    return 0


if __name__ == "__main__":
    sys.exit(main())
