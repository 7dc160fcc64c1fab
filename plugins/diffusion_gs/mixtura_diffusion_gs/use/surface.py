"""A mesh of Gaussians: depth pictures of many views, fused, and the surface where the fused distance is zero.

Meshes lie in the frame of their Gaussians (objects: z up, the condition camera on the -y side; scenes: the scene frame, x right,
y down, z ahead of the mean camera). Only `.glb` files are turned, for glTF wants y up: there the condition camera of an object
stands on the +z side, as viewers expect it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixtura.errors import ConfigError, DataError
from mixtura_diffusion_gs.cameras import orbit
from mixtura_diffusion_gs.use.cleaning import y_up
from mixtura_diffusion_gs.use.depths import SOLID, Views, points_of, seen_from
from mixtura_diffusion_gs.use.fusion import TRUNCATION, Volume
from mixtura_diffusion_gs.use.trajectories import Cameras
from mixtura_splat import Gaussians

FORMATS = (".glb", ".ply", ".obj")
MARGIN = 0.03
"""Room around the Gaussians, as a share of their extent."""
SMALL = 0.02
"""Connected parts with fewer faces than this share of the largest part's are dropped."""
GOLDEN = 137.50776
"""Degrees that the azimuth turns from one view of the sphere to the next."""


class Mesh(NamedTuple):
    """A triangle mesh; faces are counter-clockwise seen from outside."""

    vertices: NDArray[np.float32]
    """(P, 3), world units."""
    faces: NDArray[np.int64]
    """(F, 3)."""
    colours: NDArray[np.uint8]
    """(P, 3) sRGB."""


def object_mesh(
    scene: Gaussians,
    resolution: int = 128,
    views: int = 40,
    size: int = 256,
    faces: int = 100_000,
    is_official: bool = False,
) -> Mesh:
    """The surface of an object, closed, from `views` views around it of `size` pixels.

    `resolution` voxels lie along the longest side; at most about `faces` faces are left. Raises DataError where there is no
    surface.
    """
    low, high = _bounds(scene.means[scene.opacities > 0.1] if bool((scene.opacities > 0.1).any()) else scene.means, 0.002)
    centre, reach = (low + high) / 2, float((high - low).norm()) / 2
    heights = np.linspace(1, -1, views + 2)[1:-1]
    # Fibonacci's sphere; at this distance a field of view of 50 degrees holds the whole.
    distance = reach / np.sin(np.deg2rad(24))
    c2w, intrinsics = orbit([GOLDEN * i for i in range(views)], np.rad2deg(np.arcsin(heights)).tolist(), distance, 50.0, size)
    c2w[:, :3, 3] += centre
    seen = seen_from(scene, Cameras(c2w, intrinsics), size, is_official)
    return _simplified(_extracted(seen, low, high, resolution, True), faces)


def scene_mesh(
    scene: Gaussians,
    cameras: Cameras,
    seen: int,
    resolution: int = 128,
    size: int = 256,
    faces: int = 100_000,
    is_official: bool = False,
) -> Mesh:
    """The surface of a scene where cameras see it, open at what they don't see; intrinsics belong to `seen` pixels.

    The rest as in `object_mesh`.
    """
    views = seen_from(scene, cameras._replace(intrinsics=cameras.intrinsics * (size / seen)), size, is_official)
    points = points_of(views)
    if len(points) < 3:
        raise _nothing(float(views.alpha.max()))
    low, high = _bounds(points, 0.02)
    return _simplified(_extracted(views, low, high, resolution, False), faces)


def _bounds(points: Tensor, outside: float) -> tuple[Tensor, Tensor]:
    """Corners (3,) of a box around points (P, 3) but for the share `outside` at either end of each axis."""
    ordered = points.float().sort(0).values
    skipped = int(outside * len(points))
    low, high = ordered[skipped], ordered[len(points) - 1 - skipped]
    room = MARGIN * (high - low).max().clamp(min=1e-3)
    return low.cpu() - room, high.cpu() + room


