"""Load the compiled libraries and call them with tensors. `library(tensor)` gives the one for a tensor's device and dtype.

The libraries know nothing of torch (csrc/abi.h is the whole interface); here pointers, sizes, threads and the current
stream are put together. Import torch before a library is loaded, so that both use one OpenMP runtime.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

LIBRARIES = Path(__file__).resolve().parent / "libraries"
"""Where build.py puts them."""
ABI = 1
TILE = 16
FIELDS = 8
"""Numbers of a projected splat: x, y, u11, u12, u22, opacity, tau, depth."""
ANTIALIASED, GRAPHDECO, DEPTH, SHARED_FEATURES, DETERMINISTIC = 1, 2, 4, 8, 16
FOR_BIN, FOR_PROJECT_BACKWARD, FOR_COMPOSITE_BACKWARD = 0, 1, 2


class BackendMissing(RuntimeError):
    """No compiled library for this device and dtype; the text says why and what to do."""


class Options(ctypes.Structure):
    """SplatOptions of csrc/abi.h."""

    _fields_ = [
        ("abi", ctypes.c_int32),
        ("real_bytes", ctypes.c_int32),
        ("scenes", ctypes.c_int64),
        ("views", ctypes.c_int64),
        ("gaussians", ctypes.c_int64),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("sh_degree", ctypes.c_int32),
        ("sh_coefficients", ctypes.c_int32),
        ("flags", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("eps", ctypes.c_double),
        ("near_z", ctypes.c_double),
        ("far_z", ctypes.c_double),
        ("alpha_limit", ctypes.c_double),
        ("stream", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("scratch_bytes", ctypes.c_int64),
    ]


@dataclass(frozen=True)
class Library:
    """A loaded library; `name` is what it says of itself."""

    handle: ctypes.CDLL
    name: str
    path: Path

    def call(self, function: str, options: Options, *arguments: Tensor | int | float | None) -> None:
        """Call splat_<function>(options, ...): tensors as pointers (None as null), ints as int64, floats as double."""
        self.check(function, getattr(self.handle, f"splat_{function}")(ctypes.byref(options), *map(_argument, arguments)))

    def scratch_bytes(self, function: str, options: Options, call: int, entries: int) -> int:
        """How much temporary memory a call wants."""
        size = int(self.handle.splat_scratch(ctypes.byref(options), ctypes.c_int32(call), ctypes.c_int64(entries)))
        self.check(function, -min(size, 0))
        return size

    def check(self, function: str, code: int) -> None:
        """Raise RuntimeError for a code that is not 0."""
        if code:
            text = self.handle.splat_error(code).decode()
            raise RuntimeError(f"mixtura_splat: {function} on {self.name}: {text}")


def _argument(value: Tensor | int | float | None) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, Tensor):
        if not value.is_contiguous():
            raise RuntimeError(f"mixtura_splat: a tensor of shape {tuple(value.shape)} reached a kernel without being contiguous")
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_double(value) if isinstance(value, float) else ctypes.c_int64(value)


def processor_levels() -> list[str]:
    """Names of the CPU libraries that this processor can run, best first. MIXTURA_SPLAT_LEVEL=v2|v3|v4 forces one."""
    if forced := os.environ.get("MIXTURA_SPLAT_LEVEL"):
        return [f"cpu-{forced}"]
    capability = torch.backends.cpu.get_cpu_capability()
    levels = {"AVX512": ["cpu-v4", "cpu-v3", "cpu-v2"], "AVX2": ["cpu-v3", "cpu-v2"]}.get(capability, ["cpu-v2"])
    return [*levels, "cpu-generic"]


def candidates(kind: str) -> list[str]:
    """Library names for "cpu", "cpu-float64" or "cuda", best first."""
    return processor_levels() if kind == "cpu" else [kind]


@cache
def load(kind: str) -> Library:
    """The best library for "cpu", "cpu-float64" or "cuda". Raises BackendMissing."""
    if os.environ.get("MIXTURA_SPLAT_BACKEND") == "reference":
        raise BackendMissing("MIXTURA_SPLAT_BACKEND=reference asks for PyTorch")
    for name in candidates(kind):
        path = LIBRARIES / f"{name}.so"
        if not path.is_file():
            continue
        try:
            handle = ctypes.CDLL(str(path))
        except OSError as problem:
            raise BackendMissing(f"{path} cannot be loaded: {problem}. Remedy: python -m mixtura_splat.build --force") from None
        if handle.splat_abi() != ABI:
            raise BackendMissing(f"{path} is of another version. Remedy: python -m mixtura_splat.build")
        handle.splat_describe.restype = handle.splat_error.restype = ctypes.c_char_p
        handle.splat_scratch.restype = ctypes.c_int64
        return Library(handle, handle.splat_describe().decode(), path)
    remedy = "install g++" if kind != "cuda" else "install the CUDA toolkit (nvcc)"
    raise BackendMissing(
        f"no compiled {kind} kernels in {LIBRARIES}. Remedy: {remedy}, then python -m mixtura_splat.build; "
        "python -m mixtura_splat.doctor tells more"
    )


def library(like: Tensor) -> Library:
    """The library for the device and dtype of `like`. Raises BackendMissing when there is none."""
    return load(_kind(like.device.type, like.dtype))


def _kind(device: str, dtype: torch.dtype) -> str:
    if device not in ("cpu", "cuda"):
        raise BackendMissing(f"no kernels for device {device}: cpu and cuda have them")
    if dtype not in (torch.float32, torch.float64):
        raise BackendMissing(f"no kernels for {dtype}: float32 and float64 have them")
    if dtype == torch.float64:
        if device == "cuda":
            raise BackendMissing("float64 runs on the CPU only: it is there for gradient checks")
        return "cpu-float64"
    return device


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch.compile asks once and does not trace the loader
def why_missing(device: str, dtype: torch.dtype) -> str:
    """Why there are no compiled kernels for tensors of this device type and dtype; "" when there are."""
    try:
        load(_kind(device, dtype))
    except BackendMissing as problem:
        return str(problem)
    return ""


def is_available(like: Tensor) -> bool:
    """Whether compiled kernels exist for the device and dtype of `like`."""
    return not why_missing(like.device.type, like.dtype)


def wants_kernels(like: Tensor, kernels: bool | None) -> bool:
    """Whether compiled kernels are to run: as `kernels` says, or where there are any. Raises BackendMissing for True and none."""
    if kernels is False:
        return False
    missing = why_missing(like.device.type, like.dtype)
    if missing and kernels:
        raise BackendMissing(missing)
    return not missing


def options(like: Tensor, scenes: int, views: int, gaussians: int, width: int, height: int, **fields: int | float) -> Options:
    """Options with the sizes, threads and the current stream of `like`'s device filled in."""
    stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else None
    return Options(
        abi=ABI,
        real_bytes=like.element_size(),
        scenes=scenes,
        views=views,
        gaussians=gaussians,
        width=width,
        height=height,
        threads=torch.get_num_threads(),
        stream=stream,
        **fields,
    )


def call(
    function: str, like: Tensor, opts: Options, *arguments: Tensor | int | float | None, scratch: tuple[int, int] | None = None
) -> None:
    """Call splat_<function> on the device of `like`; `scratch` = (which call, list entries) asks for temporary memory."""
    lib = library(like)
    if not like.is_cuda:
        lib.call(function, opts, *arguments)
        return
    with torch.cuda.device(like.device):
        if scratch:
            memory = torch.empty(lib.scratch_bytes(function, opts, *scratch), dtype=torch.uint8, device=like.device)
            opts.scratch, opts.scratch_bytes = memory.data_ptr(), memory.numel()
        lib.call(function, opts, *arguments)
