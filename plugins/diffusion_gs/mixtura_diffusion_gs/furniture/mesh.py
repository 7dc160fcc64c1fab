"""Textured triangle meshes as plain values, and the few operations that scenes need.

`Mesh` holds arrays that nobody may write to, `merged` puts several into one, `quad` and `box` make the surfaces of rooms. Nothing
here reads files (see `obj`) or draws (see `render`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Colour = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Material:
    """How a surface looks: a plain colour, or a texture that takes its place.

    `diffuse` is RGB in 0..1, `texture` uint8 [H, W, 4] (RGBA, row 0 on top, alpha not multiplied in) or None, `opacity` in 0..1
    (it multiplies the texture's alpha).
    """

    name: str
    diffuse: Colour = (0.8, 0.8, 0.8)
    texture: NDArray[np.uint8] | None = None
    opacity: float = 1.0


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with textures.

    `vertices` float32 [V, 3], `triangles` int32 [F, 3], `uvs` float32 [F, 3, 2] (per corner, v upwards), `normals` float32
    [F, 3, 3] (per corner, unit length), `material_ids` int32 [F] into `materials`. Lengths are in whatever unit the maker of the
    mesh says, metres for models of the catalogue. Raises ValueError for arrays that don't fit together.
    """

    vertices: Array
    triangles: Ints
    uvs: Array
    normals: Array
    material_ids: Ints
    materials: tuple[Material, ...]

    def __post_init__(self) -> None:
        faces = len(self.triangles)
        expected = {
            "vertices": (np.float32, (len(self.vertices), 3)),
            "triangles": (np.int32, (faces, 3)),
            "uvs": (np.float32, (faces, 3, 2)),
            "normals": (np.float32, (faces, 3, 3)),
            "material_ids": (np.int32, (faces,)),
        }
        for name, (dtype, shape) in expected.items():
            array = np.array(getattr(self, name), dtype=dtype, order="C")
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        _check_range("triangles", self.triangles, len(self.vertices))
        _check_range("material_ids", self.material_ids, len(self.materials))

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest corner [3] of what the triangles use; zeros for a mesh without triangles."""
        if not len(self.triangles):
            return np.zeros(3, np.float32), np.zeros(3, np.float32)
        used = self.vertices[self.triangles.reshape(-1)]
        return used.min(0), used.max(0)

    def transformed(self, matrix: ArrayLike) -> Mesh:
        """This mesh after an affine map: `matrix` is 3x4 or 4x4, row-major, applied to column vectors."""
        affine = np.asarray(matrix, np.float64)
        linear, offset = affine[:3, :3], affine[:3, 3]
        # Cofactors instead of the inverse transpose: they also hold for a map that flattens the mesh.
        cofactors = np.stack([np.cross(linear[1], linear[2]), np.cross(linear[2], linear[0]), np.cross(linear[0], linear[1])])
        normals = self.normals.astype(np.float64) @ cofactors.T
        return replace(self, vertices=self.vertices @ linear.T + offset, normals=unit(normals))


def _check_range(name: str, indices: Ints, size: int) -> None:
    if len(indices) and not (indices.min() >= 0 and indices.max() < size):
        raise ValueError(f"{name} holds indices from {indices.min()} to {indices.max()}, expected 0 to {size - 1}")


def unit(vectors: Array) -> Array:
    """Vectors [..., 3] scaled to length 1; those of length 0 point up."""
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    up = np.zeros_like(vectors)
    up[..., 2] = 1.0
    return np.where(length > 1e-30, vectors / np.maximum(length, 1e-30), up)


def merged(meshes: Sequence[Mesh]) -> Mesh:
    """All meshes as one. Raises ValueError for an empty sequence."""
    if not meshes:
        raise ValueError("merged() needs at least one mesh")
    first_vertex = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    first_material = np.cumsum([0] + [len(mesh.materials) for mesh in meshes])
    return Mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([mesh.triangles + first for mesh, first in zip(meshes, first_vertex, strict=False)]),
        np.concatenate([mesh.uvs for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.material_ids + first for mesh, first in zip(meshes, first_material, strict=False)]),
        tuple(material for mesh in meshes for material in mesh.materials),
    )


def quad(origin: ArrayLike, right: ArrayLike, up: ArrayLike, material: Material, repeat: tuple[float, float] = (1, 1)) -> Mesh:
    """A parallelogram from its lower left corner and two edges [3]; the texture stands upright seen from its front.

    The front is the side that `right` x `up` points to; `repeat` says how often the texture fits along each edge.
    """
    corner, along, upward = (np.asarray(vector, np.float64) for vector in (origin, right, up))
    vertices = np.stack([corner, corner + along, corner + along + upward, corner + upward])
    normal = unit(np.cross(along, upward))
    uv = np.array([[0, 0], [repeat[0], 0], repeat, [0, repeat[1]]])
    triangles = np.array([[0, 1, 2], [0, 2, 3]])
    return Mesh(vertices, triangles, uv[triangles], np.broadcast_to(normal, (2, 3, 3)), np.zeros(2, np.int32), (material,))


def box(low: ArrayLike, high: ArrayLike, materials: Sequence[Material]) -> Mesh:
    """An upright box between two corners [3]; `materials` for -x, +x, -y, +y, bottom, top (or one for all)."""
    a, b = np.asarray(low, np.float64), np.asarray(high, np.float64)
    x, y, z = np.diag(b - a)
    sides = [(a + y, -y, z), (a + x, y, z), (a, x, z), (b - z, -x, z), (a + y, x, -y), (a + z, x, y)]
    chosen = list(materials) * (6 if len(materials) == 1 else 1)
    return merged([quad(*side, material) for side, material in zip(sides, chosen, strict=True)])


def placed(yaw: float, position: ArrayLike) -> Array:
    """The 4x4 map that turns by `yaw` radians about z, counter-clockwise from above, then moves to `position` [3]."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    matrix = np.eye(4)
    matrix[:2, :2] = [[cos, -sin], [sin, cos]]
    matrix[:3, 3] = np.asarray(position, np.float64)
    return matrix
