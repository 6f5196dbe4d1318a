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
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

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
#: Least anatomy in detailed blocks, as a share of their power.
_LEAST_ANATOMY = 0.02
#: Largest amplification of a frequency.
_MOST_GAIN = 16.0
#: Radius of the filter's kernel in voxels, frequencies that it is sampled at, and slices that are
#: filtered at once.
_RADIUS, _SAMPLES, _SLAB = 10, 64, 16
#: Logarithms of the smooth and the detailed spectrum, [F] each.
Pair = tuple[Doubles, Doubles]


@dataclass(frozen=True)
class Change:
    """How a volume differs from the wanted appearance in one direction, and what is done.

    slope_mm2: b; the volume is softer than wanted where it is above 0. A Gaussian blur of σ mm has
        b = 2 π² σ².
    uncertainty_mm2: standard deviation of b.
    gain: the filter's response at frequencies in cycles per mm; None where b is not certain, so
        that nothing is done.
    surplus: logarithm of the noise's amplitude after that, relative to the wanted one; 0 where it
        is not certain that there is more.
    """

    slope_mm2: float
    uncertainty_mm2: float
    gain: Callable[[Doubles], Doubles] | None
    surplus: float

    @property
    def blur_mm(self) -> float:
        """σ of the Gaussian that is undone (above 0) or applied (below 0)."""
        return math.copysign(math.sqrt(abs(self.slope_mm2) / 2) / math.pi, self.slope_mm2)


@dataclass(frozen=True)
class Match:
    """What `match_appearance` does to a volume, and why.

    changes: by direction, of those in which volume and look can be compared.
    keep_noise: share of what `denoise` removes that stays in the volume; 1 removes nothing.
    """

    changes: dict[Direction, Change]
    keep_noise: float

    @property
    def changes_nothing(self) -> bool:
        """Whether the volume stays as it is."""
        return self.keep_noise == 1 and not any(each.gain for each in self.changes.values())

    def sentences(self) -> list[str]:
        """For log and manifest, one for each direction and one for noise."""
        texts = dict.fromkeys(DIRECTIONS, "not compared, slices are too thick or too few")
        for name, change in self.changes.items():
            if change.gain:
                verb = "sharpened" if change.slope_mm2 > 0 else "smoothed"
                width = f"a Gaussian of σ {abs(change.blur_mm):.2f} mm"
                texts[name] = f"{verb} by {width} to the look's sharpness"
            else:
                slope = f"{change.slope_mm2:+.2f} ± {change.uncertainty_mm2:.2f} mm²"
                texts[name] = f"as sharp as the look within the uncertainty ({slope}), left alone"
        lines = [f"{name.replace('_', ' ')}: {texts[name]}" for name in DIRECTIONS]
        if self.keep_noise < 1:
            lines.append(f"noise reduced to {self.keep_noise:.0%}, the look's level")
        return lines


def plan_match(measured: Appearance, wanted: Appearance) -> Match:
    """Compare a volume with the wanted appearance, of one or several patients, same modality."""
    own = measured.patients[0]
    theirs = {name: [each[name] for each in wanted.patients if name in each] for name in own}
    changes = {
        name: _change(own[name], theirs[name], measured.modality)
        for name in DIRECTIONS
        if theirs.get(name)
    }
    return Match(changes, math.exp(-changes["in_plane"].surplus))


