"""The run folder: what is in it, who may write to it, and how a killed run's logs are cut back.

config.yaml  env.json  log.jsonl  samples.jsonl  tb/  assets/  cache/  eval/  step-NNNNNN/  latest  report.html  lock
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import IO, Any

from mixtura.errors import RunError

PACKAGES = (
    "torch",
    "numpy",
    "accelerate",
    "transformers",
    "diffusers",
    "webdataset",
    "safetensors",
    "pydantic",
    "pyarrow",
    "av",
    "tensorboard",
    "mujoco",
)
"""What results and defects may depend on: every run keeps their versions, `mixtura doctor` tells them."""


class RunFolder:
    """One run on disk. `create` starts a new one, `resume` goes on with one; both hold a lock until `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._files: dict[Path, IO[str]] = {}

    @property
    def assets(self) -> Path:
        """Files that the system derived from the data."""
        return self.path / "assets"

    @property
    def cache(self) -> Path:
        """Files that can be made again."""
        return self.path / "cache"

    @property
    def log(self) -> Path:
        """One JSON object per line."""
        return self.path / "log.jsonl"

    @property
    def samples(self) -> Path:
        """Sample ids of every step."""
        return self.path / "samples.jsonl"

    @classmethod
    def create(cls, path: Path, config_text: str) -> RunFolder:
        """A new run. Raises RunError when the folder holds one already."""
        if (path / "config.yaml").exists():
            raise RunError(f"{path} holds a run already; go on with it by --resume, or choose another run.name or run.dir")
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        folder._take_lock()
        for part in (folder.assets, folder.cache):
            part.mkdir(exist_ok=True)
        (path / "env.json").write_text(json.dumps(environment(), indent=1))
        (path / "config.yaml").write_text(config_text)
        return folder

    @classmethod
    def resume(cls, path: Path) -> RunFolder:
        """A run that exists. Raises RunError when there is none, or when another process trains it."""
        if not (path / "config.yaml").exists():
            raise RunError(f"{path} holds no run to resume (no config.yaml); leave --resume out to start one")
        folder = cls(path)
        folder._take_lock()
        for part in (folder.assets, folder.cache):
            part.mkdir(exist_ok=True)
        return folder

    def _take_lock(self) -> None:
        lock = open(self.path / "lock", "a+")  # noqa: SIM115 - held until close
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise RunError(
                f"{self.path} is in use by another process ({owner}); wait for it, stop it, or choose another run.name"
            ) from None
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {platform.node()}")
        lock.flush()
        self._lock = lock
        # A forked data worker outlives a killed trainer by seconds and must not hold the folder meanwhile.
        os.register_at_fork(after_in_child=self.close)

    def close(self) -> None:
        """Close the files and let others in."""
        while self._files:
            self._files.popitem()[1].close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def cut_back(self, steps: int) -> None:
        """Keep the lines that were written up to the checkpoint after `steps` steps, so that curves don't double."""
        for path in (self.log, self.samples):
            if not path.exists():
                continue
            kept = []
            for line in path.read_text().splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    break  # a line that was being written when the run was killed
                if record.get("step", 0) > steps or record.get("kind") == "done":
                    break
                kept.append(line)
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(line + "\n" for line in kept))
            temporary.replace(path)
        if (self.path / "tb").exists():
            shutil.rmtree(self.path / "tb")

    def append(self, path: Path, record: dict[str, Any]) -> None:
        """Add one line of JSON; the file stays open until `close`."""
        if path not in self._files:
            self._files[path] = path.open("a")
        self._files[path].write(json.dumps(record) + "\n")
        self._files[path].flush()


def environment() -> dict[str, Any]:
    """Versions and machine of this process."""
    found = {name: version_of(name) for name in ("mixtura", *PACKAGES)}
    return {
        "versions": {name: version for name, version in found.items() if version is not None},
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "processor": processor(), "cores": os.cpu_count()},
        "command": sys.argv,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def version_of(package: str) -> str | None:
    """Version of an installed package; None when it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """Name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
