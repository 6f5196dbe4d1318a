"""The expected effect of an enhancement on the noise of a volume, before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib.core.arrays import foreground
from MedEnhanceLib.core.findings import CLEAN, REMOVED, UNCERTAIN
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.denoise import Removal
from MedEnhanceLib.noise.estimate import TRUSTED, NoiseEstimate

#: SNR of tissue → RMS of the error that an enhancement leaves, over that before. Fitted to 13 scans
#: of four persons (T1, T2, FLAIR) with Rician noise of 2 to 15 %: nine of ten are within .12. No
#: script repeats the fit.
_SNR = (2.5, 4.5, 8.0, 16.0, 35.0, 80.0)
_LEFT = (0.31, 0.35, 0.45, 0.6, 0.78, 0.95)
#: The same in CT whose faint lesions are kept: on nine scans of phantoms .19 to .72, in the mean .3
#: (Testing/Benchmarks/real_ct.py).
_LEFT_OF_CT = 0.3
# Chosen by hand; no table isolates them.
#: Error left where hardly anything is to be removed.
_HARDLY_LESS = 0.96
#: SNR at the upper end of the noise from which a scan is clean, though its noise is uncertain; and
#: a lower one, for a scan whose likely SNR is this high (a T1 rounded to 8 bits: 39 and 160).
_CLEAN, _LIKELY_CLEAN, _HIGH_SNR = 40.0, 25.0, 100.0
#: Voxels of each volume of which the typical tissue is found.
_SAMPLE = 1 << 20


@dataclass(frozen=True)
class Expectation:
    """The expected effect of an enhancement.

    Attributes:
        verdict: "clean", "removed" or "uncertain".
        snr: median of the tissue over σ; None for CT.
        removed: share of the error (RMS), 0 to 1; None where the noise is uncertain.
    """

    verdict: str
    snr: float | None = None
    removed: float | None = None


def expected(
    volumes: Sequence[Volume], noise: NoiseEstimate, removal: Removal, *, is_unfit: bool
) -> Expectation:
    """Judge the noise of a volume, or of frames, and what will be removed of it.

    Args:
        volumes: that were measured.
        noise: as measured or stated.
        removal: as decided.
        is_unfit: whether the noise is unlike what the filter assumes.
    """
    is_ct = volumes[0].profile.is_absolute
    snr = None if is_ct or noise.level <= 0 else _tissue_of(volumes) / noise.level
    left = _LEFT_OF_CT if snr is None else float(np.interp(snr, _SNR, _LEFT))
    is_certain = noise.confidence >= TRUSTED
    least = _CLEAN if snr is None or snr < _HIGH_SNR else _LIKELY_CLEAN
    is_clean = snr is not None and snr * noise.level > least * noise.high
    if is_clean and not is_certain:
        left = _HARDLY_LESS
    snr = snr and round(snr, 1)
    if (is_unfit and not is_clean) or not (is_certain or is_clean):
        return Expectation(UNCERTAIN, snr)
    removed = round((1 - left) * removal.share, 2)
    return Expectation(CLEAN if removed <= 1 - _HARDLY_LESS else REMOVED, snr, removed)


def _tissue_of(volumes: Sequence[Volume]) -> float:
    """Return the median of the tissue, in a sample of the voxels."""
    values = (volume.voxels.reshape(-1) for volume in volumes)
    sample = np.concatenate([each[:: max(1, each.size // _SAMPLE)] for each in values])
    return float(np.median(sample[foreground(sample)]))
