"""Images with cameras: the `Views` that `fit` takes, and a reader of transforms.json (the layout of NeRF and its heirs)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Views:
    """V posed images of one size; float32."""

    images: Tensor  # [V,H,W,3] in [0, 1], not multiplied by alpha
    viewmats: Tensor  # [V,4,4] world to camera, OpenCV
    ks: Tensor  # [V,3,3] pixels
    alphas: Tensor | None = None  # [V,H,W] in [0, 1]; None: everything counts

    def __post_init__(self) -> None:
        v = len(self.images)
        if self.images.ndim != 4 or self.images.shape[3] != 3:
            raise ValueError(f"images: [V, H, W, 3] is needed, got {list(self.images.shape)}")
        for name, tensor, shape in (("viewmats", self.viewmats, (v, 4, 4)), ("ks", self.ks, (v, 3, 3))):
            if tuple(tensor.shape) != shape:
                raise ValueError(f"{name}: {list(shape)} is needed for {v} images, got {list(tensor.shape)}")
        if self.alphas is not None and self.alphas.shape != self.images.shape[:3]:
            raise ValueError(f"alphas: {list(self.images.shape[:3])} is needed, got {list(self.alphas.shape)}")

    def __getitem__(self, index: Tensor) -> Views:
        alphas = None if self.alphas is None else self.alphas[index]
        return Views(self.images[index], self.viewmats[index], self.ks[index], alphas)

    def to(self, device: torch.device | str) -> Views:
        """The same on another device."""
        alphas = None if self.alphas is None else self.alphas.to(device)
        return Views(self.images.to(device), self.viewmats.to(device), self.ks.to(device), alphas)

    def hold_out(self, every: int) -> tuple[Views, Views | None]:
        """(the rest, every `every`th view); all and None for 0."""
        if every <= 0:
            return self, None
        index = torch.arange(len(self.images), device=self.images.device)
        return self[index[index % every != 0]], self[index[index % every == 0]]


def load_transforms(path: str | Path) -> Views:
    """Read transforms.json (or the folder with it): `frames` with file_path and transform_matrix (camera to world, OpenGL
    axes), intrinsics fl_x, fl_y, cx, cy (pixels) for all or for each frame, or camera_angle_x (radians). RGBA images give
    masks. Raises ValueError naming the file, the frame and the key.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "transforms.json"
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file; a transforms.json, or the folder that has one, is needed")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        frames = data["frames"]
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise ValueError(f"{file}: not JSON: {problem}") from None
    except (KeyError, TypeError):
        raise ValueError(f'{file}: no list "frames"') from None
    if not frames:
        raise ValueError(f'{file}: "frames" is empty')
    parts = [_frame(file, i, frame, data) for i, frame in enumerate(frames)]
    sizes = {part[0].shape[:2] for part in parts}
    if len(sizes) > 1:
        raise ValueError(f"{file}: images of different sizes {sorted(sizes)}; one size (height, width) is needed")
    images, poses, ks = (torch.stack([part[i] for part in parts]) for i in range(3))
    masked = images.shape[-1] == 4 and bool((images[..., 3] < 1).any())
    return Views(images[..., :3].contiguous(), poses, ks, images[..., 3].contiguous() if masked else None)


def _frame(file: Path, index: int, frame: dict[str, Any], shared: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    from PIL import Image

    where = f"{file}: frame {index}"
    try:
        name = frame["file_path"]
        pose = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
    except (KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"{where}: file_path and a 4 x 4 transform_matrix are needed ({problem})") from None
    if pose.shape != (4, 4) or not torch.isfinite(pose).all():
        raise ValueError(f"{where}: transform_matrix: 4 x 4 finite numbers are needed, got shape {list(pose.shape)}")
    image_path = (file.parent / name).resolve()
    if not image_path.suffix:
        image_path = image_path.with_suffix(".png")
    if not image_path.is_relative_to(file.parent.resolve()):
        raise ValueError(f"{where}: file_path {name!r} leaves the folder of {file.name}")
    if not image_path.is_file():
        raise ValueError(f"{where}: there is no image {image_path}")
    with Image.open(image_path) as picture:
        pixels = np.asarray(picture.convert("RGBA"), dtype=np.float32) / 255
    height, width = pixels.shape[:2]
    flipped = pose @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))  # OpenGL camera axes -> OpenCV
    viewmat = torch.linalg.inv(flipped).float()
    return torch.from_numpy(pixels), viewmat, _intrinsics(where, {**shared, **frame}, width, height)


def _intrinsics(where: str, values: dict[str, Any], width: int, height: int) -> Tensor:
    if "fl_x" in values:
        fx = float(values["fl_x"])
    elif "camera_angle_x" in values:
        fx = 0.5 * width / math.tan(0.5 * float(values["camera_angle_x"]))
    else:
        raise ValueError(f"{where}: no intrinsics: fl_x (pixels) or camera_angle_x (radians) is needed")
    fy = float(values.get("fl_y", fx))
    cx, cy = float(values.get("cx", width / 2)), float(values.get("cy", height / 2))
    if not (fx > 0 and fy > 0):
        raise ValueError(f"{where}: focal lengths must be positive, got fl_x={fx} and fl_y={fy}")
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32)
