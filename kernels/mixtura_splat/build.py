"""Compile the kernels into shared libraries: `python -m mixtura_splat.build [--cpu] [--cuda] [--force]`.

`pip install` runs this once; nothing is compiled at import. One library for each x86-64 level (v2, v3, v4) and one in
float64 for checks, so that an installation may move between machines; the loader takes the best that the processor
runs. The CUDA library is built where nvcc is found. Results are cached by a hash of sources, compiler and flags in
`~/.cache/mixtura-splat` (`MIXTURA_SPLAT_CACHE` moves it), so that the next environment copies instead of compiling.

This module uses the standard library alone: setup.py loads it before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
LIBRARIES = PACKAGE / "libraries"
RECORD = "build.json"
"""Beside the libraries: what was built, and why something was not."""

CPU_FLAGS = [
    "-std=c++17",
    "-O3",
    "-fopenmp",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
]
# Roots and quotients are a unit or two in the last place off: a third fewer instructions in the projection kernels.
CUDA_FLAGS = [
    "-std=c++17",
    "-O3",
    "-shared",
    "-cudart",
    "static",
    "-prec-div=false",
    "-prec-sqrt=false",
    "--threads",
    "0",
    "-Xcompiler",
    "-fPIC,-Wall,-Wextra",
    "-Werror",
    "all-warnings",
]
CUDA_ARCHITECTURES = ("80", "90")
"""Compute capabilities that get machine code; newer ones compile the last one's PTX when first loaded."""


@dataclass(frozen=True)
class Target:
    """One library: its name, the sources' folder below csrc, and the flags that differ."""

    name: str
    folder: str
    flags: tuple[str, ...]


def sources_root() -> Path:
    """The folder csrc: inside an installed package, or beside it in a checkout."""
    inside = PACKAGE / "csrc"
    return inside if inside.is_dir() else PACKAGE.parent / "csrc"


