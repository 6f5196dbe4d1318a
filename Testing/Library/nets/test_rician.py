"""The bias that noise has in magnitude images is undone, in tissue and in air."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from MedEnhanceLib.hqg.network import noise_level
from MedEnhanceLib.nets.rician import without_bias

SIGMA = 0.1


def magnitudes(amplitude: float, sigma: float = SIGMA) -> Tensor:
    """Noisy magnitudes of an even object, [1, 6, 64, 64]."""
    rng = np.random.default_rng(0)
    real, imaginary = sigma * rng.standard_normal((2, 1, 6, 64, 64))
    return torch.from_numpy(np.hypot(amplitude + real, imaginary).astype(np.float32))


@pytest.mark.parametrize("amplitude", [0.2, 0.3, 0.6, 1.0, 3.0])
def test_the_mean_of_tissue_is_the_truth(amplitude: float) -> None:
    noisy = magnitudes(amplitude)
    mean = noisy.mean().expand_as(noisy)
    truth = without_bias(mean, noise_level(noisy, reach=0))
    biased = float(noisy.mean()) - amplitude
    assert abs(float(truth.mean()) - amplitude) < max(0.25 * biased, 0.002)


def test_air_is_nothing() -> None:
    noisy = magnitudes(0.0)
    mean = noisy.mean().expand_as(noisy)
    assert float(mean.mean()) > 1.2 * SIGMA
    assert float(without_bias(mean, noise_level(noisy, reach=0)).mean()) < 0.3 * SIGMA


def test_what_has_no_noise_stays() -> None:
    clean = torch.linspace(0, 2, 6 * 64 * 64).reshape(1, 6, 64, 64)
    assert torch.allclose(without_bias(clean, torch.zeros(1, 6, 32, 32)), clean, atol=1e-5)


def test_negative_values_stay() -> None:
    values = torch.full((1, 4, 32, 32), -0.3)
    assert torch.equal(without_bias(values, torch.full((1, 4, 16, 16), SIGMA)), values)


def test_what_is_no_number_stays_none() -> None:
    values = torch.full((1, 4, 32, 32), 0.5)
    values[0, 1, 2, 3] = torch.nan
    freed = without_bias(values, torch.full((1, 4, 16, 16), SIGMA))
    assert torch.isnan(freed[0, 1, 2, 3])
    assert torch.isfinite(freed[0, 3]).all()


def test_it_can_be_learned_through() -> None:
    mean = torch.linspace(-0.1, 2, 4 * 32 * 32).reshape(1, 4, 32, 32).requires_grad_()
    without_bias(mean, torch.full((1, 4, 16, 16), SIGMA)).sum().backward()
    assert mean.grad is not None
    assert torch.isfinite(mean.grad).all()
    assert float(mean.grad[mean.detach() > 0.3].min()) > 0.9
