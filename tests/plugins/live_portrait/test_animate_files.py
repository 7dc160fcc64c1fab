"""`mixtura infer`: files in, files out, with tiny networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mixtura.errors import ConfigError, DataError, MixturaError
from mixtura_live_portrait.animate.files import infer_files
from mixtura_live_portrait.animate.inputs import plan
from mixtura_live_portrait.animate.settings import Settings
from mixtura_live_portrait.animate.templates import fingerprint, load
from mixtura_live_portrait.faces.crop import DRIVING, SOURCE, Frame
from mixtura_live_portrait.faces.given import write_landmarks
from tests.plugins.live_portrait.animate_tools import SMALL, TinyEngine, face, face_68, picture, write_clip

SYSTEM: Any = TinyEngine().networks
CLIP = [picture(seed) for seed in range(1, 5)]
Run = Callable[..., dict[str, Path]]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def run(tmp_path: Path, said: list[str]) -> Run:
    """Runs `infer_files` with landmarks by hand, unless told otherwise; gives the files by name."""
    marks = tmp_path / "marks.json"
    write_landmarks(marks, [face_68()])

    def infer(*inputs: Path, by_hand: bool = True, **settings: Any) -> dict[str, Path]:
        hand = {"source_landmarks": marks, "driving_landmarks": marks} if by_hand else {}
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        written = infer_files(SYSTEM, inputs, out, hand | settings, said.append)
        assert sorted(written) == sorted(out.iterdir()), "all files are told, and no others are left"
        return {path.name: path for path in written}

    return infer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    Image.fromarray(picture(0)).save(tmp_path / "me.png")
    return tmp_path / "me.png"


@pytest.fixture
def driving(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "wave.mp4", CLIP, 12)


def two_faces(*frames: Frame) -> list[Frame]:
    return [np.concatenate([frame, frame[:, ::-1]], 1) for frame in frames]


def couple(**settings: Any) -> Any:
    """A plug-in detector: two faces, side by side; none in the dark."""

    class Couple:
        def find(self, frame: Frame) -> list[Any]:
            width = frame.shape[1]
            return [face_68(width * 0.25, size=25), face_68(width * 0.75, size=30)] if frame.mean() > 20 else []

    return Couple()


COUPLE = f"{__name__}:couple"


def frames_of(path: Path) -> tuple[int, Fraction, tuple[int, int]]:
    """Number of frames, rate, size."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        return len(list(container.decode(stream))), stream.average_rate, (stream.height, stream.width)


def test_a_picture_and_a_clip_make_a_clip(run: Run, source: Path, driving: Path, said: list[str]) -> None:
    files = run(source, driving)
    assert set(files) == {
        "animated.mp4", "comparison.mp4", "template.safetensors", "faces_source.png", "faces_driving.png", "info.json",
    }  # fmt: skip
    assert frames_of(files["animated.mp4"]) == (4, 12, (160, 200))
    assert frames_of(files["comparison.mp4"]) == (4, 12, (64, 192))
    info = json.loads(files["info.json"].read_text())
    assert (info["frames"], info["faces"], info["fps"]) == (4, 1, 12)
    assert set(info["seconds"]) == {"networks", "source", "driving", "keypoints", "painting"}
    assert any("4 frames" in line for line in said)


def test_a_template_drives_as_its_clip_did(run: Run, source: Path, driving: Path, tmp_path: Path) -> None:
    first = run(source, driving)
    before = first["animated.mp4"].read_bytes()
    template = first["template.safetensors"].rename(tmp_path / "wave.safetensors")
    assert load(template, SMALL.keypoints, fingerprint(SYSTEM.motion)).fps == 12
    again = run(source, template)
    assert "template.safetensors" not in again
    assert again["animated.mp4"].read_bytes() == before
    assert frames_of(again["comparison.mp4"])[2] == (64, 128), "nothing of the driving can be shown"


def test_sides_are_framed_as_published_and_templates_cut(run: Run, source: Path, driving: Path) -> None:
    planned = plan([source, driving], Settings(detector=COUPLE), SMALL.keypoints)
    assert (planned.source_how.framing, planned.driving_how.framing) == (SOURCE, DRIVING)
    template = run(source, driving)["template.safetensors"]
    planned = plan([source, template], Settings(detector=COUPLE, max_frames=3, fps=24), SMALL.keypoints)
    assert planned.drivings[0].template is not None
    assert (len(planned.drivings[0].template), planned.fps) == (3, 24)


