"""Signs of what the model of a scanner does not hold, for which nothing is inverted.

A scanner is modeled as contrast → bias field → resolution → noise that is alike everywhere. Each
sign is measured in one volume, and judged in the pool (`measure`).
"""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.noise.estimate import NoiseEstimate

# Limits lie between scanners with and without the fault, drawn at random (decision 0123).
#: 90th over the 10th percentile of σ within a volume, from which noise varies in space: it was 1.06
#: to 1.15 in even noise, 1.75 where σ doubled.
VARIES = 1.35
#: Amplitude of an echo, and how many times that of the high-quality pool it is at least.
ECHO, OVER_GOOD = 0.1, 2.0
#: Step across the border over those beside it up to which an axis wraps around; unwrapped 1.8 up.
WRAPS = 1.5
#: Distance of the orders of tissue from which contrast is not monotone: .021 to .072 in limbs and
#: trunks in a monotone contrast, .094 to .159 in most others.
OTHER_ORDER = 0.085
#: Share of bright tissue that is tissue at the border, and the fewest such voxels.
_BRIGHT, _FEWEST = 0.15, 50
#: σ of the blur along the border, in voxels.
_AGAINST_NOISE = 2.0
#: Frequencies (cycles per voxel) and lags (shares of the field of view) of an echo.
_RIPPLED, _LAGS = (0.03, 0.3), np.arange(0.15, 0.501, 0.01)
#: Lines of k-space whose mean is the power without ripple.
_SMOOTH = 9
#: σ in mm of a neighborhood, and the groups of equal size that ranks are divided into.
_AROUND_MM, _RANKS = 6.0, 6


def variation_of(noise: NoiseEstimate) -> float:
    """Return the 90th over the 10th percentile of σ within a volume."""
    low, high = np.percentile(noise.sigma, (10, 90))
    return float(high / low) if low > 0 else 1.0


def echo_of(voxels: Array) -> float:
    """Measure how strongly a shifted copy lies over a volume: Nyquist ghost, parallel imaging.

    Adding a copy of amplitude a, shifted by a share s of the field of view, makes the logarithm of
    the power of line k ripple by 2 a cos(2 π k s).

    Args:
        voxels: [K, J, I].
    Returns a of the strongest, along rows or columns, no unit.
    """
    strongest = 0.0
    for axis in (1, 2):
        count = voxels.shape[axis]
        others = tuple(other for other in range(3) if other != axis)
        power = np.square(np.abs(np.fft.rfft(voxels, axis=axis))).mean(others)
        lines = np.log(np.maximum(power, np.finfo(np.float32).tiny))
        padded = np.pad(lines, _SMOOTH // 2, mode="reflect")
        ripple = lines - np.convolve(padded, np.full(_SMOOTH, 1 / _SMOOTH), "valid")
        numbers = np.arange(len(lines))
        numbers = numbers[(numbers > _RIPPLED[0] * count) & (numbers < _RIPPLED[1] * count)]
        if len(numbers) < _SMOOTH:
            continue
        weight = np.hanning(len(numbers) + 2)[1:-1]
        waves = np.exp(2j * np.pi * np.outer(_LAGS, numbers))
        echoes = np.abs(waves @ (weight * ripple[numbers])) / weight.sum()
        strongest = max(strongest, float(echoes.max()))
    return strongest


def border_of(voxels: Array) -> float:
    """Return the step from the last row or column to the first, over those beside it.

    Where k-space wraps around, a volume goes on at its other end, and this is about 1; elsewhere
    tissue is cut off. NaN where no axis has tissue at its ends, as then nothing wraps around.
    """
    top, steps = np.percentile(voxels[voxels > voxels.mean()], 99), list[float]()
    for axis in (1, 2):
        ends = np.moveaxis(voxels, axis, 0)[[0, -1, 1, -2]].astype(np.float32)
        ends = gaussian_blur(ends, _AGAINST_NOISE)
        tissue = np.maximum(ends[0], ends[1]) > _BRIGHT * top
        if np.count_nonzero(tissue) >= _FEWEST:
            first, last, second, before = ends[:, tissue]
            beside = np.abs(first - second).mean() + np.abs(last - before).mean()
            steps.append(float(2 * np.abs(first - last).mean() / max(beside, 1e-12)))
    return min(steps, default=np.nan)


def order_of(soft: Floats, tissue: Mask, spacing: tuple[float, float, float]) -> Doubles:
    """Return how bright the surroundings of tissue of each rank are, in ranks from 0 to 1.

    No contrast that is monotone changes ranks, and so none changes this; one that is not makes
    other tissues neighbors in rank.

    Args:
        soft: blurred volume, [K, J, I].
        tissue: of it.
        spacing: mm along k, j, i.
    """
    values, ends = soft[tissue], np.linspace(0, 1, 201)
    ranks = np.zeros_like(soft)
    ranks[tissue] = np.interp(values, np.quantile(values, ends), ends)
    k, j, i = (_AROUND_MM / mm for mm in spacing)
    around, weight = (
        gaussian_blur(each, (j, i), sigma_slices=k)[tissue]
        for each in (ranks, tissue.astype(np.float32))
    )
    groups = np.minimum((ranks[tissue] * _RANKS).astype(int), _RANKS - 1)
    sizes = np.maximum(np.bincount(groups, minlength=_RANKS), 1)
    return np.bincount(groups, around / np.maximum(weight, 1e-6), minlength=_RANKS) / sizes


def order_differs(low: Doubles, good: Doubles) -> float:
    """Return how far the orders of two pools are apart (RMS), over what chance does to one volume.

    low, good: [volumes, ranks], as of `order_of`.
    """
    apart = np.sqrt(np.mean(np.square(low.mean(0) - good.mean(0))))
    return float(apart / np.sqrt(1 / len(low) + 1 / len(good)))
