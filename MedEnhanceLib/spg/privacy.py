"""Differential privacy by patient: (ε, δ) of one sum over patients with Gaussian noise.

The figures hold under these conditions:

- What a patient gives is one vector, scaled down to a norm of at most the clip.
- Gaussian noise with a standard deviation of noise_multiplier · clip is added once to the sum of
  those vectors, drawn from a generator whose state stays secret.
- Nothing else of a patient enters the result: not as the prior, nor by settings chosen by eye.

Where one patient is replaced by another the sum moves by two clips, where one is left out by one.

Source: the exact curve of one Gaussian, Balle and Wang, ICML 2018 (arXiv 1805.06530), as Google's
dp-accounting computes it.
"""

from __future__ import annotations

from typing import Any

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.statistics import CLIP

#: Clips by which a sum moves where one patient is replaced by another.
_REPLACEMENT = 2.0
_COMPARED = "one patient replaced by any other, or left out; the number of patients is public"


def noise_multiplier(config: DistillConfig) -> float:
    """The standard deviation of the noise that keeps ε for a patient who is replaced, in clips.

    Raises:
        DependencyError: the accountant is missing.
    """
    return float(_REPLACEMENT * _accounting().get_sigma_gaussian(config.epsilon, config.delta))


def privacy_record(config: DistillConfig, patients: int) -> dict[str, object]:
    """What manifest and README.md state of the privacy of a distillation.

    Raises:
        ConfigError: δ is not below 1 / number of patients.
    """
    if not config.delta * patients < 1:
        raise ConfigError(
            f"δ is {config.delta:g} with {patients} patients",
            f"Use less than 1/{patients}, for example a hundredth of that: a larger δ would allow "
            "publishing one of them.",
        )
    noise, epsilon_of = noise_multiplier(config), _accounting().get_epsilon_gaussian
    spent = float(epsilon_of(noise / _REPLACEMENT, config.delta))
    sense = (
        "a strong guarantee"
        if spent <= 1
        else "a moderate guarantee"
        if spent <= 10
        else "next to no guarantee by itself"
    )
    return {
        "epsilon": spent,
        "epsilon_left_out": float(epsilon_of(noise, config.delta)),
        "delta": config.delta,
        "clip": CLIP,
        "noise_multiplier": noise,
        "compared": _COMPARED,
        "statement": f"Differential privacy with ε = {spent:.3g} and δ = {config.delta:.3g} for "
        f"each of {patients} patients, as far as the statistics go: {sense}.",
    }


def _accounting() -> Any:
    return require("dp_accounting", purpose="Differential privacy")
