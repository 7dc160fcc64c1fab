"""What judges pictures besides their pixels: LPIPS by given weights, image gradients without any."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixtura.errors import CheckpointError
from mixtura.metrics.perceptual import (
    CONVOLUTIONS,
    CONVOLUTIONS_19,
    WIDTHS,
    Gradients,
    Groups,
    Lpips,
    PerceptualConfig,
    VggPyramid,
    build_perceptual,
)

State = dict[str, Tensor]


def random_trunk(groups: Groups) -> State:
    """VGG with random weights, by torchvision's names."""
    torch.manual_seed(0)
    state, before = {}, 3
    for numbers, width in zip(groups, WIDTHS, strict=True):
        for number in numbers:
            state[f"features.{number}.weight"] = torch.randn(width, before, 3, 3) * (2 / (9 * before)) ** 0.5
            state[f"features.{number}.bias"] = 0.1 * torch.randn(width)
            before = width
    return state


@pytest.fixture(scope="module")
def trunk() -> State:
    """VGG-16 with random weights."""
    return random_trunk(CONVOLUTIONS)


@pytest.fixture(scope="module")
def heads() -> State:
    """Random linear layers by the LPIPS package's names."""
    generator = torch.Generator().manual_seed(1)
    return {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator) for i, width in enumerate(WIDTHS)}