def _extracted(views: Views, low: Tensor, high: Tensor, resolution: int, is_closed: bool) -> Mesh:
    from scipy.ndimage import binary_erosion
    from skimage.measure import marching_cubes

    room = TRUNCATION * float((high - low).max()) / resolution
    volume = Volume(low - room, high + room, resolution)
    volume.fuse(views)
    values, is_known = (tensor.numpy() for tensor in volume.filled(is_closed))
    if is_closed:
        for axis in range(3):  # nothing is solid at the very edge, so the surface ends before it
            edge = values.swapaxes(0, axis)
            edge[0] = edge[-1] = 1
    else:
        # Next to voxels that no view tells anything of, a surface would be made up.
        is_known = binary_erosion(is_known, np.ones((3, 3, 3), bool))
    try:
        vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="descent", mask=is_known)
    except (ValueError, RuntimeError) as error:  # what it says of a volume without a zero
        raise _nothing(float(views.alpha.max())) from error
    vertices, faces = _large_parts(vertices, faces.astype(np.int64))
    points = volume.low + torch.from_numpy(vertices.astype(np.float32)) * volume.step
    return Mesh(points.numpy(), faces, _colours(volume, points))


def _nothing(alpha: float) -> DataError:
    return DataError(
        f"no surface found: the most opaque pixel has alpha {alpha:.2f}, {SOLID} are needed in many; the Gaussians are too faint "
        "or too scattered for a mesh, so use the .ply, or train longer"
    )


def _large_parts(vertices: NDArray[Any], faces: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Without small connected parts, and without vertices that no face uses."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    links = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(vertices),) * 2)
    _, part = connected_components(links, directed=False)
    sizes = np.bincount(part[faces[:, 0]])
    faces = faces[sizes[part[faces[:, 0]]] >= SMALL * sizes.max()]
    used, flat = np.unique(faces, return_inverse=True)
    return vertices[used], flat.reshape(-1, 3).astype(np.int64)


def _colours(volume: Volume, points: Tensor) -> NDArray[np.uint8]:
    """Colours (P, 3) of vertices; where the volume has none, those of the nearest vertex that has one."""
    from scipy.spatial import cKDTree

    colours, is_known = (tensor.numpy() for tensor in volume.colours(points))
    if not is_known.any():
        colours = np.full_like(colours, 0.5)
    elif not is_known.all():
        _, nearest = cKDTree(points.numpy()[is_known]).query(points.numpy()[~is_known])
        colours[~is_known] = colours[is_known][nearest]
    rounded: NDArray[np.uint8] = np.round(colours * 255).astype(np.uint8)
    return rounded


def _simplified(mesh: Mesh, faces: int) -> Mesh:
    """With about `faces` faces, if there are more."""
    from fast_simplification import simplify
    from scipy.spatial import cKDTree

    if len(mesh.faces) <= faces:
        return mesh
    vertices, kept = simplify(mesh.vertices, mesh.faces.astype(np.int32), target_count=faces)[:2]
    _, nearest = cKDTree(mesh.vertices).query(vertices)
    return Mesh(vertices.astype(np.float32), kept.astype(np.int64), mesh.colours[nearest])


# -- files --------------------------------------------------------------------------------------------------------


def save_mesh(mesh: Mesh, path: Path, kind: str = "object") -> None:
    """Write a .glb (y up; colours linear, as glTF has them), .ply or .obj (frame of the Gaussians, colours sRGB).

    trimesh reads the colours of the .glb with `skip_materials=True` only; other programs have no such trouble. The file has
    its name only when complete. Raises ConfigError for other endings.
    """
    import trimesh

    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: a mesh is written as {', '.join(FORMATS)}")
    vertices, colours = mesh.vertices, mesh.colours
    if path.suffix == ".glb":
        # Objects have z up; in the scene frame y points down and z ahead, so half a turn about x puts them upright.
        points = torch.from_numpy(vertices)
        turned = y_up(points) if kind == "object" else points * points.new_tensor([1, -1, -1])
        vertices, colours = turned.numpy(), _linear(colours)
    made = trimesh.Trimesh(vertices, mesh.faces, vertex_colors=colours, process=False)
    if path.suffix == ".glb":
        content: Any = made.export(file_type="glb", tree_postprocessor=_matt)
    else:
        content = made.export(file_type=path.suffix[1:])
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.rename(path)


def _linear(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """sRGB as linear light."""
    share = colours / 255
    light = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.round(light * 255).astype(np.uint8)


def _matt(tree: dict[str, Any]) -> None:
    """Give all parts of a glTF tree a material without gloss: glTF's own default is polished metal."""
    tree["materials"] = [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}, "doubleSided": True}]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive["material"] = 0
