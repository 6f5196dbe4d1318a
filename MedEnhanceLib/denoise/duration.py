"""Estimates the duration of an enhancement before it begins."""

from __future__ import annotations

#: Seconds of one core for a million voxels of MR with AVX2 (CT takes fewer), as Benchmarks/speed.py
#: measures them. Then the seconds in which the compiled library is built.
_CORE_SECONDS, _BUILD_SECONDS = 0.9, 60
#: Seconds of a run that do not depend on the size of the volume.
START_SECONDS = 3.0
_STEP_SECONDS = 5
#: Seconds of one core for a million voxels of thin slices, and for a step of learning from them, on
#: an EPYC with AVX2; fewer by half with AVX-512. Measured again by Benchmarks/speed.py.
_CORE_SECONDS_OF_SLICES, _CORE_SECONDS_OF_A_STEP = 5.0, 0.18


def expected_seconds(
    millions: float,
    pace: float = 0.0,
    *,
    threads: int = 0,
    is_built_first: bool = False,
) -> int:
    """Estimate the seconds of a run, in steps of five; 0 if unknown.

    Args:
        millions: of voxels.
        pace: seconds for a million voxels in an earlier run; 0 if unknown.
        threads: of the processor, to estimate an unknown pace; 0: no estimate.
        is_built_first: whether it is built before the run.
    """
    if not pace and threads:
        pace = _CORE_SECONDS / threads
    if not pace:
        return 0
    seconds = START_SECONDS + pace * millions + (_BUILD_SECONDS if is_built_first else 0)
    return _STEP_SECONDS * max(1, round(seconds / _STEP_SECONDS))


def expected_seconds_of_slices(millions: float, steps: int, *, threads: int) -> int:
    """Estimate the seconds in which thin slices are restored on a CPU, in steps of five.

    Args:
        millions: of voxels of the result.
        steps: of learning from the slices, at most.
        threads: of the processor.
    """
    core_seconds = _CORE_SECONDS_OF_SLICES * millions + _CORE_SECONDS_OF_A_STEP * steps
    seconds = START_SECONDS + core_seconds / max(1, threads)
    return _STEP_SECONDS * max(1, round(seconds / _STEP_SECONDS))
