"""The verbs about the installation: plugins, new plugin, demo, bench, doctor."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

from mixtura.errors import MixturaError
from mixtura.plugins import KINDS, PluginError, PluginInfo, UnknownName, near, registry

Say = Callable[[str], None]


def plugins(arguments: argparse.Namespace, say: Say) -> None:
    """List plugins with version and state, or tell more of one."""
    found = registry()
    if arguments.plugin is not None:
        _one(arguments.plugin, say)
        return
    for info in found.plugins():
        offers = [f"{kind}s: {', '.join(info.plugin.offers(kind))}" for kind in KINDS if info.plugin.offers(kind)]
        say(f"{info.name:<18} {info.distribution} {info.version}  {info.plugin.summary}")
        for line in offers:
            say(f"{'':<18}   {line}")
    for kind in KINDS:
        for name in found.names(kind):
            if ":" in name:
                say(f"note: more than one plugin offers the {kind} '{name.rpartition(':')[2]}'; write '{name}'")
    for broken in found.broken():
        say(f"{broken.name:<18} {broken.distribution} {broken.version}  BROKEN: {broken.error} (`mixtura doctor` tells more)")


def _one(name: str, say: Say) -> None:
    found = registry()
    for broken in found.broken():
        if name in (broken.name, broken.distribution):
            say(f"{broken.name} of {broken.distribution} {broken.version} is broken:\n{broken.traceback.rstrip()}")
            return
    matching = [info for info in found.plugins() if name in (info.name, info.distribution)]
    if not matching:
        known = [info.name for info in found.plugins()]
        guess = near(name, known)
        hint = f" Did you mean '{guess[0]}'?" if guess else ""
        raise MixturaError(f"no plugin is called '{name}'.{hint} Installed: {', '.join(known)}")
    for info in matching:
        _tell(info, say)


def _tell(info: PluginInfo, say: Say) -> None:
    say(f"{info.name} — {info.plugin.summary}\nof {info.distribution} {info.version}, plugin API {info.plugin.api}")
    for kind in KINDS:
        for name, place in info.plugin.offers(kind).items():
            say(f"  {kind:<10} {name:<20} {place}")
    if info.plugin.configs:
        say(f"  configs in {info.plugin.configs}")


def new_plugin(arguments: argparse.Namespace, say: Say) -> None:
    """Write a plugin folder."""
    from mixtura.scaffold import write_plugin

    folder = write_plugin(arguments.plugin, Path(arguments.dir))
    say(
        f"written: {folder}\n"
        f"  pip install -e {folder}        (or: export PYTHONPATH={folder} MIXTURA_PLUGINS=mixtura_{arguments.plugin}:plugin)\n"
        f"  mixtura train {folder}/configs/quickstart.yaml\n"
        f"  pytest {folder}/tests"
    )


def demo(arguments: argparse.Namespace, say: Say) -> None:
    """Build a demo and serve it, on this machine only unless asked otherwise."""
    known = registry().names("demo")
    if arguments.demo is None:
        say("demos: " + (", ".join(known) or "none; they come with mixtura-demos: pip install mixtura-demos"))
        return
    try:
        build = registry().get("demo", arguments.demo)
    except UnknownName as error:
        if known or importlib.util.find_spec("mixtura_demos"):
            raise
        raise MixturaError(
            f"no demo is installed; '{arguments.demo}' and the others come with mixtura-demos: pip install mixtura-demos "
            "(from a checkout: pip install -e demos)"
        ) from error
    except PluginError as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name in ("gradio", "mixtura_demos"):
            raise MixturaError(f"{error}\nDemos need mixtura-demos with gradio: pip install mixtura-demos") from error
        raise
    run = Path(arguments.checkpoint) if arguments.checkpoint else None
    if run is not None and not run.exists():
        raise MixturaError(f"--checkpoint {run} does not exist; give a run or checkpoint folder")
    build(run).launch(server_name=arguments.host, server_port=arguments.port, share=False)


def bench(arguments: argparse.Namespace, say: Say) -> None:
    """Measure the training loop and the loader."""
    from mixtura import bench as measuring

    measuring.run(say)


def doctor(arguments: argparse.Namespace, say: Say) -> int:
    """Look for what is missing or broken; exit code 1 when something needs attention."""
    from mixtura.doctor import examine

    return 1 if examine(say) else 0
