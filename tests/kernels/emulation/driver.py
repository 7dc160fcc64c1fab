"""Builds the CUDA library, emulated or real, and drives its C interface with numpy arrays, without the Python package.

`emulated()` and `on_device()` give a library, `Scene` holds inputs, `render` and `differentiate` run all stages of the
interface and return what came out by name. Every output array is filled with rubbish first, so one that a kernel forgets
shows up.
"""

from __future__ import annotations

import ctypes
import dataclasses
import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CUDA = ROOT / "kernels" / "csrc" / "cuda"
FLAGS = ["-std=c++17", "-O2", "-g1", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Wno-unknown-pragmas", f"-I{HERE}"]

NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
NVCC_FLAGS = [
    "-O3", "-std=c++17", "-prec-div=false", "-prec-sqrt=false", "-Xcompiler", "-fPIC,-Wall,-Wextra", "-Werror", "all-warnings",
    "-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=[sm_90,compute_90]",
    "-Xptxas", "-v",
]  # fmt: skip
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
if os.environ.get("MIXTURA_EMULATION_SANITIZE"):  # needs libasan in LD_PRELOAD
    FLAGS += SANITIZE

ANTIALIASED, GRAPHDECO, DEPTH, SHARED_FEATURES, DETERMINISTIC = 1, 2, 4, 8, 16
BAD_OPTIONS, TOO_MANY_ENTRIES, NO_MEMORY, DEVICE = 1, 2, 3, 100
FOR_BIN, FOR_PROJECT_BACKWARD, FOR_COMPOSITE_BACKWARD = 0, 1, 2
TILE = 16


class Options(ctypes.Structure):
    """SplatOptions of abi.h."""

    _fields_ = [
        ("abi", ctypes.c_int32), ("real_bytes", ctypes.c_int32),
        ("scenes", ctypes.c_int64), ("views", ctypes.c_int64), ("gaussians", ctypes.c_int64),
        ("width", ctypes.c_int32), ("height", ctypes.c_int32), ("channels", ctypes.c_int32),
        ("sh_degree", ctypes.c_int32), ("sh_coefficients", ctypes.c_int32), ("flags", ctypes.c_int32),
        ("threads", ctypes.c_int32), ("reserved", ctypes.c_int32),
        ("eps", ctypes.c_double), ("near_z", ctypes.c_double), ("far_z", ctypes.c_double), ("alpha_limit", ctypes.c_double),
        ("stream", ctypes.c_void_p), ("scratch", ctypes.c_void_p), ("scratch_bytes", ctypes.c_int64),
    ]  # fmt: skip


def build(folder: Path) -> Path:
    """Compile the kernels against the emulation into folder/libemulated.so."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [*sorted(CUDA.glob("*.cu")), HERE / "machine.cpp"]

    def compile_one(source: Path) -> Path:
        target = folder / (source.stem + ".o")
        subprocess.run(["g++", *FLAGS, "-x", "c++", "-c", str(source), "-o", str(target)], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / "libemulated.so"
    partial = folder / f"libemulated.{os.getpid()}.so"
    subprocess.run(["g++", *FLAGS, "-shared", *map(str, objects), "-o", str(partial)], check=True)
    partial.rename(library)
    return library


def build_cuda(folder: Path) -> tuple[Path, str]:
    """Compile the kernels with nvcc into folder/cuda.so; also what the assembler said of them."""
    folder.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> tuple[Path, str]:
        target = folder / (source.stem + ".o")
        done = subprocess.run([NVCC, *NVCC_FLAGS, "-c", source, "-o", target], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return target, done.stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects, notes = zip(*pool.map(compile_one, sorted(CUDA.glob("*.cu"))), strict=True)
    library = folder / "cuda.so"
    subprocess.run([NVCC, "-shared", "-cudart", "static", *objects, "-o", library], check=True)
    return library, "".join(notes)


def content_hash() -> str:
    """Of all sources that the libraries are made of."""
    digest = hashlib.sha256(" ".join([*FLAGS, *NVCC_FLAGS]).encode())
    for path in sorted([*CUDA.parent.glob("*.h"), *CUDA.glob("*.cu*"), *HERE.rglob("*.h"), *HERE.rglob("*.c*")]):
        if path.suffix in {".h", ".cpp", ".cu", ".cuh"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def emulated() -> Library:
    """The emulated library, built once for each state of the sources."""
    folder = cache_folder()
    library = folder / "libemulated.so"
    return Library(library if library.exists() else build(folder))


@cache
def on_device() -> Library:
    """The real library on the first GPU; arrays go there and back by way of torch."""
    folder = cache_folder()
    library = folder / "cuda.so"
    return DeviceLibrary(library if library.exists() else build_cuda(folder)[0], "cuda")


def cache_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"mixtura-emulation-{os.getuid()}" / content_hash()


class SplatError(Exception):
    """A call returned something other than 0."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Library:
    """The C interface; arguments are numpy arrays, numbers or None."""

    def __init__(self, path: Path) -> None:
        self.handle = ctypes.CDLL(str(path))
        self.handle.splat_describe.restype = self.handle.splat_error.restype = ctypes.c_char_p
        self.handle.splat_scratch.restype = ctypes.c_int64

    def describe(self) -> str:
        return self.handle.splat_describe().decode()

    def error(self, code: int) -> str:
        return self.handle.splat_error(code).decode()

    def seed(self, seed: int) -> None:
        """Choose the order in which the emulation lets threads run."""
        self.handle.emulation_seed(ctypes.c_uint64(seed))

    def scratch(self, options: Options, call: int, entries: int = 0) -> object:
        """Temporary memory of the size that a call wants, as long as the result is kept."""
        size = self.handle.splat_scratch(ctypes.byref(options), ctypes.c_int32(call), ctypes.c_int64(entries))
        if size < 0:
            raise SplatError(-size, self.error(-size))
        memory = self.allocate(size)
        options.scratch, options.scratch_bytes = address_of(memory), size
        return memory

    def allocate(self, size: int) -> object:
        return np.full(size, 0xAA, np.uint8)

    def call(self, name: str, options: Options, *arguments: object) -> None:
        code = getattr(self.handle, name)(ctypes.byref(options), *[_argument(a) for a in arguments])
        if code:
            raise SplatError(code, self.error(code))


class DeviceLibrary(Library):
    """The same with arrays in another memory: they are copied there before a call, and back after it."""

    def __init__(self, path: Path, device: str) -> None:
        super().__init__(path)
        self.device = torch.device(device)

    def seed(self, seed: int) -> None:
        """A GPU has an order of its own."""

    def allocate(self, size: int) -> object:
        return torch.full((size,), 0xAA, dtype=torch.uint8, device=self.device)

    def call(self, name: str, options: Options, *arguments: object) -> None:
        copies = {id(a): torch.from_numpy(a).to(self.device, copy=True) for a in arguments if isinstance(a, np.ndarray)}
        super().call(name, options, *[copies.get(id(a), a) for a in arguments])
        for array in arguments:
            if isinstance(array, np.ndarray):
                array[...] = copies[id(array)].cpu().numpy()


def address_of(array: object) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data_ptr()


def _argument(value: object) -> object:
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        assert value.dtype in (np.float32, np.int32, np.int64), value.dtype
    if isinstance(value, np.ndarray | torch.Tensor):
        return ctypes.c_void_p(address_of(value) if len(value.reshape(-1)) else None)
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_double(value)


def rubbish(*shape: int, dtype: type = np.float32) -> np.ndarray:
    """An array that holds nothing useful: NaN, or a large integer."""
    return np.full(shape, np.nan if dtype is np.float32 else 0x5A5A5A5A, dtype)


def floats(value: object) -> np.ndarray:
    return np.ascontiguousarray(value, dtype=np.float32)


@dataclasses.dataclass
class Scene:
    """Inputs of a render: means [B,N,3] and so on as in abi.h; `sh` or `features` give the colours."""

    means: np.ndarray
    quats: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    viewmats: np.ndarray
    ks: np.ndarray
    width: int
    height: int
    sh: np.ndarray | None = None
    degree: int = 0
    features: np.ndarray | None = None
    background: np.ndarray | None = None
    counts: np.ndarray | None = None
    flags: int = 0
    near: float = 0.01
    far: float = 1e10
    alpha_limit: float = 0.99

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Scenes, views, Gaussians."""
        return self.means.shape[0], self.viewmats.shape[1], self.means.shape[1]

    @property
    def tiles(self) -> int:
        return -(-self.width // TILE) * -(-self.height // TILE)

    @property
    def channels(self) -> int:
        return 3 if self.features is None else self.features.shape[-1]

    def options(self) -> Options:
        b, v, n = self.sizes
        k = 1 if self.sh is None else self.sh.shape[2]
        return Options(
            1, 4, b, v, n, self.width, self.height, self.channels, self.degree, k, self.flags, 1, 0,
            0.3, self.near, self.far, self.alpha_limit, None, None, 0,
        )  # fmt: skip


def project(lib: Library, s: Scene) -> dict[str, np.ndarray]:
    """Stage 1."""
    b, v, n = s.sizes
    out = {
        "splats": rubbish(b, v, n, 8), "extents": rubbish(b, v, n, 2), "tiles": rubbish(b, v, n, dtype=np.int32),
        "stats": rubbish(2, dtype=np.int64), "colors": None if s.sh is None else rubbish(b, v, n, 3),
    }  # fmt: skip
    lib.call("splat_project", s.options(), s.means, s.quats, s.scales, s.opacities, s.viewmats, s.ks, s.counts, s.sh,
             out["splats"], out["extents"], out["tiles"], out["colors"], out["stats"])  # fmt: skip
    return out


def bin_(lib: Library, s: Scene, out: dict[str, np.ndarray], numbered: bool = False) -> dict[str, np.ndarray]:
    """Stage 2."""
    b, v, n = s.sizes
    entries = int(out["stats"][0])
    out["ids"], out["ranges"] = rubbish(entries, dtype=np.int32), rubbish(b * v, s.tiles + 1, dtype=np.int64)
    numbered = numbered or bool(s.flags & DETERMINISTIC)
    out["slots"] = rubbish(entries, dtype=np.int32) if numbered else None
    out["first"] = rubbish(b, v, n, dtype=np.int32) if numbered else None
    options = s.options()
    memory = lib.scratch(options, FOR_BIN, entries)
    lib.call("splat_bin", options, out["splats"], out["extents"], out["tiles"], entries,
             out["ids"], out["slots"], out["first"], out["ranges"])  # fmt: skip
    del memory
    return out


def composite(lib: Library, s: Scene, out: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stage 3."""
    b, v, _ = s.sizes
    out["image"] = rubbish(b, v, s.height, s.width, s.channels)
    out["depth"] = rubbish(b, v, s.height, s.width) if s.flags & DEPTH else None
    out["transmittance"], out["last"] = rubbish(b, v, s.height, s.width), rubbish(b, v, s.height, s.width, dtype=np.int32)
    lib.call("splat_composite", s.options(), out["splats"], features_of(s, out), s.background, out["ids"], out["ranges"],
             out["image"], out["depth"], out["transmittance"], out["last"])  # fmt: skip
    return out


def features_of(s: Scene, out: dict[str, np.ndarray]) -> np.ndarray:
    return out["colors"] if s.features is None else s.features


def render(lib: Library, s: Scene, numbered: bool = False) -> dict[str, np.ndarray]:
    """All stages forward."""
    return composite(lib, s, bin_(lib, s, project(lib, s), numbered))


def composite_backward(
    lib: Library,
    s: Scene,
    out: dict[str, np.ndarray],
    v_image: np.ndarray | None,
    v_depth: np.ndarray | None = None,
    v_transmittance: np.ndarray | None = None,
    absolute: bool = True,
) -> dict[str, np.ndarray]:
    """Gradient of stage 3."""
    b, v, n = s.sizes
    features = features_of(s, out)
    grads = {"v_splats": rubbish(b, v, n, 8), "v_features": rubbish(*features.shape)}
    grads["v_absolute"] = rubbish(b, v, n, 2) if absolute else None
    options = s.options()
    memory = lib.scratch(options, FOR_COMPOSITE_BACKWARD, int(out["stats"][0]))
    lib.call("splat_composite_backward", options, out["splats"], features, s.background, out["ids"], out["tiles"],
             out["slots"], out["first"], out["ranges"], out["transmittance"], out["last"], v_image, v_depth, v_transmittance,
             grads["v_splats"], grads["v_features"], grads["v_absolute"])  # fmt: skip
    del memory
    return grads


def project_backward(
    lib: Library, s: Scene, out: dict[str, np.ndarray], grads: dict[str, np.ndarray], cameras: bool = True
) -> dict[str, np.ndarray]:
    """Gradient of stage 1."""
    for name in ("means", "quats", "scales", "opacities", "viewmats", "ks"):
        grads["v_" + name] = rubbish(*getattr(s, name).shape)
    grads["v_sh"] = None if s.sh is None else rubbish(*s.sh.shape)
    if not cameras:
        grads["v_viewmats"] = grads["v_ks"] = None
    options = s.options()
    memory = lib.scratch(options, FOR_PROJECT_BACKWARD)
    v_colors = grads["v_features"] if s.sh is not None else None
    lib.call("splat_project_backward", options, s.means, s.quats, s.scales, s.opacities, s.viewmats, s.ks, s.sh,
             out["splats"], out["colors"], grads["v_splats"], v_colors, grads["v_means"], grads["v_quats"],
             grads["v_scales"], grads["v_opacities"], grads["v_sh"], grads["v_viewmats"], grads["v_ks"])  # fmt: skip
    del memory
    return grads


def differentiate(
    lib: Library,
    s: Scene,
    out: dict[str, np.ndarray],
    v_image: np.ndarray | None,
    v_depth: np.ndarray | None = None,
    v_transmittance: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """All stages backward, and the gradient of the background (which the interface leaves to the caller)."""
    grads = project_backward(lib, s, out, composite_backward(lib, s, out, v_image, v_depth, v_transmittance))
    if s.background is not None and v_image is not None:
        grads["v_background"] = (out["transmittance"][..., None] * v_image).sum((2, 3))
    return grads


def shade(lib: Library, s: Scene) -> np.ndarray:
    """Colours alone (B, V, N, 3)."""
    colors = rubbish(*s.sizes, 3)
    lib.call("splat_shade", s.options(), s.means, s.viewmats, s.sh, colors)
    return colors


def shade_backward(lib: Library, s: Scene, v_colors: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients of `shade`."""
    grads = {name: rubbish(*getattr(s, name).shape) for name in ("means", "viewmats", "sh")}
    options = s.options()
    memory = lib.scratch(options, FOR_PROJECT_BACKWARD)
    lib.call("splat_shade_backward", options, s.means, s.viewmats, s.sh, shade(lib, s), v_colors,
             grads["means"], grads["viewmats"], grads["sh"])  # fmt: skip
    del memory
    return grads
