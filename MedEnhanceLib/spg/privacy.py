"""Differential privacy by patient: (ε, δ) of a training on clipped and noised gradients.

The figures hold under these conditions:

- In each step the whole contribution of a patient, all patches together, is one vector, scaled
  down to a norm of at most the clip. Clipping each patch by itself bounds no patient.
- Gaussian noise with a standard deviation of noise_multiplier · clip is added to the sum of those
  vectors, drawn anew in each step from a generator whose state stays secret.
- Each patient takes part in each step independently, with the probability sampling_rate. A patient
  who always takes part has a rate of 1, as in SPG, which distills each patient separately.
- Nothing else of a patient enters the result: not as the prior, nor by settings chosen by eye.

Source: Rényi differential privacy of the sampled Gaussian mechanism, Mironov, Talwar and Zhang,
arXiv 1908.10530, section 3.3; its conversion: Canonne, Kamath and Steinke, arXiv 2004.00010,
proposition 12. "Neighboring" means with or without one patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.options import About, Options, check_range, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.spg.config import DistillConfig

Doubles = npt.NDArray[np.float64]

#: Rényi orders at which the divergence of sampled noise is known exactly.
_WHOLE = (*range(2, 65), *range(72, 257, 8), 320, 384, 512, 768, 1024, 2048, 4096)
#: All orders tried: these, and seven between each two of them.
_ORDERS = np.interp(np.arange(1, 8 * len(_WHOLE) + 1) / 8, np.arange(len(_WHOLE) + 1), [1, *_WHOLE])
_MOST_NOISE = 1e6
_NEIGHBORS = "with and without a patient's gradients; how many patients there are is no secret"


@dataclass(frozen=True, kw_only=True)
class NoisySteps(Options):
    """Steps of one kind."""

    steps: Annotated[int, About(help="their number", low=0, high=10**9)]
    noise_multiplier: Annotated[
        float, About(help="standard deviation of the noise, in clips", low=1e-2, high=_MOST_NOISE)
    ]
    sampling_rate: float = option(
        1.0, help="probability that a patient takes part in a step", low=1e-9, high=1
    )


def epsilon(phases: Sequence[NoisySteps], delta: float) -> float:
    """The ε that all phases together guarantee every patient at this δ.

    Args:
        phases: the steps of the training.
        delta: far below 1 / number of patients, else the guarantee is empty: publishing one patient
            at random has a δ of 1 / number of patients.
    Returns:
        ε, from 0 (no step) up.
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
    """The smallest noise multiplier that keeps ε at or below a target.

    Args:
        target: ε, 1e-6 to 1e6.
        delta: as in `epsilon`.
        steps: of the training.
        sampling_rate: as in `NoisySteps`.
    Returns:
        The multiplier, to 0.1 %.
    Raises:
        ConfigError: no noise reaches the target.
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
    """The guarantee in one sentence.

    Raises:
        ConfigError: δ is not below 1 / number of patients.
    """
    if not delta * patients < 1:
        raise ConfigError(
            f"δ is {delta:g} with {patients} patients",
            f"Use less than 1/{patients}, for example a hundredth of that: a larger δ would allow "
            "publishing one of them.",
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
    """(order − 1) · Rényi divergence of one step, or an upper bound of it, at all orders."""
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


def noisy_steps(config: DistillConfig) -> NoisySteps:
    """The matches of one patient as privacy-consuming steps; every match is about that patient.

    Raises:
        ConfigError: no noise reaches the requested ε.
    """
    dp = config.dp
    assert dp is not None
    matches = config.loop.outer * config.loop.inner
    noise = dp.noise_multiplier
    if noise is None:
        assert dp.epsilon is not None
        noise = noise_for(dp.epsilon, dp.delta, steps=matches)
    return NoisySteps(steps=matches, noise_multiplier=noise)


def privacy_record(config: DistillConfig, patients: int) -> dict[str, object]:
    """What manifest and card state of the privacy of a distillation; see `statement`."""
    dp = config.dp
    assert dp is not None
    steps = noisy_steps(config)
    return {
        "epsilon": epsilon([steps], dp.delta),
        "delta": dp.delta,
        "clip": dp.clip,
        "noise_multiplier": steps.noise_multiplier,
        "matches": steps.steps,
        "neighbours": _NEIGHBORS,
        "statement": statement([steps], dp.delta, patients),
    }
