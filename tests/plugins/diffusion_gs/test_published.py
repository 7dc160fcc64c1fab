"""Published checkpoints: every layout is read, what doesn't fit is told, files of ours come back as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mixtura.errors import CheckpointError
from mixtura_diffusion_gs import published
from mixtura_diffusion_gs.cameras import mirrored, orbit
from mixtura_diffusion_gs.config import DiffusionGSConfig
from mixtura_diffusion_gs.published_files import averaged, read, to_published
from mixtura_diffusion_gs.system import DiffusionGS

LPIPS = {"loss_computer.lpips_loss_module.lin0.model.1.weight": torch.zeros(1, 4, 1, 1)}


def system(*kinds: str, seed: int = 0, **changes: Any) -> DiffusionGS:
    """A small network in the published set-up of these kinds."""
    torch.manual_seed(seed)
    settings = {"mirrored": True, "rays": {"scene": "pluecker"} if "scene" in kinds else {}, "width": 64, "head_dim": 64}
    given = {**settings, "layers": 1, "image_size": 16, "terms": ("image",), **changes}
    return DiffusionGS(DiffusionGSConfig(type="diffusion_gs", kinds=kinds, **given))


def bare(kind: str, seed: int = 1) -> dict[str, Tensor]:
    """A published network's tensors by bare names."""
    return to_published(system(kind, seed=seed).denoiser.state_dict(), kind)


