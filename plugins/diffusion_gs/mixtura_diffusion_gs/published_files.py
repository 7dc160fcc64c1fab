"""Files of published DiffusionGS models: their names for tensors, what the weights don't say, reading and writing.

`read(path) -> Published` knows the three layouts that `published` lists, `write` makes them; `to_ours` and `to_published` rename.
Files are read with `weights_only=True` and mapped rather than copied.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mixtura.errors import CheckpointError
from mixtura_diffusion_gs.config import DEPTHS, DepthConfig, DiffusionGSConfig, Kind

State = dict[str, Tensor]

TOKENS = "gaussians_pos_embedding"
HEADS = ("upsampler.", "image_token_decoder.")
"""What lies below `decoders.KIND` in our names; all other names are the published ones."""
PREFIXES = ("shape_model.", "denoiser.")
"""What names begin with in a Lightning file and in an older one."""
LOSSES = "loss_computer."
MARK = "mixtura"
"""Our entry in a file, see `facts_of`."""


def to_ours(state: Mapping[str, Tensor], kind: Kind) -> State:
    """Names of our `Denoiser` from bare published ones."""
    ours = {f"decoders.{kind}.{name}" if name.startswith(HEADS) else name: tensor for name, tensor in state.items()}
    if TOKENS in ours:
        ours[TOKENS] = ours[TOKENS].flatten(0, -2)
    return ours


def to_published(state: Mapping[str, Tensor], kind: Kind) -> State:
    """Bare published names and shapes from those of our `Denoiser`; decoders of other kinds are left out."""
    mine = f"decoders.{kind}."
    kept = [name for name in state if name.startswith(mine) or not name.startswith("decoders.")]
    theirs = {name.removeprefix(mine): state[name] for name in kept}
    if kind == "scene":
        theirs[TOKENS] = theirs[TOKENS][None]
    return theirs


def _depth(rule: DepthConfig) -> dict[str, Any]:
    """What counts of a depth rule."""
    names = ("rule", "reach") if rule.rule == "centred" else ("rule", "near", "far")
    return {name: getattr(rule, name) for name in names}


def facts_of(config: DiffusionGSConfig, kind: Kind) -> dict[str, Any]:
    """How a system's network looks at the world of one kind, in values that JSON knows."""
    return {
        "kind": kind,
        "mirrored": kind == "object" and (config.mirrored or config.compat == "official"),
        "rays": config.rays[kind],
        "depth": _depth(config.depth[kind]),
        "head_dim": config.head_dim,
        "objective": config.objective,
    }


def published_facts(kind: Kind) -> dict[str, Any]:
    """The same of the published networks."""
    is_object = kind == "object"
    return {
        "kind": kind,
        "mirrored": is_object,
        "rays": "reference" if is_object else "pluecker",
        "depth": _depth(DEPTHS[kind]),
        "head_dim": 64,
        "objective": "diffusion",
    }


def disagreements(config: DiffusionGSConfig, facts: Mapping[str, Any]) -> list[str]:
    """Settings to change before weights with these facts make sense there."""
    kind, found = facts["kind"], []
    for name, own in facts_of(config, kind).items():
        wanted = facts.get(name, own)
        if wanted != own and name == "mirrored" and config.compat == "official":
            found.append("set `system.compat: fixed`: these weights know right-handed worlds")
        elif wanted != own:
            said, had = ({kind: wanted}, {kind: own}) if name in ("rays", "depth") else (wanted, own)
            found.append(f"set `system.{name}: {_yaml(said)}` (it is {_yaml(had)})")
    return found


def _yaml(value: Any) -> str:
    """A value as one writes it in a configuration."""
    return json.dumps(value).replace('"', "")


@dataclass(frozen=True)
class Published:
    """One file's network: `tensors` by bare published names, `facts` on it, names of what was left alone."""

    tensors: State
    facts: Mapping[str, Any]
    ignored: list[str]

    @property
    def kind(self) -> Kind:
        """object or scene."""
        kind: Kind = self.facts["kind"]
        return kind


def read(path: Path) -> Published:
    """A published file, or one of ours in a published layout. Raises CheckpointError."""
    path = Path(path)
    _check_file(path)
    if path.suffix == ".safetensors":
        named, mark = _read_safetensors(path)
    else:
        content = open_tensors(path)
        mark = content.get(MARK) if isinstance(content, Mapping) else None
        named = _named(path, content)
    tensors, ignored = _sorted(named)
    kind = _kind(path, tensors)
    facts = published_facts(kind)
    if isinstance(mark, Mapping):
        facts.update(mark)
    if facts["kind"] != kind:
        raise CheckpointError(f"{path}: says it holds a model of kind '{facts['kind']}', its free tokens are those of '{kind}'")
    return Published(tensors, facts, ignored)


def _check_file(path: Path) -> None:
    twin = averaged(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; name the file in it (obj_ckpt_512.ckpt, scene_ckpt_256.ckpt)")
    if not path.is_file():
        more = f"; there is {twin.name}, the averaged weights" if twin.is_file() else ""
        raise CheckpointError(f"{path}: no such file{more}")


def averaged(path: Path) -> Path:
    """Where the averaged weights to a Lightning file lie."""
    return path.with_name(f"{path.stem}-EMA{path.suffix}")


def open_tensors(path: Path) -> Any:
    """A .ckpt or .pt file as tensors and plain containers, mapped where its format (zip) allows that."""
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError):  # written before torch 1.6: no zip, no mapping
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CheckpointError(f"{path}: can't be read as a file of plain tensors ({str(error).splitlines()[0]})") from error


def _read_safetensors(path: Path) -> tuple[State, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            mark = (file.metadata() or {}).get(MARK)
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, json.loads(mark) if mark else None
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read as safetensors ({error})") from error


def _named(path: Path, content: Any) -> dict[str, Tensor]:
    """The tensors of a file by the names it has for them."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected tensors by name")
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _sorted(named: Mapping[str, Tensor]) -> tuple[State, list[str]]:
    """The denoiser's tensors by bare names, and names of the others: all outside a prefix if one is in use, losses always."""
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in named)), "")
    tensors, ignored = {}, []
    for name, tensor in named.items():
        bare = name.removeprefix(prefix)
        if not name.startswith(prefix) or bare.startswith(LOSSES):
            ignored.append(name)
        else:
            tensors[bare] = tensor
    return tensors, ignored


def _kind(path: Path, tensors: Mapping[str, Tensor]) -> Kind:
    tokens = tensors.get(TOKENS)
    if tokens is None:
        some = ", ".join(list(tensors)[:3]) or "nothing"
        raise CheckpointError(f"{path}: has no tensor '{TOKENS}', so it is no DiffusionGS model; it holds {some} …")
    if tokens.ndim == 2:
        return "object"
    if tokens.ndim == 3 and tokens.shape[0] == 1:
        return "scene"
    raise CheckpointError(f"{path}: '{TOKENS}' has shape {tuple(tokens.shape)}; (F, d) tells objects, (1, F, d) scenes")


def write(path: Path, tensors: State, facts: Mapping[str, Any]) -> None:
    """Write beside, then rename: a file is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({name: tensor.clone() for name, tensor in tensors.items()}, part, metadata={MARK: json.dumps(facts)})
    else:
        content: dict[str, Any] = {MARK: dict(facts), "state_dict": {PREFIXES[0] + n: t for n, t in tensors.items()}}
        if facts["kind"] == "object":
            content["model"] = {PREFIXES[1] + n: t for n, t in tensors.items()}
        torch.save(content, part)
    os.replace(part, path)
