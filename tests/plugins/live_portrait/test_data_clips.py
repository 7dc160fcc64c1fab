"""Sources of real portraits: clips as videos and as folders of frames, pictures, and the files beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from mixtura.data.formats.video import VideoWriter
from mixtura.data.source import Source
from mixtura.errors import BadSample, DataError
from mixtura.rng import KeyedRng
from mixtura_live_portrait.data.clip_files import read_frame
from mixtura_live_portrait.data.cropping import motion, squares
from mixtura_live_portrait.data.draw_clips import write_clip
from mixtura_live_portrait.data.drawn.clip import DrawnClip
from mixtura_live_portrait.data.marks import Marks, read_marks, write_marks
from mixtura_live_portrait.data.pictures import PortraitImages
from mixtura_live_portrait.data.portraits import PortraitClips
from mixtura_live_portrait.faces.crop import Framing

FRAMES, SIZE = 12, 64
RNG = KeyedRng("test")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people with a clip each, as videos."""
    folder = tmp_path_factory.mktemp("drawn")
    for person in range(2):
        write_clip(DrawnClip(0, person, 0, FRAMES), folder / f"person-{person}" / "talk.mp4", FRAMES, SIZE, person)
    return folder


@pytest.fixture
def videos(drawn: Path, tmp_path: Path) -> Path:
    """The same clips, to be changed."""
    return Path(shutil.copytree(drawn, tmp_path / "videos"))


@pytest.fixture
def folders(drawn: Path, tmp_path: Path) -> Path:
    """The same clips as folders of frames."""
    for video in drawn.rglob("*.mp4"):
        folder = tmp_path / "folders" / video.parent.name
        folder.mkdir(parents=True)
        for number in range(FRAMES):
            Image.fromarray(read_frame(video, number)).save(folder / f"{number:03d}.png")
        write_marks(folder / "landmarks.npz", read_marks(video.with_suffix(".json")))
    return tmp_path / "folders"


def clips(folder: Path, **settings: Any) -> PortraitClips:
    values = {"type": "portrait_clips", "path": str(folder), "size": SIZE, "least_motion": 0, "every": 4, **settings}
    return PortraitClips(PortraitClips.Config.model_validate(values), name="clips", root=Path())


def pictures(folder: Path, **settings: Any) -> PortraitImages:
    values = {"type": "portrait_images", "path": str(folder), "size": SIZE, **settings}
    return PortraitImages(PortraitImages.Config.model_validate(values), name="pictures", root=Path())


def pair(key: str) -> list[int]:
    return [int(number) for number in key.partition("@")[2].split(",")]


def truth(person: int, frame: int) -> np.ndarray[Any, Any]:
    return DrawnClip(0, person, 0, FRAMES).frame(frame, SIZE).image.astype(int)


# Clips


@pytest.mark.parametrize("kind", ["videos", "folders"])
def test_a_pair_holds_the_frames_that_its_key_names_with_their_labels(kind: str, request: pytest.FixtureRequest):
    source = clips(request.getfixturevalue(kind))
    assert isinstance(source, Source)
    assert len(source) == 2 * FRAMES // 4
    for index in range(len(source)):
        sample = source.read(index, RNG)
        first, second = pair(sample.key)
        person = sample.fields["identity"]
        assert index * 4 % FRAMES <= first < index * 4 % FRAMES + 4
        for name, frame in (("source", first), ("driving", second)):
            assert np.abs(sample.fields[name] - truth(person, frame)).mean() < 6
        state = DrawnClip(0, person, 0, FRAMES).state(second)
        np.testing.assert_allclose(sample.fields["pose"][1], state.pose[:3], atol=1e-3)
        np.testing.assert_allclose(sample.fields["expression"][1], state.expression, atol=1e-3)


