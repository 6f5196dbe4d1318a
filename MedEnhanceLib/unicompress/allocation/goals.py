"""Goals of a search over the quantizer step of videos: bytes, or a PSNR.

The search approaches a goal's limit from below. The value of a coding is log2 of its bytes or of
its error: both are nearly linear in log2 of the step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.unicompress.codecs.video import video, wiener

# Starts of searches, chosen by hand. Measured as a whole by Benchmarks/compression.py.
#: Quantizer step for an RMS error of one: less than √12 of a uniform quantizer, due to dead zones.
_STEP_OF_ERROR = 3.0
#: PSNR, in dB, whose step an estimate for a ratio takes.
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
    """A PSNR that is just kept, with the largest filters.

    Attributes:
        psnr: in dB.
        peak: the full range, which the PSNR is measured against.
        slope: what an octave of the step changes the error by, in octaves.
    """

    psnr: float
    peak: float
    slope: ClassVar[float] = 1.2

    @property
    def step(self) -> float:
        """Quantizer step to begin with, in stored units."""
        return first_step(self.peak, self.psnr)

    @property
    def largest_error(self) -> float:
        """Mean square over that of the peak that keeps the PSNR."""
        return float(10 ** (-self.psnr / 10))

    @property
    def limit(self) -> float:
        """Largest error, in octaves."""
        return math.log2(self.largest_error)

    def value(self, voxels: Voxels, decoded: Voxels) -> float:
        """Return log2 of the error of what a reader gets; it is to end just below `limit`."""
        error = 10 ** (-metrics.psnr(voxels, decoded, self.peak) / 10)
        return math.log2(max(error, 1e-300))

    def for_part(self, size: int, whole: int) -> QualityGoal:
        """Make the goal of a part: the same PSNR."""
        return self

    def filter_bytes(self, taken: int, videos: int) -> int:
        """Allow the largest filters."""
        return wiener.MOST_BYTES


Goal: TypeAlias = BytesGoal | QualityGoal
