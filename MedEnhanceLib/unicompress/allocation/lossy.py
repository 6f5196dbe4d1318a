"""Codes a volume to a ratio or a quality: without loss where that fits, else what loses least."""

from __future__ import annotations

import math

import numpy as np

from MedEnhanceLib.runtime.progress import Steps
from MedEnhanceLib.unicompress.allocation.near_lossless import (
    LEAST_BITS,
    code_bounded,
    code_within,
    expected_bytes,
)
from MedEnhanceLib.unicompress.allocation.task import Payload, Room, Task
from MedEnhanceLib.unicompress.allocation.videos import Goal, into_bytes, search_cost, to_quality
from MedEnhanceLib.unicompress.blocks import video_grid

#: About what an error bound takes, if one is tried or not, as multiples of a quick video's time.
_BOUNDED_COST, _UNTRIED_COST = 12.0, 0.5
#: Whole numbers with so small a mean square error are nearly all as they were.
_NEXT_TO_NOTHING = 0.05


def code_to_ratio(task: Task, room: Room) -> Payload:
    """The best code within `room`: lossless if it fits, else what loses least.

    Raises ConfigError where not even the coarsest code fits.
    """
    steps, videos = Steps(task.monitor), search_cost(task)
    task.monitor.progress(0.0, "compress")
    is_low = 8 * room.bytes >= LEAST_BITS * task.voxels.size
    within = code_within(
        task.at(steps.next(_BOUNDED_COST if is_low else _UNTRIED_COST, videos)), room
    )
    if within is not None and within.tally.equal:
        return within
    budget = room.for_chunks(len(video_grid(task.voxels.shape)))
    as_videos = into_bytes(task.at(steps.next(videos, 0)), budget)
    codes = [payload for payload in (within, as_videos) if payload is not None]
    if not codes:
        raise room.out_of_reach()
    return min(codes, key=lambda payload: payload.tally.squared)


def code_to_quality(task: Task, goal: Goal) -> Payload:
    """Videos, coarser and finer until the quality is just kept; lossless if smaller."""
    voxels = task.voxels
    codable = 0 < goal.peak < math.inf and np.isfinite(voxels).all()
    is_whole = voxels.dtype.kind in "iu"
    if not codable or (is_whole and goal.psnr and goal.squared < _NEXT_TO_NOTHING):
        return code_bounded(task, None)
    lossy = to_quality(task.part(0.0, 0.9), goal)
    if lossy is not None and expected_bytes(task, None) > lossy.bytes:
        return lossy
    exact = code_bounded(task.part(0.9, 1.0), None)
    return exact if lossy is None or exact.bytes < lossy.bytes else lossy
