"""The verbs about the installation: plugins, new plugin, demo, bench, doctor."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from mixtura.errors import MixturaError
from mixtura.plugins import KINDS, PluginInfo, near, registry

Say = Callable[[str], None]
DEMOS = "they come with mixtura-demos: pip install mixtura-demos (from a checkout: pip install -e demos)"


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
    """Serve the hub of all demos, or one of them, on this machine only unless asked otherwise."""
    if arguments.list:
        known = registry().names("demo")
        for name, info in known.items():
            say(f"{name:<24} {info.distribution} {info.version}".rstrip())
        if not known:
            say(f"no demo is installed; {DEMOS}")
        return
    missing = [module for module in ("mixtura_demos", "gradio", "uvicorn") if importlib.util.find_spec(module) is None]
    if missing:
        raise MixturaError(f"demos need {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} missing; {DEMOS}")
    if arguments.demo is not None:
        registry().find("demo", arguments.demo)
    run = Path(arguments.run_folder) if arguments.run_folder else None
    if run is not None and not run.is_dir():
        raise MixturaError(f"--run {run} is no folder; give a run, an export or a folder of published weights")
    # by name: the core knows no plugin, and the hub comes with one
    importlib.import_module("mixtura_demos.serve").serve(arguments.demo, run, arguments.host, arguments.port, say)


def bench(arguments: argparse.Namespace, say: Say) -> None:
    """Measure the training loop and the loader."""
    from mixtura import bench as measuring

    measuring.run(say)


def doctor(arguments: argparse.Namespace, say: Say) -> int:
    """Look for what is missing or broken; exit code 1 when something needs attention."""
    from mixtura.doctor import examine

    return 1 if examine(say) else 0
