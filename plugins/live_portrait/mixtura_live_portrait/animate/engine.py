"""What animation needs of the networks: `Engine`. `mixtura_live_portrait.fast` makes one of any seven networks."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

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
