"""Statistics of a cohort, and a prior that takes them on: intensities and textures.

A training set that gives away no image: the slices of a public prior, with the distribution of
intensities and of four bands of detail that the cohort has. What of the cohort is in it are 101
numbers, each a mean over patients.

Source: matching the histograms of an image and of its bands in turns: Heeger and Bergen, Pyramid-
based texture analysis and synthesis, 1995. Bands of a Gaussian pyramid, inside of what shows
something, and means over patients are ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.degradation.image import gaussian_blur
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


@dataclass(frozen=True)
class Statistics:
    """Statistics of one patient, or means over several.

    levels: [33], quantiles of intensity where something shows. bands: [4, 17], quantiles of each
    band of detail there, fine to coarse. patients: how many they are of.
    """

    levels: Doubles
    bands: Doubles
    patients: int = 1

    def record(self) -> dict[str, Any]:
        """Convert to the fields that are published."""
        return {
            "patients": self.patients,
            "intensities": [round(float(value), 5) for value in self.levels],
            "bands": [[round(float(value), 6) for value in band] for band in self.bands],
            "blurs_px": list(BLURS),
            "shares": [float(f"{share:g}") for share in _SHARES],
        }


def measure(images: Floats, modality: str) -> Statistics:
    """Measure the statistics of one patient's images, float32 [N, H, W] in [0, 1]."""
    inside = shown(images, modality)
    bands, _ = _bands(images)
    return Statistics(
        np.quantile(images[inside], np.linspace(0, 1, LEVELS)),
        np.stack([np.quantile(band[inside], _SHARES) for band in bands]),
    )


def mean_over(patients: Iterable[Statistics]) -> Statistics:
    """Average over patients; of five and more nobody's lowest and highest numbers count in full.

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


def imposed(images: Floats, statistics: Statistics, modality: str) -> Floats:
    """Give images [N, H, W] in [0, 1] these statistics, all together, where something shows."""
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
    """Copy images with the quantiles `wanted`, [33], of the intensities inside."""
    levels = np.linspace(0, 1, LEVELS)
    own = np.quantile(images[inside], levels)
    result = images.copy()
    result[inside] = np.interp(np.interp(images[inside], own, levels), levels, wanted)
    return result


def _bands(images: Floats) -> tuple[list[Floats], Floats]:
    """Split into bands of detail, fine to coarse, and what is left, which add up to the images."""
    bands: list[Floats] = []
    finer = images
    for sigma in BLURS:
        coarser = gaussian_blur(images, sigma)
        bands.append(finer - coarser)
        finer = coarser
    return bands, finer.copy()
