"""The verbs that use a system: train, ablate, eval, infer, export, report."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from mixtura.errors import MixturaError

Say = Callable[[str], None]
BY_NAME = (".json", ".npz")
"""Files that hold arrays and values by name."""


def root_of(arguments: argparse.Namespace) -> Path:
    """The folder that relative paths start from. Raises MixturaError when it isn't one."""
    root = Path(arguments.root)
    if not root.is_dir():
        raise MixturaError(f"--root {root} is not a folder")
    return root.resolve()


def run_training(arguments: argparse.Namespace, say: Say) -> int:
    """Train, or with --dry-run only build everything."""
    from mixtura.config import load
    from mixtura.config.show import annotated

    if arguments.overfit < 0:
        raise MixturaError(f"--overfit must be at least 1, not {arguments.overfit}")
    loaded = load(arguments.config, arguments.settings)
    if arguments.dry_run:
        from mixtura.dry_run import dry_run

        dry_run(loaded.config, root_of(arguments), say)
        return 0
    from mixtura.trainer import train

    return train(
        loaded.config,
        resume=arguments.resume,
        root=root_of(arguments),
        overfit=arguments.overfit,
        text=annotated(loaded),
    )


def evaluate(arguments: argparse.Namespace, say: Say) -> None:
    """Run the evaluators of a run, or those of a configuration on the untrained system."""
    _must_exist(arguments.target, "RUN|CONFIG")
    from mixtura.inference import evaluate_run

    evaluate_run(Path(arguments.target), arguments.settings, say)


def infer(arguments: argparse.Namespace, say: Say) -> None:
    """Run a trained system on one file with inputs by name, or on files that the system reads itself."""
    _must_exist(arguments.target, "RUN")
    inputs, output = [Path(word) for word in arguments.input], Path(arguments.output)
    for file in inputs:
        _must_exist(file, "--input")
    from mixtura.inference import infer_files_run, infer_run, read_settings

    named = [file for file in inputs if file.suffix in BY_NAME]
    if not named:
        infer_files_run(Path(arguments.target), inputs, output, read_settings(arguments.settings), say)
        return
    if len(inputs) > 1:
        raise MixturaError(f"--input {named[0]}: a .json or .npz file holds all inputs and must be the only one")
    if output.suffix not in BY_NAME:
        raise MixturaError(f"--output {output}: expected a .json or .npz file")
    if arguments.settings:
        raise MixturaError(f"'{arguments.settings[0]}': with a .json or .npz file settings are inputs; put it into {inputs[0]}")
    infer_run(Path(arguments.target), inputs[0], output, say)


def export(arguments: argparse.Namespace, say: Say) -> None:
    """Write a run's weights, or published ones that fit a configuration, to a folder of their own."""
    _must_exist(arguments.target, "RUN|CONFIG")
    from mixtura.inference import export_run, import_published

    target, out = Path(arguments.target), Path(arguments.out)
    if arguments.weights:
        if target.is_dir() or arguments.published:
            raise MixturaError("--weights FILE goes with a configuration file, and without --published")
        _must_exist(arguments.weights, "--weights")
        import_published(target, arguments.settings, Path(arguments.weights), root_of(arguments), out, say)
    elif target.is_file():
        raise MixturaError(f"{target} is a configuration; give the published file to fill it from with --weights FILE")
    else:
        export_run(target, out, arguments.published, say)


def ablate(arguments: argparse.Namespace, say: Say) -> None:
    """Train every variant with every seed; finished runs are kept, stopped ones go on."""
    from mixtura.ablation import ablate as run_all

    out = Path(arguments.out) if arguments.out else None
    run_all(Path(arguments.config), arguments.settings, root_of(arguments), arguments.jobs, out, say)


def report(arguments: argparse.Namespace, say: Say) -> None:
    """Write one HTML page about one or several runs."""
    for run in arguments.runs:
        _must_exist(run, "RUN")
    from mixtura.report import write_report

    page = write_report([Path(run) for run in arguments.runs], Path(arguments.out) if arguments.out else None)
    say(f"written: {page}")


def _must_exist(path: str | Path, what: str) -> None:
    if not Path(path).exists():
        raise MixturaError(f"{what}: '{path}' does not exist; give the path of a run folder or a file")
