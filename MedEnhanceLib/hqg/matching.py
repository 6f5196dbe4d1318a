"""Gives a volume the appearance of others: the sharpness and noise texture of a scanner.

measure_appearance → plan_match (resolution, noise and their uncertainties) → match_appearance

The input's resolution K relative to the wanted one is taken as a Gaussian,
K(f) = exp(-b f²): one number for each direction, so that different anatomy hardly moves it. In CT
anatomy and noise have both passed the reconstruction kernel, and both determine b:

    input's spectra = (α · wanted anatomy + δ · wanted noise) · exp(-2 b f²),   α, δ ≥ 0 by class.

In MR noise is added after the loss of resolution; only the difference of both classes is compared.

b is compared with its uncertainty: the spread over parts of the input, and over the patients of the
look. Below three times that nothing is done. Nothing is ever added to a volume: it is filtered
linearly, and more noise than wanted is reduced where a function for that is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.hqg.appearance import (
    DIRECTIONS,
    PARTS,
    TINY,
    Appearance,
    Direction,
    Doubles,
    Floats,
    Spectra,
    measure_appearance,
)
from MedEnhanceLib.nets.grouped_run import parts_of
from MedEnhanceLib.runtime.progress import Monitor

#: Frequencies that are compared, in cycles per voxel of the coarsest grid.
_LOWEST, _HIGHEST, _COUNT = 0.14, 0.45, 12
#: Spread of b between patients of one scanner and protocol, in squared voxels, and the number of
#: patients that this knowledge counts as. Measured: results/guidance.json.
_SPREAD = {"CT": 0.7, "MR": 1.0}
_SPREAD_COUNTS = 4
#: Spread of the logarithm of the noise's amplitude between patients.
_NOISE_SPREAD = 0.25
#: Differences below this multiple of their uncertainty are none.
_CERTAIN = 3.0
#: Power of the detail in a typical block, as a share of that in the most detailed fifth.
_TYPICAL_DETAIL = 0.3
#: Largest amplification of a frequency.
_MOST_GAIN = 16.0
#: Radius of the filter's kernel in voxels, and slices that are filtered at once.
_RADIUS, _SLAB = 10, 16
#: Separable terms of a kernel below this share of the first are left out.
_LEAST_TERM = 1e-4


@dataclass(frozen=True)
class Change:
    """How a volume differs from the wanted appearance in one direction, and what is done.

    slope_mm2: b; the volume is softer than wanted where it is above 0. A Gaussian blur of σ mm has
        b = 2 π² σ².
    uncertainty_mm2: standard deviation of b.
    applies: whether b is certain, so that the volume is filtered.
    frequencies: [n], cycles per mm, from 0.
    gain: [n], the filter's response there; 1 everywhere where nothing is done.
    noise_log: logarithm of the noise's amplitude after that, relative to the wanted one.
    noise_uncertainty: its standard deviation.
    """

    slope_mm2: float
    uncertainty_mm2: float
    applies: bool
    frequencies: Doubles
    gain: Doubles
    noise_log: float
    noise_uncertainty: float

    @property
    def blur_mm(self) -> float:
        """σ of the Gaussian that is undone (above 0) or applied (below 0)."""
        return math.copysign(math.sqrt(abs(self.slope_mm2) / 2) / math.pi, self.slope_mm2)


@dataclass(frozen=True)
class Match:
    """What `match_appearance` does to a volume, and why.

    changes: by direction.
    keep_noise: share of what `denoise` removes that stays in the volume; 1 removes nothing.
    unmeasured: directions in which nothing can be compared, with the reason.
    """

    changes: dict[Direction, Change]
    keep_noise: float
    unmeasured: dict[Direction, str]

    @property
    def changes_nothing(self) -> bool:
        """Whether the volume stays as it is."""
        return self.keep_noise == 1 and not any(each.applies for each in self.changes.values())

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "changes": {
                name: {
                    "slope_mm2": round(change.slope_mm2, 4),
                    "uncertainty_mm2": round(change.uncertainty_mm2, 4),
                    "blur_mm": round(change.blur_mm, 4),
                    "applied": change.applies,
                    "largest_gain": round(float(change.gain.max()), 3),
                    "smallest_gain": round(float(change.gain.min()), 3),
                    "noise_relative_to_look": round(math.exp(change.noise_log), 3),
                    "noise_uncertainty": round(change.noise_uncertainty, 3),
                }
                for name, change in self.changes.items()
            },
            "noise_kept": round(self.keep_noise, 4),
            "not_compared": dict(self.unmeasured),
        }

    def sentences(self) -> list[str]:
        """For the log and the report, one for each direction and one for noise."""
        lines = []
        for name, change in self.changes.items():
            where = name.replace("_", " ")
            if change.applies:
                verb = "sharpened" if change.slope_mm2 > 0 else "smoothed"
                lines.append(
                    f"{where}: {verb} by a Gaussian of σ {abs(change.blur_mm):.2f} mm to the "
                    "look's sharpness"
                )
            else:
                lines.append(
                    f"{where}: as sharp as the look within the uncertainty "
                    f"({change.slope_mm2:+.2f} ± {change.uncertainty_mm2:.2f} mm²), left alone"
                )
        lines += [
            f"{name.replace('_', ' ')}: not compared, {reason}"
            for name, reason in self.unmeasured.items()
        ]
        if self.keep_noise < 1:
            lines.append(f"noise reduced to {self.keep_noise:.0%}, the look's level")
        return lines


def plan_match(
    measured: Appearance, wanted: Appearance, *, spacing_mm: tuple[float, float, float]
) -> Match:
    """Compare a volume with the wanted appearance, of the same modality.

    Args:
        measured: of the volume.
        wanted: of the look, one or several patients.
        spacing_mm: of the volume, along i, j, k.
    """
    mine = measured.patients[0]
    changes: dict[Direction, Change] = {}
    unmeasured: dict[Direction, str] = {}
    for direction in DIRECTIONS:
        own = mine.get(direction)
        theirs = [spectra[direction] for spectra in wanted.patients if direction in spectra]
        if own is None or not theirs:
            whose = "this volume's" if own is None else "the look's"
            unmeasured[direction] = f"{whose} slices are too thick or too few"
            continue
        changes[direction] = _change(own, theirs, measured.modality, spacing_mm)
    noise = changes["in_plane"]
    has_more = noise.noise_log > _CERTAIN * noise.noise_uncertainty
    keep = math.exp(-noise.noise_log) if has_more else 1.0
    return Match(changes, keep, unmeasured)


def match_appearance(
    volume: Volume,
    wanted: Appearance,
    *,
    measured: Appearance | None = None,
    denoise: Callable[[], Floats] | None = None,
    monitor: Monitor,
) -> tuple[Volume, Match]:
    """Give a volume the sharpness and the noise texture of others, slab by slab.

    Args:
        volume: CT or MR, a single one.
        wanted: what `measure_appearance` found in the look, or `combine` in several.
        measured: of the volume, where it is known.
        denoise: the volume without noise; called where there is more noise than wanted, and only
            the surplus is removed. None leaves the noise's level as it is.
        monitor: progress, messages and cancelling.
    Returns:
        The volume on the same grid in the same type, and what was done. Where nothing is done the
        volume itself is returned.
    Raises:
        InputError: the volume cannot be measured.
    """
    measured = measured or measure_appearance(volume, monitor)
    match = plan_match(measured, wanted, spacing_mm=volume.geometry.spacing)
    if denoise is None:
        match = Match(match.changes, 1.0, match.unmeasured)
    for sentence in match.sentences():
        monitor.log(sentence)
    if match.changes_nothing:
        return volume, match
    voxels = volume.voxels
    if denoise is not None and match.keep_noise < 1:
        clean = denoise().astype(np.float32)
        clean += np.float32(match.keep_noise) * (volume.voxels.astype(np.float32) - clean)
        voxels = clean
    plane, column = _kernels(match, volume.geometry.spacing)
    floor = np.float32(volume.voxels.min())
    output = np.empty(volume.shape, volume.dtype)
    for part in parts_of(0, len(output), _SLAB):
        monitor.progress(part.start / len(output), "matching the look")
        slab = _in_plane(_along_slices(voxels, part.start, part.stop, column), plane)
        output[part] = restore_dtype(np.maximum(slab, floor), volume.dtype)
    note = derived_note("matched to the look of another volume")
    return volume.with_voxels(output, did=note), match


def _change(
    mine: Spectra,
    theirs: Sequence[Spectra],
    modality: str,
    spacing_mm: tuple[float, float, float],
) -> Change:
    voxel = max(mine.voxel_mm, *(spectra.voxel_mm for spectra in theirs))
    f = np.linspace(_LOWEST, _HIGHEST, _COUNT) / voxel
    parts = mine.at(f)
    members = [tuple(part.mean(axis=0) for part in spectra.at(f)) for spectra in theirs]
    smooth, detailed = (part.mean(axis=0) for part in parts)
    wanted = _mean_of(members)
    slope = _slope(f, (smooth, detailed), wanted, modality)
    of_parts = [
        _slope(f, (parts[0][k], parts[1][k]), wanted, modality) for k in range(len(parts[0]))
    ]
    noises = [_noise(f, member) for member in members]
    noise = _noise(f, (smooth + 2 * slope * f**2, detailed))
    between = [
        _slope(f, member, _mean_of(members[:k] + members[k + 1 :]), modality)
        for k, member in enumerate(members)
        if len(members) > 1
    ]
    count = len(members)
    among = _spread(np.array(between) * (count - 1) / count, _SPREAD[modality] * voxel**2)
    uncertainty = math.hypot(
        among * math.sqrt(1 + 1 / count), float(np.std(of_parts, ddof=1)) / math.sqrt(PARTS)
    )
    of_noise = _spread(np.array(noises) - np.mean(noises), _NOISE_SPREAD)
    applies = abs(slope) > _CERTAIN * uncertainty
    frequencies = np.linspace(0, 1 / min(spacing_mm), 129)
    gain = np.ones_like(frequencies)
    if applies:
        # How much faster than the wanted noise the filtered noise rises: white noise does.
        color = float(np.polyfit(f**2, (wanted[0] - smooth) / 2, 1)[0])
        surplus = max(0.0, slope - color - 2 * among)
        anatomy = np.maximum(np.exp(detailed) - np.exp(smooth), 0.02 * np.exp(detailed))
        ratio = np.exp(smooth) / (_TYPICAL_DETAIL * anatomy)
        gain = _gain(frequencies, slope, surplus, f, ratio)
    else:
        noise = _noise(f, (smooth, detailed))
    return Change(
        slope,
        uncertainty,
        applies,
        frequencies,
        gain,
        noise - float(np.mean(noises)),
        of_noise * math.sqrt(1 + 1 / count),
    )


def _mean_of(members: Sequence[tuple[Doubles, ...]]) -> tuple[Doubles, Doubles]:
    return (
        np.mean([member[0] for member in members], axis=0),
        np.mean([member[1] for member in members], axis=0),
    )


def _spread(deviations: Doubles, known: float) -> float:
    """Standard deviation among patients; `known` counts as that of a few further ones."""
    free = max(0, len(deviations) - 1)
    total = _SPREAD_COUNTS * known**2 + float((deviations**2).sum() if free else 0)
    return math.sqrt(total / (_SPREAD_COUNTS + free))


def _noise(f: Doubles, member: tuple[Doubles, ...]) -> float:
    """Logarithm of the noise's amplitude at the upper frequencies."""
    upper = f >= f[-1] / 2
    return float(member[0][upper].mean()) / 2


