"""What iFlyBot-VLA derives from its data once per run: statistics, the text tokenizer, the FAST tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixtura.data.source import Sample, Source
from mixtura.errors import CheckpointError, DataError
from mixtura_iflybot_vla.config import IFlyBotConfig
from mixtura_iflybot_vla.data import (
    Normaliser,
    Statistics,
    is_robot,
    load_statistics,
    read_evenly,
    robot_sample,
    save_statistics,
    statistics,
)
from mixtura_iflybot_vla.fast import FastTokenizer
from mixtura_iflybot_vla.sequence import SYSTEM_PROMPT, question
from mixtura_iflybot_vla.vocabulary import Vocabulary

MOST_CHUNKS, MOST_QUESTIONS = 4096, 4096
"""Samples that the tokenizers are fitted on, evenly spread over each source."""
STATISTICS, VOCABULARY, FAST = "statistics.json", "vocabulary.json", "fast.json"


@dataclass
class Assets:
    """Statistics and normalisers by robot source, and the two tokenizers (`fast` is None without robot sources)."""

    statistics: dict[str, Statistics]
    vocabulary: Vocabulary
    fast: FastTokenizer | None
    normalisers: dict[str, Normaliser]

    def normaliser(self, source: str | None = None) -> Normaliser:
        """Of a robot source; the only (or alphabetically first) one by default."""
        if not self.normalisers:
            raise CheckpointError("this run saw no robot source, so it holds no statistics of states and actions")
        name = source or sorted(self.normalisers)[0]
        if name not in self.normalisers:
            raise CheckpointError(f"no statistics of a source '{name}'; the run knows {', '.join(sorted(self.normalisers))}")
        return self.normalisers[name]


def robot_sources(sources: Mapping[str, Source], config: IFlyBotConfig) -> dict[str, Source]:
    """Sources whose samples carry actions."""
    return {name: source for name, source in sources.items() if is_robot(read_evenly(source, 1)[0].fields, config)}


def make_assets(sources: Mapping[str, Source], config: IFlyBotConfig, folder: Path) -> None:
    """Derive everything and write it to `folder`."""
    robots = robot_sources(sources, config)
    samples = {name: read_evenly(source, MOST_CHUNKS if name in robots else MOST_QUESTIONS) for name, source in sources.items()}
    stats = {name: statistics(source, config, samples[name]) for name, source in robots.items()}
    save_statistics(folder / STATISTICS, stats)
    if not config.vlm.tokenizer:
        texts = set(_texts([sample for part in samples.values() for sample in part], config))
        Vocabulary.train(texts, config.vlm.text_vocab, config.vlm.fast_vocab, config.lam.codebook).save(folder / VOCABULARY)
    if robots and config.fast:
        chunks = [chunk for name in robots for chunk in _chunks(samples[name], Normaliser(stats[name], config), config)]
        FastTokenizer.fit(chunks, config.vlm.fast_vocab).save(folder / FAST)


def read_assets(config: IFlyBotConfig, folder: Path) -> Assets:
    """Read back what `make_assets` wrote."""
    for name in (STATISTICS,) if config.vlm.tokenizer else (STATISTICS, VOCABULARY):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: missing; a run or checkpoint of iFlyBot-VLA holds it")
    stats = load_statistics(folder / STATISTICS)
    if config.vlm.tokenizer:
        vocabulary = Vocabulary.published(Path(config.vlm.tokenizer), config.lam.codebook)
    else:
        vocabulary = Vocabulary.load(folder / VOCABULARY, config.vlm.text_vocab, config.vlm.fast_vocab, config.lam.codebook)
    fast = FastTokenizer.load(folder / FAST) if (folder / FAST).is_file() else None
    return Assets(stats, vocabulary, fast, {name: Normaliser(part, config) for name, part in stats.items()})


def _texts(samples: Sequence[Sample], config: IFlyBotConfig) -> Iterator[str]:
    yield from (SYSTEM_PROMPT, "system\n", "user\n", "assistant\n")
    for sample in samples:
        if is_robot(sample.fields, config):
            yield question(str(sample.fields.get("task", "")))
        else:
            if "conversations" not in sample.fields:
                raise DataError(
                    f"source '{sample.source}': a sample has neither '{config.action}' nor 'conversations'; fields: "
                    f"{', '.join(sample.fields)}"
                )
            yield from (turn["value"].replace("<image>", "").strip("\n") for turn in sample.fields["conversations"])


def _chunks(samples: Sequence[Sample], normaliser: Normaliser, config: IFlyBotConfig) -> Iterator[np.ndarray]:
    """Normalised chunks (T, D) of valid channels, finite ones only."""
    for sample in samples:
        if np.isfinite(np.asarray(sample.fields[config.action], np.float64)).all():
            chunk = robot_sample(sample, config).actions
            yield normaliser.encode("action", chunk)[:, : fast_channels(normaliser, config)]


def fast_channels(normaliser: Normaliser, config: IFlyBotConfig) -> int:
    """Channels that FAST tokens cover: those of the data; the published code takes the padding along."""
    return config.width if config.compat == "official" else normaliser.channels("action")
