"""The bias of magnitudes is undone on tissue and in air, and what is no magnitude stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from MedEnhanceLib.nets.rician import amplitude

SIGMA = torch.tensor(0.1)


def mean_of(truth: float) -> float:
    """The mean of noisy magnitudes of an even object."""
    rng = np.random.default_rng(0)
    real, imaginary = float(SIGMA) * rng.standard_normal((2, 100_000))
    return float(np.hypot(truth + real, imaginary).mean())


@pytest.mark.parametrize("truth", [0.2, 0.3, 0.6, 1.0, 3.0])
def test_the_mean_of_tissue_is_the_truth(truth: float) -> None:
    mean = mean_of(truth)
    found = float(amplitude(torch.tensor(mean), SIGMA))
    assert abs(found - truth) < max(0.25 * (mean - truth), 0.002)


def test_negative_values_and_what_is_no_number_stay() -> None:
    freed = amplitude(torch.tensor([-0.3, torch.nan, 0.5]), SIGMA)
    assert freed[0] == -0.3
    assert torch.isnan(freed[1])
    assert torch.isfinite(freed[2])