def _slope(
    f: Doubles, mine: tuple[Doubles, ...], wanted: tuple[Doubles, ...], modality: str
) -> float:
    """The slope b of the input relative to the wanted appearance, mm².

    mine, wanted: logarithms of the smooth and the detailed spectra at frequencies f, [F] each.
    """
    return (
        _slope_of_both(f, mine, wanted) if modality == "CT" else _slope_of_detail(f, mine, wanted)
    )


def _slope_of_detail(f: Doubles, mine: tuple[Doubles, ...], wanted: tuple[Doubles, ...]) -> float:
    """From what detailed blocks have above smooth ones, weighed by its share."""
    logs, weights = [], 0.0
    for smooth, detailed in (mine, wanted):
        ratio = np.exp(np.minimum(smooth - detailed, math.log(0.98)))
        logs.append(detailed + np.log1p(-ratio))
        weights = weights + (1 + ratio**2) / (1 - ratio) ** 2
    slope, _ = np.polyfit(f**2, (logs[1] - logs[0]) / 2, 1, w=1 / np.sqrt(weights))
    return float(slope)


def _slope_of_both(f: Doubles, mine: tuple[Doubles, ...], wanted: tuple[Doubles, ...]) -> float:
    """Least squares of relative errors over b; α and δ of each class in closed form."""
    step = 0.05 / f[-1] ** 2 * _HIGHEST**2
    slopes = step * np.arange(-400, 601)
    anatomy = np.exp(wanted[1]) - np.exp(wanted[0])
    anatomy = np.maximum(anatomy, 0.02 * np.exp(wanted[1]))
    basis = np.stack([anatomy, np.exp(wanted[0])])
    loss = np.exp(-2 * slopes[:, None] * f**2)
    cost = np.zeros(len(slopes))
    for spectrum in mine:
        parts = loss[:, None] * (basis / np.exp(spectrum))  # [slopes, 2, F], to be 1 in sum
        gram = parts @ parts.transpose(0, 2, 1)
        right = parts.sum(axis=2)
        both = np.linalg.solve(gram + TINY * np.eye(2), right[..., None])[..., 0]
        alone = right / np.diagonal(gram, axis1=1, axis2=2)
        explained = np.where(
            (both > 0).all(axis=1), (both * right).sum(axis=1), (alone * right).max(axis=1)
        )
        cost += len(f) - explained
    return float(slopes[int(cost.argmin())])


