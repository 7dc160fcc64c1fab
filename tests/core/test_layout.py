"""The house: imports run one way, Python's own `platform` stays visible, packages are described once."""

from __future__ import annotations

import ast
import configparser
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "platform" / "mixtura"
KERNELS = ROOT / "kernels"
PLUGINS = sorted(path.parent for path in (ROOT / "plugins").glob("*/setup.cfg"))


def imports(file: Path) -> Iterator[tuple[str, int]]:
    """Top-level names of the modules that a file imports, with lines."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


def importers(folder: Path, *names: str, prefix: str = "") -> list[str]:
    """Places below a folder that import one of the names, or a name that starts with `prefix`."""
    return [
        f"{file.relative_to(ROOT)}:{line}"
        for file in sorted(folder.rglob("*.py"))
        for name, line in imports(file)
        if name in names or (prefix and name.startswith(prefix))
    ]


def test_the_platform_folder_is_no_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize("folder", [ROOT, ROOT / "platform"], ids=["root", "platform"])
def test_pythons_own_platform_works_from(folder: Path) -> None:
    code = "import platform, uuid; print(platform.system(), uuid.uuid4())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_core_imports_no_plugin() -> None:
    assert importers(CORE, prefix="mixtura_") == []


def test_the_kernels_import_neither_core_nor_plugins() -> None:
    assert importers(KERNELS / "mixtura_splat", "mixtura", "mixtura_demos", *(f"mixtura_{path.name}" for path in PLUGINS)) == []


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_imports_no_other_plugin(plugin: Path) -> None:
    others = [f"mixtura_{path.name}" for path in PLUGINS if path != plugin]
    assert importers(plugin, *others, "mixtura_demos") == []


def test_only_the_demos_import_gradio() -> None:
    assert importers(CORE, "gradio") == []
    assert [place for plugin in PLUGINS for place in importers(plugin, "gradio")] == []


@pytest.mark.parametrize("folder", [ROOT, KERNELS, *PLUGINS], ids=lambda path: path.name)
def test_metadata_is_in_setup_cfg_alone(folder: Path) -> None:
    import tomllib

    assert "project" not in tomllib.loads((folder / "pyproject.toml").read_text())
    metadata = configparser.ConfigParser()
    metadata.read(folder / "setup.cfg")
    assert metadata["options"]["python_requires"] == ">=3.11"
    assert metadata["metadata"]["name"].startswith("mixtura")


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_has_one_entry_point_and_light_description(plugin: Path) -> None:
    metadata = configparser.ConfigParser()
    metadata.read(plugin / "setup.cfg")
    line = metadata["options.entry_points"]["mixtura.plugins"].strip()
    assert line == f"{plugin.name} = mixtura_{plugin.name}:plugin"
    assert {name for name, _ in imports(plugin / f"mixtura_{plugin.name}" / "__init__.py")} <= {"__future__", "mixtura"}


def test_importing_the_core_is_light() -> None:
    code = (
        "import sys, mixtura, mixtura.cli, mixtura.plugins, mixtura.config; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_library_code_prints_nothing() -> None:
    for file in CORE.rglob("*.py"):
        if file.name != "cli.py":
            calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
            assert not [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"], file


def test_no_file_is_longer_than_a_sitting() -> None:
    sources = [file for end in ("py", "h", "cpp", "cu", "cuh") for file in KERNELS.rglob(f"*.{end}") if "build" not in file.parts]
    files = [*CORE.rglob("*.py"), *sources, *(file for plugin in PLUGINS for file in plugin.rglob("*.py"))]
    assert [file for file in files if len(file.read_text().splitlines()) > 450] == []
