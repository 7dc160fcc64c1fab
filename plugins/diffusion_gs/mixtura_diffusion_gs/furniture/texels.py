"""All textures of a mesh in one array, so that a million points are looked up at once.

Every texture is kept at full size and at each half of it down to one texel; plain colours are textures of one texel. Lookups are
bilinear and wrap around. Colours are multiplied by alpha, so that what a picture hides behind alpha 0 never bleeds in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .mesh import Array, Ints, Material


class Texels:
    """The textures of `materials`; see `look_up`."""

    def __init__(self, materials: Sequence[Material]) -> None:
        known: dict[int, list[NDArray[np.uint8]]] = {}
        chains = []
        for material in materials:
            if material.texture is None:
                chains.append([_plain(material)])
                continue
            if id(material.texture) not in known:
                known[id(material.texture)] = _halvings(material.texture)
            chains.append(known[id(material.texture)])
        self.opacity = np.array([material.opacity for material in materials], np.float32)
        self.levels = np.array([len(chain) for chain in chains])
        self.first = np.cumsum(self.levels) - self.levels
        sizes = np.array([level.shape[:2] for chain in chains for level in chain], np.int64).reshape(-1, 2)
        self.height, self.width = sizes.T.astype(np.int32)
        self.start, self.flat = _packed([level for chain in chains for level in chain])

    def size(self, material_ids: Ints) -> Array:
        """Texels [N] in the full picture of each material [N]."""
        level = self.first[material_ids]
        size: Array = (self.width[level] * self.height[level]).astype(np.float32)
        return size

    def look_up(self, material_ids: Ints, uv: Array, texels: Array) -> tuple[Array, Array]:
        """Colours [N, 3] times alpha and alphas [N], both 0..1, at texture points [N, 2].

        `texels` [N] says how many texels of the full picture a sample covers along one axis: it picks the level to read.
        """
        level = np.rint(np.log2(np.maximum(texels, 1.0))).astype(np.int64)
        entry = self.first[material_ids] + np.minimum(level, self.levels[material_ids] - 1)
        width, height, start = self.width[entry], self.height[entry], self.start[entry]
        x = (uv[:, 0] - np.floor(uv[:, 0])) * width - np.float32(0.5)
        y = (np.ceil(uv[:, 1]) - uv[:, 1]) * height - np.float32(0.5)  # row 0 is on top, v points up
        left, top = np.floor(x), np.floor(y)
        wx, wy = (x - left)[:, None], (y - top)[:, None]
        columns = _wrapped(left.astype(np.int32), width)
        rows = [start + row.astype(np.int64) * width for row in _wrapped(top.astype(np.int32), height)]
        upper, lower = (self._texel(row + columns[0]) * (1 - wx) + self._texel(row + columns[1]) * wx for row in rows)
        rgba = (upper * (1 - wy) + lower * wy) * (self.opacity[material_ids] / np.float32(255))[:, None]
        return rgba[:, :3], rgba[:, 3]

    def _texel(self, index: Ints) -> Array:
        texels: Array = self.flat[index].view(np.uint8).reshape(-1, 4).astype(np.float32)
        return texels


def _wrapped(index: Ints, size: Ints) -> tuple[Ints, Ints]:
    """Indices from -1 to size - 1 and their successors, both brought into 0..size - 1."""
    following = index + 1
    return np.where(index < 0, size - 1, index), np.where(following >= size, 0, following)


def _plain(material: Material) -> NDArray[np.uint8]:
    return np.array([[[*(round(255 * channel) for channel in material.diffuse), 255]]], np.uint8)


def _halvings(texture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The picture with colours times alpha, then at half, quarter, ... of its size down to one texel."""
    alpha = texture[..., 3:].astype(np.uint16)
    colours = ((texture[..., :3] * alpha + 127) // 255).astype(np.uint8)
    levels = [np.concatenate([colours, texture[..., 3:]], 2)]
    while max(levels[-1].shape[:2]) > 1:
        height, width = levels[-1].shape[:2]
        # RGBX: Pillow must not think that the fourth channel is alpha and multiply once more.
        image = Image.frombuffer("RGBX", (width, height), levels[-1].tobytes(), "raw", "RGBX", 0, 1)
        smaller = image.resize((max(width // 2, 1), max(height // 2, 1)), Image.Resampling.BOX)
        levels.append(np.frombuffer(smaller.tobytes(), np.uint8).reshape(smaller.height, smaller.width, 4))
    return levels


def _packed(levels: Sequence[NDArray[np.uint8]]) -> tuple[Ints, NDArray[np.uint32]]:
    """Where each picture starts, and all texels in a row, four bytes each; a picture that comes twice is kept once."""
    starts, parts, kept, end = [], [], {}, 0
    for level in levels:
        if id(level) not in kept:
            kept[id(level)] = end
            parts.append(np.ascontiguousarray(level).reshape(-1).view(np.uint32))
            end += len(parts[-1])
        starts.append(kept[id(level)])
    return np.array(starts, np.int64), np.concatenate(parts) if parts else np.zeros(0, np.uint32)
