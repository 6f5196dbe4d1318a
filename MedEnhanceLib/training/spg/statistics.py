"""Statistics of a cohort, imposed on the volumes of a prior: intensities, textures and spacing.

The volumes show no image of a patient. They get the cohort's distribution of four bands of detail,
less the contribution of noise (noisy textures would teach networks to keep noise), and in MR also
that of intensities. HU are comparable without it, and forcing their distribution would turn
textures between fat and muscle into salt and pepper. From the cohort come 101 numbers (CT: 68),
each a mean over patients, and quartiles of the spacing of slices and pixels.

Source: matching the histograms of an image and of its bands in turns: Heeger and Bergen, Pyramid-
based texture analysis and synthesis, 1995. Bands of a Gaussian pyramid, restricted to tissue, and
means over patients are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Floats, Mask
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.noise.estimate import NoiseEstimate
from MedEnhanceLib.training.spg.images import shown, with_tissue

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/distillation.py.
LEVELS = 33
#: σ in pixels of the blurs between which the bands lie.
BLURS = (0.7, 1.4, 2.8, 5.6)
#: Quantiles of a band: denser at its ends, where edges are.
SHARES = (0.0, 0.003, 0.01, 0.03, 0.07, 0.15, 0.25, 0.4, 0.5)
_SHARES = np.array([*SHARES, *(1 - share for share in reversed(SHARES[:-1]))])
#: Intensities and bands are matched in turns: each undoes some of the other.
_ROUNDS = 4
#: Least share of a blur that lies inside.
_LEAST_SHARE = 1e-3
#: Slices of a volume that are measured, spread over it, and pixels that quantiles are taken from.
_SLICES, _PIXELS = 24, 2_000_000
#: Frequencies along an axis at which the response of the bands is computed.
_FREQUENCIES = 64
#: Quartiles of the spacing that the set's volumes have in turns, and digits that are kept.
_QUARTILES, _DIGITS = (0.5, 0.25, 0.75), 2
#: Patients from which on the extreme values of each number are replaced by the next ones.
CLIPPED_FROM = 5


@dataclass(frozen=True)
class Statistics:
    """Statistics of one patient, or means over several.

    Attributes:
        levels: [33], quantiles of intensity where something shows; none in CT.
        bands: [4, 17], quantiles of each band of detail there, fine to coarse.
        patients: how many they are of.
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


def count_of_numbers(modality: str) -> int:
    """Count the numbers that statistics of this modality consist of."""
    return LEVELS * (not profile_of(modality).is_absolute) + len(BLURS) * len(_SHARES)


def measure(
    volumes: Sequence[Floats], modality: str, noises: Sequence[NoiseEstimate] = ()
) -> Statistics:
    """Measure the statistics of one patient's volumes, of slices that show something.

    Args:
        volumes: float32 [K, J, I] each, in [0, 1].
        modality: "CT" or "MR".
        noises: of each volume, in its units; their contribution to the bands is removed.
    Raises:
        ValueError: nothing shows in any slice.
    """
    stacks = []
    for volume in volumes:
        images = with_tissue(volume, modality)
        places = np.linspace(0, len(images) - 1, min(_SLICES, len(images))).round().astype(int)
        stacks.append(np.ascontiguousarray(images[places]))
    stacks = [stack for stack in stacks if len(stack)]
    masks = [shown(stack, modality) for stack in stacks]
    split = [
        (stack, *_bands(stack, mask, _shares_inside(mask))[0])
        for stack, mask in zip(stacks, masks, strict=True)
    ]
    levels, *bands = (
        np.concatenate([part[mask] for part, mask in zip(layer, masks, strict=True)])
        for layer in zip(*split, strict=True)
    )
    detail = np.stack([_quantiles(band, _SHARES) for band in bands])
    if noises:
        # Quantiles of Gaussian noise are known; signal and noise add in squares.
        scores = np.array(
            [NormalDist().inv_cdf(share) for share in np.clip(_SHARES, 1e-4, 1 - 1e-4)]
        )
        noise = np.mean([_variances(each) for each in noises], axis=0)[:, None] * scores**2
        detail = np.sort(np.sign(detail) * np.sqrt(np.maximum(detail**2 - noise, 0)))
    shares = np.empty(0) if profile_of(modality).is_absolute else np.linspace(0, 1, LEVELS)
    return Statistics(_quantiles(levels, shares), detail)


