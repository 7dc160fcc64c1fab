"""Compile the kernels when the package is installed; everything else about it is in setup.cfg.

A failed compilation does not fail the installation: the PyTorch reference works everywhere, and
`python -m mixtura_splat.doctor` says what is missing and why.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent


def build_module():
    spec = importlib.util.spec_from_file_location("mixtura_splat_build", HERE / "mixtura_splat" / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class CompiledPackage(build_py):
    """build_py, plus the libraries: into the checkout for an editable installation, else into the package to be installed."""

    def run(self):
        super().run()
        builder = build_module()
        if self.editable_mode:
            target = builder.LIBRARIES
        else:
            package = Path(self.build_lib) / "mixtura_splat"
            target = package / "libraries"
            shutil.copytree(HERE / "csrc", package / "csrc", dirs_exist_ok=True)
        for name, problem in builder.build(target).items():
            self.announce(f"mixtura-splat: {name}: {problem or 'built'}", level=3 if problem else 2)


class Platform(Distribution):
    """The wheel holds machine code: it is for this platform, though for any version of Python."""

    def has_ext_modules(self):
        return True


setup(cmdclass={"build_py": CompiledPackage}, distclass=Platform)
