"""Which views of a scene make a sample: one condition, the noisy ones, and novel ones that only judge the result.

`select` is a pure function of cameras and a generator; a rule (`views:` of a source) says what may be picked:
`random` (the published scenes), `around` (the published objects: evenly around the condition), `angles` (the paper's limits on
positions and directions), `all` (every view, for looking at a scene).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixtura.errors import BadSample
from mixtura_diffusion_gs.frames import Array, meeting_point

Ints = NDArray[np.int64]
DRAWS = 8
"""How often noisy views are drawn for a condition before another one is tried."""


class Rule(BaseModel):
    """What all rules share."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    network: int = Field(4, ge=2, description="views that the network sees: the condition and the noisy ones")
    condition: int | None = Field(None, ge=0, description="number of the condition view; drawn when left out")
    fixed: bool = Field(False, description="draw the same views of a scene every time, for evaluation")
    exclude: tuple[int, ...] = Field((), description="numbers of views that are never taken")

    @model_validator(mode="after")
    def _is_taken(self) -> Rule:
        if self.condition in self.exclude:
            raise ValueError(f"condition {self.condition} is among the views to exclude")
        return self


class Choice(Rule):
    """What rules share that draw novel views."""

    novel: int = Field(4, ge=0, description="further views that the result is compared with")


class RandomRule(Choice):
    """Any views in any order."""

    rule: Literal["random"] = "random"


class AllRule(Rule):
    """All views: the condition (view 0 when not given), then the others in order.

    All past `network` are novel, so there is no `novel` to give.
    """

    rule: Literal["all"] = "all"


class AroundRule(Choice):
    """Noisy views evenly around the up axis from the condition, novel ones any of the rest.

    With `rings`, views are counted instead of measured: each ring is (first view, how many), and the condition is on one of them.
    """

    rule: Literal["around"] = "around"
    tolerance: float = Field(40.0, gt=0, le=180, description="degrees between where a noisy view should be and where it is")
    rings: tuple[tuple[int, int], ...] = Field(
        (), description="[first view, how many] of rings whose views follow each other evenly"
    )

    @model_validator(mode="after")
    def _divide(self) -> AroundRule:
        for first, count in self.rings:
            if first < 0 or count < self.network or count % self.network:
                raise ValueError(f"rings: {count} views from {first} on can't be divided by network {self.network}")
        if self.rings and self.condition is not None and not self._on_ring(self.condition):
            raise ValueError(f"condition {self.condition} is on none of the rings")
        return self

    def _on_ring(self, number: int) -> bool:
        return any(first <= number < first + count for first, count in self.rings)


class AnglesRule(Choice):
    """The paper's limits in degrees: thetas between positions seen from the scene's centre, phis between forward directions.

    Noisy views are within theta_noisy and phi_noisy of the condition, novel ones within theta_novel of every noisy view and
    within phi_novel of the condition. The centre is the origin for objects, and for scenes the point nearest to all optical axes;
    where axes are parallel there is none, and directions alone decide.
    """

    rule: Literal["angles"] = "angles"
    theta_noisy: float = Field(45.0, gt=0, le=180)
    theta_novel: float = Field(60.0, gt=0, le=180)
    phi_noisy: float = Field(60.0, gt=0, le=180)
    phi_novel: float = Field(75.0, gt=0, le=180)


Rules = Annotated[RandomRule | AroundRule | AnglesRule | AllRule, Field(discriminator="rule")]


def select(rule: Rules, c2w: Array, rng: np.random.Generator, where: str, is_object: bool = True) -> tuple[Ints, int]:
    """Numbers of the views of a sample (condition, noisy, novel) and how many of them the network sees.

    `c2w` (V, 4, 4) with z up. Raises BadSample naming `where` when no choice of views fits the rule.
    """
    usable = np.setdiff1d(np.arange(len(c2w)), rule.exclude)
    if rule.condition is not None and rule.condition >= len(c2w):
        raise BadSample(f"{where}: condition {rule.condition} is asked for, it has views 0 to {len(c2w) - 1}")
    needed = rule.network + (rule.novel if isinstance(rule, Choice) else 0)
    if len(usable) < needed:
        raise BadSample(
            f"{where}: {needed} views are needed ({rule.network} for the network, {needed - rule.network} novel), it has "
            f"{len(usable)}; lower `network` or `novel`, or add pictures"
        )
    match rule:
        case AllRule():
            first = int(usable[0]) if rule.condition is None else rule.condition
            return np.r_[first, usable[usable != first]], rule.network
        case AroundRule():
            network = _counted(rule, usable, rng, where) if rule.rings else _around(rule, c2w, usable, rng, where, is_object)
        case AnglesRule():
            return _within_angles(rule, c2w, usable, rng, where, is_object), rule.network
        case _:
            network = np.array([next(_conditions(rule, usable, rng))])
            network = np.r_[network, _drawn(np.setdiff1d(usable, network), rule.network - 1, rng)]
    return np.r_[network, _drawn(np.setdiff1d(usable, network), rule.novel, rng)], rule.network


