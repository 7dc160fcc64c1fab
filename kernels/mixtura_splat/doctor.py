"""`python -m mixtura_splat.doctor`: which kernels are active here, and why others are not. Ends with 1 if none are."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from mixtura_splat import backend, build
from mixtura_splat.version import VERSION


def device_problem() -> str:
    """Why the CUDA library cannot run here; empty when it can."""
    if not torch.version.cuda:
        return "this PyTorch has no CUDA: install a CUDA build of torch"
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU: check the driver (nvidia-smi)"
    major, minor = torch.cuda.get_device_capability()
    lowest = int(build.CUDA_ARCHITECTURES[0])
    if 10 * major + minor < lowest:
        return f"the GPU has compute capability {major}.{minor}; {lowest / 10} or newer is needed"
    return ""


def lines() -> list[tuple[str, str, bool]]:
    """(what, state, is it fine) for each thing that decides which kernels run."""
    record = backend.LIBRARIES / build.RECORD
    reasons = json.loads(record.read_text()) if record.is_file() else {}
    compiler, nvcc = build.find_compiler(), build.find_nvcc()
    out = [
        ("mixtura-splat", f"{VERSION} in {Path(__file__).parent}", True),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads", True),
        ("processor", torch.backends.cpu.get_cpu_capability(), True),
        ("C++ compiler", compiler or "none: install g++ to compile the CPU kernels", compiler is not None),
        ("nvcc", nvcc or "none: install the CUDA toolkit to compile the CUDA kernels", True),
        ("sources", str(build.sources_root()), build.sources_root().is_dir()),
        ("cache", str(build.cache_folder()), True),
    ]
    forced = {name: os.environ[name] for name in ("MIXTURA_SPLAT_BACKEND", "MIXTURA_SPLAT_LEVEL") if name in os.environ}
    if forced:
        out.append(("environment", ", ".join(f"{k}={v}" for k, v in forced.items()), True))
    for kind in ("cpu", "cpu-float64", "cuda"):
        try:
            library = backend.load(kind)
        except backend.BackendMissing as missing:
            why = "; ".join(reasons[name] for name in backend.candidates(kind) if reasons.get(name))
            out.append((kind, f"not there: {why or missing}", kind == "cuda"))
            continue
        problem = device_problem() if kind == "cuda" else ""
        out.append((kind, f"{library.name} ({library.path.name})" + (f", but {problem}" if problem else ""), True))
    active = "compiled kernels" if backend.is_available(torch.empty(0)) else "the PyTorch reference (slow)"
    out.append(("rasterize on CPU", active, backend.is_available(torch.empty(0))))
    return out


def main() -> int:
    """Print the table."""
    table = lines()
    for what, state, fine in table:
        sys.stdout.write(f"{'ok ' if fine else 'NO '} {what:<17} {state}\n")
    if not table[-1][2]:
        sys.stdout.write("Remedy: install g++, then python -m mixtura_splat.build\n")
    return 0 if table[-1][2] else 1


if __name__ == "__main__":
    sys.exit(main())
