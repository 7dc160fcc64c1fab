"""What is summed between two log lines: losses per term and source, the mixture as realised, time spent waiting.

Sums are float64 and part of the checkpoint, so a resumed run logs the same figures as one never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixtura.data.plan import StepPlan
from mixtura.sharding import total
from mixtura.system import LossTerm


class Meter:
    """Sums of one window of steps. `names` are the sources in order."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names, self.device = tuple(names), device
        self.reset()

    def reset(self) -> None:
        """Begin a window."""
        self.terms: dict[str, Tensor] = {}
        self.now: dict[str, Tensor] = {}
        self.last: dict[str, Tensor] = {}
        self.drawn = torch.zeros(2, len(self.names), dtype=torch.float64)
        self.steps = 0
        self.bad = 0
        self.norms = torch.zeros((), dtype=torch.float64)
        self.began, self.waited, self.samples = time.perf_counter(), 0.0, 0

    def add_term(self, name: str, term: LossTerm, source_ids: Tensor) -> None:
        """Sum a micro-batch's term: rows 0 and 1 hold totals and counts per source, the last column both overall."""
        if name not in self.now:
            self.now[name] = torch.zeros(2, len(self.names) + 1, dtype=torch.float64, device=self.device)
        sums = self.now[name]
        count = term.count if isinstance(term.count, Tensor) else torch.tensor(float(term.count))
        sums[:, -1] += torch.stack([term.total.detach().double(), count.to(self.device, torch.float64)])
        if term.per_sample is not None:
            sums[:, :-1].index_add_(1, source_ids, torch.stack(term.per_sample).to(self.device, torch.float64))

    def add_step(self, plan: StepPlan, norm: float, bad: int, waited: float) -> None:
        """Close a finished step: its sums join the window."""
        for name, sums in self.now.items():
            self.terms[name] = self.terms[name] + sums if name in self.terms else sums
        self.last, self.now = self.now, {}
        self.drawn[0] += torch.from_numpy(plan.counts(len(self.names))).double()
        self.drawn[1] += torch.from_numpy(plan.weights)
        self.norms += norm
        self.steps += 1
        self.bad += bad
        self.waited += waited
        self.samples += len(plan.slots)

    def step_losses(self, weights: Mapping[str, float]) -> np.ndarray:
        """Weighted loss of each source in the last step (K,) float64, nan where absent; the same on all ranks."""
        value = np.full(len(self.names), np.nan)
        for name in sorted(self.last):
            totals, counts = total(self.last[name].clone())[:, :-1].cpu().numpy()
            with np.errstate(invalid="ignore", divide="ignore"):
                part = weights.get(name, 1.0) * np.where(counts > 0, totals / counts, np.nan)
            value = np.where(np.isnan(part), value, np.where(np.isnan(value), part, value + part))
        return value

    def figures(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """One flat record of the window; the same on all ranks (this call meets the other ranks)."""
        record: dict[str, Any] = {"loss": 0.0}
        for name in sorted(self.terms):
            sums = total(self.terms[name].clone())
            totals, counts = sums[0].tolist(), sums[1].tolist()
            if counts[-1] > 0:
                record[f"loss/{name}"] = totals[-1] / counts[-1]
                record["loss"] += weights.get(name, 1.0) * totals[-1] / counts[-1]
            for source, part, count in zip(self.names, totals, counts, strict=False):
                if count > 0:
                    record[f"loss/{name}/{source}"] = part / count
        bad = total(torch.tensor([float(self.bad)], device=self.device))
        seconds = max(time.perf_counter() - self.began, 1e-9)
        drawn = self.drawn[0].sum().item()
        for k, source in enumerate(self.names):
            record[f"mix/{source}"] = self.drawn[0, k].item() / max(drawn, 1)
            record[f"mix_planned/{source}"] = self.drawn[1, k].item() / max(self.steps, 1)
        return {
            **record,
            "grad_norm": self.norms.item() / max(self.steps, 1),
            "bad_samples": int(bad.item()),
            "samples_per_s": self.samples / seconds,
            "step_s": seconds / max(self.steps, 1),
            "wait_share": min(1.0, self.waited / seconds),
        }

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable sums of the window so far (time is not part of it)."""
        terms = {name: sums.tolist() for name, sums in self.terms.items()}
        return {
            "terms": terms,
            "drawn": self.drawn.tolist(),
            "norms": self.norms.item(),
            "steps": self.steps,
            "bad": self.bad,
            "samples": self.samples,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a window."""
        self.reset()
        self.terms = {n: torch.tensor(v, dtype=torch.float64, device=self.device) for n, v in state["terms"].items()}
        self.drawn = torch.tensor(state["drawn"], dtype=torch.float64)
        self.norms = torch.tensor(state["norms"], dtype=torch.float64)
        self.steps, self.bad, self.samples = state["steps"], state["bad"], state["samples"]
