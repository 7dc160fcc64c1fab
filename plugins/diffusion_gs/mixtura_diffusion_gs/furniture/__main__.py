"""Write pictures of three objects and three rooms, with cameras, to a folder.

python -m mixtura_diffusion_gs.furniture --out DIR [--size 128] [--views 48 --held-out 8] [--objects NAME ...] [--rooms SEED ...]
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

from mixtura.errors import MixturaError

from .export import contact_sheet, write_credits, write_scene
from .mesh import Array
from .scenes import OBJECTS, ROOMS, object_scene, posed_views, room_scene


def main() -> None:
    """Read the arguments, write the scenes."""
    parser = argparse.ArgumentParser(prog="python -m mixtura_diffusion_gs.furniture", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128, help="pixels along each side")
    parser.add_argument("--views", type=int, default=48, help="pictures of each scene to train on")
    parser.add_argument("--held-out", type=int, default=8, help="pictures of each scene to test on")
    parser.add_argument("--objects", nargs="*", default=list(OBJECTS), help="names of models")
    parser.add_argument("--rooms", nargs="*", type=int, default=list(ROOMS), help="seeds of rooms")
    options = parser.parse_args()
    if min(options.size, options.views) < 1 or options.held_out < 0:
        parser.error("--size and --views must be at least 1, --held-out at least 0")
    try:
        write(options)
    except MixturaError as error:
        sys.exit(f"error: {error}")


def write(options: argparse.Namespace) -> None:
    """Every scene into a folder of its own; credits and a sheet of all scenes beside them."""
    credits: list[str] = []
    samples: list[Array] = []
    makers = [partial(object_scene, name) for name in options.objects] + [partial(room_scene, seed) for seed in options.rooms]
    for make in makers:
        start = time.perf_counter()
        scene = make()
        folder = options.out / scene.name.replace("#", "-")
        write_scene(scene, folder, options.size, options.views, options.held_out)
        credits += scene.credits
        samples += list(posed_views(scene, 8, options.size)["images"])
        seconds = time.perf_counter() - start
        sys.stdout.write(f"{folder}: {options.views} + {options.held_out} pictures in {seconds:.1f} s\n")
    if samples:
        contact_sheet(samples).save(options.out / "contact.png")
        write_credits(options.out / "CREDITS.txt", credits)


if __name__ == "__main__":
    main()
