"""Codes a volume to a ratio or a quality: without loss where that fits, else what loses least."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.progress import Steps
from MedEnhanceLib.unicompress.allocation.near_lossless import (
    LEAST_BITS,
    code_bounded,
    code_within,
    estimate_bytes,
)
from MedEnhanceLib.unicompress.allocation.task import ROW_BYTES, SLACK, Payload, Room, Task
from MedEnhanceLib.unicompress.allocation.videos import (
    Quality,
    into_bytes,
    search_cost,
    smallest_of,
    to_quality,
)
from MedEnhanceLib.unicompress.blocks import video_grid
from MedEnhanceLib.unicompress.config import CompressConfig

#: Along each axis, for the window of SSIM to fit.
LEAST_EXTENT = 11
#: Coding without loss at full effort takes this much less than the fast estimate.
_EFFORT_GAIN = 1.15
#: About what steps take, for the progress, as multiples of the time of a quick coding.
_ESTIMATE_COST, _BOUNDED_COST = 0.5, 12.0
#: Whole numbers with so small a mean square error are nearly all as they were.
_NEXT_TO_NOTHING = 0.05
#: What the learned predictor takes of the estimate of a code without loss, at least.
_LEARNED_TAKES = 0.75


def code_to_ratio(task: Task, room: Room) -> Payload:
    """The best code within `room`: lossless if it fits, else what loses least.

    Raises ConfigError, naming what can be reached, where not even the coarsest code fits.
    """
    steps = Steps(task.monitor)
    task.monitor.progress(0.0, "compress")
    videos = search_cost(task)
    # Only a low ratio is tried with a bounded error.
    bounded = _BOUNDED_COST if 8 * room.file_bytes >= LEAST_BITS * task.voxels.size else 0.0
    expected = estimate_bytes(task.at(steps.next(_ESTIMATE_COST, bounded + videos)))
    if expected <= room.file_bytes * _EFFORT_GAIN:
        # Where it is tried, it most often fits.
        exact = code_bounded(
            replace(task, predictors=(), monitor=steps.next(videos, bounded)), None
        )
        budget, second_copy = room.for_payload(len(exact.chunks))
        if exact.bytes <= budget:
            return replace(exact, second_copy=second_copy)
    if room.for_payload(1)[0] <= 0:
        carried = int(task.voxels.nbytes / room.ratio) - room.file_bytes
        raise room.out_of_reach(task.voxels.nbytes, carried + room.once + ROW_BYTES + SLACK)
    within = code_within(
        task.at(steps.next(bounded, videos)), lambda chunks: room.for_payload(chunks)[0]
    )
    if within is not None:
        within = replace(within, second_copy=room.for_payload(len(within.chunks))[1])
    budget, second_copy = room.for_payload(len(video_grid(task.voxels.shape)))
    as_videos = into_bytes(task.at(steps.next(videos, 0)), budget, second_copy=second_copy)
    found = [payload for payload in (within, as_videos) if payload is not None]
    if not found:
        smallest = room.file_bytes - budget + smallest_of(task)
        raise room.out_of_reach(task.voxels.nbytes, smallest)
    return min(found, key=lambda payload: payload.tally.squared)


def code_to_quality(task: Task, quality: Quality) -> Payload:
    """Videos, coarser and finer until the quality is just kept; lossless if smaller."""
    voxels = task.voxels
    codable = 0 < quality.peak < math.inf and np.isfinite(voxels).all()
    is_whole = voxels.dtype.kind in "iu"
    if not codable or (is_whole and quality.psnr and quality.squared < _NEXT_TO_NOTHING):
        return code_bounded(task, None)
    found = to_quality(task.part(0.0, 0.9), quality)
    if found is not None and estimate_bytes(task) * _LEARNED_TAKES > found.bytes:
        return found
    exact = code_bounded(task.part(0.9, 1.0), None)
    return exact if found is None or exact.bytes < found.bytes else found


def check_quality(voxels: Voxels, config: CompressConfig, name: str) -> None:
    """Raise InputError where a volume is too small for the window of SSIM."""
    if config.ssim is not None and min(voxels.shape[-3:]) < LEAST_EXTENT:
        raise InputError(
            f"{name} has {' × '.join(map(str, voxels.shape[-3:]))} voxels: too few for SSIM, "
            f"whose window needs {LEAST_EXTENT} along each axis",
            "Choose a psnr instead.",
        )
