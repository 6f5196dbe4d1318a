"""What the networks must be, whatever their weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from MedEnhanceLib.hqg.config import NetworkConfig
from MedEnhanceLib.hqg.network import (
    Cue,
    Enhancer,
    GuidanceEncoder,
    make_discriminator,
    noise_level,
)
from MedEnhanceLib.hqg.train import losses
from MedEnhanceLib.nets.blocks import VariationalNormalization, adalin

SMALL = NetworkConfig(context=1, widths=(8, 8, 12, 16), guide_widths=(4, 4, 8, 8), window=32)


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(2, 6, 24, 20, generator=torch.Generator().manual_seed(1)) * 3 + 1


def test_rho_one_is_instance_normalization(features: torch.Tensor) -> None:
    styled = adalin(features, torch.ones(1, 6, 1, 1))
    expected = torch.nn.functional.instance_norm(features)
    assert torch.allclose(styled, expected, atol=1e-4)


def test_rho_zero_is_layer_normalization(features: torch.Tensor) -> None:
    styled = adalin(features, torch.zeros(1, 6, 1, 1))
    expected = torch.nn.functional.layer_norm(features, features.shape[1:])
    assert torch.allclose(styled, expected, atol=1e-4)


def test_a_new_normalization_block_leaves_features_as_they_were(features: torch.Tensor) -> None:
    block = VariationalNormalization(6, condition_size=5, window=16)
    assert torch.equal(block(features, torch.randn(2, 5)), features)


def test_local_statistics_do_not_depend_on_what_lies_far_away() -> None:
    image = torch.randn(1, 3, 128, 128)
    changed = image.clone()
    changed[..., 96:] += 5
    rho = torch.full((1, 3, 1, 1), 0.5)
    near, other = adalin(image, rho, 16), adalin(changed, rho, 16)
    assert torch.equal(near[..., :80], other[..., :80])
    assert not torch.equal(near[..., 90:96], other[..., 90:96])


def test_an_untrained_enhancer_returns_what_it_starts_from() -> None:
    slabs, cue = torch.rand(2, 5, 32, 48), torch.zeros(2, 64)
    enhancer, plain = Enhancer(SMALL), Enhancer(replace(SMALL, shrinkage=False))
    assert torch.equal(enhancer(slabs, cue), enhancer.start(slabs))
    assert torch.equal(plain(slabs, cue), slabs)


@pytest.mark.parametrize("context", [0, 1, 3, 8])
def test_a_slice_depends_on_as_many_neighbors_as_the_context_says(context: int) -> None:
    enhancer = _shaken(Enhancer(replace(SMALL, context=context, shrinkage=False)))
    assert enhancer.reach == context
    slabs, vectors = torch.rand(1, 20, 32, 32), (torch.zeros(1, 64), torch.zeros(1, 16))
    changed = slabs.clone()
    changed[:, 10] += torch.rand(32, 32)
    difference = (enhancer(slabs, *vectors) - enhancer(changed, *vectors)).abs().amax((0, 2, 3))
    reached = torch.nonzero(difference > 0).flatten().tolist()
    assert reached == list(range(10 - context, 10 + context + 1))


def test_a_slab_with_halo_equals_the_whole_volume() -> None:
    enhancer = _shaken(Enhancer(replace(SMALL, context=5)))
    slabs, vectors = torch.rand(1, 40, 32, 32), (torch.zeros(1, 64), torch.zeros(1, 16))
    reach = enhancer.reach
    whole = enhancer(slabs, *vectors)
    part = enhancer(slabs[:, 3:35], *vectors)
    kept = slice(3 + reach, 35 - reach)
    assert torch.allclose(part[:, reach:-reach], whole[:, kept], atol=1e-4)
    assert torch.allclose(enhancer(slabs[:, :21], *vectors)[:, :7], whole[:, :7], atol=1e-4)


def test_asking_for_the_error_changes_neither_image_nor_what_it_learns() -> None:
    enhancer = _shaken(Enhancer(SMALL))
    slabs, cue = torch.rand(1, 3, 32, 32), torch.randn(1, 64)
    image, error = enhancer.estimate(slabs, cue)
    assert torch.equal(image, enhancer(slabs, cue))
    assert error.shape == slabs.shape
    assert (error > 0).all()
    losses.error_likelihood(image, torch.rand_like(image), error).backward()
    taught = {name for name, p in enhancer.named_parameters() if p.grad is not None}
    assert taught == {"error_head.weight", "error_head.bias"}


def test_the_noise_map_gives_sigma_and_ignores_edges() -> None:
    generator = torch.Generator().manual_seed(0)
    slabs = 0.05 * torch.randn(1, 3, 128, 128, generator=generator)
    slabs[..., 60:] += 1.0
    level = noise_level(slabs)
    assert level.shape == (1, 3, 64, 64)
    assert level.sub(0.05).abs().max() < 0.012


def test_the_same_input_and_cue_give_the_same_output() -> None:
    enhancer = _shaken(Enhancer(SMALL))
    stacks, cue = torch.rand(1, 3, 32, 32), torch.randn(1, 64)
    assert torch.equal(enhancer(stacks, cue), enhancer(stacks, cue))


def test_cue_and_content_reach_the_output() -> None:
    enhancer = _shaken(Enhancer(SMALL))
    stacks = torch.rand(1, 3, 32, 32)
    plain = enhancer(stacks, torch.zeros(1, 64), torch.zeros(1, 16))
    assert not torch.allclose(plain, enhancer(stacks, torch.ones(1, 64), torch.zeros(1, 16)))
    assert not torch.allclose(plain, enhancer(stacks, torch.zeros(1, 64), torch.ones(1, 16)))


def test_divergence_of_the_standard_normal_is_zero() -> None:
    assert torch.equal(Cue(torch.zeros(3, 4), torch.zeros(3, 4)).kl_divergence(), torch.zeros(3, 4))
    assert (Cue(torch.ones(3, 4), torch.zeros(3, 4)).kl_divergence() == 0.5).all()


def test_cue_samples_follow_their_distribution() -> None:
    cue = Cue(torch.full((20_000, 1), 2.0), torch.full((20_000, 1), -1.0))
    drawn = cue.sample(torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.02)
    assert drawn.std().item() == pytest.approx(torch.tensor(-0.5).exp().item(), abs=0.02)


def test_guidance_encoder_takes_any_size() -> None:
    encoder = GuidanceEncoder(SMALL)
    assert encoder(torch.rand(2, 1, 32, 64)).mean.shape == (2, 64)


def test_discriminator_scores_patches() -> None:
    assert make_discriminator()(torch.rand(1, 1, 64, 64))[-1].shape[1] == 1


def test_haar_round_trip_is_exact() -> None:
    image = torch.rand(2, 1, 16, 24)
    low, details = losses.haar(image)
    assert torch.allclose(losses.inverse_haar(low, details), image, atol=1e-6)
    assert low.square().sum() + details.square().sum() == pytest.approx(image.square().sum().item())


def test_content_losses_vanish_for_equal_images_and_grow_with_damage() -> None:
    image = torch.rand(1, 1, 64, 64)
    noisy = image + 0.3 * torch.randn_like(image)
    for loss in (losses.wavelet_content, losses.low_band, losses.gradient_loss):
        assert loss(image, image).item() == pytest.approx(0, abs=1e-5)
        assert loss(noisy, image).item() > 0.01


def test_free_bits_stop_the_pull_to_the_standard_normal() -> None:
    mean = torch.full((4, 3), 0.1, requires_grad=True)
    losses.kl_loss(Cue(mean, torch.zeros(4, 3)), free_bits=0.05).backward()
    assert mean.grad is not None
    assert not mean.grad.any()


def _shaken(network: torch.nn.Module) -> torch.nn.Module:
    """Weights away from their zero start, so that everything has an effect."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def test_gradients_through_air_are_finite() -> None:
    slabs = torch.zeros(1, 2, 32, 32, requires_grad=True)
    enhancer = Enhancer(NetworkConfig(widths=(8, 8, 12, 16), window=32))
    enhancer.encode(slabs)[-1].sum().backward()
    assert slabs.grad is not None
    assert torch.isfinite(slabs.grad).all()
