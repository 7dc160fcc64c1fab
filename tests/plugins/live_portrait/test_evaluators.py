"""Evaluators measure what they say: the meter on drawn faces, reenactment against its truth, openings against what was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from mixtura.errors import DataError
from mixtura.evaluate import EvalContext, EvalResult
from mixtura.plugins import registry
from mixtura.rng import KeyedRng
from mixtura_live_portrait.evaluators import meter as meters
from mixtura_live_portrait.evaluators.meter import Meter, Places, meter_for, worth
from mixtura_live_portrait.evaluators.reenactment import Reenactment, ReenactmentConfig, drawn_case
from mixtura_live_portrait.evaluators.retargeting import Retargeting, RetargetingConfig
from tests.plugins.live_portrait.training_tools import faces, system_of

HELD = {"type": "faces", "identities": 3, "clips": 1, "frames": 12, "first_identity": 70, "size": 16}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A meter that learns next to nothing."""
    for name, value in {"PEOPLE": 3, "FRAMES": 2, "HELD_OUT": 2, "STEPS": 2, "PART_STEPS": 2}.items():
        monkeypatch.setattr(meters, name, value)


def reenactment(tmp_path: Path, system: Any = None, **settings: Any) -> EvalResult:
    """The evaluator's result on the small system."""
    given = {"sources": {"held": HELD}, "items": 2, "frames": 3, **settings}
    evaluator = Reenactment(ReenactmentConfig.model_validate(given), root=tmp_path)
    return evaluator.run(system or system_of(), EvalContext(0, {}, tmp_path, KeyedRng(1), cache=tmp_path))


class Perfect(torch.nn.Module):
    """Paints the driving frame itself."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = system_of().sizes
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def infer(self, source: Tensor, driving: Tensor | None = None, **_: Any) -> dict[str, Tensor]:
        return {"frames": source if driving is None else driving}


# -- the meter -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_meter_reads_drawn_people_whom_it_never_saw() -> None:
    found = meters.learn(64).worth
    assert found["pose"] < 4
    assert found["eyes"] < 0.05
    assert found["lips"] < 0.04
    assert found["same person"] < 0.5 * found["another person"]


def test_a_meter_is_learnt_once_the_same_way_and_kept(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = meter_for(16, tmp_path), meters.learn(16)
    monkeypatch.setattr(meters, "learn", lambda size: pytest.fail("learnt twice"))
    kept = meter_for(16, tmp_path)
    for other in (again, kept):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
        assert other.worth == first.worth
    assert not any(parameter.requires_grad for parameter in kept.parameters())


def test_the_worth_of_a_perfect_reading_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    held = meters.draw(0, 2, 2, 16, is_augmented=False)
    one_for_each = torch.nn.functional.one_hot(held.who).float()
    perfect = meters.Reading(held.pose, held.expression, held.ratios, one_for_each)
    monkeypatch.setattr(Meter, "read", lambda self, pictures, places: perfect)
    found = worth(Meter(), held)
    assert found.pop("expression, if guessed") > 0
    assert found == pytest.approx({"pose": 0, "expression": 0, "eyes": 0, "lips": 0, "same person": 0, "another person": 1})


def test_large_pictures_are_read_as_small_ones() -> None:
    meter, pictures = Meter(), torch.rand(1, 3, 96, 96)
    places = Places(torch.tensor([[-0.5, -0.5, 0.5, 0.5]]), torch.rand(1, 3, 2, 2))
    large = pictures.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(meter.read(large, places).pose, meter.read(pictures, places).pose, atol=1e-4, rtol=1e-4)


# -- reenactment -----------------------------------------------------------------------------------------------------------


def test_every_method_is_told_for_both_tasks_beside_what_the_meter_is_worth(quick: None, tmp_path: Path) -> None:
    result = reenactment(tmp_path)
    table, meter_table = result.tables.values()
    assert [(row["task"], row["method"]) for row in table] == [
        (task, method) for task in ("self", "cross") for method in ("ours", "without warping", "source shown again", "the truth")
    ]
    assert all(row["frames"] == 6 for row in table)
    assert {"pose", "same person"} <= meter_table[0].keys()
    assert {"held/self/psnr", "held/cross/identity", "held/self/the truth/pose"} <= result.scalars.keys()
    assert Image.open(tmp_path / result.media["held, cross: source, and for each frame driving, truth, painted"]).size[0] == 320


def test_whoever_paints_the_driving_frames_is_perfect_on_their_own_and_not_on_others(quick: None, tmp_path: Path) -> None:
    scalars = reenactment(tmp_path, Perfect()).scalars
    assert scalars["held/self/psnr"] == 100
    assert scalars["held/self/gmsd"] == 0
    assert scalars["held/self/pose"] == scalars["held/self/the truth/pose"]
    assert scalars["held/cross/psnr"] < 40


def test_the_truth_of_a_foreign_motion_is_the_sources_person_in_the_drivings_pose() -> None:
    source = faces(size=32)
    case = drawn_case(source, 0, 2, is_cross=True)
    other = source.stretch(2, np.array([10, 19]))
    np.testing.assert_array_equal([frame.pose for frame in case.frames], other.pose)
    np.testing.assert_allclose(case.driving.movedim(1, -1) * 255, other.images, atol=1e-3)
    assert (case.truth - case.driving).abs().mean() > 0.02


def test_real_clips_are_measured_as_pictures_alone(tmp_path: Path) -> None:
    from mixtura_live_portrait.data.draw_clips import ProceduralFaces, ProceduralFacesConfig

    clips = ProceduralFacesConfig(path=str(tmp_path / "clips"), identities=1, clips=1, frames=12, size=16)
    ProceduralFaces(clips, root=tmp_path, seed=1).run(lambda text: None)
    section = {"type": "portrait_clips", "path": "clips", "size": 16, "jitter": 0, "least_motion": 0}
    result = reenactment(tmp_path, sources={"clip": section})
    (table,) = result.tables.values()
    assert {row["task"] for row in table} == {"self"}
    assert "face_psnr" in table[0]
    assert "pose" not in table[0]


def test_painted_heads_are_nothing_for_the_meter(tmp_path: Path) -> None:
    result = reenactment(tmp_path, sources={"painted": {**HELD, "style": "painted"}})
    (table,) = result.tables.values()
    assert {row["task"] for row in table} == {"self", "cross"}
    assert "pose" not in table[0]


def test_sources_that_do_not_fit_are_named(quick: None, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"sources.held: .*size"):
        ReenactmentConfig.model_validate({"sources": {"held": {"size": 3}}})
    with pytest.raises(DataError, match="source has shape"):
        reenactment(tmp_path, sources={"held": {**HELD, "size": 32}})


# -- retargeting -----------------------------------------------------------------------------------------------------------


def retargeting(tmp_path: Path, system: Any = None, **settings: Any) -> EvalResult:
    """The evaluator's result on the small system."""
    given = {"source": HELD, "items": 2, **settings}
    evaluator = Retargeting(RetargetingConfig.model_validate(given), root=tmp_path)
    return evaluator.run(system or system_of(), EvalContext(0, {}, tmp_path, KeyedRng(1), cache=tmp_path))


