"""What animation needs of the networks: `Engine`; and one that takes them as they are: `Plain`."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from mixtura.errors import ConfigError
from mixtura_live_portrait.animate.retarget import Small
from mixtura_live_portrait.keypoints import Motion
from mixtura_live_portrait.nets.sizes import Sizes


class Engine(Protocol):
    """Networks ready for inference on one device. Crops are (n, 3, image, image) in 0..1, pictures (n, 3, output, output)."""

    sizes: Sizes
    device: torch.device
    small: Small

    def volume(self, crops: Tensor) -> Tensor:
        """Appearance (n, C, D, h, w) of sources."""
        ...

    def motion(self, crops: Tensor) -> Motion:
        """Motion of sources or drivings."""
        ...

    def animate(self, volume: Tensor, x_source: Tensor, x_driving: Tensor) -> Tensor:
        """Pictures of volumes (n or 1) whose keypoints (n or 1, k, 3) go to x_driving (n, k, 3)."""
        ...


class Plain:
    """Seven networks (children of one module) in float32."""

    def __init__(self, networks: nn.Module, sizes: Sizes, device: torch.device | str = "cpu") -> None:
        self.networks, self.sizes, self.device = networks.to(device).eval(), sizes, torch.device(device)
        self.small = Small(*(networks.get_submodule(name) for name in Small._fields))

    @torch.inference_mode()
    def volume(self, crops: Tensor) -> Tensor:
        """See `Engine`."""
        return cast(Tensor, self.networks.get_submodule("appearance")(crops))

    @torch.inference_mode()
    def motion(self, crops: Tensor) -> Motion:
        """See `Engine`."""
        return Motion.of(self.networks.get_submodule("motion")(crops))

    @torch.inference_mode()
    def animate(self, volume: Tensor, x_source: Tensor, x_driving: Tensor) -> Tensor:
        """See `Engine`."""
        n = len(x_driving)
        spread = volume.expand(n, *volume.shape[1:])
        warped = self.networks.get_submodule("warping")(spread, x_driving, x_source.expand_as(x_driving))
        return cast(Tensor, self.networks.get_submodule("generator")(warped.out))


def device_of(name: str) -> torch.device:
    """A device by its name; `auto` is a GPU where there is one. Raises ConfigError for those that aren't there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device {name!r} can't be used ({str(error).splitlines()[0]}); take auto or cpu") from error
