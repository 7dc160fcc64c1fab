"""The networks of iFlyBot-VLA: what may and what must not change their outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mixtura.errors import MixturaError
from mixtura_iflybot_vla.config import IFlyBotConfig
from mixtura_iflybot_vla.nets.action_expert import ActionExpert
from mixtura_iflybot_vla.nets.codebook import CodebookUsage, due
from mixtura_iflybot_vla.nets.lam import LatentActions, as_video
from mixtura_iflybot_vla.nets.lam_variants import ActionSupervision, FiniteScalar, LatentActionModelFSQ
from mixtura_iflybot_vla.nets.vlm import StateVLM, normalise_images, position_ids

VLM = {"hidden": 48, "layers": 2, "heads": 4, "kv_heads": 2, "mlp": 64, "vision_hidden": 32, "vision_layers": 1,
       "vision_heads": 2, "vision_mlp": 48, "patch": 8, "text_vocab": 300, "fast_vocab": 64}  # fmt: skip
LAM = {"dim": 32, "image": 40, "spatial_layers": 1, "temporal_layers": 1, "heads": 2, "dim_head": 16}
CONFIG = IFlyBotConfig(type="iflybot_vla", image_size=32, vlm=VLM, lam=LAM)
B, H, P, VIEW = 2, 5, 1, 4


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=gen(seed))


@pytest.fixture(scope="module", params=["conv", "patch"])
def vlm(request: pytest.FixtureRequest) -> StateVLM:
    torch.manual_seed(0)
    config = CONFIG.model_copy(update={"vlm": CONFIG.vlm.model_copy(update={"stem": request.param})})
    return StateVLM(config).eval()


@pytest.fixture(scope="module")
def expert() -> ActionExpert:
    torch.manual_seed(1)
    return ActionExpert(32, 4, 2, 24)


def row(vlm: StateVLM, text: int, views: int = 2, seed: int = 0) -> Tensor:
    """Token ids (S,): two tokens, `views` images of four tokens between text, a state, `text` tokens."""
    words = torch.randint(0, 300, (3 + 2 * views + text,), generator=gen(seed)).tolist()
    ids = [words.pop(), words.pop()]
    for _ in range(views):
        ids += [words.pop(), *[vlm.tokens.image] * VIEW, words.pop()]
    return torch.tensor([*ids, vlm.tokens.state, *words[:text]])


def inputs(views: int = 2) -> tuple[Tensor, Tensor]:
    """Images (B, views, 3, 32, 32) and states (B, 1, 20)."""
    return randn(B, views, 3, 32, 32, seed=2), randn(B, P, 20, seed=3)


def kv(length: int = 9) -> tuple[Tensor, Tensor]:
    return randn(2, B, length, 24, seed=4), randn(2, B, length, 24, seed=5)


# -- language model -----------------------------------------------------------------------------------------------
def test_padding_does_not_change_the_language_model(vlm: StateVLM) -> None:
    images, state = inputs()
    ids = torch.stack([row(vlm, 6), row(vlm, 6, seed=1)])
    mask = torch.ones_like(ids, dtype=torch.bool)
    padded, wide = torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(mask, (0, 5))
    a, b, n = vlm(ids, mask, images, state), vlm(padded, wide, images, state), ids.shape[1]
    assert torch.allclose(a.hidden, b.hidden[:, :n], atol=1e-5)
    assert torch.allclose(a.keys, b.keys[:, :, :n], atol=1e-5)
    assert torch.allclose(a.values, b.values[:, :, :n], atol=1e-5)


def test_what_a_hidden_view_shows_changes_nothing_visible(vlm: StateVLM) -> None:
    images, state = inputs()
    ids = torch.stack([row(vlm, 6)] * B)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, 8:14] = False
    other = images.clone()
    other[:, 1] = 9.0
    a, b = vlm(ids, mask, images, state), vlm(ids, mask, other, state)
    assert torch.allclose(a.hidden[mask], b.hidden[mask], atol=1e-6)
    assert torch.allclose(a.keys[:, mask], b.keys[:, mask], atol=1e-6)
    assert not torch.allclose(vlm(ids, ~torch.zeros_like(mask), other, state).hidden[:, -1], a.hidden[:, -1], atol=1e-3)


def test_positions_count_images_as_a_square_and_hidden_views_too() -> None:
    ids = torch.tensor([[5, 9, 9, 9, 9, 6, 7]])
    places, following = position_ids(ids, 9, 2)
    assert places[:, 0].tolist() == [[0, 1, 1, 1, 1, 3, 4], [0, 1, 1, 2, 2, 3, 4], [0, 1, 2, 1, 2, 3, 4]]
    assert following[0, -1] == 5
    visible = torch.tensor([[True, False, False, False, False, True, True]])
    assert position_ids(ids, 9, 2, visible)[0][0, 0, 5:].tolist() == [1, 2]


def test_generation_gives_the_keys_and_values_that_training_sees(vlm: StateVLM) -> None:
    images, state = inputs()
    prompts = [row(vlm, 7), row(vlm, 4, seed=1)]
    ids = torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(p), dtype=torch.bool) for p in prompts], batch_first=True)
    mask[:, 8:14] = False
    done = vlm.generate(ids, mask, images, state, limit=4, allowed=(400, 432))
    assert done.tokens.shape == (B, 4)
    assert ((done.tokens >= 400) & (done.tokens < 432)).all()
    for i, prompt in enumerate(prompts):
        whole, seen = torch.cat([prompt, done.tokens[i]])[None], torch.ones(1, len(prompt) + 4, dtype=torch.bool)
        seen[:, 8:14] = False
        out = vlm(whole, seen, images[i : i + 1], state[i : i + 1])
        assert torch.equal(done.key_mask[i, : whole.shape[1]], seen[0])
        assert not done.key_mask[i, whole.shape[1] :].any()
        assert torch.allclose(done.keys[:, i, : whole.shape[1]][:, seen[0]], out.keys[:, 0][:, seen[0]], atol=1e-5)
        assert torch.allclose(done.values[:, i, : whole.shape[1]][:, seen[0]], out.values[:, 0][:, seen[0]], atol=1e-5)
        scores = vlm.logits(out.hidden[0, len(prompt) - 1 : -1])[:, 400:432]
        assert torch.equal(scores.argmax(-1) + 400, done.tokens[i])


def test_rows_stop_by_themselves_and_the_stop_token_has_no_keys(vlm: StateVLM) -> None:
    images, state = inputs()
    ids = torch.stack([row(vlm, 6), row(vlm, 6, seed=1)])
    mask = torch.ones_like(ids, dtype=torch.bool)
    free = vlm.generate(ids, mask, images, state, limit=5)
    stop = int(free.tokens[0, 2])
    done = vlm.generate(ids, mask, images, state, limit=5, stop=(stop,))
    first = free.tokens[0].tolist().index(stop)
    assert done.tokens[0, : first + 1].tolist() == free.tokens[0, : first + 1].tolist()
    assert (done.tokens[0, first + 1 :] == -1).all()
    assert int(done.key_mask[0].sum()) == ids.shape[1] + first


def test_too_few_images_are_refused(vlm: StateVLM) -> None:
    ids = torch.stack([row(vlm, 6)] * B)
    with pytest.raises(MixturaError, match="16 image-pad tokens, 8 image tokens"):
        vlm(ids, torch.ones_like(ids, dtype=torch.bool), inputs(1)[0], inputs()[1])


def test_text_alone_needs_no_image_and_no_state(vlm: StateVLM) -> None:
    ids = torch.randint(0, 300, (B, 7), generator=gen())
    assert vlm(ids, torch.ones_like(ids, dtype=torch.bool)).hidden.shape == (B, 7, 48)


def test_keys_carry_gradient_also_through_recomputed_blocks(vlm: StateVLM) -> None:
    images, state = inputs()
    ids = torch.stack([row(vlm, 6)] * B)
    mask = torch.ones_like(ids, dtype=torch.bool)

    def gradient() -> Tensor:
        vlm.zero_grad()
        vlm(ids, mask, images, state).keys.square().sum().backward()
        assert vlm.proprios_embed.weight.grad is not None
        return vlm.proprios_embed.weight.grad.clone()

    plain, layers = gradient(), list(vlm.language.layers)
    originals = [layer.forward for layer in layers]
    try:
        for layer in layers:
            layer.forward = lambda *a, f=layer.forward, **k: checkpoint(f, *a, use_reentrant=False, **k)
        assert torch.allclose(gradient(), plain, atol=1e-6)
    finally:
        for layer, forward in zip(layers, originals, strict=True):
            layer.forward = forward


def test_image_normalisation_is_channels_first_with_unit_spread() -> None:
    images = torch.randint(0, 256, (2, 1, 32, 32, 3), dtype=torch.uint8, generator=gen())
    out = normalise_images(images)
    assert out.shape == (2, 1, 3, 32, 32)
    assert out.abs().max() < 3


# -- action expert --------------------------------------------------------------------------------------------------
def test_hidden_keys_and_padding_do_not_reach_the_actions(expert: ActionExpert) -> None:
    (keys, values), noisy, time, state = kv(), randn(B, H, 20), torch.rand(B, generator=gen()), randn(B, P, 20, seed=1)
    mask = torch.ones(B, 9, dtype=torch.bool)
    mask[:, 2:4], mask[1, 6:] = False, False
    out = expert(noisy, time, state, keys, values, mask)
    wild_k, wild_v = torch.where(mask[..., None], keys, 50.0), torch.where(mask[..., None], values, 50.0)
    assert torch.allclose(expert(noisy, time, state, wild_k, wild_v, mask), out, atol=1e-5)
    pad = torch.nn.functional.pad
    longer = expert(noisy, time, state, pad(keys, (0, 0, 0, 4)), pad(values, (0, 0, 0, 4)), pad(mask, (0, 4)))
    assert torch.allclose(longer, out, atol=1e-5)
    alone = expert(noisy[1:], time[1:], state[1:], keys[:, 1:, :6], values[:, 1:, :6], mask[1:, :6])
    assert torch.allclose(alone, out[1:], atol=1e-5)


def test_several_noise_draws_equal_separate_calls(expert: ActionExpert) -> None:
    (keys, values), state, mask = kv(), randn(B, P, 20, seed=1), torch.ones(B, 9, dtype=torch.bool)
    mask[0, 7:] = False
    noisy, time = randn(B * 3, H, 20), torch.rand(B * 3, generator=gen())
    together = expert(noisy, time, state, keys, values, mask).view(B, 3, H, 20)
    for n in range(3):
        one = expert(noisy.view(B, 3, H, 20)[:, n], time.view(B, 3)[:, n], state, keys, values, mask)
        assert torch.allclose(together[:, n], one, atol=1e-5)
    actions = expert.sample(noisy, state, keys, values, mask).view(B, 3, H, 20)
    assert torch.allclose(actions[:, 1], expert.sample(noisy.view(B, 3, H, 20)[:, 1], state, keys, values, mask), atol=1e-5)


def test_sampling_is_five_euler_steps_of_the_velocity(expert: ActionExpert) -> None:
    (keys, values), state, actions = kv(), randn(B, P, 20, seed=1), randn(B, H, 20)
    sampled = expert.sample(actions, state, keys, values)
    for time in (1.0, 0.8, 0.6, 0.4, 0.2):
        actions = actions - 0.2 * expert(actions, torch.full((B,), time), state, keys, values)
    assert torch.allclose(sampled, actions, atol=1e-5)


def test_only_the_action_order_that_the_mask_allows_matters(expert: ActionExpert) -> None:
    (keys, values), state, noisy, time = kv(), randn(B, P, 20, seed=1), randn(B, H, 20), torch.full((B,), 0.5)
    tokens: list[Tensor] = []
    hook = expert.blocks[-1].register_forward_hook(lambda m, i, o: tokens.append(o))
    expert(noisy, time, state, keys, values)
    expert(noisy + 1, time, state, keys, values)
    expert(noisy, time, state + 1, keys, values)
    hook.remove()
    assert torch.equal(tokens[0][:, :2], tokens[1][:, :2])
    assert not torch.equal(tokens[0][:, 2:], tokens[1][:, 2:])
    assert torch.equal(tokens[0][:, :1], tokens[2][:, :1])


def test_dropout_uses_the_given_numbers_only() -> None:
    torch.manual_seed(0)
    expert, (keys, values) = ActionExpert(32, 4, 2, 24, dropout=0.5).train(), kv()
    call = (randn(B, H, 20), torch.full((B,), 0.5), randn(B, P, 20), keys, values)
    with pytest.raises(MixturaError, match="dropout"):
        expert(*call)
    drop = torch.rand(B, 4, 1 + P + H, 32, generator=gen(8))
    assert torch.equal(expert(*call, drop=drop), expert(*call, drop=drop))
    assert not torch.allclose(expert(*call, drop=drop), expert.eval()(*call))


def test_detached_keys_insulate_the_language_model(vlm: StateVLM) -> None:
    expert, (images, state) = ActionExpert(32, 4, 2, vlm.kv_width), inputs()
    ids = torch.stack([row(vlm, 6)] * B)
    out = vlm(ids, torch.ones_like(ids, dtype=torch.bool), images, state)
    noisy, time = randn(B, H, 20), torch.full((B,), 0.5)
    vlm.zero_grad()
    expert(noisy, time, state, out.keys.detach(), out.values.detach()).sum().backward()
    assert all(p.grad is None for p in vlm.parameters())
    expert(noisy, time, state, out.keys, out.values).sum().backward()
    assert vlm.proprios_embed.weight.grad is not None
    assert vlm.proprios_embed.weight.grad.abs().sum() > 0


# -- latent actions ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("codes", [1, 4, 8])
@pytest.mark.parametrize("image", [24, 40, 64])
def test_any_grid_gives_the_wanted_number_of_codes(codes: int, image: int) -> None:
    config = CONFIG.lam.model_copy(update={"codes": codes, "image": image})
    latent = LatentActions(config)
    frames = torch.randint(0, 256, (3, 2, image, image, 3), dtype=torch.uint8, generator=gen())
    out = latent(frames, randn(3, codes, 32))
    assert out.indices.shape == (3, codes)
    assert out.loss.shape == (3,)
    assert out.reconstruction.shape == (3, 3, image, image)
    assert torch.equal(latent.indices(frames), latent.indices(as_video(frames)))


def test_its_own_codes_predict_the_picture_it_reconstructs() -> None:
    torch.manual_seed(0)
    latent = LatentActions(CONFIG.lam).eval()
    video = torch.randint(0, 255, (3, 2, 40, 40, 3), dtype=torch.uint8, generator=gen())
    out = latent(video)
    torch.testing.assert_close(latent.lam.predict(video[:, 0], out.indices), out.reconstruction)


def test_frames_of_another_layout_are_refused() -> None:
    with pytest.raises(MixturaError, match="expected uint8"):
        LatentActions(CONFIG.lam).indices(torch.zeros(1, 2, 3, 40, 40))
    with pytest.raises(MixturaError, match="40 x 40"):
        LatentActions(CONFIG.lam).indices(torch.zeros(1, 3, 2, 56, 56))


def test_the_codebook_learns_through_the_noise_and_only_training_counts() -> None:
    torch.manual_seed(0)
    latent = LatentActions(CONFIG.lam)
    frames = torch.randint(0, 256, (4, 2, 40, 40, 3), dtype=torch.uint8, generator=gen())
    latent(frames, randn(4, 8, 32)).loss.mean().backward()
    assert latent.lam.vq.codebooks.grad is not None
    assert latent.lam.vq.codebooks.grad.abs().sum() > 0
    assert latent.usage.uses.sum() == 32
    latent.eval()(frames)
    assert latent.usage.uses.sum() == 32


def test_unused_entries_come_back_near_used_ones_and_the_counter_restarts() -> None:
    usage, codebook = CodebookUsage(8, 4), randn(8, 4)
    before = codebook.clone()
    usage.count(torch.tensor([[0, 0, 3, 3]]), torch.ones(4, 4), torch.zeros(4, 4))
    assert usage.remedy(codebook, 9, gen()) == 0
    assert usage.remedy(codebook, 10, gen()) == 6
    assert torch.equal(codebook[[0, 3]], before[[0, 3]])
    near = torch.cdist(codebook, before[[0, 3]]).amin(1)
    assert (near[[1, 2, 4, 5, 6, 7]] > 1e-3).all()
    assert near.max() < 4
    assert usage.uses.sum() == 0
    assert usage.remedy(codebook, 10, gen()) == 0


def test_a_resumed_counter_replaces_the_same_entries() -> None:
    usage, again, codebook = CodebookUsage(8, 4), CodebookUsage(8, 4), randn(8, 4)
    usage.count(torch.tensor([[1, 1, 3, 5]]), torch.ones(4, 4), torch.zeros(4, 4))
    again.load_state_dict(usage.state_dict())
    other = codebook.clone()
    usage.remedy(codebook, 100, gen(4))
    again.remedy(other, 100, gen(4))
    assert torch.equal(codebook, other)


def test_the_published_remedy_copies_and_ends() -> None:
    usage, codebook = CodebookUsage(4, 4, "official"), randn(4, 4)
    usage.count(torch.tensor([[2, 2, 2, 2]]), torch.ones(4, 4), torch.zeros(4, 4))
    assert usage.remedy(codebook, 10, gen()) == 3
    assert torch.allclose(codebook, codebook[2].expand(4, 4), atol=1e-9)
    assert [s for s in (0, 10, 15, 100, 110, 500, 1000, 4500, 5000) if due(s, "official")] == [10, 100, 500, 1000, 4500]
    assert due(5000, "fixed")


def test_finite_scalars_reach_every_code_and_pass_gradient_through() -> None:
    torch.manual_seed(0)
    lam = LatentActionModelFSQ(32, 40, 8, 1, 1, 2, 16)
    loss, _, made = lam(torch.rand(3, 3, 2, 40, 40, generator=gen()))
    loss.mean().backward()
    assert made.indices.shape == (3, 4)
    assert lam.vq.project_in.weight.grad.abs().sum() > 0
    scalar = FiniteScalar(8, (5, 3), 4)
    places = ((scalar.bound(randn(4000, 2) * 3).round() + torch.tensor([2, 1])) * scalar.steps).sum(-1)
    assert sorted(places.unique().tolist()) == list(range(15))


def test_action_supervision_reads_codes_and_the_first_action() -> None:
    head = ActionSupervision(width=64)
    assert head(randn(12, 32), randn(3, 7)).shape == (3, 7)
    with pytest.raises(MixturaError, match="128 values"):
        head(randn(8, 32), randn(3, 7))


# -- all --------------------------------------------------------------------------------------------------------------
def test_no_forward_touches_the_global_random_state(vlm: StateVLM, expert: ActionExpert) -> None:
    latent = LatentActions(CONFIG.lam)
    ids, (images, state), (keys, values) = torch.stack([row(vlm, 6)] * B), inputs(), kv()
    mask = torch.ones_like(ids, dtype=torch.bool)
    before = torch.get_rng_state()
    vlm.train()(ids, mask, images, state)
    vlm.eval().generate(ids, mask, images, state, limit=2)
    expert.train()(randn(B, H, 20), torch.full((B,), 0.5), state, keys, values)
    latent.train()(torch.rand(B, 3, 2, 40, 40, generator=gen()), randn(B, 8, 32))
    latent.remedy(10, gen())
    assert torch.equal(torch.get_rng_state(), before)
