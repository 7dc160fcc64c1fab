"""The verbs below `mixtura config`: show, schema, diff, new."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from mixtura.errors import MixturaError

Say = Callable[[str], None]


def show(arguments: argparse.Namespace, say: Say) -> None:
    """Print the resolved configuration; each value's origin is a comment."""
    from mixtura.config import load
    from mixtura.config.show import annotated

    say(annotated(load(arguments.config, arguments.settings)).rstrip("\n"))


def schema(arguments: argparse.Namespace, say: Say) -> None:
    """Print a JSON schema."""
    from mixtura.config import show as showing

    say(showing.schema(arguments.what))


def diff(arguments: argparse.Namespace, say: Say) -> None:
    """Print the settings in which two configurations differ."""
    from mixtura.config import load
    from mixtura.config.show import difference

    lines = difference(load(arguments.first).config, load(arguments.second).config)
    say("\n".join(lines) if lines else "no setting differs")


def new(arguments: argparse.Namespace, say: Say) -> None:
    """Write a configuration to start from."""
    from mixtura.config.show import starter

    text = starter(arguments.system)
    if arguments.out is None:
        say(text.rstrip("\n"))
        return
    out = Path(arguments.out)
    if out.exists():
        raise MixturaError(f"{out} exists already; choose another file")
    out.write_text(text)
    say(f"written: {out}")
