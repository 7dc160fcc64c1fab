"""DiffusionGS as a system: its losses obey the trainer's rules, its inference is repeatable, what doesn't fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mixtura.data.source import Sample
from mixtura.errors import BadSample, DataError
from mixtura.system import StepContext
from mixtura_diffusion_gs.config import DiffusionGSConfig
from mixtura_diffusion_gs.gaussians import RawGaussians
from mixtura_diffusion_gs.system import DiffusionGS

Build = Callable[..., DiffusionGS]
SampleOf = Callable[..., Sample]
ContextOf = Callable[..., StepContext]
InputsOf = Callable[..., dict[str, Any]]
ALL = ("image", "perceptual", "ssim", "points", "spread")


def test_losses_count_what_counts_tells(build: Build, sample_of: SampleOf, context_of: ContextOf) -> None:
    system = build(terms=ALL)
    batch = system.collate([sample_of(i) for i in range(4)])
    terms, counts = system.losses(batch, context_of([0, 1, 2, 3])), system.counts(batch)
    assert set(terms) == set(ALL)
    assert {name: float(term.count) for name, term in terms.items()} == counts
    assert counts["spread"] == 2  # objects only


def test_half_batches_have_the_sums_of_the_whole(build: Build, sample_of: SampleOf, context_of: ContextOf) -> None:
    system, samples = build(terms=ALL, condition_dropout=0.5), [sample_of(i) for i in range(4)]
    whole = system.losses(system.collate(samples), context_of([0, 1, 2, 3]))
    halves = [system.losses(system.collate([samples[i] for i in some]), context_of(some)) for some in ([0, 1], [2, 3])]
    for name, term in whole.items():
        both = sum(half[name].total for half in halves if name in half)
        torch.testing.assert_close(both, term.total, rtol=1e-5, atol=1e-6)


def test_weights_of_the_mixer_scale_totals_and_not_counts(build: Build, sample_of: SampleOf, context_of: ContextOf) -> None:
    system = build()
    batch = system.collate([sample_of(0), sample_of(2)])
    plain = system.losses(batch, context_of([0, 1]))
    weighted = system.losses(batch, context_of([0, 1], sample_weight=torch.tensor([2.0, 2.0])))
    for name in plain:
        torch.testing.assert_close(weighted[name].total, 2 * plain[name].total)
        assert float(weighted[name].count) == float(plain[name].count)


def test_every_weight_gets_a_gradient_from_a_mixed_batch(build: Build, sample_of: SampleOf, context_of: ContextOf) -> None:
    system = build()
    terms = system.losses(system.collate([sample_of(0), sample_of(1)]), context_of([0, 1]))
    sum(term.total for term in terms.values()).backward()
    assert [name for name, p in system.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_decoder_learns_from_its_own_kind_alone(build: Build, sample_of: SampleOf, context_of: ContextOf) -> None:
    system = build()
    terms = system.losses(system.collate([sample_of(0)]), context_of([0]))
    sum(term.total for term in terms.values()).backward()
    decoders = system.denoiser.decoders
    assert all(p.grad is not None for p in decoders["object"].parameters())
    assert all(p.grad is None for p in decoders["scene"].parameters())


def test_a_ramp_turns_terms_on_and_off(build: Build, sample_of: SampleOf, context_of: ContextOf) -> None:
    system = build(ramps={"spread": (0, 1, 0, 10), "image": (20, 0, 1, 21)})
    batch = system.collate([sample_of(0)])
    early, late = (system.losses(batch, context_of([0], stage_step=step)) for step in (5, 30))
    assert early["spread"].weight == 0.5
    assert "image" not in early
    assert "spread" not in late
    assert late["image"].weight == 1


def test_the_condition_view_stays_clean_and_the_others_are_noised(build: Build, context_of: ContextOf) -> None:
    clean = torch.rand(2, 4, 3, 16, 16)
    views, t = build()._noised(clean, context_of([0, 1]))
    torch.testing.assert_close(views[:, 0], clean[:, 0])
    assert (views[:, 1:] - clean[:, 1:]).abs().mean() > 0
    assert ((t >= 0) & (t < 1000)).all()


def test_the_regressor_sees_nothing_of_the_other_views(build: Build, context_of: ContextOf) -> None:
    views, t = build(objective="regression")._noised(torch.rand(1, 4, 3, 16, 16), context_of([0]))
    assert (views[:, 1:] == 0.5).all()
    assert t.tolist() == [999]


def test_dropped_conditions_are_blank(build: Build, context_of: ContextOf) -> None:
    views, _ = build(condition_dropout=0.5)._noised(torch.rand(40, 4, 3, 16, 16), context_of(list(range(40))))
    is_blank = (views[:, 0] == 0.5).flatten(1).all(1)
    assert 8 < int(is_blank.sum()) < 32


def test_some_steps_fit_an_object(build: Build, sample_of: SampleOf, context_of: ContextOf) -> None:
    system = build(perceptual={}, terms=("image",)).train()
    image = np.full((6, 16, 16, 3), 255, np.uint8)
    image[:, 4:12, 4:12] = (200, 30, 30)
    batch, optimizer = system.collate([sample_of(0, images=image)]), torch.optim.AdamW(system.parameters(), 3e-3)
    seen = []
    for step in range(40):
        loss = system.losses(batch, context_of([step]))["image"].total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    assert np.mean(seen[-5:]) < 0.5 * seen[0]


# -- inference ----------------------------------------------------------------------------------------------------


def test_inference_gives_gaussians_and_their_renders(build: Build, inputs_of: InputsOf) -> None:
    made = build().infer(**inputs_of(2))
    count = 2 + 4 * 16 * 16
    shapes = {name: tuple(value.shape) for name, value in made.items()}
    assert shapes == {
        "means": (2, count, 3), "quats": (2, count, 4), "scales": (2, count, 3), "opacities": (2, count),
        "sh": (2, count, 1, 3), "renders": (2, 4, 3, 16, 16),
    }  # fmt: skip
    assert made["scales"].max() <= 0.302


def test_the_seed_decides_what_is_made(build: Build, inputs_of: InputsOf) -> None:
    system = build()
    first, again, other = (system.infer(**inputs_of(seed=seed))["means"] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_every_step_of_denoising_can_be_watched(build: Build, inputs_of: InputsOf, sampler: str) -> None:
    moments = list(build().denoise(**inputs_of(sampler=sampler, steps=4)))
    assert [moment.t for moment in moments] == [999, 666, 333, 0]
    made = build().infer(**inputs_of(sampler=sampler, steps=4))
    torch.testing.assert_close(moments[-1].result[1], made["renders"])


def test_guidance_of_one_is_no_guidance_and_more_changes_the_result(build: Build, inputs_of: InputsOf) -> None:
    system = build(condition_dropout=0.1)
    plain, one, two = (system.infer(**inputs_of(guidance=g))["renders"] for g in (None, 1.0, 2.0))
    assert torch.equal(plain, one)
    assert not torch.allclose(plain, two)


def test_a_system_of_mirrored_worlds_gives_right_handed_gaussians(build: Build, inputs_of: InputsOf) -> None:
    system, given = build(mirrored=True), inputs_of()
    made = system.infer(**given)
    raw = RawGaussians(made["means"], made["sh"], made["scales"].log(), made["quats"], made["opacities"].logit()[..., None])
    drawn = raw.render(given["c2w"], given["intrinsics"], 16, 16)
    torch.testing.assert_close(drawn, made["renders"], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(made["means"], build().infer(**given)["means"], atol=1e-2)


def test_objects_stay_near_the_origin_and_scenes_in_their_range(build: Build, inputs_of: InputsOf) -> None:
    system = build(depth={"scene": {"rule": "range", "near": 1.0, "far": 2.0}})
    thing = system.infer(**inputs_of(kind="object"))["means"][0, 2:]
    room = system.infer(**inputs_of(kind="scene"))["means"][0, 2:]
    centres = inputs_of()["c2w"][0, :, :3, 3].repeat_interleave(256, 0)
    distance = (room - centres).norm(dim=-1)
    assert ((distance > 1) & (distance < 2)).all()
    assert (thing - centres).norm(dim=-1).max() < 3 + 1.8


# -- what doesn't fit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kind": "planet"}, "knows object, scene"),
        ({"guidance": 3.0}, "condition_dropout"),
        ({"image": torch.rand(1, 3, 20, 16)}, r"image has shape \(1, 3, 20, 16\)"),
        ({"intrinsics": torch.rand(1, 3, 4)}, "intrinsics has shape"),
        ({"image": torch.full((1, 3, 16, 16), torch.nan)}, "image holds NaN"),
        ({"steps": 2000}, "1 to 1000"),
        ({"sampler": "euler"}, "ancestral or ddim"),
    ],
)
def test_inputs_that_do_not_fit_are_named(build: Build, inputs_of: InputsOf, change: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        build().infer(**inputs_of(**change))


def test_one_camera_is_too_few(build: Build, inputs_of: InputsOf) -> None:
    with pytest.raises(DataError, match="one camera"):
        build().infer(**inputs_of(views=1))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"images": np.zeros((3, 16, 16, 3), np.uint8)}, "4 views or more"),
        ({"images": np.zeros((6, 8, 8, 3), np.uint8)}, "of 16 x 16 pixels"),
        ({"c2w": np.full((6, 4, 4), np.nan)}, "c2w holds NaN"),
        ({"kind": "planet"}, "knows object, scene"),
    ],
)
def test_samples_that_do_not_fit_are_bad(build: Build, sample_of: SampleOf, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(BadSample, match=text):
        build().check(sample_of(0, **fields))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"image_size": 18}, "multiple of patch 4"),
        ({"width": 40}, "multiple of head_dim 16"),
        ({"kinds": ["object", "object"]}, "twice"),
        ({"ramps": {"ssim": [0, 1, 5]}}, "terms are image"),
        ({"ramps": {"image": [9, 0, 1, 3]}}, "start before end"),
        ({"guidance": 2.0}, "condition_dropout"),
        ({"depth": {"scene": {"near": 3, "far": 2}}}, "less than far"),
        ({"perceptual": {"type": "lpips"}}, "trunk"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], text: str) -> None:
    small = {"width": 32, "head_dim": 16, "patch": 4, "image_size": 16}
    with pytest.raises(ValidationError, match=text):
        DiffusionGSConfig(type="diffusion_gs", **{**small, **settings})
