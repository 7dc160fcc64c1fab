"""Kernels and reference against the recorded arrays of another implementation, in both precisions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity import cases_splatting_kernels as cases
from tests.parity.fill import compare

FOLDER = Path(cases.__file__).parent / "splatting_kernels"
FORWARD = {torch.float32: 1e-5, torch.float64: 1e-10}
BACKWARD = {torch.float32: 1e-4, torch.float64: 1e-10}


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "reference"])
@pytest.mark.parametrize("dtype", FORWARD, ids=["float32", "float64"])
@pytest.mark.parametrize("case", cases.TABLE)
def test_everything_recorded_is_reproduced(case: str, dtype: torch.dtype, kernels: bool) -> None:
    found = {name: compare(ours, theirs, name) for name, ours, theirs in cases.outputs(FOLDER / case, dtype, kernels)}
    limits = {name: BACKWARD[dtype] if name.startswith(("v_", "absgrad")) else FORWARD[dtype] for name in found}
    assert len(found) >= 19
    assert {name: error for name, error in found.items() if error > limits[name]} == {}
