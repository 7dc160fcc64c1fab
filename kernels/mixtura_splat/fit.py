"""Reconstruct a scene from posed images: `fit(views, config)`, or `python -m mixtura_splat.fit DATA --out scene.ply`.

Loss: (1 - w) L1 + w (1 - SSIM), plus small pulls on opacity and size that free Gaussians nobody needs. Densification by
relocation (mcmc.py). Deterministic on a CPU for a seed, whatever the number of threads.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mixtura_splat import mcmc
from mixtura_splat.gaussians import Gaussians
from mixtura_splat.posed_images import Views, load_transforms
from mixtura_splat.rasterize import rasterize
from mixtura_splat.ssim import ssim

SH0 = 0.28209479177387814


@dataclass(frozen=True)
class FitConfig:
    """Learning rates are per step of Adam; lengths are relative to the extent of the cameras."""

    steps: int = 6000
    most: int = 20_000
    """Bound on the number of Gaussians."""
    start: int = 5_000
    views_per_step: int = 1
    sh_degree: int = 2
    """Directional colour, one degree more every `sh_every` steps."""
    sh_every: int = 500
    rate_means: float = 5e-4
    rate_means_end: float = 5e-6
    rate_scales: float = 5e-3
    rate_quats: float = 1e-3
    rate_opacities: float = 5e-2
    rate_colors: float = 2.5e-3
    ssim_weight: float = 0.2
    opacity_weight: float = 0.01
    scale_weight: float = 0.01
    noise: float = 5e5
    relocate_from: int = 200
    relocate_every: int = 100
    relocate_until: float = 0.85
    """As a share of the steps."""
    growth: float = 0.05
    """Share of Gaussians added each time, until there are `most`."""
    antialiased: bool = True
    seed: int = 17

    def __post_init__(self) -> None:
        if not (self.steps > 0 and 0 < self.start <= self.most and self.views_per_step > 0 and 0 <= self.sh_degree <= 4):
            raise ValueError("FitConfig: steps > 0, 0 < start <= most, views_per_step > 0 and sh_degree 0 to 4 are needed")


@dataclass(frozen=True)
class Progress:
    """What `report` gets now and then."""

    step: int
    loss: float
    gaussians: int
    seconds: float


def camera_extent(viewmats: Tensor) -> tuple[Tensor, float]:
    """viewmats [V,4,4] -> mean camera centre [3], and 1.1 times the largest distance from it (at least 1e-3)."""
    centres = -torch.linalg.solve(viewmats[:, :3, :3], viewmats[:, :3, 3:])[..., 0]
    centre = centres.mean(0)
    return centre, max(1e-3, 1.1 * float((centres - centre).norm(dim=-1).max()))


def candidates(views: Views, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random pixels (inside the masks, where there are masks) pushed out to random depths: positions [count,3], colours."""
    _, extent = camera_extent(views.viewmats)
    v, h, w, _ = views.images.shape
    pixel = torch.randint(v * h * w, (count,), generator=generator).to(views.images.device)
    if views.alphas is not None:
        inside = (views.alphas.flatten() > 0.5).nonzero()[:, 0]
        if len(inside):
            pixel = inside[pixel % len(inside)]
    view, row, column = pixel // (h * w), pixel // w % h, pixel % w
    depth = extent * (0.2 + 2.0 * torch.rand(count, generator=generator).to(pixel.device))
    k, pose = views.ks[view], views.viewmats[view]
    x = (column + 0.5 - k[:, 0, 2]) / k[:, 0, 0] * depth
    y = (row + 0.5 - k[:, 1, 2]) / k[:, 1, 1] * depth
    local = torch.stack([x, y, depth], -1) - pose[:, :3, 3]
    return torch.linalg.solve(pose[:, :3, :3], local[..., None])[..., 0], views.images[view, row, column]


