"""Parity runners of DiffusionGS; each folder's README.md says what its arrays are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixtura_diffusion_gs import diffusion, losses
from mixtura_diffusion_gs.cameras import matrices, orbit, pinhole, rays, viewmats
from mixtura_diffusion_gs.config import DiffusionGSConfig, Kind
from mixtura_diffusion_gs.frames import official_object_frame, official_scene_frame
from mixtura_diffusion_gs.gaussians import DepthRule, RawGaussians, assemble
from mixtura_diffusion_gs.nets.denoiser import Denoiser, Sizes, network_input
from mixtura_diffusion_gs.published_files import to_ours, to_published
from mixtura_splat.reference import camera_centres, rotations
from tests.parity.fill import make_input, param_value

Outputs = Iterator[tuple[str, Any, Any]]
Layout = Mapping[str, list[int]]

RULES = {"object": DepthRule("centred"), "scene": DepthRule("range")}
RAYS = {"object": "reference", "scene": "pluecker"}
PARAMETERS = 460_391_424
"""Of one published network."""


def tensor(name: str, *shape: int, low: float | None = None, high: float | None = None) -> Tensor:
    """The input called `name` as a float32 tensor."""
    return torch.from_numpy(make_input(name, shape, low, high))


def golden(folder: Path) -> dict[str, Any]:
    """All recorded arrays of a case, floats as tensors."""
    with np.load(folder / "golden.npz") as arrays:
        return {name: torch.from_numpy(array) if array.ndim else array for name, array in arrays.items()}


def stats(values: Tensor) -> list[float]:
    """Mean, standard deviation, least and largest of all values."""
    return [float(v) for v in (values.mean(), values.std(), values.min(), values.max())]


def filled(kind: Kind, layout: Layout, sizes: Sizes) -> Denoiser:
    """Our denoiser with the published network's filling, by published names and shapes."""
    weights = {name: torch.from_numpy(param_value(name, tuple(shape))) for name, shape in layout.items()}
    net = Denoiser(sizes, [kind]).eval()
    net.load_state_dict(to_ours(weights, kind))
    return net


def same_layout(net: Denoiser, kind: Kind, layout: Layout) -> list[float]:
    """1 when published names and shapes are those of `layout`."""
    ours = {name: list(tensor.shape) for name, tensor in to_published(net.state_dict(), kind).items()}
    return [float(ours == dict(layout))]


def named(raw: RawGaussians) -> dict[str, Tensor]:
    """The five quantities by their recorded names."""
    return raw._asdict()


def full_size(kind: Kind, *layouts: Layout) -> Outputs:
    """The layout of our full configuration, without its weights, against those recorded."""
    config = DiffusionGSConfig(type="diffusion_gs", size="full", kinds=(kind,))
    with torch.device("meta"):
        net = Denoiser(Sizes(config.width, config.layers, config.head_dim, config.patch, config.free, 0), [kind])
    yield f"full_{kind}/layout", [same_layout(net, kind, layout) for layout in layouts], [[1.0]] * len(layouts)
    yield f"full_{kind}/parameters", [len(net.state_dict()), sum(p.numel() for p in net.parameters())], [255, PARAMETERS]


@torch.no_grad()
def denoiser(folder: Path) -> Outputs:
    """Both kinds of the network from pictures to raw Gaussians, and the full-size layouts."""
    every, keys = golden(folder), json.loads((folder / "keys.json").read_text())
    kinds: tuple[Kind, Kind] = ("object", "scene")
    for case in kinds:
        want = {name.removeprefix(f"{case}/"): value for name, value in every.items() if name.startswith(f"{case}/")}
        sizes = Sizes(64, 3, 16, 8, 2, 0)
        net = filled(case, keys[case], sizes)
        yield f"{case}/layout", same_layout(net, case, keys[case]), [1.0]
        b, v, _, h, w = 2, 4, 3, 64, want["xyz_map_b0_v1"].shape[-1]
        images = torch.cat([tensor(f"{case}/cond", b, 1, 3, h, w, low=0, high=1), tensor(f"{case}/noisy", b, v - 1, 3, h, w)], 1)
        origins, directions = rays(want["c2w"], want["fxfycxcy"], h, w)
        seen, t = network_input(images, origins, directions, RAYS[case]), want["t"]
        steps: list[Tensor] = []
        hooks = [net.transformer[i].register_forward_hook(lambda m, i, o, steps=steps: steps.append(o)) for i in (0, -1)]
        free, pixels = net(seen, t)
        for hook in hooks:
            hook.remove()
        raw, points = assemble(free, pixels, origins, directions, [RULES[case]] * b, sizes)
        first, time = net.tokens(seen, t)
        yield f"{case}/t_emb", time, want["t_emb"]
        for name, tokens in zip(("tokens_in", "tokens_block0", "tokens_last"), (first, *steps), strict=True):
            yield f"{case}/{name}", tokens[:, ::3], want[name]
            yield f"{case}/{name}_stats", stats(tokens), want[f"{name}_stats"]
        for name, ours, recorded in _quantities(raw, points, want, 13):
            yield f"{case}/{name}", ours, recorded
        yield from full_size(case, keys[f"full_{case}"], json.loads((folder.parent / f"full_{case}_keys.json").read_text()))


