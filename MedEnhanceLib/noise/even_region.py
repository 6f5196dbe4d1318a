"""Measures the noise in a region of even tissue, which a user has chosen.

What changes slowly over the region (a slope along each axis) is tissue or bias field; the rest is
noise. Source of the Rician correction: Gudbjartsson and Patz, Magn. Reson. Med. 34 (1995) 910.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
#: Even cubes that show noise are many from this number on, and agree where the upper quartile of
#: their σ is at most this factor above the lower. Patients' CT in certain noise: 47 to 60 cubes,
#: 1.07 to 1.27; an averaged head has 3. Chosen on patients' CT and MR; no table isolates them.
_MANY, _ALIKE = 30, 1.35
#: Correlation of neighbors along the axis where it is least, up to which a cube shows noise: .3 in
#: CT and MR in certain noise, .04 where slices are interpolated within themselves, .7 in averaged
#: heads. Anatomy goes on along every axis.
_MOST_CORRELATED = 0.5
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
        correlation: of neighbors, along the axis where it is least.
        reason: why σ may be too large; None where it is not.
    """

    level: float
    low: float
    high: float
    mean: float
    voxels: int
    correlation: float
    reason: Text | None = None


@dataclass(frozen=True)
class EvenTissue:
    """Even tissue of a volume, in which its noise can be measured.

    Attributes:
        places: up to three voxels (K, J, I), around which it can be measured.
        highest: σ up to which a region or a statement agrees with these places; 0 without any.
        level: σ that all even tissue agrees on, its lower quartile; None where it does not agree.
    """

    places: tuple[tuple[int, ...], ...] = ()
    highest: float = 0.0
    level: float | None = None


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
    return RegionNoise(level, low, high, mean, values.size, _least_correlation(rest), reason)


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


def even_tissue(
    voxels: Array, spacing: Sequence[float], *, modality: str, most: float = math.inf
) -> EvenTissue:
    """Find even tissue, and what its noise agrees on.

    The smoothest cubes of tissue are measured. Where many of them show noise, the places at the
    lower quartile are returned: the smoothest would show too little noise, and anatomy adds to it.
    Where these many show one level, that is the noise, whatever the volume as a whole shows, as
    slices that were interpolated within themselves show too little. Of few cubes the middle ones
    are returned.

    Args:
        voxels: [K, J, I].
        spacing: mm along K, J and I.
        modality: as of `measure_region`.
        most: σ in the units of the volume; where it is surely larger, anatomy may be in the cube,
            unless many show noise.
    """
    even = []
    for _spread, place in sorted(_cubes_of_tissue(voxels, spacing, modality))[:_TRIED]:
        try:
            where = cube_around(place, voxels.shape, spacing)
            noise = measure_region(voxels[where], modality=modality)
        except InputError:
            continue
        if not noise.reason:
            even.append((noise, place))
    even.sort(key=lambda each: (each[0].level, each[1]))
    noisy = [each for each in even if each[0].correlation <= _MOST_CORRELATED]
    quarter = len(noisy) // 4
    if len(noisy) >= _MANY:
        level = float(f"{noisy[quarter][0].level:.3g}")
        is_agreed = noisy[-1 - quarter][0].level <= _ALIKE * level
        places = tuple(place for _, place in noisy[quarter - 1 : quarter + 2])
        return EvenTissue(places, APART * level, level if is_agreed else None)
    likely = [each for each in even if each[0].low <= most]
    first = max(0, (len(likely) - _PROPOSED) // 2)
    proposed = likely[first : first + _PROPOSED]
    highest = max((noise.high for noise, _ in proposed), default=0.0)
    return EvenTissue(tuple(place for _, place in proposed), highest)


def even_tissue_of(volume: Volume, highest: float) -> EvenTissue:
    """Find even tissue of a volume, the same in any storage; none in a sequence.

    highest: end of what the noise of the volume likely is; what `measure_region` measures at a
    returned place is not taken for anatomy.
    """
    if volume.is_sequence:
        return EvenTissue()
    turned = volume.canonical()
    spacing = turned.geometry.spacing[::-1]
    even = even_tissue(turned.voxels, spacing, modality=volume.modality, most=APART * highest)
    back = np.linalg.solve(volume.geometry.affine_lps, turned.geometry.affine_lps)
    voxels = (back @ [*reversed(place), 1] for place in even.places)
    places = tuple(tuple(round(float(at)) for at in voxel[2::-1]) for voxel in voxels)
    return replace(even, places=places)


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


def _least_correlation(rest: Doubles) -> float:
    """Return the correlation of neighbors along the axis where it is least."""
    power = float((rest**2).mean())
    lined = [np.moveaxis(rest, axis, 0) for axis, count in enumerate(rest.shape) if count > 1]
    return min(float((line[1:] * line[:-1]).mean()) / power for line in lined)


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