def cpu_targets() -> list[Target]:
    """The libraries of this kind of processor, best first."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        generic = ("-DSPLAT_VECTOR_BYTES=16",)
        return [
            Target("cpu-generic", "cpu", ("-DSPLAT_LEVEL=generic", *generic)),
            Target("cpu-float64", "cpu", ("-DSPLAT_LEVEL=generic", "-DSPLAT_DOUBLE", *generic)),
        ]
    levels = [("v4", 64), ("v3", 32), ("v2", 16)]
    targets = [
        Target(f"cpu-{level}", "cpu", (f"-march=x86-64-{level}", f"-DSPLAT_LEVEL=x86-64-{level}", f"-DSPLAT_VECTOR_BYTES={size}"))
        for level, size in levels
    ]
    double = ("-march=x86-64-v2", "-DSPLAT_LEVEL=x86-64-v2", "-DSPLAT_VECTOR_BYTES=16", "-DSPLAT_DOUBLE")
    return [*targets, Target("cpu-float64", "cpu", double)]


def cuda_target() -> Target:
    """The CUDA library."""
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in CUDA_ARCHITECTURES]
    newest = CUDA_ARCHITECTURES[-1]
    return Target("cuda", "cuda", (*codes, f"-gencode=arch=compute_{newest},code=compute_{newest}"))


def find_compiler() -> str | None:
    """The C++ compiler: $CXX if that is set, else g++ or clang++ on PATH."""
    named = os.environ.get("CXX")
    return next((found for name in ([named] if named else ["g++", "clang++"]) if (found := shutil.which(name))), None)


def find_nvcc() -> str | None:
    """nvcc: $CUDACXX, $CUDA_HOME/bin, PATH, /usr/local/cuda/bin."""
    places = [os.environ.get("CUDACXX"), "nvcc", "/usr/local/cuda/bin/nvcc"]
    if home := os.environ.get("CUDA_HOME"):
        places.insert(1, f"{home}/bin/nvcc")
    return next((found for place in places if place and (found := shutil.which(place))), None)


def cache_folder() -> Path:
    """Where compiled libraries are kept between installations."""
    named = os.environ.get("MIXTURA_SPLAT_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mixtura-splat"


def command(target: Target, compiler: str, output: Path) -> list[str]:
    """The command line that compiles `target` into `output`."""
    folder = sources_root() / target.folder
    suffix, flags = (".cu", CUDA_FLAGS) if target.folder == "cuda" else (".cpp", CPU_FLAGS)
    sources = sorted(str(path) for path in folder.glob(f"*{suffix}"))
    if not sources:
        raise FileNotFoundError(f"no {suffix} files in {folder}")
    return [compiler, *flags, *target.flags, *sources, "-o", str(output)]


def fingerprint(target: Target, compiler: str) -> str:
    """A hash of everything that the compiled library depends on."""
    digest = hashlib.sha256()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    digest.update(json.dumps([target.name, target.flags, CPU_FLAGS, CUDA_FLAGS, version]).encode())
    root = sources_root()
    for path in sorted([*root.glob("*.h"), *(root / target.folder).iterdir()]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:24]


def compile_target(target: Target, compiler: str, folder: Path, force: bool = False) -> str:
    """Put the library of `target` into `folder`; "" or what went wrong."""
    cached = cache_folder() / f"{target.name}-{fingerprint(target, compiler)}.so"
    output = folder / f"{target.name}.so"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if force or not cached.is_file():
            cached.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cached.parent) as work:
                fresh = Path(work) / output.name
                done = subprocess.run(command(target, compiler, fresh), capture_output=True, text=True, check=False)
                if done.returncode:
                    return f"{Path(compiler).name} failed: " + " | ".join(done.stderr.strip().splitlines()[:6])
                os.replace(fresh, cached)
        copy = folder / f".{output.name}.{os.getpid()}"
        shutil.copyfile(cached, copy)
        os.replace(copy, output)
    except OSError as problem:
        return f"{problem}"
    return ""


def build(folder: Path = LIBRARIES, cpu: bool = True, cuda: bool = True, force: bool = False) -> dict[str, str]:
    """Compile what can be compiled; {library: "" or why it is missing}. Also written to `folder`/build.json."""
    jobs: list[tuple[Target, str]] = []
    result: dict[str, str] = {}
    compiler, nvcc = find_compiler(), find_nvcc()
    for target in cpu_targets() if cpu else []:
        if compiler:
            jobs.append((target, compiler))
        else:
            given = f" at CXX={os.environ['CXX']}" if os.environ.get("CXX") else ""
            result[target.name] = f"no C++ compiler{given} (install g++, Debian: apt-get install g++; or set CXX)"
    if cuda:
        if nvcc:
            jobs.append((cuda_target(), nvcc))
        else:
            result["cuda"] = "no nvcc (install the CUDA toolkit, or set CUDA_HOME)"
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as pool:
        for (target, _), problem in zip(
            jobs, pool.map(lambda job: compile_target(job[0], job[1], folder, force), jobs), strict=True
        ):
            result[target.name] = problem
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    known = json.loads(record.read_text()) if record.is_file() else {}
    record.write_text(json.dumps({**known, **result}, indent=1, sort_keys=True) + "\n")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Build and say what came of it; 1 when a library that was asked for is missing."""
    parser = argparse.ArgumentParser(prog="python -m mixtura_splat.build", description="compile the splatting kernels")
    parser.add_argument("--cpu", action="store_true", help="only the CPU libraries")
    parser.add_argument("--cuda", action="store_true", help="only the CUDA library")
    parser.add_argument("--force", action="store_true", help="compile even when the cache has the result")
    chosen = parser.parse_args(arguments)
    both = chosen.cpu == chosen.cuda
    result = build(cpu=both or chosen.cpu, cuda=both or chosen.cuda, force=chosen.force)
    for name, problem in result.items():
        sys.stdout.write(f"{name:<12} {problem or 'built'}\n")
    return 1 if any(problem for name, problem in result.items() if name != "cuda" or chosen.cuda) else 0


if __name__ == "__main__":
    sys.exit(main())
