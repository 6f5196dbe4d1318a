"""What a promised PSNR or SSIM would take, told from a few parts of a volume coded as videos."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.unicompress import video
from MedEnhanceLib.unicompress.activity import activity_of
from MedEnhanceLib.unicompress.blocks import video_grid
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.decode import decode_data
from MedEnhanceLib.unicompress.quality import Quality, first_step
from MedEnhanceLib.unicompress.seek import seek
from MedEnhanceLib.unicompress.trial import at_step
from MedEnhanceLib.unicompress.videoencoders import LIBAOM, Encoder
from MedEnhanceLib.unicompress.videorate import ERROR_SLOPE, SIZE_SLOPE, code_one

#: Runs of whole slices, and voxels of all together, about; a video needs some length to pay.
_RUNS, _LEAST_SLICES = 2, 24
_VOXELS = 3 << 20
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
    check: Callable[[], None],
) -> Sampled | None:
    """Code a few parts until they keep the quality; None where a video cannot.

    Bytes and errors are carried over by how much there is to code.
    check: is called between codings, to stop.
    """
    sample = _Sample.of(voxels, first_step(quality), context)
    if sample is None:
        return None
    tried: dict[float, _Coded] = {}
    measured: dict[float, float] = {}

    def measure(setting: float) -> float:
        tried[setting] = coded = sample.code(setting, quality, context, check)
        lost = coded.squared / voxels.size / quality.peak**2
        if quality.ssim is not None:
            lost = min(1.0, coded.unlike / voxels.size)
        measured[setting] = math.log2(max(lost, 1e-30))
        return measured[setting]

    chosen = seek(
        measure,
        math.log2(first_step(quality)),
        math.log2(quality.limit),
        slope=ERROR_SLOPE,
        tolerance=_TOLERANCE,
        most=_TRIES,
    )
    if chosen is None:
        return None
    # What the last try is better than is wanted is saved in the end.
    spared = (math.log2(quality.limit) - measured[chosen]) / ERROR_SLOPE * SIZE_SLOPE
    told = sample.told(tried[chosen], quality.peak, voxels.size)
    return replace(told, bytes=told.bytes * 2.0**spared)


def sample_size(
    voxels: Voxels,
    budget: float,
    start: float,
    peak: float,
    context: DecodeContext,
    check: Callable[[], None],
) -> Sampled | None:
    """As `sample_quality`, until the whole takes `budget` bytes. start: a step to begin with."""
    sample = _Sample.of(voxels, start, context)
    if sample is None or budget < 1:
        return None
    told = _of_size(sample, budget, start, peak, context, check)
    finest = sample.encoder.finest
    if told and told.psnr and finest and told.psnr > -20 * math.log10(finest):
        sample = replace(sample, encoder=LIBAOM)
        told = _of_size(sample, budget, start, peak, context, check)
    return told


def _of_size(
    sample: _Sample,
    budget: float,
    start: float,
    peak: float,
    context: DecodeContext,
    check: Callable[[], None],
) -> Sampled | None:
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
    return None if chosen is None else sample.told(tried[chosen], peak, sample.voxels.size)


@dataclass(frozen=True)
class _Coded:
    """About what the whole takes and loses: bytes, squared errors, 1 − SSIM, summed."""

    bytes: float
    squared: float
    unlike: float
    max_error: float


@dataclass(frozen=True)
class _Sample:
    """Parts of a volume. encoder: of the videos that they are coded as."""

    voxels: Voxels
    parts: list[Voxels]
    encoder: Encoder

    @classmethod
    def of(cls, voxels: Voxels, step: float, context: DecodeContext) -> _Sample | None:
        parts = [part for part in _parts(voxels) if video.fits(part)]
        return cls(voxels, parts, at_step(voxels, step, context).encoder) if parts else None

    def share(self, step: float) -> float:
        """What the parts have of all that there is to code in steps of that size."""
        even = sum(part.size for part in self.parts) / self.voxels.size
        if even >= 1:
            return 1.0
        active = sum(activity_of(part, step) for part in self.parts)
        total = activity_of(self.voxels, step)
        return max(active / total if total else even, even / 50)

    def code(
        self, setting: float, quality: Quality, context: DecodeContext, check: Callable[[], None]
    ) -> _Coded:
        """All parts in steps of 2 ** setting."""
        taken, squared, largest, unlike = 0, 0.0, 0.0, 0.0
        share = self.share(2.0**setting)
        for part in self.parts:
            check()
            kind, data = code_one(part, 2.0**setting, "fast", self.encoder)
            decoded = decode_data(kind, data, part.shape, context)
            taken += len(data)
            squared += video.error_of(part, decoded)
            difference = np.abs(np.subtract(decoded, part, dtype=np.float64))
            largest = max(largest, float(difference.max()))
            if quality.ssim is not None:
                similar = metrics.ssim(part, decoded, quality.peak, volumetric=True)
                unlike += (1 - similar) * part.size
        return _Coded(taken / share, squared / share, unlike / share, largest)

    def told(self, coded: _Coded, peak: float, size: int) -> Sampled:
        """What a coding says of the whole, of `size` voxels."""
        psnr = 10 * math.log10(peak**2 * size / coded.squared) if coded.squared else None
        voxels = sum(part.size for part in self.parts)
        return Sampled(voxels, len(self.parts), coded.bytes, psnr, coded.max_error)


def _parts(voxels: Voxels) -> list[Voxels]:
    """Runs of slices, or tiles of them, of blocks spread over the volume; all where it is small."""
    grid = video_grid(voxels.shape)
    numbers = sorted({len(grid) // 3, len(grid) * 2 // 3})
    blocks = [grid.box(number).of(voxels) for number in numbers]
    slices = max(_LEAST_SLICES, _VOXELS // _RUNS // blocks[0][0].size)
    if _RUNS * slices * blocks[0][0].size * 1.5 > voxels.size:
        return [grid.box(number).of(voxels) for number in range(len(grid))]
    places = [1 / 3, 2 / 3] if len(blocks) == 1 else [0.5]
    return [_run(block, place, slices) for block in blocks for place in places]


def _run(block: Voxels, place: float, slices: int) -> Voxels:
    start = int(max(0, len(block) - slices) * place)
    return block[start : start + slices]