def test_a_driving_picture_makes_a_picture(run: Run, source: Path, tmp_path: Path) -> None:
    Image.fromarray(CLIP[0]).save(tmp_path / "smile.png")
    files = run(source, tmp_path / "smile.png")
    assert np.array(Image.open(files["animated.png"])).shape == (160, 200, 3)
    assert np.array(Image.open(files["comparison.png"])).shape == (64, 192, 3)


def test_a_clip_of_one_frame_is_a_picture(run: Run, source: Path, tmp_path: Path) -> None:
    single = write_clip(tmp_path / "one.mp4", CLIP[:1])
    assert "animated.png" in run(source, single)


def test_a_source_clip_of_one_frame_is_a_picture(run: Run, driving: Path, tmp_path: Path) -> None:
    single = write_clip(tmp_path / "one.mp4", CLIP[:1])
    assert frames_of(run(single, driving)["animated.mp4"])[0] == 4


def test_a_source_clip_keeps_its_frames(run: Run, driving: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "me.mp4", [picture(seed) for seed in range(6)], 12)
    assert frames_of(run(clip, driving, region="exp")["animated.mp4"])[0] == 4


def test_a_source_clip_may_follow_a_picture(run: Run, source: Path, driving: Path) -> None:
    assert frames_of(run(driving, source)["animated.mp4"]) == (4, 12, (160, 200))


def test_the_rate_can_be_set_and_frames_bounded(run: Run, source: Path, driving: Path) -> None:
    assert frames_of(run(source, driving, fps=24)["animated.mp4"])[:2] == (8, 24)
    assert frames_of(run(source, driving, max_frames=2, comparison=False)["animated.mp4"])[0] == 2


def test_the_crop_alone_can_be_had(run: Run, source: Path, driving: Path) -> None:
    files = run(source, driving, paste=False, comparison=False)
    assert frames_of(files["animated.mp4"])[2] == (64, 64)
    assert "comparison.mp4" not in files


def test_irregular_times_are_kept(run: Run, source: Path, tmp_path: Path) -> None:
    """Four frames at 0, 0.1, 0.5 and 0.6 s are shown when they were."""
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 160, 200, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, frame in zip((0, 100, 500, 600), CLIP, strict=True):
            shown = av.VideoFrame.from_ndarray(frame, format="rgb24")
            shown.pts, shown.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    assert frames_of(run(source, path, fps=10)["animated.mp4"])[:2] == (7, 10)


@pytest.mark.parametrize("mode", ["P", "I;16", "LA"])
def test_pictures_of_every_kind_are_sources(run: Run, driving: Path, tmp_path: Path, mode: str) -> None:
    shown = Image.fromarray(picture(0))
    if mode == "I;16":
        shown = Image.fromarray((np.array(shown.convert("L")).astype(np.uint16) << 8) + 7)
    else:
        shown = shown.convert("L").convert(mode) if mode == "LA" else shown.convert(mode)
    shown.save(tmp_path / "odd.png")
    assert frames_of(run(tmp_path / "odd.png", driving)["animated.mp4"])[0] == 4


def test_sliders_edit_a_picture(run: Run, source: Path) -> None:
    files = run(source, edit={"yaw": 20, "eye_ratio": 0.5})
    changed = np.array(Image.open(files["animated.png"]))
    assert (changed != picture(0)).any()
    assert set(files) == {"animated.png", "comparison.png", "faces_source.png", "info.json"}


def test_one_of_several_faces_is_chosen(run: Run, tmp_path: Path, driving: Path) -> None:
    (both,) = two_faces(picture(0))
    Image.fromarray(both).save(tmp_path / "us.png")
    edited = {}
    for name, settings in (("left", {"order": "left-right"}), ("large", {}), ("all", {"all_faces": True})):
        files = run(tmp_path / "us.png", by_hand=False, detector=COUPLE, edit={"yaw": 30}, comparison=False, **settings)
        edited[name] = (np.array(Image.open(files["animated.png"])) != both).any((0, 2))
    assert edited["left"][:200].any()
    assert not edited["left"][200:].any()
    assert edited["large"][200:].any()
    assert not edited["large"][:200].any()
    assert edited["all"][:200].any()
    assert edited["all"][200:].any()


