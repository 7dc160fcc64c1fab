"""Portraits, animation and paste back with tiny random networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mixtura.errors import ConfigError, DataError
from mixtura_live_portrait.animate.animator import Adjust, Animator, shared_length
from mixtura_live_portrait.animate.looking import DRIVINGS, How, Looked, look, look_for_several
from mixtura_live_portrait.animate.portrait import Portrait, clip_portrait, movement_of, picture_portrait
from mixtura_live_portrait.animate.smoothing import smoothed
from mixtura_live_portrait.animate.stream import PATIENCE, Stream
from mixtura_live_portrait.animate.templates import Template
from mixtura_live_portrait.animate.transfer import Rules
from mixtura_live_portrait.faces import layouts
from mixtura_live_portrait.faces.crop import Frame, Square, moved
from mixtura_live_portrait.faces.detector import Face
from mixtura_live_portrait.faces.given import Given
from mixtura_live_portrait.fast import ready
from tests.plugins.live_portrait.animate_tools import SMALL, Fixed, TinyEngine, face, face_68, picture

ENGINE = TinyEngine()
SEES = Fixed(face_68())
SOURCE = picture(0)
CLIP = [picture(seed) for seed in range(1, 6)]
PORTRAIT = picture_portrait(ENGINE, SOURCE, look([SOURCE], SEES))
PLAIN = Adjust(stitching=False, lip_normalise=False)


def animator(rules: Rules | None = None, adjust: Adjust = PLAIN, batch: int = 2) -> Animator:
    return Animator(ENGINE, rules, adjust, batch)


DRIVING = animator().template(CLIP, look(CLIP, SEES, DRIVINGS).still(), 25.0)


def test_a_portrait_has_all_that_animation_needs() -> None:
    assert PORTRAIT.volume is not None
    assert PORTRAIT.volume.shape == (1, *SMALL.volume)
    assert (len(PORTRAIT), PORTRAIT.is_clip, PORTRAIT.x.shape) == (1, False, (1, 10, 3))
    torch.testing.assert_close(PORTRAIT.x, PORTRAIT.movement.keypoints())


def test_networks_that_are_told_landmarks_get_them_in_the_crop() -> None:
    told = TinyEngine(replace(SMALL, keypoints=13, told_landmarks=True))
    looked = look([SOURCE], SEES)
    portrait = picture_portrait(told, SOURCE, looked)
    inside = moved(layouts.guide(SEES.faces[0].landmarks), looked.squares[0].to_crop(2)) - 1
    assert np.abs(inside).max() < 1
    torch.testing.assert_close(portrait.told[0, :12, :2], torch.from_numpy(inside))
    assert torch.equal(portrait.told[0, 12:], portrait.x[0, 12:])
    assert torch.equal(portrait.told[..., 2], portrait.x[..., 2])
    assert PORTRAIT.told is PORTRAIT.x
    driving = Animator(told).template(CLIP, look(CLIP, SEES, DRIVINGS).still(), 25.0)
    maker = Animator(told, adjust=replace(PLAIN, lips=True, lip_ratio=0.5))
    blind = replace(portrait, guide=None)
    assert not torch.allclose(maker.keypoints(portrait, driving), maker.keypoints(blind, driving))
    clip = clip_portrait(told, CLIP, look(CLIP, SEES))
    assert clip.guide is not None
    assert clip.guide.shape == (5, 12, 2)
    assert clip.first(2).told.shape == (2, 13, 3)
    by_hand = look([SOURCE], None, How(given=Given([], [Square(80, 80, 90)])))
    assert torch.equal(picture_portrait(told, SOURCE, by_hand).told, picture_portrait(told, SOURCE, by_hand).x)


def test_batches_change_nothing() -> None:
    one = movement_of(ENGINE, CLIP, DRIVINGS_SEEN.squares, batch=1)
    torch.testing.assert_close(one.keypoints(), DRIVING.movement.keypoints(), atol=1e-5, rtol=1e-4)
    alone, together = (list(animator(batch=n).animate(SOURCE, PORTRAIT, DRIVING)) for n in (1, 5))
    for a, b in zip(alone, together, strict=True):
        torch.testing.assert_close(a.results[0], b.results[0], atol=1e-4, rtol=1e-3)


DRIVINGS_SEEN = look(CLIP, SEES, DRIVINGS).still()


def test_a_picture_driven_by_a_clip_starts_as_itself() -> None:
    x = animator().keypoints(PORTRAIT, DRIVING)
    torch.testing.assert_close(x[:1], PORTRAIT.x)
    assert (x[1:] - PORTRAIT.x).abs().amax((1, 2)).min() > 1e-3
    shots = list(animator().animate(SOURCE, PORTRAIT, DRIVING))
    assert [shot.number for shot in shots] == list(range(5))
    assert PORTRAIT.volume is not None
    torch.testing.assert_close(shots[0].results[0], ENGINE.animate(PORTRAIT.volume, PORTRAIT.x, PORTRAIT.x)[0])
    assert shots[0].crops[0].shape == (64, 64, 3)


def test_only_the_face_changes_in_the_frame() -> None:
    (shot, *_) = animator().animate(SOURCE, PORTRAIT, DRIVING)
    corners = PORTRAIT.squares[0].corners()
    changed = np.argwhere((shot.pasted != SOURCE).any(-1))[:, ::-1]
    assert len(changed) > 1000
    assert (changed.min(0) >= corners.min(0) - 1).all()
    assert (changed.max(0) <= corners.max(0) + 1).all()
    assert shot.pasted.shape == SOURCE.shape


def test_the_whole_chain_with_everything_on() -> None:
    adjust = Adjust(eyes=True, lips=True, lip_ratio=0.4, smooth=True, steady_eyes=True)
    for relative in (True, False):
        rules = Rules(relative=relative, friendly=True, multiplier=1.2)
        shots = list(Animator(ENGINE, rules, adjust).animate(SOURCE, PORTRAIT, DRIVING))
        assert len(shots) == 5
        assert all(torch.isfinite(shot.results[0]).all() for shot in shots)


def test_each_setting_is_used() -> None:
    base = animator().keypoints(PORTRAIT, DRIVING)
    changes = [
        animator(Rules(relative=False)),
        animator(Rules(region="pose")),
        animator(Rules(multiplier=0.5)),
        animator(adjust=replace(PLAIN, stitching=True)),
        animator(adjust=replace(PLAIN, lip_normalise=True)),
        animator(adjust=replace(PLAIN, eyes=True)),
        animator(adjust=replace(PLAIN, lips=True)),
        animator(adjust=replace(PLAIN, smooth=True, variance=1.0)),
    ]
    results = [each.keypoints(PORTRAIT, DRIVING) for each in changes]
    for index, x in enumerate(results):
        assert not torch.allclose(x, base), index
    friendly = animator(Rules(relative=False, friendly=True)).keypoints(PORTRAIT, DRIVING)
    assert not torch.allclose(friendly, results[0])
    torch.testing.assert_close(friendly[:1], PORTRAIT.x)


def test_lips_are_normalised_for_relative_motion_alone() -> None:
    on = replace(PLAIN, lip_normalise=True)
    plain, closed = (animator(Rules(relative=False), adjust).keypoints(PORTRAIT, DRIVING) for adjust in (PLAIN, on))
    torch.testing.assert_close(plain, closed)


def test_a_driving_picture_gives_its_expression() -> None:
    normal = animator(adjust=replace(PLAIN, lip_normalise=True))
    x = normal.keypoints(PORTRAIT, DRIVING.first(1))
    expected = PORTRAIT.movement._replace(exp=DRIVING.movement.exp[:1]).keypoints()
    torch.testing.assert_close(x, expected)


def test_a_clip_is_driven_frame_by_frame() -> None:
    looked = look(CLIP, SEES)
    clip = clip_portrait(ENGINE, CLIP, looked, batch=2)
    assert (clip.is_clip, len(clip)) == (True, 5)
    still = replace(PLAIN, smooth=False)
    x = animator(adjust=still).keypoints(clip, DRIVING)
    torch.testing.assert_close(x[:1], clip.x[:1])
    smooth = animator(adjust=replace(PLAIN, variance=10.0)).keypoints(clip, DRIVING)
    assert not torch.allclose(smooth, x), "clips are smoothed unless told otherwise"
    moved = clip.movement.exp + DRIVING.movement.exp - DRIVING.movement.exp[:1]
    own = animator(Rules(region="exp"), replace(PLAIN, variance=10.0)).keypoints(clip, DRIVING)
    torch.testing.assert_close(own, clip.movement._replace(exp=smoothed(moved, 10.0)).keypoints())
    shots = list(animator(adjust=still).animate(CLIP, clip, DRIVING))
    assert len(shots) == 5
    volume = ENGINE.volume(crops(CLIP[3], clip.squares[3]))
    torch.testing.assert_close(shots[3].results[0], ENGINE.animate(volume, clip.x[3:4], x[3:4])[0], atol=1e-5, rtol=1e-4)


def crops(frame: Frame, around: Square) -> torch.Tensor:
    from mixtura_live_portrait.animate.portrait import crops_of

    return crops_of(ENGINE, [frame], [around])


def test_a_clip_driven_by_a_picture_lasts_as_long_as_the_clip() -> None:
    clip = clip_portrait(ENGINE, CLIP, look(CLIP, SEES))
    assert len(list(animator().animate(CLIP, clip, DRIVING.first(1)))) == 5
    assert len(list(animator().animate(CLIP, clip, DRIVING.first(3)))) == 3


def test_a_clip_of_one_frame_is_a_picture() -> None:
    assert not clip_portrait(ENGINE, CLIP[:1], look(CLIP[:1], SEES)).is_clip


def test_steady_eyes_concern_clips_alone() -> None:
    clip = clip_portrait(ENGINE, CLIP, look(CLIP, SEES))
    steady = replace(PLAIN, steady_eyes=True)
    assert not torch.allclose(animator(adjust=steady).keypoints(clip, DRIVING), animator().keypoints(clip, DRIVING))
    torch.testing.assert_close(animator(adjust=steady).keypoints(PORTRAIT, DRIVING), animator().keypoints(PORTRAIT, DRIVING))


def two_faces() -> tuple[Frame, list[Portrait]]:
    frame = np.concatenate([SOURCE, picture(3)], 1)
    seen = look_for_several([frame], Fixed(face_68(80, size=25), face_68(280, size=25)))
    return frame, [picture_portrait(ENGINE, frame, looked) for looked in seen]


def test_several_faces_are_all_pasted() -> None:
    frame, faces = two_faces()
    (first, *rest) = animator().animate(frame, faces, DRIVING)
    assert len(rest) == 4
    assert len(first.results) == len(first.crops) == 2
    changed = (first.pasted != frame).any(-1)
    assert changed[:, :200].sum() > 1000
    assert changed[:, 200:].sum() > 1000


def test_a_rotated_photo_gives_the_rotated_result() -> None:
    """The crop turns with the face, so the networks see the same."""
    upright = SOURCE[:, :160]
    points = face_68(80, 70, 30).landmarks
    rotated, turned = np.rot90(upright).copy(), np.stack([points[:, 1], 160 - points[:, 0]], -1)
    results = []
    for frame, landmarks in ((upright, points), (rotated, turned)):
        portrait = picture_portrait(ENGINE, frame, look([frame], Fixed(Face.of(landmarks))))
        results.append([shot.pasted for shot in animator().animate(frame, portrait, DRIVING)])
    for plain, back in zip(results[0], results[1], strict=True):
        assert differ(np.rot90(back, -1), plain) <= 2
        assert differ(plain, upright) > 50


def test_each_face_may_have_its_own_driving() -> None:
    frame, faces = two_faces()
    other = replace(DRIVING, movement=DRIVING.movement.at(torch.tensor([0, 4, 3, 2])), ratios=DRIVING.ratios[:4])
    shots = list(animator().animate(frame, faces, [DRIVING, other]))
    same = list(animator().animate(frame, faces, DRIVING))
    assert len(shots) == 4, "as long as the shorter one"
    torch.testing.assert_close(shots[1].results[0], same[1].results[0])
    torch.testing.assert_close(shots[1].results[1], same[4].results[1])
    with pytest.raises(DataError, match="2 faces, 3 drivings"):
        animator().animate(frame, faces, [DRIVING] * 3)


def test_unknown_ratios_are_told_when_they_are_needed() -> None:
    blind = picture_portrait(ENGINE, SOURCE, look([SOURCE], Fixed(face())))
    with pytest.raises(ConfigError, match="eyes: how far the source's"):
        animator(adjust=replace(PLAIN, eyes=True)).keypoints(blind, DRIVING)
    unknown = replace(DRIVING, ratios=DRIVING.ratios * float("nan"))
    with pytest.raises(ConfigError, match="lips: how far the driving's"):
        animator(adjust=replace(PLAIN, lips=True)).keypoints(PORTRAIT, unknown)
    animator(adjust=replace(PLAIN, lips=True, lip_ratio=0.3)).keypoints(PORTRAIT, unknown)
    torch.testing.assert_close(animator(adjust=replace(PLAIN, lip_normalise=True)).keypoints(blind, DRIVING)[:1], blind.x)


def test_what_these_networks_cant_do_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="region 'lip'"):
        animator(Rules(region="lip"))
    with pytest.raises(ConfigError, match="batch of 0"):
        animator(batch=0)
    with pytest.raises(ConfigError, match="variances"):
        animator(adjust=Adjust(variance=-1))


def test_a_clip_that_got_shorter_is_told() -> None:
    clip = clip_portrait(ENGINE, CLIP, look(CLIP, SEES))
    with pytest.raises(DataError, match="4 frames for keypoints of 5"):
        list(animator().animate(CLIP[:4], clip, DRIVING))
    with pytest.raises(DataError, match="4 frames, 5 squares"):
        clip_portrait(ENGINE, CLIP[:4], look(CLIP, SEES))


def test_one_frame_goes_with_any_number() -> None:
    assert [shared_length("a", "bcd", "ef"), shared_length("a", "b"), shared_length("abc")] == [2, 1, 3]


class Scripted:
    """Faces by frame number, as a webcam's detector finds them."""

    def __init__(self, *faces: Face | None) -> None:
        self.faces = list(faces)

    def find(self, frame: Frame) -> list[Face]:
        found = self.faces.pop(0)
        return [found] if found else []


