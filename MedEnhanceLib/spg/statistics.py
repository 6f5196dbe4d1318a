"""Statistics of a cohort, and a prior that takes them on: intensities and textures.

A training set that gives away no image: the slices of a public prior, with the distribution of
intensities and of four bands of detail that the cohort has. What of the cohort is in it are 101
numbers, each a mean over patients.

With differential privacy there are 4 numbers of each patient: 101 would drown in noise. They say
how far the patient is from the public prior; one noised sum over patients is all that is used.

Source: matching the histograms of an image and of its bands in turns: Heeger and Bergen, Pyramid-
based texture analysis and synthesis, 1995. Bands of a Gaussian pyramid, inside of what shows
something, and means over patients are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.degradation import gaussian_blur
from MedEnhanceLib.spg.images import Floats, shown

Doubles = npt.NDArray[np.float64]

LEVELS = 33
#: σ in pixels of the blurs between which the bands lie.
BLURS = (0.7, 1.4, 2.8, 5.6)
#: Quantiles of a band: denser at its ends, where edges are.
SHARES = (0.0, 0.003, 0.01, 0.03, 0.07, 0.15, 0.25, 0.4, 0.5)
_SHARES = np.array([*SHARES, *(1 - share for share in reversed(SHARES[:-1]))])
NUMBERS = LEVELS + len(BLURS) * len(_SHARES)
#: Intensities and bands are matched in turns: each undoes some of the other.
_ROUNDS = 4
#: From this many patients on the lowest and highest value of each number count as the next ones.
CLIPPED_FROM = 5
#: With differential privacy: brightness, contrast and skew of intensities, and the gain of detail.
PROJECTED = 4
#: What the norm of a patient's numbers is cut to.
CLIP = 1.0
#: What a cosine of the differences in intensity, and the logarithm of a gain, are divided by, so
#: that a cohort far from the prior has a norm of about 1, the clip. They were chosen on
#: MR and CT of soft-tissue sarcomas, and stay: constants taken from a cohort would reveal it.
_UNITS = np.array([0.4, 0.4, 0.4, 1.0])
#: Detail changes by a factor of 8 at most, whatever the noise.
_MOST_GAIN = math.log(8)
#: Detail below this is none.
_LEAST_SPREAD = 1e-6
#: [3, 33]: the first cosines, of mean square 1, as in a DCT.
_COSINES = np.cos(np.pi * np.outer(np.arange(PROJECTED - 1), np.arange(LEVELS) + 0.5) / LEVELS)
_COSINES[1:] *= np.sqrt(2)


@dataclass(frozen=True)
class Statistics:
    """Of one patient, or means over several.

    levels: [33], quantiles of intensity where something shows. bands: [4, 17], quantiles of each
    band of detail there, fine to coarse. patients: how many they are of.
    """

    levels: Doubles
    bands: Doubles
    patients: int = 1

    def record(self) -> dict[str, Any]:
        """As it is published."""
        return {
            "patients": self.patients,
            "intensities": [round(float(value), 5) for value in self.levels],
            "bands": [[round(float(value), 6) for value in band] for band in self.bands],
            "blurs_px": list(BLURS),
            "shares": [float(f"{share:g}") for share in _SHARES],
        }


def measure(images: Floats, modality: str) -> Statistics:
    """The statistics of one patient's images.

    Args:
        images: float32 [N, H, W] in [0, 1], of which something shows.
        modality: "CT" or "MR".
    """
    inside = shown(images, modality)
    bands, _ = _bands(images)
    return Statistics(
        np.quantile(images[inside], np.linspace(0, 1, LEVELS)),
        np.stack([np.quantile(band[inside], _SHARES) for band in bands]),
    )


def mean_over(patients: Iterable[Statistics]) -> Statistics:
    """Means over patients; of five and more nobody's lowest and highest numbers count in full.

    The lowest value of each number is replaced by the next one, and the highest: so that no single
    odd patient shows in a mean.
    """
    found = list(patients)

    def mean(values: list[Doubles]) -> Doubles:
        stacked = np.sort(np.stack(values), axis=0)
        if len(stacked) >= CLIPPED_FROM:
            stacked[0], stacked[-1] = stacked[1], stacked[-2]
        means: Doubles = stacked.mean(axis=0)
        return means

    return Statistics(
        mean([one.levels for one in found]), mean([one.bands for one in found]), len(found)
    )


def projected(patient: Statistics, prior: Statistics) -> Doubles:
    """How far a patient is from the prior: [4], three cosines of the levels and the mean gain."""
    levels = _COSINES @ (patient.levels - prior.levels) / LEVELS
    gain = np.log(_spread(patient) / _spread(prior)).mean()
    numbers: Doubles = np.append(levels, gain) / _UNITS
    return numbers


def clipped_sum(patients: Iterable[Doubles]) -> Doubles:
    """The sum of vectors, each scaled down to a norm of at most `CLIP`.

    Leaving out one of them moves it by at most `CLIP`, replacing one by at most twice that. A
    vector that is not finite has no norm, and counts as zeros.
    """
    total = np.zeros(PROJECTED)
    for vector in patients:
        length = math.hypot(*vector)  # overflows later than a sum of squares
        if math.isfinite(length):
            total += vector * min(1.0, CLIP / max(length, CLIP))
    return total


def noised_mean(
    patients: Iterable[Statistics],
    prior: Statistics,
    *,
    noise_multiplier: float,
    rng: np.random.Generator,
) -> Statistics:
    """Statistics of a cohort that depend on it through one noised sum of `projected` alone.

    Args:
        patients: of each patient.
        prior: of the public prior, on its images.
        noise_multiplier: standard deviation of the noise on each of the 4 sums, in clips.
        rng: its state must stay secret.
    """
    vectors = [projected(patient, prior) for patient in patients]
    count, deviation = len(vectors), CLIP * noise_multiplier
    total = clipped_sum(vectors) + deviation * rng.standard_normal(PROJECTED)
    return rebuilt(shrunk(total / count, deviation / count), prior, count)


def shrunk(noised: Doubles, deviation: float) -> Doubles:
    """The noised numbers, nearer to 0 (the prior) the more of their length the noise explains.

    Source: James and Stein, 1961, its positive part (Baranchik, 1964).
    """
    length = float(noised @ noised)
    if not length:
        return noised
    kept: Doubles = noised * max(0.0, 1 - (PROJECTED - 2) * deviation**2 / length)
    return kept


def rebuilt(numbers: Doubles, prior: Statistics, patients: int) -> Statistics:
    """The statistics whose `projected` are nearest to these; the order of quantiles is kept."""
    *cosines, gain = numbers * _UNITS
    levels = np.clip(np.sort(prior.levels + cosines @ _COSINES), 0, 1)
    bands = prior.bands * np.exp(np.clip(gain, -_MOST_GAIN, _MOST_GAIN))
    return Statistics(levels, bands, patients)


def _spread(of: Statistics) -> Doubles:
    """Of each band, [4]."""
    spread: Doubles = np.maximum(np.abs(of.bands).mean(axis=1), _LEAST_SPREAD)
    return spread


def imposed(images: Floats, statistics: Statistics, modality: str) -> Floats:
    """Images with these statistics where something shows; elsewhere they stay as they are.

    Args:
        images: float32 [N, H, W] in [0, 1].
        statistics: that they are to have, all of them together.
        modality: "CT" or "MR".
    Returns:
        float32, same shape.
    """
    inside = shown(images, modality)
    result = with_levels(images, inside, statistics.levels)
    for _ in range(_ROUNDS):
        bands, rest = _bands(result)
        for band, wanted in zip(bands, statistics.bands, strict=True):
            own = np.quantile(band[inside], _SHARES)
            rest += np.interp(band, own, wanted).astype(np.float32)
        changed = np.where(inside, np.clip(rest, 0, 1), result)
        result = with_levels(changed, inside, statistics.levels)
    return result


def with_levels(images: Floats, inside: npt.NDArray[np.bool_], wanted: Doubles) -> Floats:
    """Images whose intensities inside have these quantiles, [33]; a copy."""
    levels = np.linspace(0, 1, LEVELS)
    own = np.quantile(images[inside], levels)
    result = images.copy()
    result[inside] = np.interp(np.interp(images[inside], own, levels), levels, wanted)
    return result


def _bands(images: Floats) -> tuple[list[Floats], Floats]:
    """Bands of detail, fine to coarse, and what is left: together they are the images."""
    bands: list[Floats] = []
    finer = images
    for sigma in BLURS:
        coarser = gaussian_blur(images, sigma)
        bands.append(finer - coarser)
        finer = coarser
    return bands, finer.copy()
