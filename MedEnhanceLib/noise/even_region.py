"""Measures the noise in a region of even tissue, which a user has chosen.

What changes slowly over the region (a slope along each axis) is tissue or bias field; the rest is
noise. Source of the Rician correction: Gudbjartsson and Patz, Magn. Reson. Med. 34 (1995) 910.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, sample_of
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.texts import Text

#: Lower limit of a region's noise over the upper limit of the volume's from which anatomy may be in
#: it: cortex gave 5, noise that grows towards the middle of a head 1.5. Chosen by hand; no table
#: isolates it.
APART = 1.5
#: Voxels of the smallest region, and lags along each axis at which the noise is correlated.
_FEWEST, _LAGS = 64, (1, 2, 3)
# Chosen by hand; no table isolates them.
#: Most voxels of noise that count as one: where more are alike, it is structure.
_MOST_SHARED = 8.0
#: Median absolute deviation of normal noise of σ = 1, over σ.
_OF_MEDIAN = 0.6745
#: σ of all voxels over that of the typical ones, and of one half of the region over the other,
#: above which it holds more than even tissue: the larger of a factor and of 1 + a number / √n.
_EDGES, _UNEQUAL = (1.25, 4.0), (1.3, 6.0)
#: Sides of the cube around a voxel, in mm, and its least number of voxels along each.
_CUBE_MM, _CUBE_VOXELS = 12.0, 4
#: Smoothest cubes of tissue that are measured to propose places; places proposed.
_TRIED, _PROPOSED = 60, 3
#: Mean over σ below which the mean of a magnitude is mostly noise.
_LEAST_SNR = 2.5
#: 5 % and 95 % of a normal distribution.
_NINE_OF_TEN = 1.645


@dataclass(frozen=True)
class RegionNoise:
    """Noise of a region.

    Attributes:
        level: σ, in the units of the volume.
        low, high: ends of the interval that holds σ in nine of ten regions.
        mean: of the region, in the same units.
        voxels: number of them.
        reason: why σ may be too large; None where it is not.
    """

    level: float
    low: float
    high: float
    mean: float
    voxels: int
    reason: Text | None = None


def measure_region(voxels: Array, *, modality: str) -> RegionNoise:
    """Measure the noise of a region of even tissue.

    Args:
        voxels: [k, j, i] of the region alone, in any unit.
        modality: in "MR" they are magnitudes, whose spread is below σ where the signal is weak.
    Raises:
        InputError: fewer than 64 voxels, infinite values, values that are equal or an exact slope,
            or a signal as weak as noise.
    """
    values = np.asarray(voxels, np.float64)
    if values.size < _FEWEST:
        text = f"the region has {values.size} voxels"
        raise InputError(text, f"Choose {_FEWEST} or more, in even tissue.")
    if not np.isfinite(values).all():
        raise InputError("the region has values that are not finite", "Choose a region of tissue.")
    if values.min() == values.max():
        text = f"all voxels of the region have the value {values.min():g}, as in padding"
        raise InputError(text, "Choose a region of tissue.")
    rest, parameters = _without_trend(values)
    freedom = values.size - parameters
    level = float(np.sqrt((rest**2).sum() / freedom))
    if level <= 1e-12 * np.ptp(values):  # rounding errors of the fit
        raise InputError("the region holds an exact slope", "Choose a region of tissue.")
    typical = float(np.median(np.abs(rest))) / _OF_MEDIAN
    mean = float(values.mean())
    if profile_of(modality).is_magnitude:
        factor = _rician_factor(mean / level)
        level, typical = level * factor, typical * factor
    free = freedom / min(_shared(rest), _MOST_SHARED)
    edges, unequal = (max(least, 1 + step / math.sqrt(free)) for least, step in (_EDGES, _UNEQUAL))
    is_even = level <= edges * typical and _ratio_of_halves(rest) <= unequal
    reason = None if is_even else Text("uneven_region")
    low, high = (level / _of_chi(free, end) for end in (1, -1))
    return RegionNoise(level, low, high, mean, values.size, reason)


def cube_around(
    voxel: Sequence[int], shape: Sequence[int], spacing: Sequence[float]
) -> tuple[slice, ...]:
    """Return a cube of 12 mm around a voxel, within the volume.

    Args:
        voxel: K, J and I.
        shape: of the volume, [K, J, I].
        spacing: mm along K, J and I.
    """
    return tuple(
        slice(max(0, at - half), min(side, at + max(1, half)))
        for at, half, side in zip(voxel, _halves(spacing), shape, strict=True)
    )


def _halves(spacing: Sequence[float]) -> list[int]:
    return [max(_CUBE_VOXELS, round(_CUBE_MM / mm)) // 2 for mm in spacing]


def even_places(
    voxels: Array, spacing: Sequence[float], *, modality: str, most: float = math.inf
) -> tuple[tuple[int, ...], ...]:
    """Find up to three voxels in even tissue, around which the noise can be measured.

    The smoothest cubes of tissue are measured, and of those that are even the places with the
    middle levels are returned, as the smoothest would show too little noise.

    Args:
        voxels: [K, J, I].
        spacing: mm along K, J and I.
        modality: as of `measure_region`.
        most: σ in the units of the volume; where it is surely larger, anatomy may be in the cube.
    Returns K, J and I of each, from 0; none where no cube is even.
    """
    even = []
    cubes = sorted(_cubes_of_tissue(voxels, spacing, modality))[:_TRIED]
    for _spread, place in cubes:
        try:
            where = cube_around(place, voxels.shape, spacing)
            noise = measure_region(voxels[where], modality=modality)
        except InputError:
            continue
        if not noise.reason and noise.low <= most:
            even.append((noise.level, place))
    first = max(0, (len(even) - _PROPOSED) // 2)
    return tuple(place for _level, place in sorted(even)[first : first + _PROPOSED])


def even_places_of(volume: Volume, highest: float) -> tuple[tuple[int, ...], ...]:
    """Return up to three voxels in even tissue of a volume, the same tissue in any storage.

    volume: none are returned for a sequence. highest: end of what the noise of the volume likely
    is; what `measure_region` measures at a returned place is not taken for anatomy.
    """
    if volume.is_sequence:
        return ()
    turned = volume.canonical()
    spacing = turned.geometry.spacing[::-1]
    most = APART * highest
    places = even_places(turned.voxels, spacing, modality=volume.modality, most=most)
    back = np.linalg.solve(volume.geometry.affine_lps, turned.geometry.affine_lps)
    voxels = (back @ [*reversed(place), 1] for place in places)
    return tuple(tuple(round(float(at)) for at in voxel[2::-1]) for voxel in voxels)


def _cubes_of_tissue(
    voxels: Array, spacing: Sequence[float], modality: str
) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Yield the spread and the middle of each cube of a grid whose mean is that of tissue."""
    low, high = _tissue(voxels, modality)
    sides = [min(2 * half, side) for half, side in zip(_halves(spacing), voxels.shape, strict=True)]
    rows, columns = (voxels.shape[axis] // sides[axis] for axis in (1, 2))
    for start in range(0, voxels.shape[0] - sides[0] + 1, sides[0]):
        slab = voxels[start : start + sides[0], : rows * sides[1], : columns * sides[2]]
        blocks = slab.astype(np.float64).reshape(sides[0], rows, sides[1], columns, sides[2])
        means, spreads = blocks.mean(axis=(0, 2, 4)), blocks.std(axis=(0, 2, 4))
        for row, column in np.argwhere((means > low) & (means < high) & (spreads > 0)):
            corner = (start, int(row) * sides[1], int(column) * sides[2])
            middle = tuple(at + side // 2 for at, side in zip(corner, sides, strict=True))
            yield float(spreads[row, column]), middle


def _tissue(voxels: Array, modality: str) -> tuple[float, float]:
    """Return the intensities between which the mean of a cube is that of tissue."""
    profile = profile_of(modality)
    if profile.is_absolute and profile.window:
        return profile.window
    sample = sample_of(np.asarray(voxels))
    return 0.5 * float(np.median(sample[sample > sample.mean()])), math.inf


def _without_trend(values: Doubles) -> tuple[Doubles, int]:
    """Subtract the slopes that fit best; return the rest and the number of parameters."""
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in values.shape), indexing="ij")
    slopes = [place.reshape(-1) for place, n in zip(places, values.shape, strict=True) if n > 1]
    design = np.stack([np.ones(values.size), *slopes], axis=1)
    fitted = design @ np.linalg.lstsq(design, values.reshape(-1), rcond=None)[0]
    return values - fitted.reshape(values.shape), len(slopes) + 1


