"""Measures how far the frames of a sequence are from their common place, for decisions alone.

Each frame is compared with what it shares with the others, its projection on the four strongest
images over time, whatever its contrast. What is left is fitted by the derivatives of the
projection: to first order, a frame moved by d differs from it by −d · gradient. Shifts and turns
within slices are fitted; large movements come out too small, as the others blur the projection.

Source: movement from derivatives, Horn & Schunck, Artif. Intell. 17 (1981) 185; the projection is
ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from MedEnhanceLib.core.arrays import Array, Floats, let_go, robust_max
from MedEnhanceLib.noise.sequence import FEWEST_MEASURED, TISSUE

# Tuned on these series (decision 0065). Measured again by Benchmarks/sequences.py.
#: Movement up to which frames are still. Real scans have .2 or less (one of 27 more); simulated
#: turns of 1° with shifts of half a voxel (1 SD) .2 to .6, of 4° with two voxels .6 to .95.
STILL = 0.5
#: Voxels of tissue that are compared.
_COMPARED = 20_000
#: Images over time that a frame is projected on.
_IMAGES = 4


def typical_movement(frames: Sequence[Array]) -> float:
    """Return the median over frames of their movement in tissue (RMS), in voxels of a slice.

    frames: [K, J, I] each. Returns 0 for fewer than five frames, or too little tissue.
    """
    mean: Floats = np.zeros(frames[0].shape, np.float32)
    for frame in frames:
        mean += frame / np.float32(len(frames))
        let_go(frame)
    inside = mean > TISSUE * robust_max(mean)
    inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    places = np.flatnonzero(inside)
    places = places[:: max(1, places.size // _COMPARED)]
    if len(frames) < FEWEST_MEASURED or places.size < 100:
        return 0.0
    sample = np.empty((len(frames), places.size))
    for row, frame in zip(sample, frames, strict=True):
        row[:] = frame.reshape(-1)[places]
        let_go(frame)
    basis = np.linalg.eigh(sample @ sample.T)[1][:, ::-1][:, :_IMAGES]
    images: Floats = np.zeros((_IMAGES, *mean.shape), np.float32)
    for weights, frame in zip(basis, frames, strict=True):
        for image, weight in zip(images, weights, strict=True):
            image += np.float32(weight) * frame
        let_go(frame)
    shown = images.reshape(_IMAGES, -1)[:, places]
    down, across = (
        np.gradient(images, axis=axis).reshape(_IMAGES, -1)[:, places] for axis in (2, 3)
    )
    _, j, i = (at - at.mean() for at in np.unravel_index(places, mean.shape))
    moved = []
    for row, weights in zip(sample, basis, strict=True):
        dj, di = weights @ down, weights @ across
        model = np.stack([dj, di, dj * i - di * j, *shown], axis=1)
        shift_j, shift_i, turn = np.linalg.lstsq(model, row - weights @ shown, rcond=None)[0][:3]
        squares = np.square(shift_j + turn * i) + np.square(shift_i - turn * j)
        moved.append(np.sqrt(squares.mean()))
    return float(np.median(moved))
