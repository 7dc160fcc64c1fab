"""`Gaussians`: one scene as five tensors, and the standard 3DGS `.ply` for it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError
from torch import Tensor

from mixtura_splat.arguments import SH_COUNTS
from mixtura_splat.rasterize import Rendering, rasterize

CLOSEST = 1e-6
"""Opacities are kept this far from 0 and 1 in a file, which holds their logit."""


@dataclass(frozen=True)
class Gaussians:
    """N Gaussians with linear scales and opacities, as `rasterize` takes them. float32."""

    means: Tensor  # [N,3] world units
    quats: Tensor  # [N,4] (w, x, y, z)
    scales: Tensor  # [N,3] standard deviations, world units, > 0
    opacities: Tensor  # [N] in [0, 1]
    sh: Tensor  # [N,K,3] spherical harmonics, K = 1, 4, 9, 16 or 25

    def __len__(self) -> int:
        return self.means.shape[0]

    def to(self, device: torch.device | str) -> Gaussians:
        """The same on another device."""
        return Gaussians(*(getattr(self, field.name).to(device) for field in fields(self)))

    def render(self, viewmats: Tensor, Ks: Tensor, width: int, height: int, **options: Any) -> Rendering:  # noqa: N803
        """`rasterize` this scene: viewmats [V,4,4] or [4,4], Ks likewise; options as there."""
        return rasterize(self.means, self.quats, self.scales, self.opacities, viewmats, Ks, width, height, sh=self.sh, **options)

    def save_ply(self, path: str | Path) -> None:
        """Write the layout of 3D Gaussian Splatting (Kerbl et al. 2023), which viewers read: binary little-endian float32;
        opacity as logit, scales as logarithm, normals 0, f_rest channel by channel."""
        n, k = self.sh.shape[:2]
        opacity = self.opacities.double().clamp(CLOSEST, 1 - CLOSEST)
        columns = {
            **_columns(["x", "y", "z"], self.means),
            **_columns(["nx", "ny", "nz"], torch.zeros(n, 3)),
            **_columns([f"f_dc_{c}" for c in range(3)], self.sh[:, 0]),
            **_columns([f"f_rest_{i}" for i in range(3 * (k - 1))], self.sh[:, 1:].transpose(1, 2).reshape(n, -1)),
            "opacity": torch.log(opacity / (1 - opacity)),
            **_columns([f"scale_{c}" for c in range(3)], self.scales.double().clamp(min=1e-30).log()),
            **_columns([f"rot_{c}" for c in range(4)], self.quats),
        }
        rows = np.empty(n, dtype=[(name, "<f4") for name in columns])
        for name, column in columns.items():
            rows[name] = column.detach().cpu().numpy()
        PlyData([PlyElement.describe(rows, "vertex")], byte_order="<").write(str(path))

    @staticmethod
    def load_ply(path: str | Path) -> Gaussians:
        """Read such a file (ASCII or binary). Raises FileNotFoundError, or ValueError naming the file and what is wrong."""
        try:
            data = PlyData.read(str(path))
            rows = data["vertex"].data
        except (PlyParseError, KeyError, ValueError, UnicodeDecodeError, EOFError) as problem:
            raise ValueError(f"{path}: not a .ply file with vertices: {problem}") from None
        wanted = ["x", "y", "z", "opacity", *(f"scale_{c}" for c in range(3)), *(f"rot_{c}" for c in range(4))]
        missing = [name for name in [*wanted, *(f"f_dc_{c}" for c in range(3))] if name not in (rows.dtype.names or ())]
        if missing:
            raise ValueError(f"{path}: not a file of 3D Gaussians: the vertices lack {', '.join(missing)}")
        rest = sum(name.startswith("f_rest_") for name in rows.dtype.names)
        k = rest // 3 + 1
        if rest % 3 or k not in SH_COUNTS:
            raise ValueError(f"{path}: {rest} f_rest columns; 0, 9, 24, 45 or 72 belong to a whole degree")

        def read(names: list[str]) -> Tensor:
            columns = [rows[name].astype(np.float32) for name in names]
            return torch.from_numpy(np.stack(columns, -1).reshape(len(rows), len(names)))

        dc = read([f"f_dc_{c}" for c in range(3)])[:, None]
        tail = read([f"f_rest_{i}" for i in range(rest)]).reshape(-1, 3, k - 1).transpose(1, 2) if rest else dc[:, :0]
        return Gaussians(
            means=read(["x", "y", "z"]),
            quats=read([f"rot_{c}" for c in range(4)]),
            scales=read([f"scale_{c}" for c in range(3)]).exp(),
            opacities=torch.sigmoid(read(["opacity"])[:, 0]),
            sh=torch.cat([dc, tail], 1).contiguous(),
        )


def _columns(names: list[str], values: Tensor) -> dict[str, Tensor]:
    return dict(zip(names, values.unbind(-1), strict=True))
