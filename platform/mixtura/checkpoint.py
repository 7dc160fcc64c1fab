"""Checkpoints: complete or absent, safe to open, small where they can be.

A folder `step-NNNNNN` is written as `step-NNNNNN.tmp`, flushed to disk, given a `DONE` file with sizes and
SHA-256 sums, and renamed. Tensors lie in safetensors, everything else in JSON and YAML: opening one runs no code.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mixtura.config import dump, load
from mixtura.config.schema import RunConfig
from mixtura.errors import CheckpointError
from mixtura.plugins import registry
from mixtura.rng import key64
from mixtura.system import System

Tensors = Mapping[str, Tensor]


# -- writing -------------------------------------------------------------------------------------------------
def save(
    run: Path, step: int, tensors: Mapping[str, Tensors], trainer: Mapping[str, Any], config: RunConfig, assets: Path
) -> Path:
    """Write the checkpoint after `step` steps; `tensors` maps file names (model, ema, optim) to tensors.

    Raises CheckpointError when the disk is full or can't be written; what was saved before stays as it is.
    """
    final = run / f"step-{step:06d}"
    temporary = run / f"step-{step:06d}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, content in tensors.items():
            write_weights(temporary, content, name)
        (temporary / "trainer.json").write_text(json.dumps(trainer))
        (temporary / "config.yaml").write_text(dump(config))
        if assets.exists():
            shutil.copytree(assets, temporary / "assets")
        write_done(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _flush(run)
        _point(run, final.name)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # safetensors tells a full disk by its own kind of error, in words
        full = getattr(error, "errno", None) == errno.ENOSPC or "no space left" in str(error).lower()
        if not full and not isinstance(error, OSError):
            raise
        kept = newest(run)
        last = f"the run can go on from {kept.name} with --resume" if kept else "there is no earlier checkpoint"
        raise CheckpointError(f"{final}: can't save, {'the disk is full' if full else error}. Free some space; {last}") from error
    return final


def write_weights(folder: Path, tensors: Tensors, name: str = "model") -> None:
    """Tensors to `folder`/`name`.safetensors."""
    save_file(_contiguous(tensors), folder / f"{name}.safetensors")


def _contiguous(tensors: Tensors) -> dict[str, Tensor]:
    """Tensors on the CPU; of tensors that share memory (tied weights) only the first is kept."""
    kept: dict[str, Tensor] = {}
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in tensors.items():
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        kept[name] = tensor.detach().cpu().contiguous().clone()
    return kept


def write_done(folder: Path) -> None:
    """Flush all files of a folder to disk, then list them with sizes and sums in `DONE`."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[str(path.relative_to(folder))] = {"size": path.stat().st_size, "sha256": digest(path)}
        _flush(path)
    done = folder / "DONE"
    done.write_text(json.dumps({"files": files}, indent=1))
    _flush(done)
    _flush(folder)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _point(run: Path, name: str) -> None:
    link = run / "latest.tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(run / "latest")


def tidy(run: Path, keep: int, keep_every: int | None) -> None:
    """Delete old checkpoints: the `keep` newest stay, and those at multiples of `keep_every`."""
    for path in complete(run)[: -max(keep, 1)]:
        if not keep_every or int(path.name[5:]) % keep_every:
            shutil.rmtree(path)


# -- reading -------------------------------------------------------------------------------------------------
def complete(run: Path) -> list[Path]:
    """Finished checkpoints of a run, oldest first."""
    return sorted(p for p in run.glob("step-*") if not p.name.endswith(".tmp") and (p / "DONE").exists())


def newest(run: Path) -> Path | None:
    """The newest finished checkpoint whose files are all there in full size."""
    for path in reversed(complete(run)):
        try:
            verify(path, sums=False)
            return path
        except CheckpointError:
            continue
    return None