def differ(first: Frame, second: Frame) -> int:
    """Levels by which two frames differ, at most."""
    return int(np.abs(first.astype(int) - second).max())


def stream(*faces: Face | None, adjust: Adjust = PLAIN, **options: object) -> Stream:
    return Stream(animator(adjust=adjust), PORTRAIT, SOURCE, Scripted(*faces), **options)  # type: ignore[arg-type]


def test_a_stream_gives_what_the_clip_gives() -> None:
    live = stream(*[face_68()] * 5)
    seen = look(CLIP, SEES, DRIVINGS)
    fixed = Looked(tuple(square._replace(angle=0.0) for square in seen.squares), seen.ratios)
    shots = animator().animate(SOURCE, PORTRAIT, animator().template(CLIP, fixed, 25.0))
    for frame, shot in zip(CLIP, shots, strict=True):
        assert differ(live.frame(frame), shot.pasted) <= 1


def test_a_stream_keeps_its_first_square_until_restarted() -> None:
    live = stream(face_68(80), face_68(90), face_68(90))
    live.frame(CLIP[0])
    first = live.square
    live.frame(CLIP[1])
    assert live.square == first
    live.restart()
    shown = live.frame(CLIP[2])
    assert live.square != first
    still = next(iter(animator().animate(SOURCE, PORTRAIT, DRIVING))).pasted
    assert differ(shown, still) <= 1, "motion starts anew"