def test_reading_clips_is_pure(folders: Path):
    source = clips(folders, cross=True, mirror=True)
    one, again = (source.read(1, RNG).fields for _ in range(2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    keys = {source.read(1, KeyedRng(k)).key for k in range(8)}
    assert len(keys) > 1


def test_source_and_driving_are_as_far_apart_as_the_gap_says(folders: Path):
    source = clips(folders, gap=[3, 5])
    gaps = {abs(np.subtract(*pair(source.read(index, KeyedRng(k)).key))) for index in range(len(source)) for k in range(6)}
    assert gaps <= {3, 4, 5}
    assert len(gaps) > 1


def test_driving_frames_are_chosen_that_moved(folders: Path):
    marks = read_marks(folders / "person-0" / "landmarks.npz")
    landmarks = np.repeat(marks.landmarks[:1], FRAMES, 0)
    landmarks[6:] += 4
    write_marks(folders / "person-0" / "landmarks.npz", Marks(landmarks, is_cropped=True))
    source = clips(folders, least_motion=0.02)
    seconds = [pair(source.read(0, KeyedRng(k)).key)[1] for k in range(20)]
    assert np.mean(np.array(seconds) >= 6) > 0.9


def test_cross_gives_another_person(folders: Path):
    source = clips(folders, cross=True)
    for k in range(4):
        fields = source.read(0, KeyedRng(k)).fields
        assert min(np.abs(fields["other"] - truth(1, frame)).mean() for frame in range(FRAMES)) < 6
        assert fields["other_ratios"].shape == (3,)


def test_cross_needs_two_people(folders: Path):
    shutil.rmtree(folders / "person-1")
    with pytest.raises(DataError, match="cross: true.*only one person"):
        clips(folders, cross=True)


def test_clips_of_a_folder_can_be_one_person(videos: Path):
    for folder in videos.iterdir():
        shutil.copy(folder / "talk.mp4", folder / "more.mp4")
        marks = read_marks(folder / "talk.json")
        for name in ("talk", "more"):
            write_marks(folder / f"{name}.json", Marks(marks.landmarks))
    assert [clip.identity for clip in clips(videos, identity="folder").clips] == [0, 0, 1, 1]
    assert [clip.identity for clip in clips(videos).clips] == [0, 1, 2, 3]


def test_clips_that_stand_still_are_left_out_and_told(folders: Path):
    marks = read_marks(folders / "person-0" / "landmarks.npz")
    write_marks(folders / "person-0" / "landmarks.npz", Marks(np.repeat(marks.landmarks[:1], FRAMES, 0)))
    source = clips(folders, least_motion=0.01)
    assert [clip.path.name for clip in source.clips] == ["person-1"]
    assert "the face moves by 0.000 of its length" in source.info.extra["left_out"][0]
    shutil.rmtree(folders / "person-1")
    with pytest.raises(DataError, match="no clip can be used.*1 of 1 clips.*the face moves"):
        clips(folders, least_motion=0.01)


def test_a_video_of_one_frame_is_no_clip(tmp_path: Path):
    write_clip(DrawnClip(0, 0, 0, 2), tmp_path / "one.mp4", 1, SIZE, 0)
    with pytest.raises(DataError, match="1 frames, a pair with `gap: .1, 250.` needs more"):
        clips(tmp_path)


def test_clips_without_landmarks_are_refused_or_taken_as_they_are(videos: Path):
    (videos / "person-0" / "talk.json").unlink()
    with pytest.raises(DataError, match="talk.mp4: no landmarks beside it .talk.json or .npz.; make them with the generator"):
        clips(videos)
    fields = clips(videos, landmarks="use").read(0, RNG).fields
    assert all(np.isnan(fields[name]).all() for name in ("guide", "boxes", "ratios", "pose", "expression"))
    assert np.isnan(clips(videos, landmarks="ignore").read(5, RNG).fields["guide"]).all()


def test_frames_that_are_not_cropped_yet_are_cropped_around_the_face(folders: Path):
    for folder in folders.iterdir():
        marks = read_marks(folder / "landmarks.npz")
        write_marks(folder / "landmarks.npz", Marks(marks.landmarks))
    fields = clips(folders, scale=1.2, shift=0.0).read(0, RNG).fields
    faces = fields["boxes"][:, 0]
    assert ((faces[:, 2:] - faces[:, :2]).max(1) > 1.4).all()
    assert np.abs(faces.mean(0)).max() < 1.3
    assert np.isfinite(fields["guide"]).all()


def test_a_fixed_square_stands_still_and_a_smooth_one_follows():
    landmarks = np.stack([DrawnClip(0, 0, 0, 60).frame(frame, SIZE).landmarks + frame for frame in range(0, 60, 3)])
    fixed, smooth = (squares(landmarks, Framing(2.0), how) for how in ("fixed", "smooth"))
    assert len(set(fixed)) == 1
    assert smooth[-1].x > smooth[0].x + 5
    assert all(one.angle == 0 for one in smooth)


def test_motion_is_measured_in_lengths_of_the_face():
    points = DrawnClip(0, 0, 0, 60).frame(0, SIZE).landmarks
    length = np.ptp(points, axis=0).max()
    shifted = np.stack([points, points + np.array([0.2 * length, 0])])
    assert motion(shifted) == pytest.approx(0.1, rel=1e-3)
    assert motion(5 * shifted) == pytest.approx(0.1, rel=1e-3)


def test_a_mirrored_sample_is_mirrored_in_everything(folders: Path):
    source = clips(folders)
    plain, mirror = source.frame(0, 3), source.frame(0, 3, is_mirrored=True)
    np.testing.assert_array_equal(mirror.image, plain.image[:, ::-1])
    np.testing.assert_allclose(mirror.pose, plain.pose * [1, -1, -1])


def test_the_fingerprint_of_clips_changes_with_files_and_settings(videos: Path):
    before = clips(videos).info.fingerprint
    assert clips(videos, size=32).info.fingerprint != before
    shutil.rmtree(videos / "person-1")
    assert clips(videos).info.fingerprint != before


# What is broken


def test_a_frame_that_cannot_be_decoded_is_a_bad_sample(folders: Path):
    for path in (folders / "person-0").glob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(BadSample, match="not a picture"):
        clips(folders).read(0, RNG)


def test_a_video_cut_off_is_a_bad_sample(videos: Path):
    path = videos / "person-0" / "talk.mp4"
    source = clips(videos)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadSample, match="talk.mp4"):
        source.read(0, RNG)


def test_landmarks_must_be_of_every_frame(folders: Path):
    (folders / "person-0" / "000.png").unlink()
    with pytest.raises(DataError, match="landmarks of 12 frames, the folder has 11 pictures"):
        clips(folders)


def test_a_video_with_fewer_frames_than_landmarks_is_a_bad_sample(videos: Path):
    video = videos / "person-0" / "talk.mp4"
    with VideoWriter(video, 25, (SIZE, SIZE)) as writer:
        for _ in range(4):
            writer.append(np.zeros((SIZE, SIZE, 3), np.uint8))
    with pytest.raises(BadSample, match="the video ends before it"):
        clips(videos, every=1).read(FRAMES - 1, RNG)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "got a list"),
        ('{"points": []}', "holds no `landmarks`, but points"),
        ('{"landmarks": [[[1, 2], [3]]]}', "aren't a regular list"),
        ('{"landmarks": []}', "are empty"),
        ('{"landmarks": [[[1, 2]]]}', "L one of"),
        ('{"landmarks": [[[NaN, 2]]]}', "NaN"),
    ],
)
def test_broken_landmarks_are_told_with_their_file(videos: Path, text: str, told: str):
    (videos / "person-0" / "talk.json").write_text(text)
    with pytest.raises(DataError, match=rf"talk\.json: .*{told}"):
        clips(videos)


