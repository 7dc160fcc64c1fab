"""Questions and answers about images, as LLaVA and Qwen store them: one JSON list, or one JSON object a line.

A record is {"id", "image": name or list of names, "conversations": [{"from": "human" | "gpt", "value": text}, …]}, with
one `<image>` in the texts for every image. All records are checked when the source is opened; images are read later.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from mixtura.data.source import Sample, SourceConfig, SourceInfo
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng

MARK = "<image>"
ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}
CHARACTERS_PER_TOKEN = 4.0
"""Rough size of a token, for the `unit` of the source."""


class QAConfig(SourceConfig):
    """`sources: {NAME: {type: qa, path: data/qa.jsonl, images: data/qa-images}}`."""

    path: str = Field(description="JSON list or JSONL file of records")
    images: str | None = Field(None, description="folder that image names start from; needed when records have images")


class QASource:
    """Samples with `conversations`, a list of {"from": "human" | "gpt", "value": str}, and `images`, a list of uint8 (H, W, 3).

    `key` is "FILE/ID". Raises DataError naming file and record for records that don't fit, BadSample for images that are
    missing, cut off or damaged. JSONL files stay on disk; JSON lists are kept in memory as text.
    """

    Config = QAConfig

    def __init__(self, config: QAConfig, name: str, root: Path) -> None:
        self.config, self.name = config, name
        self.path = Path(root) / config.path
        self.folder = None if config.images is None else Path(root) / config.images
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such file; `path:` must name a JSON or JSONL file of records")
        if self.folder is not None and not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder; `images:` must name the folder that image names start from")
        self.begins, self.ends = array("q"), array("q")
        self._texts: list[bytes] | None = None
        letters = self._scan()
        count = len(self._texts) if self._texts is not None else len(self.begins)
        with open(self.path, "rb") as file:
            content = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        size = letters / CHARACTERS_PER_TOKEN / max(count, 1)
        self.info = SourceInfo(name, count, content, "tokens", max(size, 1.0), max_epochs=config.max_epochs)
        self._file: int | None = None

    # -- opening ---------------------------------------------------------------------------------------------------
    def _scan(self) -> int:
        """Check every record and note where it is; returns the letters of all conversations."""
        with open(self.path, "rb") as file:
            start = file.read(1)
            while start.isspace():
                start = file.read(1)
        return self._scan_list() if start == b"[" else self._scan_lines()

    def _scan_list(self) -> int:
        try:
            records = json.loads(self.path.read_bytes())
        except ValueError as error:
            raise DataError(f"{self.path}: not valid JSON ({error})") from error
        letters = 0
        self._texts = []
        for number, record in enumerate(records):
            letters += self._check(record, f"{self.path}: record {number}")
            self._texts.append(json.dumps(record).encode())
        return letters

    def _scan_lines(self) -> int:
        letters = place = 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    letters += self._check(parsed(line, f"{self.path}:{number}"), f"{self.path}:{number}")
                    self.begins.append(place)
                    self.ends.append(place + len(line))
                place += len(line)
        return letters

    def _check(self, record: Any, where: str) -> int:
        """Raise DataError unless the record fits; returns its letters."""
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected an object, got {type(record).__name__}")
        turns = record.get("conversations")
        if not isinstance(turns, list) or not turns:
            raise DataError(f"{where}: `conversations` must be a list with at least one turn")
        for k, turn in enumerate(turns):
            if not isinstance(turn, dict) or turn.get("from") not in ROLES or not isinstance(turn.get("value"), str):
                raise DataError(f"{where}: turn {k} must be {{'from': 'human' or 'gpt', 'value': text}}, got {str(turn)[:80]}")
        if ROLES[turns[0]["from"]] != "human":
            raise DataError(f"{where}: the first turn is from '{turns[0]['from']}', expected 'human'")
        names = image_names(record, where)
        marks = sum(turn["value"].count(MARK) for turn in turns)
        if marks != len(names):
            raise DataError(
                f"{where}: {marks} {MARK} in the conversations, {len(names)} images; write {MARK} once for each image"
            )
        if names and self.folder is None:
            raise DataError(f"{where}: has images, but the source has no `images:` folder; add it")
        return sum(len(turn["value"]) for turn in turns)

    # -- samples ---------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return self.info.size

    def record(self, index: int) -> dict[str, Any]:
        """The record at `index`, as it is in the file."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no sample {index}, it has {len(self)}")
        if self._texts is not None:
            return dict(json.loads(self._texts[index]))
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY)
        begin, end = self.begins[index], self.ends[index]
        return dict(parsed(os.pread(self._file, end - begin, begin), f"{self.path} at byte {begin}"))

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """The record at `index` with its images decoded; `rng` is not used."""
        record = self.record(index)
        turns = [{"from": ROLES[turn["from"]], "value": turn["value"]} for turn in record["conversations"]]
        images = [self._image(name) for name in image_names(record, f"{self.path}: record {index}")]
        return Sample({"conversations": turns, "images": images}, key=f"{self.path.name}/{record.get('id', index)}")

    def _image(self, name: str) -> np.ndarray:
        path = Path(self.folder or ".") / name
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise BadSample(f"{path}: can't be decoded ({error})") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]


def parsed(line: bytes, where: str) -> Any:
    """One line of JSON; DataError naming the place."""
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error}); every line must hold one record") from error


def image_names(record: dict[str, Any], where: str) -> list[str]:
    """The image names of a record; DataError for names that leave the images folder or aren't file names."""
    found = record.get("image", record.get("images"))
    names = [] if found is None else [found] if isinstance(found, str) else found
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{where}: `image` must be a file name or a list of file names, got {str(found)[:80]}")
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "://" in name:
            raise DataError(f"{where}: image '{name}' lies outside the images folder; use names relative to it")
    return names
