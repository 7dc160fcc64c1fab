"""Reconstruct three objects and three furnished rooms from posed renders with mixtura-splat's `fit`, and measure views held out.

    python benchmarks/splat_fit.py [--size 128] [--views 96] [--held-out 12] [--steps 6000] [--threads 2] [--peer gsplat]

Scenes are those of mixtura_diffusion_gs.furniture (Debian's sweethome3d-furniture and embreex). With a GPU, `--peer gsplat` fits
the same images from the same starting points with gsplat's `rasterization` and its own DefaultStrategy and learning rates, for
the same number of steps. Prints a table (PSNR, SSIM, seconds, Gaussians) and writes results/splat_fit.json, or
splat_fit_cuda.json on a GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from typing import Any

import torch
from common import keep, say

from mixtura_diffusion_gs.furniture.scenes import OBJECTS, ROOMS, Scene, object_scene, posed_views, room_scene
from mixtura_splat.fit import FitConfig, camera_extent, fit, points_from_views, psnr
from mixtura_splat.gaussians import Gaussians
from mixtura_splat.posed_images import Views
from mixtura_splat.ssim import ssim


def views_of(scene: Scene, count: int, size: int, split: str) -> Views:
    """Renders of a scene; objects with a mask, and without the white that shines through it."""
    data = {name: torch.from_numpy(array) for name, array in posed_views(scene, count, size, split).items()}
    images, alphas = data["images"], data["alphas"] if not scene.is_room else None
    if alphas is not None:
        images = ((images - (1 - alphas[..., None])) / alphas[..., None].clamp(min=1 / 255)).clamp(0, 1)
    return Views(images, data["viewmats"], data["Ks"], alphas)


def quality(scene: Gaussians, views: Views, mode: str) -> dict[str, float]:
    """PSNR [dB] and SSIM on `views`, over white where there are masks."""
    each = psnr(scene, views, antialiased=mode == "antialiased")
    h, w = views.images.shape[1:3]
    white = None if views.alphas is None else torch.ones(3, device=views.images.device)
    target = views.images
    if views.alphas is not None:
        target = target * views.alphas[..., None] + 1 - views.alphas[..., None]
    with torch.no_grad():
        image = scene.render(views.viewmats, views.ks, w, h, background=white, mode=mode).image
        return {"psnr": float(each.mean()), "psnr_worst": float(each.min()), "ssim": float(ssim(image, target))}


def ours(train: Views, config: FitConfig) -> tuple[Gaussians, float]:
    """The fitted scene and the seconds it took."""
    began = time.perf_counter()
    scene = fit(train, config)
    if train.images.is_cuda:
        torch.cuda.synchronize()
    return scene, time.perf_counter() - began


def gsplat(train: Views, config: FitConfig) -> tuple[Gaussians, float]:
    """The same by gsplat with its default strategy (its simple trainer's learning rates, scaled by the cameras' extent)."""
    from gsplat import rasterization
    from gsplat.strategy import DefaultStrategy

    device = train.images.device
    generator = torch.Generator().manual_seed(config.seed)
    points, colors = points_from_views(train.to("cpu"), config.start, generator)
    _, extent = camera_extent(train.viewmats)
    n, k = config.start, (config.sh_degree + 1) ** 2
    spread = (points.quantile(0.95, 0) - points.quantile(0.05, 0)).clamp(min=1e-6)
    start = {
        "means": (points, 1.6e-4 * extent),
        "scales": (torch.full((n, 3), float((spread.prod() / n) ** (1 / 3))).log(), 5e-3),
        "quats": (torch.rand(n, 4, generator=generator), 1e-3),
        "opacities": (torch.logit(torch.full((n,), 0.1)), 5e-2),
        "sh0": (((colors - 0.5) / 0.28209479177387814)[:, None], 2.5e-3),
        "shN": (torch.zeros(n, k - 1, 3), 2.5e-3 / 20),
    }
    params = torch.nn.ParameterDict({name: torch.nn.Parameter(value.to(device)) for name, (value, _) in start.items()})
    optimizers = {name: torch.optim.Adam([params[name]], lr=rate, eps=1e-15) for name, (_, rate) in start.items()}
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizers["means"], 0.01 ** (1 / config.steps))
    strategy = DefaultStrategy(refine_stop_iter=config.steps // 2, reset_every=max(1000, config.steps // 4))
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state(scene_scale=extent)
    h, w = train.images.shape[1:3]
    device_generator = torch.Generator(device).manual_seed(config.seed)
    began = time.perf_counter()
    for step in range(config.steps):
        i = torch.randint(len(train.images), (config.views_per_step,), generator=generator).to(device)
        background, target = None, train.images[i]
        if train.alphas is not None:
            background = torch.rand(len(i), 3, generator=device_generator, device=device)
            alpha = train.alphas[i][..., None]
            target = target * alpha + background[:, None, None] * (1 - alpha)
        image, _, info = rasterization(
            params["means"], params["quats"], params["scales"].exp(), params["opacities"].sigmoid(),
            torch.cat([params["sh0"], params["shN"]], 1), train.viewmats[i], train.ks[i], w, h,
            sh_degree=min(config.sh_degree, step // config.sh_every), backgrounds=background, packed=False,
        )  # fmt: skip
        strategy.step_pre_backward(params, optimizers, state, step, info)
        loss = (1 - config.ssim_weight) * (image - target).abs().mean() + config.ssim_weight * (1 - ssim(image, target))
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        decay.step()
        strategy.step_post_backward(params, optimizers, state, step, info, packed=False)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    p = {name: value.detach() for name, value in params.items()}
    sh = torch.cat([p["sh0"], p["shN"]], 1)
    return Gaussians(p["means"], p["quats"], p["scales"].exp(), p["opacities"].sigmoid(), sh), seconds


def main() -> int:
    """Fit every scene and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("size", 128), ("views", 96), ("held-out", 12), ("steps", FitConfig.steps), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--scenes", nargs="*", default=[*OBJECTS, *map(str, ROOMS)], help="model names, or seeds of rooms")
    parser.add_argument("--peer", choices=["gsplat"])
    chosen = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if chosen.peer and device == "cpu":
        parser.error("gsplat needs a GPU, and there is none")
    torch.set_num_threads(chosen.threads)
    config = replace(FitConfig(), steps=chosen.steps)
    methods: dict[str, tuple[Any, str]] = {"mixtura-splat": (ours, "antialiased")}
    if chosen.peer:
        methods["gsplat default"] = (gsplat, "classic")
    rows: list[dict[str, Any]] = []
    say("| scene | method | PSNR dB (worst view) | SSIM | seconds | Gaussians |\n| --- | --- | ---: | ---: | ---: | ---: |")
    for name in chosen.scenes:
        scene = room_scene(int(name)) if name.isdigit() else object_scene(name)
        train = views_of(scene, chosen.views, chosen.size, "train").to(device)
        held = views_of(scene, chosen.held_out, chosen.size, "held_out").to(device)
        for method, (run, mode) in methods.items():
            result, seconds = run(train, config)
            row = {"scene": scene.name, "method": method, "seconds": seconds, "gaussians": len(result)}
            row |= quality(result, held, mode)
            rows.append(row)
            figures = f"{row['psnr']:.2f} ({row['psnr_worst']:.2f}) | {row['ssim']:.4f} | {seconds:.0f} | {len(result):,}"
            say(f"| {scene.name} | {method} | {figures} |")
    settings = {key: value for key, value in vars(chosen).items() if key != "scenes"}
    keep("splat_fit_cuda" if device == "cuda" else "splat_fit", {"settings": settings, "device": device, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