def _quantities(raw: RawGaussians, points: Tensor, want: Mapping[str, Any], stride: int) -> Outputs:
    """Raw quantities with their summaries, and the map of centres."""
    for name, ours in named(raw).items():
        yield name, ours[:, ::stride], want[name]
        yield f"{name}_stats", stats(ours), want[f"{name}_stats"]
        yield f"{name}_first", ours[:, :2], want[f"{name}_first"]
    yield "xyz_map_b0_v1", points[0, 1], want["xyz_map_b0_v1"]
    yield "xyz_map_stats", stats(points), want["xyz_map_stats"]


GAUSSIANS = {"gaussians_object": ("object", 0), "gaussians_scene": ("scene", 0), "gaussians_sh1": ("object", 1)}


@torch.no_grad()
def gaussians(folder: Path) -> Outputs:
    """From the heads' outputs to raw and activated Gaussians."""
    every = golden(folder)
    for case, (kind, degree) in GAUSSIANS.items():
        want = {name.removeprefix(f"{case}/"): value for name, value in every.items() if name.startswith(f"{case}/")}
        sizes = Sizes(64, 3, 16, 8, 2, degree)
        (_, h, w), (b, v) = want["xyz_map_b0_v1"].shape, want["c2w"].shape[:2]
        pixels = 2 * tensor(f"{case}/raw_pixels", b, v * h * w // 64, 64 * sizes.channels)
        free = 2 * tensor(f"{case}/raw_tokens", b, 2, sizes.channels)
        origins, directions = rays(want["c2w"], want["fxfycxcy"], h, w)
        channels = pixels.unflatten(-1, (-1, sizes.channels)).flatten(1, 2)
        raw, points = assemble(free, channels, origins, directions, [RULES[kind]], sizes)
        for name, ours, recorded in _quantities(raw, points, want, 1):
            yield f"{case}/{name}", ours, recorded
        active = raw.activated()
        spread = rotations(active["quats"]) * active["scales"][..., None, :]
        covariance = spread @ spread.mT
        ours = {
            "scale": active["scales"],
            "quat": active["quats"] / active["quats"].norm(dim=-1, keepdim=True),
            "alpha": active["opacities"][..., None],
            "rgb": 0.5 + 0.28209479177387814 * active["sh"][:, :, :1],
            "cov6": covariance[..., [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]],
        }
        for name, value in ours.items():
            yield f"{case}/{name}", value, want[name]


def ray_maps(folder: Path) -> Outputs:
    """Rays, what the network is given of them, and the rasteriser's cameras as what they do to points."""
    every = golden(folder)
    for case in ("rays_orbit", "rays_free"):
        want = {name.removeprefix(f"{case}/"): value for name, value in every.items() if name.startswith(f"{case}/")}
        (h, w), c2w, lenses = want["size"].tolist(), want["c2w"], want["fxfycxcy"]
        origins, directions = rays(c2w, lenses, h, w)
        yield f"{case}/ray_o", origins[..., ::5, ::3], want["ray_o"]
        yield f"{case}/ray_d", directions[..., ::5, ::3], want["ray_d"]
        images = tensor(f"{case}/image", *c2w.shape[:2], 3, h, w, low=0, high=1)
        for recorded, encoding in (("relative_plk", "reference"), ("plk", "pluecker")):
            seen = network_input(images, origins, directions, encoding)
            yield f"{case}/net_input_{recorded}", seen[..., ::5, ::3], want[f"net_input_{recorded}"]
            yield f"{case}/net_input_{recorded}_stats", stats(seen), want[f"net_input_{recorded}_stats"]
        view, k = viewmats(c2w[0]), matrices(lenses[0])
        yield f"{case}/raster_view", view.mT, want["raster_view"]
        yield f"{case}/raster_campos", camera_centres(view), want["raster_campos"]
        yield f"{case}/raster_tan", torch.tensor([w, h]) / (2 * lenses[0, :, :2]), want["raster_tan"]
        inside = tensor(f"{case}/points", len(view), 50, 3, low=-1, high=1) + torch.tensor([0.0, 0.0, 2.0])
        shown = (k[:, None] @ inside[..., None])[..., 0]
        pixels = shown[..., :2] / shown[..., 2:]
        world = (inside - view[:, None, :3, 3])[..., None, :] @ view[:, None, :3, :3]
        yield f"{case}/raster_proj", pixels, on_screen(inside, want["raster_proj"], w, h)
        yield f"{case}/raster_full", pixels, on_screen(world[..., 0, :], want["raster_full"], w, h)
    c2w, lenses = orbit([90 + 60 * i for i in range(6)], [0] * 6, 2.7, 50, 64)
    yield "turntable/c2w", c2w, every["turntable/c2w"]
    yield "turntable/fxfycxcy", lenses[:, :3], every["turntable/fxfycxcy"][:, :3]


def on_screen(points: Tensor, matrix: Tensor, width: int, height: int) -> Tensor:
    """Where points (V, P, 3) fall by a matrix (V, 4, 4) for row vectors; pixel centres are whole numbers there, so + 0.5."""
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], -1) @ matrix
    device = homogeneous[..., :2] / homogeneous[..., 3:]
    return ((device + 1) * torch.tensor([width, height]) - 1) / 2 + 0.5


