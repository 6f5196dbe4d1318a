"""Codes a volume into the smallest file found with at least a PSNR or SSIM, and estimates it.

PSNR is against the full range, largest less smallest voxel. SSIM is that of metrics.ssim:
a Gaussian window of 11 voxels with σ 1.5 along all three axes, K₁ 0.01, K₂ 0.03, the full range
as its peak, without the outermost 5 voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.unicompress.allocation.near_lossless import code_bounded, estimate_bytes
from MedEnhanceLib.unicompress.allocation.rate import activity_of, seek
from MedEnhanceLib.unicompress.allocation.ratio import at_step, payload_of
from MedEnhanceLib.unicompress.allocation.task import Payload, Room, Task
from MedEnhanceLib.unicompress.allocation.videos import (
    ERROR_SLOPE,
    SIZE_SLOPE,
    VideoTask,
    code_one,
    to_error,
)
from MedEnhanceLib.unicompress.allocation.wavelets import code_wavelets
from MedEnhanceLib.unicompress.blocks import video_grid
from MedEnhanceLib.unicompress.codecs.video import video
from MedEnhanceLib.unicompress.codecs.video.av1 import LIBAOM, Encoder
from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhanceLib.unicompress.decode import decode_data
from MedEnhanceLib.unicompress.models import DecodeContext

#: Along each axis, for the window of SSIM to fit.
LEAST_EXTENT = 11
#: SSIM says nothing of where to begin: as if this PSNR were asked for.
_USUAL_PSNR = 42.0
#: The step of a quantizer whose error is one: between a uniform one's √12 and what deadzones take.
_STEP_OF_ERROR = 3.0
_NEAR_DB = 0.5
#: Octaves of error for an octave of bytes, of a wavelet.
_BYTES_SLOPE = -1.2
_WAVELET_TRIES = 5
#: Whole numbers with so small a mean square error are nearly all as they were.
_NEXT_TO_NOTHING = 0.05
#: What the learned predictor takes of the estimate of a code without loss, at least.
_LEARNED_TAKES = 0.75
_TOLERANCE = math.log2(1.02)
#: Runs of whole slices, and voxels of all together, about; a video needs some length to pay.
_RUNS, _LEAST_SLICES = 2, 24
_VOXELS = 3 << 20
_SAMPLE_TRIES, _SAMPLE_TOLERANCE = 3, math.log2(1.1)


@dataclass(frozen=True)
class Quality:
    """The target, as an error that no file may be above: of psnr or ssim one is given."""

    psnr: float | None
    ssim: float | None
    peak: float

    @property
    def limit(self) -> float:
        """The largest error: mean square as a share of the peak's, or 1 − SSIM."""
        return 10 ** (-self.psnr / 10) if self.psnr is not None else 1 - float(self.ssim or 0)

    @property
    def squared(self) -> float:
        """The largest mean square error of a PSNR, in stored units."""
        return self.limit * self.peak**2

    def error_of(self, source: Voxels, decoded: Voxels) -> float:
        """Of a whole volume."""
        if self.ssim is not None:
            return 1 - ssim_of(source, decoded, self.peak)
        frames = zip(source.reshape(-1, *source.shape[-2:]), decoded.reshape(-1, *source.shape[-2:]), strict=True)  # fmt: skip  # noqa: E501
        squared = sum(video.error_of(one[None], other[None]) for one, other in frames)
        return squared / (source.size * self.peak**2)


def ssim_of(source: Voxels, decoded: Voxels, peak: float) -> float:
    """In 3D, the mean over all frames."""
    frames = zip(source, decoded, strict=True) if source.ndim == 4 else ((source, decoded),)
    return float(
        np.mean([metrics.ssim(one, other, peak, volumetric=True) for one, other in frames])
    )


def check_quality(voxels: Voxels, config: CompressConfig, name: str) -> None:
    """Raise InputError where a volume is too small for the window of SSIM."""
    if config.ssim is not None and min(voxels.shape[-3:]) < LEAST_EXTENT:
        raise InputError(
            f"{name} has {' × '.join(map(str, voxels.shape[-3:]))} voxels: too few for SSIM, "
            f"whose window needs {LEAST_EXTENT} along each axis",
            "Choose a psnr instead.",
        )


