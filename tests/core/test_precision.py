"""Device and precision."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from mixtura.config.schema import TrainSection
from mixtura.errors import ConfigError
from mixtura.precision import has_bf16, make_accelerator
from mixtura.trainer import train

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


@pytest.mark.parametrize(("processor", "chosen"), [(INSTRUCTIONS[0], "bf16"), ("none", "no")], indirect=["processor"])
@pytest.mark.usefixtures("processor")
def test_auto_takes_bf16_where_the_processor_has_it(chosen: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_accelerator(TrainSection(device="cpu", precision="auto")).mixed_precision == chosen


@pytest.mark.parametrize("processor", INSTRUCTIONS[:1], indirect=True)
@pytest.mark.usefixtures("processor")
def test_a_run_that_goes_on_in_other_numbers_says_so(
    toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = toy(train={"device": "cpu", "precision": "auto"}, checkpoint={"every": 5}, log={"to": ["console"]})
    train(config, root=tmp_path)
    for resumed_on, said in (("the same", False), ("another processor", True)):
        AcceleratorState._reset_state(reset_partial_state=True)
        if said:
            monkeypatch.setattr(torch.cpu, INSTRUCTIONS[0], bool, raising=False)
        capsys.readouterr()
        train(config, resume=True, root=tmp_path)
        assert ("in fp32; until now it was bf16" in capsys.readouterr().out) == said, resumed_on


def test_fp16_on_the_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        make_accelerator(TrainSection(device="cpu", precision="fp16"))