def toy_network(condition: Tensor, x: Tensor, t: int) -> Tensor:
    """The stand-in for the network of the folder's README: renders of all views."""
    image = torch.cat([condition, x], 1)
    return 0.5 + 0.4 * torch.tanh(0.8 * image + (t / 1000 - 0.5)) * (0.6 + 0.4 * image[:, :1])


def schedule_and_sampler(folder: Path) -> Outputs:
    """Tables of the whole and the spaced schedule, noising, and the ancestral sampler around a toy."""
    want, whole, spaced = golden(folder), diffusion.whole(), diffusion.spaced(30)
    ours = {
        "betas": whole.betas,
        "alphas_cumprod": whole.kept,
        "timestep_map": spaced.times,
        "spaced_betas": spaced.betas,
        "spaced_alphas_cumprod": spaced.kept,
        "posterior_mean_coef1": spaced.mean_of_clean,
        "posterior_mean_coef2": spaced.mean_of_noisy,
        "sampling_variance": spaced.variance,
    }
    for name, table in ours.items():
        yield name, table, want[name]
    clean, noise = tensor("diff/x0", 5, 3, 3, 8, 8, low=0, high=1), tensor("diff/eps", 5, 3, 3, 8, 8)
    yield "q_sample", whole.noised(clean, noise, want["q_t"]), want["q_sample"]
    condition, start = tensor("diff/cond", 2, 1, 3, 8, 8, low=0, high=1), tensor("diff/xT", 2, 3, 3, 8, 8)

    def predict(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        render = toy_network(condition, x, t)
        return render[:, 1:], render

    moments = list(diffusion.sample(predict, start, spaced, "ancestral", lambda k: tensor(f"diff/step_noise/{k}", *start.shape)))
    yield "model_t", [[moment.t] * 2 for moment in moments], want["model_t"]
    # A recorded sample is what the step left; here that is what the next one saw, and after the last one its prediction.
    left = [moment.noisy for moment in moments[1:]] + [moments[-1].clean]
    kept = want["kept_steps"].tolist()
    yield "samples", torch.stack([left[k] for k in kept]), want["samples"]
    yield "pred_xstart", torch.stack([moments[k].clean for k in kept]), want["pred_xstart"]
    yield "final_render", moments[-1].result, want["final_render"]


RAMPS: dict[str, list[float | int]] = {
    "diffusion": [150, 0, 1, 151],
    "lpips": [150, 0, 0.5, 151],
    "pointsdist": [150, 1, 0, 151],
    "xyz": [150, 0, 0.025, 151],
    "three": [0.2, 1.2, 100],
    "epochs": [2, 0, 1, 6.0],
}


def loss_terms(folder: Path) -> Outputs:
    """Losses with their gradients, ramps, PSNR."""
    want, (b, v, h, w) = golden(folder), (2, 3, 24, 20)
    render = tensor("loss/render", b, v + 2, 3, h, w, low=0, high=1).requires_grad_()
    target = 0.7 * render.detach() + 0.3 * tensor("loss/target", b, v + 2, 3, h, w, low=0, high=1)
    mask = tensor("loss/mask", b, v, 1, h, w, low=0, high=1) > 0.4
    origins = (1.5 * tensor("loss/ray_o", b, v, 3, 1, 1)).expand(b, v, 3, h, w)
    points = (0.8 * tensor("loss/xyz", b, v, 3, h, w)).requires_grad_()
    true = 0.8 * tensor("loss/gt_xyz", b, v, 3, h, w)
    image, spread = losses.image_error(render, target), losses.point_spread(points, origins)
    total, count = losses.point_error(points, true, mask)
    known = total.sum() / count.sum()
    ours = {"l2": image, "ssim_loss": losses.dissimilarity(render, target), "pointsdist": spread, "xyz": known}
    for name, value in ours.items():
        yield name, value.detach(), want[name]
    for name, value, leaf, stride in (
        ("l2", image.mean(), render, 4),
        ("pointsdist", spread.mean(), points, 3),
        ("xyz", known, points, 3),
    ):
        gradient = torch.autograd.grad(value, leaf)[0]
        yield f"grad_{name}", gradient[..., ::stride, ::stride], want[f"grad_{name}"]
    for name, rule in RAMPS.items():
        yield f"ramp_{name}", [losses.ramp(rule, step, step // 100) for step in want["ramp_steps"].tolist()], want[f"ramp_{name}"]
    predicted = 1.4 * render.detach() - 0.2
    yield "psnr", losses.psnr(predicted.flatten(0, 1), target.flatten(0, 1)), want["psnr"]


def cameras(folder: Path) -> Outputs:
    """What the published loaders make of cameras; where the object's condition camera stands, by our orbit and mirror."""
    want = {name: np.asarray(value) for name, value in golden(folder).items()}
    c2w, scale = official_object_frame(want["json_c2w"][want["view_ids"]])
    yield "object_c2w", c2w, want["object_c2w"]
    yield "object_fxfycxcy", pinhole(39.5978, 16).expand(10, 4), want["object_fxfycxcy"]
    yield "depth_scaled", np.full(10, scale), want["depth_scaled"]
    yield "scene_out_c2w", official_scene_frame(want["scene_in_c2w"]), want["scene_out_c2w"]


def _independent(kind: Kind, folder: Path) -> Outputs:
    """The second run of the reference: one kind at width 128."""
    want, layout = golden(folder), json.loads((folder / "keys.json").read_text())
    sizes = Sizes(128, 3, 32, 8, 2, 0)
    net = filled(kind, layout, sizes)
    yield "layout", same_layout(net, kind, layout), [1.0]
    images, t = tensor(f"dgs/{kind}/image", 2, 4, 3, 64, 64, low=0, high=1), want["timesteps"]
    origins, directions = rays(want["c2w"], want["fxfycxcy"], 64, 64)
    yield "ray_o_sub", origins[..., ::9, ::9], want["ray_o_sub"]
    yield "ray_d_sub", directions[..., ::9, ::9], want["ray_d_sub"]
    with torch.no_grad():
        free, pixels = net(network_input(images, origins, directions, RAYS[kind]), t)
    raw, _ = assemble(free, pixels, origins, directions, [RULES[kind]] * 2, sizes)
    for name, ours in named(raw).items():
        yield f"{name}_sub", ours[:, ::37], want[f"{name}_sub"]
    yield "mean_std", [stats(ours)[:2] for ours in named(raw).values()], want["mean_std"]
    yield "n_gaussians", raw.xyz.shape[1], want["n_gaussians"]


def object_denoiser(folder: Path) -> Outputs:
    """The object network at width 128."""
    yield from _independent("object", folder)


def scene_denoiser(folder: Path) -> Outputs:
    """The scene network at width 128."""
    yield from _independent("scene", folder)


CASES = {
    "cameras": cameras,
    "denoiser": denoiser,
    "diffusion": schedule_and_sampler,
    "gaussians": gaussians,
    "losses": loss_terms,
    "object_denoiser": object_denoiser,
    "rays": ray_maps,
    "scene_denoiser": scene_denoiser,
}
