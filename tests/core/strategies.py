"""Values that hypothesis draws in more than one file of tests."""

from __future__ import annotations

from hypothesis import strategies as st

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12) | st.sampled_from(
    [
        "1e-4",
        "on",
        "null",
        "~",
        "0x1",
        "1_0",
        ".nan",
        "<<",
        "=",
        "${run.name}",
        "$${",
        "- a",
        "a: b",
        "#",
        "2026-01-01",
        "\n",
        "\u2028",
        "\x85 ",
    ]
)
"""Any text, and what YAML or a reference could take for something else."""
SCALARS = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | WORDS
"""Any value that a configuration can hold, but lists and mappings."""
