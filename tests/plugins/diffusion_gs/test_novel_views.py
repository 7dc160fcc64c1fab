"""Novel views are measured item by item, beside baselines, and what can't be measured is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mixtura.data.source import Sample, SourceInfo
from mixtura.errors import ConfigError
from mixtura.evaluate import EvalContext, EvalResult
from mixtura.metrics.image import psnr
from mixtura.rng import KeyedRng
from mixtura_diffusion_gs.novel_views import NovelViews, NovelViewsConfig, batch_of, drawn
from mixtura_diffusion_gs.system import DiffusionGS

SampleOf = Callable[..., Sample]
Build = Callable[..., DiffusionGS]


class Held:
    """Two random samples."""

    def __init__(self, sample_of: SampleOf, **fields: Any) -> None:
        self.samples = [sample_of(2 * i, **fields) for i in range(2)]
        self.info = SourceInfo("held", 2, "x", tags=("object",))

    def __len__(self) -> int:
        return 2

    def read(self, index: int, rng: KeyedRng) -> Sample:
        return self.samples[index]


@pytest.fixture
def measure(
    build: Build, sample_of: SampleOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[EvalResult, Held]]:
    def run(system: DiffusionGS | None = None, fields: dict[str, Any] | None = None, **settings: Any) -> tuple[EvalResult, Held]:
        held = Held(sample_of, **(fields or {}))
        config = NovelViewsConfig(**{"type": "novel_views", "sources": {"held": {"path": "nowhere"}}, "steps": 2, **settings})
        evaluator = NovelViews(config, root=tmp_path)
        monkeypatch.setattr("mixtura_diffusion_gs.novel_views.open_sources", lambda sections, root: {"held": held})
        return evaluator.run(system or build(), EvalContext(0, {}, tmp_path, KeyedRng(1))), held

    return run


def test_the_system_stands_beside_its_baselines(measure: Callable[..., tuple[EvalResult, Held]], tmp_path: Path) -> None:
    result, _ = measure()
    (rows,) = result.tables.values()
    assert [row["method"] for row in rows] == ["ours", "single step", "input repeated"]
    assert {"held/psnr", "held/ssim", "held/gmsd", "held/single step/psnr", "held/input repeated/psnr"} <= set(result.scalars)
    assert (tmp_path / "held.png").is_file()


def test_the_input_repeated_is_compared_with_the_novel_views_alone(measure: Callable[..., tuple[EvalResult, Held]]) -> None:
    result, held = measure()
    images = [torch.from_numpy(sample.fields["images"]).permute(0, 3, 1, 2).float() / 255 for sample in held.samples]
    expected = np.mean([psnr(i[:1].expand_as(i[4:]), i[4:]).mean() for i in images])
    assert result.scalars["held/input repeated/psnr"] == pytest.approx(expected, abs=1e-4)


def test_a_batch_changes_no_figure_of_a_regressor(build: Build, measure: Callable[..., tuple[EvalResult, Held]]) -> None:
    system = build(objective="regression")
    one, two = (measure(system, batch=batch)[0].scalars["held/psnr"] for batch in (1, 2))
    assert one == pytest.approx(two, abs=1e-4)


def test_what_is_drawn_at_the_networks_cameras_are_its_own_renders(build: Build, sample_of: SampleOf) -> None:
    system, given = build(), batch_of([sample_of(0)], "cpu")
    pictures = drawn(system, 2, **given, seed=3)
    made = system.infer(
        image=given["images"][:, 0],
        c2w=given["c2w"][:, :4],
        intrinsics=given["intrinsics"][:, :4],
        kind="object",
        steps=2,
        seed=3,
    )
    torch.testing.assert_close(pictures[:, :4], made["renders"], atol=1e-4, rtol=1e-4)


def test_a_run_that_is_not_there_yet_is_said(measure: Callable[..., tuple[EvalResult, Held]]) -> None:
    result, _ = measure(against={"regressor": "runs/none"})
    assert "runs/none" in result.tables["Not measured"][0]["why"]


def test_views_that_the_network_sees_all_of_are_refused(
    measure: Callable[..., tuple[EvalResult, Held]], sample_of: SampleOf
) -> None:
    few = {name: value[:4] for name, value in sample_of(0).fields.items() if name in ("images", "c2w", "intrinsics")}
    with pytest.raises(ConfigError, match="`views.novel`"):
        measure(fields=few)


def test_sections_of_sources_are_checked() -> None:
    with pytest.raises(ValidationError, match=r"sources\.held: sise"):
        NovelViewsConfig(type="novel_views", sources={"held": {"path": "x", "sise": 64}})
