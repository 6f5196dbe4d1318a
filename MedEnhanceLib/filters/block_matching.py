"""Removes noise from groups of similar blocks of 4 × 4 × 4 voxels.

A first stage transforms each block by itself (DCT) and drops what does not stand out of the noise.
Each round then takes the result so far as *pilot*. For every reference block of a grid it searches
the most similar blocks of the pilot nearby. The mean of their noisy blocks passes a Wiener filter
in each frequency. What each block differs from that mean is estimated in the span of the pilot's
own differences: with the covariance C of these, the linear filter C (C + σ²)⁻¹. The overlapping
blocks are averaged.

Sources: groups of similar blocks and two stages, Dabov et al., IEEE Trans. Image Process. 16
(2007) 2080; in volumes, Maggioni et al., IEEE Trans. Image Process. 22 (2013) 119; mean and
covariance of a group instead of a transform, Lebrun et al., SIAM J. Imaging Sci. 6 (2013) 1665.
Written from these descriptions. Ours: the Wiener filter of the mean, the solution in as many
unknowns as a group has blocks, several rounds with more noise assumed than there is, and noise of
known spectrum.

Volumes pass as slabs from stage to stage: only slices near the present one are in memory. The
grid and the order of every sum depend on the whole volume alone, so that neither slabs nor threads
nor the width of vectors change a bit of the result. The work is done by the compiled library
(`native`) or, where that is missing and on CUDA devices, by `filters.torch_engine`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.core.arrays import Array, Floats, let_go, trim
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.filters.block_matching_run import Engine as Engine
from MedEnhanceLib.filters.block_matching_run import Level, Run, Stage, large_enough
from MedEnhanceLib.filters.layers import Round as Round
from MedEnhanceLib.filters.native_engine import NativeEngine
from MedEnhanceLib.native import CELLS, SIDE
from MedEnhanceLib.runtime import machine
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.filters.regions import Air

#: The first stage: its threshold in σ (2.7 as in BM3D), and steps of its grid.
_THRESHOLD = Round(step=2, keep=1, damp=2.7)
#: For magnetic resonance: white noise. Each round has a better pilot than the one before.
MR_ROUNDS = (Round(step=4), Round(step=4, damp=1.2), Round(step=3, damp=1.2))
#: For CT after the first stage alone: noise that neighbors share.
CT_ROUNDS = (Round(step=4, damp=2.0, apart=4), Round(step=3, damp=1.4))
#: Least relative variance of a frequency; none at all would mean infinite weights.
LEAST_SHARE = 1e-3
#: The heap is left in pieces, more of them with every slice, unless they go back to the system.
_PARTS_TO_A_TRIM = 8
#: What is done to results: takes the values, the input and the level of some slices, float32
#: [n, J, I], and returns an array of the result's type.
Finish = Callable[[Floats, Floats, Floats], Array]
#: What goes on from the results of the last two stages: gives the needed slices in order, in parts.
After = Callable[[Run, Sequence[Stage], slice], Iterator[Floats]]


def denoised(
    noisy: Array,
    level: Level,
    spectrum: Array | None = None,
    *,
    rounds: Sequence[Round] = MR_ROUNDS,
    pilot: Array | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    air: Air | None = None,
    engine: Engine | None = None,
    threads: int | None = None,
    only: slice | None = None,
    after: After | None = None,
    finish: Finish | None = None,
    out: Array | None = None,
    monitor: Monitor | None = None,
) -> Array:
    """Pass a volume through the threshold (unless there is a pilot), then the rounds.

    Args:
        noisy: [K, J, I], finite, any unit.
        level: σ of the noise at each voxel, same shape and unit, finite, ≥ 0. Where it is 0, the
            result is the input. A broadcast view serves for one σ.
        spectrum: [64], relative variance of the noise in each frequency of a block's cosine
            transform (slices first, then rows, columns); None for white noise.
        rounds: of the block-matching filter; each takes the result of the one before as pilot.
        pilot: an estimate to begin with instead of the threshold's, [K, J, I].
        spacing: mm along i, j, k, as in `Geometry`; along thick slices less is searched.
        air: where the pilot of the first round stays, if anywhere.
        engine: None for the compiled library, or PyTorch on the CPU where that is missing.
        threads: that compute at once; None for all that this process may use.
        only: slices that are returned; they equal those of a whole run.
        after: what goes on from the results of the last two stages, such as a network.
        finish: what is done to the results of some slices.
        out: where the returned slices go, of the type that `finish` returns; None for a new array
            in float32.
        monitor: for progress, cancel, and a notice where the library is missing.
    Returns:
        [K, J, I], or the slices of `only`; float32 where nothing finishes them.
    Raises:
        ValueError: shapes do not match, or an option is out of range.
        MedEnhanceError: a result is not finite.
        Cancelled: the monitor was asked to stop.
    """
    shape = noisy.shape
    if len(shape) != 3 or not noisy.size or level.shape != shape:
        raise ValueError(f"noisy {shape} and level {level.shape} must have one shape, [K, J, I]")
    monitor = monitor or Monitor()
    only = only or slice(0, shape[0])
    result = out if out is not None else np.empty((only.stop - only.start, *shape[1:]), np.float32)
    white = np.ones(CELLS) if spectrum is None else spectrum.reshape(CELLS)
    large, all_levels, needed = large_enough(noisy), level, only
    if large is not noisy:
        # What is mirrored repeats its noise, so less of it averages out.
        louder = math.prod(math.sqrt(SIDE / min(side, SIDE)) for side in shape)
        all_levels = large_enough(np.asarray(level[:], np.float32)) * np.float32(louder)
        needed, air = only if shape[0] >= SIDE else slice(0, SIDE), None
    with Run(
        large,
        all_levels,
        np.maximum(white, LEAST_SHARE).astype(np.float32),
        window=window_for(spacing),
        air=air,
        engine=engine or engine_for("cpu", monitor),
        threads=threads or machine.cpu_threads(),
        monitor=monitor,
    ) as run:
        stages = [Stage(large.shape, run.window, each) for each in rounds]
        if pilot is None:
            stages.insert(0, Stage(large.shape, (1, 1, 1), _THRESHOLD, "threshold"))
        if after is not None:
            stream = after(run, stages, needed)
        else:
            stream = run.stream(stages, needed, large if pilot is None else large_enough(pilot))
        at = needed.start
        for number, slab in enumerate(stream):
            if not np.isfinite(slab).all():
                raise MedEnhanceError(
                    f"the denoising filter computed values that are not finite, from slice {at} on",
                    "This is an error of MedEnhance. Report it, with the range of the intensities.",
                )
            for values in slab:
                if only.start <= at < only.stop:
                    part = values[None, : shape[1], : shape[2]]
                    here = slice(at, at + 1)
                    if finish is not None:
                        part = finish(part, noisy[here].astype(np.float32), level[here])
                    result[at - only.start] = part[0]
                at += 1
            let_go(result)
            let_go(noisy)
            if number % _PARTS_TO_A_TRIM == 0:
                trim()
            monitor.progress((at - needed.start) / (needed.stop - needed.start), "removing noise")
    return result


def window_for(spacing: Sequence[float]) -> tuple[int, int, int]:
    """Starting places of candidates along slices, rows, columns, for a spacing in mm along i, j, k.

    The full window for the smallest spacing, and as many mm along the others, but at least one
    place to each side.
    """
    least = min(spacing)
    sides = []
    for most, mm in zip(native.MOST_WINDOW, reversed(spacing), strict=True):
        radius = max(1, round((most - 1) // 2 * least / mm))
        sides.append(2 * radius + 1 + (most + 1) % 2)  # an even window has one place more ahead
    return sides[0], sides[1], sides[2]


def engine_for(device: str, monitor: Monitor) -> Engine:
    """What computes on a device: CUDA devices have the filter, other GPUs leave it to the CPU.

    There it is the compiled library; where that is missing PyTorch, with a notice.
    """
    is_cuda = device.startswith("cuda")
    library = None if is_cuda else native.load(monitor=monitor)
    if library is not None:
        return NativeEngine(library)
    from MedEnhanceLib.filters.torch_engine import TorchEngine

    return TorchEngine(device if is_cuda else "cpu", monitor)