def _variances(noise: NoiseEstimate) -> Doubles:
    """Compute the noise variance in each band, [4], from its spectrum and the blurs' response."""
    frequency = np.fft.fftfreq(_FREQUENCIES)
    along = -2 * (np.pi * frequency) ** 2
    passing = [np.ones((_FREQUENCIES,) * 2)]
    passing += [np.exp(sigma**2 * (along[:, None] + along)) for sigma in BLURS]
    power = noise.spectrum.mean(axis=0)
    # A cosine of 4 voxels stands for the frequencies around its own, u / 8 a voxel.
    cell = np.minimum(np.round(8 * np.abs(frequency)), len(power) - 1).astype(int)
    power = power[np.ix_(cell, cell)]
    shares = [((finer - coarser) ** 2 * power).mean() for finer, coarser in pairwise(passing)]
    variances: Doubles = noise.level**2 * np.array(shares) / power.mean()
    return variances


def mean_over(patients: Iterable[Statistics]) -> Statistics:
    """Average over patients; from five patients on, the means are winsorized.

    The lowest and the highest value of each number are replaced by the next ones, so that no single
    unusual patient shows in a mean.
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
    """Impose statistics on the tissue in volumes.

    Args:
        volumes: float32 [M, K, J, I] in [0, 1].
        statistics: of the pixels of all volumes together, which are met approximately.
        modality: "CT" or "MR"; decides what counts as tissue.
    """
    images = volumes.reshape(-1, *volumes.shape[2:])
    inside = shown(images, modality)
    result = _with_levels(images, inside, statistics.levels)
    shares = _shares_inside(inside)
    for _ in range(_ROUNDS):
        bands, rest = _bands(result, inside, shares)
        for band, target in zip(bands, statistics.bands, strict=True):
            rest += np.interp(band, _quantiles(band[inside], _SHARES), target).astype(np.float32)
        changed = np.where(inside, np.clip(rest, 0, 1), result)
        result = _with_levels(changed, inside, statistics.levels)
    return result.reshape(volumes.shape)


def _quantiles(values: Floats, shares: Doubles) -> Doubles:
    """Compute quantiles, of many values from an evenly spaced subset, except for both ends."""
    some = values[:: max(1, values.size // _PIXELS)]
    quantiles: Doubles = np.quantile(some, shares).astype(np.float64)
    if shares.size:
        quantiles[0], quantiles[-1] = float(values.min()), float(values.max())
    return quantiles


def _with_levels(images: Floats, inside: Mask, levels: Doubles) -> Floats:
    """Copy images with these quantiles, [33] or none, of the intensities inside."""
    result = images.copy()
    if levels.size:
        before = _quantiles(images[inside], np.linspace(0, 1, LEVELS))
        result[inside] = np.interp(images[inside], before, levels)
    return result


def _shares_inside(inside: Mask) -> list[Floats]:
    """Compute the share of each blur's kernel that lies inside, [N, H, W] each."""
    whole = inside.astype(np.float32)
    return [np.maximum(gaussian_blur(whole, sigma), np.float32(_LEAST_SHARE)) for sigma in BLURS]


def _bands(images: Floats, inside: Mask, shares: Sequence[Floats]) -> tuple[list[Floats], Floats]:
    """Split into bands of detail, fine to coarse, and the rest, which add up to the images inside.

    Blurs are means over pixels inside, so that the edge to air leaves no rim in the bands.
    """
    bands: list[Floats] = []
    masked, finer = images * inside.astype(np.float32), images
    for sigma, share in zip(BLURS, shares, strict=True):
        coarser: Floats = gaussian_blur(masked, sigma) / share
        bands.append(finer - coarser)
        finer = coarser
    return bands, finer.copy()
