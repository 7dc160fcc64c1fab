"""The furniture of Debian's package `sweethome3d-furniture`: what there is, who made it, and the meshes.

`catalogue()` lists the models, `find` picks one, `load` gives its mesh at its real size, `credit` the line that its licence asks
for. Models stay in the package's archives; nothing is unpacked to disk.
"""

from __future__ import annotations

import difflib
import functools
import posixpath
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixtura.errors import MixturaError

from .mesh import Array, Mesh
from .obj import Reader, read_obj

FOLDER = Path("/usr/share/sweethome3d/furniture")
PROPERTIES = "PluginFurnitureCatalog.properties"
ENTRY = re.compile(r"(\w+?)(?:#(\d+))?\s*=\s*(.*)")
LIMITS = "Share ?Alike|Non ?Commercial|No ?Derivatives"
NOTICE = re.compile(rf"Creative Commons (?:Zero|Attribution)(?:[ -]?(?:{LIMITS}))*(?: \d\.\d)?")
# Axes of the catalogue (x right, y up, z to the front) into ours (x right, y to the back, z up).
UPRIGHT = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])


class FurnitureError(MixturaError):
    """The models are missing, or none has the name that was asked for."""


@dataclass(frozen=True)
class Model:
    """One model of the catalogue.

    `key` is unique and ends in a short name (`Scopia#bed1`). `size` is width, depth and height, `elevation` how high it hangs
    above the floor, `top` how high above its own foot other things stand on it (None: nowhere), all in metres. `archive` and
    `path` say where the mesh lies, `turn` is the row-major 3x3 rotation that the catalogue asks for.
    """

    key: str
    name: str
    category: str
    creator: str
    licence: str
    size: tuple[float, float, float]
    elevation: float
    top: float | None
    archive: Path
    path: str
    turn: tuple[float, ...]


@functools.cache
def catalogue(folder: Path = FOLDER) -> tuple[Model, ...]:
    """All models, ordered by archive and number. Raises FurnitureError when the package is not installed."""
    archives = sorted(folder.glob("*.sh3f"))
    if not archives:
        raise FurnitureError(
            f"no furniture in {folder}: install Debian's package with "
            "`apt-get update && apt-get install -y --no-install-recommends sweethome3d-furniture`"
        )
    return tuple(model for archive in archives for model in _models(archive))


def find(which: str | int, folder: Path = FOLDER) -> Model:
    """A model by its number in the catalogue, its key, or its short name where only one has it.

    Raises FurnitureError when there is none such, or more than one.
    """
    models = catalogue(folder)
    if isinstance(which, int):
        if not 0 <= which < len(models):
            raise FurnitureError(f"no model number {which}: the catalogue has 0 to {len(models) - 1}")
        return models[which]
    fitting = [model for model in models if which in (model.key, model.key.partition("#")[2])]
    if len(fitting) == 1:
        return fitting[0]
    keys = [model.key for model in fitting or models]
    near = keys if fitting else difflib.get_close_matches(which, keys, 3, 0.3)
    raise FurnitureError(f"{'more than one' if fitting else 'no'} model is called {which!r}: take one of {', '.join(near)}")


def load(model: Model) -> Mesh:
    """The model at its real size: metres, z up, front towards -y, footprint centred on the origin, foot at z = 0.

    Raises FurnitureError when the archive lacks the model.
    """
    with zipfile.ZipFile(model.archive) as archive:
        try:
            mesh = read_obj(model.path, _reader(archive))
        except FileNotFoundError as error:
            raise FurnitureError(f"{model.archive}: {error}; reinstall sweethome3d-furniture") from error
    turned = mesh.transformed(_affine(UPRIGHT @ np.array(model.turn).reshape(3, 3)))
    low, high = turned.bounds
    extent = (high - low).astype(np.float64)
    scale = np.where(extent > 1e-9, np.array(model.size) / np.maximum(extent, 1e-9), 1.0)
    foot = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    return turned.transformed(_affine(np.diag(scale), -foot * scale))


def credit(model: Model) -> str:
    """One line that names the model, its maker, its licence and where it came from."""
    creator = model.creator or "an unnamed author"
    return f"{model.name} ({model.key}) by {creator}, {model.licence}, from sweethome3d-furniture (Debian)"


def _affine(linear: Array, offset: Array | None = None) -> Array:
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = 0.0 if offset is None else offset
    return matrix


def _reader(archive: zipfile.ZipFile) -> Reader:
    """Files of an archive by path; where the case differs, the one that is there."""
    names = {name.lower(): name for name in archive.namelist()}

    def read(path: str) -> bytes | None:
        name = names.get(posixpath.normpath(path).lstrip("/").lower())
        return archive.read(name) if name else None

    return read


def _models(path: Path) -> list[Model]:
    with zipfile.ZipFile(path) as archive:
        entries = _entries(archive.read(PROPERTIES).decode("latin-1"))
        library = entries.pop(0)
        notices = {posixpath.dirname(name): name for name in archive.namelist() if _is_notice(name)}
        return [_model(entry, library, path, _licence(archive, notices, entry)) for _, entry in sorted(entries.items())]


def _entries(text: str) -> dict[int, dict[str, str]]:
    """Properties by number; 0 holds those of the whole library."""
    entries: dict[int, dict[str, str]] = {0: {}}
    for line in text.splitlines():
        if not line.startswith("#") and (match := ENTRY.fullmatch(line.strip())):
            name, number, value = match.groups()
            entries.setdefault(int(number or 0), {})[name] = value.strip()
    return entries


def _is_notice(name: str) -> bool:
    return "licen" in posixpath.basename(name).lower() and name.lower().endswith((".txt", ".html"))


def _licence(archive: zipfile.ZipFile, notices: dict[str, str], entry: dict[str, str]) -> str | None:
    """The licence that the notice beside the model names: it binds where the library's own line says less."""
    notice = notices.get(posixpath.dirname(entry["model"].lstrip("/")))
    found = NOTICE.search(archive.read(notice).decode("utf-8", "replace")) if notice else None
    return found[0] if found else None


def _model(entry: dict[str, str], library: dict[str, str], archive: Path, licence: str | None) -> Model:
    width, depth, height = (float(entry[side]) / 100 for side in ("width", "depth", "height"))
    top = entry.get("dropOnTopElevation")
    return Model(
        key=f"{archive.stem}#{entry['id'].rpartition('#')[2]}",
        name=entry["name"].encode("latin-1").decode("unicode_escape"),
        category=entry["category"],
        creator=entry.get("creator", ""),
        licence=licence or " ".join(library["license"].split()),
        size=(width, depth, height),
        elevation=float(entry.get("elevation", 0)) / 100,
        top=height if top is None else None if float(top) < 0 else float(top) / 100,
        archive=archive,
        path=entry["model"].lstrip("/"),
        turn=tuple(float(word) for word in entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()),
    )