def match_appearance(
    volume: Volume,
    wanted: Appearance,
    *,
    denoise: Callable[[], Floats] | None = None,
    monitor: Monitor,
) -> tuple[Floats, Match]:
    """Give a volume the sharpness and the noise texture of others, slab by slab.

    Args:
        volume: CT or MR, a single one.
        wanted: what `measure_appearance` found in the look, or `combine` in several.
        denoise: the volume without noise, an array that may be written to; called where there is
            more noise than wanted, and only the surplus is removed. None leaves the noise as it is.
        monitor: progress, messages and cancelling.
    Returns:
        [K, J, I], rounded as the volume's type is, and what was done.
    Raises:
        InputError: the volume cannot be measured.
    """
    match = plan_match(measure_appearance(volume, monitor), wanted)
    if denoise is None:
        match = replace(match, keep_noise=1.0)
    for sentence in match.sentences():
        monitor.log(sentence)
    voxels = volume.voxels
    if match.changes_nothing:
        return voxels.astype(np.float32), match
    if denoise is not None and match.keep_noise < 1:
        voxels = denoise()
        voxels += np.float32(match.keep_noise) * (volume.voxels.astype(np.float32) - voxels)
    kernels = _kernels(match, volume.geometry.spacing)
    floor = np.float32(volume.voxels.min())
    output = np.empty(volume.shape, np.float32)
    for part in parts_of(0, len(output), _SLAB):
        monitor.progress(part.start / len(output), "matching the look")
        filtered = _filtered(voxels, part, kernels)
        output[part] = restore_dtype(np.maximum(filtered, floor), volume.dtype)
    return output, match


# --- comparison -----------------------------------------------------------------------------------


def _change(mine: Spectra, theirs: Sequence[Spectra], modality: str) -> Change:
    """How a volume differs from the patients of a look in one direction."""
    slope_of = _slope_of_both if modality == "CT" else _slope_of_detail
    voxel = max(mine.voxel_mm, *(spectra.voxel_mm for spectra in theirs))
    f = np.linspace(_LOWEST, _HIGHEST, _COUNT) / voxel
    parts = mine.at(f)
    members = [_mean([spectra.at(f)]) for spectra in theirs]
    smooth, detailed = own = _mean([parts])
    wanted = _mean(members)
    slope = slope_of(f, own, wanted)
    of_parts = [slope_of(f, pair, wanted) for pair in zip(*parts, strict=True)]
    noises = np.array([_noise(f, member) for member in members])
    # Each patient against the others shows how far patients of one look differ.
    between = [
        slope_of(f, member, _mean(members[:k] + members[k + 1 :]))
        for k, member in enumerate(members)
        if len(members) > 1
    ]
    count = len(members)
    among = _spread(np.array(between) * (count - 1) / count, _SPREAD[modality] * voxel**2)
    own_spread = float(np.std(of_parts, ddof=1)) / math.sqrt(PARTS)
    uncertainty = math.hypot(among * math.sqrt(1 + 1 / count), own_spread)
    gain = None
    if abs(slope) > _CERTAIN * uncertainty:
        # How much faster than the wanted noise the filtered noise rises: white noise does.
        color = float(np.polyfit(f**2, (wanted[0] - smooth) / 2, 1)[0])
        rises = max(0.0, slope - color - 2 * among)
        ratio = np.exp(smooth) / (_TYPICAL_DETAIL * _anatomy(own))
        gain = partial(_gain, slope=slope, rises=rises, f=f, noise_to_detail=ratio)
        smooth = smooth + 2 * slope * f**2
    spread_of_noise = _spread(noises - noises.mean(), _NOISE_SPREAD) * math.sqrt(1 + 1 / count)
    surplus = _noise(f, (smooth, detailed)) - float(noises.mean())
    is_certain = surplus > _CERTAIN * spread_of_noise
    return Change(slope, uncertainty, gain, surplus if is_certain else 0.0)


def _mean(pairs: Sequence[Pair]) -> Pair:
    """Of both spectra over several patients, or over the parts of one."""
    smooth, detailed = (np.vstack(spectra).mean(axis=0) for spectra in zip(*pairs, strict=True))
    return smooth, detailed


def _spread(deviations: Doubles, known: float) -> float:
    """Standard deviation among patients; `known` counts as that of a few further ones."""
    free = max(0, len(deviations) - 1)
    total = _SPREAD_COUNTS * known**2 + float((deviations**2).sum() if free else 0)
    return math.sqrt(total / (_SPREAD_COUNTS + free))


def _noise(f: Doubles, pair: Pair) -> float:
    """Logarithm of the noise's amplitude at the upper frequencies."""
    return float(pair[0][f >= f[-1] / 2].mean()) / 2


def _anatomy(pair: Pair) -> Doubles:
    """Power that detailed blocks have above smooth ones."""
    smooth, detailed = np.exp(pair)
    return np.asarray(np.maximum(detailed - smooth, _LEAST_ANATOMY * detailed))


