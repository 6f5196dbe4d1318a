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

from MedEnhanceLib.core.arrays import (
    Array,
    Doubles,
    Floats,
    Numbers,
    let_go,
    parts_of,
    robust_max,
)
from MedEnhanceLib.noise.sequence import FEWEST_MEASURED, TISSUE
from MedEnhanceLib.noise.tissue_blocks import TINY
from MedEnhanceLib.runtime.machine import blas_on_one_thread

# Tuned on these series (decision 0065). Measured again by Benchmarks/sequences.py.
#: Movement up to which frames are still. Real scans have .2 or less (one of 27 more); simulated
#: turns of 1° with shifts of half a voxel (1 SD) .2 to .6, of 4° with two voxels .6 to .95.
STILL = 0.5
#: Voxels of tissue that are compared.
_COMPARED = 20_000
#: Images over time that a frame is projected on, and frames that are read at once.
_IMAGES, _AT_ONCE = 4, 16
#: Least share of the normal equations' largest eigenvalue: less is rounding.
_LEAST_PART = 1e-10


@blas_on_one_thread
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
    weights = np.linalg.eigh(sample @ sample.T)[1][:, ::-1][:, :_IMAGES]
    slopes = np.zeros((_IMAGES, 2, places.size))
    for some in parts_of(0, len(frames), _AT_ONCE):
        of_frames = np.stack([_slopes(frame, places) for frame in frames[some]])
        slopes += np.tensordot(weights[some].T, of_frames, 1)
    _, j, i = (at - at.mean() for at in np.unravel_index(places, mean.shape))
    down, across = slopes[:, 0], slopes[:, 1]
    terms = np.stack([down, across, down * i - across * j, weights.T @ sample])
    shift_j, shift_i, turn = _fitted(sample, weights, terms)
    # The mean over places, which are around 0.
    squares = shift_j**2 + shift_i**2 + turn**2 * np.mean(j**2 + i**2)
    return float(np.median(np.sqrt(squares)))


def _slopes(frame: Array, places: Numbers) -> Doubles:
    """Return the derivatives of a frame [K, J, I] along rows and columns at places inside: [2, n]."""
    voxels, ahead = frame.reshape(-1), (frame.shape[2], 1)
    pairs = [voxels[places + step].astype(float) - voxels[places - step] for step in ahead]
    let_go(frame)
    return np.stack(pairs) / 2


def _fitted(sample: Doubles, weights: Doubles, terms: Doubles) -> Doubles:
    """Fit each frame by three terms in its weights, and by all of the fourth: [3, T].

    sample: [T, n]. weights: [T, images]. terms: [4, images, n].
    """
    count, images = weights.shape
    every = terms.reshape(-1, terms.shape[2])
    model = np.zeros((count, 3 + images, len(every)))  # of each frame, in `every`
    for number in range(3):
        model[:, number, number * images : (number + 1) * images] = weights
    model[:, 3:, -images:] = np.eye(images)
    products = model @ (every @ every.T) @ model.transpose(0, 2, 1)
    scale = 1 / np.sqrt(np.maximum(np.diagonal(products, axis1=1, axis2=2), TINY))
    inverse = np.linalg.pinv(
        products * scale[:, :, None] * scale[:, None], rcond=_LEAST_PART, hermitian=True
    )
    answers = (model @ (sample @ every.T)[:, :, None])[..., 0]
    solved: Doubles = scale * (inverse @ (scale * answers)[..., None])[..., 0]
    return solved[:, :3].T
