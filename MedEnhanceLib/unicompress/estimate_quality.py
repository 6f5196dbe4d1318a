"""What a promised PSNR or SSIM would take, told from a few parts of a volume coded as videos."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from MedEnhanceLib import metrics
from MedEnhanceLib.unicompress import video
from MedEnhanceLib.unicompress.blocks import video_grid
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.decode import decode_data
from MedEnhanceLib.unicompress.quality import LEAST_EXTENT, Quality, first_step
from MedEnhanceLib.unicompress.seek import seek
from MedEnhanceLib.unicompress.videorate import ERROR_SLOPE, SIZE_SLOPE, code_one
from MedEnhanceLib.volume import Voxels

_PARTS = 3
_SIDE, _SLICES = 128, 32
_TRIES, _TOLERANCE = 3, math.log2(1.1)


@dataclass(frozen=True)
class Sampled:
    """voxels, parts: that were coded; bytes, psnr, max_error: about those of the whole."""

    voxels: int
    parts: int
    bytes: float
    psnr: float | None
    max_error: float


def sample_quality(
    voxels: Voxels,
    quality: Quality,
    context: DecodeContext,
    activity: Callable[[Voxels], float],
    check: Callable[[], None],
) -> Sampled | None:
    """Code a few parts until they keep the quality; None where a video cannot.

    activity: how much there is to code in a volume; bytes and errors are carried over by it.
    check: is called between codings, to stop.
    """
    sample = _Sample.of(voxels, activity)
    if sample is None:
        return None
    tried: dict[float, _Coded] = {}

    def measure(setting: float) -> float:
        tried[setting] = coded = sample.code(setting, quality, context, check)
        lost = coded.squared / voxels.size / quality.peak**2
        if quality.ssim is not None:
            lost = min(1.0, coded.unlike / voxels.size)
        return math.log2(max(lost, 1e-30))

    chosen = seek(
        measure,
        math.log2(first_step(quality)),
        math.log2(quality.limit),
        slope=ERROR_SLOPE,
        tolerance=_TOLERANCE,
        most=_TRIES,
    )
    return None if chosen is None else sample.told(tried[chosen], quality.peak, voxels.size)


def sample_size(
    voxels: Voxels,
    budget: float,
    start: float,
    peak: float,
    context: DecodeContext,
    activity: Callable[[Voxels], float],
    check: Callable[[], None],
) -> Sampled | None:
    """As `sample_quality`, until the whole takes `budget` bytes. start: a step to begin with."""
    sample = _Sample.of(voxels, activity)
    if sample is None or budget < 1:
        return None
    tried: dict[float, _Coded] = {}

    def measure(setting: float) -> float:
        tried[setting] = coded = sample.code(setting, Quality(None, None, peak), context, check)
        return math.log2(max(coded.bytes, 1))

    chosen = seek(
        measure,
        math.log2(start),
        math.log2(budget),
        slope=SIZE_SLOPE,
        tolerance=_TOLERANCE,
        most=_TRIES,
    )
    return None if chosen is None else sample.told(tried[chosen], peak, voxels.size)


@dataclass(frozen=True)
class _Coded:
    """About what the whole takes and loses: bytes, squared errors, 1 − SSIM, summed."""

    bytes: float
    squared: float
    unlike: float
    max_error: float


@dataclass(frozen=True)
class _Sample:
    """Parts of a volume, and the share that they have of all that there is to code."""

    parts: list[Voxels]
    share: float

    @classmethod
    def of(cls, voxels: Voxels, activity: Callable[[Voxels], float]) -> _Sample | None:
        parts = [part for part in _parts(voxels) if video.fits(part)]
        if not parts:
            return None
        size = sum(part.size for part in parts)
        active = sum(activity(part) for part in parts)
        share = active / max(activity(voxels), 1e-9) if active else size / voxels.size
        return cls(parts, max(share, size / voxels.size / 50))

    def code(
        self, setting: float, quality: Quality, context: DecodeContext, check: Callable[[], None]
    ) -> _Coded:
        """All parts in steps of 2 ** setting."""
        taken, squared, largest, unlike = 0, 0.0, 0.0, 0.0
        for part in self.parts:
            check()
            kind, data = code_one(part, 2.0**setting, "fast")
            decoded = decode_data(kind, data, part.shape, context)
            taken += len(data)
            squared += video.error_of(part, decoded)
            difference = np.abs(np.subtract(decoded, part, dtype=np.float64))
            largest = max(largest, float(difference.max()))
            if quality.ssim is not None:
                similar = metrics.ssim(part, decoded, quality.peak, volumetric=True)
                unlike += (1 - similar) * part.size
        return _Coded(taken / self.share, squared / self.share, unlike / self.share, largest)

    def told(self, coded: _Coded, peak: float, size: int) -> Sampled:
        """What a coding says of the whole, of `size` voxels."""
        psnr = 10 * math.log10(peak**2 * size / coded.squared) if coded.squared else None
        voxels = sum(part.size for part in self.parts)
        return Sampled(voxels, len(self.parts), coded.bytes, psnr, coded.max_error)


def _parts(voxels: Voxels) -> list[Voxels]:
    """Of blocks spread over the volume; the whole where that is small."""
    grid = video_grid(voxels.shape)
    if voxels.size <= _PARTS * _SLICES * _SIDE * _SIDE:
        return [grid.box(number).of(voxels) for number in range(len(grid))]
    numbers = {round(turn * (len(grid) - 1) / (_PARTS - 1)) for turn in range(_PARTS)}
    chosen = [grid.box(number).of(voxels) for number in sorted(numbers)]
    places = [0.25, 0.5, 0.75] if len(chosen) == 1 else [0.5]
    return [_cut(block, place) for block in chosen for place in places]


def _cut(block: Voxels, place: float) -> Voxels:
    sides = (max(_SLICES, LEAST_EXTENT), _SIDE, _SIDE)
    starts = [
        int((extent - side) * where) if extent > side else 0
        for extent, side, where in zip(block.shape, sides, (place, 0.5, 0.5), strict=True)
    ]
    return block[
        tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    ]