def code_to_quality(task: Task, quality: Quality) -> Payload:
    """Videos or wavelets, coarser and finer until the quality is just kept; lossless if smaller."""
    voxels = task.voxels
    codable = 0 < quality.peak < math.inf and np.isfinite(voxels).all()
    is_whole = voxels.dtype.kind in "iu"
    if not codable or (is_whole and quality.psnr and quality.squared < _NEXT_TO_NOTHING):
        return code_bounded(task, None)
    step = first_step(quality)
    tried = at_step(voxels, step, task.speed, task.context)
    both = tried.wins < _NEAR_DB
    found: list[Payload] = []
    if tried.wins > -_NEAR_DB:
        part = task.part(0.0, 0.4 if both else 0.85)
        grid = task.cut(video_grid(voxels.shape))
        videos = VideoTask(**vars(part), grid=grid, encoder=tried.encoder, wavelet_too=both)
        chunks = to_error(videos, quality.limit, step, partial(quality.error_of, voxels))
        if chunks:
            proved = task.part(*((0.4, 0.5) if both else (0.85, 0.9)))
            found.append(payload_of(videos, chunks, proved.tally(grid, chunks)))
    if both or not found:
        found += _as_wavelets(task, quality)
    smallest = min(found, key=lambda one: one.bytes, default=None)
    estimate = estimate_bytes(task)
    if smallest is not None and estimate * _LEARNED_TAKES > smallest.bytes:
        return smallest
    return min([*found, code_bounded(task, None)], key=lambda one: one.bytes)


def first_step(quality: Quality) -> float:
    """A quantizer's step to begin with, in stored units."""
    return _STEP_OF_ERROR * quality.peak * 10 ** (-(quality.psnr or _USUAL_PSNR) / 20)


def _as_wavelets(task: Task, quality: Quality) -> list[Payload]:
    voxels = task.voxels
    tried: dict[float, Payload] = {}

    def measure(setting: float) -> float:
        room = Room(1.0, max(int(2.0**setting), 1), 0, 0)
        try:
            payload = code_wavelets(task.part(0.5, 0.9), room)
        except ConfigError:  # too few bytes for any code
            return math.inf
        tried[setting] = payload
        blocks = task.decoded(payload.grid, payload.chunks)
        decoded = payload.grid.joined(blocks, voxels.dtype)
        return math.log2(max(quality.error_of(voxels, decoded), 1e-300))

    chosen = seek(
        measure,
        math.log2(voxels.nbytes / 16),
        math.log2(quality.limit),
        slope=_BYTES_SLOPE,
        tolerance=_TOLERANCE,
        most=_WAVELET_TRIES,
    )
    return [] if chosen is None or chosen not in tried else [tried[chosen]]


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
        tolerance=_SAMPLE_TOLERANCE,
        most=_SAMPLE_TRIES,
    )
    if chosen is None:
        return None
    # What the last try is better than is wanted is saved in the end.
    spared = (math.log2(quality.limit) - measured[chosen]) / ERROR_SLOPE * SIZE_SLOPE
    sampled = sample.of_whole(tried[chosen], quality.peak, voxels.size)
    return replace(sampled, bytes=sampled.bytes * 2.0**spared)


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
    sampled = _of_size(sample, budget, start, peak, context, check)
    finest = sample.encoder.finest
    if sampled and sampled.psnr and finest and sampled.psnr > -20 * math.log10(finest):
        sample = replace(sample, encoder=LIBAOM)
        sampled = _of_size(sample, budget, start, peak, context, check)
    return sampled


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
        tolerance=_SAMPLE_TOLERANCE,
        most=_SAMPLE_TRIES,
    )
    return None if chosen is None else sample.of_whole(tried[chosen], peak, sample.voxels.size)


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
        return cls(voxels, parts, at_step(voxels, step, "fast", context).encoder) if parts else None

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

    def of_whole(self, coded: _Coded, peak: float, size: int) -> Sampled:
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
