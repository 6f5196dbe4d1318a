"""Codes a volume to a low ratio with a bounded error: where bytes are many, that loses least.

Above about a bit for each voxel there is little left that transforms could gather: equal steps
for every voxel and a predictor that knows its noise beat them, by up to some dB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.blocks import coding_grid
from MedEnhanceLib.unicompress.bounded import Payload, code_bounded, pieces_of
from MedEnhanceLib.unicompress.candidates import code_block
from MedEnhanceLib.unicompress.coders import STACKED
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.learned import Predictor, would_take
from MedEnhanceLib.unicompress.spool import Keep

#: Bits for each voxel from which on this is tried.
LEAST_BITS = 1.0
#: A predictor that was taught the volume takes so much less than is told beforehand.
_TAUGHT = 1.05
_MOST_BOUND = 1 << 12
_TRIES = 3
#: A header's name of a model, and the row of its chunk.
_NAMED = 300


def code_within(
    voxels: Voxels,
    budget: Callable[[int], int],
    *,
    speed: Speed,
    threads: int,
    monitor: Monitor,
    keep: Keep,
    predictors: Sequence[Predictor],
) -> Payload | None:
    """The code with the smallest bound found that fits; None where none is to be expected.

    budget: chunks → bytes that there are for them.
    """
    chunks = len(coding_grid(voxels.shape))
    room = budget(chunks)
    if voxels.dtype.kind not in "iu" or 8 * room < LEAST_BITS * voxels.size:
        return None
    bound = _first_bound(voxels, room * _TAUGHT, predictors if speed != "fast" else ())
    for turn in range(_TRIES):
        if bound > _MOST_BOUND:
            return None
        payload = code_bounded(
            voxels, bound, speed=speed, threads=threads, predictors=predictors, keep=keep,
            monitor=monitor.part(turn / _TRIES, (turn + 1) / _TRIES),
        )  # fmt: skip
        models = sum(2 * len(model.data) for model in payload.carried)
        if payload.bytes + models + _NAMED * len(payload.models) <= budget(len(payload.chunks)):
            return payload
        bound += 1 + bound // 8
    return None


def _first_bound(voxels: Voxels, room: float, predictors: Sequence[Predictor]) -> int:
    """The smallest bound whose size, told from a few pieces, is at most `room`."""
    pieces = pieces_of(voxels)
    share = sum(piece.size for piece in pieces) / voxels.size

    def size(bound: int) -> float:
        if predictors:
            told = min(
                sum(would_take(predictor, piece, bound) for piece in pieces)
                for predictor in predictors
            )
            if np.isfinite(told):
                return told / share
        codes = (code_block(piece, bound, speed="fast", variants=(STACKED,)) for piece in pieces)
        return sum(len(code.data) for code in codes) / share

    high = 1
    while size(high) > room and high <= _MOST_BOUND:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if size(middle) <= room else (middle, high)
    return high
