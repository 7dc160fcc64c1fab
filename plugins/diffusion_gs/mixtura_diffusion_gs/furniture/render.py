"""Pictures, depths and normals of a mesh by tracing rays on one CPU core (Embree).

Cameras follow OpenCV: x right, y down, z forward, `viewmat` maps world to camera (4x4, row-major), `K` is
[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels, the centre of the first pixel is (0.5, 0.5). Light is ambient and Lambert's, from
fixed directions, and has no highlights or shadows: a point looks the same from everywhere, but for textures that blur where they
are finer than the rays. Surfaces are lit on the side that is seen. Colours are taken as the textures hold them (sRGB), without
gamma.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixtura.errors import MixturaError

from .mesh import Array, Colour, Ints, Mesh, unit
from .texels import Texels

try:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene
except ImportError:  # said by Renderer
    EmbreeScene = None

OPAQUE = 0.99  # a ray ends once it has met this much
SOLID = 0.5  # depth and normal are those where a ray has met this much
STEP = 1e-4  # a ray goes on behind a surface this far, relative to its way so far


@dataclass(frozen=True)
class Lights:
    """Ambient light, and lamps at infinity as (direction towards the lamp, strength). 1 in all makes white look white."""

    ambient: float = 0.5
    lamps: tuple[tuple[tuple[float, float, float], float], ...] = (((0.35, -0.7, 0.65), 0.5), ((-0.6, 0.5, 0.35), 0.2))

    def on(self, normals: Array) -> Array:
        """Brightness [N] of white surfaces with unit normals [N, 3]."""
        light = np.full(len(normals), self.ambient, np.float32)
        for direction, strength in self.lamps:
            towards = np.float32(strength) * unit(np.array(direction, np.float32))
            light += np.maximum(normals @ towards, 0)
        return light


@dataclass(frozen=True, eq=False)
class Picture:
    """What a camera sees: `rgb` float32 [H, W, 3] in 0..1 over the background, `alpha` [H, W] in 0..1.

    `depth` [H, W] is along z, in the unit of the mesh, of the nearest sample of each pixel, 0 where nothing is; `normals`
    [H, W, 3] belong to the same samples, in world axes, facing the camera, 0 where nothing is. For both, a surface is where a ray
    has met half an opaque one: clear glass is nothing.
    """

    rgb: Array
    alpha: Array
    depth: Array
    normals: Array


class Renderer:
    """Draws one mesh. Raises MixturaError when the ray tracer is not installed."""

    def __init__(self, mesh: Mesh, lights: Lights | None = None, background: Colour = (1.0, 1.0, 1.0)) -> None:
        if EmbreeScene is None:
            raise MixturaError("furniture is drawn with Embree: pip install embreex")
        self.mesh, self.lights, self.background = mesh, lights or Lights(), np.array(background, np.float32)
        self.texels = Texels(mesh.materials)
        self.density = _texel_density(mesh, self.texels)
        self.scene = EmbreeScene()
        if len(mesh.triangles):
            TriangleMesh(self.scene, mesh.vertices, mesh.triangles)

    def render(
        self, viewmat: ArrayLike, intrinsics: ArrayLike, width: int, height: int, samples: int = 2, layers: int = 16
    ) -> Picture:
        """One picture, each pixel the mean of `samples` x `samples` rays.

        A ray goes through up to `layers` surfaces that are not opaque and blends them from front to back.
        """
        if min(width, height, samples, layers) < 1:
            raise ValueError(f"size {width}x{height}, {samples} samples and {layers} layers must all be at least 1")
        camera, matrix = np.asarray(viewmat, np.float64), np.asarray(intrinsics, np.float64)
        rays = _camera_rays(camera, matrix, width, height, samples)
        origin = -camera[:3, :3].T @ camera[:3, 3]
        spread = 1 / (samples * np.sqrt(matrix[0, 0] * matrix[1, 1]))
        found = self._trace(np.broadcast_to(origin.astype(np.float32), rays.shape), rays, np.float32(spread), layers)
        return _pooled(*found, self.background, height, width, samples)

    def distances(self, origins: Array, directions: Array) -> Array:
        """How far [N] rays from `origins` [N, 3] along `directions` [N, 3] go, in lengths of the direction; inf for ever."""
        far = self.scene.run(np.array(origins, np.float32), np.array(directions, np.float32), query="DISTANCE")
        return np.where(far > 1e36, np.inf, far)

    def _trace(self, origins: Array, rays: Array, spread: np.float32, layers: int) -> tuple[Array, Array, Array, Array]:
        """Colour [N, 3] times alpha, alpha [N], depth [N] and normals [N, 3] of rays whose direction has depth 1."""
        count = len(rays)
        rgb, depth, normals = np.zeros((count, 3), np.float32), np.zeros(count, np.float32), np.zeros((count, 3), np.float32)
        passing = np.ones(count, np.float32)
        for at, way, hit in self._layers(origins, rays, passing, layers):
            colour, alpha, normal = self._surface(hit, way, rays[at], spread)
            rgb[at] += passing[at, None] * colour
            before = passing[at]
            after = passing[at] = before * (1 - alpha)
            is_solid = (before > 1 - SOLID) & (after <= 1 - SOLID)
            depth[at[is_solid]], normals[at[is_solid]] = way[is_solid], normal[is_solid]
        return rgb, 1 - passing, depth, normals

    def _layers(
        self, origins: Array, rays: Array, passing: Array, layers: int
    ) -> Iterator[tuple[Ints, Array, dict[str, NDArray[Any]]]]:
        """Surface by surface: the rays that hit one, how far they came, and what Embree says.

        `passing` is what each ray still lets through; the caller updates it between surfaces.
        """
        at, way = np.arange(len(rays)), np.zeros(len(rays), np.float32)
        for _ in range(layers if len(self.mesh.triangles) else 0):
            start = origins[at] + way[:, None] * rays[at] if way.any() else origins
            hit = self.scene.run(np.ascontiguousarray(start, np.float32), rays[at], output=1)
            is_hit = np.flatnonzero(hit["primID"] >= 0)
            at, way = at[is_hit], way[is_hit] + hit["tfar"][is_hit]
            yield at, way, {name: hit[name][is_hit] for name in ("primID", "u", "v", "Ng")}
            goes_on = passing[at] > 1 - OPAQUE
            at, way = at[goes_on], way[goes_on] * np.float32(1 + STEP)
            if not len(at):
                return

    def _surface(self, hit: dict[str, NDArray[Any]], way: Array, rays: Array, spread: np.float32) -> tuple[Array, Array, Array]:
        """Colour [N, 3] times alpha, alpha [N] and normals [N, 3] facing the camera."""
        face, material = hit["primID"], self.mesh.material_ids[hit["primID"]]
        weights = np.stack([1 - hit["u"] - hit["v"], hit["u"], hit["v"]], 1)
        uv = np.einsum("nc,nci->ni", weights, self.mesh.uvs[face])
        normal = unit(np.einsum("nc,nci->ni", weights, self.mesh.normals[face]))
        flat = unit(hit["Ng"])
        slope = np.einsum("ni,ni->n", flat, rays)
        # The stored normal may point either way: turn it to the side of the face that is seen.
        is_away = np.einsum("ni,ni->n", flat, normal) * slope > 0
        normal[is_away] *= -1
        seen = np.maximum(np.abs(slope) / np.sqrt(np.einsum("ni,ni->n", rays, rays)), np.float32(0.05))
        colour, alpha = self.texels.look_up(material, uv, self.density[face] * way * spread / np.sqrt(seen))
        return colour * self.lights.on(normal)[:, None], alpha, normal


def _camera_rays(viewmat: Array, matrix: Array, width: int, height: int, samples: int) -> Array:
    """Directions [height * samples * width * samples, 3] in world axes, each as long as to have depth 1."""
    x = ((np.arange(width * samples) + 0.5) / samples - matrix[0, 2]) / matrix[0, 0]
    y = ((np.arange(height * samples) + 0.5) / samples - matrix[1, 2]) / matrix[1, 1]
    across, down, forward = viewmat[:3, :3]
    rays = x[None, :, None] * across + y[:, None, None] * down + forward
    return np.ascontiguousarray(rays.reshape(-1, 3), np.float32)


def _pooled(
    rgb: Array, alpha: Array, depth: Array, normals: Array, background: Array, height: int, width: int, samples: int
) -> Picture:
    """Samples to pixels: the mean of colours and alphas, depth and normal of the nearest sample."""

    def by_pixel(array: Array) -> Array:
        split = array.reshape(height, samples, width, samples, -1)
        return split.transpose(0, 2, 1, 3, 4).reshape(height, width, samples * samples, -1)

    coverage = by_pixel(alpha).mean(2)[..., 0]
    colour = by_pixel(rgb).mean(2) + (1 - coverage[..., None]) * background
    far = by_pixel(np.where(depth > 0, depth, np.inf))[..., 0]
    nearest = far.argmin(2)[..., None]
    closest = np.take_along_axis(far, nearest, 2)[..., 0]
    facing = np.take_along_axis(by_pixel(normals), nearest[..., None], 2)[:, :, 0]
    return Picture(np.clip(colour, 0, 1), np.clip(coverage, 0, 1), np.where(np.isfinite(closest), closest, 0), facing)


def _texel_density(mesh: Mesh, texels: Texels) -> Array:
    """Texels per unit of length on each triangle [F], the same along both axes."""
    a, b, c = (mesh.vertices[mesh.triangles[:, corner]] for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    (ux, uy), (vx, vy) = (mesh.uvs[:, corner].T - mesh.uvs[:, 0].T for corner in (1, 2))
    texels_in_face = np.abs(ux * vy - uy * vx) * texels.size(mesh.material_ids)
    density: Array = np.sqrt(texels_in_face / np.maximum(area, 1e-20)).astype(np.float32)
    return density