def test_labels_must_fit_the_frames(videos: Path):
    file = videos / "person-0" / "talk.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "pose": content["pose"][:3]}))
    with pytest.raises(DataError, match=r"pose of shape .3, 3., expected .12, 3."):
        clips(videos)
    file.write_text(json.dumps({**content, "identity": "Ann"}))
    with pytest.raises(DataError, match="identity 'Ann' must be a whole number"):
        clips(videos)


def test_pickles_are_not_read(folders: Path):
    np.savez(folders / "person-0" / "landmarks.npz", landmarks=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="not an npz file of plain numbers"):
        clips(folders)


def test_empty_folders_and_impossible_gaps_are_told(tmp_path: Path):
    with pytest.raises(DataError, match="no clip below it"):
        clips(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        clips(tmp_path / "nothing")
    with pytest.raises(ValidationError, match="1 <= least <= most"):
        clips(tmp_path, gap=[5, 2])


# Files beside clips


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_marks_are_read_as_they_were_written(tmp_path: Path, ending: str):
    draw = RNG.numpy()
    marks = Marks(draw.random((3, 68, 2), np.float32), draw.random((3, 3), np.float32), None, 7, True)
    write_marks(tmp_path / f"a{ending}", marks)
    again = read_marks(tmp_path / f"a{ending}")
    np.testing.assert_allclose(again.landmarks, marks.landmarks, atol=6e-4)
    np.testing.assert_allclose(again.pose, marks.pose, atol=6e-4)
    assert (again.expression, again.identity, again.is_cropped) == (None, 7, True)


# Pictures


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    """Two pictures, the first with landmarks."""
    folder = tmp_path / "stills"
    folder.mkdir()
    for person in range(2):
        one = DrawnClip(0, person, 0, FRAMES, "painted").frame(0, 80)
        Image.fromarray(one.image).save(folder / f"{person}.png")
        if person == 0:
            write_marks(folder / "0.json", Marks(one.landmarks[None]))
    return folder


def test_a_picture_is_a_clip_of_one_frame(stills: Path):
    source = pictures(stills)
    assert isinstance(source, Source)
    fields = source.read(0, RNG).fields
    np.testing.assert_array_equal(fields["source"], fields["driving"])
    assert not np.array_equal(fields["driving"], fields["driving_seen"])
    assert fields["is_video"] is False
    assert np.isfinite(fields["guide"]).all()
    assert np.isnan(fields["pose"]).all()
    again = source.read(0, RNG).fields
    assert all(np.array_equal(fields[name], again[name], equal_nan=name not in ("is_video",)) for name in fields)


def test_a_picture_without_landmarks_is_taken_from_its_middle(stills: Path):
    fields = pictures(stills).read(1, RNG).fields
    assert fields["source"].shape == (SIZE, SIZE, 3)
    assert np.isnan(fields["guide"]).all()
    with pytest.raises(DataError, match="1.png: no landmarks beside it"):
        pictures(stills, landmarks="require")


def test_reframing_moves_the_driving_frame_and_its_landmarks(stills: Path):
    fields = pictures(stills, reframe=1.0).read(0, RNG).fields
    assert not np.array_equal(fields["source"], fields["driving"])
    assert np.abs(fields["guide"][0] - fields["guide"][1]).max() > 0.02
    np.testing.assert_allclose(fields["ratios"][0], fields["ratios"][1], atol=1e-3)


def test_pictures_of_every_kind_are_read_and_damaged_ones_are_bad_samples(stills: Path):
    deep = np.linspace(0, 65535, 80 * 80).reshape(80, 80).astype(np.uint16)
    Image.fromarray(deep).save(stills / "2.png")
    Image.open(stills / "1.png").convert("P").save(stills / "3.png")
    (stills / "4.png").write_bytes(b"no picture")
    source = pictures(stills)
    means = [source.read(index, RNG).fields["source"].mean() for index in (1, 2, 3)]
    assert means[1] == pytest.approx(127, abs=3)
    assert means[2] == pytest.approx(means[0], abs=10)
    with pytest.raises(BadSample, match="4.png: not a picture"):
        source.read(4, RNG)


def test_landmarks_of_a_clip_are_no_landmarks_of_a_picture(stills: Path):
    marks = read_marks(stills / "0.json")
    write_marks(stills / "0.json", Marks(np.repeat(marks.landmarks, 2, 0)))
    with pytest.raises(BadSample, match="landmarks of 2 frames for one picture"):
        pictures(stills).read(0, RNG)
