"""A run folder as the report reads it: whatever is there, with a note for whatever isn't.

`read_run` never fails on a half-written log; it raises RunError only for a folder that holds no run at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from mixtura.errors import RunError
from mixtura.metrics.control import wilson

TOTALS = ("all", "total", "overall", "pooled")
"""Names of table rows that sum up the others."""


@dataclass(frozen=True)
class Rate:
    """Successes of trials at a step."""

    step: int
    successes: int
    trials: int

    @property
    def value(self) -> float:
        """The share of successes."""
        return self.successes / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson(self.successes, self.trials)


@dataclass
class RunLog:
    """One run. `train`, `evals` and `bad` are log lines in order of step, `stages` are (steps before it, name) in order.

    `first` counts the steps before the log begins, which are more than 0 in a `part` of a run.
    """

    path: Path
    label: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    env: dict[str, Any] = field(default_factory=dict)
    train: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)
    stages: list[tuple[int, str]] = field(default_factory=list)
    done: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    first: int = 0

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """Steps and values of a figure, finite ones only."""
        pairs = [(line["step"], line[key]) for line in self.train if finite(line.get(key))]
        return [float(s) for s, _ in pairs], [float(v) for _, v in pairs]

    def keys(self, prefix: str) -> list[str]:
        """What follows `prefix` in the figures of the log, in order of appearance."""
        found = {key[len(prefix) :]: None for line in self.train for key in line if key.startswith(prefix)}
        return list(found)

    @property
    def sources(self) -> list[str]:
        """Names of the sources, sorted."""
        named = {key for prefix in ("mix/", "mix_planned/", "epoch/") for key in self.keys(prefix)}
        return sorted(
            named | {key.rpartition("/")[2] for key in self.keys("loss/") if "/" in key} | set(mapping(self.config, "sources"))
        )

    @property
    def terms(self) -> list[str]:
        """Names of the loss terms, in order of appearance."""
        return list(dict.fromkeys(key.partition("/")[0] for key in self.keys("loss/")))

    @property
    def steps(self) -> int:
        """Steps that are known to be done."""
        return max((line["step"] for line in [*self.train, *self.evals, *([self.done] if self.done else [])]), default=0)

    @property
    def planned_steps(self) -> int | None:
        """Steps that the configuration asks for."""
        steps = [section.get("steps") for section in self.stage_sections]
        known = [count for count in steps if isinstance(count, int)]
        return sum(known) if known and len(known) == len(steps) else None

    @property
    def stage_sections(self) -> list[dict[str, Any]]:
        """The configuration's stages."""
        sections = self.config.get("stages")
        return [section for section in sections if isinstance(section, dict)] if isinstance(sections, list) else []

    @property
    def seconds(self) -> float | None:
        """How long training took: the sum over log lines, or what the last line says where that is more (with evaluations)."""
        passed, before = 0.0, self.first
        for line in self.train:
            if finite(line.get("step_s")):
                passed += line["step_s"] * (line["step"] - before)
            before = line["step"]
        said = self.done.get("seconds") if self.done else None
        return max(passed, float(said) if finite(said) else 0.0) or None

    @property
    def samples_seen(self) -> int | None:
        """Samples that training used."""
        batch = mapping(self.config, "data").get("global_batch")
        steps = self.steps - self.first
        return batch * steps if isinstance(batch, int) and steps > 0 else None

    def stage_at(self, step: float) -> str:
        """Name of the stage that step number `step` (the first is 1) belongs to."""
        return next((name for start, name in reversed(self.stages) if start < step), "")

    def part(self, stage: str | None = None, source: str | None = None) -> RunLog:
        """The same run with the log of one stage, or with the figures of one source, only; None stands for all.

        Figures that belong to no source (learning rate, speed) stay; of the losses the source's own parts are kept.
        """
        names = [name for _, name in self.stages]
        k = names.index(stage) if stage in names else None
        starts = [start for start, _ in self.stages] + [self.steps]
        first, last = (starts[k], starts[k + 1]) if k is not None else (0, self.steps)

        def inside(line: Mapping[str, Any]) -> bool:
            step = int(line["step"])
            return first < step <= last or first == step == 0

        return replace(
            self,
            train=[self._figures(line, source) for line in self.train if inside(line)],
            evals=[record for record in self.evals if inside(record)],
            bad=[record for record in self.bad if inside(record) and source in (None, record.get("source"))],
            stages=self.stages if k is None else [self.stages[k]],
            done=self.done if last == self.steps else None,
            first=first,
        )

    def _figures(self, line: dict[str, Any], source: str | None) -> dict[str, Any]:
        """The figures of a log line that are those of a source, or of none."""
        if source is None:
            return line
        others = set(self.sources) - {source}

        def own(key: str) -> bool:
            parts = key.split("/")
            return parts[2:] == [source] if parts[0] == "loss" else parts[-1] not in others

        return {key: value for key, value in line.items() if own(key)}

    def rates(self) -> dict[str, list[Rate]]:
        """Evaluator -> success rate at every step where it ran, over all rows of its first table that counts successes."""
        found: dict[str, list[Rate]] = {}
        for record in self.evals:
            for rows in tables_of(record).values():
                rate = pooled(rows, record["step"])
                if rate is not None:
                    found.setdefault(record["name"], []).append(rate)
                    break
        return found


