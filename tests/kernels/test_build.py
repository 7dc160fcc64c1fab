"""Building: what is compiled, what is taken from the cache, and what is said when something fails."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from mixtura_splat import build
from mixtura_splat.build import Target

COMPILER = """#!/bin/sh
[ "$1" = --version ] && { echo "pretend {version}"; exit 0; }
echo "$@" >> {log}
while [ "$1" != -o ]; do shift; done
echo compiled > "$2"
"""


class Workshop:
    """A folder with a compiler that only pretends, a cache and a place for the libraries."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.libraries, self.log = folder, folder / "libraries", folder / "calls"
        self.compiler = folder / "pretend-c++"
        self.write(COMPILER)

    def write(self, script: str, version: str = "1") -> None:
        self.compiler.write_text(script.replace("{log}", str(self.log)).replace("{version}", version))
        self.compiler.chmod(0o755)

    def calls(self) -> int:
        """How often something was compiled."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def run(self, **options: bool) -> dict[str, str]:
        return build.build(self.libraries, cuda=False, **options)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    made = Workshop(tmp_path)
    monkeypatch.setenv("CXX", str(made.compiler))
    monkeypatch.setenv("MIXTURA_SPLAT_CACHE", str(tmp_path / "cache"))
    return made


NAMES = {target.name for target in build.cpu_targets()}


def test_every_library_is_built_and_recorded(workshop: Workshop) -> None:
    assert workshop.run() == dict.fromkeys(NAMES, "")
    assert {path.stem for path in workshop.libraries.glob("*.so")} == NAMES
    assert json.loads((workshop.libraries / "build.json").read_text()) == dict.fromkeys(NAMES, "")


def test_a_second_build_does_not_call_the_compiler(workshop: Workshop) -> None:
    workshop.run()
    shutil.rmtree(workshop.libraries)
    assert workshop.run() == dict.fromkeys(NAMES, "")
    assert workshop.calls() == len(NAMES)
    assert len(list(workshop.libraries.glob("*.so"))) == len(NAMES)


def test_force_compiles_again(workshop: Workshop) -> None:
    workshop.run()
    workshop.run(force=True)
    assert workshop.calls() == 2 * len(NAMES)


def test_another_compiler_compiles_again(workshop: Workshop) -> None:
    workshop.run()
    workshop.write(COMPILER, version="2")
    workshop.run()
    assert workshop.calls() == 2 * len(NAMES)


def test_a_changed_source_compiles_again(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = workshop.folder / "csrc"
    shutil.copytree(build.sources_root(), sources)
    monkeypatch.setattr(build, "sources_root", lambda: sources)
    workshop.run()
    (sources / "math.h").write_text((sources / "math.h").read_text() + "\n")
    workshop.run()
    assert workshop.calls() == 2 * len(NAMES)


def test_other_flags_compile_again(workshop: Workshop) -> None:
    one, other = (Target("cpu-test", "cpu", flags) for flags in ((), ("-DOTHER",)))
    compiler = str(workshop.compiler)
    assert build.fingerprint(one, compiler) != build.fingerprint(other, compiler)
    assert build.fingerprint(one, compiler) == build.fingerprint(one, compiler)


def test_a_missing_compiler_is_told_and_nothing_raised(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent")
    told = workshop.run()
    assert told.keys() == NAMES
    assert all("no C++ compiler at CXX=/nonexistent (install g++" in text for text in told.values())
    assert not list(workshop.libraries.glob("*.so"))


def test_a_machine_without_compilers_is_told(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(workshop.folder / "empty"))
    assert all(text.startswith("no C++ compiler (install g++") for text in workshop.run().values())


def test_a_failing_compiler_is_quoted(workshop: Workshop) -> None:
    workshop.write("#!/bin/sh\n[ $1 = --version ] && exit 0\nfor i in 1 2 3 4 5 6 7 8; do echo line $i >&2; done\nexit 1\n")
    told = workshop.run()
    assert told == dict.fromkeys(NAMES, "pretend-c++ failed: " + " | ".join(f"line {i}" for i in range(1, 7)))
    assert not list((workshop.folder / "cache").glob("*.so"))


def test_one_failure_does_not_stop_the_others(workshop: Workshop) -> None:
    workshop.write(COMPILER.replace("while", 'case "$*" in *SPLAT_DOUBLE*) echo too narrow >&2; exit 1;; esac\nwhile'))
    told = workshop.run()
    assert told["cpu-float64"] == "pretend-c++ failed: too narrow"
    assert all(not text for name, text in told.items() if name != "cpu-float64")


def test_a_cache_that_cannot_be_written_is_told(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    (workshop.folder / "file").write_text("")
    monkeypatch.setenv("MIXTURA_SPLAT_CACHE", str(workshop.folder / "file"))
    assert all("file" in text for text in workshop.run().values())


def test_the_record_keeps_what_was_not_built_this_time(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    build.build(workshop.libraries, cpu=False)
    workshop.run()
    record = json.loads((workshop.libraries / "build.json").read_text())
    assert record["cuda"].startswith("no nvcc (install the CUDA toolkit")
    assert record["cpu-float64"] == ""


def test_the_command_says_what_came_of_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(build, "build", partial(build.build, workshop.libraries))
    assert build.main(["--cpu"]) == 0
    assert capsys.readouterr().out.count(" built\n") == len(NAMES)
    monkeypatch.setenv("CXX", "/nonexistent")
    assert build.main(["--cpu"]) == 1


def test_sources_and_headers_of_every_target_exist() -> None:
    for target in [*build.cpu_targets(), build.cuda_target()]:
        sources = [part for part in build.command(target, "c++", Path("out")) if part.endswith((".cpp", ".cu"))]
        assert len(sources) >= 5


def test_this_installation_compiled_all_that_it_has_a_compiler_for() -> None:
    record = build.LIBRARIES / build.RECORD
    if not record.is_file():
        pytest.skip("the kernels were not installed here: pip install -e kernels")
    problems = {name: problem for name, problem in json.loads(record.read_text()).items() if problem}
    assert not (problems if build.find_nvcc() else {name: p for name, p in problems.items() if name != "cuda"})
