"""FAST tokens, flow times and the action space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mixtura.errors import CheckpointError, DataError
from mixtura_iflybot_vla import action_space as space
from mixtura_iflybot_vla.fast import FastTokenizer, quantise, restore, transform
from mixtura_iflybot_vla.timesteps import flow_times


def chunks(count: int, seed: int = 0, steps: int = 8, channels: int = 4) -> list[np.ndarray]:
    """Smooth chunks in [-1, 1]."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, steps)[:, None]
    return [np.clip(np.sin(t * rng.uniform(1, 4, channels) + rng.uniform(0, 6, channels)), -1, 1) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer() -> FastTokenizer:
    """Fitted on 300 smooth chunks."""
    return FastTokenizer.fit(chunks(300), 384)


def test_a_chunk_survives_up_to_half_a_quantisation_step(tokenizer: FastTokenizer) -> None:
    for chunk in chunks(20, seed=1):
        back = tokenizer.decode(tokenizer.encode(chunk), 8, 4)
        levels = np.clip(quantise(transform(chunk)), tokenizer.low, tokenizer.high)
        assert np.allclose(back, restore(levels), atol=1e-6)
        assert np.abs(back - chunk).max() < 0.15


def test_values_unseen_in_training_are_clamped_and_not_lost(tokenizer: FastTokenizer) -> None:
    wild = np.random.default_rng(5).uniform(-3, 3, (8, 4))
    ids = tokenizer.encode(wild)
    assert max(ids) < 384
    levels = np.clip(quantise(transform(wild)), tokenizer.low, tokenizer.high)
    assert np.allclose(tokenizer.decode(ids, 8, 4), restore(levels), atol=1e-5)


def test_tokens_compress(tokenizer: FastTokenizer) -> None:
    assert np.mean([len(tokenizer.encode(c)) for c in chunks(50, seed=2)]) < 0.6 * 32


def test_ids_that_are_no_chunk_decode_to_zeros(tokenizer: FastTokenizer) -> None:
    ids = tokenizer.encode(chunks(1)[0])
    assert not tokenizer.decode(ids[:-1], 8, 4).any()
    assert not tokenizer.decode([*ids, 99_999], 8, 4).any()
    assert not tokenizer.decode([], 8, 4).any()


def test_a_fit_does_not_depend_on_order_and_is_saved_exactly(tokenizer: FastTokenizer, tmp_path: Path) -> None:
    again = FastTokenizer.fit(reversed(chunks(300)), 384)
    again.save(tmp_path / "fast.json")
    loaded = FastTokenizer.load(tmp_path / "fast.json")
    assert loaded.bpe.to_str() == tokenizer.bpe.to_str()
    assert (loaded.low, loaded.high, loaded.scale) == (tokenizer.low, tokenizer.high, tokenizer.scale)


def test_a_vocabulary_too_small_is_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match="fast_vocab"):
        FastTokenizer.fit([100 * c for c in chunks(10)], 64)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fast.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"fast\.json"):
        FastTokenizer.load(tmp_path / "fast.json")


@pytest.mark.parametrize(("kind", "mean"), [("beta", 0.6004), ("iflybot", 0.5588), ("uniform", 0.5005), ("skewed", 0.7218)])
def test_flow_times_have_their_mean_and_stay_inside(kind: str, mean: float) -> None:
    u = torch.rand(400_000, 2, generator=torch.Generator().manual_seed(3))
    times = flow_times(kind, u)
    assert times.min() >= 1e-4
    assert times.max() <= 1
    assert times.mean().item() == pytest.approx(mean, abs=3e-3)
    assert torch.isfinite(flow_times(kind, torch.zeros(1, 2))).all()


def poses(*shape: int) -> np.ndarray:
    """Random poses (*shape, 8)."""
    values = np.random.default_rng(7).standard_normal((*shape, 8))
    values[..., 3:7] = space.unit(values[..., 3:7])
    return values


def test_relative_chunks_of_two_arms_come_back_and_use_their_own_arm() -> None:
    chunk, current = poses(2, 5, 2), poses(3, 2)[:2]
    relative = space.relative_chunk(chunk, current)
    back = space.absolute_chunk(relative, current)
    assert np.allclose(back[..., :3], chunk[..., :3])
    assert np.allclose(np.abs((back[..., 3:7] * chunk[..., 3:7]).sum(-1)), 1)
    alone = space.relative_chunk(chunk[:, :, 1:], current[:, 1:])
    assert np.allclose(relative[:, :, 1:], alone)


def test_poses_without_an_arm_axis_are_refused() -> None:
    with pytest.raises(DataError, match="arms"):
        space.relative_chunk(poses(2, 5), poses(2))


def test_normalisation_clips_keeps_constants_at_zero_and_comes_back() -> None:
    low, high = np.array([0.0, 1.0, 5.0]), np.array([2.0, 3.0, 5.0])
    values = np.array([[1.0, 9.0, 5.0]])
    scaled = space.normalise(values, low, high)
    assert np.allclose(scaled, [[0.0, 1.5, 0.0]])
    assert np.allclose(space.denormalise(scaled, low, high), [[1.0, 3.5, 5.0]])


def test_resampling_turns_along_the_shorter_arc_and_floors_the_gripper() -> None:
    window = np.zeros((3, 8))
    window[:, 6], window[:, 7] = 1, [0, 1, 0]
    window[2, 3:7] = [0, 0, -np.sin(0.5), -np.cos(0.5)]
    made = space.resample(window, 4, floor=(7,), rotation=slice(3, 7))
    assert made[:, 7].tolist() == [0, 1, 1, 0]
    assert np.allclose(np.linalg.norm(made[:, 3:7], axis=-1), 1)
    assert np.allclose(made[2, 3:7], [0, 0, np.sin(0.25), np.cos(0.25)])


def test_rotation_6d_holds_the_first_two_columns() -> None:
    quarter = np.array([0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4)])
    assert np.allclose(space.rotation_6d(quarter), [0, -1, 1, 0, 0, 0])
