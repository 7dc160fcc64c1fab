"""Errors that a user can mend: one message, no traceback, exit code 2 (see `mixtura.cli`)."""

from __future__ import annotations


class MixturaError(Exception):
    """Something the user can put right. The text says what was given, what was expected, what to do."""


class ConfigError(MixturaError):
    """One or more problems of a configuration; the text lists all of them, ordered by file and line.

    `findings` has them as (line, path of the setting, text) for programs, where a file was read.
    """

    def __init__(self, text: str, findings: tuple[tuple[int, tuple[str | int, ...], str], ...] = ()) -> None:
        super().__init__(text)
        self.findings = findings


class DataError(MixturaError):
    """A source cannot be used: a missing file, a wrong layout, statistics that don't match."""


class BadSample(MixturaError):
    """One sample cannot be read. The loader counts it, names it and takes the next item of its source."""


class CheckpointError(MixturaError):
    """A checkpoint is missing, incomplete, or belongs to another configuration."""


class RunError(MixturaError):
    """A run cannot start or go on: folder in use, loss not finite, too many bad samples."""
