"""Questions and answers: records are checked when opened, images when read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixtura.data.formats.qa import QAConfig, QASource
from mixtura.data.source import Source
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng

RNG = KeyedRng(0)


def record(image: Any = "a.png", marks: int = 1, **changes: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\n" * marks + "What is it?"}, {"from": "gpt", "value": "Ein Würfel."}]
    return {"id": "q1", "image": image, "conversations": turns, **changes}


def qa(folder: Path, records: Any, name: str = "qa.jsonl") -> QASource:
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), 9, np.uint8)).save(folder / "images/a.png")
    lines = isinstance(records, list) and name.endswith("l")
    text = "\n".join(map(json.dumps, records)) + "\n" if lines else records if isinstance(records, str) else json.dumps(records)
    (folder / name).write_text(text)
    return QASource(QAConfig(type="qa", path=name, images="images"), name="qa", root=folder)


@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl"])
def test_records_of_both_layouts_read_alike(tmp_path: Path, name: str) -> None:
    source = qa(tmp_path, [record(), record(None, 0, id="q2"), record(["a.png", "a.png"], 2, id="q3")], name)
    assert isinstance(source, Source)
    assert len(source) == 3
    sample = source.read(0, RNG)
    assert sample.key == f"{name}/q1"
    assert sample.fields["conversations"][1] == {"from": "gpt", "value": "Ein Würfel."}
    assert sample.fields["images"][0].shape == (4, 6, 3)
    assert [len(source.read(k, RNG).fields["images"]) for k in range(3)] == [1, 0, 2]
    assert pickle.loads(pickle.dumps(source)).read(2, RNG).key == f"{name}/q3"


def test_other_role_names_are_understood(tmp_path: Path) -> None:
    turns = [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]
    source = qa(tmp_path, [{"conversations": turns}])
    assert [turn["from"] for turn in source.read(0, RNG).fields["conversations"]] == ["human", "gpt"]


def test_empty_lines_are_no_records(tmp_path: Path) -> None:
    assert len(qa(tmp_path, json.dumps(record()) + "\n\n  \n" + json.dumps(record()))) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"conversations": []}, "at least one turn"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "turn 0 must be"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "first turn is from 'gpt'"),
        (record(marks=2), "2 <image> in the conversations, 1 images"),
        (record("../secret.png"), "outside the images folder"),
        (record("/etc/passwd"), "outside the images folder"),
        (record("https://host/a.png"), "outside the images folder"),
        (record([1]), "`image` must be a file name"),
        ("text", "expected an object"),
    ],
)
def test_a_wrong_record_is_named_with_its_line(tmp_path: Path, wrong: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        qa(tmp_path, [record(), wrong])
    assert "qa.jsonl:2" in str(error.value)
    with pytest.raises(DataError, match=message) as error:
        qa(tmp_path, [record(), wrong], "qa.json")
    assert "qa.json: record 1" in str(error.value)


def test_broken_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"qa\.jsonl:2: not valid JSON"):
        qa(tmp_path, json.dumps(record()) + '\n{"id": \n')
    with pytest.raises(DataError, match=r"qa\.json: not valid JSON"):
        qa(tmp_path, "[{]", "qa.json")


@pytest.mark.parametrize("damage", ["gone", "cut", "junk"])
def test_an_image_that_cannot_be_decoded_is_a_bad_sample(tmp_path: Path, damage: str) -> None:
    source = qa(tmp_path, [record()])
    image = tmp_path / "images/a.png"
    data = image.read_bytes()
    image.unlink() if damage == "gone" else image.write_bytes(data[: len(data) // 2] if damage == "cut" else b"junk")
    with pytest.raises(BadSample, match=r"a\.png: can't be decoded"):
        source.read(0, RNG)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        QASource(QAConfig(type="qa", path="none.json"), name="qa", root=tmp_path)
    qa(tmp_path, [record()])
    with pytest.raises(DataError, match="no `images:` folder"):
        QASource(QAConfig(type="qa", path="qa.jsonl"), name="qa", root=tmp_path)
