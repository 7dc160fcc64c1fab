"""What the README shows is true: its configuration loads, its verbs exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixtura.cli import build_parser
from mixtura.config import loads

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "kernels/README.md")),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "plugins").glob("*/README.md"),
]


def test_the_configuration_of_the_readme_is_valid() -> None:
    block = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block
    assert [stage.name for stage in loads(block[1], name="README.md").config.stages] == ["latent-actions", "dual-level"]


def test_the_verbs_of_the_readme_exist() -> None:
    words = set(re.findall(r"mixtura ([a-z]+)", (ROOT / "README.md").read_text())) - {"is"}
    verbs = next(a for a in build_parser()._actions if a.dest == "name").choices
    assert words <= set(verbs or ())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target