def disagreement(views: Views, points: Tensor, colors: Tensor) -> Tensor:
    """How badly each point [P,3] of a colour [P,3] fits the images: [P], smaller is better.

    The median over the views that see the point of the colour distance there; infinite for points that fewer than 3 views
    see, or that lie outside of a mask.
    """
    v, h, w, _ = views.images.shape
    errors = torch.full((v, len(points)), torch.nan, device=points.device)
    outside = torch.zeros(len(points), device=points.device)
    for i in range(v):
        p = points @ views.viewmats[i, :3, :3].T + views.viewmats[i, :3, 3]
        image = p @ views.ks[i].T
        column, row = (image[:, :2] / image[:, 2:]).floor().unbind(-1)
        seen = (p[:, 2] > 0.01) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
        at = torch.where(seen, row * w + column, 0).long()
        error = (views.images[i].flatten(0, 1)[at] - colors).abs().sum(-1)
        errors[i] = torch.where(seen, error, torch.nan)
        if views.alphas is not None:
            outside += seen & (views.alphas[i].flatten()[at] < 0.5)
    few = (~errors.isnan()).sum(0) < min(3, v)
    return torch.where(few | (outside > 0.02 * v), torch.inf, errors.nanmedian(0).values)


def points_from_views(views: Views, count: int, generator: torch.Generator, tries: int = 20) -> tuple[Tensor, Tensor]:
    """Starting points [count,3] and colours [count,3]: of `tries` times as many candidates, those the views agree on most."""
    points, colors = candidates(views, tries * count, generator)
    best = disagreement(views, points, colors).argsort(stable=True)[:count]
    return points[best], colors[best]


