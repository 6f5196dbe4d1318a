"""Decides how much of the measured noise of a volume is removed, and corrects what is removed.

measured noise → Removal → its expected effect → a method of `denoisers` → Rician bias corrected →
share of the correction
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import (
    Array,
    Floats,
    cached_parts,
    extremes,
    foreground,
    parts_of,
)
from MedEnhanceLib.core.findings import CLEAN, REMOVED, UNCERTAIN
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.denoisers import BlockMatching, Denoiser, FramePart, Frames
from MedEnhanceLib.filters.regions import ConstantRegions, window_means
from MedEnhanceLib.noise.estimate import TRUSTED, NoiseEstimate, noise_to_contrast
from MedEnhanceLib.noise.rician import amplitude
from MedEnhanceLib.noise.tissue_blocks import AIR_MEAN
from MedEnhanceLib.runtime.texts import Text, text

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/enhancement.py.
#: A magnitude with a mean below this, in σ, may be air, whose mean is 1.25 σ.
_NEAR_AIR = 2.0
#: Largest σ of air over that of the tissue around it.
_MOST_OF_AIR = float(np.float32(1.15))
#: Excess of the mean of neighbors over the mean of air, in σ: below the first it is air, above the
#: second signal.
_ABOVE_AIR = (0.08, 0.16)
#: Neighbors to each side in that mean: what the correction of a voxel depends on.
REACH = 2
#: σ over the contrast of the tissue at which half of the correction is applied; shares from which
#: all of it, and below which none of it is. Half of the first gains .6 dB, twice loses 1.0 dB, in
#: four scans with .3 to 3 % of noise; it protects undamaged scans (Benchmarks/harm.py).
_HALF_NEEDED, _NEARLY_ALL, _HARDLY_ANY = 0.05, 0.9, 0.15
#: σ over the contrast of the tissue up to which the lower end of an uncertain σ is used, and from
#: which σ as measured: where noise hides the anatomy, an overestimate can destroy little. Tuned on
#: two repeated scans at an SNR of 2. Measured again by Benchmarks/real.py.
_HIDES_ANATOMY = (0.5, 1.0)
#: σ over the largest value below which rounding in single precision exceeds the noise.
_LEAST_NOISE = 2e-7
#: Variance of the mean of similar voxels in the filter, as a share of that of the noise.
_OF_A_MEAN = np.float32(0.1)
#: Standard deviation of the errors over the expected one: Testing/Benchmarks/uncertainty.py.
CALIBRATION = {"MR": np.float32(0.68), "CT": np.float32(0.55)}
#: Slices whose expected deviation is computed at once.
_SLICES_AT_ONCE = 16
#: Images that the calibration was fitted on.
FITTED_ON = {
    "MR": "T1 of six persons from four sites, with known noise",
    "CT": "five patients of several hospitals, at simulated low dose",
}
#: SNR of tissue → RMS of the error that an enhancement leaves, over that before. Fitted to 13 scans
#: of four persons (T1, T2, FLAIR) with Rician noise of 2 to 15 %. Measured again by
#: Benchmarks/uncertainty.py on T1 of six persons: .03 below in the mean, and 77 % within .2; an
#: average of 152 heads is .3 below, a head with noise of its own .2 above.
_SNR = (2.5, 4.5, 8.0, 16.0, 35.0, 80.0)
_LEFT = (0.31, 0.35, 0.45, 0.6, 0.78, 0.95)
#: The same in CT, after all of the correction: .29 in the mean of nine scans of phantoms, and after
#: half of it .59, which a smaller number foretells (Testing/Benchmarks/real_ct.py).
_LEFT_OF_CT = 0.25
#: Error left where hardly anything is to be removed.
_HARDLY_LESS = 0.96
#: SNR at the upper end of the noise from which a scan is clean, though its noise is uncertain: an
#: enhancement would remove at most 9 % of its error. The sample, whole or in part, and in 8 bits,
#: has 71 and more. Patients' T1 and T2 whose slices are interpolated within themselves, with 1.4
#: times the noise of that upper end and more, have 27 to 62.
_CLEAN = 70.0
#: Voxels of each volume of which the typical tissue is found.
_SAMPLE = 1 << 20
#: Share of the correction that is applied in CT, so that small faint lesions and the texture of the
#: noise stay: chosen on phantoms of four vendors (docs/decisions/0121-share-of-ct.md). Measured
#: again by Benchmarks/real_ct.py.
CT_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Removal:
    """Noise of a volume, and how much of it is removed.

    Attributes:
        noise: at the σ that is certain.
        share: of the noise that is removed, 0 to 1.
        reason: why that is not all, or not more than `ct_share`; None where it is.
        ct_share: factor in `share` that keeps faint lesions of CT, `CT_SHARE` or 1.
    """

    noise: NoiseEstimate
    share: float = 1.0
    reason: Text | None = None
    ct_share: float = 1.0

    def acts_on(self, volume: Volume) -> bool:
        """Return whether something is removed, and is more than rounding in single precision."""
        largest = max(abs(float(end)) for end in extremes(volume.voxels))
        return self.share > 0 and self.noise.level > _LEAST_NOISE * largest

    def correct(self, part: FramePart, regions: ConstantRegions) -> Floats:
        """Undo the bias of magnitudes in filtered slices, and take the share of the correction.

        Args:
            part: of a frame; of a region, all but the outer `REACH` voxels are as in the whole.
            regions: of that frame; padding is not put back.
        """
        level, corrected = regions.level(self.noise), np.empty_like(part.voxels)
        for some in cached_parts(part.voxels):
            first, values = part.slices.start, part.voxels[some]
            at = slice(first + some.start, first + some.stop)
            if self.noise.rician:
                sigma = np.asarray(level[at][:, *part.region])
                values = _without_rician_bias(values, sigma, self.noise)
            if self.share < 1:
                before = regions.neutral[at][:, *part.region].astype(np.float32)
                values = before + (values - before) * np.float32(self.share)
            corrected[some] = values
        return corrected

    def keeping_lesions(self) -> Removal:
        """Return the removal of a CT that is not for viewing: `CT_SHARE` of it."""
        return replace(self, share=CT_SHARE * self.share, ct_share=CT_SHARE)


def trust_in(noise: NoiseEstimate) -> float:
    """Return the confidence that the measured noise is not anatomy, 0 to 1."""
    return min(1.0, noise.confidence / TRUSTED)


def removal_of(noise: NoiseEstimate, modality: str, *, takes_all: bool = False) -> Removal:
    """Decide how much of the noise of a volume is removed.

    Of an uncertain σ the lower end of its interval is used; in MR, σ as measured if the noise hides
    the anatomy. Weak noise stays: the share is r² / (r² + 0.05²), where r is σ over the contrast of
    the tissue; a share above .9 becomes 1, one below .15 becomes 0.

    Args:
        noise: measured in the volume.
        modality: of the volume; in "CT" the units are HU.
        takes_all: whether all noise is removed, however weak and uncertain it is.
    """
    if takes_all:
        return Removal(noise, 1.0, noise.reason if noise.confidence < 1 else None)
    trust, ratio = trust_in(noise), noise_to_contrast(noise)
    hidden = 0.0
    if not profile_of(modality).is_absolute:
        hidden = float(np.interp(ratio, _HIDES_ANATOMY, (0.0, 1.0)))
    sure = noise.low ** (1 - hidden) * noise.level**hidden
    certain = noise if trust >= 1 else noise.at_level(sure)
    if noise.contrast == 0 and noise.low == 0:
        return Removal(certain, 0.0, noise.reason or text("too_little_tissue"))
    # Without measurable contrast, noise may hide all of it.
    share = ratio**2 / (ratio**2 + _HALF_NEEDED**2) if noise.contrast else 1.0
    if share < _HARDLY_ANY:
        return Removal(certain, 0.0, text("weak"))
    share = 1.0 if share > _NEARLY_ALL else float(share)
    if trust < 1:
        return Removal(certain, share, noise.reason or text("unsure"))
    return Removal(certain, share, text("weak") if share < 1 else None)


def expected(
    volumes: Sequence[Volume], noise: NoiseEstimate, removal: Removal, *, is_unfit: bool
) -> dict[str, Any]:
    """Judge the noise of a volume, or of frames, and what will be removed of it.

    Args:
        volumes: that were measured.
        noise: as measured or stated.
        removal: as decided.
        is_unfit: whether the noise is unlike what the filter assumes.
    Returns facts for the manifest: the verdict; snr, the median of the tissue over σ (None for CT);
    and what is expected to be removed, a share of the error (RMS; None where the noise is
    uncertain).
    """
    is_ct = volumes[0].profile.is_absolute
    snr = None if is_ct or noise.level <= 0 else _tissue_of(volumes) / noise.level
    left = _LEFT_OF_CT if snr is None else float(np.interp(snr, _SNR, _LEFT))
    is_certain = noise.confidence >= TRUSTED
    is_clean = snr is not None and snr * noise.level > _CLEAN * noise.high
    if is_clean and not is_certain:
        left = _HARDLY_LESS
    snr = snr and round(snr, 1)
    if (is_unfit and not is_clean) or not (is_certain or is_clean):
        return {"verdict": UNCERTAIN, "snr": snr, "expected": None}
    removed = round((1 - left) * removal.share, 2)
    verdict = CLEAN if removed <= 1 - _HARDLY_LESS else REMOVED
    return {"verdict": verdict, "snr": snr, "expected": removed}


def _tissue_of(volumes: Sequence[Volume]) -> float:
    """Return the median of the tissue, in a sample of the voxels."""
    values = (volume.voxels.reshape(-1) for volume in volumes)
    sample = np.concatenate([each[:: max(1, each.size // _SAMPLE)] for each in values])
    return float(np.median(sample[foreground(sample)]))


def denoise(
    volume: Volume,
    removal: Removal,
    denoiser: Denoiser | None = None,
    **frames: Any,
) -> Floats:
    """Denoise a single volume, correct the Rician bias, and take the share of the correction.

    Args:
        volume: a single volume, [K, J, I], finite.
        removal: noise of the volume, and the share of the correction to apply.
        denoiser: the method; None for the block-matching filter.
        frames: attributes of `Frames`; `slices` are those that are returned.
    Returns float32 slices. Raises as `Denoiser.denoise`.
    """
    regions = ConstantRegions(volume.voxels, removal.noise.level)
    given = Frames.of(volume, removal.noise, **{"regions": lambda _: regions, **frames})
    if not removal.acts_on(volume):
        return volume.voxels[given.slices].astype(np.float32)
    parts = (denoiser or BlockMatching()).denoise(given).parts
    return np.concatenate([removal.correct(part, regions) for part in parts])


def expected_deviation(
    result: Array,
    volume: Volume,
    noise: NoiseEstimate,
    *,
    share: float = 1.0,
    strength: float = 1.0,
    first: int = 0,
    only: slice | None = None,
    out: Floats | None = None,
) -> Floats:
    """Estimate the standard deviation of the remaining error of denoised voxels.

    Where the signal varies by v, a Wiener filter leaves an error of variance σ² v² / (v² + σ²);
    where it does not vary, the error is that of a mean. A factor for each modality, fitted where
    the truth is known (docs/enhancement.md), calibrates the standard deviation: about 90 % of the
    errors are within ± 1.645 of it. Noise n that stays counts too: with the share a of its removal
    and the strength s the variance grows by (1 − a s)² n².

    Args:
        result: denoised slices of the volume, [n, J, I].
        volume: before denoising.
        noise: measured in `volume`.
        share: of the correction that is in `result`.
        strength: at which `result` will be blended with the volume.
        first: the slice of the volume that `result` begins with.
        only: the slices of the volume that are returned; all of `result` by default.
        out: float32 [n, J, I], for the result in the units of the volume; None for a new array.
    """
    stop = first + len(result)
    only = only or slice(first, stop)
    if out is None:
        out = np.empty((only.stop - only.start, *result.shape[1:]), np.float32)
    # Subtracted, as rounded squares of large values lose the variation; one for all parts.
    middle = float(np.mean(volume.voxels[len(volume.voxels) // 2], dtype=np.float64))
    calibration = CALIBRATION[volume.profile.like]  # as rounds are chosen
    for part in parts_of(only.start, only.stop, _SLICES_AT_ONCE):
        # A slice's deviation depends on its neighbors.
        where = slice(max(first, part.start - 1), min(stop, part.stop + 1))
        some = result[where.start - first : where.stop - first]
        power = np.square(noise[where])
        if share <= 0:  # nothing was removed: the error is the noise
            deviation = np.sqrt(power)
        else:
            # Of the whole correction: noise that its share leaves is no signal.
            before = volume.voxels[where]
            signal = _variation(before + (some - before) / np.float32(share), middle)
            variance = power * (_OF_A_MEAN + signal / (signal + power + np.float32(1e-12)))
            deviation = calibration * np.sqrt(variance)
        if share > 0 and share * strength < 1:  # noise that stays
            remaining = np.float32((1 - share * strength) / share)
            deviation = np.hypot(deviation, remaining * (some - before))
        inner = slice(part.start - where.start, part.stop - where.start)
        out[part.start - only.start : part.stop - only.start] = deviation[inner]
    return out


def _variation(values: Array, middle: float) -> Floats:
    """Return the variance of the 3 × 3 × 3 voxels around each, [n, J, I]; middle: of all values."""
    padded = np.pad(values.astype(np.float32), 1, mode="edge") - np.float32(middle)
    mean = window_means(padded, (3, 3, 3))
    return np.maximum(window_means(np.square(padded), (3, 3, 3)) - np.square(mean), 0)


def _without_rician_bias(mean: Floats, level: Floats, noise: NoiseEstimate) -> Floats:
    """Correct the bias of means of magnitudes, [n, J, I]; level: σ by the map, same shape.

    Where the mean is near that of air, σ of the air is used: the map there comes from the tissue
    around, and its errors would be visible in the dark. Dark tissue in strong noise looks like air
    with a σ far above that of bright tissue, and would be removed: hence the limit.
    """
    sigma = np.maximum(level, np.float32(1e-6))
    if noise.air is None:
        return amplitude(mean, sigma)
    air = np.minimum(np.float32(_MOST_OF_AIR) * sigma, np.float32(noise.air))
    sigma = np.where(mean < np.float32(_NEAR_AIR * noise.air), air, sigma)
    signal = amplitude(mean, sigma)
    # The inverse of the bias amplifies the noise left in air: there the mean of neighbors decides,
    # within a slice, so that slices do not depend on how many are treated at once.
    padded = np.pad(mean, [(0, 0), *2 * [(REACH, REACH)]], mode="edge")
    above = window_means(padded, (1, *2 * [2 * REACH + 1])) / air - np.float32(AIR_MEAN)
    low, high = _ABOVE_AIR
    return signal * np.clip((above - np.float32(low)) / np.float32(high - low), 0, 1)
