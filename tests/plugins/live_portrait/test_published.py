"""Published folders: every layout is read, what doesn't fit is told by file, nothing in a file runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixtura.errors import CheckpointError
from mixtura_live_portrait import published
from mixtura_live_portrait.nets import Networks
from mixtura_live_portrait.nets.sizes import TINY, Sizes

SMALL = "retargeting_models/stitching_retargeting_module.pth"
WARPING = "base_models/warping_module.pth"


def networks(seed: int = 0, sizes: Sizes = TINY) -> Networks:
    """Small networks."""
    torch.manual_seed(seed)
    return Networks(sizes)


def equal(one: Networks, other: Networks) -> bool:
    """Whether two have the same weights."""
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published folder with the networks of seed 1."""
    published.save(networks(1), tmp_path / "liveportrait")
    return tmp_path / "liveportrait"


def change(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite a file; `edit` changes its content or returns another."""
    content = torch.load(file, weights_only=True)
    other = edit(content)
    torch.save(content if other is None else other, file)


def check_filled(path: Path) -> None:
    """Loading from `path` gives the networks of seed 1."""
    filled = networks(0)
    assert published.load(filled, path) == {"missing": [], "unexpected": [], "mismatched": []}
    assert equal(filled, networks(1))


def test_what_was_saved_comes_back_from_the_folder_or_any_file_in_it(folder: Path) -> None:
    for path in (folder, folder.parent, folder / WARPING, folder / SMALL):
        check_filled(path)


def test_saved_are_the_official_files(folder: Path) -> None:
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    stems = ("appearance_feature_extractor", "motion_extractor", "spade_generator", "warping_module")
    assert files == [*(f"base_models/{stem}.pth" for stem in stems), SMALL]
    assert set(torch.load(folder / SMALL, weights_only=True)) == {"retarget_shoulder", "retarget_mouth", "retarget_eye"}
    published.save(networks(1), folder.with_name("exported.pt"))
    check_filled(folder.with_name("exported"))


def test_prefixes_of_parallel_training_are_stripped(folder: Path) -> None:
    def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {f"module.{name}": tensor for name, tensor in state.items()}

    change(folder / SMALL, lambda content: {entry: prefixed(state) for entry, state in content.items()})
    change(folder / WARPING, prefixed)
    check_filled(folder)


def test_animals_take_the_newer_files_and_the_humans_small_networks(folder: Path) -> None:
    animals = folder.with_name("liveportrait_animals")
    shutil.copytree(folder / "base_models", animals / "base_models_v1.1")
    published.save(networks(2), animals)
    shutil.rmtree(animals / "retargeting_models")
    check_filled(animals)
    with pytest.raises(CheckpointError, match="holds liveportrait and liveportrait_animals; name one"):
        published.load(networks(), folder.parent)


@pytest.mark.parametrize("joint", [".", "_module."])
def test_flat_folders_of_safetensors_are_read(folder: Path, joint: str) -> None:
    from safetensors.torch import save_file

    flat = folder.with_name("flat")
    flat.mkdir()
    for file in folder.rglob("*.pth"):
        content = torch.load(file, weights_only=True)
        if file.name == Path(SMALL).name:
            content = {f"{entry}{joint}{name}": tensor for entry, state in content.items() for name, tensor in state.items()}
        save_file(content, flat / f"{file.stem}.safetensors")
    check_filled(flat)


def test_half_precision_and_old_pickles_are_read(folder: Path) -> None:
    content = torch.load(folder / WARPING, weights_only=True)
    torch.save(
        {name: tensor.double() for name, tensor in content.items()}, folder / WARPING, _use_new_zipfile_serialization=False
    )
    check_filled(folder)


def test_everything_that_does_not_fit_is_told_by_file_and_nothing_is_loaded(folder: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["extra"] = content.pop("fourth.bias")

    change(folder / WARPING, spoil)
    change(folder / SMALL, lambda content: content["retarget_eye"].update({"mlp.0.bias": torch.zeros(3)}))
    own = networks(0)
    said = (
        r"1 missing: warping_module.pth: fourth.bias; 1 unexpected: warping_module.pth: extra; "
        r"1 mismatched: stitching_retargeting_module.pth: retarget_eye.mlp.0.bias: \(3,\), expected \(64,\)"
    )
    with pytest.raises(CheckpointError, match=said):
        published.load(own, folder)
    assert equal(own, networks(0))
    with torch.device("meta"):
        meta = networks()
    assert published.dry_run(meta, folder).startswith("1 missing: warping_module.pth: fourth.bias")


def test_a_dry_run_needs_only_sizes(folder: Path) -> None:
    assert published.dry_run(TINY, folder) == "every tensor fits"
    assert "mismatched: motion_extractor.pth: detector.fc_kp.weight" in published.dry_run(replace(TINY, keypoints=11), folder)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere", "nowhere: no such folder; give the published folder"),
        ("empty", r"appearance_feature_extractor.pth, .*stitching_retargeting_module.pth not found; expected base_models/"),
    ],
)
def test_missing_files_are_named(tmp_path: Path, path: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=said):
        published.load(networks(), tmp_path / path)


class Hostile:
    """Runs a command when unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_hostile_pickle_is_one_error_and_runs_nothing(folder: Path, is_zip: bool) -> None:
    mark = folder / "was-here"
    hostile = {"x": Hostile(f"touch {mark}")}
    torch.save(hostile, folder / WARPING, _use_new_zipfile_serialization=is_zip)
    own = networks(0)
    with pytest.raises(CheckpointError, match="warping_module.pth: can't be read as a file of plain tensors"):
        published.load(own, folder)
    assert not mark.exists()
    assert equal(own, networks(0))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "can't be read"),
        (b"PK\x03\x04 cut short", "can't be read"),
        (b"not a pickle", "can't be read"),
        ([1, 2], "the file is list, expected tensors by name"),
        ({}, "the file is dict, expected tensors by name"),
        ({"fourth.bias": 3}, "'fourth.bias' in the file is int"),
        ({"fourth.bias": torch.zeros(3).to_sparse()}, "'fourth.bias' in the file is no plain tensor"),
    ],
)
def test_broken_files_are_one_error(folder: Path, content: Any, said: str) -> None:
    if isinstance(content, bytes):
        (folder / WARPING).write_bytes(content)
    else:
        torch.save(content, folder / WARPING)
    with pytest.raises(CheckpointError, match=f"warping_module.pth: .*{said}"):
        published.load(networks(), folder)


def test_a_small_file_without_one_of_its_networks_is_told(folder: Path) -> None:
    change(folder / SMALL, lambda content: {"retarget_shoulder": content["retarget_shoulder"]})
    with pytest.raises(CheckpointError, match="has no entry 'retarget_mouth'; it holds retarget_shoulder"):
        published.load(networks(), folder)
