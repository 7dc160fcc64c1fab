"""Data sets in another format: LeRobot to webdataset shards and back, questions and answers to shards.

Shards hold one sample a frame, or a record; read them with `type: webdataset, names: fields`. The goal gets its name
when it is complete. A `mixtura.json` beside the shards keeps what LeRobot needs to get them back (frame rate, features).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mixtura.data.formats.lerobot import LeRobotConfig, LeRobotSource
from mixtura.data.formats.lerobot_meta import INDEX_FEATURES
from mixtura.data.formats.lerobot_write import LeRobotWriter
from mixtura.data.formats.qa import QAConfig, QASource, image_names
from mixtura.data.formats.webdataset import IMAGES, WebdatasetConfig, WebdatasetSource, write_shards
from mixtura.data.source import Sample
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng

Say = Callable[[str], None]
SHARD, PER_SHARD, SIDECAR = "shard-%06d.tar", 1000, "mixtura.json"
RNG = KeyedRng("convert")


def convert(src: Path, dst: Path, to: str, say: Say) -> None:
    """Write the data set `src` to the new folder `dst` as `to` (webdataset or lerobot); its files tell the kind of `src`."""
    kind = kind_of(src)
    ways = {
        ("lerobot", "webdataset"): _robot_to_shards,
        ("webdataset", "lerobot"): _shards_to_robot,
        ("qa", "webdataset"): _qa_to_shards,
    }
    if (kind, to) not in ways:
        possible = ", ".join(f"{a} to {b}" for a, b in ways)
        raise DataError(f"{src} is {kind}; {kind} to {to} is not possible, these are: {possible}")
    if dst.exists():
        raise DataError(f"{dst}: exists already; give a new folder or remove it")
    ways[kind, to](src, dst, say)
    say(f"wrote {dst}")


def kind_of(src: Path) -> str:
    """lerobot, webdataset or qa, from the files that are there."""
    if (src / "meta/info.json").is_file():
        return "lerobot"
    if src.is_dir() and any(src.glob("*.tar")):
        return "webdataset"
    if src.is_file() and src.suffix in (".json", ".jsonl"):
        return "qa"
    raise DataError(
        f"{src}: expected a LeRobot folder (meta/info.json), a folder of .tar shards, or a .json or .jsonl file of records"
    )


def _write(samples: Iterator[Any], dst: Path, facts: dict[str, Any], say: Say) -> None:
    """Shards and their sidecar, under a temporary name until all is written."""
    part = dst.with_name(dst.name + ".tmp")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shards = write_shards(samples, str(part / SHARD), PER_SHARD)
        (part / SIDECAR).write_text(json.dumps(facts, indent=1))
        os.replace(part, dst)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    say(f"{len(shards)} shards; read them with `{{type: webdataset, names: fields, path: {dst}/shard-*.tar}}`")


def _robot_to_shards(src: Path, dst: Path, say: Say) -> None:
    source = LeRobotSource(LeRobotConfig(type="lerobot", path=str(src)), name=src.name, root=Path())
    features = {name: feature for name, feature in source.meta.features.items() if name not in INDEX_FEATURES}
    say(f"{len(source)} frames of {len(source.episodes)} episodes; a frame is a sample, so windows can't be cut from the shards")
    samples = (source.read(place, RNG) for place in range(len(source)))
    facts = {"format": "lerobot", "fps": source.meta.fps, "robot_type": source.meta.info.get("robot_type"), "features": features}
    _write(samples, dst, facts, say)


def _shards_to_robot(src: Path, dst: Path, say: Say) -> None:
    facts = sidecar(src)
    features = {name: {key: f[key] for key in ("dtype", "shape", "names") if key in f} for name, f in facts["features"].items()}
    source = WebdatasetSource(
        WebdatasetConfig(type="webdataset", path=str(src / "*.tar"), names="fields"), name=src.name, root=Path()
    )
    if any(feature["dtype"] == "video" for feature in features.values()):
        say("videos are encoded once more, which changes pixels a little")
    episode = 0
    with LeRobotWriter(dst, int(facts["fps"]), features, str(facts.get("robot_type") or "")) as writer:
        for place in range(len(source)):
            sample = source.read(place, RNG)
            missing = [name for name in (*features, "task", "episode_index") if name not in sample.fields]
            if missing:
                raise DataError(f"{sample.key}: no member for '{missing[0]}', which {src / SIDECAR} lists")
            if sample.fields["episode_index"] != episode and writer.frames:
                writer.save_episode()
            episode = sample.fields["episode_index"]
            writer.add_frame({name: sample.fields[name] for name in features}, task=sample.fields["task"])
        writer.save_episode()
    say(f"{len(source)} frames of {len(writer.records)} episodes")


def sidecar(folder: Path) -> dict[str, Any]:
    """mixtura.json beside shards of robot data; DataError when it is missing or says less than a LeRobot data set needs."""
    path = folder / SIDECAR
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; LeRobot needs to know of the shards, write it there: "
            "{'fps': …, 'features': {name: {dtype, shape}}}"
        )
    try:
        facts = json.loads(path.read_text())
        features = facts["features"]
        if (
            not all(isinstance(f, dict) and {"dtype", "shape"} <= set(f) for f in features.values())
            or int(facts["fps"]) != facts["fps"]
        ):
            raise ValueError("fps must be a whole number, every feature needs dtype and shape")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: expected {{'fps': …, 'features': {{name: {{dtype, shape}}}}}} ({error!r})") from error
    return dict(facts)


def _qa_to_shards(src: Path, dst: Path, say: Say) -> None:
    folder = images_beside(src)
    source = QASource(
        QAConfig(type="qa", path=str(src), images=None if folder is None else str(folder)), name=src.stem, root=Path()
    )
    left_out: list[str] = []
    _write(_records(source, folder, left_out), dst, {"format": "qa"}, say)
    for text in left_out[:10]:
        say(f"left out: {text}")
    say(f"{len(source) - len(left_out)} records, {len(left_out)} left out because an image can't be decoded")


def _records(source: QASource, folder: Path | None, left_out: list[str]) -> Iterator[dict[str, Any]]:
    """Records with the images' own bytes; what can't be decoded is named and left out."""
    for place in range(len(source)):
        try:
            sample: Sample = source.read(place, RNG)
        except BadSample as error:
            left_out.append(str(error))
            continue
        names = image_names(source.record(place), f"{source.path}: record {place}")
        record: dict[str, Any] = {"__key__": f"{place:09d}", "conversations.json": sample.fields["conversations"]}
        for k, name in enumerate(names):
            ending = name.rsplit(".", 1)[-1].lower()
            if ending not in IMAGES or folder is None:
                raise DataError(
                    f"{source.path}: record {place}: image '{name}' has no known ending ({', '.join(sorted(IMAGES))})"
                )
            record[f"images.{k}.{ending}"] = (folder / name).read_bytes()
        yield record if names else {**record, "images.json": []}


def images_beside(path: Path) -> Path | None:
    """The folder of a record file's images: STEM-images, images, or the file's own; None when no record has images."""
    plain = (
        json.loads(path.read_text())
        if path.suffix == ".json"
        else [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    )
    name = next((names[0] for record in plain if (names := image_names(record, str(path)))), None)
    if name is None:
        return None
    places = [path.with_name(f"{path.stem}-images"), path.with_name("images"), path.parent]
    for place in places:
        if (place / name).is_file():
            return place
    raise DataError(f"{path}: image '{name}' is in none of {', '.join(map(str, places))}; move the images to one of them")
