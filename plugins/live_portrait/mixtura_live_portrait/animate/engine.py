"""What animation needs of the networks: `Engine`. `mixtura_live_portrait.fast.ready` makes one of any seven networks."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

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


def device_of(name: str) -> torch.device:
    """A device by its name; `auto` is a GPU where there is one. Raises ConfigError for those that aren't there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"device {name!r} can't be used ({str(error).splitlines()[0]}); take auto or cpu") from error
