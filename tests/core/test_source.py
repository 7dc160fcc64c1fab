"""What sources share: finding an item in one of several files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixtura.data.source import part_of


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_every_item_is_found_in_its_part(sizes: list[int]) -> None:
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    expected = [(part, place) for part, size in enumerate(sizes) for place in range(size)]
    assert [part_of(starts, index, "a") for index in range(sum(sizes))] == expected


@pytest.mark.parametrize("index", [-1, 5])
def test_an_item_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=rf"shards: no sample {index}, it has 5"):
        part_of(np.array([0, 2, 5]), index, "shards")