def test_openings_are_told_and_read(quick: None, tmp_path: Path) -> None:
    result = retargeting(tmp_path, eyes=[0.1, 0.4], lips=[0.0, 0.3, 0.6])
    table, _ = result.tables.values()
    assert [(row["part"], row["told"]) for row in table] == [
        ("eyes", "0.1"), ("eyes", "0.4"), ("lips", "0"), ("lips", "0.3"), ("lips", "0.6"),
    ]  # fmt: skip
    assert {"eyes/error", "lips/own_error", "lips/slope"} <= result.scalars.keys()
    assert len(result.media) == 2


class Shown(Perfect):
    """Paints what it is told as grey; where it halves, half of it unless it is corrected."""

    halves = False

    def infer(
        self, source: Tensor, driving: Tensor | None = None, corrections: int | None = None, **given: Any
    ) -> dict[str, Tensor]:
        told = given["eyes"] if "eyes" in given else given["lips"]
        told = told if corrections or not self.halves else told / 2
        return {"frames": told[:, :, None, None].expand(-1, 3, *source.shape[-2:])}


@pytest.fixture
def grey_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: Meter, pictures: Tensor, places: Places) -> meters.Reading:
        shown = pictures[:, :, 0, 0]  # openings as grey
        return meters.Reading(shown, shown[:, :1].expand(-1, 10), shown, shown)

    monkeypatch.setattr(Meter, "read", read)


def test_a_picture_that_obeys_has_no_error_and_a_slope_of_one(quick: None, grey_meter: None, tmp_path: Path) -> None:
    scalars = retargeting(tmp_path, Shown()).scalars
    assert (scalars["eyes/error"], scalars["lips/error"]) == pytest.approx((0, 0), abs=1e-6)
    assert (scalars["eyes/slope"], scalars["lips/slope"]) == pytest.approx((1, 1))
    assert "lips/corrected_error" not in scalars


def test_corrections_are_measured_beside_what_was_told_once(quick: None, grey_meter: None, tmp_path: Path) -> None:
    system = Shown()
    system.halves = True
    result = retargeting(tmp_path, system, corrections=1, lips=[0.0, 0.4])
    assert (result.scalars["lips/error"], result.scalars["lips/corrected_error"]) == pytest.approx((0.1, 0), abs=1e-6)
    row = result.tables["Retargeting: openings told and found (means over source frames)"][-1]
    assert (row["painted"], row["corrected"], row["error, corrected"], row["within 0.05, corrected"]) == (0.2, 0.4, 0.0, "100%")


def test_openings_are_measured_on_drawn_faces_alone() -> None:
    with pytest.raises(ValidationError, match="give a section of type `faces`"):
        RetargetingConfig.model_validate({"source": {"type": "portrait_clips", "path": "x"}})


def test_the_evaluators_are_registered() -> None:
    assert registry().get("evaluator", "reenactment") is Reenactment
    assert registry().get("evaluator", "retargeting") is Retargeting
