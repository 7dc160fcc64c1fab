"""The command `mixtura`: reads the command line, runs one verb, turns errors into one message and an exit code.

0: done. 1: a run failed. 2: something the user can put right (one message, `--debug` shows where it came from).
130, 143: stopped by a signal. Verbs live in `mixtura.verbs`, imported when needed, so that `--help` and listing
plugins never wait for torch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from mixtura import __version__
from mixtura.errors import MixturaError, RunError

SETTING = re.compile(r"[A-Za-z_][^=\s]*=")
DONE, FAILED, USER_ERROR, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


class Parser(argparse.ArgumentParser):
    """argparse with a guess for verbs that don't exist."""

    def error(self, message: str) -> NoReturn:
        """One line on what is wrong and where to look; exit code 2."""
        if "invalid choice: '" in message:
            from mixtura.plugins import near

            given = message.split("invalid choice: '")[1].split("'")[0]
            choices = message.rpartition("choose from ")[2].rstrip(")").replace("'", "").split(", ")
            guess = near(given, choices)
            message = f"no verb '{given}'." + (f" Did you mean '{guess[0]}'?" if guess else "") + f" Verbs: {', '.join(choices)}"
        self.exit(USER_ERROR, f"{self.prog}: {message}\nSee `{self.prog} --help`.\n")


def build_parser() -> argparse.ArgumentParser:
    """All verbs with their options."""
    parser = Parser(prog="mixtura", description="Train multimodal and embodied systems that learn from mixed data.")
    parser.add_argument("--version", action="version", version=f"mixtura {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of errors")
    verbs = parser.add_subparsers(dest="name", metavar="VERB", required=True)
    _training(verbs, common)
    _data(verbs, common)
    _config(verbs, common)
    _house(verbs, common)
    return parser


def _verb(
    group: Any, common: argparse.ArgumentParser, name: str, run: str, text: str, settings: bool = False
) -> argparse.ArgumentParser:
    """One verb; with `settings` it takes `a.b=v` words as well."""
    more = "Settings `a.b=v` after it change single values: optim.lr=1e-4, stages[main].steps=50." if settings else None
    verb: argparse.ArgumentParser = group.add_parser(
        name, parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=more
    )
    verb.set_defaults(run=run, takes_settings=settings)
    return verb


