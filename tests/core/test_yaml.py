"""Strict YAML: what is a number, what stays text, what is refused, and that writing undoes reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtura.config.yaml_marks import read, write
from tests.core.strategies import SCALARS, WORDS

PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


def test_words_and_numbers_are_read_strictly() -> None:
    text = "[on, off, yes, no, true, 1e-4, 1.5E3, 2026-01-31, 010, 12:30, 1_000, ~, .inf, '5']"
    expected = ["on", "off", "yes", "no", True, 1e-4, 1500.0, "2026-01-31", "010", "12:30", 1000, None, float("inf"), "5"]
    assert read(f"a: {text}").data["a"] == expected


@pytest.mark.parametrize(
    "text",
    ["a: !!python/object/apply:os.system [ls]", "a: !!str 5", "a: &x 1", "a: &x [1]\nb: *x", "a: {<<: {b: 1}}", "{[1]: 2}"],
)
def test_tags_anchors_merges_and_odd_keys_are_refused(text: str) -> None:
    assert read(text).problems


@given(PLAIN)
@settings(max_examples=150, deadline=None)
def test_any_plain_data_survives_writing_and_reading(data: Any) -> None:
    marked = read(write({"a": data}))
    assert not marked.problems
    assert marked.data == {"a": data}


def test_every_ready_configuration_is_strict_yaml() -> None:
    for file in (Path(__file__).parents[2] / "configs").rglob("*.yaml"):
        marked = read(file.read_text())
        assert not marked.problems, file
