"""Using what a run learnt: measure it again, feed it inputs from a file, write its weights for use elsewhere."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from mixtura import checkpoint
from mixtura.config import RunConfig, dump, load
from mixtura.config.messages import Guide, explain, models_at
from mixtura.config.yaml_marks import read, show
from mixtura.data.source import Source
from mixtura.data.sources import open_sources
from mixtura.errors import ConfigError, DataError, MixturaError
from mixtura.evaluate import EvalContext, Evaluator
from mixtura.plugins import registry
from mixtura.probes import heldout_items
from mixtura.rng import KeyedRng
from mixtura.system import System

Say = Callable[[str], None]
Model = TypeVar("Model", bound=BaseModel)


def evaluate_run(target: Path, settings: Sequence[str], say: Say) -> list[dict[str, Any]]:
    """Run the evaluators of a run (its newest weights) or of a configuration (untrained weights); returns the records.

    `settings` change the configuration first. Media and `results.json` go to `RUN/eval/again-STEP`, or to `eval/` here.
    """
    if target.is_dir():
        folder = checkpoint.locate(target)
        config = load(folder / "config.yaml", settings).config
        system, _ = checkpoint.load_system(folder)
        root, step = root_of_run(folder, config), int(folder.name[5:])
        base, cache = folder.parent / "eval" / f"again-{step:06d}", folder.parent / "cache"
    else:
        config, root, step, base = load(target, settings).config, Path.cwd(), 0, Path("eval")
        cache = base / "cache"
        system = untrained(config, root, base / "assets")
    if not config.evaluate:
        raise ConfigError(
            f"{target}: the configuration has no `evaluate:` section; add one, as `evaluate: [{{type: heldout_loss}}]`"
        )
    records = measure(system, config, root, base, cache, step, say)
    (base / "results.json").write_text(json.dumps(records, indent=1))
    say(f"written: {base / 'results.json'}")
    return records


def measure(system: System, config: RunConfig, root: Path, base: Path, cache: Path, step: int, say: Say) -> list[dict[str, Any]]:
    """All evaluators of a configuration on a system; one record each, as in a run's log."""
    sources, records = open_sources(config.sources, root), []
    for section in config.evaluate:
        name, began = section.name or section.type, time.monotonic()
        evaluator = registry().get("evaluator", section.type)(section, root=root)
        record = measure_one(evaluator, name, system, sources, config, step, base / name, base, cache)
        figures = "  ".join(f"{key} {value:.4g}" for key, value in record["scalars"].items())
        say(f"{name}: {figures}  ({time.monotonic() - began:.1f} s)")
        records.append(record)
    return records


def measure_one(
    evaluator: Evaluator,
    name: str,
    system: System,
    sources: Mapping[str, Source],
    config: RunConfig,
    step: int,
    out: Path,
    base: Path,
    cache: Path,
) -> dict[str, Any]:
    """One evaluator on a system in evaluation mode; media go to `out` and are told relative to `base`. Modes are put back."""
    for folder in (out, cache):
        folder.mkdir(parents=True, exist_ok=True)
    seed, share = config.run.seed, config.data.heldout
    held = {n: heldout_items(seed, s, share) for n, s in sources.items()} if share else {}
    device = next(system.parameters()).device
    context = EvalContext(step, sources, out, KeyedRng(seed, "evaluate", name), device, held, seed, cache)
    modes = {module: module.training for module in system.modules()}
    system.eval()
    try:
        with torch.no_grad():
            result = evaluator.run(system, context)
    finally:
        for module, mode in modes.items():
            module.training = mode
    media = {caption: str((out / file).relative_to(base)) for caption, file in result.media.items()}
    return {"kind": "eval", "step": step, "name": name, "scalars": result.scalars, "tables": result.tables, "media": media}


def untrained(config: RunConfig, root: Path, assets: Path) -> System:
    """The system of a configuration as a run would start it."""
    system = checkpoint.build_system(config, config.run.seed)
    assets.mkdir(parents=True, exist_ok=True)
    if type(system).prepare is not System.prepare:  # else no data is needed
        system.prepare(open_sources(config.sources, root), assets)
    system.load_assets(assets)
    return system.eval()


def root_of_run(folder: Path, config: RunConfig) -> Path:
    """The folder that a run's relative paths start from: the run folder without `run.dir` at its end."""
    run, tail = folder.resolve().parent, Path(config.run.dir).parts
    return Path(*run.parts[: -len(tail)]) if run.parts[-len(tail) :] == tail else Path.cwd()


