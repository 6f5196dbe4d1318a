"""What the networks must be, whatever their weights."""

from __future__ import annotations

import pytest
import torch

from MedEnhanceLib.hqg import losses
from MedEnhanceLib.hqg.config import NetworkConfig
from MedEnhanceLib.hqg.network import Cue, Enhancer, GuidanceEncoder, make_discriminator
from MedEnhanceLib.nets.normalisation import VariationalNormalisation, adalin, local_moments

SMALL = NetworkConfig(context=1, widths=(8, 8, 12, 16), guide_widths=(4, 4, 8, 8), window=32)


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(2, 6, 24, 20, generator=torch.Generator().manual_seed(1)) * 3 + 1


def test_rho_one_is_instance_normalisation(features: torch.Tensor) -> None:
    styled = adalin(features, torch.ones(1, 6, 1, 1))
    expected = torch.nn.functional.instance_norm(features)
    assert torch.allclose(styled, expected, atol=1e-4)


def test_rho_zero_is_layer_normalisation(features: torch.Tensor) -> None:
    styled = adalin(features, torch.zeros(1, 6, 1, 1))
    expected = torch.nn.functional.layer_norm(features, features.shape[1:])
    assert torch.allclose(styled, expected, atol=1e-4)


def test_a_new_normalisation_block_leaves_features_as_they_were(features: torch.Tensor) -> None:
    block = VariationalNormalisation(6, condition_size=5, window=16)
    assert torch.equal(block(features, torch.randn(2, 5)), features)


def test_local_statistics_do_not_depend_on_what_lies_far_away() -> None:
    image = torch.randn(1, 3, 128, 128)
    changed = image.clone()
    changed[..., 96:] += 5
    near, _ = local_moments(image, 16)
    other, _ = local_moments(changed, 16)
    assert torch.equal(near[..., :80], other[..., :80])
    assert not torch.equal(near[..., 100:], other[..., 100:])


def test_an_untrained_enhancer_returns_the_middle_slice() -> None:
    stacks = torch.rand(2, 3, 32, 48)
    output = Enhancer(SMALL)(stacks, torch.zeros(2, 64))
    assert torch.equal(output, stacks[:, 1:2])


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
