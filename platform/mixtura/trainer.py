"""The loop on three levels: run, step, micro-batch.

Read `Trainer.run`, `Trainer.step` and `Trainer.backward` in this order. Everything a step does is a function of
(configuration, seed, step): the plan says which samples, keyed generators give the noise, schedules are functions of
the step. So a run that was killed and resumed computes the same numbers, bit for bit, as one that never stopped.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mixtura import checkpoint, sharding
from mixtura.config import dump
from mixtura.config.schema import RunConfig
from mixtura.data.loader import Micro, StageLoader, StepData
from mixtura.data.mixers.base import Observation
from mixtura.data.sources import open_sources
from mixtura.ema import Ema
from mixtura.errors import CheckpointError, RunError
from mixtura.inference import measure_one
from mixtura.optim import set_lr
from mixtura.plugins import registry
from mixtura.precision import checkpoint_blocks, make_accelerator, repeat_from
from mixtura.report import write_report
from mixtura.rng import KeyedRng, SampleNoise, key64
from mixtura.run import RunFolder
from mixtura.signals import StopRequest, stop_request
from mixtura.sinks import Console, Sink, TensorBoard, open_sinks
from mixtura.stage import OpenStage, check_parts, choose_trained
from mixtura.system import StepContext


def train(config: RunConfig, resume: bool = False, root: Path | None = None, overfit: int = 0, text: str | None = None) -> int:
    """Train a configuration from `root` (where its relative paths start). Returns the exit code: 0, or 128 + signal.

    Raises MixturaError for what the user can mend. With `overfit` N the first N steps' samples are used again and again.
    `text` is the configuration as the run folder keeps it, where the caller knows more than its values (their origins).
    """
    root = Path(root or Path.cwd())
    accelerator = make_accelerator(config.train)
    folder = RunFolder(root / config.run.dir)
    if sharding.rank() == 0:
        folder = RunFolder.resume(folder.path) if resume else RunFolder.create(folder.path, text or dump(config))
    sharding.wait()
    sinks: list[Sink] = []
    try:
        with stop_request() as request:
            trainer = Trainer(config, root, folder, accelerator, request, sinks, resume, overfit)
            code = trainer.run()
        if code == 0 and sharding.rank() == 0:
            trainer.say(f"report: {write_report([folder.path])}")
        return code
    finally:
        for sink in sinks:
            sink.close()
        folder.close()


class Trainer:
    """One process of a run. `step_now` counts finished steps of the whole run."""

    def __init__(
        self,
        config: RunConfig,
        root: Path,
        folder: RunFolder,
        accelerator: Any,
        request: StopRequest,
        sinks: list[Sink],
        resume: bool = False,
        overfit: int = 0,
    ) -> None:
        self.config, self.root, self.folder, self.accelerator = config, root, folder, accelerator
        self.request, self.sinks, self.overfit = request, sinks, overfit
        self.rank, self.world, self.device = sharding.rank(), sharding.world(), accelerator.device
        self.restored = checkpoint.newest(folder.path) if resume else None
        self.sources = open_sources(config.sources, root)
        self.evaluators = [(e, registry().get("evaluator", e.type)(e, root=root)) for e in config.evaluate]
        self.system = checkpoint.build_system(config, config.run.seed)
        self._prepare()
        self.system.to(self.device)
        self.parts = self.system.parts()
        check_parts(config, self.parts)
        if config.train.gradient_checkpointing:
            checkpoint_blocks(self.system, tuple(self.system.wrap_blocks()))
        ema = config.train.ema
        self.ema = Ema(self.system, ema.decay, ema.every) if ema else None
        self.step_now = self.skips = self.extra_samples = self.bad = self.stopped_by = 0
        self.seen = 0.0
        self.measured: set[tuple[str, int]] = set()

    # -- run ---------------------------------------------------------------------------------------------------
    def run(self) -> int:
        """All stages from where the run stands. Returns the exit code."""
        began = time.monotonic()
        state = self._restore()
        if state is None:
            if self.config.init_from:
                self.say(checkpoint.init_from(self.system, self.root / self.config.init_from))
            self.evaluate("start")
        for number in range(state["stage"] if state else 0, len(self.config.stages)):
            self.run_stage(number, state)
            state = None
            if self.stopped_by:
                self.say(f"stopped by signal {self.stopped_by} after step {self.step_now}; go on with --resume")
                return 128 + self.stopped_by
        self.evaluate("end")
        self.write({"kind": "done", "step": self.step_now, "seconds": time.monotonic() - began})
        return 0

    def run_stage(self, number: int, state: Mapping[str, Any] | None) -> None:
        """One stage: open it, then its steps, then a checkpoint."""
        section, data, seed = self.config.stages[number], self.config.data, self.config.run.seed
        choose_trained(self.system, self.parts, section)
        if self.ema and state is None:
            self.ema.restart(self.system)
        for turn in (True, False):  # rank 0 makes what is cached, the others read it
            if turn == (self.rank == 0):
                self.system.start_stage(section.name, self.sources, self.folder.cache)
            sharding.wait()
        self.stage = stage = OpenStage(number, self.config, self.system, self.sources, self.accelerator)
        if state is not None:
            stage.load(state, self.restored)
        else:
            weights = sum(p.numel() for ps in stage.weights.values() for p in ps)
            self.write(
                {
                    "kind": "stage",
                    "step": self.step_now,
                    "name": section.name,
                    "steps": section.steps,
                    "trained": f"{weights:,} weights",
                }
            )
        loader = StageLoader(
            stage.planner,
            self.sources,
            self.system,
            seed=seed,
            stage=section.name,
            start=stage.done,
            workers=data.workers,
            prefetch=data.prefetch,
            batching=data.batching,
            micro_batch=data.micro_batch,
            pack=data.pack,
            rank=self.rank,
            world=self.world,
            overfit=self.overfit,
        )
        for step_data in loader:
            self.step(step_data)
            self._after_step()
            if self.stopped_by:
                return
        if stage.meter.steps:
            self._log()
        self.save()

    # -- step --------------------------------------------------------------------------------------------------
    def step(self, data: StepData) -> None:
        """One optimizer step of every player on the same micro-batches."""
        stage = self.stage
        scales = self._scales(data.micros)
        micros = [self._on_device(micro) for micro in data.micros]
        kept: list[dict[str, Any]] = [{} for _ in micros]
        norm = 0.0
        self.system.start_step(self.step_now)
        for player in stage.players:
            stage.turn(player)
            for number, micro in enumerate(micros):
                context = self._context(micro, data, player, kept[number])
                self.backward(micro, context, scales, last=number == len(micros) - 1)
            norm = max(norm, self._apply(player, data))
        stage.turn(None)
        if self.ema:
            self.ema.update(self.system, self.step_now)
        stage.meter.add_step(data.plan, norm, len(data.bad), data.wait_s)
        self._observe(data)
        self._count_bad(data)
        if self.config.log.samples and self.rank == 0:
            ids = [f"{stage.names[slot.source]}:{slot.item}" for slot in data.plan.slots]
            self.folder.append(self.folder.samples, {"step": self.step_now + 1, "ids": ids})
        self.step_now += 1
        stage.done += 1

    # -- micro-batch -------------------------------------------------------------------------------------------
    def backward(self, micro: Micro, context: StepContext, scales: Mapping[str, float], last: bool) -> None:
        """Add this micro-batch's share of the step's gradient; ranks exchange gradients in the last one."""
        stage, player = self.stage, context.player
        repeat_from(key64(self.config.run.seed, "dropout", self.step_now, self.rank, micro.places[0], player))
        with contextlib.nullcontext() if last or self.world == 1 else stage.forward.no_sync():
            loss, terms = stage.forward(micro.batch, context, scales)
            if self.world > 1:
                loss = loss + 0.0 * stage.weights[player][0].sum()  # every rank takes part, whatever terms it has
            if loss.requires_grad:
                self.accelerator.backward(loss)
        for name, term in terms.items():
            stage.meter.add_term(name, term, context.source_ids)
        if stage.done == 0:
            stage.check_terms(terms, micro.counts)

    def _scales(self, micros: list[Micro]) -> dict[str, float]:
        """w_k * world / (count of term k over all micro-batches and ranks): the loss rule, from data alone."""
        terms = sorted({name for micro in micros for name in micro.counts})
        sums = torch.tensor([[float(m.counts.get(name, 0.0)) for name in terms] for m in micros], dtype=torch.float64).sum(0)
        asked = torch.tensor([float(self.request.signum)], dtype=torch.float64)
        counts = sharding.total(torch.cat([sums, asked]).to(self.device)).tolist()
        self.all_asked = counts[-1] > 0  # so that all ranks stop after the same step
        if self.stage.done == 0:
            self.stage.check_loss_names(terms)
        weights = self.stage.section.loss
        return {n: weights.get(n, 1.0) * self.world / c if c > 0 else 0.0 for n, c in zip(terms, counts[:-1], strict=True)}

    def _context(self, micro: Micro, data: StepData, player: str, kept: dict[str, Any]) -> StepContext:
        stage = self.stage
        rng = KeyedRng(self.config.run.seed, "step", self.step_now)
        noise = SampleNoise(rng.at("noise"), micro.places, self.device)
        weights = data.plan.loss_weights
        weight = None if weights is None else torch.as_tensor(weights, dtype=torch.float32, device=self.device)[micro.source_ids]
        place = (self.step_now, stage.section.name, stage.done, stage.steps)
        return StepContext(
            *place, rng, noise, micro.source_ids, stage.names, weight, player, kept=kept, weights=stage.section.loss
        )

    def _on_device(self, micro: Micro) -> Micro:
        batch = sharding.to_device(micro.batch, self.device)
        return Micro(batch, micro.places, micro.source_ids.to(self.device), micro.keys, micro.counts)

    def _apply(self, player: str, data: StepData) -> float:
        """Clip, check and apply a player's gradient. Returns its norm before clipping."""
        stage, optimizer = self.stage, self.stage.optimizers[player]
        norm = float(self.accelerator.clip_grad_norm_(stage.weights[player], stage.settings[player].clip or math.inf))
        if math.isfinite(norm):
            set_lr(optimizer, stage.lr(player, stage.done))
            optimizer.step()
            self.skips = 0
        else:
            self._nonfinite(player, data)
        optimizer.zero_grad(set_to_none=True)
        return norm if math.isfinite(norm) else 0.0

    def _nonfinite(self, player: str, data: StepData) -> None:
        self.skips += 1
        keys = ", ".join(key for micro in data.micros for key in micro.keys[:4])
        what = (
            f"step {self.step_now + 1} of stage '{self.stage.section.name}': the gradient of {player} is not "
            f"finite (samples {keys}, …)"
        )
        if self.config.train.on_nonfinite == "stop" or self.skips > self.config.train.max_skips:
            raise RunError(
                f"{what}. The last checkpoint is intact; lower optim.lr, or set train.on_nonfinite=skip to leave such steps out"
            )
        self.say(f"{what}; step left out ({self.skips} in a row)")

    # -- around a step -----------------------------------------------------------------------------------------
    def _after_step(self) -> None:
        stage, config = self.stage, self.config
        if stage.done == 1 or self.step_now % config.log.every == 0 or stage.done == stage.steps:
            self._log()
        self.evaluate("step")
        if self.all_asked or (self.world == 1 and self.request.signum):
            self.stopped_by = self.request.signum or signal.SIGTERM
        due = config.checkpoint.every and self.step_now % config.checkpoint.every == 0
        if self.stopped_by or (due and stage.done < stage.steps):
            self.save()

    def _log(self) -> None:
        stage = self.stage
        record = {"kind": "train", "step": self.step_now, "stage": stage.section.name, "stage_step": stage.done}
        record |= stage.meter.figures(stage.section.loss)
        record["lr"] = stage.lr(stage.players[0], stage.done - 1)
        record |= {f"epoch/{n}": float(v) for n, v in zip(stage.names, stage.planner.epochs_at(stage.done), strict=True)}
        record |= {f"mixer/{key}": value for key, value in stage.planner.mixer.log().items()}
        if self.extra_samples:
            record["extra_samples"] = self.extra_samples
        record["memory_mb"] = memory_mb(self.device)
        record["time"] = time.time()
        self.write(record)
        stage.meter.reset()

    def _observe(self, data: StepData) -> None:
        """Give the mixer what it asked for; probes cost samples, which are counted."""
        stage, request = self.stage, data.plan.probe
        if not stage.planner.mixer.needs and request is None:
            return
        losses = stage.meter.step_losses(stage.section.loss)
        if self.rank == 0:
            readings = stage.probe.measure(request, self.step_now) if request is not None else None
            self.extra_samples += readings.samples if readings else 0
            got = (readings.heldout, readings.sketch, readings.target) if readings else (None, None, None)
            lr = stage.lr(stage.players[0], stage.done)
            stage.planner.observe(Observation(data.step, data.plan.counts(len(stage.names)), losses, *got, lr=lr))
        sharding.wait()

    def _count_bad(self, data: StepData) -> None:
        """Name and count samples that were replaced; too many stop the run."""
        self.seen += len(data.plan.slots) / self.world
        self.bad += len(data.bad)
        for source, item, reason in data.bad:
            self.say(f"bad sample left out: {source}:{item}: {reason}")
            self.write({"kind": "bad", "step": self.step_now + 1, "source": source, "item": item, "reason": reason})
        share = self.config.data.max_bad
        if data.bad and self.bad > share * max(self.seen, 1 / share if share else 0):
            source, item, reason = data.bad[-1]
            raise RunError(
                f"{self.bad} of {self.seen:.0f} samples could not be used, data.max_bad allows a share of {share:g}; "
                "the last was "
                f"{source}:{item}: {reason}. Mend the source (mixtura data check shows it), or raise data.max_bad"
            )

    # -- measuring and saving ----------------------------------------------------------------------------------
    def evaluate(self, when: str) -> None:
        """Run the evaluators that are due: at the start, after a step, or at the end of the run."""
        for config, evaluator in self.evaluators:
            last = self.step_now == self.config.steps
            by_step = when == "step" and config.every and self.step_now % config.every == 0 and not (last and config.at_end)
            if by_step or (when == "start" and config.at_start) or (when == "end" and config.at_end):
                name = config.name or config.type
                if self.rank == 0 and (name, self.step_now) not in self.measured:
                    self._evaluate(name, evaluator)
                sharding.wait()

    def _evaluate(self, name: str, evaluator: Any) -> None:
        began = time.perf_counter()
        out = self.folder.path / "eval" / f"{name}-{self.step_now:06d}"
        with self.ema.applied(self.system) if self.ema else contextlib.nullcontext():
            where = (self.step_now, out, self.folder.path, self.folder.cache)
            record = measure_one(evaluator, name, self.system, self.sources, self.config, *where)
        self.write({**record, "time": time.time()})
        self._not_training(began)

    def save(self) -> None:
        """Write a checkpoint of now, then delete old ones."""
        began = time.perf_counter()
        if self.rank == 0:
            tensors = {"model": self.system.state_dict(), "optim": self.stage.optimizer_tensors()}
            if self.ema:
                tensors["ema"] = self.ema.shadow
            counters = {
                "step": self.step_now,
                "skips": self.skips,
                "bad": self.bad,
                "seen": self.seen,
                "extra_samples": self.extra_samples,
                "precision": self.accelerator.mixed_precision,
                "finished": [[stage.name, stage.steps] for stage in self.config.stages[: self.stage.number]],
            }
            state = {**counters, "ema_updates": self.ema.updates if self.ema else 0, **self.stage.state_dict()}
            checkpoint.save(self.folder.path, self.step_now, tensors, state, self.config, self.folder.assets)
            checkpoint.tidy(self.folder.path, self.config.checkpoint.keep, self.config.checkpoint.keep_every)
        sharding.wait()
        self._not_training(began)

    def _not_training(self, began: float) -> None:
        """Leave the time since `began` out of the speed that the log tells."""
        if hasattr(self, "stage"):
            self.stage.meter.began += time.perf_counter() - began

    # -- starting and going on ---------------------------------------------------------------------------------
    def _prepare(self) -> None:
        """Assets are made once per run, by rank 0; a marker tells that they are whole."""
        marker = self.folder.assets / ".complete"
        if self.rank == 0 and not marker.exists():
            self.system.prepare(self.sources, self.folder.assets)
            marker.touch()
        sharding.wait()
        self.system.load_assets(self.folder.assets)

    def _restore(self) -> dict[str, Any] | None:
        """Weights and counters of the newest checkpoint, logs cut back to it; None for a fresh start."""
        if self.rank == 0:
            self.folder.cut_back(int(self.restored.name[5:]) if self.restored else -1)
            self.sinks += open_sinks(self.config.log.to, self.folder, self.config.steps)
        sharding.wait()
        if self.restored is None:
            return None
        self._read_log()
        checkpoint.verify(self.restored)
        state: dict[str, Any] = json.loads((self.restored / "trainer.json").read_text())
        self._check_finished(state.get("finished", []))
        checkpoint.load_weights(self.system, checkpoint.tensors(self.restored, "model"), str(self.restored))
        if self.ema:
            saved = checkpoint.tensors(self.restored, "ema")
            if not saved:
                raise CheckpointError(f"{self.restored} has no averaged weights, but train.ema is set; leave train.ema out")
            self.ema.load(saved, state["ema_updates"])
        self.step_now, self.skips, self.bad = state["step"], state["skips"], state["bad"]
        self.seen, self.extra_samples = state["seen"], state["extra_samples"]
        self.say(f"going on from {self.restored.name}")
        now = self.accelerator.mixed_precision
        before = state.get("precision", now)
        if before != now:
            before, now = ({"no": "fp32"}.get(name, name) for name in (before, now))
            self.say(f"in {now}; until now it was {before}: the rest will not be bit for bit what it would have been there")
        return state

    def _check_finished(self, finished: list[list[Any]]) -> None:
        """Refuse other stages, or stages of other lengths, before the one that the run stands in."""
        for number, (name, steps) in enumerate(finished):
            now = self.config.stages[number] if number < len(self.config.stages) else None
            if now is None or (now.name, now.steps) != (name, steps):
                found = f"'{now.name}' with {now.steps}" if now else "missing"
                raise CheckpointError(
                    f"{self.restored}: stages.{number} is done as '{name}' with {steps} steps, and now it is {found}; give it "
                    f"back (stages to come may change), or start another run: run.name, and init_from: {self.restored}"
                )

    def _read_log(self) -> None:
        """What was measured already is not measured again; TensorBoard files can't be cut back, so they are written anew."""
        boards = [sink for sink in self.sinks if isinstance(sink, TensorBoard)]
        records = [json.loads(line) for line in self.folder.log.read_text().splitlines()] if self.folder.log.exists() else []
        self.measured = {(r["name"], r["step"]) for r in records if r["kind"] == "eval"}
        for board in boards:
            for record in records:
                board.write(record)

    # -- talking -----------------------------------------------------------------------------------------------
    def write(self, record: dict[str, Any]) -> None:
        """A record for all sinks (rank 0 has them)."""
        for sink in self.sinks:
            sink.write(record)

    def say(self, text: str) -> None:
        """A line for the person at the console."""
        for sink in self.sinks:
            if isinstance(sink, Console):
                sink.say(text)


def memory_mb(device: torch.device) -> float:
    """Peak memory of this process in MiB: of the device, or resident on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
