"""Codes a volume into the smallest file found that keeps a promised quality: PSNR or SSIM.

PSNR is told against the full range, largest less smallest voxel. SSIM is that of metrics.ssim:
a Gaussian window of 11 voxels with σ 1.5 along all three axes, K₁ 0.01, K₂ 0.03, the full range
as its peak, without the outermost 5 voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import video
from MedEnhanceLib.unicompress.blocks import video_grid
from MedEnhanceLib.unicompress.bounded import Payload, code_bounded, estimate_bytes
from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhanceLib.unicompress.container import Chunk
from MedEnhanceLib.unicompress.context import DecodeContext
from MedEnhanceLib.unicompress.decode import decode_data
from MedEnhanceLib.unicompress.learned import Predictor
from MedEnhanceLib.unicompress.ratio import Room, code_wavelets, payload_of
from MedEnhanceLib.unicompress.seek import seek
from MedEnhanceLib.unicompress.spool import Keep
from MedEnhanceLib.unicompress.trial import at_step
from MedEnhanceLib.unicompress.videorate import Job, to_error

#: Along each axis, for the window of SSIM to fit.
LEAST_EXTENT = 11
#: SSIM says nothing of where to begin: as if this PSNR were asked for.
_USUAL_PSNR = 42.0
#: The step of a quantiser whose error is one: between a uniform one's √12 and what deadzones take.
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


@dataclass(frozen=True)
class Quality:
    """What is promised, as an error that no file may be above: of psnr or ssim one is given."""

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
    """Raise ConfigError where a volume is too small for the window of SSIM."""
    if config.ssim is not None and min(voxels.shape[-3:]) < LEAST_EXTENT:
        raise ConfigError(
            f"{name} has {' × '.join(map(str, voxels.shape[-3:]))} voxels: too few for SSIM, "
            f"whose window needs {LEAST_EXTENT} along each axis",
            "Promise a psnr instead.",
        )


def code_to_quality(
    voxels: Voxels,
    quality: Quality,
    context: DecodeContext,
    config: CompressConfig,
    *,
    threads: int,
    monitor: Monitor,
    keep: Keep,
    predictors: Sequence[Predictor] = (),
) -> Payload:
    """Videos or wavelets, coarser and finer until the quality is just kept; lossless if smaller."""
    without_loss = partial(
        code_bounded, voxels, None, speed=config.speed, threads=threads, monitor=monitor, keep=keep,
        predictors=predictors,
    )  # fmt: skip
    codable = 0 < quality.peak < math.inf and np.isfinite(voxels).all()
    is_whole = voxels.dtype.kind in "iu"
    if not codable or (is_whole and quality.psnr and quality.squared < _NEXT_TO_NOTHING):
        return without_loss()
    step = first_step(quality)
    tried = at_step(voxels, step, context)
    found: list[Payload] = []
    wins = tried.wins
    if wins > -_NEAR_DB:
        job = Job(
            voxels, video_grid(voxels.shape), context, config.speed, threads, keep,
            monitor.part(0.0, 0.5 if wins < _NEAR_DB else 0.9), wins < _NEAR_DB, tried.encoder,
        )  # fmt: skip
        found += _as_videos(job, quality, step)
    if wins < _NEAR_DB or not found:
        found += _as_wavelets(
            voxels, quality, context, config, threads=threads, monitor=monitor, keep=keep
        )
    smallest = min(found, key=lambda one: one.bytes, default=None)
    estimate = estimate_bytes(voxels, threads=threads, monitor=monitor)
    if smallest is not None and estimate * _LEARNED_TAKES > smallest.bytes:
        return smallest
    return min([*found, without_loss()], key=lambda one: one.bytes)


def first_step(quality: Quality) -> float:
    """A quantiser's step to begin with, in stored units."""
    return _STEP_OF_ERROR * quality.peak * 10 ** (-(quality.psnr or _USUAL_PSNR) / 20)


def _as_videos(job: Job, quality: Quality, step: float) -> list[Payload]:
    chunks = to_error(job, quality.limit, step, partial(quality.error_of, job.voxels))
    return [payload_of(job, chunks, True, job.monitor)] if chunks else []


def _decoded(job: Job, chunks: list[Chunk]) -> Voxels:
    boxes = (job.grid.box(chunk.block) for chunk in chunks)
    blocks = (
        decode_data(chunk.kind, bytes(chunk.data), box.shape, job.context)
        for chunk, box in zip(chunks, boxes, strict=True)
    )
    return job.grid.joined(blocks, job.voxels.dtype)


def _as_wavelets(
    voxels: Voxels,
    quality: Quality,
    context: DecodeContext,
    config: CompressConfig,
    *,
    threads: int,
    monitor: Monitor,
    keep: Keep,
) -> list[Payload]:
    tried: dict[float, Payload] = {}

    def measure(setting: float) -> float:
        room = Room(1.0, max(int(2.0**setting), 1), 0, 0)
        try:
            payload = code_wavelets(
                voxels, room, context, speed=config.speed, threads=threads,
                monitor=monitor.part(0.5, 0.9), keep=keep,
            )  # fmt: skip
        except ConfigError:  # too few bytes for any code
            return math.inf
        tried[setting] = payload
        job = Job(voxels, payload.grid, context, config.speed, threads, keep, monitor, False)
        return math.log2(max(quality.error_of(voxels, _decoded(job, payload.chunks)), 1e-300))

    chosen = seek(
        measure,
        math.log2(voxels.nbytes / 16),
        math.log2(quality.limit),
        slope=_BYTES_SLOPE,
        tolerance=_TOLERANCE,
        most=_WAVELET_TRIES,
    )
    return [] if chosen is None or chosen not in tried else [tried[chosen]]
