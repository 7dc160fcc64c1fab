"""What one section can't tell alone: names that must exist elsewhere, numbers that must go together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mixtura.config.origins import Problems, Tree
from mixtura.config.sections import Built
from mixtura.config.yaml_marks import Path
from mixtura.plugins import near

Finding = tuple[Path, str]


def check(built: Built, tree: Tree, problems: Problems) -> None:
    """Note every contradiction between the sections that are valid on their own."""
    rules: tuple[Callable[[Built], Iterator[Finding]], ...] = (
        _batches,
        _names,
        _mixtures,
        _schedules,
        _mixers,
        _players,
        _checkpoints,
    )
    for rule in rules:
        for path, text in rule(built):
            problems.add(tree.origin(path), path, text)


def _stages(built: Built) -> list[tuple[int, Any]]:
    return [(number, stage) for number, stage in enumerate(built.get("stages") or ()) if stage is not None]


def _batches(built: Built) -> Iterator[Finding]:
    data = built.get("data")
    if data is not None and data.micro_batch is not None and data.global_batch % data.micro_batch:
        yield (
            ("data", "micro_batch"),
            f"data.global_batch {data.global_batch} must be a multiple of it, and {data.micro_batch} does not divide it",
        )


def _names(built: Built) -> Iterator[Finding]:
    """Stages and evaluators are told apart by name."""
    seen: dict[str, int] = {}
    for number, stage in _stages(built):
        if stage.name in seen:
            yield (
                ("stages", number, "name"),
                f"'{stage.name}' is the name of stages[{seen[stage.name]}] already; names must differ",
            )
        seen.setdefault(stage.name, number)
    seen = {}
    for number, section in enumerate(built.get("evaluate") or ()):
        name = getattr(section, "name", None) or section.type
        if name in seen:
            yield ("evaluate", number), f"results of '{name}' would be those of evaluate[{seen[name]}]; give it another `name`"
        seen.setdefault(name, number)


def _mixtures(built: Built) -> Iterator[Finding]:
    sources = built.get("sources")
    for number, stage in _stages(built):
        path = ("stages", number, "mixture")
        for name in stage.mixture if sources is not None else ():
            if name not in sources:
                guess = near(name, sources)
                hint = f" Did you mean '{guess[0]}'?" if guess else ""
                yield (*path, name), f"no source is called so.{hint} Sources: {', '.join(sources) or 'none'}"
        if not any(stage.mixture.values()):
            yield path, "all weights are 0; at least one source must be drawn"


def _schedules(built: Built) -> Iterator[Finding]:
    schedule = built.get("schedule")
    for number, stage in _stages(built) if schedule is not None else ():
        merged = schedule.merged(stage.schedule)
        place = ("stages", number, "schedule") if stage.schedule is not None else ("stages", number, "steps")
        falling = round(merged.decay * stage.steps) if merged.type == "wsd" else 0
        if merged.warmup + falling > stage.steps:
            yield place, f"warm-up ({merged.warmup}) and decay ({falling}) take more steps than the stage has ({stage.steps})"


def _mixers(built: Built) -> Iterator[Finding]:
    data = built.get("data")
    for number, stage in _stages(built) if data is not None else ():
        lag = getattr(stage.mixer, "lag", None)
        if lag is not None and lag < data.prefetch:
            yield (
                ("stages", number, "mixer", "lag"),
                f"must be at least data.prefetch ({data.prefetch}), not {lag}; those steps are planned ahead",
            )


def _players(built: Built) -> Iterator[Finding]:
    optim, system = built.get("optim"), built.classes.get(("system",))
    known = tuple(getattr(system, "players", ()))
    # A system may also name its players when it is built; then only the trainer can tell.
    for name in optim.players if optim is not None and known else ():
        if name not in known:
            yield ("optim", "players", name), f"the system has no such player; players: {', '.join(known)}"


def _checkpoints(built: Built) -> Iterator[Finding]:
    section = built.get("checkpoint")
    if section is not None and section.keep_every is not None:
        if section.every is None:
            yield (
                ("checkpoint", "keep_every"),
                "needs checkpoint.every: without it checkpoints are written at the end of stages only",
            )
        elif section.keep_every % section.every:
            yield (
                ("checkpoint", "keep_every"),
                f"must be a multiple of checkpoint.every ({section.every}), not {section.keep_every}",
            )
