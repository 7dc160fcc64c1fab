"""LivePortrait as a system: its losses obey the rules of the trainer, its inference does what it is told, misfits are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mixtura.errors import BadSample, CheckpointError, ConfigError, DataError
from mixtura_live_portrait.animate.retarget import retargeted
from mixtura_live_portrait.config import LivePortraitConfig
from mixtura_live_portrait.keypoints import placed
from mixtura_live_portrait.losses.regions import corners
from mixtura_live_portrait.nets.sizes import TINY, Sizes
from mixtura_live_portrait.system import LivePortrait
from tests.plugins.live_portrait.training_tools import (
    ALL_OF_ONE,
    SIZE,
    config_of,
    context_of,
    faces,
    samples_of,
    system_of,
    training,
)

STAGES = {"one": ALL_OF_ONE, "painting": ("appearance", "warping", "generator"), "two": ("stitching", "eyes", "lips")}


def pictures(count: int = 1, seed: int = 0) -> Tensor:
    """Random pictures (n, 3, S, S)."""
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


# -- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_losses_count_what_counts_tells(stage: str) -> None:
    system = training(system_of(), *STAGES[stage])
    batch = system.collate(samples_of(4, blank=(1,)))
    terms, counts = system.losses(batch, context_of([0, 1, 2, 3])), system.counts(batch)
    assert {name: float(term.count) for name, term in terms.items()} == counts
    assert all(torch.isfinite(term.total) for term in terms.values())
    term, count = {"one": ("pose", 6), "painting": ("image_face", 3), "two": ("eyes", 3)}[stage]
    assert counts[term] == count


@pytest.mark.parametrize("stage", STAGES)
def test_half_batches_have_the_sums_and_gradients_of_the_whole(stage: str) -> None:
    system, samples = training(system_of(), *STAGES[stage]), samples_of(4, blank=(1,))

    def measured(*parts: list[int]) -> tuple[dict[str, float], list[Tensor]]:
        system.zero_grad()
        sums: dict[str, float] = {}
        for some in parts:
            terms = system.losses(system.collate([samples[i] for i in some]), context_of(some))
            sum(term.total for term in terms.values()).backward()
            sums = {name: sums.get(name, 0.0) + term.total.item() for name, term in terms.items()}
        return sums, [p.grad.clone() for p in system.parameters() if p.grad is not None]

    (whole, gradients), (halves, others) = measured([0, 1, 2, 3]), measured([0, 1], [2, 3])
    assert whole == pytest.approx(halves, rel=1e-4, abs=1e-6)
    assert len(gradients) > 10
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_weights_of_the_mixer_scale_totals_and_not_counts() -> None:
    system = system_of()
    batch = system.collate(samples_of(2))
    plain = system.losses(batch, context_of([0, 1]))
    weighted = system.losses(batch, context_of([0, 1], sample_weight=torch.tensor([2.0, 2.0])))
    for name in plain:
        torch.testing.assert_close(weighted[name].total, 2 * plain[name].total)
        assert float(weighted[name].count) == float(plain[name].count)


def test_every_weight_of_a_stage_gets_a_gradient_and_no_other() -> None:
    for parts in STAGES.values():
        system = training(system_of(), *parts)
        terms = system.losses(system.collate(samples_of(2)), context_of([0, 1]))
        sum(term.total for term in terms.values()).backward()
        reached = {name for name, p in system.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        idle = {name for name, p in system.named_parameters() if p.requires_grad} - reached
        assert {name.split(".")[0] for name in reached} == set(parts)
        assert {name for name in idle if "mlp_shared" not in name and "grn" not in name and not name.endswith("bias")} == set()


def test_each_player_has_its_own_terms_and_critics_judge_what_was_painted() -> None:
    system = system_of()
    batch, kept = system.collate(samples_of(2)), dict[str, Any]()
    painter, critic = (
        system.losses(batch, context_of([0, 1], player=player, kept=kept)) for player in ("generator", "discriminator")
    )
    assert set(critic) == {"critic", "critic_face", "critic_lips"}
    assert not set(critic) & set(painter)
    afresh = system.losses(batch, context_of([0, 1], player="discriminator"))
    torch.testing.assert_close(afresh["critic"].total, critic["critic"].total)
    kept["painted"] = torch.zeros_like(kept["painted"])
    assert system.losses(batch, context_of([0, 1], player="discriminator", kept=kept))["critic"].total != critic["critic"].total


def test_what_weighs_nothing_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = system_of().collate(samples_of(2, winks=1.0))
    nothing = dict.fromkeys(("eyes", "eyes_ratio", "lips", "lips_ratio"), 0.0)
    system = training(system_of(), "eyes", "lips")
    monkeypatch.setattr(system, "paint", lambda *_: pytest.fail("painted"))
    terms = system.losses(batch, context_of([0, 1], weights=nothing))
    assert set(terms) == {"eyes_guide", "eyes_size", "lips_guide", "lips_size"}
    system = training(system_of(), *ALL_OF_ONE)
    alone = system.losses(batch, context_of([0, 1], weights=dict.fromkeys(system.terms, 0.0) | {"image_lips": 2.0}))
    whole = system.losses(batch, context_of([0, 1]))
    assert set(alone) == {"image_lips"}
    torch.testing.assert_close(alone["image_lips"].total, whole["image_lips"].total)


def test_a_batch_of_still_pictures_without_labels_trains_what_it_can() -> None:
    system = training(system_of(), *ALL_OF_ONE)
    batch = system.collate(samples_of(2, blank=(0, 1), still=True))
    assert torch.equal(batch["source"], batch["driving"])
    counts, terms = system.counts(batch), system.losses(batch, context_of([0, 1]))
    assert {name for name, count in counts.items() if not count} == {
        "pose", "guide", "gaps", "image_face", "image_lips", "perceptual_face", "perceptual_lips", "gan_face", "gan_lips",
        "features_face", "features_lips", "critic_face", "critic_lips", "ratios",
    }  # fmt: skip
    assert all(terms[name].total == 0 for name, count in counts.items() if not count)
    sum(term.total for term in terms.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in system.parameters() if p.grad is not None)


def test_a_step_refreshes_spectral_norms_of_what_trains() -> None:
    system = training(system_of(), "critics", "appearance", "motion", "warping")
    norms = {name: value.clone() for name, value in system.named_buffers() if name.endswith("weight_u") and len(value) > 1}
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    system.start_step(0)
    moved = {name.split(".")[0] for name, value in norms.items() if not torch.equal(value, system.get_buffer(name))}
    assert moved == {"critics"}


@pytest.mark.slow
def test_some_steps_fit_a_pair_of_frames() -> None:
    system = training(system_of(), *ALL_OF_ONE[:4])
    batch = system.collate(samples_of(1))
    optimizer, seen = torch.optim.Adam([p for p in system.parameters() if p.requires_grad], 5e-3), []
    for step in range(60):
        system.start_step(step)
        terms = system.losses(batch, context_of([0]))
        (terms["image"].total + terms["guide"].total / 20).backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append((terms["image"].total.item(), terms["guide"].total.item()))
    first, last = np.mean(seen[:5], 0), np.mean(seen[-5:], 0)
    assert (last < 0.6 * first).all()


# -- what a run measures and starts from ---------------------------------------------------------------------------------


def test_batch_norms_are_measured_once_and_taken_from_the_assets(tmp_path: Path) -> None:
    system, other = system_of(), system_of()
    system.prepare({"faces": faces()}, tmp_path)
    other.load_assets(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(system.buffers(), other.buffers(), strict=True))
    assert not torch.equal(system.appearance.first.norm.running_mean, system_of().appearance.first.norm.running_mean)
    image = system.pictures(system.collate(samples_of(3))["source"])
    normed = system.appearance.first.norm(system.appearance.first.conv(image))
    assert normed.mean().abs() < 0.5
    assert 0.3 < normed.std() < 2


def test_a_source_without_a_readable_sample_is_named(tmp_path: Path) -> None:
    class Broken:
        def __len__(self) -> int:
            return 3

        def read(self, index: int, rng: Any) -> Any:
            raise BadSample("torn")

    with pytest.raises(DataError, match="source 'torn': none of 3 samples"):
        system_of().prepare({"torn": Broken()}, tmp_path)  # type: ignore[dict-item] - no source at all


def test_a_stage_names_parts_that_cannot_train_together() -> None:
    with pytest.raises(ConfigError, match="stage 'stage': a stage trains .*name the parts with `train:`"):
        training(system_of(), "generator", "lips")


def test_published_files_are_written_and_read_back(tmp_path: Path) -> None:
    system, other = system_of(), LivePortrait(config_of())
    system.save_published(tmp_path / "liveportrait")
    assert other.check_published(tmp_path / "liveportrait") == "every tensor fits"
    other.load_published(tmp_path / "liveportrait")
    given = {"source": pictures(), "driving": pictures(2, 1), "stitching": True}
    torch.testing.assert_close(other.eval().infer(**given)["frames"], system.infer(**given)["frames"])
    with pytest.raises(CheckpointError, match="doesn't fit"):
        LivePortrait(config_of(keypoints=12)).load_published(tmp_path / "liveportrait")


# -- inference ----------------------------------------------------------------------------------------------------------


def test_inference_gives_a_frame_for_each_driving_frame_in_batches() -> None:
    system = system_of()
    made = system.infer(source=pictures(), driving=pictures(20, 1))
    assert made["frames"].shape == (20, 3, SIZE, SIZE)
    some = system.infer(source=pictures(), driving=pictures(20, 1)[17:], first=pictures(20, 1)[:1])
    torch.testing.assert_close(some["frames"], made["frames"][17:], atol=1e-5, rtol=1e-4)


def test_relative_motion_begins_at_the_source_and_whole_motion_takes_the_drivings() -> None:
    system, source, driving = system_of(), pictures(), pictures(3, 1)
    relative = system.infer(source=source, driving=driving)
    torch.testing.assert_close(relative["x_driving"][0], relative["x_source"][0], atol=1e-5, rtol=1e-4)
    assert (relative["x_driving"][1] - relative["x_source"][1]).abs().max() > 1e-4
    torch.testing.assert_close(relative["frames"][:1], system.infer(source=source)["frames"], atol=1e-5, rtol=1e-4)
    itself = system.infer(source=driving, driving=driving, motion="whole")
    torch.testing.assert_close(itself["x_driving"], itself["x_source"])


def test_small_networks_are_asked_when_they_are_wanted() -> None:
    system = system_of()
    given: dict[str, Any] = {"source": pictures(), "driving": pictures(2, 1), "ratios": [0.3, 0.3, 0.1]}
    plain = system.infer(**given)["x_driving"]
    for wanted in ({"stitching": True}, {"eyes": [0.1]}, {"lips": [0.5]}):
        assert not torch.allclose(system.infer(**given, **wanted)["x_driving"], plain)
    wider = system.infer(**given, lips=[0.7])["x_driving"]
    assert not torch.allclose(system.infer(**given, lips=[0.5])["x_driving"], wider)


def test_small_networks_are_told_landmarks_where_the_system_says_so() -> None:
    system, seeing = system_of(told_landmarks=True), system_of()
    guide = torch.rand(12, 2) - 0.5
    guide[3] = float("nan")
    given: dict[str, Any] = {"source": pictures(), "ratios": [0.3, 0.3, 0.1], "lips": [0.5]}
    with pytest.raises(DataError, match=r"give `guide` \(1, 12, 2\) of the source"):
        system.infer(**given)
    found, unseen = (made.infer(**given, guide=guide) for made in (system, seeing))
    told = placed(found["x_source"], guide[None])
    wanted = retargeted(system.lips, told, torch.tensor([[0.1]]), torch.tensor([[0.5]]))
    torch.testing.assert_close(found["x_driving"] - found["x_source"], wanted)
    assert not torch.allclose(unseen["x_driving"], found["x_driving"])
    blind = system.infer(**given, guide=torch.full((1, 12, 2), float("nan")))
    torch.testing.assert_close(blind["x_driving"], unseen["x_driving"])


def test_corrections_read_what_was_painted_around_the_source_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    system = system_of(openings=True)
    guide = torch.rand(1, 12, 2) - 0.5
    given: dict[str, Any] = {"source": pictures(), "ratios": [0.3, 0.3, 0.1], "guide": guide}
    lips = torch.tensor([[0.3], [0.5]])
    plain = system.infer(**given, lips=lips)
    seen: list[tuple[Tensor, Tensor]] = []

    def read(pictures: Tensor, ends: Tensor) -> Tensor:
        seen.append((pictures, ends))
        return torch.full((len(pictures), 3), 0.2)

    monkeypatch.setattr(system, "read", read)
    found = system.infer(**given, lips=lips, corrections=2)
    torch.testing.assert_close(seen[0][0], plain["frames"])
    torch.testing.assert_close(seen[1][1], corners(guide).expand(2, -1, -1, -1))
    assert len(seen) == 2
    torch.testing.assert_close(found["x_driving"], system.infer(**given, lips=torch.tensor([[0.4], [0.8]]))["x_driving"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "source must be given"),
        ({"source": pictures(), "drive": 1}, "drive is not among them"),
        ({"source": pictures(), "guide": torch.zeros(10, 2)}, r"guide has shape \(1, 10, 2\); expected \(n, 12, 2\)"),
        ({"source": torch.zeros(1, 3, 8, 8)}, r"source has shape \(1, 3, 8, 8\); expected \(n, 3, S, S\) with S 16"),
        ({"source": pictures() * float("nan")}, "source holds NaN"),
        ({"source": pictures(2), "driving": pictures(3)}, "inputs of 2 and 3 frames"),
        ({"source": pictures(), "lips": [0.3]}, "give `ratios`"),
        ({"source": pictures(), "ratios": [0.3, 0.3]}, r"ratios has shape \(2,\)"),
        ({"source": pictures(), "motion": "wild"}, "motion 'wild'"),
        ({"source": pictures(), "corrections": -1}, "corrections -1: expected a whole number"),
        ({"source": pictures(), "corrections": 1}, "corrections are of openings told: give `eyes` or `lips`"),
        (
            {"source": pictures(), "lips": [0.3], "ratios": [0.3] * 3, "guide": torch.zeros(12, 2), "corrections": 1},
            "a system that learnt with `openings: true`",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        system_of().infer(**given)


# -- samples and settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"driving": np.zeros((8, 8, 3), np.uint8)}, r"driving \(8, 8, 3\); the system needs \(16, 16, 3\): set .* `size` to 16"),
        ({"other": np.zeros((8, 8, 3), np.uint8)}, "other "),
        ({"pose": np.full((2, 3), np.inf)}, "no infinity"),
        ({"guide": np.zeros((2, 3, 2))}, r"guide \(2, 3, 2\); expected \(2, 12, 2\)"),
    ],
)
def test_samples_that_do_not_fit_are_bad(fields: dict[str, Any], said: str) -> None:
    sample = samples_of(1)[0]
    system_of().check(sample)
    sample.fields.update(fields)
    with pytest.raises(BadSample, match=said):
        system_of().check(sample)


def test_samples_with_and_without_somebody_else_share_a_batch() -> None:
    batch = system_of().collate(samples_of(2, blank=(1,)))
    assert batch["has_other"].tolist() == [True, False]
    assert batch["other"].shape == batch["source"].shape


def test_a_doubling_generator_takes_frames_of_its_output_and_shrinks_what_is_seen() -> None:
    system = training(system_of(shuffle=2), *ALL_OF_ONE)
    terms = system.losses(system.collate(samples_of(2, size=32)), context_of([0, 1]))
    assert all(torch.isfinite(term.total) for term in terms.values())
    made = system.infer(source=pictures(), driving=torch.rand(2, 3, 32, 32))
    assert made["frames"].shape == (2, 3, 32, 32)


def test_sizes_are_filled_in_and_can_be_changed_one_by_one() -> None:
    assert LivePortraitConfig(type="live_portrait").sizes() == TINY
    assert LivePortraitConfig(type="live_portrait", size="full").sizes() == Sizes()
    changed = LivePortraitConfig(type="live_portrait", size="full", keypoints=15)
    assert (changed.sizes().keypoints, changed.sizes().base, changed.critics.width) == (15, 64, 64)
    again = LivePortraitConfig.model_validate_json(changed.model_dump_json())
    assert again == changed


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image": 60}, "image: 60 must be a multiple of 32"),
        ({"regions": ["face", "face"]}, "regions names one twice"),
        ({"identity": {"type": "arcface"}}, "belong together"),
        ({"perceptual": {"type": "vgg19"}}, "vgg19 needs `trunk`"),
        ({"keypoint": 3}, "keypoint"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LivePortraitConfig.model_validate({"type": "live_portrait", **settings})