def _gain(
    frequencies: Doubles, slope: float, surplus: float, f: Doubles, noise_to_detail: Doubles
) -> Doubles:
    """The filter's response: exp(b f²), less where it would raise noise beyond the wanted texture.

    surplus: slope by which the noise would rise faster than wanted, mm².
    """
    held = np.minimum(frequencies, f[-1] / _HIGHEST * 0.5)
    full: Doubles = np.exp(slope * held**2)
    if slope <= 0:
        return full
    ratio = np.exp(np.interp(held, f, np.log(noise_to_detail)))
    share = 1 / (1 + ratio * -np.expm1(-2 * surplus * held**2))
    limited: Doubles = 1 / (1 / (1 + (full - 1) * share) + 1 / _MOST_GAIN - 1 / (_MOST_GAIN * full))
    return limited


def _kernels(
    match: Match, spacing_mm: tuple[float, float, float]
) -> tuple[Floats | None, Floats | None]:
    """The filter in a plane, [n, n], and along slices, [n]; None where there is none."""
    di, dj, dk = spacing_mm
    size, radius = 64, _RADIUS
    window = np.cos(np.linspace(-1, 1, 2 * radius + 3)[1:-1] * np.pi / 2) ** 0.5
    plane: Floats | None = None
    column: Floats | None = None
    around = np.arange(-radius, radius + 1)
    for name, change in match.changes.items():
        if not change.applies:
            continue
        if name == "in_plane":
            f = np.hypot(np.fft.fftfreq(size, dj)[:, None], np.fft.fftfreq(size, di)[None])
            response = np.interp(f, change.frequencies, change.gain)
            kernel = np.fft.ifft2(response).real[np.ix_(around, around)]
            kernel *= np.outer(window, window)
            plane = (kernel / kernel.sum()).astype(np.float32)
        else:
            response = np.interp(np.abs(np.fft.fftfreq(size, dk)), change.frequencies, change.gain)
            line = np.fft.ifft(response).real[around] * window
            column = (line / line.sum()).astype(np.float32)
    return plane, column


