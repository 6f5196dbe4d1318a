"""Statistics of a cohort, and volumes that take them on: intensities, textures and spacing.

A training set that gives away no image: volumes of a prior, with the distribution of intensities
and of four bands of detail that the cohort has. What of the cohort is in it are 101 numbers, each a
mean over patients, and quartiles of the distances of slices and pixels.

Source: matching the histograms of an image and of its bands in turns: Heeger and Bergen, Pyramid-
based texture analysis and synthesis, 1995. Bands of a Gaussian pyramid, inside of what shows
something, and means over patients are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Floats, Mask
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.spg.images import shown, with_tissue

LEVELS = 33
#: σ in pixels of the blurs between which the bands lie.
BLURS = (0.7, 1.4, 2.8, 5.6)
#: Quantiles of a band: denser at its ends, where edges are.
SHARES = (0.0, 0.003, 0.01, 0.03, 0.07, 0.15, 0.25, 0.4, 0.5)
_SHARES = np.array([*SHARES, *(1 - share for share in reversed(SHARES[:-1]))])
NUMBERS = LEVELS + len(BLURS) * len(_SHARES)
#: Intensities and bands are matched in turns: each undoes some of the other.
_ROUNDS = 4
#: Slices of a volume that are measured, spread over it, and pixels that quantiles are taken of.
_SLICES, _PIXELS = 24, 2_000_000
#: Quartiles of the spacing that the set's volumes have in turns, and digits that are kept.
_QUARTILES, _DIGITS = (0.5, 0.25, 0.75), 2
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


def measure(volumes: Sequence[Floats], modality: str) -> Statistics:
    """Measure the statistics of one patient's volumes, float32 [K, J, I] each in [0, 1].

    Of slices that show something. Raises ValueError where none does.
    """
    stacks = []
    for volume in volumes:
        images = with_tissue(volume, modality)
        places = np.linspace(0, len(images) - 1, min(_SLICES, len(images))).round().astype(int)
        stacks.append(np.ascontiguousarray(images[places]))
    split = [(stack, *_bands(stack)[0]) for stack in stacks if len(stack)]
    masks = [shown(parts[0], modality) for parts in split]
    levels, *bands = (
        np.concatenate([part[mask] for part, mask in zip(layer, masks, strict=True)])
        for layer in zip(*split, strict=True)
    )
    return Statistics(
        _quantiles(levels, np.linspace(0, 1, LEVELS)),
        np.stack([_quantiles(band, _SHARES) for band in bands]),
    )


def mean_over(patients: Iterable[Statistics]) -> Statistics:
    """Average over patients; of five and more nobody's lowest and highest numbers count in full.

    The lowest value of each number is replaced by the next one, and the highest: so that no single
    odd patient shows in a mean.
    """
    everybody = list(patients)

    def mean(values: list[Doubles]) -> Doubles:
        stacked = np.sort(np.stack(values), axis=0)
        if len(stacked) >= CLIPPED_FROM:
            stacked[0], stacked[-1] = stacked[1], stacked[-2]
        means: Doubles = stacked.mean(axis=0)
        return means

    return Statistics(
        mean([each.levels for each in everybody]),
        mean([each.bands for each in everybody]),
        len(everybody),
    )


def spacings(patients: Sequence[tuple[float, float]], count: int) -> list[tuple[float, float]]:
    """Choose the spacing of each of `count` volumes: quartiles over the patients, in turns.

    Two digits are kept, so that no patient's exact spacing is published.

    Args:
        patients: distance of slices and of pixels of each, mm.
        count: number of volumes.
    Returns:
        Distance of slices and of pixels for each volume, mm.
    """
    quartiles = np.quantile(np.array(patients, np.float64), _QUARTILES, axis=0)
    rounded = [tuple(float(f"{mm:.{_DIGITS}g}") for mm in pair) for pair in quartiles]
    return [(rounded[n % len(rounded)][0], rounded[n % len(rounded)][1]) for n in range(count)]


def imposed(volumes: Floats, statistics: Statistics, modality: str) -> Floats:
    """Give volumes [M, K, J, I] in [0, 1] these statistics, all together, where something shows."""
    images = volumes.reshape(-1, *volumes.shape[2:])
    inside = shown(images, modality)
    result = _with_levels(images, inside, statistics.levels)
    for _ in range(_ROUNDS):
        bands, rest = _bands(result)
        for band, target in zip(bands, statistics.bands, strict=True):
            rest += np.interp(band, _quantiles(band[inside], _SHARES), target).astype(np.float32)
        changed = np.where(inside, np.clip(rest, 0, 1), result)
        result = _with_levels(changed, inside, statistics.levels)
    return result.reshape(volumes.shape)


def _quantiles(values: Floats, shares: Doubles) -> Doubles:
    """Compute quantiles, of many values those of an even part, but for both ends."""
    some = values[:: max(1, values.size // _PIXELS)]
    quantiles: Doubles = np.quantile(some, shares).astype(np.float64)
    quantiles[0], quantiles[-1] = float(values.min()), float(values.max())
    return quantiles


def _with_levels(images: Floats, inside: Mask, levels: Doubles) -> Floats:
    """Copy images with these quantiles, [33], of the intensities inside."""
    result = images.copy()
    before = _quantiles(images[inside], np.linspace(0, 1, LEVELS))
    result[inside] = np.interp(images[inside], before, levels)
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
