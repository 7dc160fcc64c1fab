"""Keeping a codebook alive: which entries were used since the last look, and what replaces the others (section 4.2).

The published rule compares a count summed over steps and codes with one batch size, and replaces by exact copies, which
then move together. `fixed` compares an entry's share of all uses with an even share, and puts the copies apart by noise
as large as the quantisation error. Counters are buffers, so a resumed run replaces the same entries.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Compat = Literal["fixed", "official"]
UNUSED = 0.1
"""fixed: an entry is unused below this fraction of an even share; official: below this many uses per sample of a batch."""
SPREAD = 0.5
"""fixed: noise on a copied entry, in units of the quantisation error per channel."""
TINY = 1e-12
"""official: noise on a copied entry."""


def due(step: int, compat: Compat) -> bool:
    """Whether unused entries are replaced before `step`: every 10, 100, 500 steps below 100, 1000, 5000 (official: not later)."""
    if step <= 0:
        return False
    if step < 100:
        return step % 10 == 0
    if step < 1000:
        return step % 100 == 0
    return step % 500 == 0 and (step < 5000 or compat == "fixed")


class CodebookUsage(nn.Module):
    """Counters of one codebook: uses per entry, samples of the last batch, squared quantisation error, last step looked at."""

    def __init__(self, entries: int, width: int, compat: Compat = "fixed") -> None:
        super().__init__()
        self.compat, self.width = compat, width
        self.register_buffer("uses", torch.zeros(entries, dtype=torch.float64))
        self.register_buffer("batch", torch.zeros((), dtype=torch.float64))
        self.register_buffer("error", torch.zeros((), dtype=torch.float64))
        self.register_buffer("looked", torch.full((), -1, dtype=torch.int64))

    @torch.no_grad()
    def count(self, indices: Tensor, z: Tensor, codes: Tensor) -> None:
        """Add one forward's uses: indices (B, codes), z and codes (B * codes, width)."""
        self.uses += torch.bincount(indices.flatten(), minlength=len(self.uses)).to(self.uses.dtype)
        self.error += (z - codes).double().square().sum()
        self.batch.fill_(len(indices))

    @torch.no_grad()
    def remedy(self, codebook: Tensor, step: int, generator: torch.Generator) -> int:
        """Replace unused rows of `codebook` (entries, width) in place when `step` is due; returns how many.

        A second call for the same step does nothing. With several processes the counts are added up first, so that all
        of them replace the same rows; `generator` (CPU) must be equal everywhere.
        """
        if not due(step, self.compat) or int(self.looked) == step:
            return 0
        uses, error, batch = self._everywhere()
        replaced = 0
        if uses.sum() > 0:
            replaced = self._replace(codebook, uses, error, batch, generator)
        self.uses.zero_()
        self.error.zero_()
        self.looked.fill_(step)
        return replaced

    def _everywhere(self) -> tuple[Tensor, Tensor, Tensor]:
        """Uses, squared error and batch, summed over processes."""
        both = torch.cat([self.uses, self.error[None], self.batch[None]])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(both)
        both = both.cpu()
        return both[:-2], both[-2], both[-1]

    def _replace(self, codebook: Tensor, uses: Tensor, error: Tensor, batch: Tensor, generator: torch.Generator) -> int:
        official = self.compat == "official"
        used = uses / batch >= UNUSED if official else uses / uses.sum() >= UNUSED / len(uses)
        noise = torch.randn(codebook.shape, generator=generator)
        if not used.any():
            codebook.add_((TINY * noise).to(codebook))
            return 0
        kept, lost = used.nonzero()[:, 0], (~used).nonzero()[:, 0]
        if not len(lost):
            return 0
        if official:
            repeats = -(-len(lost) // len(kept))
            shuffled = [kept[torch.randperm(len(kept), generator=generator)] for _ in range(repeats)]
            chosen, size = torch.cat(shuffled)[: len(lost)], torch.tensor(TINY)
        else:
            # Busy entries are split first: they stand for the most, and for the most different, changes.
            chosen = kept[torch.multinomial(uses[kept], len(lost), replacement=True, generator=generator)]
            size = SPREAD * (error / uses.sum() / self.width).sqrt()
        rows = codebook[chosen.to(codebook.device)] + (size * noise[: len(lost)]).to(codebook)
        codebook[lost.to(codebook.device)] = rows
        return len(lost)
