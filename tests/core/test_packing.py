"""Packed rows give every document what it would get alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mixtura.data.packing import bins, packed
from mixtura.errors import DataError


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_every_document_lands_once_and_no_row_overflows(lengths: list[int]) -> None:
    rows = bins(lengths, 20)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 20 for row in rows)
    assert len(rows) <= 2 * -(-sum(lengths) // 20)


def test_a_document_that_is_too_long_is_an_error() -> None:
    with pytest.raises(DataError, match=r"raise data\.pack"):
        bins([3, 30], 20)


class Reader(nn.Module):
    """One layer of causal attention with positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place, self.qkv, self.out = (
            nn.Embedding(50, 16),
            nn.Embedding(32, 16),
            nn.Linear(16, 48),
            nn.Linear(16, 50),
        )

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.embed(tokens) + self.place(positions)).chunk(3, -1)
        return self.out(nn.functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], attn_mask=mask)[:, 0])


def test_packed_logits_equal_unpacked_ones() -> None:
    torch.manual_seed(0)
    documents = [torch.randint(1, 50, (n,)) for n in (7, 3, 12, 5, 9, 1)]
    net, together = Reader(), packed(documents, bins([len(d) for d in documents], 16), 16)
    logits = net(together.tokens, together.positions, together.mask())
    for i, document in enumerate(documents):
        n = len(document)
        alone = net(document[None], torch.arange(n)[None], torch.ones(1, 1, n, n, dtype=torch.bool).tril())
        torch.testing.assert_close(logits[together.documents == i], alone[0])
    assert together.cu_seqlens.tolist()[-1] == sum(len(d) for d in documents)