def finite(value: Any) -> TypeGuard[float]:
    """Whether a value of the log is a number that can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_rate(row: Mapping[str, Any]) -> bool:
    """Whether a table row counts successes among trials, plausibly."""
    won, tried = row.get("successes"), row.get("trials")
    return finite(won) and finite(tried) and 0 <= won <= tried and tried > 0


def pooled(rows: Iterable[Mapping[str, Any]], step: int) -> Rate | None:
    """The rate over rows; a row that is called "all" or "total" stands for the others."""
    counted = [row for row in rows if is_rate(row)]
    totals = [row for row in counted if any(isinstance(v, str) and v.lower() in TOTALS for v in row.values())]
    counted = totals[:1] or counted
    won, tried = sum(int(row["successes"]) for row in counted), sum(int(row["trials"]) for row in counted)
    return Rate(step, won, tried) if tried else None


def mapping(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A section, empty where it is absent or something else."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def tables_of(record: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The tables of an evaluation that hold rows."""
    tables = {}
    for title, rows in mapping(record, "tables").items():
        good = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        if good:
            tables[title] = good
    return tables


def read_run(path: Path) -> RunLog:
    """Read a run folder. Raises RunError when the folder isn't there or holds neither config.yaml nor log.jsonl."""
    if not path.is_dir():
        raise RunError(f"{path} is no folder; give the folder of a run, as runs/NAME (`mixtura train` makes it)")
    if not (path / "config.yaml").exists() and not (path / "log.jsonl").exists():
        inside = sorted(p.parent.name for p in path.glob("*/config.yaml"))[:5]
        hint = (
            f"it holds the runs {', '.join(inside)}: name them"
            if inside
            else "give the folder that `mixtura train` made, as runs/NAME"
        )
        raise RunError(f"{path} holds no run (neither config.yaml nor log.jsonl); {hint}")
    run = RunLog(path)
    _read_config(run)
    _read_env(run)
    _read_log(run)
    name = mapping(run.config, "run").get("name")
    run.label = name if isinstance(name, str) and name else path.resolve().name
    return run


def _read_config(run: RunLog) -> None:
    try:
        run.config_text = (run.path / "config.yaml").read_text(errors="replace")
        config = yaml.safe_load(run.config_text)
    except FileNotFoundError:
        run.notes.append("config.yaml is absent: settings, planned steps and samples seen are unknown")
    except (OSError, yaml.YAMLError) as error:
        run.notes.append(f"config.yaml can't be read as YAML: {str(error).splitlines()[0]}")
    else:
        if isinstance(config, dict):
            run.config = config
        else:
            run.notes.append("config.yaml holds no settings")