def pictures(seed: int = 2, size: int = 16) -> tuple[Tensor, Tensor]:
    """Two batches of random pictures (2, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.rand(2, 2, 3, size, size, generator=generator)
    return first, second


def judge_of(folder: Path, trunk: State, heads: State, size: int = 16) -> Lpips:
    """LPIPS from files with these weights."""
    torch.save(trunk, folder / "trunk.pth")
    torch.save(heads, folder / "heads.pth")
    judge = build_perceptual(PerceptualConfig(type="lpips", trunk="trunk.pth", heads="heads.pth", size=size), folder)
    assert isinstance(judge, Lpips)
    return judge


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, trunk: State, heads: State) -> Lpips:
    """LPIPS with the random weights."""
    return judge_of(tmp_path_factory.mktemp("lpips"), trunk, heads)


def test_lpips_is_zero_for_equal_pictures_positive_and_symmetric_otherwise(judge: Lpips) -> None:
    a, b = pictures()
    assert judge(a, a).tolist() == [0, 0]
    assert (judge(a, b) > 0.01).all()
    assert torch.equal(judge(a, b), judge(b, a))


def test_lpips_is_its_formula(judge: Lpips, heads: State) -> None:
    a, b = pictures()
    total = torch.zeros(2, dtype=torch.float64)
    for number, (one, other) in enumerate(zip(judge.features(a), judge.features(b), strict=True)):
        one, other = (f.double() / f.double().norm(dim=1, keepdim=True) for f in (one, other))
        total += ((one - other) ** 2 * heads[f"lin{number}.model.1.weight"]).sum(1).mean((1, 2))
    torch.testing.assert_close(judge(a, b).double(), total, rtol=1e-5, atol=1e-6)


def test_the_judge_is_frozen_and_pictures_get_gradients(judge: Lpips) -> None:
    a, b = pictures()
    assert not any(parameter.requires_grad for parameter in judge.parameters())
    a.requires_grad_()
    judge(a, b).sum().backward()
    assert a.grad is not None
    assert a.grad.abs().sum() > 0


def test_pictures_of_any_size_are_resized_first(judge: Lpips) -> None:
    a, b = pictures(size=24)
    small = [torch.nn.functional.interpolate(p, (16, 16), mode="bilinear", align_corners=False) for p in (a, b)]
    torch.testing.assert_close(judge(a, b), judge(*small))


def test_all_layouts_of_weights_are_read(tmp_path: Path, judge: Lpips, trunk: State, heads: State) -> None:
    from safetensors.torch import save_file

    save_file(trunk, tmp_path / "trunk.safetensors")
    torch.save({f"lin{i}.weight": tensor for i, tensor in enumerate(heads.values())}, tmp_path / "heads.pth")
    sliced = {name.replace("features.", "net.slice1."): tensor for name, tensor in trunk.items()}
    both = {f"loss_computer.lpips_loss_module.{name}": tensor for name, tensor in {**sliced, **heads}.items()}
    torch.save({"state_dict": {**both, "shape_model.other": torch.zeros(1)}}, tmp_path / "published.ckpt")
    for names in (("trunk.safetensors", "heads.pth"), ("published.ckpt", "published.ckpt")):
        read = build_perceptual(PerceptualConfig(type="lpips", trunk=names[0], heads=names[1]), tmp_path).state_dict()
        assert all(torch.equal(read[name], tensor) for name, tensor in judge.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.0.weight": None}, r"trunk.pth has 0 tensors named like .*, expected one"),
        ({"features.0.weight": torch.zeros(4, 3, 3, 3)}, r"trunk.pth holds \(4, 3, 3, 3\) where \(64, 3, 3, 3\) is expected"),
        ({"encoder.features.0.weight": torch.zeros(1)}, r"trunk.pth has 2 tensors named like"),
    ],
)
def test_weights_of_another_network_are_refused(
    change: dict[str, Tensor | None], message: str, tmp_path: Path, trunk: State, heads: State
) -> None:
    other = {name: tensor for name, tensor in {**trunk, **change}.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=message):
        judge_of(tmp_path, other, heads)


def test_missing_and_broken_files_are_told(tmp_path: Path) -> None:
    config = PerceptualConfig(type="lpips", trunk="trunk.pth", heads="heads.pth")
    with pytest.raises(CheckpointError, match=r"no file .*trunk.pth; give VGG's .* or use `type: gradients`"):
        build_perceptual(config, tmp_path)
    (tmp_path / "trunk.pth").write_bytes(b"PK no")
    with pytest.raises(CheckpointError, match=r"trunk.pth can't be read as plain tensors"):
        build_perceptual(config, tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "trunk.pth")
    with pytest.raises(CheckpointError, match=r"holds a list, expected tensors by name"):
        build_perceptual(config, tmp_path)


def test_gradients_need_nothing_and_see_edges_but_no_brightness() -> None:
    judge, (a, b) = build_perceptual(PerceptualConfig()), pictures()
    assert isinstance(judge, Gradients)
    assert judge(a, a).tolist() == [0, 0]
    assert torch.equal(judge(a, b), judge(b, a))
    torch.testing.assert_close(judge(a, a + 0.2), torch.zeros(2), atol=1e-6, rtol=0)
    assert (judge(a, b) > judge(a, 0.9 * a + 0.1 * b)).all()


def test_gradients_take_pictures_of_any_size() -> None:
    for size in ((1, 1), (2, 7), (33, 20)):
        one, other = torch.rand(2, 3, *size), torch.rand(2, 3, *size)
        assert Gradients()(one, other).shape == (2,)


# -- the pyramid of VGG-19 --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory: pytest.TempPathFactory) -> VggPyramid:
    """The pyramid with random weights."""
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(random_trunk(CONVOLUTIONS_19), path)
    judge = build_perceptual(PerceptualConfig(type="vgg19", trunk=str(path)))
    assert isinstance(judge, VggPyramid)
    return judge


def test_the_pyramid_is_zero_for_equal_pictures_positive_and_symmetric_otherwise(pyramid: VggPyramid) -> None:
    a, b = pictures(size=32)
    assert pyramid(a, a).tolist() == [0, 0]
    assert (pyramid(a, b) > 0.01).all()
    torch.testing.assert_close(pyramid(a, b), pyramid(b, a))
    assert not any(parameter.requires_grad for parameter in pyramid.parameters())


def test_the_pyramid_adds_up_sizes_until_pictures_are_too_small(pyramid: VggPyramid) -> None:
    a, b = pictures(size=32)
    halves = [torch.nn.functional.avg_pool2d(p, 2) for p in (a, b)]
    single = sum((x - y).abs().mean((1, 2, 3)) for x, y in zip(pyramid.features(a), pyramid.features(b), strict=True))
    torch.testing.assert_close(pyramid(a, b), single + pyramid(*halves))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"type": "vgg19"}, "vgg19 needs `trunk`"),
        ({"type": "vgg19", "trunk": "a", "heads": "b"}, "`heads` belongs to"),
        ({"type": "lpips", "trunk": "a"}, "lpips needs `trunk` and `heads`"),
        ({"trunk": "a"}, "belong to `type: lpips`"),
    ],
)
def test_files_must_fit_the_judge(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceptualConfig(**settings)
