"""Where figures go: JSON lines, console, TensorBoard. A sink gets one flat record at a time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mixtura.run import RunFolder


class Sink(Protocol):
    """Receives records as they are made; `close` ends it."""

    def write(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """Every record as a line of `log.jsonl`."""

    def __init__(self, folder: RunFolder) -> None:
        self.file = folder.log.open("a", buffering=1)

    def write(self, record: Mapping[str, Any]) -> None:
        import json

        self.file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        self.file.close()


class TensorBoard:
    """Scalars for TensorBoard, when it is installed."""

    def __init__(self, path: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(path))

    def write(self, record: Mapping[str, Any]) -> None:
        step = int(record.get("step", 0))
        for key, value in record.items():
            if record["kind"] == "train" and key not in ("step", "time", "stage_step") and isinstance(value, (int, float)):
                self.writer.add_scalar(key, value, step)
        for key, value in record.get("scalars", {}).items():
            self.writer.add_scalar(f"eval/{record['name']}/{key}", value, step)

    def close(self) -> None:
        self.writer.close()


class Console:
    """One plain line per record, or a progress bar with the time left on a terminal."""

    def __init__(self, total_steps: int) -> None:
        self.total, self.stage = total_steps, ""
        self.bar: Any = None
        if sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
            )
            self.bar = Progress(*columns)
            self.task = self.bar.add_task("training", total=total_steps, figures="")
            self.bar.start()

    def say(self, text: str) -> None:
        """A line of its own."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def write(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "train":
            self._train(record)
        elif record["kind"] == "eval":
            figures = "  ".join(f"{k} {v:.4g}" for k, v in record["scalars"].items())
            self.say(f"step {record['step']}  {record['name']}: {figures}")
        elif record["kind"] == "stage":
            self.say(f"stage {record['name']}: {record.get('steps', '?')} steps, trains {record.get('trained', '?')}")

    def _train(self, record: Mapping[str, Any]) -> None:
        done = record["step"]
        terms = [f"{k[5:]} {v:.4f}" for k, v in record.items() if k.startswith("loss/") and k.count("/") == 1]
        figures = (
            f"loss {record['loss']:.4f}  {'  '.join(terms)}  {record['samples_per_s']:.0f} samples/s  waits "
            f"{record['wait_share']:.0%}"
        )
        if self.bar is not None:
            self.bar.update(self.task, completed=done, description=record["stage"], figures=figures)
            return
        if record["stage"] != self.stage:  # a step of another stage may take ten times as long
            self.stage, self.began, self.first = record["stage"], time.monotonic(), done
        steps, passed = done - self.first, time.monotonic() - self.began
        left = passed / steps * (self.total - done) if steps else None
        ending = f"  {int(left // 60)}:{int(left % 60):02d} left" if left is not None else ""
        self.say(f"{record['stage']} {done}/{self.total}  {figures}{ending}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


def open_sinks(to: Sequence[str], folder: RunFolder, total_steps: int) -> list[Sink]:
    """The sinks that `log.to` names."""
    makers: dict[str, Callable[[], Sink]] = {
        "jsonl": lambda: JsonLines(folder),
        "console": lambda: Console(total_steps),
        "tensorboard": lambda: TensorBoard(folder.path / "tb"),
    }
    return [makers[name]() for name in to]