def verify(path: Path, sums: bool = True) -> None:
    """Raise CheckpointError when a file of the checkpoint is missing, cut short or (with `sums`) changed."""
    try:
        files = json.loads((path / "DONE").read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a finished checkpoint ({error})") from error
    for name, facts in files.items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing; choose another checkpoint of the run")
        if file.stat().st_size != facts["size"]:
            raise CheckpointError(
                f"{file}: {file.stat().st_size} bytes, {facts['size']} were written; choose another checkpoint of the run"
            )
        if sums and digest(file) != facts["sha256"]:
            raise CheckpointError(f"{file}: its content has changed since it was written; choose another checkpoint of the run")


def tensors(path: Path, name: str) -> dict[str, Tensor]:
    """Tensors of one file of a checkpoint; empty when it has no such file."""
    file = path / f"{name}.safetensors"
    return load_file(file) if file.exists() else {}


def build_system(config: RunConfig, seed: int) -> System:
    """The system of a configuration, its weights drawn from the seed alone."""
    cls = registry().get("system", config.system.type)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key64(seed, "init"))
        system: System = cls(config.system)
    return system


def load_weights(system: nn.Module, weights: Tensors, where: str) -> None:
    """Load all weights; raises CheckpointError naming what doesn't fit. Tied copies that were left out are not missing."""
    own = system.state_dict()
    tied = {name for name, tensor in own.items() if name not in weights and _is_tied(name, tensor, own, weights)}
    missing = [name for name in own if name not in weights and name not in tied]
    unexpected = [name for name in weights if name not in own]
    shapes = [
        f"{n}: {tuple(weights[n].shape)}, not {tuple(own[n].shape)}"
        for n in own
        if n in weights and weights[n].shape != own[n].shape
    ]
    if missing or unexpected or shapes:
        lines = (
            [f"  missing: {n}" for n in missing[:5]]
            + [f"  unexpected: {n}" for n in unexpected[:5]]
            + [f"  shape of {s}" for s in shapes[:5]]
        )
        raise CheckpointError(f"{where}: the weights don't fit the configured system:\n" + "\n".join(lines))
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)


def _is_tied(name: str, tensor: Tensor, own: Tensors, weights: Tensors) -> bool:
    return tensor.numel() == 0 or any(
        other in weights and own[other].data_ptr() == tensor.data_ptr() and own[other].shape == tensor.shape
        for other in own
        if other != name
    )


def init_from(system: System, path: Path) -> str:
    """Take the weights that fit from another run, or all of a published file; returns what was taken and left, by part."""
    if path.is_file():
        return take_published(system, path)
    folder = locate(path)
    weights = {**tensors(folder, "model"), **tensors(folder, "ema")}
    own = system.state_dict()
    fitting = {n: w for n, w in weights.items() if n in own and own[n].shape == w.shape}
    if not fitting:
        raise CheckpointError(f"init_from: no tensor of {folder} fits the configured system")
    with torch.no_grad():
        for name, tensor in fitting.items():
            own[name].copy_(tensor)
    lines = [f"init_from {folder}: {len(fitting)} of {len(own)} tensors taken"]
    reshaped = [n for n in weights if n in own and own[n].shape != weights[n].shape]
    for title, names in (
        ("left as they were", [n for n in own if n not in fitting]),
        ("not used", [n for n in weights if n not in own]),
        ("of another shape", reshaped),
    ):
        groups = sorted({name.split(".")[0] for name in names})
        if names:
            lines.append(f"  {title}: {len(names)} in {', '.join(groups)}")
    return "\n".join(lines)


def take_published(system: System, path: Path) -> str:
    """Fill a system from an officially published file; returns what the file didn't hold. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give a published checkpoint of {system.config.type}")
    found = system.load_published(path)
    left = [f"{len(names)} {title} ({', '.join(names[:3])}, …)" for title, names in found.items() if names]
    return f"{path}: published weights taken" + (f"; {'; '.join(left)}" if left else "")


def locate(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the newest one of a run folder."""
    if (path / "DONE").exists():
        return path
    found = newest(path)
    if found is None:
        raise CheckpointError(f"{path}: neither a checkpoint (a folder step-NNNNNN with DONE) nor a run folder that holds one")
    return found


def load_system(path: Path, ema: bool = True) -> tuple[System, RunConfig]:
    """The system of a run or checkpoint, ready for `infer`: averaged weights when there are any, evaluation mode."""
    folder = locate(Path(path))
    verify(folder)
    config: RunConfig = load(folder / "config.yaml").config
    system = build_system(config, config.run.seed)
    system.load_assets(folder / "assets")
    weights = tensors(folder, "model")
    if ema:
        weights.update(tensors(folder, "ema"))
    load_weights(system, weights, str(folder))
    return system.eval(), config