def content(layout: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What a published file of a layout holds."""
    if layout == "lightning":
        return {"state_dict": {**{f"shape_model.{n}": t for n, t in tensors.items()}, **LPIPS}, "epoch": 3, "global_step": 7}
    if layout == "older":
        losses = {f"denoiser.{n}": t for n, t in LPIPS.items()}
        return {"model": {**{f"denoiser.{n}": t for n, t in tensors.items()}, **losses}}
    return tensors


def equal(one: DiffusionGS, other: DiffusionGS) -> bool:
    """Whether two systems have the same weights."""
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("kind", ["object", "scene"])
@pytest.mark.parametrize("layout", ["lightning", "older", "bare"])
def test_all_published_layouts_are_read(kind: str, layout: str, tmp_path: Path) -> None:
    torch.save(content(layout, bare(kind)), tmp_path / "some.ckpt")
    filled = system(kind)
    report = filled.load_published(tmp_path / "some.ckpt")
    assert equal(filled, system(kind, seed=1))
    assert [len(report[name]) for name in ("missing", "unexpected", "mismatched", "ignored")] == [0, 0, 0, layout != "bare"]


def test_safetensors_and_old_files_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(bare("scene"), tmp_path / "new.safetensors")
    torch.save(bare("scene"), tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for name in ("new.safetensors", "old.ckpt"):
        filled = system("scene")
        filled.load_published(tmp_path / name)
        assert equal(filled, system("scene", seed=1))


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    torch.save({name: tensor.half() for name, tensor in bare("object").items()}, tmp_path / "half.ckpt")
    filled = system("object")
    filled.load_published(tmp_path / "half.ckpt")
    assert filled.denoiser.gaussians_pos_embedding.dtype == torch.float32


def test_averaged_weights_lie_in_a_file_of_their_own(tmp_path: Path) -> None:
    plain = tmp_path / "step.ckpt"
    assert averaged(plain).name == "step-EMA.ckpt"
    torch.save(content("lightning", bare("scene")), averaged(plain))
    system("scene").load_published(averaged(plain))
    with pytest.raises(CheckpointError, match=r"step.ckpt: no such file; there is step-EMA.ckpt"):
        system("scene").load_published(plain)


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
@pytest.mark.parametrize("settings", [{}, {"mirrored": False}, {"rays": {"object": "pluecker"}}, {"sh_degree": 1, "free": 5}])
def test_what_was_saved_comes_back(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    first, second = (system("object", seed=seed, **settings) for seed in (0, 1))
    first.save_published(tmp_path / name)
    second.load_published(tmp_path / name)
    assert equal(first, second)


def test_two_kinds_are_saved_as_two_files_and_come_back_together(tmp_path: Path) -> None:
    first, second = (system("object", "scene", seed=seed) for seed in (0, 1))
    first.save_published(tmp_path / "both.ckpt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["both-object.ckpt", "both-scene.ckpt"]
    second.load_published(tmp_path / "both.ckpt")
    assert equal(first, second)
    alone = system("scene")
    alone.load_published(tmp_path / "both-scene.ckpt")
    assert torch.equal(alone.denoiser.image_tokenizer[1].weight, first.denoiser.image_tokenizer[1].weight)


def test_a_file_of_ours_is_what_the_published_loaders_look_for(tmp_path: Path) -> None:
    system("object", "scene").save_published(tmp_path / "both.ckpt")
    of_object, of_scene = (torch.load(tmp_path / f"both-{kind}.ckpt", weights_only=True) for kind in ("object", "scene"))
    assert {name.removeprefix("shape_model.") for name in of_scene["state_dict"]} == set(bare("scene"))
    assert {name.removeprefix("denoiser.") for name in of_object["model"]} == set(bare("object"))
    assert "model" not in of_scene  # the published scene loader would take it for the older layout
    token = "gaussians_pos_embedding"
    assert of_object["model"][f"denoiser.{token}"].shape == (2, 64)
    assert of_scene["state_dict"][f"shape_model.{token}"].shape == (1, 2, 64)
    weights = sum(tensor.numel() * 4 for tensor in bare("object").values())
    assert (tmp_path / "both-object.ckpt").stat().st_size < 1.2 * weights  # two names, one copy


@pytest.mark.parametrize(
    ("kind", "settings", "remedy"),
    [
        ("object", {"mirrored": False}, r"set `system.mirrored: true` \(it is false\)"),
        ("scene", {"rays": {}}, r"set `system.rays: {scene: pluecker}` \(it is {scene: reference}\)"),
        ("object", {"depth": {"object": {"reach": 1.0}}}, r"set `system.depth: {object: {rule: centred, reach: 1.8}}`"),
        ("object", {"head_dim": 32}, r"set `system.head_dim: 64` \(it is 32\)"),
        ("scene", {"objective": "regression"}, r"set `system.objective: diffusion`"),
    ],
)
def test_settings_that_contradict_the_weights_are_told(kind: str, settings: Any, remedy: str, tmp_path: Path) -> None:
    torch.save(bare(kind), tmp_path / "some.ckpt")
    other = system(kind, **settings)
    with pytest.raises(CheckpointError, match=remedy):
        other.load_published(tmp_path / "some.ckpt")


def test_compat_official_knows_objects_mirrored(tmp_path: Path) -> None:
    torch.save(bare("object"), tmp_path / "theirs.ckpt")
    official = system("object", mirrored=False, compat="official")
    official.load_published(tmp_path / "theirs.ckpt")
    system("object", mirrored=False).save_published(tmp_path / "ours.ckpt")
    with pytest.raises(CheckpointError, match=r"set `system.compat: fixed`"):
        official.load_published(tmp_path / "ours.ckpt")


def test_a_system_of_two_kinds_asks_for_both_files_or_a_choice(tmp_path: Path) -> None:
    torch.save(bare("object"), tmp_path / "object.ckpt")
    both = system("object", "scene")
    with pytest.raises(CheckpointError, match=r"holds one kind \(object\).*object-object.ckpt and object-scene.ckpt"):
        both.load_published(tmp_path / "object.ckpt")
    before = {name: tensor.clone() for name, tensor in both.state_dict().items()}
    report = published.load(both, tmp_path / "object.ckpt", only="object")
    assert report["missing"]
    assert all(name.startswith("decoders.scene.") for name in report["missing"])
    kept = [name for name, tensor in both.state_dict().items() if torch.equal(tensor, before[name])]
    assert {f"denoiser.{name}" for name in report["missing"]} <= set(kept)
    with pytest.raises(CheckpointError, match=r"kind 'object'; set `system.kinds: \[object\]`"):
        system("scene").load_published(tmp_path / "object.ckpt")


def test_models_trained_apart_cannot_share_a_network(tmp_path: Path) -> None:
    for seed, kind in enumerate(("object", "scene")):
        system(kind, seed=seed).save_published(tmp_path / f"apart-{kind}.ckpt")
    with pytest.raises(CheckpointError, match=r"differ in 'gaussians_pos_embedding'"):
        system("object", "scene").load_published(tmp_path / "apart.ckpt")


def test_what_does_not_fit_is_told_and_nothing_is_changed(tmp_path: Path) -> None:
    tensors = bare("object")
    tensors["extra"] = tensors.pop("transformer.0.mlp.fc1.bias")
    tensors["upsampler.linear.weight"] = torch.zeros(3)
    torch.save(tensors, tmp_path / "odd.ckpt")
    mine = system("object")
    report = published.dry_run(mine.config, tmp_path / "odd.ckpt")
    assert report.missing == ["transformer.0.mlp.fc1.bias"]
    assert report.unexpected == ["extra"]
    assert report.mismatched == ["decoders.object.upsampler.linear.weight: (3,), expected (14, 64)"]
    assert not report.fits
    with pytest.raises(CheckpointError, match=r"1 missing.*1 unexpected.*1 mismatched.*system.size"):
        mine.load_published(tmp_path / "odd.ckpt")
    assert equal(mine, system("object"))


def test_a_dry_run_at_full_size_needs_no_weights_in_memory(tmp_path: Path) -> None:
    torch.save(bare("scene"), tmp_path / "small.ckpt")
    full = DiffusionGSConfig(type="diffusion_gs", size="full", kinds=("scene",), compat="official")
    report = published.dry_run(full, tmp_path / "small.ckpt")
    assert len(report.missing) == 23 * 10
    assert "image_tokenizer.1.weight: (64, 576), expected (1024, 576)" in report.mismatched
    assert report.settings == []
    assert "system.size" in str(report)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"state_dict": {"unet.weight": torch.zeros(2)}}, r"no tensor 'gaussians_pos_embedding'.*unet.weight"),
        ([torch.zeros(2)], r"holds a list, expected tensors by name"),
        ({"gaussians_pos_embedding": torch.zeros(3)}, r"has shape \(3,\)"),
        ({"gaussians_pos_embedding": torch.zeros(2, 64), "mixtura": {"kind": "scene"}}, r"says .* 'scene'.* 'object'"),
    ],
)
def test_other_files_are_refused_by_name(stored: Any, message: str, tmp_path: Path) -> None:
    torch.save(stored, tmp_path / "some.ckpt")
    with pytest.raises(CheckpointError, match=rf"some.ckpt: .*{message}"):
        read(tmp_path / "some.ckpt")


def test_a_file_that_would_run_code_or_is_broken_is_refused(tmp_path: Path) -> None:
    torch.save({"model": system("object")}, tmp_path / "code.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(b"PK" + bytes(50))
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for name in ("code.ckpt", "broken.ckpt", "broken.safetensors"):
        with pytest.raises(CheckpointError, match=rf"{name}: can't be read"):
            read(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"is a folder; name the file"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["object", "scene"])
def test_the_full_configuration_has_the_published_layout(kind: str) -> None:
    with torch.device("meta"):
        full = DiffusionGS(DiffusionGSConfig(type="diffusion_gs", size="full", kinds=(kind,)))
    keys = json.loads((Path(__file__).parents[2] / f"parity/diffusion_gs/full_{kind}_keys.json").read_text())
    theirs = to_published(full.denoiser.state_dict(), full.config.kinds[0])
    assert {name: list(tensor.shape) for name, tensor in theirs.items()} == keys
    assert len(keys) == 255
    assert sum(p.numel() for p in full.parameters()) == 460_391_424


def test_the_camera_template_comes_back_right_handed(tmp_path: Path) -> None:
    c2w, lenses = orbit([0, 90, 180, 270], [10] * 4, 3.0, 39.6, 512)
    torch.save({"gen_c2w": mirrored(c2w)[None].double(), "gen_fxfycxcys": lenses[None]}, tmp_path / "camera_template.pt")
    read_c2w, read_lenses = published.read_template(tmp_path / "camera_template.pt")
    torch.testing.assert_close(read_c2w, c2w)
    torch.testing.assert_close(read_lenses, lenses)
    stored, _ = published.read_template(tmp_path / "camera_template.pt", as_stored=True)
    torch.testing.assert_close(stored, mirrored(c2w))


def test_a_wrong_camera_template_is_told(tmp_path: Path) -> None:
    path = tmp_path / "camera_template.pt"
    with pytest.raises(CheckpointError, match=r"no such file"):
        published.read_template(path)
    torch.save({"gen_c2w": torch.zeros(4, 4)}, path)
    with pytest.raises(CheckpointError, match=r"gen_c2w is \(4, 4\), expected a tensor \(1, V, 4, 4\)"):
        published.read_template(path)
