"""Measures a scanner from two pools of volumes that show no patient in common.

Each volume alone: noise → bias field (N4) → intensities as shares of the 99th percentile of tissue.
Then both pools together:

1. Contrast: quantiles of tissue, averaged over a pool. Both pools are blurred alike, by more than a
   scanner does, so that noise and resolution hardly change them. The high-quality pool behind the
   curve shows what the blur changes.
2. Resolution: power along one axis at low frequencies of the others, less that of the noise. The
   high-quality pool gets the contrast of the scanner first, as steeper edges have more power.

Intervals come from leaving out one volume at a time (jackknife), those of a transfer from its
logarithm. Signs of what this model does not hold (`signs`) refuse its inversion.
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
from MedEnhanceLib.scanner import signs
from MedEnhanceLib.scanner.scanner import (
    STEPS,
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
#: Difference of the logarithms of MTF50 up to which rows and columns are taken together.
_AS_SHARP = 0.2
#: Least transfer and share of the noise where the spread of a transfer is measured.
_FAINT, _FAINT_SIGNAL = 1e-3, 0.05
#: Spacings that differ by less are the same.
_ROUNDING = 1 + 1e-4
#: Standard errors of an interval.
_WIDTH = 1.645
#: Variance of Rayleigh noise over σ².
_OF_AIR = 2 - np.pi / 2


@dataclass(frozen=True, eq=False)
class Examined:
    """One volume as it is compared.

    Attributes:
        spacing: mm along k, j, i.
        voxels: without bias field; 1 is the 99th percentile of tissue, of CT a thousand HU.
        noise: of the volume; sigma: in the unit of `voxels`.
        field: standard deviation of its logarithm in tissue.
        variation, echo, border, order: signs, as `signs` states them.
    """

    name: str
    spacing: tuple[float, float, float]
    voxels: Floats
    noise: NoiseEstimate
    sigma: float
    field: float
    warnings: list[str]
    is_absolute: bool
    variation: float
    echo: float
    border: float
    order: Doubles

    def soft(self) -> Floats:
        """Blur, and undo the bias of noise."""
        mean = softened(self.voxels, self.spacing)
        is_biased = self.noise.rician and self.sigma > 0
        return amplitude(mean, np.full_like(mean, self.sigma)) if is_biased else mean

    def behind(self, contrast: Curve) -> Examined:
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


def measure_pools(
    low_quality: Iterable[Volume], high_quality: Iterable[Volume], monitor: Monitor
) -> tuple[Scanner, Sequence[Examined]]:
    """Measure how one source of volumes differs from another.

    A scan counts once; one that is in both pools, also under another name, in neither.

    Args:
        low_quality: single volumes of the scanner, loaded one by one if it loads them; where their
            number is known, so is the remaining time.
        high_quality: those that they are compared with: same modality and body part, other
            patients.
        monitor: receives progress and warnings; may cancel.
    Returns the scanner, not checked yet, and the volumes of high quality as they were compared.
    Raises InputError for fewer than three volumes, sequences, and pools of different modality.
    """
    count = length_hint(low_quality, ENOUGH) + length_hint(high_quality, ENOUGH)
    low, good, shared = dict[bytes, Examined](), dict[bytes, Examined](), dict[bytes, str]()
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
                pool[digest] = pool.get(digest) or examine(volume, monitor)
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
    kept_good = [*good.values()]
    return compare(kept, kept_good, modalities.pop(), monitor), kept_good


def examine(volume: Volume, monitor: Monitor) -> Examined:
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
    deviation, scale, order = 0.0, 1000.0, np.zeros(1)
    if not is_absolute:
        field = attend(partial(measure_bias_field, volume, passes=PASSES), monitor)[:]
        voxels /= field
        soft = softened(voxels, spacing)
        tissue = tissue_of(soft)
        deviation, scale = float(np.log(field[tissue]).std()), scale_of(soft)
        order = signs.order_of(soft, tissue, spacing)
    return Examined(
        name=volume.path.name or "volume",
        spacing=spacing,
        voxels=voxels[center] / np.float32(scale),
        noise=noise,
        sigma=noise.level / scale,
        field=deviation,
        warnings=warnings,
        is_absolute=is_absolute,
        variation=signs.variation_of(noise),
        echo=signs.echo_of(volume.voxels),
        border=signs.border_of(volume.voxels),
        order=order,
    )


def compare(
    low: Sequence[Examined], good: Sequence[Examined], modality: ModalityName, monitor: Monitor
) -> Scanner:
    """Compare the pools.

    Args:
        low: volumes of the scanner, examined.
        good: those that they are compared with.
        modality: of both.
        monitor: receives progress; may cancel.
    """
    monitor.progress(_MEASURING, "comparing the pools")
    contrast, misfit = (None, 0.0) if modality == "CT" else _contrast(low, good)
    transfers = _transfers(low, good, contrast, monitor.part(_MEASURING, 1.0))
    counts = Counter(warning for look in low for warning in look.warnings)
    few, warnings = min(len(low), len(good)), list[str]()
    if few < ENOUGH:
        warnings.append(f"a pool has {few} volumes: use {ENOUGH} or more")
    if misfit > _ALIKE:
        warnings.append(
            "The two folders show different anatomy; the contrast curve may be off by "
            f"{100 * misfit:.1f} % ({100 * _ALIKE:g} % would be normal for matching anatomy)."
        )
    refusals = _refusals(low, good)
    if refusals and contrast:
        transfers = transfers if refusals[0] != _OTHER else [_unknown(each) for each in transfers]
    return Scanner(
        modality=modality,
        low_quality=_pool(low),
        high_quality=_pool(good),
        rician_share=float(np.mean([look.noise.rician for look in low])),
        spectrum=tuple(np.mean([look.noise.spectrum.ravel() for look in low], 0).tolist()),
        contrast=contrast,
        misfit=misfit,
        artifacts=tuple(f"{text} ({n} of {len(low)})" for text, n in counts.most_common()),
        warnings=(*warnings, *refusals),
        without=STEPS if refusals else (),
        slices=transfers[0],
        rows=transfers[1],
        columns=transfers[2],
    )


_OTHER = (
    "The contrast of the low-quality folder is not a monotone function of that of the high-quality "
    "folder, or their anatomy differs; nothing is inverted. Use volumes of the same sequence; "
    "--correct-bias-field alone needs no scanner."
)


def _refusals(low: Sequence[Examined], good: Sequence[Examined]) -> list[str]:
    """Say why nothing can be inverted."""
    refusals = list[str]()
    orders = (np.array([look.order for look in pool]) for pool in (low, good))
    if signs.order_differs(*orders) > signs.OTHER_ORDER:
        refusals.append(_OTHER)
    variation = float(np.median([look.variation for look in low]))
    if variation > signs.VARIES:
        refusals.append(
            f"The noise of the low-quality folder varies within volumes, by {variation:.1f} times; "
            "a scanner is measured with even noise, so nothing is inverted."
        )
    echo, usual = (float(np.median([look.echo for look in pool])) for pool in (low, good))
    if echo > max(signs.ECHO, signs.OVER_GOOD * usual):
        refusals.append(
            f"Volumes of the low-quality folder show ghosts or aliasing: a shifted copy of "
            f"{100 * echo:.0f} % lies over them; nothing is inverted."
        )
    borders = np.array([look.border for look in low])
    if np.isfinite(borders).mean() > 0.5 and np.nanmedian(borders) < signs.WRAPS:
        refusals.append(
            "Volumes of the low-quality folder wrap around: tissue that leaves them on one side "
            "lies over the other side; nothing is inverted."
        )
    return refusals


def _unknown(curve: Curve) -> Curve:
    """Return a transfer of which nothing is known."""
    count = len(curve.places)
    return replace(curve, low=(0.0,) * count, high=(1.0,) * count)


def _pool(looks: Sequence[Examined]) -> VolumePool:
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


def _contrast(low: Sequence[Examined], good: Sequence[Examined]) -> tuple[Curve, float]:
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


def _quantiles_of(looks: Sequence[Examined]) -> Doubles:
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
    low: Sequence[Examined], good: Sequence[Examined], shown: Curve | None, monitor: Monitor
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
        return _transfer_curve(places[axis], *pools)

    slices, rows, columns = (compared(axis, axis) for axis in range(3))
    if abs(np.log(rows.half.value / columns.half.value)) < _AS_SHARP:
        rows, columns = compared(1, 1, 2), compared(2, 1, 2)
    return [slices, rows, columns]


def _transfer_curve(places: Doubles, low: Doubles, good: Doubles) -> Curve:
    """Compare the power of two pools, with an interval of the logarithm of the transfer.

    `_transfer` is clipped, which would hide how much pools differ: the spread is that of what is
    not. Beyond the first frequency that noise hides, the lower end is 0.

    places: frequencies. low, good: as `_transfer` takes them.
    """
    values = _transfer(low, good)
    raw, spread = _jackknife(_log_transfer, low, good)
    spread = spread * _student(min(len(low), len(good)) - 1) / _WIDTH
    lower = values * np.exp(-spread)
    lower[np.logical_or.accumulate(~_is_shown(low).all(0))] = 0
    upper = np.maximum(np.log(np.maximum(values, _FAINT)), np.minimum(raw, 0)) + spread
    ends = (np.minimum.accumulate(np.minimum(line, 1)) for line in (lower, np.exp(upper)))
    return _as_curve(places, values, *ends)


def _log_transfer(low: Doubles, good: Doubles) -> Doubles:
    """Return the logarithm of the transfer as it is measured, also above 1 and rising."""
    signal, noise = np.moveaxis(np.nanmean(low, 0), -1, 0)
    reference = np.maximum(np.nanmean(good[..., 0], 0), 1e-12)
    transfer = np.sqrt(np.maximum(signal, _FAINT_SIGNAL * noise) / reference).mean(0)
    level = transfer[: max(1, round(_LOWEST * len(transfer)))].mean()
    return np.asarray(np.log(np.maximum(transfer / level, _FAINT)))


def _is_shown(low: Doubles) -> Mask:
    """Mark the frequencies that noise does not hide, [axes, frequencies]."""
    signal, noise = np.moveaxis(np.nanmean(low, 0), -1, 0)
    return np.asarray(signal >= _SIGNAL * (signal + noise))


def _student(degrees: int) -> float:
    """Return Student's quantile for the normal one of intervals (Cornish and Fisher's series)."""
    z = _WIDTH
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + (z**3 + z) / 4 / degrees + second / degrees**2


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
    is_hidden = ~_is_shown(low).all(0) | (transfer <= 0)
    first = int(np.argmax(is_hidden)) if is_hidden.any() else len(transfer)
    if 0 < first < len(transfer):
        place = (np.arange(len(transfer)) + 1) / first
        fall = transfer[first - 1] ** np.square(place)
        transfer[first:] = np.minimum.accumulate(np.minimum(fall, most)[first:])
    return transfer


def _powers(look: Examined, places: Sequence[Doubles], shown: Curve | None) -> list[Doubles]:
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


def _curve(places: Doubles, values: Doubles, spread: Doubles) -> Curve:
    return _as_curve(places, values, *np.maximum([values - spread, values + spread], 0))


def _as_curve(*lines: Doubles) -> Curve:
    """Make a curve of places, values, and both ends of their intervals."""
    places, values, low, high = (tuple(line.tolist()) for line in lines)
    return Curve(places=places, values=values, low=low, high=high)


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
