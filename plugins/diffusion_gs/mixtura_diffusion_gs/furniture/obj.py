"""Wavefront OBJ and MTL files into `Mesh`, forgiving where files in the wild are odd.

Understood: `v vt vn f s usemtl mtllib`, negative indices, corners as `1`, `1/2`, `1//3`, `1/2/3`, polygons of any size, several
material files, lines continued with a backslash, and of materials `Kd d Tr map_Kd` (with the picture's alpha; a picture takes the
place of `Kd`). A missing material file, material, texture or index leaves a grey or untextured surface; faces with fewer than
three corners, points outside the file or numbers that are not finite are left out. Lines, curves and everything else is skipped.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .mesh import Array, Colour, Ints, Material, Mesh, unit
from .polygons import smooth_normals, triangulate

Reader = Callable[[str], bytes | None]
Corner = tuple[int, int, int]


@dataclass
class _Soup:
    """What the lines of an OBJ file say, indices counted from 0 and -1 for none."""

    points: list[list[float]] = field(default_factory=list)
    uvs: list[list[float]] = field(default_factory=list)
    normals: list[list[float]] = field(default_factory=list)
    corners: list[Corner] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    material_ids: list[int] = field(default_factory=list)
    material_names: dict[str, int] = field(default_factory=lambda: {"": 0})  # number 0: faces before any `usemtl`
    libraries: list[str] = field(default_factory=list)


def read_obj(path: str, read: Reader) -> Mesh:
    """The mesh of an OBJ file, in the file's own axes and unit.

    `read` gives the bytes of a path, or None when there is no such file; material files and textures are looked for beside the
    file that names them. Raises FileNotFoundError when `path` itself is missing.
    """
    data = read(path)
    if data is None:
        raise FileNotFoundError(f"{path} is missing")
    soup = _parse(data)
    folder = posixpath.dirname(path)
    library: dict[str, Material] = {}
    for name in soup.libraries:
        library |= read_materials(posixpath.join(folder, name), read)
    return _build(soup, tuple(library.get(name, Material(name)) for name in soup.material_names))


def _lines(data: bytes) -> Iterator[list[str]]:
    """Lines split into words, without comments."""
    for line in data.decode("utf-8", "replace").replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        if (words := line.split()) and not words[0].startswith("#"):
            yield words


class _Corners(dict[str, Corner]):
    """Indices of point, texture point and normal by the word that names them; words repeat, so each is read once."""

    def __init__(self, soup: _Soup) -> None:
        self.tables = (soup.points, soup.uvs, soup.normals)

    def __missing__(self, word: str) -> Corner:
        parts = [*word.split("/"), "", ""][:3]
        point, uv, normal = (_index(part, len(table)) for part, table in zip(parts, self.tables, strict=True))
        if "-" not in word:  # counted from the end, the same word means another point later on
            self[word] = (point, uv, normal)
        return point, uv, normal


def _index(word: str, count: int) -> int:
    try:
        number = int(word) if word else 0
    except ValueError:
        number = 0
    return number - 1 if number > 0 else max(count + number, -1) if number < 0 else -1


def _parse(data: bytes) -> _Soup:
    soup = _Soup()
    corners = _Corners(soup)
    material = group = 0
    for words in _lines(data):
        kind = words[0]
        if kind == "v":
            soup.points.append(_numbers(words[1:4], 3))
        elif kind == "f":
            soup.corners += [corners[word] for word in words[1:]]
            soup.sizes.append(len(words) - 1)
            soup.groups.append(group)
            soup.material_ids.append(material)
        elif kind == "vt":
            soup.uvs.append(_numbers(words[1:3], 2))
        elif kind == "vn":
            soup.normals.append(_numbers(words[1:4], 3))
        elif kind == "s":
            group = _smoothing(words[1:])
        elif kind == "usemtl":
            material = soup.material_names.setdefault(" ".join(words[1:]), len(soup.material_names))
        elif kind == "mtllib":
            soup.libraries.append(" ".join(words[1:]))
    return soup


def _numbers(words: list[str], count: int) -> list[float]:
    try:
        values = list(map(float, words))
    except ValueError:
        values = [float("nan")] * count
    return values + [0.0] * (count - len(values))


def _smoothing(words: list[str]) -> int:
    return int(words[0]) if words and words[0].isdigit() else int(words[:1] == ["on"])


def _build(soup: _Soup, materials: tuple[Material, ...]) -> Mesh:
    points = np.array(soup.points, np.float64).reshape(-1, 3)
    corners = np.array(soup.corners, np.int64).reshape(-1, 3)
    chosen, faces = _triangles(soup, points, corners)
    picked = corners[chosen]  # [F, 3 corners, 3 kinds of index]
    triangles = picked[..., 0]
    groups = np.array(soup.groups, np.int64)[faces]
    normals = smooth_normals(points, triangles, groups)
    uvs, _ = _looked_up(np.array(soup.uvs, np.float64).reshape(-1, 2), picked[..., 1])
    given, has_normal = _looked_up(np.array(soup.normals, np.float64).reshape(-1, 3), picked[..., 2])
    has_normal &= np.einsum("fci,fci->fc", given, given) > 1e-12
    normals[has_normal] = unit(given[has_normal])
    return Mesh(points, triangles, uvs, normals, np.array(soup.material_ids, np.int64)[faces], materials)


def _triangles(soup: _Soup, points: Array, corners: Ints) -> tuple[Ints, Ints]:
    """Triangles [F, 3] of corner numbers and the polygon [F] each comes from, without broken polygons and empty triangles."""
    sizes = np.array(soup.sizes, np.int64)
    starts = np.cumsum(sizes) - sizes
    is_known = (corners[:, 0] >= 0) & (corners[:, 0] < len(points))
    is_known[is_known] = np.isfinite(points[corners[is_known, 0]]).all(1)
    broken = np.r_[0, np.cumsum(~is_known)]
    is_good = (sizes >= 3) & (broken[starts + sizes] == broken[starts])
    parts, faces = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for size in np.unique(sizes[is_good]):
        these = np.flatnonzero(is_good & (sizes == size))
        parts.append(triangulate(points[corners[starts[these, None] + np.arange(size), 0]]) + starts[these, None, None])
        faces.append(np.repeat(these, size - 2))
    return _ordered(np.concatenate([part.reshape(-1, 3) for part in parts]), np.concatenate(faces), corners[:, 0])


def _ordered(chosen: Ints, faces: Ints, index: Ints) -> tuple[Ints, Ints]:
    """Triangles in the order of the file, without those that use a point twice."""
    order = np.argsort(faces, kind="stable")
    chosen, faces = chosen[order], faces[order]
    point = index[chosen]
    is_real = (point[:, 0] != point[:, 1]) & (point[:, 1] != point[:, 2]) & (point[:, 2] != point[:, 0])
    return chosen[is_real], faces[is_real]


def _looked_up(table: Array, index: Ints) -> tuple[Array, NDArray[np.bool_]]:
    """Rows of `table`, zeros where the index is out of range or the row not finite, and where there was a row."""
    is_given = (index >= 0) & (index < len(table))
    rows = np.zeros((*index.shape, table.shape[1]))
    rows[is_given] = table[index[is_given]]
    is_given &= np.isfinite(rows).all(-1)
    rows[~is_given] = 0.0
    return rows, is_given


def read_materials(path: str, read: Reader) -> dict[str, Material]:
    """Materials of an MTL file by name; empty when the file is missing."""
    blocks: dict[str, dict[str, list[str]]] = {}
    block: dict[str, list[str]] = {}
    for words in _lines(read(path) or b""):
        if words[0] == "newmtl":
            block = blocks[" ".join(words[1:])] = {}
        else:
            block[words[0].lower()] = words[1:]
    folder = posixpath.dirname(path)
    return {name: _material(name, block, folder, read) for name, block in blocks.items()}


def _material(name: str, block: dict[str, list[str]], folder: str, read: Reader) -> Material:
    diffuse = _numbers(block.get("kd", ["0.8"] * 3)[:3], 3)
    red, green, blue = (min(max(value, 0.0), 1.0) if np.isfinite(value) else 0.8 for value in diffuse)
    opacity = _numbers(block["d"][-1:], 1)[0] if "d" in block else 1.0 - _numbers(block.get("tr", ["0"])[:1], 1)[0]
    colour: Colour = (red, green, blue)
    texture = _texture(block.get("map_kd"), folder, read)
    return Material(name, colour, texture, min(max(opacity, 0.0), 1.0) if np.isfinite(opacity) else 1.0)


def _texture(words: list[str] | None, folder: str, read: Reader) -> NDArray[np.uint8] | None:
    """The picture of a `map_Kd` line, uint8 [H, W, 4], or None when it is missing or broken."""
    name = _file_name(words or []).replace("\\", "/")
    data = read(posixpath.normpath(posixpath.join(folder, name))) if name else None
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _file_name(words: list[str]) -> str:
    """What is left of a map line without its options (`-s 1 1 1`, `-clamp on`, ...); names may hold blanks."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 1
        while at < len(words) - 1 and (words[at] in ("on", "off") or words[at].lstrip("-").replace(".", "", 1).isdigit()):
            at += 1
    return " ".join(words[at:])
