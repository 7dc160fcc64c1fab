"""The official landmark models, by small files of the same names, inputs and outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from mixtura.errors import DataError, MixturaError
from mixtura_live_portrait.faces import bundle, onnx
from mixtura_live_portrait.faces.crop import LANDMARKS, Square, moved, square
from mixtura_live_portrait.faces.detector import Face, make
from tests.plugins.live_portrait import tiny_onnx

RNG = np.random.default_rng(2)
WHITE = np.full((256, 512, 3), 255, np.uint8)
"""Twice as wide as high: the detector sees it in the upper half of its square."""
BOX = np.array([100, 60, 300, 200], np.float32)
P106 = RNG.uniform(-0.6, 0.6, (106, 2)).astype(np.float32)
P203 = RNG.uniform(0.2, 0.8, (203, 2)).astype(np.float32)


def candidate(outputs: list[np.ndarray], level: int, column: int, row: int, box: np.ndarray, score: float) -> None:
    """Puts a box with its score at the first anchor of one place."""
    stride = onnx.STRIDES[level]
    index, place = (row * (onnx.BOX_SIDE // stride) + column) * 2, np.array([column, row]) * stride
    outputs[level][index] = score
    outputs[level + 3][index] = np.concatenate([place - box[:2], box[2:] - place]) / stride


def boxes() -> list[np.ndarray]:
    counts = [2 * (onnx.BOX_SIDE // stride) ** 2 for stride in onnx.STRIDES]
    outputs = [np.zeros((count, width), np.float32) for width in (1, 4, 10) for count in counts]
    candidate(outputs, 1, 12, 8, BOX, 0.9)
    candidate(outputs, 0, 25, 16, BOX + 4, 0.8)  # the same face again
    candidate(outputs, 2, 13, 3, np.array([390, 60, 470, 150]), 0.7)
    candidate(outputs, 0, 1, 1, np.array([0, 0, 40, 40]), 0.3)
    return outputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    white = (255 - 127.5) / 128
    tiny_onnx.write(tmp_path / "insightface/det_10g.onnx", "input.1", onnx.BOX_SIDE, [values / white for values in boxes()])
    tiny_onnx.write(tmp_path / "insightface/2d106det.onnx", "data", onnx.POINTS_SIDE, [P106.reshape(1, -1) / 255])
    filler = [np.zeros((1, 214), np.float32), np.zeros((1, 262), np.float32)]
    tiny_onnx.write(
        tmp_path / "liveportrait/landmark.onnx", "input", onnx.LANDMARK_SIDE, [*filler, P203.reshape(1, -1), filler[0]]
    )
    return tmp_path


def expected(box: np.ndarray) -> np.ndarray:
    """What the three files together say of a box."""
    centre, side = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max() * 1.5
    points = moved(
        P106, Square(float(centre[0]), float(centre[1]), float(side)).to_frame(2) @ np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]])
    )
    return moved(P203, square(points, LANDMARKS).to_frame(1))


def test_boxes_106_and_203_points_lead_to_landmarks_in_the_frame(folder: Path) -> None:
    faces = make(folder=folder).find(WHITE)
    assert [face.score for face in faces] == pytest.approx([0.9, 0.7], rel=1e-4)
    assert faces[0].layout == "liveportrait-203"
    np.testing.assert_allclose(faces[0].landmarks, expected(BOX), atol=0.05)


def test_a_followed_face_is_looked_for_where_it_was(folder: Path) -> None:
    detector = onnx.make(folder)
    first = detector.find(WHITE)[0]
    second = detector.follow(WHITE, first)
    assert second is not None
    np.testing.assert_allclose(second.landmarks, moved(P203, square(first.landmarks, LANDMARKS).to_frame(1)), atol=0.05)


def test_a_face_that_shrinks_or_jumps_is_lost(folder: Path) -> None:
    detector = onnx.make(folder)
    dark = np.zeros_like(WHITE)  # the small file puts all points into one corner then
    assert detector.follow(dark, detector.find(WHITE)[0]) is None


def test_without_insightface_the_default_detector_finds_the_faces(folder: Path) -> None:
    (folder / "insightface/det_10g.onnx").unlink()
    try:
        detector = onnx.make(folder)
    except bundle.NoModels as missing:
        pytest.skip(str(missing))
    assert detector.find(WHITE) == []
    assert type(detector.finder).__name__ == "FaceMesh"


def test_scores_below_the_threshold_and_doubles_are_dropped() -> None:
    rows = onnx.decode(boxes(), 0.5)
    np.testing.assert_allclose(rows[0], [*BOX, 0.9], rtol=1e-4)
    assert len(rows) == 2
    assert len(onnx.decode(boxes(), 0.2)) == 3
    assert onnx.decode(boxes(), 0.95).shape == (0, 5)


def test_other_files_of_those_names_are_named(folder: Path) -> None:
    landmark = folder / "liveportrait/landmark.onnx"
    tiny_onnx.write(landmark, "input", 224, [np.zeros((1, 2), np.float32)] * 3)
    with pytest.raises(DataError, match=r"landmark\.onnx.*expected 203"):
        onnx.make(folder).follow(WHITE, Face.of(P106 * 100 + 150))
    tiny_onnx.write(landmark, "input", 224, [np.zeros((1, 406), np.float32)])
    with pytest.raises(DataError, match=r"1 outputs; expected 1 and 3"):
        onnx.make(folder)
    landmark.write_bytes(b"no model")
    with pytest.raises(DataError, match=r"landmark\.onnx: not an ONNX model"):
        onnx.make(folder)
    tiny_onnx.write(landmark, "input", 64, [np.zeros((1, 406), np.float32)] * 3)
    with pytest.raises(DataError, match="can't be run"):
        onnx.make(folder).follow(WHITE, Face.of(P106 * 100 + 150))


def test_a_folder_without_the_landmark_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no landmark\.onnx"):
        onnx.make(tmp_path)


def test_without_onnxruntime_one_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "landmark.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MixturaError, match="pip install onnxruntime"):
        onnx.make(tmp_path)
