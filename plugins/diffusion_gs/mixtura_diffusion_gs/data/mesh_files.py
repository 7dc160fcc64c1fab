"""Mesh files of users as `Mesh`: OBJ by our own reader, everything else by trimesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mixtura.errors import DataError
from mixtura_diffusion_gs.furniture.mesh import Material, Mesh, merged
from mixtura_diffusion_gs.furniture.obj import read_obj

Up = Literal["y", "z"]
UPRIGHT = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""Maps a world with y up, as most files have it, to z up."""


def read_mesh(path: Path, up: Up) -> Mesh:
    """The mesh of a file with z up. Raises DataError when it is missing, can't be read, or has no triangles."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such mesh file")
    mesh = _read_obj(path) if path.suffix.lower() == ".obj" else _read_other(path)
    if mesh is None or not len(mesh.triangles):
        raise DataError(f"{path}: the mesh is empty, it has no triangles to draw; export faces, not only points or lines")
    return mesh.transformed(UPRIGHT) if up == "y" else mesh


def _read_obj(path: Path) -> Mesh:
    def read(name: str) -> bytes | None:
        file = path.parent / name
        return file.read_bytes() if file.is_file() else None

    return read_obj(path.name, read)


def _read_other(path: Path) -> Mesh | None:
    """All parts of a file as one mesh, None when it has none."""
    try:
        import trimesh
    except ImportError:
        raise DataError(f"{path}: files other than OBJ are read with trimesh: pip install trimesh") from None
    try:
        scene: Any = trimesh.load(str(path), force="scene")
        parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    except Exception as error:  # every format has errors of its own
        raise DataError(f"{path}: can't be read as a mesh ({type(error).__name__}: {error})") from error
    return merged([_part(part) for part in parts]) if parts else None


def _part(part: Any) -> Mesh:
    """One mesh of trimesh with its texture, colour, or colours of faces."""
    faces = np.asarray(part.faces)
    uvs, material = _textured(part, faces) if part.visual.kind == "texture" else _coloured(part, len(faces))
    normals = np.asarray(part.vertex_normals)[faces]
    return Mesh(np.asarray(part.vertices), faces, uvs, normals, np.zeros(len(faces), np.int32), (material,))


def _textured(part: Any, faces: NDArray[Any]) -> tuple[NDArray[Any], Material]:
    given = part.visual.uv
    uvs = np.zeros((len(faces), 3, 2)) if given is None else np.asarray(given)[faces]
    material = part.visual.material
    image = getattr(material, "baseColorTexture", None)
    image = getattr(material, "image", None) if image is None else image
    red, green, blue, alpha = (float(value) / 255 for value in np.asarray(material.main_color)[:4])
    texture = None if image is None or given is None else np.array(image.convert("RGBA"))
    return uvs, Material("texture", (red, green, blue), texture, 1.0 if texture is not None else alpha)


def _coloured(part: Any, count: int) -> tuple[NDArray[Any], Material]:
    """Colours of faces as a texture with one texel for each, so that no two of them are blended."""
    colours = np.asarray(part.visual.face_colors, np.uint8).reshape(-1, 4)
    side = int(np.ceil(np.sqrt(count)))
    texture = np.zeros((side * side, 4), np.uint8)
    texture[:count] = colours
    row, column = np.divmod(np.arange(count), side)
    middle = np.stack([(column + 0.5) / side, 1 - (row + 0.5) / side], 1)
    return np.repeat(middle[:, None], 3, 1), Material("faces", texture=texture.reshape(side, side, 4))
