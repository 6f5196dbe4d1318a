"""Goals of a search over the quantizer step of videos: bytes, a PSNR, or an SSIM.

The search approaches a goal's limit from below. The value of a coding is log2 of its bytes or of
its error: both are nearly linear in log2 of the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.unicompress.codecs.video import video, wiener

# Starts of searches, chosen by hand. Measured as a whole by Benchmarks/compression.py.
#: Quantizer step for an RMS error of one: less than √12 of a uniform quantizer, due to dead zones.
_STEP_OF_ERROR = 3.0
#: PSNR, in dB, whose step a search for a ratio or an SSIM begins with.
_USUAL_PSNR = 42.0


def first_step(peak: float, psnr: float | None = None) -> float:
    """Compute the quantizer step, in stored units, for about this PSNR, in dB; None: 42 dB."""
    return _STEP_OF_ERROR * peak * 10 ** (-(psnr or _USUAL_PSNR) / 20)


@dataclass(frozen=True)
class BytesGoal:
    """Bytes that all videos may take.

    Attributes:
        bytes: of the streams.
        free: beside them, for filters.
        slope: what an octave of the step changes the value by, in octaves.
    """

    bytes: int
    free: int = 0
    slope: float = -1.25

    @property
    def limit(self) -> float:
        """Largest value, in octaves."""
        return math.log2(self.bytes)

    def value(self, taken: int) -> float:
        """Return log2 of the bytes of streams without filters; it is to end just below `limit`."""
        return math.log2(max(1, taken))

    def for_part(self, size: int, whole: int) -> BytesGoal:
        """Make the goal of a part that has `size` of `whole` voxels."""
        return replace(self, bytes=max(self.bytes * size // whole, 2 * video.HEAD.size))

    def filter_bytes(self, taken: int, videos: int) -> int:
        """Compute the most bytes of each video's filter, if all streams took `taken` bytes."""
        return (self.bytes + self.free - taken) // videos


@dataclass(frozen=True)
class QualityGoal:
    """A PSNR or an SSIM that is just kept, with the largest filters.

    Attributes:
        peak: the full range, which the quality is measured against.
        error: measures what is above 0 where voxels and decoded voxels differ: for a PSNR the mean
            square over that of the peak, for an SSIM 1 − SSIM.
        largest_error: that keeps the quality.
        step: of the quantizer to begin with, in stored units.
        is_psnr: so that a part can be held to it, too: the window of SSIM may not fit in one.
        slope: what an octave of the step changes the error by, in octaves.
    """

    peak: float
    error: Callable[[Voxels, Voxels], float]
    largest_error: float
    step: float
    is_psnr: bool
    slope: ClassVar[float] = 1.2

    @property
    def limit(self) -> float:
        """Largest error, in octaves."""
        return math.log2(self.largest_error)

    def value(self, voxels: Voxels, decoded: Voxels) -> float:
        """Return log2 of the error of what a reader gets; it is to end just below `limit`."""
        return math.log2(max(self.error(voxels, decoded), 1e-300))

    def for_part(self, size: int, whole: int) -> Goal:
        """Make the goal of a part: the same PSNR; for an SSIM, bytes, to compare codings."""
        return self if self.is_psnr else BytesGoal(2 * video.HEAD.size)

    def filter_bytes(self, taken: int, videos: int) -> int:
        """Allow the largest filters."""
        return wiener.MOST_BYTES


Goal: TypeAlias = BytesGoal | QualityGoal


def quality_goal(psnr: float | None, ssim: float | None, peak: float) -> QualityGoal:
    """Make the goal for a PSNR or an SSIM.

    Args:
        psnr: in dB; None for a goal in SSIM.
        ssim: below 1; counts where `psnr` is None.
        peak: largest less smallest voxel.
    """

    def mean_square(voxels: Voxels, decoded: Voxels) -> float:
        return float(10 ** (-metrics.psnr(voxels, decoded, peak) / 10))

    def dissimilarity(voxels: Voxels, decoded: Voxels) -> float:
        return float(1 - metrics.ssim(voxels, decoded, peak, volumetric=True))

    step = first_step(peak, psnr)
    if psnr is not None:
        return QualityGoal(peak, mean_square, 10 ** (-psnr / 10), step, is_psnr=True)
    return QualityGoal(peak, dissimilarity, 1 - float(ssim or 0), step, is_psnr=False)