def test_each_face_may_have_its_own_driving(run: Run, tmp_path: Path, driving: Path) -> None:
    (both,) = two_faces(picture(0))
    Image.fromarray(both).save(tmp_path / "us.png")
    Image.fromarray(CLIP[2]).save(tmp_path / "smile.png")
    files = run(tmp_path / "us.png", driving, tmp_path / "smile.png", by_hand=False, detector=COUPLE)
    assert frames_of(files["comparison.mp4"]) == (4, 12, (128, 192))
    assert {"template_1.safetensors", "template_2.safetensors", "faces_driving_1.png", "faces_driving_2.png"} <= set(files)
    with pytest.raises(DataError, match="3 from number 0 on were asked for, but there are 2 faces"):
        run(tmp_path / "us.png", driving, driving, driving, by_hand=False, detector=COUPLE)


def with_sound(path: Path, codec: str = "aac", seconds: float = 1.0) -> Path:
    """The file with a tone of so many seconds."""
    out = path.with_name(f"loud-{path.name}").with_suffix(".mkv" if codec == "wavpack" else path.suffix)
    rate = 48000
    with av.open(str(path)) as pictures, av.open(str(out), "w") as container:
        shown = container.add_stream_from_template(pictures.streams.video[0])
        heard = container.add_stream(codec, rate=rate)
        for packet in pictures.demux(pictures.streams.video[0]):
            if packet.dts is not None:
                packet.stream = shown
                container.mux(packet)
        tone = np.sin(np.arange(round(seconds * rate)) / 20).astype(np.float32)
        for start in range(0, len(tone), 960):
            sound = av.AudioFrame.from_ndarray(np.stack([tone[start : start + 960]] * 2), format="fltp", layout="stereo")
            sound.sample_rate, sound.pts = rate, start
            container.mux(heard.encode(sound))
        container.mux(heard.encode(None))
    return out


def seconds_of_sound(path: Path) -> float:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return 0.0
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def test_the_drivings_sound_comes_along_as_long_as_its_pictures(run: Run, source: Path, driving: Path) -> None:
    loud = with_sound(driving)
    files = run(source, loud)
    assert frames_of(files["animated.mp4"]) == (4, 12, (160, 200))
    assert seconds_of_sound(files["animated.mp4"]) == pytest.approx(4 / 12, abs=0.05)
    assert seconds_of_sound(run(source, loud, sound="none")["animated.mp4"]) == 0


def test_the_sources_sound_is_taken_when_the_driving_has_none(run: Run, source: Path, driving: Path) -> None:
    loud = with_sound(driving)
    assert seconds_of_sound(run(loud, driving)["animated.mp4"]) > 0.2
    assert seconds_of_sound(run(loud, driving, sound="driving")["animated.mp4"]) == 0


def test_sound_that_mp4_cant_hold_is_told(run: Run, source: Path, driving: Path, said: list[str]) -> None:
    files = run(source, with_sound(driving, "wavpack"))
    assert frames_of(files["animated.mp4"])[0] == 4
    assert seconds_of_sound(files["animated.mp4"]) == 0
    assert any("no sound" in line and "convert it to AAC" in line for line in said)


# -- what can't be done ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"regoin": "all"}, "regoin.*region"),
        ({"region": "nose"}, "region"),
        ({"region": "lip"}, "lip_keypoints"),
        ({"eye_ratio": 2}, "eye_ratio"),
        ({"lip_keypoints": [99]}, "0 to 9"),
        ({"edit": {"yaw": 10}}, "leave out one of the two"),
        ({"all_faces": True}, "all_faces"),
        ({"source_landmarks": "none.json"}, "none.json: no such file"),
        ({"models": "nowhere"}, "nowhere"),
        ({"detector": "hat"}, "'hat'"),
        ({"device": "toaster"}, "toaster"),
        ({"device": "cpu", "cuda_graphs": True}, "only NVIDIA GPUs"),
    ],
)
def test_settings_are_checked_before_any_work(
    run: Run, source: Path, driving: Path, tmp_path: Path, settings: dict[str, Any], text: str
) -> None:
    by_hand = not {"models", "detector"} & set(settings)
    with pytest.raises(MixturaError, match=text):
        run(source, driving, by_hand=by_hand, **settings)
    assert not list(tmp_path.glob("out*"))


