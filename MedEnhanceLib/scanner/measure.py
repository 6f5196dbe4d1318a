"""Measures a scanner from two pools of volumes that show no patient in common.

Each volume alone: noise → bias field (N4) → intensities as shares of the 99th percentile of tissue.
Then both pools together:

1. Contrast: quantiles of tissue, averaged over a pool. Both pools are blurred alike, by more than a
   scanner does, so that noise and resolution hardly change them. The high-quality pool behind the
   curve shows what the blur changes.
2. Resolution: power along one axis at low frequencies of the others, less that of the noise. The
   high-quality pool gets the contrast of the scanner first, as steeper edges have more power.

Intervals come from leaving out one volume at a time (jackknife).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from operator import itemgetter, length_hint
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
from MedEnhanceLib.noise.rician import amplitude
from MedEnhanceLib.noise.tissue_blocks import BLOCK
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.scanner.scanner import (
    AXES,
    Curve,
    Measured,
    Scanner,
    VolumePool,
)

#: Fewest volumes of a pool, and those from which no warning stands in the result.
FEWEST, ENOUGH = 3, 10
#: Share of the time that measuring each volume alone takes.
_MEASURING = 0.85
#: Most slices, rows and columns of a volume that are compared, around its center.
_PART = (96, 192, 192)
#: σ in mm of the blur before intensities are compared.
_BLUR_MM = 2.0
#: Tissue is above this share of its 99th percentile, and has as much of it around as 3 mm from air.
_TISSUE, _INSIDE = 0.1, 0.95
#: Quantiles of tissue, and intensities at which the curve is stated.
_QUANTILES, _INTENSITIES = np.linspace(0.02, 0.99, 33), np.linspace(0, 1, 41)
#: Least slope of the curve, over its mean slope: its inverse is not to amplify more than this.
_LEAST_SLOPE = 0.25
#: Misfit of the curve up to which anatomy is alike: .03 at most in random pools of extremities,
#: .04 and more in brains of few patients and where the pools were divided by their fat (decision
#: 0112).
_ALIKE = 0.035
#: Passes of N4.
PASSES = 3
#: Frequencies of a resolution; share of them that the lowest ones are, whose transfer is 1.
_FREQUENCIES, _LOWEST = 24, 0.15
#: Frequencies of the other axes, over the highest of the finest axis: not the lowest ones, in which
#: rests of the bias field are, and not the highest ones, in which noise is.
_OTHERS = (0.06, 0.2)
#: Share of noise and signal that the signal of the scanner is where the transfer is measured;
#: beyond, it falls off as a Gaussian, or faster where the scans show no more power than this share
#: of the noise.
_SIGNAL = 0.2
#: Spacings that differ by less are the same.
_ROUNDING = 1 + 1e-4
#: Standard errors of an interval.
_WIDTH = 1.645
#: Variance of Rayleigh noise over σ².
_OF_AIR = 2 - np.pi / 2


@dataclass(frozen=True, eq=False)
class _Examined:
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
        """Blur, and undo the bias of noise."""
        mean = softened(self.voxels, self.spacing)
        is_biased = self.noise.rician and self.sigma > 0
        return amplitude(mean, np.full_like(mean, self.sigma)) if is_biased else mean

    def behind(self, contrast: Curve) -> _Examined:
        """Show it in the contrast of the scanner, without noise."""
        shown = contrast.at(self.voxels)
        scale = np.float32(scale_of(softened(shown, self.spacing)))
        return replace(self, voxels=shown / scale, sigma=0.0)

    def tissue(self) -> Floats:
        """Return intensities of tissue, without edges to air: strong contrast widens them."""
        soft = self.soft()
        tissue = tissue_of(soft)
        inside = softened(tissue, self.spacing) > _INSIDE
        return soft[inside if inside.any() else tissue]


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
    tissue = soft[soft > _TISSUE * top]
    return float(np.percentile(tissue, 99)) if tissue.size else 0.0


def measure_scanner(
    low_quality: Iterable[Volume], high_quality: Iterable[Volume], monitor: Monitor | None = None
) -> Scanner:
    """Measure how one source of volumes differs from another.

    A scan counts once; one that is in both pools, also under another name, in neither.

    Args:
        low_quality: single volumes of the scanner, loaded one by one if it loads them; where their
            number is known, so is the remaining time.
        high_quality: those that they are compared with: same modality and body part, other
            patients.
        monitor: receives progress and warnings; may cancel.
    Raises InputError for fewer than three volumes, sequences, and pools of different modality.
    """
    monitor = monitor or Monitor()
    count = length_hint(low_quality, ENOUGH) + length_hint(high_quality, ENOUGH)
    low, good, shared = dict[bytes, _Examined](), dict[bytes, _Examined](), dict[bytes, str]()
    modalities, done = set[ModalityName](), 0
    for name, pool, volumes in (("low", low, low_quality), ("high", good, high_quality)):
        for volume in volumes:
            stage = f"measuring volume {done + 1} of {max(count, done + 1)}"
            monitor.progress(_MEASURING * min(done / max(count, 1), 1), stage)
            modalities.add(cast(ModalityName, volume.modality))
            volume = volume.single().canonical().compact()
            digest = sha256(np.ascontiguousarray(volume.voxels, np.float32).data).digest()
            if pool is good and digest in low:
                shared[digest] = f"{low[digest].name} and {volume.path.name}"
                monitor.warn(f"{shared[digest]}: the same scan is in both pools: left out")
            else:
                pool[digest] = pool.get(digest) or _look(volume, monitor)
            done += 1
        sizes = {"low": len(low) - len(shared), name: len(pool)}
        name, size = min(sizes.items(), key=itemgetter(1))
        if size < FEWEST:
            raise InputError(
                f"the {name}-quality pool has {size} volumes of its own, and a scanner is measured "
                f"from {FEWEST} or more",
                f"Give volumes of {ENOUGH} patients or more.",
            )
    kept = [look for digest, look in low.items() if digest not in shared]
    if len(modalities) > 1 or not {"MR", "CT"} >= modalities:
        raise InputError(
            f"the pools are of {' and '.join(sorted(modalities))}",
            "Give MR alone, or CT alone; state it with --modality.",
        )
    return _compared(kept, [*good.values()], modalities.pop(), monitor)


def _look(volume: Volume, monitor: Monitor) -> _Examined:
    """Measure one volume alone, in canonical order."""
    refuse_not_finite(volume)
    if min(volume.shape) < BLOCK or volume.voxels.max() <= 0:
        raise InputError(
            f"{volume.source or 'volume'}: it shows no tissue, or has fewer than {BLOCK} slices, "
            "rows or columns",
            "Leave it out of the pool.",
        )
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
    return _Examined(
        name=volume.path.name or "volume",
        spacing=spacing,
        voxels=voxels[center] / np.float32(scale),
        noise=noise,
        sigma=noise.level / scale,
        field=deviation,
        warnings=warnings,
        is_absolute=is_absolute,
    )


def _compared(
    low: Sequence[_Examined], good: Sequence[_Examined], modality: ModalityName, monitor: Monitor
) -> Scanner:
    """Compare the pools."""
    monitor.progress(_MEASURING, "comparing the pools")
    contrast, misfit = (None, 0.0) if modality == "CT" else _contrast(low, good)
    transfers = _transfers(low, good, contrast, monitor.part(_MEASURING, 1.0))
    counts = Counter(warning for look in low for warning in look.warnings)
    few, warnings = min(len(low), len(good)), list[str]()
    if few < ENOUGH:
        warnings.append(f"a pool has {few} volumes: use {ENOUGH} or more")
    if misfit > _ALIKE:
        warnings.append(
            "the pools differ in anatomy, so that contrast may be wrong: its curve is off by "
            f"{100 * misfit:.1f} %, and by {100 * _ALIKE:g} % at most where anatomy is alike"
        )
    for warning in warnings:
        monitor.warn(warning)
    return Scanner(
        modality=modality,
        low_quality=_pool(low),
        high_quality=_pool(good),
        rician_share=float(np.mean([look.noise.rician for look in low])),
        spectrum=tuple(np.mean([look.noise.spectrum.ravel() for look in low], 0).tolist()),
        contrast=contrast,
        misfit=misfit,
        artifacts=tuple(f"{text} ({n} of {len(low)})" for text, n in counts.most_common()),
        warnings=tuple(warnings),
        **dict(zip(AXES, transfers, strict=True)),
    )


def _pool(looks: Sequence[_Examined]) -> VolumePool:
    """Describe a pool."""
    unit = 1000 if looks[0].is_absolute else 1
    noise, field = [unit * look.sigma for look in looks], [look.field for look in looks]
    spacing = np.median([look.spacing[::-1] for look in looks], axis=0).tolist()
    return VolumePool(
        files=tuple(look.name for look in looks),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        noise=_mean(noise),
        field=_mean(field),
    )


def _contrast(low: Sequence[_Examined], good: Sequence[_Examined]) -> tuple[Curve, float]:
    """Fit the curve to quantiles of both pools, as one through them would follow the patients.

    A blur before a curve is not a blur after it. How much that changes the fit is known from the
    good pool behind the first curve, and taken off.

    Returns it, and its misfit, as `_misfit`.
    """
    shown, intensities = _quantiles_of(low), _quantiles_of(good)
    value, spread = _jackknife(_fitted, shown, intensities)
    first = _curve(_INTENSITIES, value, spread)
    change = _fitted(_quantiles_of([look.behind(first) for look in good]), intensities) - value
    curve = _curve(_INTENSITIES, _ascending(value - change), spread)
    return curve, _misfit(shown.mean(0), intensities.mean(0))


def _quantiles_of(looks: Sequence[_Examined]) -> Doubles:
    """Return the quantiles of the tissue of each volume, [volumes, quantiles]."""
    return np.array([np.quantile(look.tissue(), _QUANTILES) for look in looks])


def _fitted(low: Doubles, good: Doubles) -> Doubles:
    """Fit a power law to quantiles, [volumes, quantiles]; 1 is 1 in both pools.

    Returns the intensities of the scanner at those of the good pool, ascending from 0.
    """
    x, y = good.mean(0), low.mean(0)
    exponent = np.sum(y**2 * np.log(x) * np.log(y)) / np.sum(np.square(y * np.log(x)))
    return _ascending(_INTENSITIES**exponent)


def _misfit(shown: Doubles, intensities: Doubles) -> float:
    """Return how far a parabola on logarithmic axes is off the mean quantiles of the pools (RMS).

    It is far where the pools differ in the shares of their tissues, which no scanner changes.
    """
    fit = np.polyfit(np.log(intensities), np.log(shown), 2, w=shown)
    first = intensities[0] <= _INTENSITIES
    ends = np.exp(np.polyval(fit, np.log(_INTENSITIES[first])))
    curve = _ascending(np.interp(_INTENSITIES, [0, *_INTENSITIES[first]], [0, *ends]))
    away = np.interp(intensities, _INTENSITIES, curve) - shown
    return float(np.sqrt(np.mean(np.square(away))))


def _ascending(curve: Doubles) -> Doubles:
    """Raise each slope to the least."""
    least = _LEAST_SLOPE * curve[-1] * np.diff(_INTENSITIES)
    return np.concatenate([[0], np.cumsum(np.maximum(np.diff(curve), least))])


def _transfers(
    low: Sequence[_Examined], good: Sequence[_Examined], shown: Curve | None, monitor: Monitor
) -> list[Curve]:
    """Compare power along each axis; rows and columns are taken together where they agree."""
    spacing = np.median([look.spacing for look in low], axis=0)
    # Two volumes of the good pool show all frequencies, as the jackknife leaves out one.
    spacing = np.maximum(spacing, np.sort([look.spacing for look in good], axis=0)[1])
    places = [(np.arange(_FREQUENCIES) + 1) / _FREQUENCIES / (2 * mm) for mm in spacing]
    powers = []
    for number, look in enumerate((*low, *good)):
        monitor.progress(number / (len(low) + len(good)), "comparing the pools")
        powers.append(_powers(look, places, None if number < len(low) else shown))
    scans, goods = (
        np.moveaxis(np.array(pool), 1, 0) for pool in (powers[: len(low)], powers[len(low) :])
    )

    def compared(axis: int, *axes: int) -> Curve:
        pools = (np.moveaxis(pool[list(axes)], 0, 1) for pool in (scans, goods))
        value, spread = _jackknife(_transfer, *pools)
        return _curve(places[axis], value, spread, highest=1)

    slices, rows, columns = (compared(axis, axis) for axis in range(3))
    if max(rows.half.low, columns.half.low) < min(rows.half.high, columns.half.high):
        rows, columns = compared(1, 1, 2), compared(2, 1, 2)
    return [slices, rows, columns]


def _transfer(low: Doubles, good: Doubles) -> Doubles:
    """Compare the power of two pools.

    low, good: [volumes, axes, frequencies, 2], power of signal and noise, over that of the signal
        at the lowest frequencies; NaN where a volume does not show a frequency.
    Returns the transfer at each frequency, the mean over the axes.
    """
    signal, noise = np.moveaxis(np.nanmean(low, 0), -1, 0)
    reference = np.maximum(np.nanmean(good[..., 0], 0), 1e-12)
    transfer = np.sqrt(np.maximum(signal, 0) / reference).mean(0)
    level = transfer[: max(1, round(_LOWEST * len(transfer)))].mean()
    transfer = np.minimum.accumulate(np.minimum(transfer / level, 1))
    most = np.sqrt((np.maximum(signal, 0) + _SIGNAL * noise) / reference).mean(0) / level
    is_hidden = (signal < _SIGNAL * (signal + noise)).any(0) | (transfer <= 0)
    first = int(np.argmax(is_hidden)) if is_hidden.any() else len(transfer)
    if 0 < first < len(transfer):
        place = (np.arange(len(transfer)) + 1) / first
        fall = transfer[first - 1] ** np.square(place)
        transfer[first:] = np.minimum.accumulate(np.minimum(fall, most)[first:])
    return transfer


def _powers(look: _Examined, places: Sequence[Doubles], shown: Curve | None) -> list[Doubles]:
    """Measure power along each axis, [frequencies, 2], as `_transfer` takes it."""
    voxels = look.voxels if shown is None else shown.at(look.voxels)
    sides = [np.hanning(side + 2)[1:-1].astype(np.float32) for side in voxels.shape]
    window = np.einsum("k,j,i->kji", *sides)
    weight = float(np.sum(window**2, dtype=float))
    mean = float(np.sum(voxels * window, dtype=float) / np.sum(window, dtype=float))
    spectrum = np.square(np.abs(np.fft.fftn((voxels - mean) * window))) / weight
    variance = look.sigma**2
    if look.noise.rician:  # air has less
        is_air = (look.soft() < 2 * look.sigma) * window**2
        variance *= 1 - (1 - _OF_AIR) * float(np.sum(is_air, dtype=float)) / weight
    cycles = [np.abs(np.fft.fftfreq(side)) for side in voxels.shape]
    relative = [2 * min(look.spacing) / mm * f for mm, f in zip(look.spacing, cycles, strict=True)]
    powers = []
    for axis, (mm, wanted) in enumerate(zip(look.spacing, places, strict=True)):
        first, second = (relative[other] for other in range(3) if other != axis)
        distance = np.maximum(first[:, None], second)
        among = (distance > _OTHERS[0]) & (distance <= _OTHERS[1])
        power = np.moveaxis(spectrum, axis, -1)[among].mean(0)
        known = cycles[axis][: len(power) // 2 + 1]
        cosines = np.moveaxis(look.noise.spectrum, axis, -1)[0, 0]
        noise = variance * np.interp(known, np.arange(BLOCK) / (2 * BLOCK), cosines)
        signal = power[: len(known)] - noise
        level = signal[known <= max(_LOWEST / 2, known[1])].mean()
        power = np.stack([np.interp(wanted, known / mm, line) for line in (signal, noise)], -1)
        power[wanted > _ROUNDING / (2 * mm)] = np.nan
        powers.append(power / level)
    return powers


def _curve(places: Doubles, values: Doubles, spread: Doubles, highest: float = 1e6) -> Curve:
    ends = np.clip([values - spread, values + spread], 0, highest)
    lines = (tuple(line.tolist()) for line in (places, values, *ends))
    return Curve(**dict(zip(("places", "values", "low", "high"), lines, strict=True)))


def _mean(values: Sequence[float]) -> Measured:
    """Return the mean of a figure of each volume with its interval."""
    mean, width = (
        float(np.mean(values)),
        _WIDTH * float(np.std(values, ddof=1)) / len(values) ** 0.5,
    )
    return Measured(value=mean, low=max(mean - width, 0.0), high=mean + width)


def _jackknife(figure: Callable[..., Doubles], *pools: Doubles) -> tuple[Doubles, Doubles]:
    """Return a figure of two pools and half of its interval, by leaving out each volume once."""
    variance = np.zeros(())
    for place, pool in enumerate(pools):
        left, values = [*pools], []
        for volume in range(len(pool)):
            left[place] = np.delete(pool, volume, axis=0)
            values.append(figure(*left))
        variance = variance + (len(pool) - 1) * np.var(values, axis=0)
    return figure(*pools), _WIDTH * np.sqrt(variance)
