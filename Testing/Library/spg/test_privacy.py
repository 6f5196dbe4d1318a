"""The accountant against closed forms, other accountants and what must always hold."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.spg.privacy import NoisySteps, epsilon, noise_for, statement


def spent(steps: int, noise: float, rate: float = 1.0, delta: float = 1e-5) -> float:
    phase = NoisySteps(steps=steps, noise_multiplier=noise, sampling_rate=rate)
    return epsilon([phase], delta)


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta", "reference"),
    [
        # Opacus 1.6.0, RDPAccountant's analysis with its default orders.
        (256 / 60000, 1.1, 14040, 1e-5, 2.5944),
        (0.01, 1.0, 1000, 1e-5, 2.1014),
        (1.0, 10.0, 100, 1e-3, 3.5366),
        (1.0, 30.0, 2000, 1e-3, 5.7899),
        (0.2, 3.0, 500, 1e-3, 6.0738),
        (1.0, 1.0, 1, 1e-5, 4.7285),
        (0.5, 100.0, 2000, 1e-4, 0.7631),
    ],
)
def test_it_says_what_another_accountant_says(
    rate: float, noise: float, steps: int, delta: float, reference: float
) -> None:
    assert spent(steps, noise, rate, delta) == pytest.approx(reference, rel=5e-3)


@pytest.mark.parametrize(("noise", "delta"), [(1.0, 1e-5), (5.0, 1e-3), (0.7, 1e-6)])
def test_it_never_promises_more_than_the_exact_curve_of_one_step(
    noise: float, delta: float
) -> None:
    """Balle and Wang 2018: δ = Φ(1/2σ − εσ) − e^ε Φ(−1/2σ − εσ) is exact for one Gaussian."""

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    claimed = spent(1, noise, delta=delta)
    half, scaled = 1 / (2 * noise), claimed * noise
    exact = normal(half - scaled) - math.exp(claimed) * normal(-half - scaled)
    assert exact <= delta
    assert exact > delta / 100


@pytest.mark.parametrize(("rate", "noise"), [(0.05, 0.8), (0.3, 1.5)])
def test_it_never_promises_more_than_one_sampled_step_keeps(rate: float, noise: float) -> None:
    """The hockey-stick divergence of the mixture, both ways, by quadrature."""
    delta = 1e-4
    claimed = spent(1, noise, rate, delta)
    x = np.linspace(-30, 30, 600_001)

    def density(mean: float) -> np.ndarray:
        return np.exp(-((x - mean) ** 2) / (2 * noise**2)) / (noise * math.sqrt(2 * math.pi))

    without, with_one = density(0), (1 - rate) * density(0) + rate * density(1)
    for p, q in ((with_one, without), (without, with_one)):
        exact = np.maximum(p - math.exp(claimed) * q, 0).sum() * (x[1] - x[0])
        assert exact <= delta


def test_less_noise_more_steps_and_more_sampling_cost_more() -> None:
    for costs in (
        [spent(100, noise, 0.1) for noise in (8, 4, 2, 1, 0.5)],
        [spent(steps, 2, 0.1) for steps in (1, 10, 100, 1000)],
        [spent(100, 2, rate) for rate in (0.01, 0.1, 0.5, 0.99, 1.0)],
        [spent(100, 2, 0.1, delta) for delta in (1e-2, 1e-4, 1e-8)],
    ):
        assert all(less < more for less, more in pairwise(costs))


def test_sampling_of_nearly_everybody_is_sampling_of_everybody() -> None:
    assert spent(50, 5, 0.999999) == pytest.approx(spent(50, 5, 1.0), rel=0.01)


def test_phases_add_up() -> None:
    once = NoisySteps(steps=100, noise_multiplier=3, sampling_rate=0.2)
    half = NoisySteps(steps=50, noise_multiplier=3, sampling_rate=0.2)
    other = NoisySteps(steps=10, noise_multiplier=20)
    assert epsilon([half, half], 1e-5) == pytest.approx(epsilon([once], 1e-5))
    assert epsilon([once, other], 1e-5) > epsilon([once], 1e-5)
    assert epsilon([], 1e-5) == 0
    assert epsilon([NoisySteps(steps=0, noise_multiplier=1)], 1e-5) == 0


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_the_noise_for_an_epsilon_spends_it(rate: float) -> None:
    noise = noise_for(3.0, 1e-3, steps=500, sampling_rate=rate)
    assert spent(500, noise, rate, 1e-3) <= 3.0
    assert spent(500, noise * 0.99, rate, 1e-3) > 3.0


def test_what_no_noise_can_keep_is_refused() -> None:
    with pytest.raises(ConfigError, match="no noise"):
        noise_for(1e-6, 1e-12, steps=10**9)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": -1, "noise_multiplier": 1},
        {"steps": 1, "noise_multiplier": 0},
        {"steps": 1, "noise_multiplier": 1, "sampling_rate": 0},
        {"steps": 1, "noise_multiplier": 1, "sampling_rate": 1.5},
        {"steps": 1, "noise_multiplier": math.nan},
    ],
)
def test_steps_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        NoisySteps(**options)  # type: ignore[arg-type]


def test_a_delta_that_allows_to_publish_a_patient_is_refused() -> None:
    phase = [NoisySteps(steps=10, noise_multiplier=30)]
    with pytest.raises(ConfigError, match="patients"):
        statement(phase, 0.1, 12)
    said = statement(phase, 1e-3, 12)
    assert "each of 12 patients" in said
    assert "private" not in said


def test_little_noise_is_called_next_to_no_guarantee() -> None:
    assert "next to no guarantee" in statement([NoisySteps(steps=100, noise_multiplier=1)], 1e-3, 9)
    assert "strong" in statement([NoisySteps(steps=10, noise_multiplier=100)], 1e-3, 9)