def _along_slices(voxels: npt.NDArray[Any], start: int, stop: int, column: Floats | None) -> Floats:
    """Slices start to stop, filtered across slices; ends are mirrored."""
    if column is None:
        return voxels[start:stop].astype(np.float32)
    count = len(voxels)
    result = np.zeros((stop - start, *voxels.shape[1:]), np.float32)
    for k in range(start - _RADIUS, stop + _RADIUS):
        mirrored = k % (2 * count)
        plane = voxels[min(mirrored, 2 * count - 1 - mirrored)].astype(np.float32)
        first, last = max(start, k - _RADIUS), min(stop, k + _RADIUS + 1)
        for target in range(first, last):
            result[target - start] += column[target - k + _RADIUS] * plane
    return result


def _in_plane(slab: Floats, kernel: Floats | None) -> Floats:
    """[n, J, I] filtered in planes, as a sum of products of rows and columns; edges mirrored."""
    if kernel is None:
        return slab
    left, strengths, right = np.linalg.svd(kernel.astype(np.float64))
    total = np.zeros_like(slab)
    for number in np.flatnonzero(strengths > _LEAST_TERM * strengths[0]):
        term = _along(slab, 1, strengths[number] * left[:, number])
        total += _along(term, 2, right[number])
    return total


def _along(slab: Floats, axis: int, taps: Doubles) -> Floats:
    """Filtered along one axis with an even kernel."""
    widths = [(0, 0)] * 3
    widths[axis] = (_RADIUS, _RADIUS)
    padded = np.moveaxis(np.pad(slab, widths, mode="symmetric"), axis, 0)
    length, weights = slab.shape[axis], taps.astype(np.float32)
    total = padded[_RADIUS : _RADIUS + length] * weights[_RADIUS]
    for offset in range(1, _RADIUS + 1):
        ahead = padded[_RADIUS + offset : _RADIUS + offset + length]
        behind = padded[_RADIUS - offset : _RADIUS - offset + length]
        total += (ahead + behind) * weights[_RADIUS + offset]
    result: Floats = np.moveaxis(total, 0, axis)
    return result
