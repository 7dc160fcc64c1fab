"""How mixtura-splat's CPU kernels scale from one thread to two, warm: forward + backward in a row, nobody else in between.

    python benchmarks/splat_threads.py [--points 10000 100000 1000000] [--sizes 256 1024] [--repeats 20]

Scenes are those of splat_cpu.py, where contenders take turns and every run finds its caches full of another's data. Turns of
one and of two threads alternate, the best of each counts. Writes results/splat_threads.json.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import torch
from common import keep, say
from splat_cpu import LOG_SCALES, MODES, Ours, line, make_scene, timed


def measure(count: int, size: int, repeats: int) -> dict[str, Any]:
    """Best milliseconds with one and two threads."""
    ours, (scene, v) = Ours(), make_scene(count, size)
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(4):
        for threads in times:
            torch.set_num_threads(threads)
            timed(ours, MODES[1], scene, v)
            times[threads] += [timed(ours, MODES[1], scene, v)[0] for _ in range(repeats // 4)]
    one, two = (1e3 * min(values) for values in times.values())
    return {"points": count, "size": size, "one_ms": one, "two_ms": two, "gain": one / two}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--points", type=int, nargs="+", default=list(LOG_SCALES), choices=list(LOG_SCALES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    say(f"Forward + backward, milliseconds, best of {given.repeats}.\n")
    line("Gaussians", "image", "1 thread", "2 threads", "gain", head=True)
    rows = []
    for count, size in itertools.product(given.points, given.sizes):
        row = measure(count, size, given.repeats)
        rows.append(row)
        line(f"{count:,}", f"{size}²", f"{row['one_ms']:.1f}", f"{row['two_ms']:.1f}", f"{row['gain']:.2f}")
    keep("splat_threads", {"repeats": given.repeats, "rows": rows})


if __name__ == "__main__":
    main()