class Trainee:
    """Parameters and optimizer of a scene being fitted; both follow when Gaussians move or are added."""

    def __init__(self, views: Views, config: FitConfig, generator: torch.Generator) -> None:
        _, self.extent = camera_extent(views.viewmats)
        points, colors = points_from_views(views, config.start, generator)
        n = config.start
        spread = (points.quantile(0.95, 0) - points.quantile(0.05, 0)).clamp(min=1e-6)
        spacing = float(spread.prod().double() / n) ** (1 / 3)
        k = (config.sh_degree + 1) ** 2
        start = {
            "means": points,
            "quats": torch.randn(n, 4, generator=generator),
            "log_scales": torch.full((n, 3), math.log(0.5 * spacing)),
            "logits": torch.zeros(n),
            "sh0": ((colors - 0.5) / SH0)[:, None],
            "sh_rest": torch.zeros(n, k - 1, 3),
        }
        rates = {
            "means": config.rate_means * self.extent,
            "quats": config.rate_quats,
            "log_scales": config.rate_scales,
            "logits": config.rate_opacities,
            "sh0": config.rate_colors,
            "sh_rest": config.rate_colors / 20,
        }
        device = views.images.device
        self.parameters = {name: value.to(device).requires_grad_() for name, value in start.items()}
        groups = [{"params": [p], "lr": rates[name], "name": name} for name, p in self.parameters.items()]
        self.optimizer = torch.optim.Adam(groups, eps=1e-15, betas=(0.9, 0.999), fused=True)

    def gaussians(self) -> Gaussians:
        """The scene as it is, detached."""
        p = {name: value.detach() for name, value in self.parameters.items()}
        return Gaussians(
            p["means"], p["quats"], p["log_scales"].exp(), p["logits"].sigmoid(), torch.cat([p["sh0"], p["sh_rest"]], 1)
        )

    def replace(self, name: str, value: Tensor, fresh: Tensor, kept: int) -> None:
        """Give parameter `name` a new value; Adam's averages of rows `fresh` and of rows past `kept` start at zero."""
        old = self.parameters[name]
        new = value.requires_grad_()
        state = self.optimizer.state.pop(old, None)
        if state:
            for key in ("exp_avg", "exp_avg_sq"):
                average = torch.zeros_like(new)
                average[:kept] = state[key]
                average[fresh] = 0
                state[key] = average
            self.optimizer.state[new] = state
        group = next(g for g in self.optimizer.param_groups if g["name"] == name)
        group["params"] = [new]
        self.parameters[name] = new

    @torch.no_grad()
    def relocate(self, generator: torch.Generator) -> None:
        """Move the faded Gaussians onto opaque ones."""
        opacities = self.parameters["logits"].sigmoid()
        dead = (opacities < mcmc.DEAD).nonzero()[:, 0]
        if 0 < len(dead) < len(opacities):
            self._copy(mcmc.draw_onto(opacities, len(dead), generator), dead)

    @torch.no_grad()
    def grow(self, share: float, most: int, generator: torch.Generator) -> None:
        """Add Gaussians on top of opaque ones."""
        n = len(self.parameters["means"])
        count = min(int(share * n), most - n)
        if count > 0:
            onto = mcmc.draw_onto(self.parameters["logits"].sigmoid(), count, generator)
            self._copy(onto, torch.arange(n, n + count, device=onto.device))

    def _copy(self, onto: Tensor, to: Tensor) -> None:
        p = {name: value.detach().clone() for name, value in self.parameters.items()}
        n = len(p["means"])
        copies = torch.bincount(onto, minlength=n) + 1
        chosen = torch.unique(onto)
        opacity, scale = mcmc.split_opacity_scale(p["logits"][chosen].sigmoid(), p["log_scales"][chosen].exp(), copies[chosen])
        p["logits"][chosen] = torch.logit(opacity.clamp(mcmc.DEAD, 1 - 1e-6))
        p["log_scales"][chosen] = scale.log()
        grown = int(to.max()) + 1
        for name, value in p.items():
            if grown > n:
                value = torch.cat([value, value.new_zeros(grown - n, *value.shape[1:])])
            value[to] = value[onto]
            self.replace(name, value, torch.cat([chosen, to]), n)

    @torch.no_grad()
    def wander(self, strength: float, generator: torch.Generator) -> None:
        """Noise on the means, scaled by their current learning rate."""
        p = self.parameters
        rate = self.optimizer.param_groups[0]["lr"]
        p["means"] += mcmc.noise(p["quats"], p["log_scales"].exp(), p["logits"].sigmoid(), strength * rate, generator)


def step_loss(
    trainee: Trainee, views: Views, chosen: Tensor, degree: int, config: FitConfig, generator: torch.Generator
) -> Tensor:
    """The loss of one step on views `chosen` [C]."""
    p = trainee.parameters
    scales, opacities = p["log_scales"].exp(), p["logits"].sigmoid()
    h, w = views.images.shape[1:3]
    background, target = None, views.images[chosen]
    if views.alphas is not None:  # a random background, so that emptiness has to be empty
        background = torch.rand(len(chosen), 3, generator=generator, device=target.device)
        alpha = views.alphas[chosen][..., None]
        target = target * alpha + background[:, None, None] * (1 - alpha)
    rendering = rasterize(
        p["means"], p["quats"], scales, opacities, views.viewmats[chosen], views.ks[chosen], w, h,
        sh=torch.cat([p["sh0"], p["sh_rest"]], 1), sh_degree=degree, background=background,
        mode="antialiased" if config.antialiased else "classic",
    )  # fmt: skip
    difference = (rendering.image - target).abs().mean()
    loss = (1 - config.ssim_weight) * difference + config.ssim_weight * (1 - ssim(rendering.image, target))
    return loss + config.opacity_weight * opacities.mean() + config.scale_weight * scales.mean() / trainee.extent


