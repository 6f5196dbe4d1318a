"""The privacy that noise buys: (ε, δ) of a training on clipped and noised gradients, by patient.

What has to be true of the training for these figures to hold:

- In each step every patient's whole contribution, all their patches together, is one vector,
  scaled down to a norm of at most the clip. Clipping patches one by one bounds no patient.
- Gaussian noise with a standard deviation of noise_multiplier · clip is added to the sum of those
  vectors, drawn anew in each step from a generator whose state is kept secret afterwards.
- Each patient takes part in each step by a coin of their own, with the probability sampling_rate.
  Drawing patches of a patient who always takes part is a rate of 1. So is SPG as it is by default,
  where every patient's images are made in a job of their own: nobody hides among others there.
- Nothing else of a patient enters the result: no prior of theirs, no choice of settings by eye.

Source: Rényi differential privacy of the sampled Gaussian mechanism, Mironov, Talwar and Zhang,
arXiv 1908.10530, section 3.3; its conversion: Canonne, Kamath and Steinke, arXiv 2004.00010,
proposition 12. "Neighbouring" means with or without one patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.options import check_range
from MedEnhanceLib.errors import ConfigError

Doubles = npt.NDArray[np.float64]

#: Orders at which the divergence of sampled noise is known exactly.
_WHOLE = (*range(2, 65), *range(72, 257, 8), 320, 384, 512, 768, 1024, 2048, 4096)
#: All orders that are tried: these, and seven between each two of them.
_ORDERS = np.interp(np.arange(1, 8 * len(_WHOLE) + 1) / 8, np.arange(len(_WHOLE) + 1), [1, *_WHOLE])
_MOST_NOISE = 1e6


@dataclass(frozen=True, kw_only=True)
class NoisySteps:
    """Steps of one kind.

    steps: how many. noise_multiplier: standard deviation of the noise, in clips.
    sampling_rate: probability that a patient takes part in a step, above 0 to 1.
    """

    steps: int
    noise_multiplier: float
    sampling_rate: float = 1.0

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 0, 1e9)
        check_range("noise_multiplier", self.noise_multiplier, 1e-2, _MOST_NOISE)
        check_range("sampling_rate", self.sampling_rate, 1e-9, 1.0)


def epsilon(phases: Sequence[NoisySteps], delta: float) -> float:
    """The ε that all phases together guarantee every patient, at this δ; 0 without a step.

    delta: below one over the number of patients, far below, or the promise is empty: "publish one
    patient at random" has a δ of one over their number.
    """
    check_range("delta", delta, 1e-300, 0.5)
    taken = [phase for phase in phases if phase.steps]
    if not taken:
        return 0.0
    moments = np.sum([phase.steps * _log_moments(phase) for phase in taken], axis=0)
    bound = (
        moments / (_ORDERS - 1)
        + np.log1p(-1 / _ORDERS)
        - (math.log(delta) + np.log(_ORDERS)) / (_ORDERS - 1)
    )
    return max(0.0, float(bound.min()))


def noise_for(target: float, delta: float, *, steps: int, sampling_rate: float = 1.0) -> float:
    """The smallest noise multiplier (to 0.1 %) that keeps ε at or below `target`.

    Raises ConfigError where no noise does.
    """
    check_range("epsilon", target, 1e-6, 1e6)

    def spent(noise: float) -> float:
        phase = NoisySteps(steps=steps, noise_multiplier=noise, sampling_rate=sampling_rate)
        return epsilon([phase], delta)

    low, high = 1e-2, _MOST_NOISE
    if spent(high) > target:
        raise ConfigError(
            f"no noise keeps ε at {target:g} over {steps} steps with δ {delta:g}",
            "Take fewer steps, or a larger ε or δ.",
        )
    while high > 1.001 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= target else (middle, high)
    return high


def statement(phases: Sequence[NoisySteps], delta: float, patients: int) -> str:
    """What may be said of the result, and no more.

    Raises ConfigError where δ is not below one over the number of patients.
    """
    if not delta * patients < 1:
        raise ConfigError(
            f"δ is {delta:g} with {patients} patients",
            f"Use less than 1/{patients}, a hundredth of that say: a larger one allows to publish "
            "one of them.",
        )
    spent = epsilon(phases, delta)
    sense = (
        "a strong guarantee"
        if spent <= 1
        else "a moderate guarantee"
        if spent <= 10
        else "next to no guarantee by itself"
    )
    return (
        f"Differential privacy with ε = {spent:.3g} and δ = {delta:.3g} for each of {patients} "
        f"patients, as far as the gradients go: {sense}."
    )


def _log_moments(phase: NoisySteps) -> Doubles:
    """(order − 1) · Rényi divergence of one step, or a bound above it, at all orders."""
    noise, rate = phase.noise_multiplier, phase.sampling_rate
    moments: Doubles
    if rate == 1:
        moments = _ORDERS * (_ORDERS - 1) / (2 * noise**2)
        return moments
    # The log of a moment is convex in its order and 0 at order 1: a chord is above it.
    known = [0.0, *(_log_moment(order, noise, rate) for order in _WHOLE)]
    moments = np.interp(_ORDERS, [1, *_WHOLE], known)
    return moments


def _log_moment(order: int, noise: float, rate: float) -> float:
    """The log of Σ_k C(order, k) (1 − rate)^(order − k) rate^k exp((k² − k) / 2 noise²)."""
    k = np.arange(order + 1, dtype=np.float64)
    logs = (
        _log_choose(order)
        + (order - k) * math.log1p(-rate)
        + k * math.log(rate)
        + k * (k - 1) / (2 * noise**2)
    )
    most = logs.max()
    return max(0.0, float(most + np.log(np.exp(logs - most).sum())))


def _log_choose(order: int) -> Doubles:
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, order + 1)))])
    logs: Doubles = factorials[order] - factorials - factorials[::-1]
    return logs
