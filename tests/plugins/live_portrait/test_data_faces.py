"""The source of drawn faces: its samples, its people, its settings; and other colours."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mixtura.data.source import Source
from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.augment import jittered
from mixtura_live_portrait.data.drawn.clip import DrawnClip
from mixtura_live_portrait.data.procedural import Faces
from mixtura_live_portrait.data.sample import Frame

RNG = KeyedRng("test")
SHAPES = {"guide": (2, 12, 2), "boxes": (2, 3, 4), "ratios": (2, 3), "pose": (2, 3), "expression": (2, 10)}


def faces(**settings: Any) -> Faces:
    values = {"type": "faces", "identities": 4, "clips": 2, "size": 32, **settings}
    return Faces(Faces.Config.model_validate(values), name="faces", root=Path())


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_a_sample_has_all_that_training_wants_to_know():
    fields = faces().read(3, RNG).fields
    for name in ("source", "driving", "driving_seen"):
        assert fields[name].dtype == np.uint8
        assert fields[name].shape == (32, 32, 3)
    for name, shape in SHAPES.items():
        assert fields[name].dtype == np.float32
        assert fields[name].shape == shape
        assert np.isfinite(fields[name]).all()
    assert fields["is_video"] is True
    assert fields["identity"] == 1
    assert "other" not in fields


def test_the_source_keeps_its_contract():
    source = faces()
    assert isinstance(source, Source)
    assert len(source) == source.info.size == 8
    assert same(pickle.loads(pickle.dumps(source)).read(1, RNG).fields, source.read(1, RNG).fields)


def test_reading_is_pure():
    source = faces(cross=True)
    first = source.read(2, RNG).fields
    source.read(5, KeyedRng("between"))
    assert same(first, source.read(2, RNG).fields)
    assert not np.array_equal(first["driving"], source.read(2, KeyedRng("else")).fields["driving"])


def test_labels_are_those_of_the_frames():
    source = faces(frames=2)
    fields = source.read(0, RNG).fields
    stretch = source.stretch(0, [0, 1])
    order = [0, 1] if np.array_equal(fields["source"], stretch.images[0]) else [1, 0]
    np.testing.assert_array_equal(fields["driving"], stretch.images[order[1]])
    np.testing.assert_array_equal(fields["pose"], stretch.pose[order])
    np.testing.assert_array_equal(fields["expression"], stretch.expression[order])
    np.testing.assert_allclose(fields["guide"][0, 0], stretch.landmarks[order[0], 0] / 16 - 1, atol=1e-5)


def test_a_still_is_a_clip_of_one_frame_in_other_colours():
    fields = faces(still=True).read(3, RNG).fields
    np.testing.assert_array_equal(fields["source"], fields["driving"])
    assert not np.array_equal(fields["driving"], fields["driving_seen"])
    assert fields["is_video"] is False
    for name in SHAPES:
        np.testing.assert_array_equal(fields[name][0], fields[name][1])
    assert same(fields, faces(still=True).read(3, RNG).fields)


def test_without_jitter_the_driving_frame_is_seen_as_it_is():
    fields = faces(jitter=0).read(0, RNG).fields
    np.testing.assert_array_equal(fields["driving"], fields["driving_seen"])


def test_jitter_leaves_everything_but_what_is_seen():
    plain, strong = (faces(jitter=strength).read(0, RNG).fields for strength in (0, 2))
    changed = {name for name in plain if not np.array_equal(plain[name], strong[name])}
    assert changed == {"driving_seen"}


def test_cross_gives_a_frame_of_somebody_else():
    read: list[int] = []

    class Noted(Faces):
        def clip(self, index: int) -> DrawnClip:
            read.append(self.identity(index))
            return super().clip(index)

    source = Noted(Faces.Config(type="faces", identities=3, clips=2, size=32, cross=True), name="faces", root=Path())
    for index in range(len(source)):
        for draw in range(4):
            read.clear()
            fields = source.read(index, RNG.at(index, draw)).fields
            assert fields["other"].shape == (32, 32, 3)
            assert fields["other_ratios"].shape == (3,)
            assert read[0] == read[1] == index // 2 != read[2]


def test_frames_lie_apart_by_the_spacing() -> None:
    source = faces(frames=9, spacing=4, identities=1, clips=1)
    few = [source.stretch(0, [frame]).images[0] for frame in (0, 4, 8)]
    for number in range(6):
        fields = source.read(0, RNG.at(number)).fields
        assert any(np.array_equal(fields["source"], one) for one in few)
        assert any(np.array_equal(fields["driving"], one) for one in few)


def test_kept_frames_are_those_that_would_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, keeping = faces(spacing=30, cross=True), faces(spacing=30, cross=True, keep=10)
    assert plain.info.fingerprint == keeping.info.fingerprint
    drawn: list[int] = []
    monkeypatch.setattr(Faces, "clip", lambda self, index, clip=Faces.clip: drawn.append(index) or clip(self, index))
    for _ in range(3):
        for index in range(2):
            assert same(plain.read(index, RNG.at(index)).fields, keeping.read(index, RNG.at(index)).fields)
    assert len(drawn) == 3 * 6 + 6
    assert len(keeping.kept) <= 10


def test_exercised_frames_open_eyes_and_lips_as_their_labels_say() -> None:
    calm, wild = faces(identities=1, frames=60), faces(identities=1, frames=60, exercise=0.5)
    same_frames = 0
    ratios = []
    for frame in range(0, 60, 3):
        one, other = calm.frame(0, frame), wild.frame(0, frame)
        same_frames += np.array_equal(one.image, other.image)
        ratios.append(other.ratios)
        assert other.ratios[0] == pytest.approx(other.expression[0], abs=0.1)
        np.testing.assert_array_equal(one.pose, other.pose)
    assert 4 <= same_frames <= 16
    assert np.std(ratios, 0).min() > 0.05


def test_winks_drive_a_frame_by_itself_with_other_eyes_and_lips() -> None:
    winking, usual = faces(winks=1), faces()
    for number in range(4):
        fields, plain = winking.read(0, RNG.at(number)).fields, usual.read(0, RNG.at(number)).fields
        np.testing.assert_array_equal(fields["source"], plain["source"])
        np.testing.assert_array_equal(fields["pose"][0], fields["pose"][1])
        off = (fields["source"] != fields["driving"]).any(-1)
        assert 0 < off.mean() < 0.3
        assert abs(fields["expression"][1] - fields["expression"][0]).max() > 0.05
        assert fields["is_video"]
    half = faces(winks=0.5)
    winks = [np.ptp(half.read(0, RNG.at(number)).fields["pose"], 0).max() == 0 for number in range(20)]
    assert 4 <= sum(winks) <= 16
    with pytest.raises(ValidationError, match="winks: a still has one picture alone"):
        faces(winks=0.5, still=True)


def test_held_out_people_are_others():
    train, heldout = faces(identities=4), faces(identities=3, first_identity=4)
    people = [{source.identity(index) for index in range(len(source))} for source in (train, heldout)]
    assert people == [{0, 1, 2, 3}, {4, 5, 6}]
    whole = faces(identities=7)
    assert same(heldout.read(0, RNG).fields, whole.read(8, RNG).fields)


def test_somebody_can_do_what_another_clip_does():
    source = faces(clips=1)
    mine, theirs, copied = source.stretch(0, [7]), source.stretch(1, [7]), source.stretch(0, [7], doing=1)
    np.testing.assert_array_equal(copied.expression, theirs.expression)
    np.testing.assert_array_equal(copied.pose, theirs.pose)
    assert not np.array_equal(copied.images, theirs.images)
    assert not np.array_equal(copied.images, mine.images)


@pytest.mark.parametrize("change", [{"seed": 1}, {"style": "painted"}, {"still": True}, {"first_identity": 9}, {"jitter": 0.5}])
def test_the_fingerprint_changes_with_the_content(change: dict[str, Any]):
    assert faces(**change).info.fingerprint != faces().info.fingerprint
    assert faces(**change).info.fingerprint == faces(**change).info.fingerprint


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValidationError, match="at most 8"):
        faces(frames=9, spacing=9)
    with pytest.raises(ValidationError, match="identities must be at least 2"):
        faces(cross=True, identities=1)
    with pytest.raises(ValidationError, match="style"):
        faces(style="sculpted")
    with pytest.raises(IndexError, match="no sample 8, it has 8"):
        faces().read(8, RNG)


# Mirrors and colours


def test_a_mirror_exchanges_left_and_right_in_all_that_is_known():
    drawn = DrawnClip(0, 1, 0, 50)
    state = drawn.state(5)
    doing = state.expression._replace(eye_left=0.6, eye_right=0.1, gaze_x=0.4)
    state = state._replace(expression=doing)
    picture = drawn.doing(state, 64)
    frame = Frame.of(picture.image, picture.landmarks, np.array(state.pose[:3], np.float32), doing.vector())
    mirror = frame.mirrored()
    np.testing.assert_array_equal(mirror.image, frame.image[:, ::-1])
    np.testing.assert_allclose(mirror.guide[0], frame.guide[5] * [-1, 1])
    np.testing.assert_allclose(mirror.guide[2], frame.guide[6] * [-1, 1])
    assert (mirror.guide[0, 0] < mirror.guide[1, 0]) == (frame.guide[0, 0] < frame.guide[1, 0])
    assert (mirror.boxes[:, 0] < mirror.boxes[:, 2]).all()
    assert mirror.ratios[0] == frame.ratios[1]
    np.testing.assert_allclose(mirror.pose, frame.pose * [1, -1, -1])
    assert mirror.expression[:3].tolist() == pytest.approx([0.1, 0.6, -0.4])
    for name in ("image", "guide", "boxes", "ratios", "pose", "expression"):
        np.testing.assert_array_equal(getattr(mirror.mirrored(), name), getattr(frame, name))


def test_a_frame_without_landmarks_knows_nothing():
    frame = Frame.of(np.zeros((8, 8, 3), np.uint8), None)
    assert all(np.isnan(getattr(frame, name)).all() for name in SHAPES)


def test_other_colours_keep_the_picture_recognisable():
    image = DrawnClip(0, 0, 0, 50).frame(0, 64).image
    greys = [np.corrcoef(image.mean(-1).ravel(), jittered(image, 1.0, RNG.at(k).numpy()).mean(-1).ravel()) for k in range(20)]
    assert min(grey[0, 1] for grey in greys) > 0.8
    assert np.mean([np.abs(jittered(image, 1.0, RNG.at(k).numpy()).astype(int) - image).mean() for k in range(20)]) > 15


def test_other_colours_of_a_grey_picture_keep_its_brightness_about():
    image = np.full((16, 16, 3), 128, np.uint8)
    means = [jittered(image, 1.0, RNG.at(k).numpy()).mean() for k in range(50)]
    assert np.mean(means) == pytest.approx(128, abs=15)