def fit(views: Views, config: FitConfig | None = None, report: Callable[[Progress], None] | None = None) -> Gaussians:
    """Fit Gaussians to posed images; see FitConfig. `report` is called every 100 steps and at the end.

    Raises ValueError for fewer than 2 views.
    """
    config = config or FitConfig()
    if len(views.images) < 2:
        raise ValueError(f"fit: {len(views.images)} view given, at least 2 are needed to place anything in depth")
    generator = torch.Generator(device="cpu").manual_seed(config.seed)
    device_generator = generator
    if views.images.device.type != "cpu":
        device_generator = torch.Generator(device=views.images.device).manual_seed(config.seed)
    trainee = Trainee(views, config, generator)
    means_group = trainee.optimizer.param_groups[0]
    decay = (config.rate_means_end / config.rate_means) ** (1 / config.steps)
    queue: list[int] = []
    began = time.perf_counter()
    for step in range(config.steps):
        while len(queue) < config.views_per_step:
            queue += torch.randperm(len(views.images), generator=generator).tolist()
        chosen = torch.tensor([queue.pop(0) for _ in range(config.views_per_step)], device=views.images.device)
        degree = min(config.sh_degree, step // config.sh_every)
        loss = step_loss(trainee, views, chosen, degree, config, device_generator)
        trainee.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        trainee.optimizer.step()
        trainee.wander(config.noise, device_generator)
        means_group["lr"] *= decay
        if config.relocate_from <= step < config.relocate_until * config.steps and step % config.relocate_every == 0:
            trainee.relocate(device_generator)
            trainee.grow(config.growth, config.most, device_generator)
        if report and (step % 100 == 99 or step == config.steps - 1):
            report(Progress(step + 1, float(loss.detach()), len(trainee.parameters["means"]), time.perf_counter() - began))
    return trainee.gaussians()


@torch.no_grad()
def psnr(scene: Gaussians, views: Views, antialiased: bool = True, background: float = 1.0) -> Tensor:
    """PSNR [V] in dB of each view, over a uniform background where the views have masks."""
    h, w = views.images.shape[1:3]
    colour = None if views.alphas is None else torch.full((3,), background, device=views.images.device)
    target = views.images
    if views.alphas is not None:
        target = target * views.alphas[..., None] + background * (1 - views.alphas[..., None])
    mode = "antialiased" if antialiased else "classic"
    image = scene.render(views.viewmats, views.ks, w, h, background=colour, mode=mode).image.clamp(0, 1)
    return -10 * torch.log10((image - target).square().mean((1, 2, 3)).clamp(min=1e-12))


def main(arguments: list[str] | None = None) -> int:
    """Fit a folder of posed images and write a .ply."""
    parser = argparse.ArgumentParser(prog="python -m mixtura_splat.fit", description="reconstruct a scene from posed images")
    parser.add_argument("data", type=Path, help="transforms.json, or the folder that has it")
    parser.add_argument("--out", type=Path, required=True, help="the .ply to write")
    parser.add_argument("--steps", type=int, default=FitConfig.steps)
    parser.add_argument("--most", type=int, default=FitConfig.most, help="bound on the number of Gaussians")
    parser.add_argument("--seed", type=int, default=FitConfig.seed)
    parser.add_argument("--hold-out", type=int, default=8, help="every how manyth view is kept for measuring (0: none)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args(arguments)
    try:
        views = load_transforms(chosen.data).to(chosen.device)
        train, held = views.hold_out(chosen.hold_out)
        start = min(FitConfig.start, chosen.most)
        config = FitConfig(steps=chosen.steps, most=chosen.most, start=start, seed=chosen.seed)
        scene = fit(train, config, _say_progress)
    except (ValueError, OSError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    scene.save_ply(chosen.out)
    _say(f"wrote {chosen.out}: {len(scene)} Gaussians")
    if held is not None:
        _say(f"PSNR on {len(held.images)} views held out: {float(psnr(scene, held).mean()):.2f} dB")
    return 0


def _say_progress(p: Progress) -> None:
    _say(f"step {p.step}: loss {p.loss:.4f}, {p.gaussians} Gaussians, {p.seconds:.0f} s")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
