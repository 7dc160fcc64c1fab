"""Published DiffusionGS checkpoints: loaded, saved, looked at; names and files are `published_files`'s.

    load(system, path)                      # one kind's weights, all of it or nothing
    dry_run(config, path)                   # what fits and what doesn't, no network filled
    save(system, path)
    c2w, intrinsics = read_template(path)

Read are a Lightning file (`state_dict`, names below `shape_model.`), the older dictionary (`model`, names below `denoiser.`), and
tensors by their bare names, in `.safetensors` too. What else such a file holds (LPIPS networks, optimizers) is left alone and
counted. Averaged weights lie in a file of their own, NAME-EMA.ckpt, of the same layout: give its name. A file holds one kind,
which the shape of its free tokens tells: (F, d) for objects, (1, F, d) for scenes. 256 and 512 pixels have the same tensors.

Weights don't say how their network looks at the world (rays, depth rule, mirrored or not, heads). A file of ours carries that in
an entry `mixtura`, which other loaders don't look at; for one without it the published set-up of its kind holds. A system whose
settings differ is refused, and told the settings to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mixtura.errors import CheckpointError
from mixtura_diffusion_gs.cameras import mirrored
from mixtura_diffusion_gs.config import DEPTHS, DiffusionGSConfig, Kind
from mixtura_diffusion_gs.published_files import (
    Published,
    disagreements,
    facts_of,
    open_tensors,
    read,
    to_ours,
    to_published,
    write,
)

if TYPE_CHECKING:
    from mixtura_diffusion_gs.system import DiffusionGS


@dataclass
class Report:
    """What a checkpoint and a system have against each other; names are our denoiser's.

    `mismatched` reads `name: found, expected`, `settings` what to change, `ignored` names what the file holds besides.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether every tensor has its place and means there what it meant."""
        return not (self.missing or self.unexpected or self.mismatched or self.settings)

    def __str__(self) -> str:
        lines = []
        for title in ("missing", "unexpected", "mismatched"):
            names = getattr(self, title)
            if names:
                shown = ", ".join(names[:5]) + (f", … {len(names) - 5} more" if len(names) > 5 else "")
                lines.append(f"{len(names)} {title}: {shown}")
        if lines:
            lines.append("do `system.size` and the numbers beside it match the checkpoint?")
        lines += self.settings
        if self.ignored:
            lines.append(f"{len(self.ignored)} tensors besides the denoiser left alone: {', '.join(self.ignored[:3])}, …")
        return "; ".join(lines) or "every tensor fits"


def compare(own: Mapping[str, Tensor], found: Published) -> Report:
    """What would not fit if the file were loaded; `own` is a state of our denoiser, its values don't matter."""
    theirs, other = to_ours(found.tensors, found.kind), tuple(f"decoders.{k}." for k in DEPTHS if k != found.kind)
    wanted = {name: tensor for name, tensor in own.items() if not name.startswith(other)}
    wrong = [
        f"{name}: {tuple(theirs[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in theirs and theirs[name].shape != tensor.shape
    ]
    missing = [name for name in wanted if name not in theirs]
    return Report(missing, [name for name in theirs if name not in wanted], wrong, [], found.ignored)


def dry_run(config: DiffusionGSConfig, path: Path, only: Kind | None = None) -> Report:
    """What `load` would find, without a network of that size in memory. Raises CheckpointError for files that can't be used."""
    from mixtura_diffusion_gs.system import DiffusionGS

    with torch.device("meta"):
        own = DiffusionGS(config).denoiser.state_dict()
    return _report(config, own, _files(config, Path(path), only))


def load(system: DiffusionGS, path: Path, only: Kind | None = None) -> dict[str, list[str]]:
    """Fill a system from a published file, all of it or nothing; raises CheckpointError naming what doesn't fit.

    A system of two kinds needs both: `path` is then the name that `save` was given, the files are NAME-object and NAME-scene, and
    what they share must be equal in both. `only` takes a single kind's file into such a system instead (to start mixed training
    from it): the other kind's decoder stays as it is and is listed under `missing`. Returns the lists of a `Report`.
    """
    found = _files(system.config, Path(path), only)
    own = system.denoiser.state_dict()
    report = _report(system.config, own, found)
    if not report.fits:
        raise CheckpointError(f"{path}: doesn't fit the configured system: {report}")
    with torch.no_grad():
        for published in found:
            for name, tensor in to_ours(published.tensors, published.kind).items():
                own[name].copy_(tensor)
    taken = [published.kind for published in found]
    report.missing += [name for name in own if name.startswith("decoders.") and name.split(".")[1] not in taken]
    return asdict(report)


