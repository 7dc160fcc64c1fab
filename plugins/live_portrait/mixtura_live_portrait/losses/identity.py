"""Whose face it is: an ArcFace network (Deng et al. 2019) whose weights are given as a file of tensors.

The layout is that of ArcFace's PyTorch code, "iresnet" of 18 to 100 layers; which one is told by the names in the file. Such
weights are often for research only: theirs is the licence to read. Without them the term `identity` is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from mixtura.errors import CheckpointError
from mixtura_live_portrait.published import open_file

WIDTHS = (64, 128, 256, 512)
EPSILON = 1e-5
SIDE, LEAST = 112, 7
"""Side of the faces that it sees, and of its last map."""


class Block(nn.Module):
    """Norm, convolution, norm, PReLU, convolution, norm, plus the input: (b, c, h, w) -> (b, c', h/stride, w/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, EPSILON)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, EPSILON)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, EPSILON)
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs, EPSILON)
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return inner + (x if self.downsample is None else self.downsample(x))


class ArcFace(nn.Module):
    """Faces (b, 3, 112, 112) in 0..1 -> embeddings (b, 512); people are told apart by the cosine."""

    side = SIDE

    def __init__(self, depths: tuple[int, ...], embedding: int = 512) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0], EPSILON)
        self.prelu = nn.PReLU(WIDTHS[0])
        before = WIDTHS[0]
        for number, (depth, width) in enumerate(zip(depths, WIDTHS, strict=True), 1):
            blocks = [Block(before if i == 0 else width, width, 2 if i == 0 else 1) for i in range(depth)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            before = width
        self.bn2 = nn.BatchNorm2d(before, EPSILON)
        self.fc = nn.Linear(before * LEAST * LEAST, embedding)
        self.features = nn.BatchNorm1d(embedding, EPSILON)

    def forward(self, faces: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(2 * faces - 1)))
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


def load_arcface(path: Path) -> ArcFace:
    """The network of a file, frozen. Raises CheckpointError for files that hold another one."""
    if not path.is_file():
        raise CheckpointError(f"identity: no file {path}; give ArcFace's weights, or use `type: none`")
    content = open_file(path)
    state = content if isinstance(content, Mapping) else {}
    if isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    tensors = {str(name).removeprefix("module."): value for name, value in state.items() if isinstance(value, Tensor)}
    depths = tuple(_depth(tensors, number) for number in range(1, len(WIDTHS) + 1))
    if not all(depths):
        raise CheckpointError(
            f"identity: {path} isn't an ArcFace network: expected tensors called layer1.0.conv1.weight to layer4.…, found "
            f"{', '.join(list(tensors)[:3]) or 'none'}"
        )
    network = ArcFace(depths)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"identity: {path} doesn't fit: {str(error).splitlines()[1].strip()}") from error
    return network.requires_grad_(False).eval()


def _depth(tensors: Mapping[str, Tensor], number: int) -> int:
    """Blocks of a layer, by the names."""
    found = [match for name in tensors if (match := re.match(rf"layer{number}\.(\d+)\.conv1\.weight$", name))]
    return len(found)
