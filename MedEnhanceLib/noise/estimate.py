"""Measures the noise of a volume from the volume alone: its level, its map, its spectrum.

Blocks of 4 × 4 × 4 voxels of tissue go through the cosine transform. Noise is in every coefficient
of every block; anatomy is large in some blocks and absent from others. Four steps:

1. In each cell (some dozens of blocks) the blocks of least energy, the quiet ones, are selected.
   Coefficients whose frequencies add up to an even number select the blocks in which the odd ones
   are measured, and vice versa. In stationary noise the two are uncorrelated, so the selection
   leaves out anatomy without making the noise look smaller than it is.
2. A frequency whose energy differs between the quietest blocks and the next quiet ones holds
   anatomy, and counts for less.
3. The spectrum is a product of factors (MR: one per axis; CT: across slices and in plane), fitted
   to the frequencies that count. It extends the measurement to low frequencies, where anatomy is
   everywhere; in CT they are bounded by the higher ones in plane.
4. With the spectrum, every cell gives a level; a smooth map goes through cells free of anatomy.

Magnitude MR is Rician: its spread is smaller than σ where the signal is weak, which is corrected;
its air, if any, shows σ directly. A head has few quiet blocks: where the quietest third is
uncertain, the quietest sixth and twelfth are measured too, and used if all three show one level,
as noise does and anatomy does not. Otherwise, and in uncertain CT, `regressor` gives the level.

Sources: noise from the blocks with the least structure, Pyatykh et al., IEEE Trans. Image Process.
22 (2013) 687; Rician moments, Koay & Basser, J. Magn. Reson. 179 (2006) 317. The split into even
and odd, the comparison of quiet and next quiet blocks, and the fit are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from MedEnhanceLib.core.arrays import Array, Doubles, Floats, Mask, Numbers, interpolated
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.noise.regressor import estimate_sigma
from MedEnhanceLib.noise.tissue_blocks import BLOCK, CT_TISSUE, TINY, Blocks
from MedEnhanceLib.runtime.machine import blas_on_one_thread
from MedEnhanceLib.runtime.texts import Text, all_of, text

# Tuned on the volumes of Benchmarks/noise.py, none held out (decision 0047). Measured again there.
# Thirteen of them halved or doubled on 14 crops: mean error of σ .02 to .06 (as is .03), at worst
# .24 (.08).
#: Rounds of choosing blocks and fitting the spectrum.
_ROUNDS = 4
#: Share of a cell's blocks that count as quiet; the next quiet blocks are as many.
_QUIET = 1 / 3
#: Smaller shares, for MR; and the factor by which the levels of all shares may differ. Tuned on a
#: whole head with skull (decision 0047).
_QUIETER, _SAME = (1 / 6, 1 / 12), 1.1
#: Where less than this share of the frequencies is free of anatomy, half as many blocks count as
#: quiet, down to the least share. Not in CT: its spectrum has too many parameters for few blocks.
_FREE, _LEAST_QUIET = 0.1, 1 / 12
#: Share of cells that the spectrum is measured in.
_GOOD_CELLS = 0.4
#: Least number of blocks in a cell whose level is used.
_FEW = 6
#: Factor on the rise from quiet to next quiet blocks, which is subtracted as anatomy: from the
#: spectrum, where too much is worse than too little, and from the level.
_OFF_SPECTRUM, _OFF_LEVEL = 0.5, 1.0
#: Relative rise at which a frequency counts for half.
_RISE = 0.1
#: Weight of the smoothness of neighboring factors of the spectrum.
_TIE = 0.01
#: Step of a parabola around zero from frequency 0 or 1 to the next, over the step after that.
_PARABOLA = (1 / 3, 3 / 5)
#: How far the logarithm may lie above that parabola, whose points have errors of their own.
_ABOVE_PARABOLA = 0.05
#: Frequencies below these shares of a voxel's variance hardly count for the level, the selection.
_FAINT_LEVEL, _FAINT_CHOICE = 0.1, 0.02
#: A cell whose σ is larger than that of the quieter cells by this factor is anatomy.
_LOUD = 2.5
#: σ of the background over that of tissue within which the two agree, and the least share of
#: tissue: where nearly all blocks look like air, the others may be air too.
_LIKE_TISSUE, _LEAST_TISSUE = (0.6, 2.0), 0.05
# Tuned on simulated scanners and an abdomen at low dose (decision 0068). Measured again likewise.
#: CT: σ in HU from which tissue may be as dark as air, rounds of measuring it, and how far noise
#: reaches below the mean of tissue, in σ, which is underestimated at first: hence the least σ.
_LOUD_HU, _LOUD_ROUNDS, _NOISE_REACHES, _LEAST_LOUD_HU = 200.0, 2, 6.0, 300.0
#: Loud cells of CT: share of blocks below the typical one; factor on what all frequencies show
#: beyond those that change from slice to slice, and HU: both are subtracted as anatomy.
_TYPICAL, _OFF_LOCAL, _LEAST_LOCAL_HU = 0.6, 0.5, 40.0
#: Confidence from which the measured σ is within 10 % of the truth (results/noise.json), and the
#: lower end of the interval, over σ, from there on.
TRUSTED, _SURE_LOW = 0.5, 0.85
#: CT: confidence below which the regressor is nearer to the truth.
_LEARNED_CT = 0.6
#: Where all is as weak as the background: lower end of σ, and σ, over what the background shows.
#: The mean of a signal as strong as its noise is 1.24 times that of noise alone, of twice that 1.8.
#: Tuned on two repeated scans at an SNR of 2. Measured again by Benchmarks/real.py.
_OF_WEAK_SIGNAL = (0.6, 0.75)


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """Measured noise of a volume.

    The map at the voxels of the volume is made slice by slice as it is read: `noise[2:5]`.

    Attributes:
        level: σ, in the units of the volume: the median over the blocks of tissue. In magnitude MR,
            σ of each channel, which is the standard deviation where the signal is strong.
        sigma: [k, j, i], the map of σ at the centers of cells.
        spectrum: [4, 4, 4] (k, j, i), variance of each coefficient of the orthonormal cosine
            transform of noise with σ = 1. Its mean over all 64 is 1, as a voxel's variance is the
            mean of its block's coefficients; the constant one is extrapolated.
        confidence: 0 (a guess) to 1.
        reason: why the confidence is low; None where it is not.
        rician: whether values are magnitudes with this σ, whose bias can be undone.
        air: σ as the background shows it, None where it shows nothing.
        contrast: of the tissue: half the distance between the values that 16 % and 84 % of its
            blocks stay below.
        shape: of the volume.
        cell: voxels in a cell along k, j, i.
        low, high: ends of the interval that holds σ in nine of ten scans.
        apparent: σ as the quietest blocks show it, anatomy included.
        alike: share of the neighboring frames that are alike, 0 to 1; 1 for a single volume.
    """

    level: float
    sigma: Floats
    spectrum: Floats
    confidence: float
    reason: Text | None
    rician: bool
    air: float | None
    contrast: float
    shape: tuple[int, int, int]
    cell: tuple[float, float, float]
    low: float = 0.0
    high: float = 0.0
    apparent: float = 0.0
    alike: float = 1.0

    def at_level(self, level: float) -> NoiseEstimate:
        """Return the same noise at another σ, with its map in proportion."""
        scale = np.float32(level / self.level) if self.level else np.float32(1)
        return replace(self, level=level, sigma=self.sigma * scale)

    def __getitem__(self, slices: slice) -> Floats:
        """Interpolate the map to voxels of some slices: float32 [n, J, I], in the volume's units.

        Linear between cells and constant beyond the outer ones.
        """
        if self.sigma.shape == self.shape:
            return self.sigma[slices].copy()
        k, j, i = self.places
        return interpolated(self.sigma, (k[slices], j, i))

    @property
    def places(self) -> list[Array]:
        """Positions of the slices, rows and columns of the volume in the map, in cells."""
        sides = zip(self.shape, self.cell, strict=True)
        return [(np.arange(count) + 0.5) / size - 0.5 for count, size in sides]


def is_rician(air: float | None, level: float) -> bool:
    """Test whether background and tissue show the same σ, as in magnitudes of one coil.

    Scanners that combine coils, filter or mask leave less in the background: there is no Rician
    bias then, and correcting it would add one.
    """
    return air is not None and _LIKE_TISSUE[0] <= air / max(level, TINY) <= _LIKE_TISSUE[1]


def noise_to_contrast(estimate: NoiseEstimate) -> float:
    """Return σ over the contrast of the tissue, no unit; 0 without contrast.

    In T1 of the head .05 is clean and .5 hides most detail; in CT 15 HU give about .2.
    """
    return estimate.level / estimate.contrast if estimate.contrast > 0 else 0.0


@blas_on_one_thread  # or the last bits would depend on what other threads do
def measure_noise(
    voxels: Array, *, modality: str, spacing: Sequence[float] = (1.0, 1.0, 1.0)
) -> NoiseEstimate:
    """Measure the noise of a volume, or of a frame of a sequence.

    Args:
        voxels: [K, J, I], finite, in any unit; HU for CT.
        modality: "CT", "MR" or another of `core.volume.MODALITIES`.
        spacing: (i, j, k) in mm, as in `Geometry`.
    Raises:
        InputError: for other than three axes.
    """
    if voxels.ndim != 3:
        raise InputError(f"noise is measured in one frame, not in shape {voxels.shape}")
    shape = voxels.shape[0], voxels.shape[1], voxels.shape[2]
    blocks = Blocks.of(voxels, modality, spacing)
    if blocks.count:
        noise = _estimate(shape, blocks, _Fit(blocks, modality))
        is_projected = profile_of(modality).is_projected
        if is_projected:
            noise = _with_loud_tissue(voxels, spacing, noise)
        if noise.confidence >= (_LEARNED_CT if is_projected else TRUSTED):
            return noise
        fewer = None if is_projected else _quieter(blocks, modality, noise)
        return fewer or _learned(voxels, modality, noise)
    # Everything is as weak as the background: what looks like air may contain signal.
    air = blocks.air or 0.0
    low, level = (air * share for share in _OF_WEAK_SIGNAL)
    level = level or blocks.step / math.sqrt(12)
    return NoiseEstimate(
        level=level,
        sigma=np.full((1, 1, 1), level, np.float32),
        spectrum=np.ones((BLOCK,) * 3, np.float32),
        confidence=0.0,
        reason=text("no_tissue"),
        rician=False,
        air=blocks.air,
        contrast=level if air else 0.0,
        shape=shape,
        cell=shape,
        low=low,
        high=air,
    )


def noise_of(volume: Volume) -> NoiseEstimate:
    """Measure the noise of a single volume."""
    spacing = volume.geometry.spacing
    return measure_noise(volume.voxels, modality=volume.modality, spacing=spacing)


def _with_loud_tissue(
    voxels: Array, spacing: Sequence[float], noise: NoiseEstimate
) -> NoiseEstimate:
    """Measure a CT again where noise alone makes voxels of tissue as dark as air.

    Blocks with such voxels were taken for air, and only the quietest tissue was measured.
    """
    for _ in range(_LOUD_ROUNDS):
        if noise.level < _LOUD_HU:
            break
        lowest = CT_TISSUE - _NOISE_REACHES * max(noise.level, _LEAST_LOUD_HU)
        blocks = Blocks.of(voxels, "CT", spacing, lowest=lowest)
        noise = _estimate(noise.shape, blocks, _Fit(blocks, "CT"))
    return noise


def _quieter(blocks: Blocks, modality: str, noise: NoiseEstimate) -> NoiseEstimate | None:
    """Measure in fewer, quieter blocks; None where the shares of blocks show different levels.

    The level is the lowest of all: overestimated noise destroys detail, underestimated does not.
    """
    fits = [_estimate(noise.shape, blocks, _Fit(blocks, modality, share)) for share in _QUIETER]
    levels = [fit.level for fit in (noise, *fits)]
    confidence = sum(fit.confidence for fit in fits) / len(fits)
    if confidence < TRUSTED or max(levels) > _SAME * min(levels):
        return None
    surest = max(fits, key=lambda fit: fit.confidence).at_level(min(levels))
    low, high = _SURE_LOW * min(levels), max(levels) / _SURE_LOW
    # A spectrum from few blocks is worse than none: on simulated scanners by .2 dB.
    white = np.ones_like(surest.spectrum)
    return replace(surest, confidence=confidence, low=low, high=high, spectrum=white)


def _learned(voxels: Array, modality: str, noise: NoiseEstimate) -> NoiseEstimate:
    """Return the estimate with σ and interval of the regressor, if that can measure."""
    learned = estimate_sigma(
        voxels,
        modality,
        level=noise.level,
        confidence=noise.confidence,
        air=noise.air,
        contrast=noise.contrast,
    )
    if learned is None:
        return noise
    level, low, high = learned
    measured = replace(noise, level=level, low=low, high=high)
    if profile_of(modality).is_projected:
        # Kernel and projections give noise its spectrum and its map: the first is the better one
        # whatever the confidence, the second is flattened as this falls (docs/decisions/0068).
        share = np.float32(min(1.0, noise.confidence / TRUSTED))
        shape = (noise.sigma / np.float32(noise.level)) ** share
        return replace(measured, sigma=np.float32(level) * shape)
    # Map and spectrum of an uncertain estimate contain anatomy.
    flat, white = np.full_like(noise.sigma, level), np.ones_like(noise.spectrum)
    return replace(measured, sigma=flat, spectrum=white)


# --- spectrum -------------------------------------------------------------------------------------


class _Fit:
    """The spectrum, fitted in rounds to quiet blocks, and the noise of each cell.

    Attributes:
        spectrum: [f], of mean 1.
        weight: [f], 0 (anatomy) to 1 (noise alone).
        variance: [cells], of the noise.
        excess: [cells], relative rise of the energy from quiet to next quiet blocks.
        mean: [cells], of the quiet blocks.
        quiet: share of a cell's blocks that count as quiet; the next quiet ones are as many.
        modality: of the volume.
    """

    def __init__(self, blocks: Blocks, modality: str, quiet: float = _QUIET) -> None:
        self._blocks, self.quiet, self.modality = blocks, quiet, modality
        frequencies = blocks.power.shape[1]
        index = np.stack(np.unravel_index(np.arange(frequencies), (blocks.depth, BLOCK, BLOCK)))
        self._folds, self._powers = zip(*blocks.folds, strict=True)
        spectrum = np.maximum(blocks.quiet_power.astype(np.float64), TINY)
        spectrum[0] = spectrum[1:].mean()
        self.spectrum = spectrum / spectrum.mean()
        self.weight = np.where(np.arange(frequencies) > 0, 1.0, 0.0)
        share = quiet
        for _ in range(_ROUNDS):
            # Each fold is measured in the blocks that the other one selects.
            choices = [self._choose(number, share) for number in (1, 0)]
            rises = self._measure_cells(choices)
            energies = self._coefficients(choices, rises)
            self.spectrum, self.weight = _factors(*energies, index, modality)
            if not profile_of(modality).is_projected and self.weight.sum() < _FREE * frequencies:
                share = max(share / 2, _LEAST_QUIET)

    def _choose(self, fold: int, share: float) -> tuple[Mask, Mask]:
        """Select the blocks [n] with the least energy in a fold (0, 1), and the next quiet ones."""
        blocks, number = self._blocks, self._blocks.per_cell
        start = np.concatenate([[0], np.cumsum(number)])[:-1]
        most = np.maximum(share * number, 3)[blocks.cell]
        width = self.quiet * number[blocks.cell]
        far = np.maximum(width, most)
        scale = (1 / (self.spectrum[self._folds[fold]] + _FAINT_CHOICE)).astype(np.float32)
        order = _by_cell_and_energy(blocks.cell, self._powers[fold] @ scale)
        place = np.empty(blocks.count)
        place[order] = np.arange(blocks.count) - start[blocks.cell[order]]
        return place < most, (place >= far) & (place < far + width + 1)

    def _measure_cells(self, choices: Sequence[tuple[Mask, Mask]]) -> list[Doubles]:
        """Measure the variance in each cell's quiet blocks, less anatomy (the rise in the next).

        Returns the rise of each fold's energy, next quiet over quiet blocks, [cells] each.
        """
        blocks, scaled = self._blocks, self.weight / (self.spectrum + _FAINT_LEVEL)
        shares = [float(scaled[fold] @ self.spectrum[fold]) for fold in self._folds]
        self.variance, self.excess, rises = np.zeros(()), np.zeros(()), []
        given = zip(self._folds, self._powers, shares, choices, strict=True)
        for fold, power, whole, (quiet, following) in given:
            share = whole / max(sum(shares), TINY)
            energy = power @ (scaled[fold] / max(whole, TINY)).astype(np.float32)
            low, high = blocks.mean_by_cell(energy, quiet), blocks.mean_by_cell(energy, following)
            noise = np.maximum(low - _OFF_LEVEL * (high - low), 0.3 * low)
            self.variance = self.variance + share * noise
            rises.append((high + TINY) / (low + TINY))
            self.excess = self.excess + share * (rises[-1] - 1)
        self.mean = blocks.mean_by_cell(blocks.mean, choices[0][0] | choices[1][0])
        return rises

    def _coefficients(
        self, choices: Sequence[tuple[Mask, Mask]], rises: Sequence[Doubles]
    ) -> tuple[Doubles, Doubles]:
        """Average squared coefficients in quiet and in next quiet blocks, over the variance.

        Only the cells count in which the other fold rises least from quiet to next quiet blocks.
        """
        blocks = self._blocks
        results = np.zeros((2, blocks.power.shape[1]))
        enough = blocks.per_cell >= min(4 * _FEW, blocks.per_cell.max())
        scale = 1 / np.maximum(self.variance, TINY)
        for fold, other_rise, masks in zip(self._folds, reversed(rises), choices, strict=True):
            rise = np.where(enough, other_rise, np.inf)
            good = rise <= np.quantile(rise[enough], _GOOD_CELLS)
            for result, some in zip(results, masks, strict=True):
                use = np.flatnonzero(some & good[blocks.cell])
                if use.size:
                    by = scale[blocks.cell[use]].astype(np.float32)
                    result[fold] = by @ blocks.power[np.ix_(use, fold)] / use.size
        return results[0], results[1]


def _by_cell_and_energy(cell: Numbers, energy: Floats) -> Numbers:
    """Sort blocks by cell, then energy (≥ 0), then place: `np.lexsort`, in a fifth of its time."""
    # Bits of floats that are not negative are ordered as these are.
    keys = (energy.view(np.uint32).astype(np.uint64) << np.uint64(32)) | np.arange(
        len(energy), dtype=np.uint64
    )
    keys.sort()
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)
    cells = cell[order]
    # Two bytes are sorted by counting.
    small = cells.astype(np.uint16) if cells.max(initial=0) < 1 << 16 else cells
    return order[np.argsort(small, kind="stable")]


def _factors(
    quiet: Doubles, following: Doubles, index: Numbers, modality: str
) -> tuple[Doubles, Doubles]:
    """Fit a product of factors to the frequencies that contain noise alone; weight these.

    Least squares of the logarithms. Frequencies above the fit contain anatomy and lose weight.

    quiet: [f], mean squares from `_coefficients`.
    index: [3, f], frequencies along k, j, i.
    Returns spectrum with mean 1, and weights from 0 to 1, [f] each.
    """
    change = (following - quiet) / np.maximum(quiet, TINY)
    weight = 1 / (1 + np.square(np.maximum(change - 0.02, 0) / _RISE))
    weight[0] = 0
    corrected = np.maximum(quiet - _OFF_SPECTRUM * (following - quiet), 0.25 * quiet)
    target = np.log(np.maximum(corrected, 1e-6))
    is_projected = profile_of(modality).is_projected
    groups = [index[0], BLOCK * index[1] + index[2]] if is_projected else list(index)
    sizes = [int(group.max()) + 1 for group in groups]
    matrix = np.concatenate([np.eye(n)[group] for n, group in zip(sizes, groups, strict=True)], 1)
    ties = _ties(sizes)
    used = weight
    for _ in range(8):
        normal = (matrix * used[:, None]).T @ matrix
        normal += used.max() * (_TIE * ties + 1e-6 * np.eye(len(normal)))
        fitted = matrix @ np.linalg.solve(normal, matrix.T @ (used * target))
        if is_projected:
            _bound_low_frequencies(fitted.reshape(-1, BLOCK, BLOCK))
        used = weight / (1 + np.square(np.maximum(target - fitted, 0) / 0.15))
    spectrum = np.exp(fitted)
    spectrum[1:] = np.minimum(spectrum[1:], 1.2 * quiet[1:] + TINY)
    spectrum[0] = min(spectrum[0], spectrum[[1, BLOCK]].max())
    spectrum = np.maximum(spectrum, 1e-6 * spectrum.max())
    weight = np.maximum(used, 1e-4)
    weight[0] = 0
    return spectrum / spectrum.mean(), weight


def _bound_low_frequencies(spectrum: Doubles) -> None:
    """Limit the low frequencies in plane by the higher ones, in place.

    The logarithm of the spectrum of CT noise, a ramp and the window of its kernel, rises toward
    frequency zero by no more than a parabola around zero through the next two frequencies. That of
    anatomy, a power of frequency, rises ever faster; in thick slices and at bone every block has
    it. The larger limit of both directions counts: noise behind bone is along rows or columns.

    spectrum: [k, j, i], logarithms.
    """
    for j, i in ((1, 1), (1, 0), (0, 1), (0, 0)):
        down, across = spectrum[:, j + 1 : j + 3, i], spectrum[:, j, i + 1 : i + 3]
        along_j, along_i = (
            line[:, 0] + _PARABOLA[start] * (line[:, 0] - line[:, 1])
            for line, start in ((down, j), (across, i))
        )
        most = np.maximum(along_j, along_i) + _ABOVE_PARABOLA
        spectrum[:, j, i] = np.minimum(spectrum[:, j, i], most)


def _ties(sizes: Sequence[int]) -> Doubles:
    """Build the quadratic form of differences between neighboring factors, of one or two axes."""
    difference = np.diff(np.eye(BLOCK), axis=0)
    line, eye = difference.T @ difference, np.eye(BLOCK)
    forms = {1: np.zeros((1, 1)), BLOCK: line, BLOCK**2: np.kron(line, eye) + np.kron(eye, line)}
    ties, start = np.zeros((sum(sizes), sum(sizes))), 0
    for size in sizes:
        ties[start : start + size, start : start + size] = forms[size]
        start += size
    return ties


# --- map ------------------------------------------------------------------------------------------


def _estimate(shape: tuple[int, int, int], blocks: Blocks, fit: _Fit) -> NoiseEstimate:
    """Make map, level, interval and confidence of a fit."""
    number = blocks.per_cell
    spread = np.sqrt(np.maximum(fit.variance, TINY))
    if blocks.magnitude:
        spread = spread / np.interp(fit.mean / spread, *rician_table())
    usable = number >= min(_FEW, number.max())
    values = fit.quiet * number * fit.weight.sum()
    rise = fit.excess - 0.05 - np.sqrt(4 / np.maximum(values, 1))
    clean = 1 / (1 + 4 * np.square(np.maximum(rise, 0) / 0.15))
    low = float(np.quantile(np.repeat(spread, np.where(usable, number, 0)), 0.25))
    loud = 1 + (spread / (_LOUD * low)) ** 8
    weight = np.where(usable, number * clean**2 / loud, 0).reshape(blocks.cells)
    smooth = smooth_map(spread.reshape(blocks.cells), weight)
    if profile_of(fit.modality).is_projected and blocks.depth == BLOCK:
        smooth = np.maximum(smooth, _loud_cells(blocks, fit))
    confidence, reason = _confidence(blocks, fit)
    level = float(np.median(smooth.reshape(-1)[blocks.cell]))
    if blocks.air is not None and blocks.air < level:
        # The excess over air is anatomy, the more so the lower the confidence.
        smooth *= (blocks.air / level) ** (1 - confidence)
    if blocks.step:
        smooth = np.maximum(smooth, blocks.step / math.sqrt(12))
    level = float(np.median(smooth.reshape(-1)[blocks.cell]))
    marks = np.percentile(blocks.mean, (16, 84))
    spectrum = fit.spectrum.reshape(blocks.depth, BLOCK, BLOCK)
    whole = np.broadcast_to(spectrum, (BLOCK, BLOCK, BLOCK)).astype(np.float32)
    return NoiseEstimate(
        level=level,
        sigma=smooth.astype(np.float32),
        spectrum=whole,
        confidence=confidence,
        reason=reason,
        rician=is_rician(blocks.air, level) and blocks.share >= _LEAST_TISSUE,
        air=blocks.air,
        contrast=float(marks[1] - marks[0]) / 2,
        shape=shape,
        cell=blocks.size,
        low=level * min(_SURE_LOW, max(confidence / TRUSTED, 0.1)),
        apparent=level,
        high=level * max(1 / _SURE_LOW, TRUSTED / max(confidence, 0.05)),
    )


def _loud_cells(blocks: Blocks, fit: _Fit) -> Doubles:
    """Measure σ of CT in a typical block of each cell, less anatomy; 0 in cells of few blocks.

    Where few photons arrive, noise doubles within 2 cm, and its spectrum is that of streaks: the
    quietest blocks and a common spectrum show too little. All frequencies count alike, and those
    that change from slice to slice apart, in which anatomy is weaker.
    """
    index = np.arange(blocks.power.shape[1])
    across = (index >= 2 * BLOCK**2) & (index % BLOCK**2 > 0)
    number = blocks.per_cell
    first = np.cumsum(number) - number
    place = first + (_TYPICAL * np.maximum(number - 1, 0)).astype(np.intp)
    typical = []
    for use in (across, index > 0):
        energy = blocks.power @ use.astype(np.float32) / np.float32(fit.spectrum[use].sum())
        ordered = energy[np.lexsort((energy, blocks.cell))].astype(np.float64)
        values = ordered[np.minimum(place, blocks.count - 1)]
        typical.append(np.where(number >= _FEW, values, 0.0))
    changing, whole = typical
    anatomy = _OFF_LOCAL * np.maximum(whole - changing, 0) + _LEAST_LOCAL_HU**2
    return np.asarray(np.sqrt(np.maximum(changing - anatomy, 0)).reshape(blocks.cells))


def _confidence(blocks: Blocks, fit: _Fit) -> tuple[float, Text | None]:
    """Rate the measurement by frequencies free of anatomy, number of blocks and their depth."""
    free = float(fit.weight.sum() / max(fit.weight.size - 1, 1))
    clear = min(1.0, free / 0.6)
    many = blocks.count / (blocks.count + 30)
    deep = 1.0 if blocks.depth == BLOCK else 0.6
    reasons = {
        "like_anatomy": clear < 0.6,
        "little_tissue": many < 0.7,
        "few_slices": deep < 1,
    }
    return clear * many * deep, all_of([text(key) for key, holds in reasons.items() if holds])


def smooth_map(value: Doubles, weight: Doubles) -> Doubles:
    """Smooth σ over cells by their weights; where these are small, use a wider mean.

    value, weight: [k, j, i]; the logarithm of σ is averaged.
    """
    value = np.log(np.maximum(value, TINY))
    near, much = _smoothed(value * weight, 0.6), _smoothed(weight, 0.6)
    wide, over = _smoothed(value * weight, 3.0), _smoothed(weight, 3.0)
    far = np.sum(value * weight) / max(float(np.sum(weight)), TINY)
    faint = 1e-3 * max(float(over.max()), TINY)
    wide = (wide + faint * far) / (over + faint)
    some = 0.02 * max(float(much.max()), TINY)
    return np.asarray(np.exp((near + some * wide) / (much + some)))


def _smoothed(value: Doubles, width: float) -> Doubles:
    for axis in range(3):
        places = np.arange(value.shape[axis])
        kernel = np.exp(-0.5 * np.square((places[:, None] - places) / width))
        value = np.moveaxis(np.tensordot(kernel, value, axes=(1, axis)), 0, axis)
    return value


@lru_cache(maxsize=1)
def rician_table() -> tuple[Doubles, Doubles]:
    """Tabulate mean over standard deviation of Rician values, and this deviation; σ = 1."""
    nodes, weights = np.polynomial.hermite.hermgauss(48)
    across = np.outer(weights, weights) / math.pi
    amplitudes = np.linspace(0, 8, 161)
    real, imaginary = math.sqrt(2) * nodes[:, None], math.sqrt(2) * nodes
    means = np.array([(across * np.hypot(a + real, imaginary)).sum() for a in amplitudes])
    spreads = np.sqrt(2 + amplitudes**2 - means**2)
    return means / spreads, spreads
