"""Cards, and what a camera sees of a mesh: for the tests of furniture."""

from __future__ import annotations

import numpy as np

from mixtura_diffusion_gs.furniture.mesh import Material, Mesh, quad
from mixtura_diffusion_gs.furniture.render import Lights, Picture, Renderer

EVEN = Lights(1.0, ())  # colours come out as they are
RED, GREEN, BLUE = (Material(name, colour) for name, colour in (("r", (1.0, 0, 0)), ("g", (0, 1.0, 0)), ("b", (0, 0, 1.0))))


def view(
    mesh: Mesh, size: int = 33, samples: int = 1, focal: float = 33.0, viewmat: np.ndarray | None = None, lights: Lights = EVEN
) -> Picture:
    """What a camera at the origin, looking along +z, sees."""
    matrix = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    return Renderer(mesh, lights).render(np.eye(4) if viewmat is None else viewmat, matrix, size, size, samples)


def card(x: float, y: float, z: float, side: float, material: Material) -> Mesh:
    """A square across the line of sight whose picture stands upright there (y is down)."""
    return quad([x - side / 2, y + side / 2, z], [side, 0, 0], [0, -side, 0], material)
