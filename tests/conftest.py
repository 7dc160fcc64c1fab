"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# A slow machine is no defect: speed is measured in `benchmarks/`, never asserted here.
settings.register_profile("mixtura", deadline=None)
settings.load_profile("mixtura")
