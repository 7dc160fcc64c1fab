"""Published LivePortrait checkpoints: five files in a folder, loaded, saved, looked at.

    load(networks, folder)              # all of it or nothing; raises CheckpointError
    dry_run(sizes, folder)              # what fits and what doesn't, in words, nothing filled
    save(networks, folder)

`networks` is any module with the seven children appearance, motion, warping, generator, stitching, eyes, lips. Read are the
official folders of humans (`liveportrait`) and animals (`liveportrait_animals`; base_models_v1.1 goes before base_models), the
same five names in one flat folder, and `.safetensors` for `.pth`. Animals without small networks of their own take those of
the humans' folder beside them. Pickles are read with `weights_only=True`: nothing in them runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixtura.errors import CheckpointError
from mixtura_live_portrait.nets import NETWORKS, Networks
from mixtura_live_portrait.nets.sizes import Sizes

State = dict[str, Tensor]

BASE = {
    "appearance": "appearance_feature_extractor",
    "motion": "motion_extractor",
    "warping": "warping_module",
    "generator": "spade_generator",
}
"""Our name -> published file below `base_models`."""
SMALL = {"stitching": "retarget_shoulder", "lips": "retarget_mouth", "eyes": "retarget_eye"}
"""Our name -> entry of the one file that holds the small networks."""
SMALL_FILE = "stitching_retargeting_module"
BASE_FOLDERS = ("base_models_v1.1", "base_models", "")
SMALL_FOLDERS = ("retargeting_models", "", "../liveportrait/retargeting_models")
HOLDERS = ("liveportrait", "liveportrait_animals")
"""What the folders are called in the published collection."""
ENDINGS = (".pth", ".safetensors")
SHOWN = 5


@dataclass
class Report:
    """What files and networks have against each other, as `FILE: name`; `mismatched` adds `: found, expected`."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether every tensor has its place."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = []
        for title in ("missing", "unexpected", "mismatched"):
            names = getattr(self, title)
            if names:
                more = f", … {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                lines.append(f"{len(names)} {title}: {', '.join(names[:SHOWN])}{more}")
        return "; ".join(lines) or "every tensor fits"


def load(networks: nn.Module, path: Path) -> dict[str, list[str]]:
    """Fill the networks from a published folder (or any of its files' names); raises CheckpointError and fills nothing otherwise.

    Returns the lists of a `Report`, all empty.
    """
    found = read(path)
    report = compare(networks, found)
    if not report.fits:
        raise CheckpointError(f"{path}: doesn't fit the configured networks: {report}; does `system.size` match the checkpoint?")
    with torch.no_grad():
        for name, (_, state) in found.items():
            own = networks.get_submodule(name).state_dict()
            for key, tensor in state.items():
                own[key].copy_(tensor)
    return {"missing": report.missing, "unexpected": report.unexpected, "mismatched": report.mismatched}


def dry_run(networks: nn.Module | Sizes, path: Path) -> str:
    """What `load` would find; networks may lie on the meta device. Raises CheckpointError for files that can't be used."""
    if isinstance(networks, Sizes):
        with torch.device("meta"):
            networks = Networks(networks)
    return str(compare(networks, read(path)))


