"""The settings of a run, one model a section. Importing this module imports neither torch nor numpy.

Sections with a `type` (system, sources, synth, evaluate, a stage's mixer) hold the plugin class's own `Config`
model; they are typed `Any` here because each plugin has its own. `mixtura.config.load` fills them in and checks
what one field can't tell alone (see `mixtura.config.checks`).
"""

from __future__ import annotations

import fnmatch
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
FOLDER = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Name = Annotated[str, Field(pattern=NAME)]
Typed = Annotated[
    Any, Field(json_schema_extra={"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}})
]
"""A section that a plugin's `Config` model validates."""
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Beta = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Section(BaseModel):
    """Base of all sections: unknown settings are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSection(Section):
    """What the run is called, where it lives, and its seed."""

    name: str = Field(pattern=FOLDER, description="name of the run")
    dir: str = Field("runs/${run.name}", min_length=1, description="folder of the run")
    seed: int = Field(0, ge=0, lt=2**63, description="every random number of the run follows from it")


class DataSection(Section):
    """How samples become batches."""

    global_batch: int = Field(16, ge=1, description="samples in a step, over all devices")
    micro_batch: int | None = Field(
        None, ge=1, description="samples in one forward pass; the whole share of a device when left out"
    )
    workers: int = Field(1, ge=0, description="loader processes per device; 0 reads in the training process")
    prefetch: int = Field(2, ge=1, description="steps that are prepared ahead")
    max_bad: Fraction = Field(0.001, description="share of unreadable samples that is tolerated")
    batching: Literal["mixed", "by_source", "bucket"] = Field("bucket", description="which samples may share a micro-batch")
    pack: int | None = Field(None, ge=1, description="units (tokens) of a row that short samples share; no packing when left out")
    draw: Literal["systematic", "independent"] = Field(
        "systematic",
        description="systematic: never a whole sample away from the proportions; independent: every sample drawn on its own",
    )
    heldout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = Field(
        0.0, description="share of every source that never trains"
    )
    when_exhausted: Literal["repeat", "redistribute", "stop"] = Field(
        "redistribute", description="a source past its max_epochs: read on, give its share to the others, or end the stage"
    )
    on_change: Literal["error", "map_by_name"] = Field(
        "error", description="resuming with other sources: refuse, or match them by name"
    )


class ParameterGroup(Section):
    """Other settings for parameters whose name matches."""

    match: str = Field(min_length=1, description="shell-style pattern of parameter names, as `backbone.*`")
    lr_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(1.0, description="factor on the learning rate")
    weight_decay: Weight | None = Field(None, description="instead of optim.weight_decay")

    def matches(self, parameter: str) -> bool:
        """Whether the pattern fits a parameter's full name."""
        return fnmatch.fnmatchcase(parameter, self.match)


class OptimPart(Section):
    """Optimizer settings that replace those of `optim:` for one stage or one player; what is left out stays."""

    type: Literal["adamw"] | None = None
    lr: Positive | None = None
    betas: tuple[Beta, Beta] | None = None
    eps: Positive | None = None
    weight_decay: Weight | None = None
    clip: Weight | None = None
    groups: tuple[ParameterGroup, ...] | None = None


class OptimSection(Section):
    """The optimizer."""

    type: Literal["adamw"] = "adamw"
    lr: Positive = Field(3e-4, description="highest learning rate of the schedule")
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: Positive = 1e-8
    weight_decay: Weight = 0.01
    clip: Weight = Field(1.0, description="largest norm of the gradient; 0 turns clipping off")
    groups: tuple[ParameterGroup, ...] = Field((), description="the first group that matches a parameter counts")
    players: dict[Name, OptimPart] = Field({}, description="settings of single players of an adversarial system")

    def merged(self, *parts: OptimPart | None) -> OptimSection:
        """These settings with those of `parts` on top, later ones first."""
        changes: dict[str, Any] = {}
        for part in parts:
            if part is not None:
                changes.update({key: value for key, value in part if value is not None})
        return self.model_copy(update=changes)


class SchedulePart(Section):
    """Schedule settings that replace those of `schedule:` for one stage; what is left out stays."""

    type: Literal["constant", "cosine", "wsd"] | None = None
    warmup: int | None = Field(None, ge=0)
    decay: Fraction | None = None
    final: Fraction | None = None


class ScheduleSection(Section):
    """The learning rate over a stage."""

    type: Literal["constant", "cosine", "wsd"] = Field("constant", description="wsd: warm up, stay, decay")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up at the start of a stage")
    decay: Fraction = Field(0.2, description="wsd: share of the stage's steps that decays, at its end")
    final: Fraction = Field(0.0, description="cosine, wsd: share of the learning rate at the end of the stage")

    def merged(self, part: SchedulePart | None) -> ScheduleSection:
        """These settings with those of `part` on top."""
        if part is None:
            return self
        return self.model_copy(update={key: value for key, value in part if value is not None})


class EmaSection(Section):
    """An exponential moving average of the weights."""

    decay: Beta = 0.999
    every: int = Field(1, ge=1, description="steps between updates")


class TrainSection(Section):
    """Where and how numbers are computed."""

    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto | cpu | mps | cuda | cuda:N")
    precision: Literal["fp32", "bf16", "fp16", "auto"] = Field(
        "fp32", description="auto: bf16 where the device has it, else fp32"
    )
    ema: EmaSection | None = Field(None, description="moving average of the weights; none when left out")
    gradient_checkpointing: bool = Field(False, description="less memory, more time")
    deterministic: bool = Field(False, description="torch's deterministic algorithms")
    compile: bool = Field(False, description="torch.compile")
    on_nonfinite: Literal["stop", "skip"] = Field("stop", description="a loss or gradient that is not finite")
    max_skips: int = Field(3, ge=1, description="on_nonfinite: skip — stop after so many skips in a row")
    threads: int | None = Field(None, ge=1, description="torch threads; torch decides when left out")


class CheckpointSection(Section):
    """When checkpoints are written and how many stay."""

    every: int | None = Field(None, ge=1, description="steps between checkpoints; only at the end of stages when left out")
    keep: int = Field(2, ge=1, description="newest checkpoints that stay")
    keep_every: int | None = Field(None, ge=1, description="checkpoints at multiples of it stay for ever")


class LogSection(Section):
    """What is written down while training."""

    every: int = Field(10, ge=1, description="steps between lines of the log")
    to: tuple[Literal["console", "jsonl", "tensorboard"], ...] = ("console", "jsonl", "tensorboard")
    samples: bool = Field(True, description="write which samples every step used to samples.jsonl")


class Stage(Section):
    """A part of a run with its own mixture, trainable parts, loss weights and schedule."""

    name: Name = Field(description="name of the stage, once in a run")
    steps: int = Field(ge=1, description="optimizer steps")
    train: tuple[str, ...] | None = Field(None, min_length=1, description="parts of the system that train; all when left out")
    mixture: dict[Name, Weight] = Field(min_length=1, description="source -> weight; weights mean samples, 0 turns a source off")
    mixer: Typed = Field({"type": "static"}, description="what gives the proportions of every step")
    loss: dict[str, Weight] = Field({}, description="term -> weight; 1 where left out")
    optim: OptimPart | None = Field(None, description="changes to `optim:` in this stage")
    schedule: SchedulePart | None = Field(None, description="changes to `schedule:` in this stage")


class AblationSection(Section):
    """Variants of the run that are compared over several seeds (`mixtura ablate`)."""

    variants: dict[Name, dict[str, Any]] = Field(
        min_length=1, description="variant -> settings by dotted path, as on the command line"
    )
    seeds: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="run.seed of the repetitions")
    measure: tuple[str, ...] = Field(min_length=1, description="scalars of the last evaluation that the table shows")


class RunConfig(Section):
    """A whole configuration; one file is legal for every verb."""

    system: Typed = Field(description="what is trained; settings of the plugin's system")
    run: RunSection
    init_from: str | None = Field(
        None, description="run or checkpoint folder, or published file, whose weights the run starts from"
    )
    synth: tuple[Typed, ...] = Field((), description="datasets that `mixtura data synth` makes")
    sources: dict[Name, Typed] = Field({}, description="name -> source of data")
    data: DataSection = DataSection()
    optim: OptimSection = OptimSection()
    schedule: ScheduleSection = ScheduleSection()
    train: TrainSection = TrainSection()
    checkpoint: CheckpointSection = CheckpointSection()
    log: LogSection = LogSection()
    stages: tuple[Stage, ...] = Field(min_length=1, description="parts of the run, in order")
    evaluate: tuple[Typed, ...] = Field((), description="measurements during and after training")
    ablation: AblationSection | None = Field(None, description="variants to compare; other verbs ignore it")

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    def optim_for(self, stage: Stage, player: str = "main") -> OptimSection:
        """The optimizer of a player in a stage: `optim`, then its `players` entry, then the stage's changes."""
        return self.optim.merged(self.optim.players.get(player), stage.optim)

    def schedule_for(self, stage: Stage) -> ScheduleSection:
        """The schedule of a stage."""
        return self.schedule.merged(stage.schedule)