def infer_run(run: Path, inputs: Path, out: Path, say: Say) -> None:
    """Feed the arrays and values of a .json or .npz file to the system's `infer`; write what it returns."""
    system, config = checkpoint.load_system(run)
    given = read_values(inputs)
    try:
        result = system.infer(**given)
    except (TypeError, KeyError) as error:
        raise DataError(
            f"{inputs}: {config.system.type} can't use these inputs ({error}); its `infer` says: {system.infer.__doc__}"
        ) from error
    write_values(out, result)
    say(f"written: {out} with {', '.join(result)}")


def infer_files_run(run: Path, inputs: Sequence[Path], out: Path, settings: Mapping[str, Any], say: Say) -> None:
    """Give files of any other kind to the system's `infer_files`; `out` is a folder, or will be one."""
    if out.exists() and not out.is_dir():
        raise MixturaError(f"--output {out} is a file; for inputs that aren't .json or .npz it must be a folder")
    system, _ = checkpoint.load_system(run)
    written = system.infer_files(inputs, out, settings, say)
    say(f"written: {len(written)} files in {out}")


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """Words `a.b=v` as nested values, v being YAML; of two words for one setting the later one counts."""
    values: dict[str, Any] = {}
    for word in words:
        path, _, text = word.partition("=")
        *above, last = path.split(".")
        section, marked = values, read(text)
        for name in above:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise ConfigError(f"'{word}': '{name}' is a value already; give either {name}=... or {name}.{last}=...")
        if marked.problems or not all((*above, last)):
            reason = marked.problems[0][2] if marked.problems else "expected setting=value, as seed=3"
            raise ConfigError(f"'{word}': {reason}")
        section[last] = marked.data
    return values


def settings_of(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Settings of an inference as a model that forbids extra fields. Raises ConfigError listing all that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as problem:
        lines = []
        for error in problem.errors(include_url=False):
            place = tuple(error["loc"])
            if error["type"] == "extra_forbidden":
                text = Guide.over({"": model}).unknown(place, _known(model, place[:-1]))
            else:
                text = "must be given" if error["type"] == "missing" else explain(error)
            lines.append(f"{show(place)}: {text}" if place else text)
        raise ConfigError("\n".join(lines)) from None


def _known(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    return [name for found in models_at(model, path) for name in found.model_fields]


def read_values(path: Path) -> dict[str, Any]:
    """Named values of a .json or .npz file."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name].tolist() if stored[name].dtype.kind in "US" else stored[name] for name in stored.files}
        values: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({error})") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: must hold a mapping of inputs by name, not a {type(values).__name__}")
    return values


def write_values(path: Path, values: Mapping[str, Any]) -> None:
    """Named tensors, arrays and texts to a .json or .npz file."""
    plain = {
        name: value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value) for name, value in values.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, allow_pickle=False, **plain)
    else:
        path.write_text(json.dumps({name: value.tolist() for name, value in plain.items()}))


def export_run(run: Path, out: Path, published: bool, say: Say) -> None:
    """Write the averaged weights of a run to a folder that `mixtura infer` and `load_system` open; or the official layout."""
    folder = checkpoint.locate(run)
    system, config = checkpoint.load_system(folder)

    def write(part: Path) -> None:
        if published:
            system.save_published(part / f"{config.run.name}.pt")
        else:
            _write_export(part, system, config, folder / "assets")

    _into_new_folder(out, write, say)


def import_published(file: Path, settings: Sequence[str], weights: Path, root: Path, out: Path, say: Say) -> None:
    """Fill the system of a configuration from a published file and write it as `export_run` would."""
    config = load(file, settings).config

    def write(part: Path) -> None:
        system = untrained(config, root, part / "assets")
        say(checkpoint.take_published(system, weights))
        _write_export(part, system, config, part / "assets")

    _into_new_folder(out, write, say)


def _write_export(part: Path, system: System, config: RunConfig, assets: Path) -> None:
    checkpoint.write_weights(part, system.state_dict())
    (part / "config.yaml").write_text(dump(config))
    if assets.exists() and assets != part / "assets":
        shutil.copytree(assets, part / "assets")
    checkpoint.write_done(part)


def _into_new_folder(out: Path, write: Callable[[Path], None], say: Say) -> None:
    """Let `write` fill a folder that becomes `out` when it is whole."""
    if out.exists():
        raise MixturaError(f"{out} exists already; choose another folder")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write(part)
    part.rename(out)
    say(f"written: {out} ({', '.join(sorted(p.name for p in out.iterdir()))})")
