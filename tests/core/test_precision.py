"""Device and precision."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState

from mixtura.config.schema import TrainSection
from mixtura.errors import ConfigError
from mixtura.precision import has_bf16, make_accelerator

INSTRUCTIONS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """A processor with one of the instructions, and an accelerate that has not been set up, before and after."""
    AcceleratorState._reset_state(reset_partial_state=True)
    for name in INSTRUCTIONS:
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == request.param, raising=False)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("processor", INSTRUCTIONS, indirect=True)
@pytest.mark.usefixtures("processor")
def test_bf16_on_a_processor_that_has_it_goes_without_a_warning() -> None:
    assert has_bf16()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_accelerator(TrainSection(device="cpu", precision="bf16")).mixed_precision == "bf16"


@pytest.mark.parametrize("processor", ["none"], indirect=True)
@pytest.mark.usefixtures("processor")
def test_bf16_on_a_processor_without_it_warns() -> None:
    with pytest.warns(UserWarning, match="slower than fp32"):
        make_accelerator(TrainSection(device="cpu", precision="bf16"))


def test_fp16_on_the_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        make_accelerator(TrainSection(device="cpu", precision="fp16"))
