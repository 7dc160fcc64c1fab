"""Polygons to triangles, and normals for meshes that come without.

`triangulate` cuts polygons of any size, also those with hollow corners; `smooth_normals` averages the normals of neighbours but
keeps edges sharper than the crease angle.
"""

from __future__ import annotations

import numpy as np

from .mesh import Array, Ints, unit

CREASE = np.cos(np.radians(60.0))


def triangulate(polygons: Array) -> Ints:
    """Cut polygons of the same size [P, N, 3] (N >= 3, each nearly flat) into triangles [P, N - 2, 3] of corner numbers."""
    count, size = polygons.shape[:2]
    fan = np.stack([np.zeros(size - 2, np.int64), np.arange(1, size - 1), np.arange(2, size)], 1)
    triangles = np.tile(fan, (count, 1, 1))
    if size == 3:
        return triangles
    following = np.roll(polygons, -1, 1)
    normals = np.cross(polygons - polygons[:, :1], following - polygons[:, :1]).sum(1)
    turns = np.einsum("pni,pi->pn", np.cross(polygons - np.roll(polygons, 1, 1), following - polygons), normals)
    is_hollow = turns < -1e-9 * np.einsum("pi,pi->p", normals, normals)[:, None]
    if size == 4:
        triangles[is_hollow[:, 1] | is_hollow[:, 3]] = [[1, 2, 3], [1, 3, 0]]
        return triangles
    for polygon in np.flatnonzero(is_hollow.any(1)):
        triangles[polygon] = _cut_ears(_flat(polygons[polygon], normals[polygon]))
    return triangles


def _flat(points: Array, normal: Array) -> list[tuple[float, float]]:
    """Corners in the two axes along which the polygon is widest, counter-clockwise."""
    axis = int(np.abs(normal).argmax())
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    if normal[axis] < 0:
        first, second = second, first
    return [(float(point[first]), float(point[second])) for point in points]


def _cut_ears(corners: list[tuple[float, float]]) -> list[tuple[int, int, int]]:
    left = list(range(len(corners)))
    triangles = []
    while len(left) > 3:
        ear = next((i for i in range(len(left)) if _is_ear(corners, left, i)), 0)  # a tangled polygon loses corner 0
        triangles.append((left[ear - 1], left[ear], left[(ear + 1) % len(left)]))
        del left[ear]
    return [*triangles, (left[0], left[1], left[2])]


def _is_ear(corners: list[tuple[float, float]], left: list[int], i: int) -> bool:
    before, tip, after = left[i - 1], left[i], left[(i + 1) % len(left)]
    a, b, c = corners[before], corners[tip], corners[after]
    if _turn(a, b, c) <= 0:
        return False
    others = (corners[j] for j in left if j not in (before, tip, after))
    return not any(
        point not in (a, b, c) and _turn(a, b, point) >= 0 and _turn(b, c, point) >= 0 and _turn(c, a, point) >= 0
        for point in others
    )


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def face_normals(vertices: Array, triangles: Ints) -> Array:
    """Normals [F, 3] as long as twice the triangles' areas."""
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def smooth_normals(vertices: Array, triangles: Ints, groups: Ints) -> Array:
    """Unit normals [F, 3, 3] per corner.

    Triangles of the same smoothing group [F] share normals at a common vertex unless they meet at more than 60 degrees; group 0
    stays flat.
    """
    area = face_normals(vertices, triangles)
    flat = unit(area)
    normals = np.repeat(flat[:, None], 3, 1)
    corners = np.flatnonzero(np.repeat(groups != 0, 3))
    if not len(corners):
        return normals
    shared = triangles.reshape(-1)[corners].astype(np.int64) * (int(groups.max()) + 1) + np.repeat(groups, 3)[corners]
    order = np.argsort(shared, kind="stable")
    corners, shared = corners[order], shared[order]
    starts = np.flatnonzero(np.r_[True, shared[1:] != shared[:-1]])
    sizes = np.diff(np.r_[starts, len(shared)])
    # Every corner with every other corner of its group, as flat lists.
    size, start = np.repeat(sizes, sizes), np.repeat(starts, sizes)
    mine = np.repeat(np.arange(len(corners)), size)
    other = np.arange(len(mine)) - np.repeat(np.cumsum(size) - size, size) + np.repeat(start, size)
    faces = corners // 3
    close = np.einsum("ij,ij->i", flat[faces[mine]], flat[faces[other]]) > CREASE
    mine, weights = mine[close], area[faces[other[close]]]
    total = np.stack([np.bincount(mine, weights[:, axis], len(corners)) for axis in range(3)], 1)
    is_set = np.einsum("ij,ij->i", total, total) > 1e-24
    normals.reshape(-1, 3)[corners[is_set]] = unit(total[is_set])
    return normals
