"""Differential privacy by patient: (ε, δ) of what is made from clipped and noised contributions.

The figures hold under these conditions:

- In each step the whole contribution of a patient, all patches together, is one vector, scaled
  down to a norm of at most the clip. Clipping each patch by itself bounds no patient.
- Gaussian noise with a standard deviation of noise_multiplier · clip is added to the sum of those
  vectors, drawn anew in each step from a generator whose state stays secret.
- Each patient takes part in each step independently, with the probability sampling_rate. A patient
  who always takes part has a rate of 1, as in SPG, which distills each patient separately.
- Nothing else of a patient enters the result: not as the prior, nor by settings chosen by eye.

`NoisySteps` count for "with or without one patient", whose vector moves the sum by a clip at most.
Where one patient may be replaced by another, the sum moves by two: half the multiplier counts.

Source: Google's dp-accounting. Its privacy loss distributions (Koskela, Jälkö and Honkela, arXiv
1906.03049; Doroshenko et al., arXiv 2207.04380) are nearly exact; far above a useful ε its Rényi
accountant suffices (Mironov, Talwar and Zhang, arXiv 1908.10530), which guarantees a little less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Any

from MedEnhanceLib.core.options import About, Options, check_range, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.spg.config import DistillConfig

#: Above this ε loss distributions take seconds and gigabytes, for a guarantee that is none.
_LOOSE = 50.0
#: Of privacy losses; an ε is right to about 1e-5 of it, and never too small.
_INTERVAL = 1e-3
_MOST_NOISE = 1e6
#: Clips by which a sum moves where one patient is replaced by another.
_REPLACEMENT = 2.0
_NEIGHBORS = "with and without a patient's gradients; how many patients there are is no secret"
_REPLACED = (
    "one patient replaced by any other, or left out; how many patients there are is no secret"
)


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
    taken = tuple(phase for phase in phases if phase.steps)
    return _epsilon(taken, delta) if taken else 0.0


@lru_cache
def _epsilon(phases: tuple[NoisySteps, ...], delta: float) -> float:
    accounting = _accounting()
    event = accounting.ComposedDpEvent([_event(phase) for phase in phases])
    bound = float(_renyi().compose(event).get_epsilon(delta))
    if bound > _LOOSE:
        return bound
    # Losses are cut off at a mass that a very small δ may be below: then theirs is infinite.
    return min(bound, float(_losses().compose(event).get_epsilon(delta)))


def _accounting() -> Any:
    return require("dp_accounting", purpose="Differential privacy")


def _renyi() -> Any:
    # Whole orders: its series for others does not always converge for sampled steps.
    orders = (*[1 + n / 10 for n in range(1, 10)], *range(2, 65), 128, 256, 512, 1024, 4096)
    return _accounting().rdp.RdpAccountant(orders)


def _losses() -> Any:
    return _accounting().pld.PLDAccountant(value_discretization_interval=_INTERVAL)


def _event(phase: NoisySteps) -> Any:
    accounting = _accounting()
    event = accounting.GaussianDpEvent(phase.noise_multiplier)
    if phase.sampling_rate < 1:
        event = accounting.PoissonSampledDpEvent(phase.sampling_rate, event)
    return accounting.SelfComposedDpEvent(event, phase.steps)


@lru_cache
def noise_for(target: float, delta: float, *, steps: int, sampling_rate: float = 1.0) -> float:
    """The smallest noise multiplier that keeps ε at or below a target.

    Args:
        target: ε, 1e-6 to 1e6.
        delta: as in `epsilon`.
        steps: of the training.
        sampling_rate: as in `NoisySteps`.
    Returns:
        The multiplier, to 0.01 %.
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
    while high > 1.0001 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= target else (middle, high)
    return high


def statement(
    phases: Sequence[NoisySteps], delta: float, patients: int, *, covers: str = "the gradients"
) -> str:
    """The guarantee in one sentence.

    covers: what of the patients it is about.

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
        f"patients, as far as {covers} go: {sense}."
    )


def noisy_steps(config: DistillConfig) -> NoisySteps:
    """What a distillation with `dp` takes of one patient.

    With matching every match is about that patient; with statistics there is one noised sum, whose
    noise suffices for a patient who is replaced by another: the multiplier is in clips, of which
    the sum then moves by two.

    Raises:
        ConfigError: no noise reaches the requested ε.
    """
    dp = config.dp
    assert dp is not None
    by_sum = config.method == "statistics"
    steps = 1 if by_sum else config.loop.outer * config.loop.inner
    noise = dp.noise_multiplier
    if noise is None:
        assert dp.epsilon is not None
        noise = noise_for(dp.epsilon, dp.delta, steps=steps) * (_REPLACEMENT if by_sum else 1)
    return NoisySteps(steps=steps, noise_multiplier=noise)


def privacy_record(config: DistillConfig, patients: int) -> dict[str, object]:
    """What manifest and README.md state of the privacy of a distillation; see `statement`."""
    dp = config.dp
    assert dp is not None
    steps = noisy_steps(config)
    stated = {"delta": dp.delta, "clip": dp.clip, "noise_multiplier": steps.noise_multiplier}
    if config.method == "statistics":
        counted = [replace(steps, noise_multiplier=steps.noise_multiplier / _REPLACEMENT)]
        return {
            "epsilon": epsilon(counted, dp.delta),
            "epsilon_left_out": epsilon([steps], dp.delta),
            **stated,
            "neighbours": _REPLACED,
            "statement": statement(counted, dp.delta, patients, covers="the statistics"),
        }
    return {
        "epsilon": epsilon([steps], dp.delta),
        **stated,
        "matches": steps.steps,
        "neighbours": _NEIGHBORS,
        "statement": statement([steps], dp.delta, patients),
    }
