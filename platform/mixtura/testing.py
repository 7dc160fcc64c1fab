"""A system and a source small enough for tests, benchmarks and first tries: points on curves, of ragged number.

`ToySource` gives sets of points (x, y) on a curve; `ToySystem` learns the curves with a small network. Its terms have
ragged counts, one of them is absent from some batches, and it can play two players, so it exercises the whole trainer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from mixtura.data.source import Sample, SourceConfig, SourceInfo
from mixtura.errors import BadSample
from mixtura.rng import KeyedRng
from mixtura.system import Batch, LossTerm, StepContext, System, SystemConfig


class ToySourceConfig(SourceConfig):
    """A made-up source."""

    size: int = Field(100, ge=1)
    frequency: float = 1.0
    points: int = Field(5, ge=1, description="samples hold 1 to so many points")
    signed: bool = Field(True, description="samples tell the sign of every point as well")
    bad: tuple[int, ...] = Field((), description="items that can't be read")
    width: int = Field(4, ge=1)
    seed: int = 0


class ToySource:
    """Sets of 1..points points: fields x (N, width), y (N,) float32, and sign (N,) where `signed`."""

    Config = ToySourceConfig

    def __init__(self, config: ToySourceConfig, name: str = "toy", root: Path | None = None) -> None:
        self.config = config
        mark = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]
        self.info = SourceInfo(name, config.size, mark, "points", (1 + config.points) / 2, max_epochs=config.max_epochs)

    def __len__(self) -> int:
        return self.config.size

    def read(self, index: int, rng: KeyedRng) -> Sample:
        """Item `index`; the same whatever `rng` is."""
        if index in self.config.bad:
            raise BadSample(f"{self.info.name}:{index} is marked as bad")
        numbers = KeyedRng(self.config.seed, index).numpy()
        x = numbers.uniform(-1, 1, (int(numbers.integers(1, self.config.points + 1)), self.config.width)).astype(np.float32)
        y = np.sin(self.config.frequency * 3 * x.sum(1)).astype(np.float32)
        fields: dict[str, Any] = {"x": x, "y": y}
        if self.config.signed:
            fields["sign"] = (y > 0).astype(np.float32)
        return Sample(fields, key=f"{self.info.name}/{index}")


class ToyConfig(SystemConfig):
    """Sizes of the toy networks."""

    width: int = Field(4, ge=1)
    hidden: int = Field(32, ge=1)
    layers: int = Field(2, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.0, ge=0, description="standard deviation of noise on the inputs, keyed by sample")
    adversarial: bool = Field(False, description="a critic tells points of the data from points of the network")


def _network(inputs: int, config: ToyConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(config.layers):
        layers += [nn.Linear(inputs if i == 0 else config.hidden, config.hidden), nn.GELU(), nn.Dropout(config.dropout)]
    return nn.Sequential(*layers)


class ToySystem(System):
    """Terms `value` (squared error of y, over points) and `sign` (cross entropy, where told); `fool` "
    "and `judge` when adversarial."""

    Config = ToyConfig
    config: ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.body = _network(config.width, config)
        self.head = nn.Linear(config.hidden, 2)
        if config.adversarial:
            self.critic = nn.Sequential(_network(config.width + 1, config), nn.Linear(config.hidden, 1))
            self.players = {"generator": ("body", "head"), "discriminator": ("critic",)}  # type: ignore[misc] # by configuration

    def collate(self, samples: Sequence[Sample]) -> Batch:
        x = torch.from_numpy(np.concatenate([s.fields["x"] for s in samples]))
        y = torch.from_numpy(np.concatenate([s.fields["y"] for s in samples]))
        sign = torch.from_numpy(np.concatenate([s.fields.get("sign", np.full_like(s.fields["y"], np.nan)) for s in samples]))
        lengths = [len(s.fields["y"]) for s in samples]
        return {
            "x": x,
            "y": y,
            "sign": sign,
            "owner": torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(lengths)),
            "n": len(samples),
        }

    def counts(self, batch: Batch) -> dict[str, Tensor | float]:
        points = float(len(batch["y"]))
        terms: dict[str, Tensor | float] = {"value": points, "sign": float((~batch["sign"].isnan()).sum())}
        return terms | ({"fool": points, "judge": points} if self.config.adversarial else {})

    def losses(self, batch: Batch, ctx: StepContext) -> dict[str, LossTerm]:
        owner, n = batch["owner"], batch["n"]
        x = batch["x"]
        if self.config.noise:
            x = x + self.config.noise * ctx.noise.normal("input", self.config.width)[owner]
        out = self.head(self.body(x))

        def term(per_point: Tensor, player: str) -> LossTerm:
            weight = 1.0 if ctx.sample_weight is None else ctx.sample_weight[owner]
            totals = torch.zeros(n, device=x.device).index_add(0, owner, per_point * weight)
            return LossTerm.of(totals, torch.bincount(owner, minlength=n).float(), player=player)

        first = "generator" if self.config.adversarial else "main"
        terms = {"value": term((out[:, 0] - batch["y"]) ** 2, first)}
        told = ~batch["sign"].isnan()
        if told.any():
            entropy = (
                nn.functional.binary_cross_entropy_with_logits(out[:, 1], batch["sign"].nan_to_num(), reduction="none") * told
            )
            kept = term(entropy, first)
            assert kept.per_sample is not None
            counts = torch.zeros(n, device=x.device).index_add(0, owner, told.float())
            terms["sign"] = LossTerm(kept.total, told.sum(), 1.0, first, (kept.per_sample[0], counts))
        if self.config.adversarial:
            fake, real = torch.cat([x, out[:, :1]], 1), torch.cat([x, batch["y"][:, None]], 1)
            softplus = nn.functional.softplus
            terms["fool"] = term(softplus(-self.critic(fake)[:, 0]), "generator")
            terms["judge"] = term(
                softplus(self.critic(fake.detach())[:, 0]) + softplus(-self.critic(real)[:, 0]), "discriminator"
            )
        return terms

    @torch.no_grad()
    def infer(self, **inputs: Any) -> dict[str, Any]:
        """x (N, width) -> y (N,), sign (N,) logits."""
        out = self.head(self.body(torch.as_tensor(inputs["x"], dtype=torch.float32)))
        return {"y": out[:, 0], "sign": out[:, 1]}
