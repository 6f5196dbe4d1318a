"""Estimates the result of compressing: a part of the volume is really coded, in a second or two.

The part's bytes are scaled to the whole by second differences of neighboring voxels, which are
measured everywhere: air and anatomy take very different sizes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.core.arrays import Voxels, slabs
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.machine import blas_on_one_thread
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.allocation.coding_task import CodedBlocks, CodingTask
from MedEnhanceLib.unicompress.allocation.goals import QualityGoal, first_step
from MedEnhanceLib.unicompress.allocation.lossy import code_to_quality, code_to_ratio
from MedEnhanceLib.unicompress.allocation.near_lossless import code_bounded
from MedEnhanceLib.unicompress.codec_models import DecodeContext
from MedEnhanceLib.unicompress.codecs.predictor.learned import shipped_predictors
from MedEnhanceLib.unicompress.config import CompressConfig, Mode, thread_count
from MedEnhanceLib.unicompress.container import bytes_of
from MedEnhanceLib.unicompress.encode import draft_header, room_for_chunks, valid_voxels
from MedEnhanceLib.unicompress.header import Header

# Tuned on other volumes: sizes 3.3 % off at most. Measured again by Benchmarks/compression.py.
#: The part is one run of slices, as predictors and videos use the slices before: where several runs
#: meet, they fail, and quiet volumes seem up to a fifth larger. Fewest slices, and voxels.
_SLICES, _VOXELS = 24, 1 << 20
#: Every eighth row of every fourth slice is read for the differences of neighbors.
_ROW_STEP, _SLICE_STEP = 8, 4
#: For a quality: bytes at the speed normal as a share of those at the speed fast.
_FULL_EFFORT = 0.95


@dataclass(frozen=True)
class Estimate:
    """About what `compress` would report; measured on some slices.

    Attributes:
        file_bytes, ratio: of the file.
        max_error: the largest difference in the slices that were coded, in stored units; at a ratio
            the whole volume's is larger.
        psnr: in dB, None where nothing is lost.
        lossless: whether every voxel would be kept, as at a ratio that lossless coding reaches.
        blocks: how many were coded.
        share: of the voxels, which these blocks hold.
    """

    mode: Mode
    raw_bytes: int
    file_bytes: int
    ratio: float
    max_error: float
    psnr: float | None
    lossless: bool
    blocks: int
    share: float
    seconds: float

    def __repr__(self) -> str:
        quality = "" if self.psnr is None else f", PSNR about {self.psnr:.1f} dB"
        smaller = f"about {self.file_bytes:,} bytes, {self.ratio:.2f} times smaller"
        return f"<Estimate: {self.mode}, {smaller}{quality}>"


@blas_on_one_thread
def estimate(volume: Volume, config: CompressConfig, *, monitor: Monitor | None = None) -> Estimate:
    """Code a part of a volume and estimate what the whole would take.

    Args:
        volume: as of `compress`; so are the errors.
        config: the compression mode, its number and the speed.
        monitor: receives progress and warnings, and may cancel.
    """
    began = time.monotonic()
    monitor = monitor or Monitor()
    monitor.progress(0.0, "sampling the volume")
    voxels = valid_voxels(volume, config)
    header = draft_header(volume, voxels, config)
    sample = _Sample.of(voxels, config, header.peak)
    monitor.check()
    payload = _coded(sample, header, config, monitor)
    file_bytes = _file_bytes(sample, payload, header, config)
    psnr = payload.tally.psnr(header.peak)
    if psnr is not None and not config.is_bounded:
        psnr += sample.quieter_db
    monitor.progress(1.0, "estimated")
    return Estimate(
        mode=config.mode,
        raw_bytes=voxels.nbytes,
        file_bytes=round(file_bytes),
        ratio=voxels.nbytes / file_bytes,
        max_error=payload.tally.max_error,
        psnr=psnr,
        lossless=payload.tally.equal,
        blocks=len(payload.chunks),
        share=sample.voxels.size / voxels.size,
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True)
class _Sample:
    """A part of a volume.

    Attributes:
        whole: voxels of the volume.
        voxels: of the part, [K, J, I].
        share: of the bytes and the error of the whole that are in the part.
    """

    whole: Voxels
    voxels: Voxels
    share: float

    @classmethod
    def of(cls, voxels: Voxels, config: CompressConfig, peak: float) -> _Sample:
        """Take a part that suits the mode."""
        part = _part_of(voxels)
        # Differences below a video's quantizer step are no activity.
        unit = None if config.is_bounded else first_step(peak, config.psnr)
        activity = _activity_of(voxels, unit) if part.size < voxels.size else 0.0
        share = _activity_of(part, unit) / activity if activity else part.size / voxels.size
        return cls(voxels, part, share)

    @property
    def quieter_db(self) -> float:
        """PSNR of the whole less that of the part, whose voxels have a larger error, in dB."""
        return 10 * math.log10(self.whole.size * self.share / self.voxels.size)


def _coded(
    sample: _Sample, header: Header, config: CompressConfig, monitor: Monitor
) -> CodedBlocks:
    """Code the part as the whole would be: it gets its share of the bytes or of the error."""
    task = CodingTask(
        sample.voxels,
        DecodeContext(header.dtype, header.range),
        config.speed if config.is_bounded else "fast",
        thread_count(config.threads),
        monitor,
        predictors=shipped_predictors(header.modality, config.speed)
        if config.has_predictor
        else (),
    )
    if config.psnr is not None:
        psnr = max(config.psnr - sample.quieter_db, 1.0)
        return code_to_quality(task, QualityGoal(psnr, header.peak))
    if config.ratio is None:
        return code_bounded(task, config.max_error)
    room = room_for_chunks(header, sample.whole, config.ratio)
    return code_to_ratio(task, replace(room, bytes=round(room.bytes * sample.share)))


def _file_bytes(
    sample: _Sample, payload: CodedBlocks, header: Header, config: CompressConfig
) -> float:
    """Scale the bytes of a coded part to the file of the whole volume."""
    raw_bytes = sample.whole.nbytes
    if config.ratio is not None and not payload.tally.equal:
        return raw_bytes / config.ratio
    effort = 1.0 if config.is_bounded or config.speed == "fast" else _FULL_EFFORT
    models = bytes_of(payload.with_models()) - payload.bytes
    chunks = payload.bytes / sample.share * effort + models
    head = raw_bytes - room_for_chunks(header, sample.whole, 1.0).bytes
    return chunks + head


def _part_of(voxels: Voxels) -> Voxels:
    """Take successive slices from the middle of the middle frame."""
    frames = voxels.reshape(-1, *voxels.shape[-3:])
    frame = frames[len(frames) // 2]
    count = min(max(_SLICES, _VOXELS // frame[0].size), len(frame))
    start = (len(frame) - count) // 2
    part: Voxels = frame[start : start + count]
    return part


def _activity_of(voxels: Voxels, unit: float | None = None) -> float:
    """Sum logarithms of what a line through two neighbors is off the third.

    Predictors continue slopes: in smooth volumes plain differences say little about bytes.

    unit: of the difference; None for the smallest step.
    """
    if voxels.shape[-1] < 3:
        return 0.0
    bits, seen = 0.0, 0
    for part in slabs(voxels):
        rows = part[::_SLICE_STEP, ::_ROW_STEP]
        steps = np.abs(np.diff(rows.astype(np.float32), n=2, axis=-1)) / 2
        seen += rows.size
        if unit is None and voxels.dtype.kind == "f":
            # Most bits of exact floats are noise: only whether neighbors differ counts.
            bits += float(np.count_nonzero(steps))
        else:
            steps /= np.float32(unit or 1)
            bits += float(np.log2(steps + 1, dtype=np.float32).sum(dtype=np.float64))
    return bits * voxels.size / seen
