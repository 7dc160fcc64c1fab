"""Random scenes for the kernel tests: a cloud before some cameras, everything drawn from a seed."""

from __future__ import annotations

import numpy as np

from tests.kernels.emulation import driver
from tests.kernels.emulation.driver import DEPTH, Library, Scene, floats

OF_A_GAUSSIAN = ("means", "quats", "scales", "opacities", "sh")
OF_A_VIEW = ("viewmats", "ks", "background")


def look_at_origin(angle: float, distance: float = 4.0) -> np.ndarray:
    """World to camera for a camera on a circle around the y axis."""
    c, s = np.cos(angle), np.sin(angle)
    view = np.eye(4)
    view[:3, :3] = [[c, 0, -s], [0, 1, 0], [s, 0, c]]
    view[2, 3] = distance
    return view


def random_scene(
    seed: int,
    scenes: int = 1,
    views: int = 1,
    gaussians: int = 40,
    width: int = 37,
    height: int = 21,
    channels: int | None = None,
    degree: int = 1,
    log_scales: tuple[float, float] = (-3.5, -1.5),
    shared: bool = False,
    background: bool = True,
    flags: int = 0,
    focal: float = 1.1,
) -> Scene:
    """With `channels`, features of that width are given; else colours come from spherical harmonics."""
    rng = np.random.default_rng(seed)
    b, v, n = scenes, views, gaussians
    k = (degree + 1) ** 2
    ks = np.zeros((b, v, 3, 3))
    ks[..., 0, 0], ks[..., 1, 1] = focal * width, 1.1 * focal * width
    ks[..., 0, 2], ks[..., 1, 2], ks[..., 2, 2] = 0.52 * width, 0.47 * height, 1
    features = None if channels is None else floats(rng.standard_normal((b, 1 if shared else v, n, channels)))
    return Scene(
        means=floats(rng.uniform(-1, 1, (b, n, 3))),
        quats=floats(rng.standard_normal((b, n, 4))),
        scales=floats(np.exp(rng.uniform(*log_scales, (b, n, 3)))),
        opacities=floats(rng.uniform(0.05, 0.98, (b, n))),
        viewmats=floats([[look_at_origin(0.3 * i + 0.7 * j) for i in range(v)] for j in range(b)]).reshape(b, v, 4, 4),
        ks=floats(ks),
        width=width,
        height=height,
        sh=floats(0.3 * rng.standard_normal((b, n, k, 3))) if channels is None else None,
        degree=degree,
        features=features,
        background=floats(rng.uniform(0, 1, (b, v, channels or 3))) if background else None,
        flags=flags,
    )


def cotangents(seed: int, s: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of image, depth and transmittance."""
    rng = np.random.default_rng(seed)
    shape = (*s.sizes[:2], s.height, s.width)
    image, depth, end = (floats(rng.standard_normal(size)) for size in ((*shape, s.channels), shape, shape))
    return image, depth, end


def views_of(scene: Scene) -> list[tuple[int, int]]:
    """Number of scene and view of each."""
    return [(i, j) for i in range(scene.sizes[0]) for j in range(scene.sizes[1])]


def gradients_of(lib: Library, scene: Scene, seed: int = 3) -> dict[str, np.ndarray]:
    """Of all stages, for random cotangents."""
    v_image, v_depth, v_end = cotangents(seed, scene)
    out = driver.render(lib, scene)
    return driver.differentiate(lib, scene, out, v_image, v_depth if scene.flags & DEPTH else None, v_end)
