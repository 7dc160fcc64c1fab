"""The layout of published iFlyBot-VLA checkpoints (sheet section 12), read and written.

    vlm, head = read_checkpoint(path)                  # {"model": {"vlm", "action_head"}}, names made ours
    report = load_into(module, state, dry_run=False)   # Report(missing, unexpected, mismatched); raises unless it fits
    write_checkpoint(path, vlm.state_dict(), expert.state_dict())
    read_latent(path), write_latent(path, lam.state_dict())        # {"state_dict": {"lam.…"}}

Published names of the language model follow transformers up to 4.51 (`visual.…`, `model.…`), ours those since 4.52
(`model.visual.…`, `model.language_model.…`); both are read, the published ones are written. Names of older checkpoints are
mapped too. Files are read with `weights_only=True`.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixtura.errors import CheckpointError

State = dict[str, Tensor]

OLD_VLM = ((re.compile(r"^proprios\."), "proprios_embed."),)
OLD_HEAD = (
    (re.compile(r"^action_encoder\."), "action_embed."),
    (re.compile(r"^action_decoder\."), "action_out_proj."),
    (re.compile(r"^proprio_encoder\."), "proprio_embed."),
    (re.compile(r"^time_encoder\."), "time_mlp."),
    (re.compile(r"^net\.(\d+)\."), r"blocks.\1."),
)
TO_OURS = (
    (re.compile(r"^visual\."), "model.visual."),
    (re.compile(r"^model\.(?!visual\.|language_model\.)"), "model.language_model."),
)
TO_PUBLISHED = (
    (re.compile(r"^model\.visual\."), "visual."),
    (re.compile(r"^model\.language_model\."), "model."),
)
EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
LATENT_PREFIX = "lam."


@dataclass
class Report:
    """Names that a checkpoint lacks, has too many, or has in another shape (`name: found, expected`)."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether every tensor has its place."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = []
        for kind in ("missing", "unexpected", "mismatched"):
            names = getattr(self, kind)
            if names:
                shown = ", ".join(names[:8]) + (f", … {len(names) - 8} more" if len(names) > 8 else "")
                lines.append(f"{len(names)} {kind}: {shown}")
        return "; ".join(lines) or "every tensor fits"


def _rename(state: Mapping[str, Tensor], *rules: tuple[tuple[re.Pattern[str], str], ...]) -> State:
    """Apply the first rule that matches of each group to every name."""
    renamed: State = {}
    for name, tensor in state.items():
        for group in rules:
            for pattern, replacement in group:
                name, changed = pattern.subn(replacement, name)
                if changed:
                    break
        renamed[name] = tensor
    return renamed


def vlm_from_published(state: Mapping[str, Tensor]) -> State:
    """Names of ours from published ones (any age). The tied output layer is left out when it equals the embeddings."""
    ours = _rename(state, OLD_VLM, TO_OURS)
    head, embedding = ours.get(HEAD), ours.get(EMBEDDING)
    if head is not None and embedding is None:
        ours[EMBEDDING] = ours.pop(HEAD)
    elif head is not None and embedding is not None and (head is embedding or torch.equal(head, embedding)):
        del ours[HEAD]
    return ours


def vlm_to_published(state: Mapping[str, Tensor]) -> State:
    """Published names from ours, with the tied output layer written out."""
    theirs = _rename(state, TO_PUBLISHED)
    theirs[HEAD] = state[EMBEDDING]
    return theirs


def head_from_published(state: Mapping[str, Tensor]) -> State:
    """The action expert's names from those of older checkpoints; current ones are ours."""
    return _rename(state, OLD_HEAD)


def compare(module: nn.Module, state: Mapping[str, Tensor]) -> Report:
    """What would not fit if `state` were loaded into `module`."""
    own = module.state_dict()
    wrong = [
        f"{name}: {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    return Report([n for n in own if n not in state], [n for n in state if n not in own], wrong)


def load_into(module: nn.Module, state: Mapping[str, Tensor], dry_run: bool = False, what: str = "checkpoint") -> Report:
    """Load a state dict with our names, all of it or nothing; `dry_run` only reports. Raises CheckpointError."""
    report = compare(module, state)
    if dry_run:
        return report
    if not report.fits:
        raise CheckpointError(f"{what}: {report}. Does `system.size` (or vlm, expert, lam) match the checkpoint?")
    module.load_state_dict(dict(state))
    return report


def _read(path: Path) -> Any:
    """A .pt file as plain tensors and containers."""
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: cannot be read as a file of plain tensors ({str(error).splitlines()[0]})") from error


def _write(path: Path, content: Any) -> None:
    """Write beside, then rename: a file is complete or absent."""
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, part)
    os.replace(part, path)


def _tensors(path: Path, content: Any, *keys: str) -> State:
    """The state dict below `keys`, checked."""
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            raise CheckpointError(f"{path}: has no entry '{'.'.join(keys)}'; this is not the published layout")
        content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: '{'.'.join(keys)}' must hold named tensors")
    return dict(content)


def read_checkpoint(path: Path) -> tuple[State, State]:
    """State dicts of the language model and the action expert, with our names."""
    content = _read(path)
    vlm, head = _tensors(path, content, "model", "vlm"), _tensors(path, content, "model", "action_head")
    return vlm_from_published(vlm), head_from_published(head)


def write_checkpoint(path: Path, vlm: Mapping[str, Tensor], expert: Mapping[str, Tensor]) -> None:
    """Write both networks' state dicts in the published layout."""
    _write(Path(path), {"model": {"vlm": vlm_to_published(vlm), "action_head": dict(expert)}})


def holds_latent(path: Path) -> bool:
    """Whether a file is a latent action model rather than a policy."""
    content = _read(path)
    return isinstance(content, Mapping) and "state_dict" in content


def read_latent(path: Path) -> State:
    """State dict of the latent action model (names of `LatentActionModel`)."""
    state = _tensors(path, _read(path), "state_dict")
    named = {name.removeprefix(LATENT_PREFIX): t for name, t in state.items() if name.startswith(LATENT_PREFIX)}
    if not named:
        raise CheckpointError(f"{path}: no name begins with '{LATENT_PREFIX}'; this is not a latent action model")
    return named


def write_latent(path: Path, lam: Mapping[str, Tensor]) -> None:
    """Write a `LatentActionModel`'s state dict, or a `LatentActions`' (whose counters are left out), as published."""
    inner = {n.removeprefix(LATENT_PREFIX): t for n, t in lam.items() if n.startswith(LATENT_PREFIX)} or lam
    _write(Path(path), {"state_dict": {LATENT_PREFIX + name: tensor for name, tensor in inner.items()}})
