"""Shipped configurations of the published size hold what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixtura.config import load
from mixtura.dry_run import dry_run

FULL = Path(__file__).parents[3] / "configs" / "full"


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("diffusion_gs_object", "460,391,424"),
        ("diffusion_gs_object_512", "460,391,424"),
        ("diffusion_gs_scene", "460,391,424"),
        ("diffusion_gs_scene_512", "460,391,424"),
        ("diffusion_gs_mixed", "465,523,712"),  # a second decoder
    ],
)
def test_a_full_configuration_is_told_by_a_dry_run(name: str, weights: str, tmp_path: Path) -> None:
    told: list[str] = []
    dry_run(load(FULL / f"{name}.yaml").config, tmp_path, told.append)
    assert any(weights in line for line in told)


@pytest.mark.parametrize("name", ["object", "object_512", "scene", "scene_512", "mixed"])
def test_pictures_have_the_size_and_number_that_the_network_wants(name: str) -> None:
    config = load(FULL / f"diffusion_gs_{name}.yaml").config
    for source in config.sources.values():
        assert source.size == config.system.image_size
        assert source.views.network == config.system.views
        assert source.kind in config.system.kinds


@pytest.mark.parametrize("kind", ["object", "scene"])
def test_published_weights_fit_the_configuration_of_their_kind(kind: str) -> None:
    from mixtura_diffusion_gs.published_files import disagreements, published_facts

    config = load(FULL / f"diffusion_gs_{kind}.yaml").config
    assert disagreements(config.system, published_facts(kind)) == []