def _read_env(run: RunLog) -> None:
    try:
        env = json.loads((run.path / "env.json").read_text(errors="replace"))
    except FileNotFoundError:
        run.notes.append("env.json is absent: versions and machine are unknown")
    except (OSError, ValueError) as error:
        run.notes.append(f"env.json can't be read: {error}")
    else:
        run.env = env if isinstance(env, dict) else {}


def _read_log(run: RunLog) -> None:
    """Sort log lines by kind. A step that appears again replaces what was logged from there on."""
    try:
        lines = (run.path / "log.jsonl").read_bytes().decode(errors="replace").splitlines()
    except OSError:
        run.notes.append("log.jsonl is absent: nothing was logged, or `log.to` leaves jsonl out")
        return
    records = [_record(line) for line in lines]
    _sort(run, [record for record in records if record is not None])
    broken = [k for k, (line, record) in enumerate(zip(lines, records, strict=True), 1) if record is None and line.strip()]
    _note_log(run, broken, len(lines))


def _sort(run: RunLog, records: list[dict[str, Any]]) -> None:
    """Records by kind."""
    started: list[tuple[int, str]] = []
    evals: dict[tuple[str, int], dict[str, Any]] = {}
    for record in records:
        kind, named = record["kind"], isinstance(record.get("name"), str)
        if kind == "train":
            while run.train and run.train[-1]["step"] >= record["step"]:
                run.train.pop()
            run.train.append(record)
        elif kind == "eval" and named:
            evals[record["name"], record["step"]] = record
        elif kind == "stage" and named:
            started.append((record["step"], record["name"]))
        elif kind == "bad":
            run.bad.append(record)
        elif kind == "done":
            run.done = record
    run.evals = sorted(evals.values(), key=lambda r: r["step"])
    run.stages = _stages(started, run.train)


def _record(line: str) -> dict[str, Any] | None:
    """A log line, or None for what isn't one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str) or not finite(record.get("step")):
        return None
    record["step"] = int(record["step"])
    return record


def _stages(started: list[tuple[int, str]], train: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Where stages begin: as logged, or from the lines in between. A resumed run names its stage again."""
    said = {name for _, name in started}
    before = 0
    for line in train:
        if isinstance(line.get("stage"), str) and line["stage"] not in said:
            started.append((before, line["stage"]))
            said.add(line["stage"])
        before = line["step"]
    stages: list[tuple[int, str]] = []
    for start, name in sorted(started, key=lambda s: s[0]):
        if name not in [known for _, known in stages]:
            stages.append((start, name))
    return stages


def _note_log(run: RunLog, broken: list[int], lines: int) -> None:
    """What a reader should know before trusting the curves."""
    if broken == [lines]:
        run.notes.append("the last line of log.jsonl is cut off (the run was killed while writing it); it is left out")
    elif broken:
        places = ", ".join(map(str, broken[:5])) + (", …" if len(broken) > 5 else "")
        run.notes.append(f"{len(broken)} of {lines} lines of log.jsonl can't be read and are left out (line {places})")
    if not run.train:
        run.notes.append("no training step is logged yet (`log.every` steps pass before the first line)")
    lost = sum("loss" in line and not finite(line["loss"]) for line in run.train)
    if lost:
        run.notes.append(f"the loss is not finite in {lost} of {len(run.train)} log lines; curves skip them")
    if not run.evals:
        wanted = run.config.get("evaluate")
        run.notes.append(
            "no evaluation is logged yet" if wanted else "no evaluation: the configuration asks for none (`evaluate:`)"
        )
    if run.train and run.done is None:
        planned = f" of {run.planned_steps:,}" if run.planned_steps else ""
        run.notes.append(f"the run has not ended: it was at step {run.steps:,}{planned} when this report was written")
