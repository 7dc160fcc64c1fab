"""Configurations: strict YAML files that read like the experiment, checked as a whole before anything starts.

`load(path, overrides)` gives a `Loaded` with the valid `RunConfig`; `dump(config)` writes it back. A problem is one
ConfigError with all mistakes, each with file and line. `merged(path)` gives what a file and its bases say, unchecked.
"""

from __future__ import annotations

from mixtura.config.loader import Loaded, dump, load, loads, merged
from mixtura.config.schema import OptimSection, RunConfig, ScheduleSection, Stage

__all__ = ["Loaded", "OptimSection", "RunConfig", "ScheduleSection", "Stage", "dump", "load", "loads", "merged"]