def _rooted(verb: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add what verbs need that open data or write runs."""
    verb.add_argument("config", metavar="CONFIG", help="YAML file, or a run folder")
    verb.add_argument("--root", default=".", metavar="DIR", help="folder that relative paths start from (the working folder)")
    return verb


def _training(verbs: Any, common: argparse.ArgumentParser) -> None:
    train = _rooted(_verb(verbs, common, "train", "training:run_training", "train a configuration", settings=True))
    train.add_argument("--resume", action="store_true", help="go on with the run from its newest checkpoint")
    train.add_argument("--overfit", type=int, default=0, metavar="N", help="use the samples of the first N steps again and again")
    train.add_argument("--dry-run", action="store_true", help="build everything, train nothing, tell sizes and the mixture")
    evaluate = _verb(verbs, common, "eval", "training:evaluate", "run the evaluators of a run or configuration", settings=True)
    evaluate.add_argument("target", metavar="RUN|CONFIG")
    infer = _verb(verbs, common, "infer", "training:infer", "run the system of a run on inputs from files", settings=True)
    infer.epilog = "Settings `a.b=v` after it are the system's own, for inputs that it reads itself; a wrong one lists them all."
    infer.add_argument("target", metavar="RUN", help="run or checkpoint folder")
    infer.add_argument(
        "--input",
        required=True,
        action="append",
        metavar="FILE",
        help="inputs by name (.json or .npz), or a file that the system reads: a picture, a clip, a prompt (.txt); "
        "give it again for further files",
    )
    infer.add_argument("--output", required=True, metavar="OUT", help="outputs by name (.json or .npz); else a folder")
    export = _verb(verbs, common, "export", "training:export", "write a run's weights for use elsewhere", settings=True)
    export.add_argument("target", metavar="RUN|CONFIG", help="run or checkpoint folder; a YAML file with --weights")
    export.add_argument("out", metavar="OUT", help="new folder")
    export.add_argument("--published", action="store_true", help="in the layout of the officially published checkpoint")
    export.add_argument(
        "--weights", metavar="FILE", help="a published checkpoint that fills the system of CONFIG, so that `infer` can use it"
    )
    export.add_argument("--root", default=".", metavar="DIR", help="folder that relative paths of CONFIG start from")
    demo = _verb(verbs, common, "demo", "house:demo", "open the demos in the browser: a hub with all of them, or one")
    demo.add_argument("demo", metavar="NAME", nargs="?", help="which one; all when left out")
    demo.add_argument("--list", action="store_true", help="list what is installed and end")
    demo.add_argument(
        "--run", dest="run_folder", default=None, metavar="RUN", help="run, export or folder of published weights to begin with"
    )
    demo.add_argument("--host", default="127.0.0.1", help="address to listen on (this machine only)")
    demo.add_argument("--port", type=int, default=None, help="port to listen on (7860 or the next free one; 0: any)")
    ablate = _rooted(
        _verb(verbs, common, "ablate", "training:ablate", "train the variants of a configuration, compare them", settings=True)
    )
    ablate.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="runs at once, with a share of the cores or OMP_NUM_THREADS"
    )
    ablate.add_argument(
        "--out", default=None, metavar="FILE", help="table in Markdown (RUN-ablation.md in the folder of the runs)"
    )
    report = _verb(verbs, common, "report", "training:report", "write one HTML page about runs")
    report.add_argument("runs", metavar="RUN", nargs="+")
    report.add_argument("--out", default=None, metavar="FILE")


def _data(verbs: Any, common: argparse.ArgumentParser) -> None:
    data = verbs.add_parser("data", help="check, look at, convert, index or make data")
    group = data.add_subparsers(dest="action", metavar="ACTION", required=True)
    _rooted(
        _verb(
            group, common, "check", "data:check", "read a little of every source and tell sizes, shares and speed", settings=True
        )
    )
    preview = _rooted(_verb(group, common, "preview", "data:preview", "write samples of every source to a page", settings=True))
    preview.add_argument("--out", default="preview", metavar="DIR")
    convert = _verb(group, common, "convert", "data:convert", "write a data set in another format")
    convert.add_argument("src", metavar="FROM")
    convert.add_argument("dst", metavar="TO", help="new folder")
    convert.add_argument("--to", required=True, metavar="FORMAT", help="format to write, as webdataset")
    index = _verb(group, common, "index", "data:index", "index tar shards, so that samples can be read in any order")
    index.add_argument("paths", metavar="TAR", nargs="+")
    _rooted(
        _verb(
            group,
            common,
            "synth",
            "data:synth",
            "make the data sets that the configuration describes under `synth:`",
            settings=True,
        )
    )


def _config(verbs: Any, common: argparse.ArgumentParser) -> None:
    config = verbs.add_parser("config", help="show, compare and start configurations")
    group = config.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = _verb(
        group, common, "show", "config:show", "print the resolved configuration with the origin of every value", settings=True
    )
    show.add_argument("config", metavar="CONFIG")
    schema = _verb(
        group, common, "schema", "config:schema", "print the JSON schema of a configuration, or of a system's settings"
    )
    schema.add_argument("what", metavar="NAME", nargs="?", help="a system, source, mixer, evaluator or generator")
    diff = _verb(group, common, "diff", "config:diff", "print the settings in which two configurations differ")
    diff.add_argument("first", metavar="A")
    diff.add_argument("second", metavar="B")
    new = _verb(group, common, "new", "config:new", "write a configuration to start from")
    new.add_argument("system", metavar="SYSTEM")
    new.add_argument("--out", default=None, metavar="FILE", help="new file; prints when left out")


def _house(verbs: Any, common: argparse.ArgumentParser) -> None:
    plugins = _verb(verbs, common, "plugins", "house:plugins", "list what is installed")
    plugins.add_argument("plugin", metavar="NAME", nargs="?", help="tell more of one plugin")
    new = verbs.add_parser("new", help="start a plugin")
    group = new.add_subparsers(dest="action", metavar="THING", required=True)
    plugin = _verb(group, common, "plugin", "house:new_plugin", "write a small plugin that trains at once")
    plugin.add_argument("plugin", metavar="NAME", help="a lower-case word, as my_model")
    plugin.add_argument("--dir", default=".", metavar="DIR", help="where its folder goes (the working folder)")
    _verb(verbs, common, "bench", "house:bench", "measure the training loop and the loader on this machine")
    _verb(verbs, common, "doctor", "house:doctor", "look for what is missing or broken on this machine")


def say(text: str = "") -> None:
    """Print a line; in a run of several processes only the first one speaks."""
    if os.environ.get("RANK", "0") in ("", "0"):
        print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    # Read when torch is loaded. Threads that spin while they wait take the cores from loader workers: on two cores a small
    # model with one worker trained seven times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments, rest = build_parser().parse_known_args(words)
        _settings(arguments, rest)
        with _Termination():
            return int(_run(arguments) or DONE)
    except KeyboardInterrupt:
        print("mixtura: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`mixtura plugins | head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except MixturaError as error:
        if "--debug" in words:
            traceback.print_exc()
        print(f"mixtura: {error}" if "\n" not in str(error) else f"mixtura:\n{error}", file=sys.stderr)
        return FAILED if isinstance(error, RunError) else USER_ERROR
    except Exception:
        traceback.print_exc()
        print("mixtura: this is a mistake of mixtura or of a plugin, not of yours; the lines above tell where", file=sys.stderr)
        return FAILED


def _settings(arguments: argparse.Namespace, rest: list[str]) -> None:
    """Words that argparse doesn't know are settings `a.b=v`, where the verb takes them."""
    wrong = [word for word in rest if not (getattr(arguments, "takes_settings", False) and SETTING.match(word))]
    if wrong:
        hint = "; settings are written a.b=v" if getattr(arguments, "takes_settings", False) else ""
        raise MixturaError(f"'{wrong[0]}' is not understood by this verb{hint}; see `mixtura {arguments.name} --help`")
    arguments.settings = rest


def _run(arguments: argparse.Namespace) -> int | None:
    module, _, function = arguments.run.partition(":")
    found = getattr(importlib.import_module(f"mixtura.verbs.{module}"), function)
    result: int | None = found(arguments, say)
    return result


class _Termination:
    """Turns SIGTERM into SystemExit(143), so that files are closed and workers end; the trainer has its own way."""

    def __enter__(self) -> None:
        self.owner, self.before = os.getpid(), None
        try:
            self.before = signal.signal(signal.SIGTERM, self._stop)
        except ValueError:
            return  # not in the main thread: signals aren't ours

    def _stop(self, number: int, frame: object) -> None:
        if os.getpid() != self.owner:
            # A forked worker: it holds nothing that needs closing.
            os._exit(TERMINATED)
        raise SystemExit(TERMINATED)

    def __exit__(self, *exc: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)


if __name__ == "__main__":
    raise SystemExit(main())
