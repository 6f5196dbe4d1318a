"""Goals that a search over the step of videos nears from below: bytes, a PSNR, or an SSIM.

What a coding comes to is its bytes or its error, in octaves: both are nearly straight lines over
the logarithm of the step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.unicompress.codecs.video import video, wiener

#: The step of a quantizer whose error is one: between a uniform one's √12 and what deadzones take.
_STEP_OF_ERROR = 3.0
#: Ratio and SSIM say nothing of where to begin: as if this PSNR were asked for.
_USUAL_PSNR = 42.0


def first_step(peak: float, psnr: float | None = None) -> float:
    """Compute the step of a quantizer, in stored units, of about this PSNR; None: a usual one."""
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
    slope: ClassVar[float] = -1.25

    @property
    def limit(self) -> float:
        """Largest value, in octaves."""
        return math.log2(self.bytes)

    def value(self, taken: int, voxels: Voxels, decode: Callable[[], Voxels]) -> float:
        """Compute the value of a coding, in octaves.

        Args:
            taken: bytes of its streams without filters.
            voxels: that were coded.
            decode: returns what a reader makes of the streams with the largest filters.
        """
        return math.log2(max(1, taken))

    def for_part(self, size: int, whole: int) -> BytesGoal:
        """Make the goal of a part that has `size` of `whole` voxels."""
        return BytesGoal(max(self.bytes * size // whole, 2 * video.HEAD.size))

    def filter_bytes(self, taken: int, videos: int) -> int:
        """Compute the most bytes of each video's filters, where all streams took `taken`."""
        return (self.bytes + self.free - taken) // videos


@dataclass(frozen=True)
class QualityGoal(ABC):
    """A quality that is just kept; its methods are those of `BytesGoal`.

    Attributes:
        target: the quality.
        peak: the full range, which it is measured against.
        slope: what an octave of the step changes the error by, in octaves.
    """

    target: float
    peak: float
    slope: ClassVar[float] = 1.2

    @property
    @abstractmethod
    def largest_error(self) -> float:
        """Largest error that keeps the quality."""

    @abstractmethod
    def error(self, voxels: Voxels, decoded: Voxels) -> float:
        """Measure the error of what a reader gets."""

    @property
    def step(self) -> float:
        """Step of the quantizer to begin with, in stored units."""
        return first_step(self.peak)

    @property
    def limit(self) -> float:
        """Largest error, in octaves."""
        return math.log2(self.largest_error)

    def value(self, taken: int, voxels: Voxels, decode: Callable[[], Voxels]) -> float:
        """Measure the error that filters leave, in octaves.

        Args:
            taken: bytes, which do not count.
            voxels: that were coded.
            decode: returns what a reader makes of the streams with the largest filters.
        """
        return math.log2(max(self.error(voxels, decode()), 1e-300))

    def for_part(self, size: int, whole: int) -> Goal:
        """Compare bytes of a part: the window of SSIM may not fit in it."""
        return BytesGoal(2 * video.HEAD.size)

    def filter_bytes(self, taken: int, videos: int) -> int:
        """Allow the largest filters."""
        return wiener.MOST_BYTES


class SsimGoal(QualityGoal):
    """An SSIM in 3D; its error is 1 − SSIM."""

    @property
    def largest_error(self) -> float:
        """Distance of the SSIM to 1."""
        return 1 - self.target

    def error(self, voxels: Voxels, decoded: Voxels) -> float:
        """Measure 1 − SSIM."""
        return float(1 - metrics.ssim(voxels, decoded, self.peak, volumetric=True))


class PsnrGoal(QualityGoal):
    """A PSNR in dB; its error is the mean square, as a share of the squared peak."""

    @property
    def largest_error(self) -> float:
        """Mean square error of the PSNR."""
        return 10 ** (-self.target / 10)

    @property
    def step(self) -> float:
        """Step whose PSNR is about the requested one."""
        return first_step(self.peak, self.target)

    def error(self, voxels: Voxels, decoded: Voxels) -> float:
        """Measure the mean square error."""
        return float(10 ** (-metrics.psnr(voxels, decoded, self.peak) / 10))

    def for_part(self, size: int, whole: int) -> Goal:
        """Keep the PSNR."""
        return self


Goal: TypeAlias = BytesGoal | QualityGoal


def quality_goal(psnr: float | None, ssim: float | None, peak: float) -> QualityGoal:
    """Make the goal of the quality that is given.

    Args:
        psnr: in dB; None for a goal in SSIM.
        ssim: below 1; counts where `psnr` is None.
        peak: largest less smallest voxel.
    """
    return PsnrGoal(psnr, peak) if psnr is not None else SsimGoal(float(ssim or 0), peak)
