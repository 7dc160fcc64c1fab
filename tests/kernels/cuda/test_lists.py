"""The lists of the CUDA kernels hold each Gaussian for exactly the tiles that it meets, in their order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.kernels.emulation import dense, driver
from tests.kernels.emulation.clouds import random_scene
from tests.kernels.emulation.driver import Library, Scene


def expected_tiles(scene: Scene, splat: np.ndarray, margin: float) -> set[int]:
    """Tiles whose rectangle of pixel centres the ellipse sigma <= tau + margin meets, by brute force."""
    across, found = -(-scene.width // 16), set()
    for tile in range(scene.tiles):
        left, top = tile % across * 16 + 0.5, tile // across * 16 + 0.5
        right, bottom = min(left + 15, scene.width - 0.5), min(top + 15, scene.height - 0.5)
        if dense.least_sigma(splat, left, right, top, bottom) <= splat[6] + margin:
            found.add(tile)
    return found


def listed_tiles(scene: Scene, out: dict[str, np.ndarray], view: int) -> list[set[int]]:
    """For each Gaussian of a view the tiles whose list has it."""
    tiles: list[set[int]] = [set() for _ in range(scene.sizes[2])]
    bounds = out["ranges"][view]
    for tile in range(scene.tiles):
        for n in out["ids"][bounds[tile] : bounds[tile + 1]]:
            assert tile not in tiles[n]
            tiles[n].add(tile)
    return tiles


@pytest.mark.parametrize("log_scales", [(-5.0, -4.0), (-4.0, -1.0), (-1.0, 0.5)], ids=["small", "mixed", "large"])
def test_lists_hold_exactly_the_tiles_that_an_ellipse_meets(lib: Library, log_scales: tuple[float, float]) -> None:
    scene = random_scene(5, views=2, gaussians=100, width=150, height=90, log_scales=log_scales)
    scene.scales[..., 0] *= 0.03  # needles
    out = driver.bin_(lib, scene, driver.project(lib, scene))
    for view in range(2):
        for n, tiles in enumerate(listed_tiles(scene, out, view)):
            splat = out["splats"][0, view, n].astype(np.float64)
            assert len(tiles) == out["tiles"][0, view, n]
            if splat[6] >= 0:
                assert expected_tiles(scene, splat, -1e-5) <= tiles <= expected_tiles(scene, splat, 2e-3)


def test_lists_are_ordered_by_depth_and_then_by_index(lib: Library) -> None:
    scene = random_scene(6, scenes=2, views=2, gaussians=120)
    scene.means = np.repeat(scene.means[:, :24], 5, 1)  # five Gaussians at each depth
    out = driver.bin_(lib, scene, driver.project(lib, scene))
    depths = out["splats"][..., 7].reshape(4, -1)
    for view, bounds in enumerate(out["ranges"]):
        for begin, end in itertools.pairwise(bounds):
            keys = [(depths[view, n], n) for n in out["ids"][begin:end]]
            assert keys == sorted(keys)
    assert out["ranges"][0, 0] == 0
    assert np.all(out["ranges"][1:, 0] == out["ranges"][:-1, -1])
    assert out["ranges"][-1, -1] == out["stats"][0] == out["tiles"].sum()


def test_slots_lead_from_each_gaussian_to_its_entries(lib: Library) -> None:
    scene = random_scene(8, scenes=2, views=2)
    out = driver.bin_(lib, scene, driver.project(lib, scene), numbered=True)
    plain = driver.bin_(lib, scene, driver.project(lib, scene))
    assert np.array_equal(out["ids"], plain["ids"])
    for view, bounds in enumerate(out["ranges"]):
        begin, tiles, first = bounds[0], out["tiles"].reshape(4, -1)[view], out["first"].reshape(4, -1)[view]
        for n, count in enumerate(tiles):
            places = out["slots"][begin + first[n] : begin + first[n] + count]
            assert np.all(out["ids"][begin + places] == n)


def test_more_tiles_than_short_keys_can_number(lib: Library) -> None:
    scene = random_scene(9, views=2, gaussians=30, width=16 * 33000, height=1, log_scales=(-2, -1))
    out = driver.bin_(lib, scene, driver.project(lib, scene))
    assert scene.tiles * 2 > 1 << 16
    for view in range(2):
        assert [len(t) for t in listed_tiles(scene, out, view)] == out["tiles"][0, view].tolist()


def test_splats_of_more_than_32_rows_of_tiles(lib: Library) -> None:
    scene = random_scene(10, gaussians=4, width=20, height=16 * 70, log_scales=(2, 3), focal=40)
    out = driver.bin_(lib, scene, driver.project(lib, scene))
    assert out["tiles"].max() > 64
    assert [len(t) for t in listed_tiles(scene, out, 0)] == out["tiles"][0, 0].tolist()
