"""Shards read from front to back with webdataset's own reader, for data that is too far away or too large to index.

The promise is smaller than that of an indexed source. A `ShardStream` goes on exactly where it was (by shard and number of
samples taken from it), but only with the same shards, seed, worker and number of workers; order is shuffled by shard only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from braceexpand import braceexpand
from webdataset import tariterators

from mixtura.data.formats.webdataset import decoder, field_of, gathered
from mixtura.data.source import Sample
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng

REMOTE = re.compile(r"(https?|s3|gs)://[A-Za-z0-9._~:/?#@!$&()*+,;=%\-]+")


class ShardStream:
    """Iterates for ever over the shards of one worker, a new order of shards in every epoch.

    `urls` are local paths or http(s), s3, gs addresses with braces; commands (`pipe:`) are refused. `worker` of `workers` reads
    every `workers`-th shard, so use one worker number per process over all ranks. `bad` lists keys that could not be decoded and
    were left out. Raises DataError for a shard that can't be opened or breaks off.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        seed: int,
        worker: int = 0,
        workers: int = 1,
        names: str = "extensions",
        videos: str = "frames",
    ) -> None:
        self.urls = [checked(url) for pattern in ([urls] if isinstance(urls, str) else urls) for url in braceexpand(pattern)]
        if not 0 <= worker < workers <= len(self.urls):
            raise DataError(f"worker {worker} of {workers} for {len(self.urls)} shards: every worker needs a shard of its own")
        self.seed, self.worker, self.workers, self.names, self.videos = seed, worker, workers, names, videos
        self.epoch = self.shard = self.taken = 0
        self.bad: list[str] = []

    def _order(self) -> list[str]:
        order = KeyedRng(self.seed, "shards", self.epoch).numpy().permutation(len(self.urls))
        return [self.urls[k] for k in order[self.worker :: self.workers]]

    def __iter__(self) -> Iterator[Sample]:
        while True:
            order = self._order()
            while self.shard < len(order):
                yield from self._read(order[self.shard])
                self.shard, self.taken = self.shard + 1, 0
            self.epoch, self.shard = self.epoch + 1, 0

    def _read(self, url: str) -> Iterator[Sample]:
        skip = self.taken
        samples = enumerate(tariterators.tarfile_samples(iter([{"url": url}])))
        while True:
            try:
                number, record = next(samples)
            except StopIteration:
                return
            except Exception as error:  # tar, network and command errors alike: the shard can't be read
                raise DataError(
                    f"{url}: breaks off after {self.taken} samples ({error!r}); copy or write the shard again"
                ) from error
            if number < skip:
                continue
            self.taken = number + 1
            try:
                yield self._decode(url, record)
            except BadSample as error:
                self.bad.append(str(error))

    def _decode(self, url: str, record: Mapping[str, Any]) -> Sample:
        fields: dict[str, Any] = {}
        key = f"{url.rsplit('/', 1)[-1]}/{record['__key__']}"
        for extension, data in record.items():
            if extension.startswith("__"):
                continue
            name = field_of(extension) if self.names == "fields" else extension
            decode = decoder(extension, self.videos, url)
            try:
                fields[name] = decode(data)
            except Exception as error:  # decoders raise whatever they like
                raise BadSample(f"{key}.{extension} can't be decoded ({error!r})") from error
        return Sample(gathered(fields) if self.names == "fields" else fields, key=key, epoch=self.epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the next sample comes from; JSON-serialisable."""
        facts = {"urls": self.urls, "seed": self.seed, "worker": self.worker, "workers": self.workers}
        return {**facts, "epoch": self.epoch, "shard": self.shard, "taken": self.taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; DataError when shards, seed or workers differ."""
        here = self.state_dict()
        differ = [name for name in ("urls", "seed", "worker", "workers") if here[name] != state[name]]
        if differ:
            raise DataError(
                f"a stream goes on only with the same {', '.join(differ)}; indexed shards (type: webdataset) have no such limit"
            )
        self.epoch, self.shard, self.taken = int(state["epoch"]), int(state["shard"]), int(state["taken"])


def checked(url: str) -> str:
    """A local path or a plain remote address; DataError for anything that a shell would run."""
    if REMOTE.fullmatch(url) and not re.search(r"[$&();!*]", url):
        return url
    if re.match(r"[a-zA-Z0-9+]+:", url):
        raise DataError(f"'{url}': streams read local files and plain http(s), s3, gs addresses; commands are never run")
    if not Path(url).is_file():
        raise DataError(f"'{url}': no such file")
    return str(Path(url).resolve())
