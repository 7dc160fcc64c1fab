"""The plan: proportions, order, epochs, caps, state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtura.data.mixers.base import Mixer, MixerConfig, MixPlan, Needs, Observation
from mixtura.data.mixers.phases import Phases, PhasesConfig
from mixtura.data.mixers.static import Static
from mixtura.data.mixers.temperature import Temperature, TemperatureConfig
from mixtura.data.mixture import UNLIMITED, allocate, normalised, systematic
from mixtura.data.permutation import Permutation
from mixtura.data.plan import Planner
from mixtura.data.source import SourceInfo
from mixtura.errors import CheckpointError, MixturaError, RunError
from mixtura.rng import KeyedRng


def infos(*sizes: int, caps: tuple[float | None, ...] = ()) -> list[SourceInfo]:
    """Sources s0, s1, …"""
    padded = [*caps, *[None] * len(sizes)]
    return [
        SourceInfo(f"s{i}", size, f"print{i}", max_epochs=cap) for i, (size, cap) in enumerate(zip(sizes, padded, strict=False))
    ]


def planner(sources: list[SourceInfo], weights: list[float], mixer: Mixer | None = None, **options: Any) -> Planner:
    """A planner of 1000 steps of 16 samples."""
    prior = np.array(weights) / sum(weights)
    settings = {"seed": 1, "stage": "x", "stage_steps": 1000, "global_batch": 16, **options}
    return Planner(sources, mixer or Static(MixerConfig(type="static")), prior, **settings)


@given(st.integers(1, 5000), st.integers(0, 2**62))
def test_a_permutation_is_a_bijection(size: int, key: int) -> None:
    order = Permutation(size, key).order(np.arange(size))
    assert np.array_equal(np.sort(order), np.arange(size))


def test_permutations_of_different_keys_differ() -> None:
    first, second = (Permutation(1000, key).order(np.arange(1000)) for key in (1, 2))
    assert (first == second).mean() < 0.02
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.15


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=8).filter(lambda w: sum(w) > 0.01),
    st.integers(1, 200),
    st.floats(0, 0.999999),
)
def test_systematic_sampling_is_never_a_whole_item_away(weights: list[float], slots: int, uniform: float) -> None:
    share = np.array(weights) / sum(weights)
    counts = systematic(share, slots, uniform)
    assert counts.sum() == slots
    assert (np.abs(counts - share * slots) < 1 + 1e-6).all()
    assert (counts[share == 0] == 0).all()


def test_systematic_sampling_is_unbiased() -> None:
    share = np.array([0.55, 0.27, 0.18])
    mean = np.mean([systematic(share, 7, (i + 0.5) / 1000) for i in range(1000)], axis=0)
    assert np.allclose(mean, share * 7, atol=0.01)


def test_over_many_steps_counts_follow_the_weights() -> None:
    plan = planner(infos(1000, 1000, 1000), [5, 2, 1])
    total = sum(plan.step(t).counts(3) for t in range(250))
    assert np.abs(total - np.array([2500, 1000, 500])).max() <= 20


def test_every_epoch_uses_every_item_once_in_a_new_order() -> None:
    plan = planner(infos(48), [1])
    epochs = [
        [slot.item for t in range(3) for slot in sorted(plan.step(3 * e + t).slots, key=lambda s: s.position)] for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(48))
    assert epochs[0] != epochs[1]


def test_a_cap_sends_the_rest_to_the_others() -> None:
    plan = planner(infos(20, 1000, caps=(2, None)), [1, 1])
    counts = sum(plan.step(t).counts(2) for t in range(10))
    assert counts.tolist() == [40, 120]


def test_stop_ends_the_stage_and_all_used_up_is_an_error() -> None:
    stopping = planner(infos(20, 1000, caps=(1, None)), [1, 1], when_exhausted="stop")
    answers = [stopping.step(t) for t in range(3)]
    assert [a is None for a in answers] == [False, False, True]
    with pytest.raises(RunError, match="max_epochs"):
        planner(infos(10, caps=(1,)), [1]).step(0)


def test_repeat_ignores_caps() -> None:
    plan = planner(infos(10, caps=(1,)), [1], when_exhausted="repeat")
    assert max(slot.epoch for t in range(3) for slot in plan.step(t).slots) == 4


def test_held_out_items_are_never_planned() -> None:
    from mixtura.data.plan import split_order

    source = infos(100)
    plan = planner(source, [1], heldout=[10])
    used = {slot.item for t in range(30) for slot in plan.step(t).slots}
    held = set(split_order(1, source[0]).order(np.arange(90, 100)).tolist())
    assert len(used) == 90
    assert not used & held


def test_weights_are_never_repaired() -> None:
    for bad in ({"a": -1.0}, {"a": float("nan")}, {"a": 0.0, "b": 0.0}):
        with pytest.raises(MixturaError):
            normalised(bad, ["a", "b"], "stage 'x'")


@settings(max_examples=30)
@given(st.integers(0, 60), st.integers(1, 60))
def test_state_restores_at_any_point(stop: int, ahead: int) -> None:
    whole = planner(infos(30, 70, 11), [3, 2, 1])
    plans = [whole.step(t) for t in range(stop + ahead)]
    again = planner(infos(30, 70, 11), [3, 2, 1])
    again.load_state_dict(whole.state_at(stop))
    assert [again.step(t).slots for t in range(stop, stop + ahead)] == [p.slots for p in plans[stop:]]


def test_other_sources_are_refused_or_mapped_by_name() -> None:
    plan = planner(infos(30, 70), [1, 1])
    plan.step(0)
    other = planner([*infos(30), SourceInfo("new", 5, "x")], [1, 1])
    with pytest.raises(CheckpointError, match="s1: gone"):
        other.load_state_dict(plan.state_at(1))
    other.load_state_dict(plan.state_at(1), "map_by_name")
    assert other.cursors[0] == plan.cursors[0]


class Recorder(Mixer):
    """Leans to the source with the larger loss; remembers what it saw and when."""

    needs = Needs.TRAIN_LOSS

    def setup(self, sources: Any, total_steps: int, prior: np.ndarray) -> None:
        super().setup(sources, total_steps, prior)
        self.level, self.seen = [0.0] * len(prior), []

    def plan(self, step: int) -> MixPlan:
        return MixPlan(np.exp(np.array(self.level)))

    def observe(self, observation: Observation) -> None:
        self.seen.append(observation.step)
        self.level = [float(v) for v in np.nan_to_num(observation.train_loss)]

    def state_dict(self) -> dict[str, Any]:
        return {"level": self.level, "seen": list(self.seen)}

    def load_state_dict(self, state: Any) -> None:
        self.level, self.seen = list(state["level"]), list(state["seen"])


def learning(lag: int | None = 3) -> Planner:
    """A planner with the recording mixer."""
    return planner(infos(30, 70), [1, 1], Recorder(MixerConfig(type="recorder", lag=lag)))


def observed(step: int) -> Observation:
    """What a made-up step shows."""
    return Observation(step, np.array([8, 8]), np.array([np.sin(step), 0.3]), lr=0.1)


def run(plan: Planner, ahead: int, start: int, stop: int) -> list[Any]:
    """Plans of steps that are fetched `ahead` steps before they are observed."""
    made, results = start, []
    for t in range(start, stop):
        while made <= min(t + ahead, stop - 1):
            results.append(plan.step(made).slots)
            made += 1
        plan.observe(observed(t))
    return results


def test_fetching_ahead_changes_nothing() -> None:
    assert run(learning(), 0, 0, 40) == run(learning(), 3, 0, 40)


def test_a_learning_mixer_resumes_in_the_middle_of_fetching_ahead() -> None:
    whole = learning()
    plans = run(whole, 3, 0, 20)
    state = whole.state_at(17)
    again = learning()
    again.load_state_dict(state)
    for t in range(17, 20):
        assert again.step(t).slots == plans[t]


def test_observations_reach_the_mixer_in_order_and_late() -> None:
    plan = learning()
    run(plan, 0, 0, 10)
    assert plan.mixer.seen == list(range(6))


def test_observations_that_are_not_finite_are_dropped_and_counted() -> None:
    plan = learning(0)
    plan.step(0)
    plan.observe(Observation(0, np.array([8, 8]), np.array([np.inf, 0.0])))
    plan.step(1)
    assert plan.skipped_observations == 1
    assert plan.mixer.seen == []


def test_a_learnt_weight_is_floored_and_an_off_source_stays_off() -> None:
    class Greedy(Recorder):
        def plan(self, step: int) -> MixPlan:
            return MixPlan(np.array([1.0, 0.0, 0.0]))

    plan = planner(infos(10, 10, 10), [1, 1, 0], Greedy(MixerConfig(type="greedy")))
    weights = plan.step(0).weights
    assert weights[1] == pytest.approx(0.01 / 3, rel=0.01)
    assert weights[2] == 0


def test_a_mixer_that_answers_nonsense_is_an_error() -> None:
    class Wrong(Static):
        def plan(self, step: int) -> MixPlan:
            return MixPlan(np.array([np.nan, 1.0]))

    with pytest.raises(RunError, match="must give finite weights"):
        planner(infos(5, 5), [1, 1], Wrong(MixerConfig(type="wrong"))).step(0)


def test_temperature_flattens_sizes() -> None:
    def weights(alpha: float) -> list[float]:
        mixer = Temperature(TemperatureConfig(type="temperature", alpha=alpha))
        return planner(infos(100, 400), [1, 1], mixer).step(0).weights.tolist()

    assert weights(0) == pytest.approx([0.5, 0.5])
    assert weights(0.5) == pytest.approx([1 / 3, 2 / 3])
    assert weights(1) == pytest.approx([0.2, 0.8])


def test_phases_jump_or_ramp() -> None:
    def at(step: int, blend: str) -> float:
        config = PhasesConfig(type="phases", blend=blend, phases=({"start": 0.5, "mixture": {"s0": 1, "s1": 3}},))
        mixer = Phases(config)
        mixer.setup(infos(10, 10), 100, np.array([0.5, 0.5]))
        return float(mixer.plan(step).weights[0])

    assert [at(s, "jump") for s in (0, 49, 50)] == [0.5, 0.5, 0.25]
    assert [at(s, "linear") for s in (0, 25, 50)] == pytest.approx([0.5, 0.375, 0.25])


def test_allocation_never_exceeds_what_remains() -> None:
    counts = allocate(np.array([0.9, 0.1]), 10, np.array([3, UNLIMITED]), KeyedRng(0))
    assert counts.tolist() == [3, 7]
