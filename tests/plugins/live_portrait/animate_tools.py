"""What the tests of animation share: random movements, tiny networks, drawn-up faces. Not a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from mixtura_live_portrait.animate.movement import Movement
from mixtura_live_portrait.animate.retarget import Small
from mixtura_live_portrait.faces.crop import Frame
from mixtura_live_portrait.faces.detector import Face
from mixtura_live_portrait.keypoints import Motion, rotation
from mixtura_live_portrait.nets import Networks
from mixtura_live_portrait.nets.sizes import TINY, Sizes

SMALL = replace(
    TINY, image=32, base=8, channels=4, depth=4, resblocks=1, motion_depths=(1, 1, 1, 1), motion_dims=(8, 16, 16, 32),
    dense_base=4, dense_max=16, dense_blocks=2, generator=16, middle=1, painted=8, shared=8, shuffle=2,
)  # fmt: skip
"""Networks that see 32 pixels and paint 64, in milliseconds."""
FIVE = np.array([[-0.5, -0.5], [0.5, -0.5], [0, 0], [-0.4, 0.6], [0.4, 0.6]], np.float32)
"""Eyes, nose, corners of the lips."""


def movement(frames: int, keypoints: int = 21, seed: int = 0) -> Movement:
    """Plausible random numbers."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    turned = rotation(*(20 * normal(3, frames)))
    scale = 1 + 0.3 * torch.rand(frames, 1, generator=draw)
    return Movement(normal(frames, keypoints, 3), turned, 0.1 * normal(frames, keypoints, 3), 0.1 * normal(frames, 3), scale)


FACTORS = {"fc_kp": 4, "fc_exp": 4, "fc_t": 2, "fc_scale": 2, "fc_pitch": 40, "fc_yaw": 40, "fc_roll": 40}
"""Makes of untrained heads, for which all faces are alike, some that see a difference."""


class TinyEngine:
    """Seven random networks as an `Engine`, without anything that makes them fast."""

    def __init__(self, sizes: Sizes = SMALL, seed: int = 0) -> None:
        torch.manual_seed(seed)
        networks = Networks(sizes).eval()
        with torch.no_grad():
            for name, factor in FACTORS.items():
                getattr(networks.motion.detector, name).weight.mul_(factor)
            for name in Small._fields:  # untrained, they change nothing
                torch.nn.init.normal_(networks.get_submodule(name).mlp[-1].weight, std=0.2)
        self.networks, self.sizes, self.device = networks, sizes, torch.device("cpu")
        self.small = Small(*(networks.get_submodule(name) for name in Small._fields))

    @torch.inference_mode()
    def volume(self, crops: Tensor) -> Tensor:
        return self.networks.appearance(crops)

    @torch.inference_mode()
    def motion(self, crops: Tensor) -> Motion:
        return Motion.of(self.networks.motion(crops))

    @torch.inference_mode()
    def animate(self, volume: Tensor, x_source: Tensor, x_driving: Tensor) -> Tensor:
        n = len(x_driving)
        out = self.networks.warping(volume.expand(n, *volume.shape[1:]), x_driving, x_source.expand(n, -1, -1)).out
        return self.networks.generator(out)


def face(x: float = 80, y: float = 80, size: float = 40) -> Face:
    """Five landmarks around a point; no lids, so no ratios."""
    return Face.of(FIVE * size + np.array([x, y], np.float32))


def face_68(x: float = 80, y: float = 80, size: float = 40, eyes: float = 0.3, lips: float = 0.2) -> Face:
    """68 landmarks of which eyes and lips are where they should be, open by these ratios; the rest lies around."""
    turn = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack([np.cos(turn), np.sin(turn)], -1)
    for start, centre in ((36, -0.5), (42, 0.5)):
        half = np.array([[-0.2, 0], [-0.1, -0.2 * eyes], [0.1, -0.2 * eyes], [0.2, 0], [0.1, 0.2 * eyes], [-0.1, 0.2 * eyes]])
        points[start : start + 6] = half + np.array([centre, -0.4])
    points[[48, 54]], points[[62, 66]] = [[-0.4, 0.6], [0.4, 0.6]], [[0, 0.6 - 0.4 * lips], [0, 0.6 + 0.4 * lips]]
    return Face.of((points * size + [x, y]).astype(np.float32))


class Fixed:
    """A detector that finds the same faces in every frame."""

    def __init__(self, *faces: Face) -> None:
        self.faces = list(faces)

    def find(self, frame: Frame) -> list[Face]:
        return list(self.faces)


def picture(seed: int = 0, height: int = 160, width: int = 200) -> Frame:
    """A frame that isn't grey anywhere and differs with the seed."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(rows / (7 + seed) + phase) + np.cos(columns / (11 - seed % 5) + phase) for phase in (0, 1 + seed, 2)]
    return (np.stack(waves, -1) * 60 + 127).astype(np.uint8)


def write_clip(path: Path, frames: list[Frame], fps: int = 25) -> Path:
    """An mp4 of frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "1", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path
