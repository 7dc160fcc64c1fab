"""The seven networks: shapes at every size, gradients, and what their shortcuts stand for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixtura.errors import ConfigError
from mixtura_live_portrait.calibration import calibrate
from mixtura_live_portrait.nets import NETWORKS, Networks, build
from mixtura_live_portrait.nets.blocks import Decoder, Encoder, ShallowConv3d, Spade, SpectralConv2d
from mixtura_live_portrait.nets.sizes import TINY, Sizes
from mixtura_live_portrait.nets.warping import Warping, heat, moved, shifts, sparse_flows


def points(batch: int, count: int, seed: int = 0) -> Tensor:
    """Some keypoints (b, k, 3)."""
    return torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(seed)) * 1.6 - 0.8


def frame(networks: Networks, image: Tensor) -> Tensor:
    """A picture from a picture, through F, M, W, G."""
    count = networks.sizes.keypoints
    volume, heads = networks.appearance(image), networks.motion(image)
    driving = heads.kp.unflatten(-1, (count, 3)) * heads.scale[..., None]
    return networks.generator(networks.warping(volume, driving, points(len(image), count)).out)


@pytest.mark.parametrize("changes", [{}, {"shuffle": 2}, {"keypoints": 12, "downs": 1}, {"dense_blocks": 1, "middle": 1}])
def test_small_networks_paint_pictures_and_learn(changes: dict[str, int]) -> None:
    sizes = replace(TINY, **changes)
    networks = Networks(sizes)
    picture = frame(networks, torch.rand(2, 3, 64, 64))
    assert picture.shape == (2, 3, sizes.output, sizes.output)
    assert 0 < picture.min() < picture.max() < 1
    picture.sum().backward()
    names = ("appearance", "motion.detector.stages", "warping", "generator")
    without = [n for n, p in networks.named_parameters() if n.startswith(names) and p.grad is None]
    assert not without


def test_small_mlps_have_the_shapes_of_their_jobs() -> None:
    networks, k = build(TINY), TINY.keypoints
    for name, inputs, outputs in (("stitching", 6 * k, 3 * k + 2), ("eyes", 3 * k + 3, 3 * k), ("lips", 3 * k + 2, 3 * k)):
        assert networks[name](torch.zeros(5, inputs)).shape == (5, outputs)


def test_the_published_size_is_built_without_memory() -> None:
    with torch.device("meta"):
        networks = Networks(Sizes())
        volume = networks.appearance(torch.zeros(1, 3, 256, 256))
        out = networks.warping(volume, torch.zeros(1, 21, 3), torch.zeros(1, 21, 3))
        picture = networks.generator(out.out)
    assert tuple(name for name, _ in networks.named_children()) == NETWORKS
    assert volume.shape[1:] == Sizes().volume
    assert (out.deformation.shape, out.occlusion.shape) == ((1, 16, 64, 64, 3), (1, 1, 64, 64))
    assert picture.shape == (1, 3, 512, 512)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image": 100}, "image: 100 must be a multiple of 32 .*multiple of 128"),
        ({"keypoints": 0, "eyes": ()}, r"keypoints: 0, expected .*; eyes: \(\), expected"),
        ({"motion_depths": (1, 2)}, "motion_depths has 2 stages, motion_dims 4"),
    ],
)
def test_sizes_that_cannot_be_are_all_told(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Sizes(**changes)


def test_moving_a_volume_is_trilinear_sampling_with_the_same_gradients() -> None:
    driving, source = points(2, 3, 1).requires_grad_(), points(2, 3, 2).requires_grad_()
    volume = torch.randn(2, 4, 6, 8, 10, requires_grad=True)
    flows = sparse_flows(driving, source, (6, 8, 10))
    sampled = F.grid_sample(
        volume[:, None].expand(-1, 4, -1, -1, -1, -1).flatten(0, 1), flows.flatten(0, 1), align_corners=False
    ).unflatten(0, (2, 4))
    ours = moved(volume, shifts(driving, source))
    torch.testing.assert_close(ours, sampled, atol=1e-5, rtol=1e-4)
    weight = torch.randn_like(ours)
    inputs = (volume, driving, source)
    for one, other in zip(
        torch.autograd.grad((ours * weight).sum(), inputs), torch.autograd.grad((sampled * weight).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_heat_is_the_gaussian_of_the_distance() -> None:
    keypoint = torch.tensor([[[0.3, -0.5, 0.1]]])
    nowhere = keypoint[:, :0]
    grid = sparse_flows(nowhere, nowhere, (5, 6, 7))[0, 0]
    torch.testing.assert_close(heat(keypoint, (5, 6, 7))[0, 0], torch.exp(-50 * (grid - keypoint[0, 0]).square().sum(-1)))


def test_heat_over_few_cells_misses_no_keypoint() -> None:
    keypoint = torch.tensor([[[0.0, 0.0, 0.0]]])  # between the two middle depths of four
    fine, coarse = (heat(keypoint, (4, 32, 32), is_coarse).amax() for is_coarse in (False, True))
    assert fine < 0.3 < 0.5 < coarse
    torch.testing.assert_close(heat(keypoint, (4, 32, 32), True)[0, 0, 1].sum(), heat(keypoint, (4, 32, 32), True)[0, 0, 2].sum())


def test_over_few_cells_small_moves_of_lids_are_told_as_well_as_large_ones() -> None:
    source = torch.tensor([[[0.0, 0.0, -0.25]]])
    told = []
    for by in (0.03, 0.3):
        driving = source + torch.tensor([0.0, by, 0.0])
        warping = Warping(replace(TINY, keypoints=1))
        seen: list[Tensor] = []
        warping.dense_motion_network.hourglass.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        warping(torch.zeros(1, *TINY.volume), driving, source)
        told.append(seen[0].view(1, 2, -1, *TINY.volume[1:])[0, 1, 0].amax())
    torch.testing.assert_close(*told, rtol=0.1, atol=0)


@pytest.mark.parametrize("is_coarse", [True, False])
def test_equal_keypoints_leave_the_volume_where_it_is(is_coarse: bool) -> None:
    """To the cell where centres count; shrunk by one cell as the published networks count."""
    sizes = replace(TINY, coarse=is_coarse)
    kp, volume = points(1, sizes.keypoints), torch.randn(1, *sizes.volume)
    with torch.no_grad():
        deformation = Networks(sizes).warping.eval()(volume, kp, kp).deformation
    torch.testing.assert_close(deformation, sparse_flows(kp[:, :0], kp[:, :0], sizes.volume[1:], is_coarse)[:, 0])
    bent = F.grid_sample(volume, deformation, align_corners=False)
    assert torch.allclose(bent, volume, atol=1e-5) == is_coarse


def test_an_untrained_warp_takes_each_place_along_with_the_keypoint_beside_it() -> None:
    sizes = replace(TINY, keypoints=2)
    source = torch.tensor([[[-0.5, -0.5, 0.0], [0.5, 0.5, 0.0]]])
    driving = source + torch.tensor([[[0.25, 0.0, 0.0], [0.0, -0.25, 0.0]]])
    networks = Networks(sizes)
    calibrate(networks, torch.rand(8, 3, 64, 64), 2)
    with torch.no_grad():
        found = networks.warping.eval()(torch.randn(1, *sizes.volume), driving, source).deformation
    flow = (found - sparse_flows(source[:, :0], source[:, :0], sizes.volume[1:], True)[:, 0])[0, 4]
    x, y = (((driving[0, :, i] + 1) * sizes.side / 2).long() for i in (0, 1))
    torch.testing.assert_close(flow[y, x], (source - driving)[0], atol=0.1, rtol=0)


def test_before_training_all_is_visible_and_that_can_be_learnt() -> None:
    networks = Networks(TINY)
    count = TINY.keypoints
    warped = networks.warping(networks.appearance(torch.rand(1, 3, 64, 64)), points(1, count, 1), points(1, count, 2))
    torch.testing.assert_close(warped.occlusion, torch.full_like(warped.occlusion, 3.0).sigmoid())
    warped.out.square().sum().backward()
    weight = networks.warping.dense_motion_network.occlusion.weight
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


def test_the_decoder_meets_each_level_of_the_encoder() -> None:
    widths = [5, 8, 16]
    levels = Encoder(widths)(torch.randn(1, 5, 3, 8, 8))
    assert [tuple(level.shape[1:]) for level in levels] == [(5, 3, 8, 8), (8, 3, 4, 4), (16, 3, 2, 2)]
    assert Decoder(widths, 4)(levels).shape == (1, 9, 3, 8, 8)


def test_spectral_norm_is_pytorchs() -> None:
    torch.manual_seed(0)
    ours, plain = SpectralConv2d(3, 5, 3), nn.utils.spectral_norm(nn.Conv2d(3, 5, 3, padding=1))
    assert {n: v.shape for n, v in ours.state_dict().items()} == {n: v.shape for n, v in plain.state_dict().items()}
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 6, 6)
    for _ in range(3):
        ours.refresh()  # PyTorch's does so by itself
        torch.testing.assert_close(ours(x), plain(x))
    torch.testing.assert_close(ours.weight_u, plain.weight_u)
    one, other = (torch.autograd.grad(net(x).square().sum(), net.weight_orig)[0] for net in (ours, plain.eval()))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", [True, False])
def test_a_forward_changes_nothing_and_a_refresh_follows_the_weight(mode: bool) -> None:
    conv, x = SpectralConv2d(3, 5, 3).train(mode), torch.randn(1, 3, 4, 4)
    before = conv.weight_u.clone()
    assert torch.equal(conv(x), conv(x))
    assert torch.equal(conv.weight_u, before)
    with torch.no_grad():
        conv.weight_orig.copy_(torch.randn_like(conv.weight_orig))
    conv.refresh(30)
    assert torch.linalg.matrix_norm(conv.weight().detach().flatten(1), 2) == pytest.approx(1, abs=0.02)


def test_a_sample_comes_out_the_same_in_any_batch_while_training() -> None:
    networks, pictures = Networks(TINY).train(), torch.rand(3, 3, 64, 64)
    torch.testing.assert_close(frame(networks, pictures)[:1], frame(networks, pictures[:1]), atol=1e-5, rtol=1e-4)
    norms = [module for module in networks.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]
    assert norms
    assert not any(norm.training for norm in norms)


@pytest.mark.parametrize("depth", [1, 3, 5, 6])
def test_a_convolution_of_shallow_volumes_is_the_plain_one_with_the_same_gradients(depth: int) -> None:
    conv, x = ShallowConv3d(3, 2, 5), torch.randn(2, 3, depth, 6, 7, requires_grad=True)
    ours, plain = conv(x), F.conv3d(x, conv.weight, conv.bias, padding=2)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)
    inputs = (x, conv.weight, conv.bias)
    one, other = (torch.autograd.grad(y.square().sum(), inputs) for y in (ours, plain))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)


def test_spade_takes_its_map_at_the_nearest_place() -> None:
    spade, guide = Spade(6, 3, 4), torch.randn(1, 3, 4, 4)
    x = torch.randn(1, 6, 8, 8)
    torch.testing.assert_close(spade(x, guide), spade(x, guide.repeat_interleave(2, 2).repeat_interleave(2, 3)))
