"""iFlyBot-VLA as a system: a vision-language model writes latent and FAST action tokens, an expert turns its keys and
values into action chunks by flow matching, a latent action model gives the codes (report section 3, sheet 13b).

A stage that trains `lam` is the latent action stage (term `lam`); all others train the policy (terms `flow`, `latent`,
`fast`, `qa`), on robot samples and question-answer samples in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixtura.data.source import Sample, Source
from mixtura.errors import BadSample, ConfigError, DataError
from mixtura.rng import KeyedRng, SampleNoise
from mixtura.system import Batch, LossTerm, StepContext, System
from mixtura_iflybot_vla import published
from mixtura_iflybot_vla.assets import Assets, fast_channels, make_assets, read_assets, robot_sources
from mixtura_iflybot_vla.codes import codes_of
from mixtura_iflybot_vla.config import IFlyBotConfig
from mixtura_iflybot_vla.data import check_statistics, frame_pair, is_robot, read_evenly, resize, robot_sample, statistics
from mixtura_iflybot_vla.nets.action_expert import ActionExpert, ExpertBlock
from mixtura_iflybot_vla.nets.lam import LatentActions
from mixtura_iflybot_vla.nets.vlm import StateVLM, normalise_images
from mixtura_iflybot_vla.sequence import FAST, LATENT, TEXT, SequenceBuilder, TokenSequence, pad
from mixtura_iflybot_vla.timesteps import flow_times

KINDS = {"latent": LATENT, "fast": FAST, "qa": TEXT}
"""Terms of the token loss and the kind of label that each counts."""
ANSWER_LIMIT = 48
"""Tokens of an answer at most."""


class IFlyBotVLA(System):
    """The three networks with their losses; see the module's docstring."""

    Config = IFlyBotConfig
    config: IFlyBotConfig

    def __init__(self, config: IFlyBotConfig) -> None:
        super().__init__(config)
        vlm, expert = config.vlm, config.expert
        self.vlm = StateVLM(config)
        self.expert = ActionExpert(
            expert.hidden,
            expert.heads,
            vlm.layers,
            self.vlm.kv_width,
            config.width,
            config.width,
            expert.gated,
            expert.dropout,
            config.compat,
        )
        self.lam = LatentActions(config.lam, config.compat)
        self.assets: Assets | None = None
        self.codes: dict[str, np.ndarray] = {}

    # -- before training ---------------------------------------------------------------------------------------
    def prepare(self, sources: Mapping[str, Source], assets: Path) -> None:
        make_assets(sources, self.config, assets)

    def load_assets(self, assets: Path) -> None:
        self.assets = read_assets(self.config, assets)
        self.builder = SequenceBuilder(self.config, self.assets.vocabulary)

    def start_stage(self, stage: str, sources: Mapping[str, Source], cache: Path) -> None:
        """Compare statistics with the data; compute latent codes where the stage's policy learns them."""
        assets = self._assets()
        if self.trains_lam and any(p.requires_grad for p in (*self.vlm.parameters(), *self.expert.parameters())):
            raise ConfigError(
                f"stage '{stage}': the latent action model trains in a stage of its own; give it `train: [lam]`, "
                "others `train: [vlm, expert]`"
            )
        for name, source in robot_sources(sources, self.config).items():
            if name not in assets.statistics:
                raise DataError(
                    f"source '{name}' has actions, but the run holds no statistics of it; start a new run (init_from "
                    "takes the weights)"
                )
            check_statistics(name, statistics(source, self.config, read_evenly(source, 4096)), assets.statistics[name])
            if self.config.latent and not self.trains_lam:
                self.codes[name] = codes_of(source, name, self.lam, self.config, cache)

    @property
    def trains_lam(self) -> bool:
        """Whether this is the latent action stage."""
        return any(p.requires_grad for p in self.lam.parameters())

    def _assets(self) -> Assets:
        if self.assets is None:
            raise DataError("the system has no assets yet: load a run or checkpoint, or call prepare and load_assets")
        return self.assets

    # -- data ----------------------------------------------------------------------------------------------------
    def check(self, sample: Sample) -> None:
        """NaN in actions or states makes a bad sample."""
        if is_robot(sample.fields, self.config):
            for field in (self.config.action, self.config.state):
                if not np.isfinite(np.asarray(sample.fields.get(field, 0.0), np.float64)).all():
                    raise BadSample(f"{sample.key}: {field} holds NaN or infinity")

    def collate(self, samples: Sequence[Sample]) -> Batch:
        if self.trains_lam:
            return {"frames": torch.from_numpy(np.stack([frame_pair(s, self.config, self.lam.lam.image) for s in samples]))}
        sequences, images, states, chunks, rows = [], [], [], [], []
        for row, sample in enumerate(samples):
            if is_robot(sample.fields, self.config):
                sequence, shown, state, chunk = self._robot(sample)
                rows.append(row)
                states.append(state)
                chunks.append(chunk)
            else:
                sequence, shown = self._conversation(sample)
            sequences.append(sequence)
            images.extend(shown)
        batch: Batch = {name: torch.from_numpy(array) for name, array in pad(sequences).items()}
        batch["rows"] = torch.tensor(rows, dtype=torch.long)
        batch["images"] = torch.from_numpy(np.stack(images)) if images else None
        if rows:
            batch["state"] = torch.from_numpy(np.stack(states))
            batch["actions"] = torch.from_numpy(np.stack([actions for actions, _ in chunks]))
            batch["valid"] = torch.from_numpy(np.stack([valid for _, valid in chunks]))
        return batch

    def _robot(self, sample: Sample) -> tuple[TokenSequence, list[np.ndarray], np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Sequence, images, state (width,), and actions with their validity (H, width) of a robot sample."""
        config, assets = self.config, self._assets()
        robot, normaliser = robot_sample(sample, config), assets.normaliser(sample.source)
        actions = normaliser.encode("action", robot.actions)
        codes = self.codes[sample.source][sample.index].tolist() if config.latent else None
        fast = None
        if config.fast and assets.fast is not None:
            fast = assets.fast.encode(actions[:, : fast_channels(normaliser, config)])
        sequence = self.builder.robot(robot.instruction, robot.present, codes, fast)
        channels = np.arange(config.width) < (config.width if config.compat == "official" else normaliser.channels("action"))
        valid = robot.valid[:, None] & channels
        images = robot.images
        if config.shift:
            numbers = KeyedRng("shift", sample.source, sample.index, sample.epoch).numpy()
            images = shifted(images, *numbers.integers(-config.shift, config.shift + 1, 2).tolist())
        return sequence, list(images), normaliser.encode("state", robot.state), (actions, valid)

    def _conversation(self, sample: Sample) -> tuple[TokenSequence, list[np.ndarray]]:
        turns, images = sample.fields["conversations"], sample.fields.get("images", [])
        marks = sum(turn["value"].count("<image>") for turn in turns)
        if marks != len(images):
            raise DataError(f"{sample.key}: {marks} <image> marks, {len(images)} images")
        return self.builder.conversation(turns), [resize(image, self.config.image_size) for image in images]

    def counts(self, batch: Batch) -> dict[str, Tensor | float]:
        if "frames" in batch:
            return {"lam": float(len(batch["frames"]))}
        counts: dict[str, Tensor | float] = {
            name: float((batch["kinds"][:, 1:] == KINDS[name]).sum()) for name in self._token_terms()
        }
        counts["flow"] = float(batch["valid"].sum()) * self.config.noise_samples if len(batch["rows"]) else 0.0
        return counts

    def _token_terms(self) -> list[str]:
        on = {"latent": self.config.latent, "fast": self.config.fast, "qa": True}
        return [name for name in KINDS if on[name]]

    # -- training ------------------------------------------------------------------------------------------------
    def parts(self) -> dict[str, nn.Module]:
        return {"vlm": self.vlm, "expert": self.expert, "lam": self.lam}

    def wrap_blocks(self) -> list[type[nn.Module]]:
        return [ExpertBlock]

    def losses(self, batch: Batch, ctx: StepContext) -> dict[str, LossTerm]:
        if "frames" in batch:
            return {"lam": self._latent_loss(batch, ctx)}
        images = None if batch["images"] is None else normalise_images(batch["images"])
        read = self.vlm(batch["ids"], batch["mask"], images, batch.get("state"))
        terms = self._token_losses(read.hidden, batch, ctx)
        if len(batch["rows"]):
            terms["flow"] = self._flow_loss(read.keys, read.values, batch, ctx)
        return terms

    def _latent_loss(self, batch: Batch, ctx: StepContext) -> LossTerm:
        config = self.config.lam
        if ctx.training and self.lam.training:
            self.lam.remedy(ctx.stage_step, ctx.rng.at("codebook").torch())
        noise = ctx.noise.normal("codes", config.codes, config.code_dim) if ctx.training else None
        loss = self.lam(batch["frames"], noise).loss
        return LossTerm.of(weighted(loss, ctx), torch.ones_like(loss))

    def _token_losses(self, hidden: Tensor, batch: Batch, ctx: StepContext) -> dict[str, LossTerm]:
        """Next-token cross entropy, only where a label is (the vocabulary is wide), summed per kind and sample."""
        kinds = batch["kinds"][:, 1:]
        row, place = (kinds > 0).nonzero(as_tuple=True)
        if not len(row):
            return {}
        scores = self.vlm.logits(hidden[row, place]).float()
        entropy = nn.functional.cross_entropy(scores, batch["labels"][:, 1:][row, place], reduction="none")
        terms = {}
        for name in self._token_terms():
            mine = (kinds[row, place] == KINDS[name]).float()
            totals = torch.zeros(len(hidden), device=hidden.device).index_add(0, row, entropy * mine)
            terms[name] = LossTerm.of(weighted(totals, ctx), (kinds == KINDS[name]).sum(1).float())
        return terms

    def _flow_loss(self, keys: Tensor, values: Tensor, batch: Batch, ctx: StepContext) -> LossTerm:
        """Mean squared error of the velocity noise - actions on x_t = t noise + (1 - t) actions (sheet section 7)."""
        config, rows, valid = self.config, batch["rows"], batch["valid"]
        draws, horizon, width = config.noise_samples, config.chunk, config.width
        cut = batch["cut"][rows]
        seen = int(cut.max())
        keys, values = keys[:, rows, :seen], values[:, rows, :seen]
        if config.insulate:
            keys, values = keys.detach(), values.detach()
        key_mask = batch["mask"][rows, :seen] & (torch.arange(seen, device=rows.device) < cut[:, None])
        places = [ctx.noise.places[i] for i in rows.tolist()]
        random = SampleNoise(ctx.noise.rng, places, ctx.noise.device)
        channels = valid.any(1).float()[:, None, None]
        noise = random.normal("flow", draws, horizon, width) * channels
        time = flow_times(config.flow_time, random.uniform("time", draws, 2))
        actions, t = batch["actions"][:, None], time[..., None, None]
        noisy = (t * noise + (1 - t) * actions).flatten(0, 1)
        drop = None
        if config.expert.dropout and self.expert.training:
            drop = random.uniform("drop", 2 * config.vlm.layers, draws * (2 + horizon), config.expert.hidden)
        velocity = self.expert(noisy, time.flatten(), batch["state"], keys, values, key_mask, drop=drop)
        error = (velocity.unflatten(0, (-1, draws)).float() - (noise - actions)).square() * valid[:, None]
        zeros = torch.zeros(len(batch["ids"]), device=rows.device)
        totals = zeros.index_add(0, rows, error.sum((1, 2, 3)))
        counts = zeros.index_add(0, rows, valid.sum((1, 2)).float() * draws)
        return LossTerm.of(weighted(totals, ctx), counts)

    # -- use ---------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def infer(self, **inputs: Any) -> dict[str, Any]:
        """Act, look ahead, or answer a question.

        `images` (B, V, H, W, 3) uint8 (views in the order of `cameras`), `state` (B, D) raw, `instruction` B strings, `source`
        whose statistics hold (optional), `seed` of the noise -> actions (B, H, D) float32 in the data's units, codes (B, codes).
        Acting can be given `codes` (B, codes) to act under, in place of those that the model would write, and `discrete`:
        True -> also fast, the FAST ids of the chunk that the language model writes itself (B lists), and fast_actions
        (B, H, D), NaN where those ids stand for no chunk.
        With `codes` and images alone -> before and predicted (B, h, w, 3) uint8: the head camera now, and `latent_span`
        frames later as the latent action model expects it under these codes.
        With `question` (B strings) in place of state and instruction -> text, B strings.
        """
        images = np.asarray(inputs["images"], np.uint8)
        if images.ndim != 5 or images.shape[-1] != 3:
            raise DataError(f"images of shape {images.shape} given; expected (batch, views, height, width, 3) uint8")
        if "question" in inputs:
            return {"text": self._answer(images, list(inputs["question"]))}
        codes = None if inputs.get("codes") is None else self._given_codes(inputs["codes"], len(images))
        if codes is not None and "instruction" not in inputs:
            return self._look_ahead(images, codes)
        state, words, source = np.asarray(inputs["state"], np.float32), list(inputs["instruction"]), inputs.get("source")
        result = self._act(images, state, words, source, int(inputs.get("seed", 0)), codes)
        if inputs.get("discrete"):
            result |= self._write_fast(images, state, words, source, result.get("codes"))
        return result

    def _given_codes(self, codes: Any, batch: int) -> Tensor:
        """Latent codes from outside (B, codes) int64; raises DataError for what are none."""
        config, given = (
            self.config.lam,
            torch.as_tensor(np.asarray(codes), dtype=torch.int64, device=next(self.parameters()).device),
        )
        if not self.config.latent:
            raise DataError("codes given; this system was trained without latent actions (`latent: false`)")
        if given.shape != (batch, config.codes) or given.min() < 0 or given.max() >= config.codebook:
            raise DataError(
                f"codes {given.tolist()} given; expected {batch} rows of {config.codes} numbers from 0 to {config.codebook - 1}"
            )
        return given

    def _tensor(self, images: np.ndarray) -> Tensor:
        """All images of a batch, resized and normalised (N, 3, h, w)."""
        flat = np.stack([resize(image, self.config.image_size) for image in images.reshape(-1, *images.shape[2:])])
        return normalise_images(torch.from_numpy(flat).to(next(self.parameters()).device))

    def _prompts(self, sequences: Sequence[TokenSequence]) -> Batch:
        device = next(self.parameters()).device
        return {name: torch.from_numpy(array).to(device) for name, array in pad(sequences).items()}

    def _act(
        self,
        images: np.ndarray,
        state: np.ndarray,
        instruction: list[str],
        source: str | None,
        seed: int,
        given: Tensor | None = None,
    ) -> dict[str, Any]:
        config, assets = self.config, self._assets()
        device, normaliser = next(self.parameters()).device, assets.normaliser(source)
        present, rows = [True] * images.shape[1], [None] * len(images) if given is None else given.tolist()
        batch = self._prompts([self.builder.prompt(text, present, codes) for text, codes in zip(instruction, rows, strict=True)])
        robot = torch.from_numpy(normaliser.encode("state", state)).to(device)
        ready = self._tensor(images)
        if config.latent and given is None:
            base = assets.vocabulary.code_base
            written = self.vlm.generate(
                batch["ids"], batch["mask"], ready, robot, config.lam.codes, allowed=(base, base + config.lam.codebook)
            )
            keys, values, mask, codes = written.keys, written.values, written.key_mask, written.tokens - base
        else:
            read = self.vlm(batch["ids"], batch["mask"], ready, robot)
            keys, values, mask, codes = read.keys, read.values, batch["mask"], given
        generator = torch.Generator().manual_seed(seed)
        noise = (
            torch.randn(1, config.chunk, config.width, generator=generator).expand(len(state), -1, -1).to(device)
            * config.temperature
        )
        channels = torch.arange(config.width, device=device) < (
            config.width if config.compat == "official" else normaliser.channels("action")
        )
        actions = self.expert.sample(noise * channels, robot, keys, values, mask, config.flow_steps, channels=channels)
        result = {"actions": torch.from_numpy(normaliser.decode("action", actions.float().cpu().numpy()))}
        return result | ({"codes": codes} if codes is not None else {})

    def _write_fast(
        self, images: np.ndarray, state: np.ndarray, instruction: list[str], source: str | None, codes: Tensor | None
    ) -> dict[str, Any]:
        """FAST ids that the language model writes behind the codes, and their chunks; nothing where the head is off."""
        config, assets = self.config, self._assets()
        if not config.fast or assets.fast is None:
            return {}
        normaliser, vocabulary, present = assets.normaliser(source), assets.vocabulary, [True] * images.shape[1]
        rows = [None] * len(images) if codes is None else codes.tolist()
        batch = self._prompts([self.builder.before_fast(text, present, row) for text, row in zip(instruction, rows, strict=True)])
        robot = torch.from_numpy(normaliser.encode("state", state)).to(batch["ids"].device)
        (end,), channels = vocabulary.mark("<|FASTend|>"), fast_channels(normaliser, config)
        limit = config.chunk * channels + 1
        written = self.vlm.generate(batch["ids"], batch["mask"], self._tensor(images), robot, limit, stop=[end])
        ids = [  # what it wrote before anything that is no FAST token
            list(takewhile(lambda token: 0 <= token < config.vlm.fast_vocab, (token - vocabulary.fast_base for token in row)))
            for row in written.tokens.tolist()
        ]
        chunks = [
            normaliser.decode("action", assets.fast.decode(row, config.chunk, channels))
            if assets.fast.fits(row, config.chunk, channels)
            else np.full((config.chunk, normaliser.channels("action")), np.nan, np.float32)
            for row in ids
        ]
        return {"fast": ids, "fast_actions": torch.from_numpy(np.stack(chunks))}

    def _look_ahead(self, images: np.ndarray, codes: Tensor) -> dict[str, Any]:
        """The head camera now and as the latent action model expects it after the change that the codes stand for."""
        before = torch.from_numpy(np.stack([resize(view[0], self.lam.lam.image) for view in images])).to(codes.device)
        pixels = self.lam.lam.predict(before, codes).permute(0, 2, 3, 1)
        return {"before": before, "predicted": (255 * pixels).round().clamp(0, 255).to(torch.uint8)}

    def _answer(self, images: np.ndarray, questions: list[str]) -> list[str]:
        vocabulary = self._assets().vocabulary
        marks = "<image>\n" * images.shape[1]
        batch = self._prompts([self.builder.asked(marks + text) for text in questions])
        written = self.vlm.generate(
            batch["ids"], batch["mask"], self._tensor(images), None, ANSWER_LIMIT, stop=vocabulary.mark("<|im_end|>")
        )
        return [vocabulary.decode([token for token in row if token >= 0]) for row in written.tokens.tolist()]

    # -- published weights -------------------------------------------------------------------------------------
    def load_published(self, path: Path) -> Mapping[str, list[str]]:
        """Weights of a published policy (`.pt` with vlm and action_head), or of a latent action model; all of it or nothing."""
        parts = self._published_parts(path)
        found = {name: published.compare(part, state) for name, (part, state) in parts.items()}
        # what doesn't fit comes first and raises, before anything is filled
        for name in sorted(parts, key=lambda name: found[name].fits):
            published.load_into(*parts[name], what=f"{path} ({name})")
        return {
            name: [n for report in found.values() for n in getattr(report, name)]
            for name in ("missing", "unexpected", "mismatched")
        }

    def check_published(self, path: Path) -> str:
        """What fits of each network in the file."""
        parts = self._published_parts(path)
        return "; ".join(f"{name}: {published.compare(part, state)}" for name, (part, state) in parts.items())

    def _published_parts(self, path: Path) -> dict[str, tuple[nn.Module, published.State]]:
        """The networks that a published file holds, by its name for them, each with its tensors."""
        if published.holds_latent(path):
            return {"lam": (self.lam.lam, published.read_latent(path))}
        vlm, head = published.read_checkpoint(path)
        return {"vlm": (self.vlm, vlm), "action_head": (self.expert, head)}

    def save_published(self, path: Path) -> None:
        """Write the policy in the published layout, and the latent action model beside it as `NAME-lam.pt`."""
        published.write_checkpoint(path, self.vlm.state_dict(), self.expert.state_dict())
        published.write_latent(path.with_name(f"{path.stem}-lam.pt"), self.lam.lam.state_dict())


def weighted(totals: Tensor, ctx: StepContext) -> Tensor:
    """Per-sample totals times the mixer's loss weights."""
    return totals if ctx.sample_weight is None else totals * ctx.sample_weight


def shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Images (V, H, W, 3) moved by some pixels, edges repeated."""
    height, width = images.shape[1:3]
    rows = (np.arange(height) - down).clip(0, height - 1)
    columns = (np.arange(width) - right).clip(0, width - 1)
    return images[:, rows][:, :, columns]
