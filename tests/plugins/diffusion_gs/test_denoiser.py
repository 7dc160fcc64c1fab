"""The denoiser: tokens and kinds go where they should, and what saves memory or time changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from mixtura.precision import checkpoint_blocks
from mixtura_diffusion_gs.cameras import orbit, rays
from mixtura_diffusion_gs.nets.denoiser import Block, Denoiser, Sizes, TimeEmbedder, into_patches, network_input

SIZES = Sizes(width=32, layers=2, head_dim=16, patch=4, free=2, sh_degree=0)
VIEWS, SIZE = 3, 8


def denoiser(*kinds: str, seed: int = 0, sizes: Sizes = SIZES) -> Denoiser:
    """A small network whose modulations and biases aren't those of the start."""
    torch.manual_seed(seed)
    net = Denoiser(sizes, kinds or ("object", "scene"))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def given(batch: int = 4, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Network input (B, V, 9, S, S), times and kinds, these in turn."""
    torch.manual_seed(seed)
    return torch.randn(batch, VIEWS, 9, SIZE, SIZE), torch.randint(0, 1000, (batch,)), torch.arange(batch) % 2


def test_there_is_a_gaussian_for_every_pixel_and_free_ones() -> None:
    views, t, kinds = given()
    free, pixels = denoiser()(views, t, kinds)
    assert free.shape == (4, 2, 14)
    assert pixels.shape == (4, VIEWS * SIZE * SIZE, 14)
    sizes = Sizes(width=32, layers=1, head_dim=16, patch=2, free=5, sh_degree=2)
    free, pixels = denoiser("scene", sizes=sizes)(views, t)
    assert free.shape == (4, 5, 38)
    assert pixels.shape == (4, VIEWS * SIZE * SIZE, 38)


@torch.no_grad()
def test_a_mixed_batch_gives_what_every_item_gives_alone() -> None:
    net, (views, t, kinds) = denoiser(), given(5)
    together = net(views, t, kinds)
    for item in range(5):
        alone = net(views[item : item + 1], t[item : item + 1], kinds[item : item + 1])
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], other[item], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_each_kind_has_a_decoder_of_its_own_on_a_shared_trunk() -> None:
    net, (views, t, _) = denoiser(), given(1)
    as_object, as_scene = (net(views, t, torch.tensor([kind]))[1] for kind in (0, 1))
    assert not torch.allclose(as_object, as_scene)
    for number, kind in enumerate(("object", "scene")):
        single = denoiser(kind)
        mine = {n: p for n, p in net.state_dict().items() if not n.startswith("decoders.") or n.startswith(f"decoders.{kind}.")}
        single.load_state_dict(mine)
        torch.testing.assert_close(single(views, t)[1], (as_object, as_scene)[number])


@torch.no_grad()
def test_views_and_times_matter_and_the_batch_does_not() -> None:
    net, (views, t, kinds) = denoiser(), given(2)
    before = net(views, t, kinds)[1]
    changed = views.clone()
    changed[0, 2] += 1
    after = net(changed, t, kinds)[1]
    assert not torch.allclose(after[0, :64], before[0, :64])  # every view sees every other
    torch.testing.assert_close(after[1], before[1])
    assert not torch.allclose(net(views, t + 1, kinds)[1], before)


@torch.no_grad()
def test_all_sizes_and_numbers_of_views_go_through_one_network() -> None:
    net = denoiser("object")
    for shape in ((1, 2, 9, 16, 8), (2, 6, 9, 4, 4)):
        assert net(torch.randn(shape), torch.zeros(shape[0], dtype=torch.long))[1].shape[1] == shape[1] * shape[3] * shape[4]


def test_a_patch_is_read_by_row_column_channel() -> None:
    row, column = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    picture = torch.stack([10 * row + column, 100 + 10 * row + column])[None, None]
    patches = into_patches(picture, 2)
    assert patches.shape == (1, 6, 8)
    assert patches[0, 0].tolist() == [0, 100, 1, 101, 10, 110, 11, 111]
    assert patches[0, 1, :2].tolist() == [2, 102]
    assert patches[0, 3, :2].tolist() == [20, 120]


def test_rays_are_encoded_as_the_paper_and_the_scene_model_do() -> None:
    c2w, intrinsics = orbit([0, 120], [10, 20], 3.0, 40.0, 8)
    origins, directions = rays(c2w[None], intrinsics[None], 8, 8)
    images = torch.rand(1, 2, 3, 8, 8)
    reference, pluecker = (network_input(images, origins, directions, name) for name in ("reference", "pluecker"))
    for seen in (reference, pluecker):
        torch.testing.assert_close(seen[:, :, :3], 2 * images - 1)
    torch.testing.assert_close(reference[:, :, 3:6], directions)
    torch.testing.assert_close(pluecker[:, :, 6:], directions)
    moment = pluecker[:, :, 3:6]
    torch.testing.assert_close(moment, torch.linalg.cross(reference[:, :, 6:], directions, dim=2), atol=1e-6, rtol=1e-5)


def test_time_is_told_by_cosines_then_sines() -> None:
    embedder, seen = TimeEmbedder(8), []
    embedder.mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    embedder(torch.tensor([0, 500]))
    torch.testing.assert_close(seen[0][0], torch.cat([torch.ones(128), torch.zeros(128)]))
    assert seen[0][1, 0].item() == pytest.approx(torch.tensor(500.0).cos().item(), abs=1e-5)
    assert seen[0][1, 128 + 64].item() == pytest.approx(torch.tensor(5.0).sin().item(), abs=1e-4)  # 500 / 10000^(64/128)


def gradients(net: Denoiser) -> dict[str, Tensor]:
    """Gradients of all weights of a mixed batch."""
    views, t, kinds = given()
    free, pixels = net(views, t, kinds)
    (free.square().mean() + pixels.square().mean()).backward()
    return {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    plain = denoiser().train()
    saving = copy.deepcopy(plain)
    checkpoint_blocks(saving, (Block,))
    expected, found = gradients(plain), gradients(saving)
    assert set(expected) == set(found) == set(dict(plain.named_parameters()))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@torch.no_grad()
def test_the_compiled_network_gives_the_same_output() -> None:
    net, (views, t, _) = denoiser("object"), given()
    expected = net(views, t)
    for one, other in zip(torch.compile(net)(views, t), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_bfloat16_stays_close_to_float32() -> None:
    net, (views, t, kinds) = denoiser(), given()
    expected = net(views, t, kinds)[1]
    with torch.autocast("cpu", torch.bfloat16):
        found = net(views, t, kinds)[1].float()
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_a_start_has_the_published_spread() -> None:
    torch.manual_seed(0)
    net = Denoiser(Sizes(width=128, layers=1, head_dim=64, patch=8, free=2, sh_degree=0), ["object"])
    block = net.transformer[0]
    assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.adaLN_modulation[1].weight.std().item() == pytest.approx(0.02, rel=0.05)  # not zero, as one would expect
    assert not block.mlp.fc1.bias.any()
    assert torch.equal(net.transformer_input_layernorm.weight, torch.ones(128))
    assert net.gaussians_pos_embedding.std().item() == pytest.approx(0.02, rel=0.2)
