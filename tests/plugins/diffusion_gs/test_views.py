"""Choice of views: every rule keeps to its limits, and says so when it can't."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mixtura.errors import BadSample
from mixtura_diffusion_gs.frames import meeting_point
from mixtura_diffusion_gs.views import AllRule, AnglesRule, AroundRule, RandomRule, Rules, select
from tests.plugins.diffusion_gs.posed_folders import ring, upright

seeds = st.integers(0, 1000)


def chosen(rule, c2w, seed=0, **options):
    order, network = select(rule, c2w, np.random.default_rng(seed), "chair", **options)
    return order.tolist(), network


def two_rings() -> np.ndarray:
    """40 cameras in the pattern of G-Objaverse."""
    rest = [upright(0, 20), upright(0, 89), upright(0, -89)]
    return np.concatenate([ring(24, 15), rest, ring(12, 0), [upright(0, 3)]])


def spiral(count: int = 40) -> np.ndarray:
    rise = np.degrees(np.arcsin(np.linspace(-0.17, 0.93, count)))
    return np.stack([upright(137.5 * number, rise[number]) for number in range(count)])


def between(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))


def room(count: int = 40) -> np.ndarray:
    """Cameras on a ring in a room that look across it, unevenly."""
    rng = np.random.default_rng(4)
    poses = np.stack([upright(360 * number / count + 20 * rng.uniform(), 15, rng.uniform(1, 2)) for number in range(count)])
    poses[:, :3, 3] += [5, 5, 1.5]
    return poses


# All rules


@given(st.sampled_from([RandomRule(), AroundRule(), AnglesRule(), RandomRule(novel=0), AroundRule(exclude=(3, 4))]), seeds)
def test_views_are_distinct_and_as_many_as_asked_for(rule, seed):
    order, network = chosen(rule, spiral(), seed)
    assert network == rule.network
    assert len(order) == len(set(order)) == rule.network + rule.novel
    assert not set(order) & set(rule.exclude)
    assert chosen(rule, spiral(), seed)[0] == order


@given(st.sampled_from([RandomRule, AroundRule, AnglesRule]), st.integers(0, 39), seeds)
def test_a_given_condition_is_kept(rule, condition, seed):
    assert chosen(rule(condition=condition, novel=1), spiral(), seed)[0][0] == condition


def test_random_draws_every_condition():
    assert {chosen(RandomRule(), spiral(12), seed)[0][0] for seed in range(200)} == set(range(12))


def test_all_takes_every_view_in_order():
    assert chosen(AllRule(), ring(6)) == ([0, 1, 2, 3, 4, 5], 4)
    assert chosen(AllRule(condition=3, exclude=(1,)), ring(6)) == ([3, 0, 2, 4, 5], 4)


@pytest.mark.parametrize("rule", [RandomRule(), AroundRule(), AnglesRule(), AllRule()])
def test_one_view_only_is_said(rule):
    with pytest.raises(BadSample, match=r"chair: \d views are needed \(4 for the network.*it has 1"):
        chosen(rule, ring(1))


def test_a_condition_that_is_not_there_is_said():
    with pytest.raises(BadSample, match="condition 9 is asked for, it has views 0 to 7"):
        chosen(RandomRule(condition=9), ring(8))
    with pytest.raises(ValidationError, match="among the views to exclude"):
        RandomRule(condition=3, exclude=(3,))


def test_rules_are_told_apart_by_their_name():
    rules = TypeAdapter(Rules)
    assert rules.validate_python({"rule": "angles", "theta_noisy": 30}) == AnglesRule(theta_noisy=30)
    with pytest.raises(ValidationError, match="Extra inputs"):
        rules.validate_python({"rule": "around", "theta_noisy": 30})
    with pytest.raises(ValidationError, match="Extra inputs"):
        rules.validate_python({"rule": "all", "novel": 3})


# around


@given(st.integers(0, 39), seeds)
def test_around_is_the_published_choice_on_two_rings(condition, seed):
    rule = (
        AroundRule(exclude=(25, 26), condition=condition) if condition not in (24, 25, 26, 39) else AroundRule(exclude=(25, 26))
    )
    order, _ = chosen(rule, two_rings(), seed)
    first, count = (0, 24) if order[0] < 24 else (27, 12)
    if order[0] not in (24, 39):
        assert order[:4] == [first + (order[0] - first + step * count // 4) % count for step in range(4)]
    assert not {25, 26} & set(order)


@given(seeds)
def test_counted_rings_are_the_published_choice_at_any_elevation(seed):
    tilted = two_rings()[np.random.default_rng(seed).permutation(40)]
    order, _ = chosen(AroundRule(rings=((0, 24), (27, 12)), exclude=(25, 26), novel=6), tilted, seed)
    assert len(order) == 10
    first, count = (0, 24) if order[0] < 24 else (27, 12)
    assert order[:4] == [first + (order[0] - first + step * count // 4) % count for step in range(4)]


def test_conditions_are_on_the_larger_ring_twice_as_often():
    rule = AroundRule(rings=((0, 24), (27, 12)), novel=0)
    on_larger = sum(chosen(rule, two_rings(), seed)[0][0] < 24 for seed in range(600))
    assert 360 < on_larger < 440


def test_around_tries_other_conditions_before_it_gives_up():
    lonely = np.concatenate([ring(4, 0), [upright(45, 80)]])
    rule = AroundRule(novel=0, tolerance=30)
    assert all(4 not in chosen(rule, lonely, seed)[0] for seed in range(20))
    with pytest.raises(BadSample, match=r"no condition view has others at steps of 90 degrees.*`tolerance` is 30"):
        chosen(rule, np.stack([upright(azimuth, 0) for azimuth in (0, 10, 20, 30)]))


def test_rings_must_be_divisible_and_there():
    with pytest.raises(ValidationError, match="10 views from 0 on can't be divided by network 4"):
        AroundRule(rings=((0, 10),))
    with pytest.raises(ValidationError, match="on none of the rings"):
        AroundRule(rings=((0, 12),), condition=20)
    with pytest.raises(BadSample, match=r"names views \[8, 9, 10, 11\]"):
        chosen(AroundRule(rings=((0, 12),)), ring(8))


# angles


@given(seeds, st.floats(35, 120), st.floats(50, 150))
def test_angles_keep_to_the_limits(seed, noisy, novel):
    rule, c2w = AnglesRule(theta_noisy=noisy, theta_novel=novel, phi_noisy=60, phi_novel=75, network=3, novel=2), spiral()
    order, _ = chosen(rule, c2w, seed)
    eyes, forward = c2w[order, :3, 3], c2w[order, :3, 2]
    for view in (1, 2):
        assert between(eyes[0], eyes[view]) <= noisy + 1e-6
        assert between(forward[0], forward[view]) <= 60 + 1e-6
    for view in (3, 4):
        assert all(between(eyes[k], eyes[view]) <= novel + 1e-6 for k in (1, 2))
        assert between(forward[0], forward[view]) <= 75 + 1e-6


@given(seeds)
def test_angles_of_a_room_are_seen_from_where_its_cameras_look(seed):
    c2w = room()
    order, _ = chosen(AnglesRule(), c2w, seed, is_object=False)
    eyes = c2w[order, :3, 3] - meeting_point(c2w)
    assert all(between(eyes[0], eye) <= 45 + 1e-6 for eye in eyes[1:4])


def test_cameras_side_by_side_are_chosen_by_direction_alone():
    poses = np.stack([np.eye(4)] * 8)
    poses[:, 0, 3] = np.arange(8)
    assert len(chosen(AnglesRule(), poses, is_object=False)[0]) == 8
    with pytest.raises(BadSample, match="look the same way"):
        chosen(AroundRule(), poses, is_object=False)


def test_other_conditions_are_tried_where_the_first_has_no_neighbours():
    crowd = [upright(azimuth, 0) for azimuth in range(0, 40, 5)]
    c2w = np.stack([*crowd, upright(180, 0)])
    assert all(8 not in chosen(AnglesRule(), c2w, seed)[0] for seed in range(20))


def test_limits_that_nothing_fits_are_said_with_counts():
    with pytest.raises(
        BadSample, match=r"chair: the limits on angles leave at most 2 noisy views of 3 and 0 novel ones of 4; raise"
    ):
        chosen(AnglesRule(), ring(8, 0))