def _conditions(rule: Rule, usable: Ints, rng: np.random.Generator) -> Iterator[int]:
    """Condition views in the order in which they are tried."""
    yield from [rule.condition] if rule.condition is not None else rng.permutation(usable).tolist()


def _drawn(numbers: Ints, count: int, rng: np.random.Generator) -> Ints:
    return rng.permutation(numbers)[:count]


# -- around -------------------------------------------------------------------------------------------------------


def _counted(rule: AroundRule, usable: Ints, rng: np.random.Generator, where: str) -> Ints:
    """The condition on a ring, at random among all views of rings, and noisy views by number."""
    on_rings = np.concatenate([np.arange(first, first + count) for first, count in rule.rings])
    if missing := np.setdiff1d(on_rings, usable).tolist():
        raise BadSample(f"{where}: `rings` names views {missing[:5]}, which it lacks or which are excluded")
    condition = next(_conditions(rule, on_rings, rng))
    first, count = next((first, count) for first, count in rule.rings if first <= condition < first + count)
    return first + (condition - first + count // rule.network * np.arange(rule.network)) % count


def _around(rule: AroundRule, c2w: Array, usable: Ints, rng: np.random.Generator, where: str, is_object: bool) -> Ints:
    """The condition and the views nearest to its position turned by equal steps."""
    towards = _positions(c2w, is_object)
    if towards is None:
        raise BadSample(f"{where}: the cameras look the same way, so none can be around another; use `rule: angles` or `random`")
    closest = np.inf
    for condition in _conditions(rule, usable, rng):
        network, worst = _turned(towards, condition, usable, rule.network)
        if worst <= rule.tolerance:
            return network
        closest = min(closest, worst)
    raise BadSample(
        f"{where}: no condition view has others at steps of {360 / rule.network:g} degrees around it; the best lacks one by "
        f"{closest:.0f} degrees, `tolerance` is {rule.tolerance:g}: raise it, or use `rule: angles`"
    )


def _turned(towards: Array, condition: int, usable: Ints, count: int) -> tuple[Ints, float]:
    """The condition with views nearest to it turned by k 360 / `count` degrees, and the largest miss in degrees."""
    chosen, worst = [condition], 0.0
    for step in range(1, count):
        angle = 2 * np.pi * step / count
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        left = np.setdiff1d(usable, chosen)
        miss = degrees(towards[left], turn @ towards[condition])
        chosen.append(int(left[miss.argmin()]))
        worst = max(worst, float(miss.min()))
    return np.array(chosen), worst


# -- angles -------------------------------------------------------------------------------------------------------


def _within_angles(rule: AnglesRule, c2w: Array, usable: Ints, rng: np.random.Generator, where: str, is_object: bool) -> Ints:
    """A random choice that keeps to the limits."""
    theta, phi = apart(_positions(c2w, is_object), len(c2w)), apart(c2w[:, :3, 2], len(c2w))
    near = (theta <= rule.theta_noisy) & (phi <= rule.phi_noisy)
    most_noisy = most_novel = 0
    for condition in _conditions(rule, usable, rng):
        others = usable[usable != condition]
        permitted = others[near[condition, others]]
        most_noisy = max(most_noisy, len(permitted))
        if len(permitted) < rule.network - 1:
            continue
        for _ in range(DRAWS):
            noisy = _drawn(permitted, rule.network - 1, rng)
            left = np.setdiff1d(others, noisy)
            judges = left[(theta[np.ix_(noisy, left)] <= rule.theta_novel).all(0) & (phi[condition, left] <= rule.phi_novel)]
            most_novel = max(most_novel, len(judges))
            if len(judges) >= rule.novel:
                return np.concatenate([[condition], noisy, _drawn(judges, rule.novel, rng)])
    raise BadSample(
        f"{where}: the limits on angles leave at most {most_noisy} noisy views of {rule.network - 1} and {most_novel} novel ones "
        f"of {rule.novel}; raise theta_noisy and phi_noisy (theta_novel and phi_novel), or add pictures between the others"
    )


def _positions(c2w: Array, is_object: bool) -> Array | None:
    """Unit directions (V, 3) from the scene's centre to the cameras; None when the centre is infinitely far."""
    centre = np.zeros(3) if is_object else meeting_point(c2w)
    if centre is None:
        return None
    towards = c2w[:, :3, 3] - centre
    unit: Array = towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-12)
    return unit


def apart(directions: Array | None, count: int) -> Array:
    """Degrees (V, V) between unit directions; zeros when there are none."""
    if directions is None:
        return np.zeros((count, count))
    angles: Array = np.degrees(np.arccos(np.clip(directions @ directions.T, -1, 1)))
    return angles


def degrees(directions: Array, one: Array) -> NDArray[Any]:
    """Degrees (V,) between unit directions (V, 3) and one (3,)."""
    angles: NDArray[Any] = np.degrees(np.arccos(np.clip(directions @ one, -1, 1)))
    return angles