def compare(networks: nn.Module, found: Mapping[str, tuple[Path, State]]) -> Report:
    """What doesn't fit between networks and what `read` gave."""
    report = Report()
    for name, (file, state) in found.items():
        own = networks.get_submodule(name).state_dict()
        where = f"{file.name}: {SMALL[name]}." if name in SMALL else f"{file.name}: "
        report.missing += [where + key for key in own if key not in state]
        report.unexpected += [where + key for key in state if key not in own]
        report.mismatched += [
            f"{where}{key}: {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ]
    return report


def read(path: Path) -> dict[str, tuple[Path, State]]:
    """The file and the tensors of each of the seven networks, by our names for them. Raises CheckpointError."""
    folder = _folder(Path(path))
    files = {name: _find(folder, stem, BASE_FOLDERS) for name, stem in BASE.items()}
    small = _find(folder, SMALL_FILE, SMALL_FOLDERS)
    lost = [stem for (name, stem) in BASE.items() if files[name] is None] + ([] if small else [SMALL_FILE])
    if lost:
        raise CheckpointError(
            f"{folder}: {', '.join(f'{stem}.pth' for stem in lost)} not found; expected base_models/ and retargeting_models/ as "
            "published, or the five files side by side"
        )
    found = {name: (file, _bare(_tensors(file, open_file(file)))) for name, file in files.items() if file}
    assert small
    content = open_file(small)
    found |= {name: (small, _small(small, content, entry)) for name, entry in SMALL.items()}
    return {name: found[name] for name in NETWORKS}


def _folder(path: Path) -> Path:
    """The folder that holds a model, from its own name, that of a file in it, or that of a collection."""
    if path.is_file():
        is_nested = path.parent.name.startswith(("base_models", "retargeting_models"))
        path = path.parent.parent if is_nested else path.parent
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder; give the published folder liveportrait or liveportrait_animals")
    inner = [path / name for name in HOLDERS if (path / name).is_dir()]
    if len(inner) > 1:
        raise CheckpointError(f"{path}: holds {' and '.join(folder.name for folder in inner)}; name one of the two")
    return inner[0] if inner else path


def _find(folder: Path, stem: str, places: tuple[str, ...]) -> Path | None:
    """The first file of that name in any of the places."""
    candidates = (folder / place / (stem + ending) for place in places for ending in ENDINGS)
    return next((file for file in candidates if file.is_file()), None)


def open_file(path: Path) -> Any:
    """Tensors and plain containers of a .pth or .safetensors file, mapped rather than copied where the format allows."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # a broken or hostile file may raise anything
        said = str(error).splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path}: can't be read as a file of plain tensors ({said[0]}); nothing was loaded") from error


def _is_zip(path: Path) -> bool:
    """Whether a pickle can be mapped; those from before torch 1.6 can't."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _tensors(path: Path, content: Any, what: str = "the file") -> State:
    """Named plain tensors, checked so that copying them later can't fail half-way."""
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path}: {what} is {type(content).__name__}, expected tensors by name")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: '{name}' in {what} is {type(value).__name__}, expected tensors by name")
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta:
            raise CheckpointError(f"{path}: '{name}' in {what} is no plain tensor of real numbers")
    return {str(name): value for name, value in content.items()}


def _bare(state: State, prefix: str = "module.") -> State:
    """Names without the prefix that training on several devices leaves, where all have it."""
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _small(path: Path, content: Any, entry: str) -> State:
    """One small network's tensors: below an entry of its own, or by names that begin with it (safetensors)."""
    if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
        return _bare(_tensors(path, content[entry], f"'{entry}'"))
    named = content if isinstance(content, Mapping) else {}
    pattern = re.compile(rf"{entry}(_module)?\.")
    state = {pattern.sub("", str(name), count=1): value for name, value in named.items() if pattern.match(str(name))}
    if not state:
        held = ", ".join(map(str, named)) if len(named) < SHOWN else f"{len(named)} other names"
        raise CheckpointError(f"{path}: has no entry '{entry}'; it holds {held or 'nothing'}")
    return _bare(_tensors(path, state, f"'{entry}'"))


def save(networks: nn.Module, path: Path) -> None:
    """Write the published folder; of a file's name the ending is left off. Each file is complete or absent."""
    folder = Path(path).with_suffix("") if Path(path).suffix in (".pt", *ENDINGS) else Path(path)
    for name, state in _published(networks):
        target = folder / f"{name}.pth"
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        torch.save(state, part)
        os.replace(part, target)


def _published(networks: nn.Module) -> Iterator[tuple[str, Any]]:
    """File names below the folder, each with what it holds."""

    def state(name: str) -> State:
        return {key: tensor.detach().cpu().clone() for key, tensor in networks.get_submodule(name).state_dict().items()}

    for name, stem in BASE.items():
        yield f"base_models/{stem}", state(name)
    yield f"retargeting_models/{SMALL_FILE}", {entry: state(name) for name, entry in SMALL.items()}