def test_inputs_are_checked_before_any_work(run: Run, source: Path, driving: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no video")
    (tmp_path / "motion.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    cases: list[tuple[tuple[Path, ...], str]] = [
        ((), "no input"),
        ((source,), "nothing drives it"),
        ((driving,), "nothing drives it"),
        ((source, tmp_path / "none.mp4"), "none.mp4: no such file"),
        ((source, tmp_path / "notes.mp4"), "notes.mp4: not a video"),
        ((source, tmp_path / "motion.pkl"), "pickles, which can run programs.*--unsafe"),
        ((source, driving, driving), "landmarks by hand"),
    ]
    for inputs, said in cases:
        with pytest.raises(DataError if len(inputs) < 3 else ConfigError, match=said):
            run(*inputs)
    assert not list(tmp_path.glob("out*"))


def test_templates_that_dont_fit_are_told(run: Run, source: Path, driving: Path, tmp_path: Path) -> None:
    template = run(source, driving)["template.safetensors"].rename(tmp_path / "wave.safetensors")
    with pytest.raises(DataError, match="a motion template has no face"):
        run(template, driving)
    other: Any = TinyEngine(seed=5).networks
    with pytest.raises(DataError, match="another motion network"):
        infer_files(other, [source, template], tmp_path / "other", {}, print)
    content = template.read_bytes()
    template.write_bytes(content[:-100])
    with pytest.raises(DataError, match="not a whole safetensors file"):
        run(source, template)


def test_no_face_is_told_with_its_frame_and_file(run: Run, source: Path, driving: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((160, 200, 3), np.uint8)).save(tmp_path / "dark.png")
    with pytest.raises(DataError, match=r"no face found in frame 0 of .*dark.png; pass landmarks or a crop"):
        run(tmp_path / "dark.png", driving, by_hand=False, detector=COUPLE)
    dark = write_clip(tmp_path / "dark.mp4", [CLIP[0], CLIP[1], np.zeros_like(CLIP[0]), CLIP[2]])
    with pytest.raises(DataError, match=r"no face found in frame 2 of .*dark.mp4"):
        run(source, dark, by_hand=False, detector=COUPLE)


def test_landmarks_without_lips_are_told(run: Run, source: Path, driving: Path, tmp_path: Path, said: list[str]) -> None:
    write_landmarks(tmp_path / "five.json", [face()])
    run(source, driving, source_landmarks=tmp_path / "five.json")
    assert any("lips aren't normalised" in line for line in said)
    with pytest.raises(ConfigError, match="lips: how far the source's"):
        run(source, driving, source_landmarks=tmp_path / "five.json", lips=True)
    with pytest.raises(ConfigError, match="lips: how far the driving's"):
        run(source, driving, driving_landmarks=tmp_path / "five.json", lips=True)
    run(source, driving, driving_landmarks=tmp_path / "five.json", lip_ratio=0.2)


def test_a_failed_run_leaves_no_half_clip(run: Run, source: Path, driving: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("mixtura_live_portrait.animate.files.beside", lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(source, driving)
    assert not list(tmp_path.glob("out*/*.mp4"))


def test_all_settings_but_sliders_are_plain_and_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
    schema = Settings.model_json_schema()["properties"]
    nested = [name for name, entry in schema.items() if "$ref" in entry or "$ref" in str(entry.get("allOf", ""))]
    assert nested == ["edit"]
    assert Settings() == Settings.model_validate({}), "all have defaults"


def test_ratios_are_those_of_the_driving_unless_given() -> None:
    chosen = Settings(eye_ratio=0.3, smoothing="off")
    assert chosen.adjust().eyes
    assert not chosen.adjust().lips
    assert chosen.adjust().smooth is False