def _rician_factor(snr: float) -> float:
    """Return σ over the standard deviation of magnitudes, by their mean over that deviation."""
    if snr < _LEAST_SNR:
        raise InputError(
            "the region is as dark as its noise, which magnitudes do not show there",
            "Choose brighter tissue.",
        )
    # Variance of Rician values: σ² (1 − σ² / 2 A²), where the mean is A + σ² / 2 A.
    amplitude = (snr + math.sqrt(snr**2 - 2)) / 2
    return 1 / math.sqrt(1 - 0.5 / amplitude**2)


def _shared(rest: Doubles) -> float:
    """Return how many voxels of correlated noise count as one of white noise, for its variance."""
    shares = 1.0
    for axis, count in enumerate(rest.shape):
        lined = np.moveaxis(rest, axis, 0)
        lags = [lag for lag in _LAGS if lag < count]
        power = float((lined**2).mean())
        cues = [float((lined[lag:] * lined[:-lag]).mean()) / power for lag in lags]
        # Of a correlation by chance, 1 / n is expected.
        shares *= 1 + 2 * sum(max(0.0, cue**2 - 1 / rest.size) for cue in cues)
    return shares


def _ratio_of_halves(rest: Doubles) -> float:
    """Return the largest ratio of the spreads of both halves along an axis."""
    ratios = [1.0]
    for axis, count in enumerate(rest.shape):
        if count > 1:
            lined = np.moveaxis(rest, axis, 0)
            spreads = [float(part.std()) for part in (lined[: count // 2], lined[count // 2 :])]
            ratios.append(max(spreads) / max(min(spreads), 1e-12 * max(spreads)))
    return max(ratios)


def _of_chi(freedom: float, end: int) -> float:
    """Return √(χ² / freedom) at the 95 % (end 1) or 5 % (end −1) point; by Wilson and Hilferty."""
    part = 2 / (9 * max(freedom, 2.0))
    return float((1 - part + end * _NINE_OF_TEN * math.sqrt(part)) ** 1.5)
