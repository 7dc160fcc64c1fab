"""One stage, opened: which weights train, with which optimizers, on which plan. No loop here, see `mixtura.trainer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mixtura import checkpoint, sharding
from mixtura.config.schema import RunConfig, Stage
from mixtura.data.mixture import normalised
from mixtura.data.plan import Planner
from mixtura.data.source import Source
from mixtura.errors import CheckpointError, ConfigError, RunError
from mixtura.meter import Meter
from mixtura.optim import build_optimizer, lr_factor, pack_state, trained, unpack_state
from mixtura.plugins import registry
from mixtura.probes import Probe, check_needs, heldout_count
from mixtura.system import LossTerm, StepContext, System


class Forward(nn.Module):
    """The system's losses as a module's forward, which is what DDP, autocast and compile work on."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system

    def forward(self, batch: Any, context: StepContext, scales: Mapping[str, float]) -> tuple[Tensor, dict[str, LossTerm]]:
        """The scaled loss of this micro-batch and its terms, of the player at work."""
        terms = {n: t for n, t in self.system.losses(batch, context).items() if t.player == context.player}
        loss = torch.zeros((), device=context.source_ids.device)
        for name, term in terms.items():
            loss = loss + term.total * (scales[name] * term.weight)
        return loss, terms


def choose_trained(system: System, parts: Mapping[str, nn.Module], stage: Stage) -> None:
    """Gradients and training mode for the parts that the stage names, none for the rest."""
    chosen = set(stage.train or parts)
    system.requires_grad_(False).eval()
    for name, part in parts.items():
        if name in chosen:
            part.requires_grad_(True).train()


def check_parts(config: RunConfig, parts: Mapping[str, nn.Module]) -> None:
    """Refuse stages that name parts the system doesn't have; all of them at once."""
    problems = []
    for stage in config.stages:
        unknown = sorted(set(stage.train or ()) - set(parts))
        if unknown:
            problems.append(
                f"stage '{stage.name}': train names '{unknown[0]}'; parts of {config.system.type} are {', '.join(parts)}"
            )
    if problems:
        raise ConfigError("\n".join(problems))


class OpenStage:
    """Planner, meter, probe, optimizers and the wrapped forward of one stage. `done` counts its finished steps."""

    def __init__(self, number: int, config: RunConfig, system: System, sources: Mapping[str, Source], accelerator: Any) -> None:
        self.number, self.config, self.system = number, config, system
        self.section = stage = config.stages[number]
        self.done = 0
        data, seed, device = config.data, config.run.seed, accelerator.device
        self.names = tuple(sorted(stage.mixture))
        infos = [sources[name].info for name in self.names]
        mixer = registry().get("mixer", stage.mixer.type)(stage.mixer)
        check_needs(mixer.needs, stage.mixer.type, data.heldout > 0)
        held = [heldout_count(info.size, data.heldout) for info in infos]
        self.planner = Planner(
            infos,
            mixer,
            normalised(stage.mixture, self.names, f"stage '{stage.name}'"),
            seed=seed,
            stage=stage.name,
            stage_steps=stage.steps,
            global_batch=data.global_batch,
            when_exhausted=data.when_exhausted,
            draw=data.draw,
            heldout=held,
            share=sharding.share,
            rank=sharding.rank(),
        )
        self.meter = Meter(self.names, device)
        self.probe = Probe(system, sources, self.names, seed, stage.name, data.heldout, stage.loss, device)
        self.schedule = config.schedule_for(stage)
        self._open_optimizers(accelerator)
        forward = Forward(system)
        self.forward = accelerator.prepare_model(torch.compile(forward) if config.train.compile else forward)

    def _open_optimizers(self, accelerator: Any) -> None:
        accelerator.free_memory()
        players = dict(self.system.players) or {"main": ()}
        self.optimizers: dict[str, Any] = {}
        self.weights: dict[str, list[Tensor]] = {}
        self.settings = {player: self.config.optim_for(self.section, player) for player in players}
        every = [f"{part}.{n}" for part, module in self.system.parts().items() for n, _ in module.named_parameters()]
        for player, parts in players.items():
            named = [(n, p) for n, p in trained(self.system) if not parts or n.split(".")[0] in parts]
            if named:
                self.optimizers[player] = accelerator.prepare_optimizer(
                    build_optimizer(named, self.settings[player], every), device_placement=False
                )
                self.weights[player] = [p for _, p in named]
        if not self.optimizers:
            raise ConfigError(
                f"stage '{self.section.name}': nothing to train; `train:` must name at least one part that has weights"
            )

    @property
    def steps(self) -> int:
        """Steps of the stage."""
        return self.section.steps

    @property
    def players(self) -> tuple[str, ...]:
        """Players that have weights to train, in the order they step."""
        return tuple(self.optimizers)

    def lr(self, player: str, step: int) -> float:
        """Learning rate at a step of the stage."""
        return self.settings[player].lr * lr_factor(self.schedule, step, self.steps)

    def turn(self, player: str | None) -> None:
        """Let gradients flow into one player's weights only (None: all trained ones)."""
        if len(self.optimizers) > 1:
            for name, weights in self.weights.items():
                for weight in weights:
                    weight.requires_grad_(player is None or name == player)

    def check_terms(self, terms: Mapping[str, LossTerm], counts: Mapping[str, Any]) -> None:
        """`losses` and `counts` of a system must agree; looked at in the first step of a stage."""
        kind = self.config.system.type
        for name, term in terms.items():
            if name not in counts:
                raise RunError(f"{kind}: losses() gives the term '{name}', counts() doesn't name it")
            told, found = float(counts[name]), float(term.count)
            if abs(told - found) > 1e-6 * max(abs(told), 1.0):
                raise RunError(f"{kind}: term '{name}' counts {found:g} items in losses(), {told:g} in counts()")

    def check_loss_names(self, terms: list[str]) -> None:
        """`loss:` may only name terms that the system has; a weight of 0 may name one that is switched off."""
        unknown = sorted({name for name, weight in self.section.loss.items() if weight} - set(terms))
        if unknown:
            raise ConfigError(
                f"stage '{self.section.name}': loss names '{unknown[0]}'; in this stage {self.config.system.type} has "
                f"{', '.join(terms)}"
            )

    # -- state ---------------------------------------------------------------------------------------------------
    def optimizer_tensors(self) -> dict[str, Tensor]:
        """State of all optimizers as flat tensors, `PLAYER:NAME/slot`."""
        return {f"{player}:{n}": t for player, o in self.optimizers.items() for n, t in pack_state(o).items()}

    def state_dict(self) -> dict[str, Any]:
        """Where the stage stands (JSON)."""
        return {
            "stage": self.number,
            "stage_step": self.done,
            "planner": self.planner.state_at(self.done),
            "meter": self.meter.state_dict(),
        }

    def load(self, state: Mapping[str, Any], folder: Any) -> None:
        """Go on from a checkpoint."""
        self.done = state["stage_step"]
        saved = checkpoint.tensors(folder, "optim")
        for player, optimizer in self.optimizers.items():
            mine = {n.split(":", 1)[1]: t for n, t in saved.items() if n.split(":", 1)[0] == player}
            try:
                unpack_state(optimizer, mine)
            except KeyError as error:
                raise CheckpointError(
                    f"{folder}: optimizer state of {error} has no trained parameter; restore the stage's `train:`"
                ) from error
        self.planner.load_state_dict(state["planner"], self.config.data.on_change)
        self.meter.load_state_dict(state["meter"])
