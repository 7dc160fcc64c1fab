"""Terms of training: regions, warps, keypoints, players, identities; what each is, and what it counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mixtura.errors import CheckpointError, ConfigError
from mixtura.rng import KeyedRng, SampleNoise
from mixtura_live_portrait.animate.retarget import retargeted
from mixtura_live_portrait.config import EquivarianceConfig, PriorConfig, WingConfig
from mixtura_live_portrait.faces import layouts
from mixtura_live_portrait.keypoints import placed
from mixtura_live_portrait.losses import adversarial, geometry, regions
from mixtura_live_portrait.losses.first import GRAIN, WEARS, FirstStage
from mixtura_live_portrait.losses.geometry import Warp
from mixtura_live_portrait.losses.identity import ArcFace, load_arcface
from mixtura_live_portrait.losses.second import SecondStage
from mixtura_live_portrait.losses.terms import BASE, SECOND, SMALL, terms_of, valid
from mixtura_live_portrait.nets.discriminator import Judgement
from mixtura_live_portrait.system import LivePortrait
from tests.plugins.live_portrait.training_tools import config_of, context_of, faces, samples_of, system_of

NAN = math.nan


def warp_of(places: int = 3, **settings: float) -> Warp:
    """A random warp for some samples."""
    return Warp.drawn(SampleNoise(KeyedRng(5), list(range(places))), EquivarianceConfig.model_validate(settings))


# -- regions ---------------------------------------------------------------------------------------------------------


def test_a_square_box_cuts_its_pixels_out() -> None:
    picture = torch.rand(1, 3, 8, 8)
    box = torch.tensor([[-0.5, 0.0, 0.5, 1.0]])
    torch.testing.assert_close(regions.cut(picture, box, 4), picture[:, :, 4:8, 2:6])


def test_a_long_box_is_cut_as_the_square_around_it_and_an_unknown_one_as_all() -> None:
    picture = torch.rand(2, 3, 8, 8)
    boxes = torch.tensor([[-0.5, 0.4, 0.5, 0.6], [NAN, 0, 0, 0]])
    cut = regions.cut(picture, boxes, 4)
    torch.testing.assert_close(cut[0], picture[0, :, 4:8, 2:6])
    torch.testing.assert_close(cut[1:], torch.nn.functional.avg_pool2d(picture[1:], 2))


def test_masks_hold_the_pixels_in_a_box_and_below_it() -> None:
    boxes = torch.tensor([[-0.5, -0.5, 0.5, 0.5], [NAN, NAN, NAN, NAN]])
    assert regions.inside(boxes, 8)[0, 0].nonzero().flatten().unique().tolist() == [2, 3, 4, 5]
    assert regions.below(boxes, 8)[0, 0].sum(1).tolist() == [0] * 6 + [8, 8]
    assert not regions.inside(boxes, 8)[1].any()
    assert not regions.below(boxes, 8)[1].any()
    torch.testing.assert_close(regions.grown(boxes[:1], 0.5), torch.tensor([[-1.0, -1.0, 1.0, 1.0]]))


def test_a_difference_looks_at_its_mask_alone_and_an_empty_one_gives_nothing() -> None:
    one, other = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    other[:, :, :2] = 3
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, :, 2:] = 1
    assert regions.difference(one, other, mask).tolist() == [1, 0]
    assert regions.difference(one, other).tolist() == [2, 2]


def test_patches_lie_along_their_corners_and_reach_beyond_them() -> None:
    picture, half = torch.rand(1, 3, 8, 8), 0.5 / regions.ZOOM
    flat = torch.tensor([[[[-half, 0.0], [half, 0.0]], [[0.0, -half], [0.0, half]], [[NAN, 0.0], [0.5, 0.5]]]])
    found = regions.patches(picture, flat, 4)
    torch.testing.assert_close(found[:, 0], picture[:, :, 2:6, 2:6])
    torch.testing.assert_close(found[:, 1], picture[:, :, 2:6, 2:6].rot90(1, (2, 3)))
    torch.testing.assert_close(found[:, 2], torch.nn.functional.avg_pool2d(picture, 2))


def test_corners_come_from_the_guide() -> None:
    landmarks = faces(size=128).stretch(0, [0]).landmarks
    points = layouts.normalised(landmarks, 128, 128)
    ends = regions.corners(torch.from_numpy(layouts.guide(points)))
    np.testing.assert_allclose(ends[0, 0], points[0, [0, 12]])
    np.testing.assert_allclose(ends[0, 1], points[0, [24, 36]])
    np.testing.assert_allclose(ends[0, 2], points[0, [48, 66]])


# -- warps -----------------------------------------------------------------------------------------------------------


def test_a_warp_of_no_strength_changes_nothing() -> None:
    warp, picture, places = warp_of(affine=0, bend=0), torch.rand(3, 3, 8, 8), torch.rand(3, 5, 2)
    torch.testing.assert_close(warp.picture(picture), picture, atol=1e-5, rtol=0)
    torch.testing.assert_close(warp.points(places), places)


def test_a_warped_picture_shows_at_a_place_what_was_where_the_warp_takes_it() -> None:
    warp, side = warp_of(affine=0.1, bend=0.02), 64
    line = (torch.arange(side) + 0.5) * (2 / side) - 1
    coordinates = torch.stack(torch.meshgrid(line, line, indexing="xy")).expand(3, -1, -1, -1)  # what a pixel shows is its place
    shown = warp.picture(coordinates).flatten(2).mT
    moved = warp.points(coordinates.flatten(2).mT)
    inner = (moved.abs() < 0.95).all(-1)
    torch.testing.assert_close(shown[inner], moved[inner], atol=1e-4, rtol=0)
    assert (moved - coordinates.flatten(2).mT).abs().mean() > 0.02


def test_keypoints_that_move_with_the_picture_are_equivariant() -> None:
    warp, x_warped = warp_of(), torch.rand(3, 5, 3) - 0.5
    x = torch.cat([warp.points(x_warped[..., :2]), torch.rand(3, 5, 1)], -1)
    torch.testing.assert_close(geometry.equivariance(x, x_warped, warp), torch.zeros(3))
    assert (geometry.equivariance(x + 0.1, x_warped, warp) - 0.1).abs().max() < 1e-6


def test_a_sample_meets_the_same_warp_in_any_batch() -> None:
    whole = warp_of(3)
    one = Warp.drawn(SampleNoise(KeyedRng(5), [2]), EquivarianceConfig())
    torch.testing.assert_close(one.affine[0], whole.affine[2])
    torch.testing.assert_close(one.bend[0], whole.bend[2])


# -- keypoints ---------------------------------------------------------------------------------------------------------


def test_the_prior_asks_for_distance_and_depth_but_not_among_guided_points() -> None:
    config = PriorConfig(distance=0.1, depth=-0.3)
    apart = torch.tensor([[[0.0, 0, -0.3], [1, 0, -0.3], [0, 1, -0.3]]])
    close = apart.clone()
    close[0, 1, 0] = 0.1
    assert geometry.prior(apart, config, 0).tolist() == [0]
    assert geometry.prior(close, config, 0).item() == pytest.approx(2 * (0.1 - 0.01) / 3)
    assert geometry.prior(close, config, 2).tolist() == [0]
    assert geometry.prior(apart + 0.2, config, 0).item() == pytest.approx(0.2)


def test_poses_are_compared_in_radians_where_they_are_known() -> None:
    true = torch.tensor([[[10.0, 20, 30], [NAN, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    found = torch.nan_to_num(true) + 18.0
    totals, counts = geometry.pose(found, true)
    assert counts.tolist() == [1, 2]
    torch.testing.assert_close(totals, torch.tensor([0.1, 0.2]) * math.pi)


def test_the_wing_is_steep_near_zero_linear_far_off_and_joins_both() -> None:
    config = WingConfig(width=0.1, bend=0.02)
    near, edge, beyond = (geometry.wing(torch.tensor(d), config).item() for d in (0.01, 0.1 - 1e-7, 0.1 + 1e-7))
    assert near == pytest.approx(0.1 * math.log1p(0.5))
    assert edge == pytest.approx(beyond, abs=1e-5)
    far, farther = (geometry.wing(torch.tensor(d), config).item() for d in (0.5, 0.7))
    assert farther - far == pytest.approx(0.2)


def test_landmarks_guide_the_first_keypoints_where_they_are_known() -> None:
    x = torch.zeros(1, 2, 3, 3)
    landmarks = torch.tensor([[[[0.5, 0.5], [0.0, 0.0]], [[NAN, 0.0], [0.5, 0.5]]]])
    totals, counts = geometry.guide(x, landmarks, WingConfig())
    assert counts.tolist() == [3]
    assert totals.item() == pytest.approx(4 * geometry.wing(torch.tensor(0.5), WingConfig()).item())


def test_gaps_are_those_of_lids_lips_and_corners_wherever_the_head_is() -> None:
    landmarks = torch.zeros(1, 1, 12, 2)
    landmarks[0, 0, [3, 7, 9], 1] = torch.tensor([0.1, 0.2, 0.3])
    landmarks[0, 0, [1, 5, 11], 0] = torch.tensor([0.3, 0.3, 0.4])
    landmarks[0, 0, 6] = NAN
    x = torch.cat([landmarks.nan_to_num(), torch.ones(1, 1, 12, 1)], -1) + torch.tensor([0.5, -0.3, 0.2])
    totals, counts = geometry.gaps(x, landmarks)
    assert (totals.item(), counts.item()) == (pytest.approx(0, abs=1e-6), 5)
    x[0, 0, 9, 1] += 0.04
    x[0, 0, 2, 0] -= 0.01
    x[0, 0, 10, 0] += 0.02
    assert geometry.gaps(x, landmarks)[0].item() == pytest.approx(0.07, abs=1e-6)
    assert geometry.gaps(x[:, :, :10], landmarks)[1].item() == 4
    assert geometry.gaps(x[:, :, :3], landmarks)[1].item() == 1


def test_keypoints_can_be_placed_where_landmarks_are() -> None:
    torch.manual_seed(0)
    x, landmarks = torch.rand(2, 12, 3, requires_grad=True), torch.rand(2, 10, 2)
    landmarks[0, 6] = NAN
    found, known = placed(x, landmarks, torch.tensor([True, False])), [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert torch.equal(found[0, known, :2], landmarks[0, known])
    assert torch.equal(found[0, [6, 10, 11]], x[0, [6, 10, 11]])
    assert torch.equal(found[..., 2], x[..., 2])
    assert torch.equal(found[1], x[1])
    assert torch.equal(placed(x, landmarks)[1, :10, :2], landmarks[1])
    found.sum().backward()
    assert x.grad is not None
    assert x.grad[0, known, :2].eq(0).all()
    assert x.grad.sum() == x.numel() - 2 * len(known)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_teacher_forcing_paints_with_landmarks(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    system = system_of(teacher_forcing=share)
    batch: dict[str, Any] = system.collate(samples_of(2))
    seen: list[Tensor] = []
    monkeypatch.setattr(system, "paint", lambda volume, *keypoints: seen.extend(keypoints) or system.pictures(batch["source"]))
    stage = FirstStage(system, batch, context_of([0, 1]), frozenset(system.terms))
    stage.painted(stage.looked())
    assert torch.equal(torch.stack(seen, 1)[:, :, :10, :2], batch["guide"][:, :, :10]) == (share == 1.0)


def test_unknown_labels_leave_no_trace_in_gradients() -> None:
    x = torch.zeros(1, 2, 3, 3, requires_grad=True)
    totals = geometry.guide(x, torch.full((1, 2, 2, 2), NAN), WingConfig())[0]
    totals = totals + geometry.gaps(x.expand(-1, -1, -1, 3).repeat(1, 1, 4, 1), torch.full((1, 2, 10, 2), NAN))[0]
    totals.sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


# -- players -----------------------------------------------------------------------------------------------------------


def judged(*scores: float) -> Judgement:
    """The same score of every patch, one sample a score; features are the scores."""
    patches = torch.tensor(scores)[:, None].expand(-1, 4)
    return Judgement(patches, [patches, 2 * patches])


def test_critics_are_content_beyond_the_margin_and_painters_want_scores() -> None:
    real, painted = judged(2.0, 0.0), judged(-2.0, 0.5)
    assert adversarial.telling(real, painted).tolist() == [0, 1 + 1.5]
    assert adversarial.fooling(painted).tolist() == [2, -0.5]
    assert adversarial.matching(real, painted).tolist() == [(4 + 8) / 2, (0.5 + 1) / 2]


# -- identity ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a random network of eighteen layers."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("arcface") / "arcface.pth"
    torch.save(ArcFace((2, 2, 2, 2)).state_dict(), path)
    return path


def test_an_identity_network_is_known_by_its_names_and_frozen(weights: Path) -> None:
    network = load_arcface(weights)
    assert network(torch.rand(2, 3, 112, 112)).shape == (2, 512)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_same_face_has_no_identity_loss_and_another_has(weights: Path) -> None:
    system = system_of(identity={"type": "arcface", "weights": str(weights)})
    stage = FirstStage(system, system.collate(samples_of(2)), context_of([0, 1]), frozenset(system.terms))
    assert stage.estranged(stage.target).abs().max() < 1e-5
    assert stage.estranged(1 - stage.target).min() > 1e-4


def test_painted_openings_are_compared_with_those_of_the_driving_frame() -> None:
    system = system_of(openings=True)
    batch: dict[str, Any] = system.collate(samples_of(3, blank=(2,)))
    batch["ratios"][0, 1, 1] = NAN
    stage = FirstStage(system, batch, context_of([0, 1, 2]), frozenset(terms_of(system.config, BASE)))
    picture = stage.target.clone().requires_grad_()
    off, known = stage.opened(picture), valid(system.config, batch)["openings"]
    assert known.tolist() == [2, 3, 0]
    ends = regions.corners(batch["guide"][:, 1])
    differences = (system.read(stage.target, ends) - batch["ratios"][:, 1]).abs()
    torch.testing.assert_close(off, torch.stack([differences[0, [0, 2]].sum(), differences[1].sum(), torch.zeros(())]))
    off.sum().backward()
    assert picture.grad is not None
    assert picture.grad.isfinite().all()
    assert picture.grad.flatten(1).abs().sum(1).gt(0).tolist() == [True, True, False]
    assert "openings" in system.terms
    assert "openings" not in terms_of(config_of(), BASE)


def test_the_reader_learns_on_soft_and_grainy_frames() -> None:
    system = system_of()
    batch: dict[str, Any] = system.collate(samples_of(8))
    stage = FirstStage(system, batch, context_of(list(range(8))), frozenset(system.terms))
    ends = torch.tensor([[-0.5, 0.0], [0.5, 0.0]]).expand(8, 3, 2, 2)
    lines = (torch.arange(stage.source.shape[-1]) % 8 < 4).float().expand_as(stage.source)
    worn = stage.worn("source", lines, ends)
    side = system.reader.side
    assert worn.shape == (8, WEARS, 3, 3, side, side)
    assert torch.equal(worn, stage.worn("source", lines, ends))
    alone = FirstStage(system, {k: v[3:4] for k, v in batch.items()}, context_of([3]), frozenset(system.terms))
    torch.testing.assert_close(alone.worn("source", lines[3:4], ends[3:4]), worn[3:4])
    contrast = worn.flatten(2).std(2)
    sharp = regions.patches(lines, ends, side).flatten(1).std(1)
    assert contrast.min() > 0
    assert contrast.min() < 0.8 * sharp.min()  # lines go soft
    assert contrast.max() > 0.9 * sharp.max()
    assert len({round(value, 4) for value in contrast.flatten().tolist()}) == 8 * WEARS  # each time by another share
    plain = stage.worn("source", torch.full_like(lines, 0.5), ends)
    assert not torch.equal(worn[:, 0], worn[:, 1])
    grain = plain.flatten(2).std(2)
    assert grain.min() < 0.3 * GRAIN
    assert 0.7 * GRAIN < grain.max() < 1.1 * GRAIN


def test_the_reader_reads_worn_views_and_learns_from_known_ratios_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    system = system_of()
    batch: dict[str, Any] = system.collate(samples_of(4))
    stage = FirstStage(system, batch, context_of(list(range(4))), frozenset(system.terms))
    monkeypatch.setattr(system.reader, "forward", lambda seen: torch.full((len(seen), 3), 0.25))
    torch.testing.assert_close(stage.reading(), (0.25 - batch["ratios"]).abs().sum((1, 2)))
    batch["ratios"][0, 1, 2] = torch.nan
    known = batch["ratios"].nan_to_num(0.25)
    torch.testing.assert_close(stage.reading(), (0.25 - known).abs().sum((1, 2)))


def test_other_files_are_no_identity_networks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no file .*none.pth; give ArcFace's weights"):
        load_arcface(tmp_path / "none.pth")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"isn't an ArcFace network: .* found conv1.weight"):
        load_arcface(tmp_path / "other.pth")
    state = ArcFace((1, 1, 1, 1)).state_dict()
    torch.save({**state, "fc.weight": torch.zeros(3, 3)}, tmp_path / "shape.pth")
    with pytest.raises(CheckpointError, match="doesn't fit: size mismatch for fc.weight"):
        load_arcface(tmp_path / "shape.pth")


# -- stage two ---------------------------------------------------------------------------------------------------------


def second_of(system: LivePortrait, batch: dict[str, Any]) -> SecondStage:
    return SecondStage(system, batch, context_of([0, 1, 2]), frozenset(SECOND))


@pytest.mark.parametrize(("part", "points"), [("eyes", slice(0, 8)), ("lips", slice(8, 12))])
def test_small_networks_are_guided_to_landmarks_of_their_part(part: str, points: slice, monkeypatch: pytest.MonkeyPatch) -> None:
    system = system_of(keypoints=13, guided=12)
    batch: dict[str, Any] = system.collate(samples_of(3, winks=1.0))
    stage, told = second_of(system, batch), []
    way = torch.zeros(3, 13, 3)
    way[:, points, :2] = (batch["guide"][:, 1] - batch["guide"][:, 0])[:, points]
    way[:, 12:] = way[..., 2] = 5.0  # what no landmark guides
    monkeypatch.setattr(stage, "offsets", lambda part, wanted: told.append(wanted) or way)
    assert stage.astray(part).tolist() == [0, 0, 0]
    places = [0, 1] if part == "eyes" else [2]
    torch.testing.assert_close(told[0], batch["ratios"][:, 1, places].mean(1, keepdim=True))
    way[1, 0 if part == "lips" else 9, 0] += 0.25  # another part moves along
    torch.testing.assert_close(stage.astray(part), torch.tensor([0, 0.25, 0]))


def test_eyes_and_lips_may_be_told_landmarks() -> None:
    for told_landmarks in (False, True):
        system = system_of(told_landmarks=told_landmarks)
        batch: dict[str, Any] = system.collate(samples_of(3, blank=(2,)))
        stage = second_of(system, batch)
        known = torch.equal(stage.told[:2, :11, :2], batch["guide"][:2, 0, :11])
        assert (known, torch.equal(stage.told[2], stage.x[2])) == (told_landmarks, True)
        wanted = torch.full((3, 1), 0.3)
        torch.testing.assert_close(
            stage.offsets("lips", wanted), retargeted(system.lips, stage.told, batch["ratios"][:, 0, 2:], wanted)
        )


def test_only_heads_that_keep_still_guide_small_networks() -> None:
    system = system_of(keypoints=13, guided=12)
    still, moving = (system.collate(samples_of(3, blank=(2,), winks=share)) for share in (1.0, 0.0))
    for part in ("eyes", "lips"):
        assert valid(system.config, still)[f"{part}_guide"].tolist() == [1, 1, 0]
        assert valid(system.config, moving)[f"{part}_guide"].tolist() == [0, 0, 0]
    still["ratios"][0, 1, 2] = NAN
    assert valid(system.config, still)["lips_guide"].tolist() == [0, 1, 0]


# -- which terms a stage has -------------------------------------------------------------------------------------------


def test_a_stage_has_the_terms_of_what_it_trains() -> None:
    config = config_of(regions=["whole", "face"])
    config = config.model_copy(update={"critics": config.critics.model_copy(update={"regions": ("lips",)})})
    without, players = terms_of(config, BASE), terms_of(config, (*BASE, "critics", "reader"))
    assert "perceptual_face" in without
    assert "perceptual_lips" not in without
    assert set(players) - set(without) == {"gan_lips", "features_lips", "critic_lips", "ratios"}
    assert {term for term, player in players.items() if player == "discriminator"} == {"critic_lips"}
    assert set(terms_of(config, ("lips", "stitching"))) == {
        "stitching", "stitching_size", "lips", "lips_ratio", "lips_guide", "lips_size"
    }  # fmt: skip
    assert set(terms_of(config, ("reader",))) == {"ratios"}
    looking = {"equivariance", "prior", "pose", "deformation", "guide", "gaps", "ratios"}
    assert set(terms_of(config, ("motion", "reader"))) == looking
    assert set(terms_of(config, BASE)) > looking - {"ratios"} | {"image"}
    resting = set(terms_of(config, ("appearance", "warping", "generator")))
    assert resting == set(terms_of(config, BASE)) - looking


@pytest.mark.parametrize(
    ("trained", "said"),
    [((*BASE, *SMALL), "learn while the others rest: name the parts with `train:`"), (("critics", "motion"), "train both")],
)
def test_parts_that_cannot_train_together_are_told(trained: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        terms_of(config_of(), trained)


def test_what_is_unknown_is_not_counted() -> None:
    system = system_of()
    batch: dict[str, Any] = system.collate(samples_of(2, blank=(1,)))
    batch["guide"][0, 1, 0] = NAN
    batch["guide"][0, :, 9] = NAN
    batch["boxes"][0, 0, 1] = NAN
    counts = valid(system.config, batch)
    expected: dict[str, list[float]] = {
        "image": [1, 1], "image_face": [1, 0], "guide": [17, 0], "gaps": [7, 0], "pose": [2, 0], "ratios": [5, 0],
        "gan_lips": [1, 0], "critic": [1, 1], "stitching": [1, 0], "eyes": [0, 0], "lips_ratio": [1, 0],
    }  # fmt: skip
    assert {name: counts[name].tolist() for name in expected} == expected


def test_only_guided_keypoints_are_counted() -> None:
    system = system_of(keypoints=4)
    counts: dict[str, Tensor] = valid(system.config, system.collate(samples_of(1)))
    assert counts["guide"].tolist() == [8]
    assert counts["gaps"].tolist() == [4]
