"""Parity runners of LivePortrait; README.md beside the folders says what the arrays are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixtura_live_portrait.keypoints import degrees, rotation, transform
from mixtura_live_portrait.nets import build
from mixtura_live_portrait.nets.sizes import Sizes
from tests.parity.fill import fill_module, keys_of, make_input, settle_spectral_norm

Outputs = Iterator[tuple[str, Any, Any]]

PREFIXES = {
    "appearance": "F/",
    "motion": "M/",
    "warping": "W/",
    "generator": "G/",
    "stitching": "S/stitching/",
    "lips": "S/lip/",
    "eyes": "S/eye/",
}
PARAMETERS = {"appearance": 0.84, "motion": 28.1, "warping": 45.5, "generator": 55.4}
"""Millions, of the published networks."""


def tensor(name: str, *shape: int, low: float | None = None, high: float | None = None) -> Tensor:
    """The input called `name`."""
    return torch.from_numpy(make_input(f"live_portrait/{name}", shape, low, high))


def golden(folder: Path) -> dict[str, Any]:
    """All recorded arrays of a case."""
    with np.load(folder / "golden.npz") as arrays:
        return dict(arrays)


def filled(*names: str) -> list[nn.Module]:
    """Our published-size networks with the rule's weights, in eval mode."""
    with torch.device("meta"):
        networks = build(Sizes())
    chosen = [networks[name].to_empty(device="cpu").eval() for name in names]
    for name, network in zip(names, chosen, strict=True):
        fill_module(network, prefix=f"live_portrait/{PREFIXES[name]}")
        for key, value in network.named_buffers():
            if key.endswith("num_batches_tracked"):
                value.zero_()
        if name == "generator":
            settle_spectral_norm(network)
    return chosen


def layout(name: str, network: nn.Module, keys: Any) -> Outputs:
    """Names and shapes of the state dict, in any order, and the number of parameters."""
    yield "layout", float(keys_of(network) == keys), 1.0
    if name in PARAMETERS:
        millions = sum(value.numel() for key, value in network.named_parameters()) / 1e6
        yield "parameters", float(abs(millions - PARAMETERS[name]) < 0.06), 1.0


def stats(*values: Tensor) -> list[list[float]]:
    """Mean and standard deviation of each."""
    return [[float(value.mean()), float(value.std(correction=0))] for value in values]


def keypoints_of(name: str) -> Tensor:
    """Driving or source keypoints."""
    return tensor(name, 1, 21, 3, low=-0.8, high=0.8)


@torch.no_grad()
def appearance(folder: Path) -> Outputs:
    """F."""
    want, (net,) = golden(folder), filled("appearance")
    yield from layout("appearance", net, json.loads((folder / "keys.json").read_text()))
    volume = net(tensor("image", 1, 3, 256, 256, low=0, high=1))
    yield "volume_sub", volume[:, ::4, ::5, ::9, ::9], want["volume_sub"]
    yield "mean_std", stats(volume)[0], want["mean_std"]


@torch.no_grad()
def motion(folder: Path) -> Outputs:
    """M."""
    want, (net,) = golden(folder), filled("motion")
    yield from layout("motion", net, json.loads((folder / "keys.json").read_text()))
    for name, value in net(tensor("image", 1, 3, 256, 256, low=0, high=1))._asdict().items():
        yield name, value, want[name]


@torch.no_grad()
def warping(folder: Path) -> Outputs:
    """W."""
    want, (net,) = golden(folder), filled("warping")
    yield from layout("warping", net, json.loads((folder / "keys.json").read_text()))
    out, deformation, occlusion = net(tensor("feature", 1, 32, 16, 64, 64), keypoints_of("kp_driving"), keypoints_of("kp_source"))
    yield "out_sub", out[:, ::8, ::5, ::5], want["out_sub"]
    yield "deformation_sub", deformation[:, ::5, ::9, ::9], want["deformation_sub"]
    yield "occlusion_sub", occlusion[:, :, ::3, ::3], want["occlusion_sub"]
    yield "mean_std", stats(out, deformation, occlusion), want["mean_std"]


@torch.no_grad()
def spade(folder: Path) -> Outputs:
    """G."""
    want, (net,) = golden(folder), filled("generator")
    yield from layout("generator", net, json.loads((folder / "keys.json").read_text()))
    image = net(tensor("warped", 1, 256, 64, 64))
    yield "image_sub", image[:, :, ::11, ::11], want["image_sub"]
    yield "mean_std", stats(image)[0], want["mean_std"]


@torch.no_grad()
def stitching_retargeting(folder: Path) -> Outputs:
    """The three small networks."""
    want, keys = golden(folder), json.loads((folder / "keys.json").read_text())
    names = {"stitching": "stitching", "lip": "lips", "eye": "eyes"}
    for theirs, net in zip(names, filled(*names.values()), strict=True):
        yield f"{theirs}/layout", float(keys_of(net) == keys[theirs]), 1.0
        yield theirs, net(tensor(f"stitch_{theirs}", 4, keys[theirs]["mlp.0.weight"][1])), want[theirs]


def keypoints(folder: Path) -> Outputs:
    """Degrees, rotation and the keypoint equation."""
    want = golden(folder)
    angles = [degrees(tensor(name, 3, 66, low=-3, high=3)) for name in ("pitch", "yaw", "roll")]
    yield "degrees", torch.stack(angles, -1), want["degrees"]
    turned = rotation(*angles)
    yield "rotation", turned, want["rotation"]
    kp, exp, t = tensor("kp", 3, 21, 3), 0.1 * tensor("exp", 3, 21, 3), 0.1 * tensor("t", 3, 3)
    yield "transformed", transform(kp, turned, exp, t, tensor("scale", 3, 1, low=0.5, high=2)), want["transformed"]


@torch.no_grad()
def end_to_end(folder: Path) -> Outputs:
    """A frame from an image and two sets of keypoints."""
    want, (f, w, g) = golden(folder), filled("appearance", "warping", "generator")
    volume = f(tensor("image", 1, 3, 256, 256, low=0, high=1))
    image = g(w(volume, keypoints_of("kp_driving"), keypoints_of("kp_source")).out)
    yield "image_sub", image[:, :, ::11, ::11], want["image_sub"]
    yield "mean_std", stats(image)[0], want["mean_std"]


CASES = {
    "appearance": appearance,
    "end_to_end": end_to_end,
    "keypoints": keypoints,
    "motion": motion,
    "spade": spade,
    "stitching_retargeting": stitching_retargeting,
    "warping": warping,
}
