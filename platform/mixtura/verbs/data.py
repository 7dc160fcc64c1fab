"""The verbs below `mixtura data`: check, preview, convert, index, synth."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from mixtura.verbs.training import root_of

Say = Callable[[str], None]


def check(arguments: argparse.Namespace, say: Say) -> None:
    """Tell what is in every source, and how fast it can be read."""
    from mixtura.config import load
    from mixtura.data import verbs

    verbs.check(load(arguments.config, arguments.settings).config, root_of(arguments), say)


def preview(arguments: argparse.Namespace, say: Say) -> None:
    """Write samples of every source to a page."""
    from mixtura.config import load
    from mixtura.data import verbs

    verbs.preview(load(arguments.config, arguments.settings).config, root_of(arguments), Path(arguments.out), say)


def convert(arguments: argparse.Namespace, say: Say) -> None:
    """Write a data set in another format."""
    from mixtura.data import verbs

    verbs.convert(Path(arguments.src), Path(arguments.dst), arguments.to, say)


def index(arguments: argparse.Namespace, say: Say) -> None:
    """Index tar shards."""
    from mixtura.data import verbs

    verbs.index([Path(path) for path in arguments.paths], say)


def synth(arguments: argparse.Namespace, say: Say) -> None:
    """Make what `synth:` describes; finished data sets of the same configuration and seed stay."""
    from mixtura.config import load
    from mixtura.plugins import registry

    config, root = load(arguments.config, arguments.settings).config, root_of(arguments)
    if not config.synth:
        say("nothing to make: the configuration has no `synth:` section")
    for section in config.synth:
        generator = registry().get("generator", section.type)(section, root=root, seed=config.run.seed)
        if generator.done():
            say(f"{section.type}: there already")
            continue
        began = time.monotonic()
        written = generator.run(say)
        say(f"{section.type}: {', '.join(str(path) for path in written)} in {time.monotonic() - began:.1f} s")
