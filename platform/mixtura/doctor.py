"""What `mixtura doctor` tells: versions, devices, libraries, disk, broken plugins, and what needs attention.

Nothing here changes the machine; each finding that matters says what to do.
"""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mixtura import API_VERSION, __version__
from mixtura.plugins import registry
from mixtura.run import PACKAGES, version_of

Say = Callable[[str], None]

OPTIONAL = ("diffusers", "mujoco")
LOW_DISK = 5 * 2**30


def examine(say: Say) -> int:
    """Tell the state of this machine; returns how many things need attention."""
    findings: list[str] = []
    say(f"mixtura {__version__} (plugin API {API_VERSION}), Python {platform.python_version()} at {sys.executable}")
    say(
        f"{platform.system()} {platform.release()} {platform.machine()}, "
        f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} CPU cores usable"
    )
    for part in (_packages, _torch, _graphics, _disk, _plugins):
        findings += part(say)
    say("")
    for finding in findings:
        say(f"attention: {finding}")
    say("nothing needs attention" if not findings else f"{len(findings)} thing{'s' if len(findings) > 1 else ''} to look at")
    return len(findings)


def _packages(say: Say) -> list[str]:
    versions = {package: version_of(package) for package in PACKAGES}
    say("packages: " + ", ".join(f"{package} {version or '-'}" for package, version in versions.items()))
    missing = [package for package, version in versions.items() if version is None and package not in OPTIONAL]
    return [f"{package} is not installed: pip install {package}" for package in missing]


def _torch(say: Say) -> list[str]:
    try:
        import torch
    except Exception as error:
        return [f"torch can't be imported ({type(error).__name__}: {error}); install it again"]
    threads, cores = torch.get_num_threads(), len(os.sched_getaffinity(0))
    say(f"torch: {threads} threads, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}, bf16 {_bf16()}")
    if not torch.cuda.is_available():
        say("GPU: none that torch can use")
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device, cuda = torch.cuda.get_device_properties(number), torch.version.cuda
        say(f"GPU {number}: {device.name}, {device.total_memory >> 30} GiB, compute {device.major}.{device.minor}, CUDA {cuda}")
    if threads > cores:
        return [f"torch uses {threads} threads on {cores} cores, which is slow; set OMP_NUM_THREADS={cores} or train.threads"]
    return []


def _bf16() -> str:
    """Whether the processor has bf16 instructions (Linux only)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    return (
        "in hardware"
        if "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags
        else "not in hardware (slower than fp32 on the CPU)"
    )


def _graphics(say: Say) -> list[str]:
    """Libraries that simulators draw with when there is no screen."""
    found = {name: ctypes.util.find_library(name) for name in ("EGL", "OSMesa", "GL")}
    say(
        "drawing: "
        + ", ".join(f"{name} {place or '-'}" for name, place in found.items())
        + f", MUJOCO_GL={os.environ.get('MUJOCO_GL', 'not set')}"
    )
    if version_of("mujoco") is None:
        return []
    if found["EGL"] or found["OSMesa"] or os.environ.get("DISPLAY"):
        return []
    return [
        "simulators can't draw: neither EGL nor OSMesa is installed and there is no screen; "
        "on Debian: apt install libegl1 libgl1 (or libosmesa6)"
    ]


def _disk(say: Say) -> list[str]:
    """Free space and writable folders."""
    findings = []
    for what, folder in (("working folder", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        say(f"{what}: {folder}, {free / 2**30:.1f} GiB free")
        if free < LOW_DISK:
            findings.append(f"only {free / 2**30:.1f} GiB are free in {folder}; checkpoints may not fit")
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            findings.append(f"{folder} can't be written to ({error.strerror}); runs are written there")
    return findings


def _plugins(say: Say) -> list[str]:
    found = registry()
    say("plugins: " + ", ".join(f"{info.name} ({info.distribution} {info.version})" for info in found.plugins()))
    for broken in found.broken():
        say(f"\nbroken plugin '{broken.name}' of {broken.distribution} {broken.version}:\n{broken.traceback.rstrip()}")
    return [f"plugin '{broken.name}' of {broken.distribution} is broken: {broken.error}" for broken in found.broken()]