def test_a_stream_waits_for_a_face_and_bridges_its_loss() -> None:
    live = stream(None, face_68(), face_68(), None, face_68())
    assert np.array_equal(live.frame(CLIP[0]), SOURCE)
    assert not live.has_face
    live.frame(CLIP[1])
    last = live.frame(CLIP[2])
    assert live.has_face
    assert live.frame(CLIP[3]) is last
    assert live.frame(CLIP[4]) is not last


def test_a_stream_looks_everywhere_after_a_while() -> None:
    live = stream(face_68(80), *[None] * PATIENCE, face_68(150), face_68(20))
    for _ in range(PATIENCE + 1):
        live.frame(CLIP[0])
    live.frame(CLIP[1])
    assert live.has_face


def test_a_stream_can_give_crops_and_smooth() -> None:
    live = stream(*[face_68()] * 4, pastes=False, variance=1.0)
    assert live.shown.shape == (64, 64, 3)
    rough = stream(*[face_68()] * 4, pastes=False)
    pairs = [(live.frame(frame), rough.frame(frame)) for frame in CLIP[:3]]
    assert differ(*pairs[0]) <= 1
    assert differ(*pairs[2]) > 1


def test_networks_made_ready_give_the_same_pictures() -> None:
    quick = ready(ENGINE.networks)
    portrait = picture_portrait(quick, SOURCE, look([SOURCE], SEES))
    driving = Animator(quick).template(CLIP, DRIVINGS_SEEN, 25.0)
    shots = Animator(quick).animate(SOURCE, portrait, driving)
    for mine, shot in zip(shots, Animator(ENGINE).animate(SOURCE, PORTRAIT, DRIVING), strict=True):
        assert differ(mine.pasted, shot.pasted) <= 1


def test_a_template_drives_as_its_clip_does() -> None:
    kept = Template(DRIVING.movement, DRIVING.ratios, 25.0)
    torch.testing.assert_close(animator().keypoints(PORTRAIT, kept), animator().keypoints(PORTRAIT, DRIVING))
