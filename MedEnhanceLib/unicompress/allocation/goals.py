"""Goals that a search over the step of videos nears from below: bytes, a PSNR, or an SSIM.

What a coding comes to is its bytes or its error, in octaves: both are nearly straight lines over
the logarithm of the step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.unicompress.codecs.video import video, wiener

#: The step of a quantizer whose error is one: between a uniform one's √12 and what deadzones take.
_STEP_OF_ERROR = 3.0
#: Ratio and SSIM say nothing of where to begin: as if this PSNR were asked for.
_USUAL_PSNR = 42.0


def first_step(peak: float, psnr: float = _USUAL_PSNR) -> float:
    """Compute the step of a quantizer, in stored units, whose PSNR is about the requested one."""
    return _STEP_OF_ERROR * peak * 10 ** (-psnr / 20)


class Goal(ABC):
    """A limit for the value of a coding."""

    #: What an octave of the step changes the value by, in octaves.
    slope: ClassVar[float]

    @property
    @abstractmethod
    def limit(self) -> float:
        """Largest value that is allowed, in octaves."""

    @abstractmethod
    def value(self, taken: int, voxels: Voxels, decoded: Callable[[], Voxels]) -> float:
        """Compute the value of a coding, in octaves.

        Args:
            taken: bytes of its streams without filters.
            voxels: that were coded.
            decoded: returns what a reader makes of the streams with the largest filters.
        """

    @abstractmethod
    def for_part(self, size: int, whole: int) -> Goal:
        """Make the goal of a part that has `size` of `whole` voxels."""

    @abstractmethod
    def filter_bytes(self, taken: int, videos: int) -> int:
        """Compute the most bytes of each video's filters, where all streams took `taken`."""


@dataclass(frozen=True)
class BytesGoal(Goal):
    """Bytes that all videos may take.

    Attributes:
        bytes: of the streams.
        free: beside them, for filters.
    """

    bytes: int
    free: int = 0
    slope: ClassVar[float] = -1.25

    @property
    def limit(self) -> float:
        """Bytes of the streams, in octaves."""
        return math.log2(self.bytes)

    def value(self, taken: int, voxels: Voxels, decoded: Callable[[], Voxels]) -> float:
        """Return the bytes of the streams, in octaves."""
        return math.log2(max(1, taken))

    def for_part(self, size: int, whole: int) -> BytesGoal:
        """Give a part its share of the streams' bytes."""
        return BytesGoal(max(self.bytes * size // whole, 2 * video.HEAD.size))

    def filter_bytes(self, taken: int, videos: int) -> int:
        """Share out what the streams leave."""
        return (self.bytes + self.free - taken) // videos


@dataclass(frozen=True)
class QualityGoal(Goal):
    """A quality that is just kept.

    Attributes:
        peak: the full range, which the quality is measured against.
    """

    peak: float
    slope: ClassVar[float] = 1.2

    @property
    @abstractmethod
    def largest_error(self) -> float:
        """Largest error that keeps the quality."""

    @property
    @abstractmethod
    def step(self) -> float:
        """Step of the quantizer to begin with, in stored units."""

    @abstractmethod
    def error(self, voxels: Voxels, decoded: Voxels) -> float:
        """Measure the error of what a reader gets."""

    @property
    def limit(self) -> float:
        """Largest error, in octaves."""
        return math.log2(self.largest_error)

    def value(self, taken: int, voxels: Voxels, decoded: Callable[[], Voxels]) -> float:
        """Measure the error that filters leave, in octaves."""
        return math.log2(max(self.error(voxels, decoded()), 1e-300))

    def filter_bytes(self, taken: int, videos: int) -> int:
        """Allow the largest filters."""
        return wiener.MOST_BYTES


@dataclass(frozen=True)
class PsnrGoal(QualityGoal):
    """A PSNR in dB; its error is the mean square, as a share of the squared peak."""

    psnr: float

    @property
    def largest_error(self) -> float:
        """Mean square error of the PSNR."""
        return 10 ** (-self.psnr / 10)

    @property
    def step(self) -> float:
        """Step whose PSNR is about the requested one."""
        return first_step(self.peak, self.psnr)

    def error(self, voxels: Voxels, decoded: Voxels) -> float:
        """Measure the mean square error."""
        return float(10 ** (-metrics.psnr(voxels, decoded, self.peak) / 10))

    def for_part(self, size: int, whole: int) -> PsnrGoal:
        """Keep the PSNR."""
        return self


@dataclass(frozen=True)
class SsimGoal(QualityGoal):
    """An SSIM in 3D; its error is 1 − SSIM."""

    ssim: float

    @property
    def largest_error(self) -> float:
        """Distance of the SSIM to 1."""
        return 1 - self.ssim

    @property
    def step(self) -> float:
        """Step of a usual quality."""
        return first_step(self.peak)

    def error(self, voxels: Voxels, decoded: Voxels) -> float:
        """Measure 1 − SSIM."""
        return float(1 - metrics.ssim(voxels, decoded, self.peak, volumetric=True))

    def for_part(self, size: int, whole: int) -> BytesGoal:
        """Compare bytes: the window of SSIM may not fit in a part."""
        return BytesGoal(2 * video.HEAD.size)


def quality_goal(psnr: float | None, ssim: float | None, peak: float) -> QualityGoal:
    """Make the goal of the quality that is given; exactly one of them is."""
    return SsimGoal(peak, float(ssim or 0)) if psnr is None else PsnrGoal(peak, psnr)
