"""FAST action tokens: cosine transform along time, rounding, byte-pair encoding (sheet section 5, arXiv 2501.09747).

    tokenizer = FastTokenizer.fit(chunks, vocab, compat="fixed")     # chunks: (T, D) arrays, normalised to about [-1, 1]
    ids = tokenizer.encode(chunk)             # list of ints in 0..vocab-1
    chunk = tokenizer.decode(ids, T, D)       # (T, D) float32; zeros when the ids are no chunk
    tokenizer.save(path); FastTokenizer.load(path)                   # one JSON file

Chunks hold the valid channels only; the published code encodes all 20, zero padding included. `compat="official"` fits as
the published processor does: its start alphabet lacks the byte-level names, so values that the training data never had
are dropped, and text rules split words of numbers. `fixed` starts from exactly the symbols in use and clamps to them, so
every chunk survives; `max_length` keeps merges from becoming whole chunks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from mixtura.errors import CheckpointError, DataError

SCALE = 10.0
"""Quantisation steps per unit of a cosine coefficient."""
MIN_FREQUENCY = 2
SURROGATES = 0xD800
"""Code points from here on are no characters; a range of coefficients must stay below."""


@lru_cache(maxsize=64)
def cosine_basis(length: int) -> np.ndarray:
    """The orthonormal DCT-II (frequency, time) of `length` steps, float64."""
    frequency, time = np.arange(length)[:, None], np.arange(length)[None]
    basis = np.cos(np.pi * (time + 0.5) * frequency / length) * np.sqrt(2.0 / length)
    basis[0] /= np.sqrt(2.0)
    return basis


def transform(chunk: np.ndarray) -> np.ndarray:
    """Cosine coefficients (T, D) of a chunk (T, D) along time."""
    return cosine_basis(len(chunk)) @ np.asarray(chunk, np.float64)


def quantise(coefficients: np.ndarray, scale: float = SCALE) -> np.ndarray:
    """Round half to even of scale * coefficients, int64."""
    return np.rint(coefficients * scale).astype(np.int64)


def restore(levels: np.ndarray, scale: float = SCALE) -> np.ndarray:
    """The chunk (T, D) of quantised coefficients (T, D)."""
    return cosine_basis(len(levels)).T @ (np.asarray(levels, np.float64) / scale)


def _byte_names() -> dict[int, str]:
    """How a byte is written inside a byte-level tokenizer: printable bytes as themselves, others from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


def _alphabet(span: int) -> list[str]:
    """The symbols that the characters chr(0)..chr(span) are made of."""
    used = sorted({byte for code in range(span + 1) for byte in chr(code).encode()})
    names = _byte_names()
    return [names[byte] for byte in used]


@dataclass
class FastTokenizer:
    """A fitted tokenizer: `bpe`, the lowest and highest quantised level, and the scale. `high` None: unbounded above."""

    bpe: Tokenizer
    low: int
    high: int | None = None
    scale: float = SCALE

    @staticmethod
    def fit(
        chunks: Iterable[np.ndarray],
        vocab: int,
        scale: float = SCALE,
        compat: Literal["fixed", "official"] = "fixed",
        max_length: int = 16,
    ) -> FastTokenizer:
        """Fit on chunks (T, D); the result does not depend on their order. Raises DataError when `vocab` is too small."""
        levels = [quantise(transform(chunk), scale).ravel() for chunk in chunks]
        if not levels:
            raise DataError("FAST: no chunk to fit the tokenizer on")
        low, high = int(min(v.min() for v in levels)), int(max(v.max() for v in levels))
        span, fixed = high - low, compat == "fixed"
        alphabet = _alphabet(span) if fixed and span < SURROGATES else [chr(i) for i in range(min(span, SURROGATES - 1) + 1)]
        if len(alphabet) > vocab or (span > vocab and not fixed):
            raise DataError(
                f"FAST: quantised coefficients span {span + 1} levels, the vocabulary has {vocab} tokens; "
                "raise vlm.fast_vocab, or normalise the actions to about [-1, 1]"
            )
        bpe = Tokenizer(models.BPE())
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not fixed)
        bpe.decoder, bpe.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
        trainer = trainers.BpeTrainer(
            vocab_size=vocab, min_frequency=MIN_FREQUENCY, show_progress=False, special_tokens=[], initial_alphabet=alphabet,
            max_token_length=max_length if fixed else 10_000,
        )  # fmt: skip
        texts = ["".join(map(chr, (row - low).tolist())) for row in levels]
        bpe.train_from_iterator(sorted(texts), trainer, length=len(texts))
        return FastTokenizer(bpe, low, high if fixed else None, scale)

    @property
    def size(self) -> int:
        """Number of tokens."""
        return int(self.bpe.get_vocab_size())

    def code_points(self, chunk: np.ndarray) -> np.ndarray:
        """The character numbers (T * D,) of a chunk: lowest frequency of all channels first."""
        levels = quantise(transform(chunk), self.scale).ravel()
        return np.clip(levels - self.low, 0, None if self.high is None else self.high - self.low)

    def encode(self, chunk: np.ndarray) -> list[int]:
        """Ids of a chunk (T, D)."""
        return list(self.bpe.encode("".join(map(chr, self.code_points(chunk).tolist())), add_special_tokens=False).ids)

    def fits(self, ids: Sequence[int], steps: int, channels: int) -> bool:
        """Whether `ids` stand for a chunk (steps, channels); what a language model writes need not."""
        return len(self._text(ids)) == steps * channels

    def _text(self, ids: Sequence[int]) -> str:
        known = self.size
        return str(self.bpe.decode([int(i) for i in ids])) if all(0 <= int(i) < known for i in ids) else ""

    def decode(self, ids: Sequence[int], steps: int, channels: int) -> np.ndarray:
        """The chunk (steps, channels) float32 that `ids` stand for; zeros when they stand for another number of values."""
        text = self._text(ids)
        if len(text) != steps * channels:
            return np.zeros((steps, channels), np.float32)
        levels = np.array([ord(c) for c in text], np.int64).reshape(steps, channels) + self.low
        return restore(levels, self.scale).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write one JSON file."""
        content = {"low": self.low, "high": self.high, "scale": self.scale, "bpe": json.loads(self.bpe.to_str())}
        Path(path).write_text(json.dumps(content), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> FastTokenizer:
        """Read what `save` wrote."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return FastTokenizer(
                Tokenizer.from_str(json.dumps(content["bpe"])), content["low"], content["high"], content["scale"]
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: not a FAST tokenizer ({error})") from error