def _report(config: DiffusionGSConfig, own: Mapping[str, Tensor], found: list[Published]) -> Report:
    total = Report()
    for published in found:
        one = compare(own, published)
        one.settings = disagreements(config, published.facts)
        for name, values in asdict(one).items():
            getattr(total, name).extend(value for value in values if value not in getattr(total, name))
    return total


def _files(config: DiffusionGSConfig, path: Path, only: Kind | None) -> list[Published]:
    """What a path stands for in a system of these kinds, checked against them."""
    if len(config.kinds) == 1 or only:
        wanted, found = only or config.kinds[0], read(path)
        if found.kind != wanted or wanted not in config.kinds:
            raise CheckpointError(f"{path}: holds a model of kind '{found.kind}'; set `system.kinds: [{found.kind}]` to load it")
        return [found]
    if path.is_file():
        files = " and ".join(_part(path, kind).name for kind in config.kinds)
        raise CheckpointError(
            f"{path}: holds one kind ({read(path).kind}), the system has {' and '.join(config.kinds)}; set `system.kinds` to "
            f"that one, or give the name of a pair of files ({files})"
        )
    both = [read(_part(path, kind)) for kind in config.kinds]
    for kind, found in zip(config.kinds, both, strict=True):
        if found.kind != kind:
            raise CheckpointError(f"{_part(path, kind)}: holds a model of kind '{found.kind}'")
    _check_shared(path, both)
    return both


def _part(path: Path, kind: Kind) -> Path:
    """Where one kind's model lies of a system that has several."""
    return path.with_name(f"{path.stem}-{kind}{path.suffix}")


def _check_shared(path: Path, found: list[Published]) -> None:
    """Two models can share a system when everything outside their heads is equal."""
    first, second = (to_ours(published.tensors, published.kind) for published in found)
    for name, tensor in first.items():
        if name in second and not (tensor.shape == second[name].shape and torch.equal(tensor, second[name])):
            raise CheckpointError(
                f"{path}: the two models differ in '{name}', so they can't share a network; set `system.kinds` to one kind"
            )


def save(system: DiffusionGS, path: Path) -> None:
    """Write the published layout, for a system of two kinds as NAME-object and NAME-scene; `.safetensors` gets bare names.

    Object files hold their tensors once, under two names: the published training code starts objects from `model` and reads
    `state_dict` elsewhere, scenes from `state_dict` alone. Its inference also demands its own LPIPS weights, which are not ours.
    """
    path, state = Path(path), system.denoiser.state_dict()
    for kind in system.config.kinds:
        target = path if len(system.config.kinds) == 1 else _part(path, kind)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in to_published(state, kind).items()}
        write(target, tensors, facts_of(system.config, kind))


def read_template(path: Path, as_stored: bool = False) -> tuple[Tensor, Tensor]:
    """Cameras that the published object model generates from: c2w (V, 4, 4) and intrinsics (V, 4), the first is the condition's.

    The file's cameras stand in the published, mirrored frame; they come back in ours (right-handed, z up) unless `as_stored`.
    Cameras that are right-handed already stay. Raises CheckpointError.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file (camera_template.pt lies beside the published object checkpoint)")
    content = open_tensors(path)
    c2w, intrinsics = (_only_item(path, content, name, end) for name, end in (("gen_c2w", (4, 4)), ("gen_fxfycxcys", (4,))))
    if len(c2w) != len(intrinsics):
        raise CheckpointError(f"{path}: gen_c2w has {len(c2w)} cameras, gen_fxfycxcys {len(intrinsics)}")
    is_mirrored = torch.linalg.det(c2w[:, :3, :3]) < 0
    return (c2w if as_stored else torch.where(is_mirrored[:, None, None], mirrored(c2w), c2w)), intrinsics


def _only_item(path: Path, content: Any, name: str, end: tuple[int, ...]) -> Tensor:
    """An entry (1, V, *end) of a template as float32 (V, *end)."""
    value = content.get(name) if isinstance(content, Mapping) else None
    if not isinstance(value, Tensor) or value.shape[2:] != end or value.shape[0] != 1:
        found = tuple(value.shape) if isinstance(value, Tensor) else "missing"
        raise CheckpointError(f"{path}: {name} is {found}, expected a tensor ({', '.join(map(str, (1, 'V', *end)))})")
    return value[0].float()
