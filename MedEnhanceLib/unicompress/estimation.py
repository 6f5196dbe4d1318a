"""Estimates what compressing would give: a part of the volume is really coded, in a second or two.

What the part takes is carried over to the whole by how much neighboring voxels differ, which is
measured everywhere: air and anatomy take very different sizes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.core.arrays import Voxels, slabs
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.allocation.coding_task import CodingTask
from MedEnhanceLib.unicompress.allocation.lossy import Goal, code_to_quality, code_to_ratio
from MedEnhanceLib.unicompress.allocation.near_lossless import code_bounded
from MedEnhanceLib.unicompress.codec_models import DecodeContext
from MedEnhanceLib.unicompress.codecs.predictor.learned import shipped_predictors
from MedEnhanceLib.unicompress.config import CompressConfig, Mode, thread_count
from MedEnhanceLib.unicompress.encode import codable, draft_header, make_room, with_bound
from MedEnhanceLib.unicompress.parity import most_bytes

#: The part is runs of successive slices from all over the volume: how many runs, and slices of
#: each, at least; as a video, which is one run, slices; voxels.
_RUNS, _SLICES, _VIDEO_SLICES, _VOXELS = 4, 5, 24, 1 << 20
#: Every eighth row of every fourth slice is looked at for the differences of neighbors.
_ROW_STEP, _SLICE_STEP = 8, 4
#: Of a quality, what the full effort takes of the bytes of a coding at the fast pace.
_FULL_EFFORT = 0.95


@dataclass(frozen=True)
class Estimate:
    """About what `compress` would report; measured on some slices.

    file_bytes, ratio: of the file. max_error: the largest difference in the slices that were
    coded, in stored units; at a ratio the whole volume's is larger. psnr: in dB, None where
    nothing is lost. lossless: whether every voxel would be kept; a ratio that lossless coding
    reaches is. blocks, share: how many were coded, and which share of the voxels they hold.
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


def estimate(volume: Volume, config: CompressConfig, *, monitor: Monitor | None = None) -> Estimate:
    """Code a part of `volume` and estimate what the whole would take; arguments as `compress`."""
    began = time.monotonic()
    monitor = monitor or Monitor()
    monitor.progress(0.0, "sampling the volume")
    voxels = codable(volume, config)
    config, _ = with_bound(volume, config, monitor)
    header = draft_header(volume, voxels, config)
    peak, taken = header.peak, voxels.nbytes - make_room(header, voxels, 1.0).bytes
    goal = Goal(psnr=config.psnr, ssim=config.ssim, peak=peak)
    is_bounded = config.mode in ("lossless", "max_error")
    part = _part_of(voxels, is_bounded)
    # What is less than a step of a video's quantizer is no activity.
    unit = None if is_bounded else goal.step
    activity = _activity_of(voxels, unit) if part.size < voxels.size else 0.0
    share = _activity_of(part, unit) / activity if activity else part.size / voxels.size
    monitor.check()
    task = CodingTask(
        part,
        DecodeContext(voxels.dtype, header.range),
        config.speed if is_bounded else "fast",
        thread_count(config.threads),
        monitor,
        predictors=shipped_predictors(volume.modality) if config.speed != "fast" else (),
    )
    if is_bounded:
        payload = code_bounded(task, config.max_error)
    elif config.ratio is not None:
        room = make_room(header, voxels, config.ratio)
        payload = code_to_ratio(task, replace(room, bytes=round(room.bytes * share)))
    else:
        if config.psnr is not None:  # of the part the share of all errors that it has
            psnr = config.psnr - 10 * math.log10(voxels.size * share / part.size)
            goal = replace(goal, psnr=max(psnr, 1.0))
        payload = code_to_quality(task, goal)
    carried = 2 * sum(len(model.data) for model in payload.carried)
    if config.ratio is not None and not payload.tally.equal:
        file_bytes = voxels.nbytes / config.ratio
    else:
        effort = 1.0 if is_bounded or config.speed == "fast" else _FULL_EFFORT
        file_bytes = payload.bytes / share * effort + carried
        file_bytes += most_bytes(round(file_bytes)) + taken - most_bytes(voxels.nbytes)
    squared = payload.tally.squared / (part.size if is_bounded else share * voxels.size)
    monitor.progress(1.0, "estimated")
    return Estimate(
        mode=config.mode,
        raw_bytes=voxels.nbytes,
        file_bytes=round(file_bytes),
        ratio=voxels.nbytes / file_bytes,
        max_error=payload.tally.max_error,
        psnr=10 * math.log10(peak**2 / squared) if squared and 0 < peak < math.inf else None,
        lossless=payload.tally.equal,
        blocks=len(payload.chunks),
        share=part.size / voxels.size,
        seconds=time.monotonic() - began,
    )


def _part_of(voxels: Voxels, is_bounded: bool) -> Voxels:
    """Take runs of successive slices from all over the middle frame; one run for a video."""
    frames = voxels.reshape(-1, *voxels.shape[-3:])
    frame = frames[len(frames) // 2]
    runs, least = (_RUNS, _SLICES) if is_bounded else (1, _VIDEO_SLICES)
    if runs * least >= len(frame):
        runs, least = 1, len(frame)
    count = min(max(least, _VOXELS // (runs * frame[0].size)), len(frame) // runs)
    middles = ((2 * run + 1) * len(frame) // (2 * runs) for run in range(runs))
    starts = [middle - count // 2 for middle in middles]
    return np.concatenate([frame[start : start + count] for start in starts])


def _activity_of(voxels: Voxels, unit: float | None = None) -> float:
    """Sum logarithms of neighbors' differences, in units (None: the smallest step)."""
    if voxels.shape[-1] < 2:
        return 0.0
    bits, seen = 0.0, 0
    for part in slabs(voxels):
        rows = part[::_SLICE_STEP, ::_ROW_STEP]
        steps = np.abs(np.diff(rows.astype(np.float32), axis=-1))
        seen += rows.size
        if unit is None and voxels.dtype.kind == "f":
            # Of floats kept exactly most bits are noise: what counts is where they differ at all.
            bits += float(np.count_nonzero(steps))
        else:
            steps /= np.float32(unit or 1)
            bits += float(np.log2(steps + 1, dtype=np.float32).sum(dtype=np.float64))
    return bits * voxels.size / seen
