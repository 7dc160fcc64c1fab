"""The networks made ready for inference: the same pictures, sooner.

    engine = ready(networks, precision="bfloat16")     # any module with the seven networks as children; they stay as they are
    volume, motion = engine.volume(image), engine.motion(image)
    picture = engine.animate(volume, x_source, x_driving)          # (b, 3, S', S') in 0..1

Two ways lead there. `lean`, the default on processors, computes F, W and G by fewer multiplications, see
`mixtura_live_portrait.lean`: in float32 the result differs by rounding only, about 3e-6; in bfloat16 the sums of products are
bfloat16 and all around them float32. It keeps filters in the form that it needs, about four times as large (1.2 GB of the
published size, half of that in bfloat16), and memory for one call for each thread that calls. The direct way keeps the layers,
norms folded into them, runs on any device under autocast, and can be compiled and, on NVIDIA GPUs, recorded. M stays in float32
always: its rounding would be seen as trembling, and it takes a thirtieth of a frame's time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from mixtura.errors import ConfigError
from mixtura_live_portrait.animate.retarget import Small
from mixtura_live_portrait.graphs import Graphed
from mixtura_live_portrait.keypoints import Motion
from mixtura_live_portrait.lean.appearance import LeanAppearance
from mixtura_live_portrait.lean.dense import LeanWarping
from mixtura_live_portrait.lean.folding import fold_
from mixtura_live_portrait.lean.spade import LeanGenerator
from mixtura_live_portrait.lean.workspace import Workspace
from mixtura_live_portrait.nets import NETWORKS
from mixtura_live_portrait.nets.appearance import Appearance
from mixtura_live_portrait.nets.generator import Generator
from mixtura_live_portrait.nets.warping import Warping

Precision = Literal["float32", "bfloat16"]
Layout = Literal["channels_last", "contiguous"]


class Lean(nn.Module):
    """F, W and G by fewer multiplications, on a processor; frame by frame, for several at once take memory and save no time."""

    def __init__(self, networks: dict[str, nn.Module], precision: Precision) -> None:
        super().__init__()
        half = precision == "bfloat16"
        appearance = cast(Appearance, networks["appearance"])
        side, space = appearance.sizes.side, Workspace()
        self.appearance = LeanAppearance(appearance, half, space)
        self.warping = LeanWarping(cast(Warping, networks["warping"]), side, half, space)
        self.generator = LeanGenerator(cast(Generator, networks["generator"]), side, half, space)

    def volume(self, image: Tensor) -> Tensor:
        """Appearance of images."""
        return torch.cat([self.appearance(one) for one in image.split(1)])

    def picture(self, volume: Tensor, kp_driving: Tensor, kp_source: Tensor) -> Tensor:
        """Frames of volumes and source keypoints (b or 1)."""
        pictures = []
        for i, driving in enumerate(kp_driving.split(1)):
            one, source = (given if len(given) == 1 else given[i : i + 1] for given in (volume, kp_source))
            pictures.append(self.generator(self.warping(one, driving, source).out))
        return torch.cat(pictures)


class Direct(nn.Module):
    """F, W and G layer by layer, norms folded."""

    def __init__(self, networks: dict[str, nn.Module], precision: Precision, layout: Layout, device: torch.device) -> None:
        super().__init__()
        self.appearance, self.warping, self.generator = (
            _laid_out(fold_(networks[name]), layout) for name in ("appearance", "warping", "generator")
        )
        self.precision, self.device = precision, device

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()

    def volume(self, image: Tensor) -> Tensor:
        """Appearance of images."""
        with self._autocast():
            return self.appearance(image).float()

    def picture(self, volume: Tensor, kp_driving: Tensor, kp_source: Tensor) -> Tensor:
        """Frames of volumes and source keypoints (b or 1)."""
        b = len(kp_driving)
        with self._autocast():
            warped = self.warping(volume.expand(b, -1, -1, -1, -1), kp_driving, kp_source.expand(b, -1, -1))
            return self.generator(warped.out).float()


class Ready:
    """Networks ready for inference on one device; an `animate.engine.Engine`. Made by `ready`."""

    def __init__(self, path: Lean | Direct, networks: dict[str, nn.Module], device: torch.device) -> None:
        self.sizes, self.device = cast(Appearance, networks["appearance"]).sizes, device
        self.small = Small(*(networks[name] for name in Small._fields))
        self.path, self._motion = path, networks["motion"]
        self._volume: Callable[[Tensor], Tensor] = path.volume
        self._picture: Callable[[Tensor, Tensor, Tensor], Tensor] = path.picture

    @torch.inference_mode()
    def volume(self, crops: Tensor) -> Tensor:
        """Appearance (b, C, D, h, w) of images (b, 3, S, S) in 0..1."""
        return self._volume(self._checked("images", crops, (3, self.sizes.image, self.sizes.image)))

    @torch.inference_mode()
    def motion(self, crops: Tensor) -> Motion:
        """Motion of images (b, 3, S, S) in 0..1."""
        return Motion.of(self._motion(self._checked("images", crops, (3, self.sizes.image, self.sizes.image))))

    @torch.inference_mode()
    def animate(self, volume: Tensor, x_source: Tensor, x_driving: Tensor) -> Tensor:
        """Pictures (b, 3, S', S') of volumes whose keypoints x_source go to x_driving (b, k, 3); one volume may serve all."""
        points = (self.sizes.keypoints, 3)
        driving = self._checked("x_driving", x_driving, points)
        source = self._checked("x_source", x_source, points, len(driving))
        return self._picture(self._checked("volume", volume, self.sizes.volume, len(driving)), driving, source)

    def _checked(self, name: str, given: Tensor, shape: tuple[int, ...], batch: int | None = None) -> Tensor:
        """The tensor in float32 on the right device; `batch` is what its length must be, unless 1."""
        if given.shape[1:] != shape or (batch is not None and len(given) not in (1, batch)) or len(given) == 0:
            length = "b" if batch is None else f"{batch} or 1"
            raise ConfigError(f"{name}: shape {tuple(given.shape)}, expected ({length}, {', '.join(map(str, shape))})")
        return given.to(self.device, torch.float32)


def ready(
    networks: nn.Module,
    precision: Precision = "float32",
    layout: Layout = "channels_last",
    compile: bool = False,
    cuda_graphs: bool = False,
    lean: bool | None = None,
) -> Ready:
    """A copy of the networks, ready on the device they lie on.

    `lean` chooses the way; None takes it on processors unless `compile` is asked for, which only the direct way knows, as only
    that knows `layout` and `cuda_graphs`. Raises ConfigError for what can't be had here.
    """
    device = next(networks.get_submodule("motion").parameters()).device
    if lean is None:
        lean = device.type == "cpu" and not compile
    _check(device, precision, layout, compile, cuda_graphs, lean)
    copies = {name: copy.deepcopy(networks.get_submodule(name)).float().eval().requires_grad_(False) for name in NETWORKS}
    if lean:
        with torch.inference_mode():
            return Ready(Lean(copies, precision), copies, device)
    direct = Direct(copies, precision, layout, device)
    made = Ready(direct, copies, device)
    if compile:
        made._volume, made._picture = (torch.compile(work) for work in (direct.volume, direct.picture))
    if cuda_graphs:
        made._volume, made._picture = Graphed(made._volume), Graphed(made._picture)
    return made


def _check(device: torch.device, precision: str, layout: str, compile: bool, cuda_graphs: bool, lean: bool) -> None:
    wrong = [
        f"{name} {value!r}, expected one of {', '.join(known)}"
        for name, value, known in (("precision", precision, get_args(Precision)), ("layout", layout, get_args(Layout)))
        if value not in known
    ]
    if cuda_graphs and device.type != "cuda":
        wrong.append(f"cuda_graphs: the networks are on {device.type}; only NVIDIA GPUs record graphs, leave it out")
    if lean and device.type != "cpu":
        wrong.append(f"lean: the networks are on {device.type}; only processors take that way, leave it out")
    if lean and compile:
        wrong.append("lean with compile: only the direct way can be compiled, leave one of them out")
    if precision == "bfloat16" and not has_bfloat16(device):
        wrong.append(f"precision bfloat16: this {device.type} has no such instructions, it would be slower; take float32")
    if wrong:
        raise ConfigError("networks for inference: " + "; ".join(wrong))


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 by itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        from mixtura.precision import has_bf16

        return has_bf16()
    return False


def _laid_out(network: nn.Module, layout: Layout) -> nn.Module:
    """Convolutions' weights with channels last, of volumes too."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if layout == "channels_last":
        for parameter in network.parameters():
            if parameter.ndim in formats:
                parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return network
