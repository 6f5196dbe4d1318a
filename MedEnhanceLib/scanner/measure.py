"""Measures a scanner from two pools of volumes that show no patient in common.

Each volume alone: noise → bias field (N4) → intensities as shares of the 99th percentile of tissue.
Then both pools together:

1. Contrast: quantiles of tissue, averaged over a pool. Both pools are blurred alike, by more than a
   scanner does, so that noise and resolution hardly change them.
2. Resolution: power along one axis at low frequencies of the others, less that of the noise. The
   high-quality pool gets the contrast of the scanner first, as steeper edges have more power.

Intervals come from leaving out one volume at a time (jackknife).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, foreground
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.modality import ModalityName
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.filters.bias_field import measure_bias_field
from MedEnhanceLib.io.describe import card, refuse_not_finite
from MedEnhanceLib.noise.estimate import NoiseEstimate, noise_of
from MedEnhanceLib.noise.tissue_blocks import BLOCK
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.scanner.scanner import (
    AXES,
    ContrastCurve,
    Measured,
    Pool,
    Resolution,
    Scanner,
)

#: Fewest volumes of a pool, and those from which no warning stands in the result.
FEWEST, ENOUGH = 3, 10
#: Most slices, rows and columns of a volume that are compared, around its center.
_PART = (96, 192, 192)
#: σ in mm of the blur before intensities are compared.
_BLUR_MM = 2.0
#: Tissue is above this share of its 99th percentile.
_TISSUE = 0.1
#: Quantiles of tissue, and intensities at which the curve is stated.
_QUANTILES, _INTENSITIES = np.linspace(0.02, 0.99, 33), np.linspace(0, 1, 41)
#: Least slope of the curve, over its mean slope: its inverse is not to amplify more than this.
_LEAST_SLOPE = 0.25
#: Passes of N4.
PASSES = 3
#: Frequencies of a resolution; share of them that the lowest ones are, whose transfer is 1.
_FREQUENCIES, _LOWEST = 24, 0.15
#: Frequencies of the other axes, over the highest of the finest axis: not the lowest ones, in which
#: rests of the bias field are, and not the highest ones, in which noise is.
_OTHERS = (0.06, 0.3)
#: Share of noise and signal that the signal of the scanner is where the transfer is measured;
#: beyond, it falls off as a Gaussian.
_SIGNAL = 0.2
#: Standard errors of an interval.
_WIDTH = 1.645
#: Variance of Rayleigh noise over σ².
_OF_AIR = 2 - np.pi / 2


@dataclass(frozen=True, eq=False)
class _Look:
    """One volume as it is compared.

    Attributes:
        spacing: mm along k, j, i.
        voxels: without bias field; 1 is the 99th percentile of tissue, of CT a thousand HU.
        noise: of the volume; sigma: in the unit of `voxels`.
        field: standard deviation of its logarithm in tissue.
    """

    name: str
    spacing: tuple[float, float, float]
    voxels: Floats
    noise: NoiseEstimate
    sigma: float
    field: float
    warnings: list[str]
    is_absolute: bool

    def soft(self) -> Floats:
        """Blur without the bias of noise."""
        if not self.noise.rician:
            return softened(self.voxels, self.spacing)
        power = softened(np.square(self.voxels), self.spacing)
        return np.asarray(np.sqrt(np.maximum(power - 2 * np.float32(self.sigma) ** 2, 0)))


def softened(voxels: Array, spacing: Sequence[float]) -> Floats:
    """Blur by 2 mm, so that intensities do not depend on resolution and noise."""
    k, j, i = (_BLUR_MM / mm for mm in spacing)
    return gaussian_blur(voxels, (j, i), sigma_slices=k)


def tissue_of(soft: Floats) -> Mask:
    """Mark the tissue in a blurred volume of magnitudes."""
    return np.asarray(soft > _TISSUE * scale_of(soft))


def scale_of(soft: Floats) -> float:
    """Return the 99th percentile of tissue in a blurred volume of magnitudes."""
    top = np.percentile(soft[foreground(soft)], 99)
    return float(np.percentile(soft[soft > _TISSUE * top], 99))


def measure_scanner(
    low_quality: Iterable[Volume], high_quality: Iterable[Volume], monitor: Monitor | None = None
) -> Scanner:
    """Measure how one source of volumes differs from another.

    Args:
        low_quality: single volumes of the scanner; loaded one by one if they are a generator.
        high_quality: those that they are compared with: same modality and body part, other
            patients.
        monitor: receives progress; may cancel.
    Raises InputError for fewer than three volumes, sequences, and pools of different modality.
    """
    monitor = monitor or Monitor()
    pools, modalities = list[list[_Look]](), set[ModalityName]()
    for name, volumes in (("low", low_quality), ("high", high_quality)):
        pool = list[_Look]()
        for volume in volumes:
            done = 0.4 * (len(pools) + len(pool) / (len(pool) + ENOUGH))
            monitor.progress(done, f"measuring {name}-quality volume {len(pool) + 1}")
            modalities.add(cast(ModalityName, volume.modality))
            pool.append(_look(volume, monitor))
        if len(pool) < FEWEST:
            raise InputError(
                f"the {name}-quality pool has {len(pool)} volumes, and a scanner is measured from "
                f"{FEWEST} or more",
                f"Give volumes of {ENOUGH} patients or more.",
            )
        pools.append(pool)
    if len(modalities) > 1 or not {"MR", "CT"} >= modalities:
        raise InputError(
            f"the pools are of {' and '.join(sorted(modalities))}",
            "Give MR alone, or CT alone; state it with --modality.",
        )
    return _compared(pools[0], pools[1], modalities.pop(), monitor)


def _look(volume: Volume, monitor: Monitor) -> _Look:
    """Measure one volume alone."""
    volume = volume.single().canonical().compact()
    refuse_not_finite(volume)
    is_absolute = volume.profile.is_absolute
    noise = attend(partial(noise_of, volume), monitor)
    warnings, spacing = card(volume)["warnings"], volume.geometry.spacing[::-1]
    center = tuple(
        slice((side - min(side, most)) // 2, (side + min(side, most)) // 2)
        for side, most in zip(volume.shape, _PART, strict=True)
    )
    voxels = volume.voxels.astype(np.float32)
    deviation, scale = 0.0, 1000.0
    if not is_absolute:
        field = attend(partial(measure_bias_field, volume, passes=PASSES), monitor)[:]
        voxels /= field
        soft = softened(voxels, spacing)
        deviation, scale = float(np.log(field[tissue_of(soft)]).std()), scale_of(soft)
    return _Look(
        name=Path(volume.source).name,
        spacing=spacing,
        voxels=voxels[center] / np.float32(scale),
        noise=noise,
        sigma=noise.level / scale,
        field=deviation,
        warnings=warnings,
        is_absolute=is_absolute,
    )


def _compared(
    low: Sequence[_Look], good: Sequence[_Look], modality: ModalityName, monitor: Monitor
) -> Scanner:
    """Compare the pools."""
    monitor.progress(0.8, "comparing the pools")
    curve = None if modality == "CT" else _contrast(low, good)
    resolutions = _resolutions(low, good, curve)
    counts = Counter(warning for look in low for warning in look.warnings)
    few = min(len(low), len(good))
    warnings = () if few >= ENOUGH else (f"a pool has {few} volumes: use {ENOUGH} or more",)
    for warning in warnings:
        monitor.warn(warning)
    return Scanner(
        modality=modality,
        low_quality=_pool(low),
        high_quality=_pool(good),
        rician_share=float(np.mean([look.noise.rician for look in low])),
        spectrum=tuple(np.mean([look.noise.spectrum.ravel() for look in low], 0).tolist()),
        curve=curve,
        artifacts=tuple(f"{text} ({n} of {len(low)})" for text, n in counts.most_common()),
        warnings=warnings,
        **dict(zip(AXES, resolutions, strict=True)),
    )


def _pool(looks: Sequence[_Look]) -> Pool:
    """Describe a pool."""
    unit = 1000 if looks[0].is_absolute else 1
    noise, field = [unit * look.sigma for look in looks], [look.field for look in looks]
    spacing = np.median([look.spacing[::-1] for look in looks], axis=0).tolist()
    return Pool(
        files=tuple(look.name for look in looks),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        noise=_measured(noise),
        field=_measured(field),
    )


def _contrast(low: Sequence[_Look], good: Sequence[_Look]) -> ContrastCurve:
    """Fit the curve to quantiles of both pools: a parabola on logarithmic axes.

    A curve through the quantiles would follow differences between patients.
    """
    softs = [[look.soft() for look in pool] for pool in (low, good)]
    least = _TISSUE
    for degree in (1, 2):
        quantiles = [
            np.array([np.quantile(soft[soft > start], _QUANTILES) for soft in pool])
            for pool, start in zip(softs, (least, _TISSUE), strict=True)
        ]
        fitted = partial(_fitted, degree=degree)
        least = float(np.interp(_TISSUE, _INTENSITIES, fitted(*quantiles)))
    value, spread = _jackknife(fitted, *quantiles)
    low_end, high_end = np.maximum(value - spread, 0), value + spread
    return ContrastCurve(
        high_quality=tuple(_INTENSITIES.tolist()),
        scanner=tuple(value.tolist()),
        low=tuple(low_end.tolist()),
        high=tuple(high_end.tolist()),
    )


def _fitted(low: Doubles, good: Doubles, *, degree: int) -> Doubles:
    """Return the intensities of the scanner at those of the good pool, ascending from 0."""
    x, y = good.mean(0), low.mean(0)
    fit = np.polyfit(np.log(x), np.log(y), degree, w=y)
    first = x[0] <= _INTENSITIES
    ends = np.exp(np.polyval(fit, np.log(_INTENSITIES[first])))
    curve = np.interp(_INTENSITIES, [0, *_INTENSITIES[first]], [0, *ends])
    least = _LEAST_SLOPE * curve[-1] * np.diff(_INTENSITIES)
    return np.concatenate([[0], np.cumsum(np.maximum(np.diff(curve), least))])


def _resolutions(
    low: Sequence[_Look], good: Sequence[_Look], curve: ContrastCurve | None
) -> list[Resolution]:
    """Compare power along each axis; rows and columns are taken together where they agree."""
    pools, places = [], []
    for axis in range(3):
        highest = 0.5 / float(np.median([look.spacing[axis] for look in low]))
        frequencies = highest * (np.arange(_FREQUENCIES) + 1) / _FREQUENCIES
        pools.append(
            [
                np.array([_power(look, axis, frequencies, shown) for look in pool])
                for pool, shown in ((low, None), (good, curve))
            ]
        )
        places.append(frequencies)
    halves = [
        _jackknife(partial(_half_of, place), *p) for place, p in zip(places, pools, strict=True)
    ]
    (rows, _), (columns, _) = halves[1:]
    if abs(rows - columns) < np.hypot(*(spread for _, spread in halves[1:])):
        pools[1:] = 2 * [[np.concatenate(pair, 1) for pair in zip(*pools[1:], strict=True)]]
    return [_resolution(place, *pool) for place, pool in zip(places, pools, strict=True)]


def _resolution(frequencies: Doubles, low: Doubles, good: Doubles) -> Resolution:
    """Describe the transfer of one axis; arguments as of `_transfer`."""
    mtf, spread = _jackknife(_transfer, low, good)
    half, width = _jackknife(partial(_half_of, frequencies), low, good)
    return Resolution(
        frequencies=tuple(frequencies.tolist()),
        mtf=tuple(mtf.tolist()),
        low=tuple(np.maximum(mtf - spread, 0).tolist()),
        high=tuple(np.minimum(mtf + spread, 1).tolist()),
        mtf50=_interval(half, width),
    )


def _transfer(low: Doubles, good: Doubles) -> Doubles:
    """Compare the power of two pools.

    low, good: [volumes, axes, frequencies, 2], power of signal and noise, over that of the signal
        at the lowest frequencies; NaN where a volume does not show a frequency.
    Returns the transfer at each frequency, the mean over the axes.
    """
    signal, noise = np.moveaxis(np.nanmean(low, 0), -1, 0)
    reference = np.nanmean(good[..., 0], 0)
    transfer = np.sqrt(np.maximum(signal, 0) / np.maximum(reference, 1e-12)).mean(0)
    lowest = max(1, round(_LOWEST * len(transfer)))
    transfer = np.minimum.accumulate(np.minimum(transfer / transfer[:lowest].mean(), 1))
    is_hidden = (signal < _SIGNAL * (signal + noise)).any(0) | (transfer <= 0)
    first = int(np.argmax(is_hidden)) if is_hidden.any() else len(transfer)
    if 0 < first < len(transfer):
        place = (np.arange(len(transfer)) + 1) / first
        transfer[first:] = transfer[first - 1] ** np.square(place[first:])
    return transfer


def _half_of(frequencies: Doubles, low: Doubles, good: Doubles) -> Doubles:
    """Return the frequency at which half is left; other arguments as of `_transfer`."""
    transfer = _transfer(low, good)
    return np.asarray(np.interp(-0.5, -transfer, frequencies))


def _power(look: _Look, axis: int, frequencies: Doubles, shown: ContrastCurve | None) -> Doubles:
    """Measure power along an axis, [1, frequencies, 2], as `_transfer` takes it."""
    voxels = look.voxels if shown is None else shown.to_scanner(look.voxels)
    sides = [np.hanning(side + 2)[1:-1].astype(np.float32) for side in voxels.shape]
    window = np.einsum("k,j,i->kji", *sides)
    weight = float(np.sum(window**2, dtype=float))
    mean = float(np.sum(voxels * window, dtype=float) / np.sum(window, dtype=float))
    spectrum = np.square(np.abs(np.fft.fftn((voxels - mean) * window))) / weight
    spectrum = np.moveaxis(spectrum, axis, -1)
    finest = min(look.spacing)
    others = [
        2 * finest / look.spacing[other] * np.abs(np.fft.fftfreq(voxels.shape[other]))
        for other in range(3)
        if other != axis
    ]
    distance = np.maximum(others[0][:, None], others[1])
    power = spectrum[(distance > _OTHERS[0]) & (distance <= _OTHERS[1])].mean(0)
    count = voxels.shape[axis] // 2 + 1
    power = (power[:count] + power[-np.arange(count)]) / 2
    known = np.arange(count) / voxels.shape[axis]
    cosines = np.moveaxis(look.noise.spectrum, axis, -1)[0, 0]
    noise = look.sigma**2 * np.interp(known, np.arange(BLOCK) / (2 * BLOCK), cosines)
    if look.noise.rician:  # air has less
        is_air = (look.soft() < 2 * look.sigma) * window**2
        noise *= 1 - (1 - _OF_AIR) * float(np.sum(is_air, dtype=float)) / weight
    signal = power - noise
    level = signal[known <= max(_LOWEST / 2, 1.01 * known[1])].mean()
    at = [
        np.interp(frequencies, known / look.spacing[axis], each / level, right=np.nan)
        for each in (signal, noise)
    ]
    return np.stack(at, axis=-1)[None]


def _measured(values: Sequence[float]) -> Measured:
    """Return the mean of a figure of each volume with its interval."""
    width = _WIDTH * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return _interval(float(np.mean(values)), width)


def _interval(value: float | Doubles, width: float | Doubles) -> Measured:
    return Measured(
        value=float(value), low=max(float(value - width), 0.0), high=float(value + width)
    )


def _jackknife(figure: Callable[..., Doubles], *pools: Doubles) -> tuple[Doubles, Doubles]:
    """Return a figure of two pools and half of its interval, by leaving out each volume once."""
    variance = np.zeros(())
    for place, pool in enumerate(pools):
        count, left = len(pool), [*pools]
        values = []
        for volume in range(count):
            left[place] = np.delete(pool, volume, axis=0)
            values.append(figure(*left))
        variance = variance + (count - 1) * np.var(values, axis=0)
    return figure(*pools), _WIDTH * np.sqrt(variance)