def _slope_of_detail(f: Doubles, mine: Pair, wanted: Pair) -> float:
    """The b of MR, from what detailed blocks have above smooth ones, weighed by its share."""
    logs, weights = [], 0.0
    for smooth, detailed in (mine, wanted):
        ratio = np.exp(np.minimum(smooth - detailed, math.log(1 - _LEAST_ANATOMY)))
        logs.append(detailed + np.log1p(-ratio))
        weights = weights + (1 + ratio**2) / (1 - ratio) ** 2
    slope, _ = np.polyfit(f**2, (logs[1] - logs[0]) / 2, 1, w=1 / np.sqrt(weights))
    return float(slope)


def _slope_of_both(f: Doubles, mine: Pair, wanted: Pair) -> float:
    """The b of CT: least squares of relative errors; α and δ of each class in closed form."""
    step = 0.05 / f[-1] ** 2 * _HIGHEST**2
    slopes = step * np.arange(-400, 601)
    basis = np.stack([_anatomy(wanted), np.exp(wanted[0])])
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


# --- filter ---------------------------------------------------------------------------------------


def _gain(
    frequencies: Doubles, *, slope: float, rises: float, f: Doubles, noise_to_detail: Doubles
) -> Doubles:
    """The filter's response: exp(b f²), less where it would raise noise beyond the wanted texture.

    rises: slope by which the noise would rise faster than wanted, mm².
    """
    held = np.minimum(frequencies, f[-1] / _HIGHEST * 0.5)
    full: Doubles = np.exp(slope * held**2)
    if slope <= 0:
        return full
    ratio = np.exp(np.interp(held, f, np.log(noise_to_detail)))
    share = 1 / (1 + ratio * -np.expm1(-2 * rises * held**2))
    limited: Doubles = 1 / (1 / (1 + (full - 1) * share) + 1 / _MOST_GAIN - 1 / (_MOST_GAIN * full))
    return limited


def _kernels(
    match: Match, spacing_mm: tuple[float, float, float]
) -> dict[Direction, npt.NDArray[np.float32]]:
    """The filters that apply: in a plane [1, n, n], along slices [n, 1, 1]."""
    di, dj, dk = (np.fft.fftfreq(_SAMPLES, mm) for mm in spacing_mm)
    grids = {
        "in_plane": np.hypot(dj[:, None], di)[None],
        "through_plane": np.abs(dk)[:, None, None],
    }
    window = np.cos(np.linspace(-1, 1, 2 * _RADIUS + 3)[1:-1] * np.pi / 2) ** 0.5
    near = np.arange(-_RADIUS, _RADIUS + 1)
    kernels = {}
    for name, change in match.changes.items():
        if change.gain:
            kernel = np.fft.ifftn(change.gain(grids[name])).real
            for axis in np.flatnonzero(np.array(kernel.shape) > 1):
                sides = [-1 if a == axis else 1 for a in range(3)]
                kernel = kernel.take(near, axis) * window.reshape(sides)
            kernels[name] = (kernel / kernel.sum()).astype(np.float32)
    return kernels


def _filtered(
    voxels: npt.NDArray[Any], part: slice, kernels: dict[Direction, npt.NDArray[np.float32]]
) -> Floats:
    """Some slices through all filters, float32; edges are mirrored."""
    import torch
    from torch.nn import functional as F  # noqa: N812 - the field's own short name

    around = np.arange(part.start - _RADIUS, part.stop + _RADIUS) % (2 * len(voxels))
    around = np.minimum(around, 2 * len(voxels) - 1 - around)
    if "through_plane" not in kernels:
        around = around[_RADIUS:-_RADIUS]
    slab = voxels[around].astype(np.float32)
    if "in_plane" in kernels:
        slab = np.pad(slab, ((0, 0), (_RADIUS, _RADIUS), (_RADIUS, _RADIUS)), mode="symmetric")
    values = torch.from_numpy(slab)[None, None]
    for kernel in kernels.values():
        values = F.conv3d(values, torch.from_numpy(kernel)[None, None])
    return np.asarray(values[0, 0].numpy())
